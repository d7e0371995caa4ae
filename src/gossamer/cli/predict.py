"""`gossamer predict`."""

from __future__ import annotations

import argparse

from gossamer.cli.arguments import add_batch, add_runtime, add_threads, positive
from gossamer.cli.result import Result
from gossamer.host.progress import Progress


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="model file or run folder")
    parser.add_argument("images", nargs="+", help="images or folders")
    parser.add_argument("--top", type=positive, default=1, help="classes to name")
    add_batch(parser, 32)
    parser.add_argument("--draw", default="", metavar="FOLDER", help="also draw the boxes or masks into this folder")
    add_threads(parser)
    add_runtime(parser)


def run(options: argparse.Namespace, progress: Progress) -> Result:
    from gossamer.runtime.predict import predict_files
    from gossamer.training.load_target import load_target

    model = load_target(options.model, runtime=options.runtime, threads=options.threads)
    progress.say(f"{model.runtime_name}: {model.why}")
    predictions = predict_files(model, options.images, top=options.top, batch=options.batch, progress=progress)
    if options.draw:
        from gossamer.runtime.drawing import draw_files

        predictions = draw_files(predictions, model.need_metadata(), options.images, options.draw)
    lines, values, readable = [], [], 0
    for prediction in predictions:
        readable += not prediction.error
        problem = prediction.error.removeprefix(f"{prediction.source}: ")  # the line begins with the source already
        lines.append(f"{prediction.source}: {problem or prediction.text()}")
        values.append(prediction.to_json())
    return Result(
        "\n".join(lines),
        {"model": str(options.model), "runtime": model.runtime_name, "predictions": values},
        0 if readable else 2,
    )

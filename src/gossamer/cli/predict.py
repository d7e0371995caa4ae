"""`gossamer predict`."""

from __future__ import annotations

import argparse

from gossamer.cli.arguments import add_batch, add_runtime, add_threads, fraction, positive
from gossamer.cli.result import Result
from gossamer.host.progress import Progress, one_line

SHOWN = 0.3  # predictions.spatial.SHOWN, which needs numpy to be imported; a test holds the two equal

EXAMPLES = (
    "gossamer predict flowers.onnx a.jpg --top 3",
    "gossamer predict signs.onnx photos/ --threshold 0.5 --draw drawn/",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="model file or run folder")
    parser.add_argument("images", nargs="+", help="images or folders")
    parser.add_argument("--top", type=positive, default=1, metavar="N", help="classes to print (default 1)")
    parser.add_argument(
        "--threshold",
        type=fraction,
        default=None,
        metavar="X",
        help=f"minimum score of a box or label, 0 to 1 (default: boxes {SHOWN:g} in text and drawings, and in --json the "
        "model's own, 0.01 unless trained with another; labels the model's own, 0.5)",
    )
    parser.add_argument(
        "--iou",
        type=fraction,
        default=None,
        metavar="X",
        help="IoU threshold of non-maximum suppression, 0 to 1 (default: the model's own, 0.5)",
    )
    parser.add_argument(
        "--max-boxes", type=positive, default=None, metavar="N", help="boxes per image (default: the model's own, 100)"
    )
    add_batch(parser, 32)
    parser.add_argument(
        "--draw",
        default="",
        metavar="FOLDER",
        help="also draw the predictions into this folder: boxes, masks with a legend, classes, labels, numbers; of an "
        "embedder each image beside those most similar to it",
    )
    add_threads(parser)
    add_runtime(parser)


def run(options: argparse.Namespace, progress: Progress) -> Result:
    from gossamer.predictions.limits import DecodingLimits
    from gossamer.runtime.predict import predict_files
    from gossamer.training.load_target import load_target

    limits = DecodingLimits(options.threshold, options.iou, options.max_boxes)
    model = load_target(options.model, runtime=options.runtime, threads=options.threads)
    progress.say(f"{model.runtime_name}: {model.why}")
    predictions = predict_files(
        model, options.images, top=options.top, batch=options.batch, progress=progress, limits=limits
    )
    heads = model.need_metadata().heads
    if options.draw:
        from gossamer.runtime.drawing import draw_files

        predictions = draw_files(predictions, model.need_metadata(), options.images, options.draw)
    lines, values, readable = [], [], 0
    for prediction in predictions:
        readable += not prediction.error
        problem = prediction.error.removeprefix(f"{prediction.source}: ")  # the line begins with the source already
        lines.append(f"{one_line(prediction.source)}: {problem or prediction.text()}")
        values.append(prediction.to_json())
    decoding = limits.in_effect(heads, SHOWN)
    return Result(
        "\n".join(lines),
        {
            "model": str(options.model),
            "runtime": model.runtime_name,
            **({"decoding": decoding} if decoding else {}),
            "predictions": values,
        },
        0 if readable else 2,
    )

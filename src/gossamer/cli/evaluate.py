"""`gossamer eval`."""

from __future__ import annotations

import argparse

from gossamer.cli.arguments import add_batch, add_runtime, add_which, whole_number
from gossamer.cli.result import Result
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer eval runs/flowers",
    "gossamer eval flowers.onnx photos/val --json",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="run folder or model file")
    parser.add_argument("data", nargs="?", default="", help="images; default the run's validation images")
    add_which(parser, "a run")
    add_batch(parser, 64)
    parser.add_argument(
        "--split", choices=("train", "val", "test"), help="default: val of a run's own data; test of DATA, or else val"
    )
    parser.add_argument(
        "--ignore-index", type=whole_number, default=None, metavar="N", help="masks: value of the pixels to ignore"
    )
    add_runtime(parser)


def run(options: argparse.Namespace, progress: Progress) -> Result:
    from gossamer.targets import FILES, target_of

    target_of(options.model, ("run", *FILES))  # before torch is loaded
    from gossamer.training.evaluate_target import evaluate_target

    notes: list[str] = []
    scores = evaluate_target(
        options.model,
        options.data,
        split=options.split or "",
        which=options.which,
        runtime=options.runtime,
        ignore_index=options.ignore_index,
        batch=options.batch,
        progress=progress,
        notes=notes,
    )
    return Result(scores.text(), {**scores.to_json(), "notes": notes})

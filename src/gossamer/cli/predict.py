"""`gossamer predict`."""

from __future__ import annotations

import argparse

from gossamer.cli.arguments import add_batch, add_runtime, add_threads, check_without, fraction, positive
from gossamer.cli.result import Result
from gossamer.errors import SettingsError
from gossamer.host.progress import Progress, one_line

TYPE_CHECKING = False  # as typing has it, whose import the help need not wait for
if TYPE_CHECKING:
    from gossamer.batch.predict import BatchResult
    from gossamer.batch.status import BatchStatus

SHOWN = 0.3  # predictions.spatial.SHOWN, which needs numpy to be imported; a test holds the two equal

# flags that --status has no use for, and their defaults
WITHOUT_STATUS = {
    **dict.fromkeys(("out", "draw", "ray"), ""),
    **dict.fromkeys(("threshold", "iou", "max_boxes", "workers", "format"), None),
    "top": 1,
    "batch": 32,
    "threads": 0,
    "runtime": "auto",
}

EXAMPLES = (
    "gossamer predict flowers.onnx a.jpg --top 3",
    "gossamer predict signs.onnx photos/ --threshold 0.5 --draw drawn/",
    "gossamer predict flowers.onnx shards/ photos/ --out answers/ --workers 2",
    "gossamer predict flowers.onnx shards/ --out answers/ --ray auto",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="model file or run folder")
    parser.add_argument("images", nargs="*", help="images or folders; with --out also .tar shards")
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
    many = parser.add_argument_group("for many images, into a folder that can be resumed")
    many.add_argument(
        "--out",
        default="",
        metavar="FOLDER",
        help="write one row per image into this folder; the same command again does what is missing",
    )
    many.add_argument(
        "--workers", type=positive, default=None, metavar="N", help="processes with --out (default: one per core)"
    )
    many.add_argument(
        "--format", default=None, metavar="jsonl|parquet", help="of the rows with --out: jsonl (default) or parquet"
    )
    many.add_argument(
        "--ray",
        default="",
        metavar="auto|local|ADDRESS",
        help="the workers with --out are those of a Ray cluster: a running one or one on this machine, or ray://HOST:PORT",
    )
    many.add_argument(
        "--status", default="", metavar="FOLDER", help="print how far such a folder is, and do nothing else"
    )


def run(options: argparse.Namespace, progress: Progress) -> Result | BatchResult | BatchStatus:
    if options.status:
        if options.model is not None:
            raise SettingsError("predict --status with a model", "--status FOLDER alone", "leave it out")
        check_without(options, "--status", WITHOUT_STATUS, given=True)
        from gossamer.batch.status import batch_status

        return batch_status(options.status)
    required = [name for name in ("model", "images") if not getattr(options, name)]
    if required:
        raise SettingsError(
            f"predict: the following arguments are required: {', '.join(required)}",
            "what `gossamer predict --help` lists",
            "check the arguments",
        )
    if options.out:
        return _many(options, progress)
    for name in ("workers", "format", "ray"):
        if getattr(options, name):
            raise SettingsError(f"predict --{name} without --out", "--out FOLDER", "add it, or leave it out")
    return _printed(options, progress)


def _many(options: argparse.Namespace, progress: Progress) -> BatchResult:
    """Rows in a folder."""
    from gossamer.batch.predict import predict_many

    if options.draw:
        raise SettingsError("predict --out with --draw", "one of them", "draw some images in a command of its own")
    return predict_many(
        options.model,
        options.images,
        options.out,
        options.workers or 0,
        top=options.top,
        batch=options.batch,
        threshold=options.threshold,
        iou=options.iou,
        max_boxes=options.max_boxes,
        runtime=options.runtime,
        threads=options.threads,
        format="jsonl" if options.format is None else options.format,
        ray=options.ray,
        progress=progress,
    )


def _printed(options: argparse.Namespace, progress: Progress) -> Result:
    """Predictions on standard output."""
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

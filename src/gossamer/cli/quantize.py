"""`gossamer quantize`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import add_which, check_without, number, positive, whole_number
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer quantize runs/flowers --out flowers.int8.onnx",
    "gossamer quantize flowers.onnx --images photos/train --out flowers.int8.onnx",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="run folder, or a float ONNX file")
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write, as flowers.int8.onnx")
    parser.add_argument(
        "--images",
        nargs="+",
        default=(),
        metavar="PATH",
        help="files and folders to calibrate with; default a run's training images",
    )
    parser.add_argument(
        "--count", type=positive, default=128, metavar="N", help="images to calibrate with (default %(default)s)"
    )
    parser.add_argument(
        "--max-drop",
        type=number,
        default=None,
        metavar="POINTS",
        help="points of 100 that the run's score may lose; layers stay in float until it holds, those first that regain the most "
        "for a millisecond",
    )
    parser.add_argument(
        "--weight-bits",
        type=whole_number,
        default=8,
        choices=(7, 8),
        help="7 is exact where products of bytes saturate (AVX2)",
    )
    parser.add_argument("--keep", nargs="+", default=(), metavar="LAYER", help="layers that stay in float")
    parser.add_argument(
        "--layers",
        action="store_true",
        help="measure the noise of each layer alone, and its milliseconds in float and int8",
    )
    parser.add_argument(
        "--round-seconds",
        type=number,
        default=0.0,
        metavar="S",
        help="time for rounding weights by what each layer computes, not to the nearest byte (default 0, none)",
    )
    parser.add_argument(
        "--qat-minutes",
        type=number,
        default=None,
        metavar="M",
        help="train a run's network with the roundings of its int8 file for so long, the float network as teacher",
    )
    parser.add_argument(
        "--qat-epochs", type=number, default=None, metavar="E", help="the same by epochs, which depend on no clock"
    )
    parser.add_argument(
        "--qat-lr",
        type=number,
        default=0.02,
        metavar="STEPS",
        help="rounding steps of a weight that one update moves it at most (default %(default)s)",
    )
    parser.add_argument(
        "--report", action="store_true", help="write a page beside the file, as flowers.int8.html; measures the layers"
    )
    add_which(parser, "a run")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.shrink.quantise import quantize

    if options.qat_minutes is None and options.qat_epochs is None:
        check_without(options, "--qat-minutes or --qat-epochs", {"qat_lr": 0.02}, given=False)
    if options.report:
        check_page(options.model, options.out)
    result = quantize(
        options.model,
        options.out,
        images=options.images,
        count=options.count,
        max_drop=options.max_drop,
        weight_bits=options.weight_bits,
        keep=options.keep,
        layers=options.layers or options.report,
        round_seconds=options.round_seconds,
        qat_minutes=options.qat_minutes,
        qat_epochs=options.qat_epochs,
        qat_lr=options.qat_lr,
        which=options.which,
        progress=progress,
    )
    if options.report:
        from gossamer.shrink.quantise_page import write_quantised_page

        progress.say(f"writing {write_quantised_page(result, options.model, options.which, progress)}")
    return result


def check_page(model: str, out: str) -> None:
    """Refuse, before minutes of measuring, a page that could not be written. Raises InputError, MissingPackageError."""
    from gossamer.charts.page import environment
    from gossamer.shrink.quantise_page import page_of
    from gossamer.shrink.recipe.page import FOLDER
    from gossamer.targets import check_result

    environment(FOLDER, "the page of a quantisation")
    check_result(page_of(out), model)

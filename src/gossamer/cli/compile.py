"""`gossamer compile`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.errors import SettingsError
from gossamer.host.progress import Progress

EXAMPLES = ("gossamer compile flowers.onnx --out flowers.goss",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="ONNX file, ours or any other of a convolutional network")
    parser.add_argument("--out", required=True, metavar="FILE", help="the .goss file to write")
    parser.add_argument(
        "--precision",
        default="auto",
        metavar="auto|fp32|bf16",
        help="auto (default): bf16 where an int8 file of gossamer says that its layers in float were chosen for it and this "
        "processor has it, else fp32; what a QDQ file has in int8 stays int8",
    )
    parser.add_argument(
        "--classifier",
        default="same",
        metavar="same|int8",
        help="same (default), or int8: the last layers' weights in bytes, for speed and size",
    )
    parser.add_argument(
        "--metadata", default=None, metavar="FILE", help="the exported file that this one was quantised from"
    )
    parser.add_argument("--input", default="", metavar="HxW", help="static input size of a file with dynamic ones")
    parser.add_argument(
        "--force", action="store_true", help="write OUT.unverified.goss where the outputs differ from the ONNX file's"
    )
    parser.add_argument(
        "--images", nargs="*", default=[], metavar="PATH", help="images and folders to compare the predictions on"
    )


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.runtime.compilation import compile_model
    from gossamer.settings.parse import parse_size
    from gossamer.targets import target_of

    precision = {"fp32": "float32", "bf16": "bfloat16"}.get(options.precision, options.precision)
    if precision == "int8":
        raise SettingsError(
            "--precision int8",
            "auto, fp32 and bf16; int8 is what a calibrated QDQ file has",
            "quantise the ONNX file, and compile that with --metadata and the original",
        )
    target_of(options.model, ("model file",))
    size = parse_size(options.input) if options.input else None
    return compile_model(
        options.model,
        options.out,
        precision,
        options.images,
        progress,
        options.classifier,
        options.metadata,
        size,
        options.force,
    )

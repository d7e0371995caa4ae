"""`gossamer export`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import add_which
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer export runs/flowers --out flowers.onnx",
    "gossamer export flowers.onnx --to litert --out flowers.tflite",
)
DEFAULTS = {"which": "best", "licence": "unspecified"}


def arguments(parser: argparse.ArgumentParser) -> None:
    from gossamer.export.table import FORMATS

    names = ", ".join(FORMATS)
    parser.add_argument("run", help="run folder, or for litert a model file (.onnx) as well")
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--to", default="", metavar="FORMAT", help=f"{names}; default by the suffix of --out")
    add_which(parser, "the run")
    parser.add_argument("--licence", default="unspecified", metavar="TEXT", help="licence of the model, e.g. CC-BY-4.0")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.errors import SettingsError
    from gossamer.targets import target_of

    kind = target_of(options.run, ("run", "model file")).kind
    from gossamer.export.formats import export, export_file

    if kind == "model file":
        given = [name for name in ("which", "licence") if getattr(options, name) != DEFAULTS[name]]
        if given:
            raise SettingsError(f"--{given[0]} with a model file", "a run folder with it", "leave it out")
        return export_file(options.run, options.out, to=options.to, progress=progress)
    return export(
        options.run,
        options.out,
        to=options.to,
        which=options.which,
        licence=options.licence,
        progress=progress,
    )

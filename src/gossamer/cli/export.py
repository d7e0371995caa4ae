"""`gossamer export`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import add_which
from gossamer.host.progress import Progress

EXAMPLES = ("gossamer export runs/flowers --out flowers.onnx",)


def arguments(parser: argparse.ArgumentParser) -> None:
    from gossamer.export.table import FORMATS

    names = ", ".join(FORMATS)
    parser.add_argument("run", help="run folder")
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--to", default="", metavar="FORMAT", help=f"{names}; default by the suffix of --out")
    add_which(parser, "the run")
    parser.add_argument("--licence", default="unspecified", metavar="TEXT", help="licence of the model, e.g. CC-BY-4.0")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.targets import target_of

    target_of(options.run, ("run",))
    from gossamer.export.formats import export

    return export(
        options.run, options.out, to=options.to, which=options.which, licence=options.licence, progress=progress
    )

"""`gossamer fit`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import add_which
from gossamer.host.progress import Progress

EXAMPLES = ("gossamer fit flowers-int8.onnx --ram 256K --flash 1M",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="run folder or model file (.onnx); a run in float32, a file as it is")
    parser.add_argument("--ram", metavar="BYTES", help="memory for maps, e.g. 256K or 1M")
    parser.add_argument("--flash", metavar="BYTES", help="memory for weights and code, e.g. 1M")
    add_which(parser, "the run")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.errors import SettingsError
    from gossamer.targets import target_of

    kind = target_of(options.target, ("run", "model file")).kind
    if kind == "model file" and options.which != "best":
        raise SettingsError("--which with a model file", "a run folder with it", "leave it out")
    from gossamer.export.fit import fit

    return fit(
        options.target,
        is_run=kind == "run",
        which=options.which,
        ram=options.ram,
        flash=options.flash,
        progress=progress,
    )

"""`gossamer export`."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from gossamer.cli.arguments import add_which
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer export runs/flowers --out flowers.onnx",
    "gossamer export flowers.onnx --to litert --out flowers.tflite",
    "gossamer export runs/flowers --to litert,ncnn --out shipped/",
    "gossamer export flowers.onnx --to openvino --uint8 --out flowers.xml",
    "gossamer export flowers-int8.onnx --to c --ram 256K --flash 1M --out device/",
)
DEFAULTS = {"which": "best", "licence": "unspecified"}


def arguments(parser: argparse.ArgumentParser) -> None:
    from gossamer.export.table import FORMATS

    names = ", ".join(FORMATS)
    parser.add_argument("run", help="run folder, or for all but goss a model file (.onnx) as well")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="the file to write; for coreml, c or several a new folder"
    )
    parser.add_argument(
        "--to", default="", metavar="FORMAT", help=f"{names}, or several with commas; default by the suffix of --out"
    )
    add_which(parser, "the run")
    parser.add_argument("--ram", metavar="BYTES", help="for c: refuse what needs more, e.g. 256K")
    parser.add_argument("--flash", metavar="BYTES", help="for c: refuse what needs more, e.g. 1M")
    parser.add_argument(
        "--uint8", action="store_true", help="for openvino: the file takes uint8 images, with the preprocessing inside"
    )
    parser.add_argument("--licence", default="unspecified", metavar="TEXT", help="licence of the model, e.g. CC-BY-4.0")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.errors import SettingsError
    from gossamer.targets import target_of

    kind = target_of(options.run, ("run", "model file")).kind
    from gossamer.export import several
    from gossamer.export.formats import check_uint8, export, export_file, format_of
    from gossamer.export.table import FORMATS

    names = several.several(options.to, options.out)
    name = options.to if names else format_of(options.out, options.to)
    limits = {"ram": options.ram, "flash": options.flash}
    if name != "c" and any(one is not None for one in limits.values()):
        raise SettingsError(f"--ram or --flash with --to {name}", "--to c with them", "leave them out")
    limits = limits if name == "c" else {}
    if options.uint8:
        for one in names or [name]:
            check_uint8(one, True)
    pixels: dict[str, Any] = {"uint8": True} if options.uint8 else {}
    folder = importlib.import_module(FORMATS[name].module) if not names and FORMATS[name].folder else None
    if kind == "model file":
        given = [name for name in ("which", "licence") if getattr(options, name) != DEFAULTS[name]]
        if given:
            raise SettingsError(f"--{given[0]} with a model file", "a run folder with it", "leave it out")
        if folder is not None:
            return folder.export_file(options.run, options.out, progress=progress, **limits)
        if names:
            return several.export_file(options.run, options.out, names, progress=progress, **pixels)
        return export_file(options.run, options.out, to=options.to, progress=progress, **pixels)
    chosen = {"which": options.which, "licence": options.licence}
    if folder is not None:
        return folder.export_run(options.run, options.out, progress=progress, **chosen, **limits)
    if names:
        return several.export_run(options.run, options.out, names, progress=progress, **chosen, **pixels)
    return export(
        options.run,
        options.out,
        to=options.to,
        which=options.which,
        licence=options.licence,
        progress=progress,
        **pixels,
    )

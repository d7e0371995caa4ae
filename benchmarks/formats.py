"""Classifiers of the zoo in each export format beside ONNX Runtime: the largest difference, or why the format refuses them.

    PYTHONPATH=. python benchmarks/formats.py --rows rows.jsonl [NETWORK ...] [--formats native,litert,ncnn,openvino] [--limit 300]

Weights and statistics are drawn (`tests/exports.py`), 2 images of noise, one thread, the smallest square input that the network takes.
The difference is over the largest output. coreml: its structure is checked, since it runs on a Mac alone. Every network and format has a
process of its own, which is ended after --limit seconds; what --rows has is not measured again. --table prints the rows alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.exports import randomised

from gossamer.errors import GossamerError
from gossamer.export.traced import onnx_to_time
from gossamer.modelfile.metadata import parse_model_file
from gossamer.networks import create_model, list_models
from gossamer.networks.registry import NETWORKS
from gossamer.predictions.head import flattened
from gossamer.runtime.model import open_model

SIDES = (28, 32, 48, 64, 75, 96, 112, 128, 160, 192, 224, 227, 299)
FORMATS = ("native", "litert", "ncnn", "openvino", "executorch", "coreml")


def model_of(name: str, folder: Path) -> tuple[Path, int, int]:
    """The ONNX file of a network, made where it is not there, its channels and the side of its input."""
    channels = NETWORKS[name].input[0]
    there = sorted(folder.glob(f"{name}-*.onnx"))
    if there:
        return there[0], channels, int(there[0].stem.rpartition("-")[2])
    torch.manual_seed(0)
    model = randomised(create_model(name, num_classes=7, in_chans=channels)).eval()
    for side in (*SIDES, NETWORKS[name].input[1]):
        try:
            with torch.no_grad():
                model(torch.zeros(1, channels, side, side))
            break
        except (RuntimeError, GossamerError):  # nothing is left of the map
            continue
    place = folder / f"{name}-{side}.onnx"
    place.write_bytes(onnx_to_time(model, (side, side), channels))
    return place, channels, side


def measured(name: str, form: str, folder: Path) -> dict[str, Any]:
    """A row: the difference of a network in a format, or the reason."""
    place, channels, side = model_of(name, folder)
    row: dict[str, Any] = {"network": name, "side": side, "format": form}
    file = parse_model_file(place.read_bytes(), name)
    try:
        if form == "coreml":
            from gossamer.coreml.write import write_package

            with tempfile.TemporaryDirectory() as temporary:
                written = write_package(file, Path(temporary) / "m.mlpackage")
            return row | {"weights": written.structure.weights}
        images = np.random.default_rng(1).standard_normal((2, channels, side, side)).astype(np.float32)
        wanted, made = (flattened(open_model(file, one, threads=1).run(images)) for one in ("onnxruntime", form))
    except GossamerError as error:
        return row | {"refused": str(error).removeprefix(f"{name}: ")[:200]}
    scale = max(float(np.abs(wanted).max()), 1e-30)
    return row | {"difference": float(np.abs(made.astype(np.float64) - wanted).max()) / scale}


def _child(name: str, form: str, folder: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    try:
        row = measured(name, form, folder)
    except Exception as error:  # of any package: the others go on
        row = {"network": name, "format": form, "error": f"{type(error).__name__}: {error}"[:200]}
    pipe.send(row)


def in_own_process(name: str, form: str, folder: Path, limit: float) -> dict[str, Any]:
    """`measured` in a process that is ended after `limit` seconds."""
    context = multiprocessing.get_context("fork")  # torch is imported once
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(name, form, folder, theirs))
    process.start()
    theirs.close()
    row: dict[str, Any] = {"network": name, "format": form, "error": f"no result within {limit:.0f} s"}
    try:
        if ours.poll(limit):
            row = ours.recv()
    except EOFError:
        row = {"network": name, "format": form, "error": "the process ended without a result"}
    process.kill()
    process.join()
    return row


def cell(row: dict[str, Any] | None) -> str:
    """Of the table."""
    if row is None:
        return ""
    if "difference" in row:
        return f"{row['difference']:.1e}"
    if "weights" in row:
        return "written"
    return ("refused: " + row["refused"] if "refused" in row else row["error"]).replace("|", "/")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, a line a network."""
    forms = [form for form in FORMATS if any(row["format"] == form for row in rows)]
    lines = [f"| network | side | {' | '.join(forms)} |", "|---|---:|" + "---:|" * len(forms)]
    for name in sorted({row["network"] for row in rows}):
        of = {row["format"]: row for row in rows if row["network"] == name}
        side = next((str(row["side"]) for row in of.values() if "side" in row), "")
        lines.append(f"| {name} | {side} | {' | '.join(cell(of.get(form)) for form in forms)} |")
    return "\n".join(lines)


def import_exporters(forms: list[str]) -> None:
    """What takes seconds to import, once for all processes."""
    if "executorch" in forms:
        from gossamer.executorch.package import import_runtime, quiet

        import_runtime()
        with quiet():
            import executorch.backends.xnnpack.partition.xnnpack_partitioner
            import executorch.exir  # noqa: F401
    if "coreml" in forms:
        from gossamer.coreml.write import import_package

        import_package()


def main() -> None:
    """Rows, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--rows", default="formats.jsonl")
    parser.add_argument("--models", default="", help="folder for the ONNX files, so that each is made once")
    parser.add_argument("--limit", type=float, default=300, help="seconds of a network in a format")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    path = Path(options.rows)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not options.table:
        import_exporters(options.formats.split(","))
        known = {(row["network"], row["format"]) for row in rows}
        with tempfile.TemporaryDirectory() as temporary, path.open("a") as file:
            folder = Path(options.models or temporary)
            folder.mkdir(parents=True, exist_ok=True)
            for name in options.networks or list_models():
                for form in options.formats.split(","):
                    if (name, form) in known:
                        continue
                    rows.append(in_own_process(name, form, folder, options.limit))
                    file.write(json.dumps(rows[-1]) + "\n")
                    file.flush()
    print(table(rows))


if __name__ == "__main__":
    main()

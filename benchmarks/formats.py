"""Classifiers of the zoo, and model files, in each export format beside ONNX Runtime: the largest difference, or why the format refuses them.

    PYTHONPATH=. python benchmarks/formats.py --rows rows.jsonl [NETWORK or FILE.onnx ...] [--formats native,litert,ncnn,openvino] [--limit 300]

Weights and statistics are drawn (`tests/exports.py`), 2 images of noise, one thread, the smallest square input that the network takes.
The difference is over the largest output. coreml: its structure is checked, since it runs on a Mac alone. Every network has a
process of its own, which is ended where a format takes more than --limit seconds; what --rows has is not measured again. --table prints the rows alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Iterator
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
    """The ONNX file of a network, made where it is not there, its channels and the side of its input; a model file is its own."""
    if name.endswith(".onnx"):
        _, channels, side, _ = open_model(
            parse_model_file(Path(name).read_bytes(), name), "onnxruntime", threads=1
        ).input_shape
        return Path(name), int(channels or 0), int(side or 0)
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


def measured(name: str, forms: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a network, one after the other: the difference in a format, or the reason. ONNX Runtime answers once."""
    place, channels, side = model_of(name, folder)
    file = parse_model_file(place.read_bytes(), name)
    images = np.random.default_rng(1).standard_normal((2, channels, side, side)).astype(np.float32)
    wanted = flattened(open_model(file, "onnxruntime", threads=1).run(images))
    scale = max(float(np.abs(wanted).max()), 1e-30)
    for form in forms:
        row: dict[str, Any] = {"network": name, "side": side, "format": form}
        try:
            if form == "coreml":
                from gossamer.coreml.write import write_package

                with tempfile.TemporaryDirectory() as temporary:
                    written = write_package(file, Path(temporary) / "m.mlpackage")
                row["weights"] = written.structure.weights
            else:
                made = flattened(open_model(file, form, threads=1).run(images))
                row["difference"] = float(np.abs(made.astype(np.float64) - wanted).max()) / scale
        except GossamerError as error:
            row["refused"] = str(error).removeprefix(f"{name}: ")[:200]
        except Exception as error:  # of any package: the others go on
            row["error"] = f"{type(error).__name__}: {error}"[:200]
        yield row


def _child(name: str, forms: list[str], folder: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    for row in measured(name, forms, folder):
        pipe.send(row)


def in_own_process(name: str, forms: list[str], folder: Path, limit: float) -> Iterator[dict[str, Any]]:
    """`measured` in a process that is ended where a format takes more than `limit` seconds; the formats after it have the next one."""
    context = multiprocessing.get_context("fork")  # torch is imported once
    left = list(forms)
    while left:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(name, left, folder, theirs))
        process.start()
        theirs.close()
        for form in list(left):
            row: dict[str, Any] = {"network": name, "format": form}
            try:
                row = ours.recv() if ours.poll(limit) else row | {"error": f"no result within {limit:.0f} s"}
            except EOFError:
                row["error"] = "the process ended without a result"
            left.remove(form)
            yield row
            if row.get("side") is None:
                break
        process.kill()
        process.join()


def cell(row: dict[str, Any] | None) -> str:
    """Of the table."""
    if row is None:
        return "not run"
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
                forms = [form for form in options.formats.split(",") if (name, form) not in known]
                for row in in_own_process(name, forms, folder, options.limit):
                    rows.append(row)
                    file.write(json.dumps(row) + "\n")
                    file.flush()
    print(table(rows))


if __name__ == "__main__":
    main()

"""Networks as LiteRT files beside ONNX Runtime: largest differences in float32 and int8, sizes.

    PYTHONPATH=. python benchmarks/litert.py [NETWORK ...] [--rows litert.jsonl] [--models FOLDER]

NETWORK: of tests/exports.py, small forms of each family with drawn weights; all where none is named. The int8 file is the network
quantised by `gossamer.shrink.qdq`, calibrated with the 8 images of noise that the outputs are then compared for: what differs is
LiteRT's arithmetic, not quantising. --models FOLDER: its ONNX files instead, float32 alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.input_size import set_static_input_size
from gossamer.errors import GossamerError
from gossamer.export.convert import to_onnx
from gossamer.litert.write import litert_bytes
from gossamer.modelfile.metadata import ModelFile, parse_model_file, read_model_file
from gossamer.predictions.head import flattened
from gossamer.runtime.model import open_model
from gossamer.shrink.graph import OnnxGraph
from gossamer.shrink.qdq import QuantisationChoice, quantised_model
from gossamer.shrink.ranges import best_range, measure_ranges

IMAGES, SIDES = 8, (64, 96)


def compared(file: ModelFile, images: NDArray[np.float32]) -> dict[str, Any]:
    """What LiteRT's outputs differ by from ONNX Runtime's, over the largest output."""
    wanted, given = (flattened(open_model(file, name, threads=1).run(images)) for name in ("onnxruntime", "litert"))
    scale = max(float(np.abs(wanted).max()), 1e-30)
    error = np.abs(given.astype(np.float64) - wanted)
    same = int((given.argmax(1) == wanted.argmax(1)).sum())
    return {"largest": float(error.max()) / scale, "mean": float(error.mean()) / scale, "same": same}


def row(name: str) -> dict[str, Any]:
    """A network of tests/exports.py in both types."""
    from tests.exports import EXPORTED

    network = EXPORTED[name]
    images = network.images(IMAGES)
    file = parse_model_file(to_onnx(network.model(), network.size, network.channels), name)
    graph = OnnxGraph(file.data, list(file.outputs), "net")
    ranges = {one: best_range(values) for one, values in measure_ranges(graph, [images]).items()}
    int8 = parse_model_file(quantised_model(graph, QuantisationChoice(ranges, weight_bits=7)), name)
    made: dict[str, Any] = {"name": name, "sides": list(network.size), "images": IMAGES, "onnx": len(file.data)}
    for kind, one in (("float32", file), ("int8", int8)):
        made[kind] = {**compared(one, images), "bytes": len(litert_bytes(one))}
    return made


def file_row(path: Path) -> dict[str, Any]:
    """An ONNX file: its difference, or why it is refused. Height and width that it leaves open are SIDES."""
    try:
        file = read_model_file(path)
        shape = file.onnx.input.shape or ()
        if len(shape) == 4 and not all(isinstance(side, int) for side in shape[2:]):
            file = set_static_input_size(file, SIDES)
            shape = file.onnx.input.shape or ()
        count = shape[0] if shape and isinstance(shape[0], int) else 2
        sides = [side if isinstance(side, int) else 1 for side in shape[1:]]
        images = np.random.default_rng(1).standard_normal((count, *sides)).astype(np.float32)
        return {
            "name": path.name,
            "sides": sides,
            "float32": {**compared(file, images), "bytes": len(litert_bytes(file))},
        }
    except GossamerError as error:
        return {"name": path.name, "refused": str(error)[:300]}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| network | input | float32 | int8 | int8: mean | same class | MB float32, int8 |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        if "refused" in one:
            lines.append(f"| {one['name']} | | refused: {one['refused']} | | | | |")
            continue
        plain, int8 = one["float32"], one.get("int8")
        sides = " x ".join(map(str, one["sides"]))
        of = f"{int8['largest']:.2g} | {int8['mean']:.2g} | {int8['same']} of {one['images']}" if int8 else " | |"
        sizes = f"{plain['bytes'] / 1e6:.2f}" + (f", {int8['bytes'] / 1e6:.2f}" if int8 else "")
        lines.append(f"| {one['name']} | {sides} | {plain['largest']:.2g} | {of} | {sizes} |")
    return "\n".join(lines)


def main() -> None:
    """Rows, one after the other; those that --rows has are not measured again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--rows", default="")
    parser.add_argument("--models", default="")
    options = parser.parse_args()
    path = Path(options.rows) if options.rows else None
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []
    from tests.exports import EXPORTED

    names = sorted(Path(options.models).glob("*.onnx")) if options.models else options.networks or list(EXPORTED)
    for name in names:
        if any(one["name"] == getattr(name, "name", name) for one in rows):
            continue
        rows.append(file_row(name) if isinstance(name, Path) else row(name))
        if path:
            with path.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()

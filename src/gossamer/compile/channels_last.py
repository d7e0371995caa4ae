"""Operators along axes of tensors that are a map's in another order, such as channels last: the same along the map's own.

Exporters of TensorFlow leave pieces of a network between two Transposes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

from gossamer.compile import layout
from gossamer.compile.attributes import normalized_axes
from gossamer.compile.constants import slice_bounds
from gossamer.compile.lowering import Handler, Lowering
from gossamer.modelfile.onnx import OnnxNode

OPERATORS = ("Concat", "Gather", "Pad", "Resize", "Slice", "Split", "Upsample")
RANK = 4
FIRST = "\0channels first"  # behind a name, as no name of a file is
Order = tuple[int, ...]  # of each axis of the tensor, without its batch: which of the map's it is


def lower_in_order(low: Lowering, node: OnnxNode, handler: Handler) -> bool:
    """Lower a node whose inputs have a map's axes in another order; whether it is one. Raises InputError."""
    order = _order(low, node) if node.op in OPERATORS else None
    if order is None:
        return False
    count = len(node.inputs) if node.op == "Concat" else 1
    for name in node.inputs[:count]:
        low.names[name + FIRST] = low.names[name]
        low.axes[name + FIRST] = layout.of_map(low.program.values[low.names[name]])
    for name in filter(None, node.outputs):  # what reads them has other axes, so that it takes nothing over
        low.users[name + FIRST], low.uses[name + FIRST] = low.users.get(name, []), low.uses.get(name, 0)
    moved = replace(
        node,
        inputs=(*(name + FIRST for name in node.inputs[:count]), *node.inputs[count:]),
        outputs=tuple(name and name + FIRST for name in node.outputs),
    )
    handler(low, _moved(low, moved, order))
    for name in filter(None, node.outputs):
        if name + FIRST not in low.names:
            low.refuse(node, "rows of several maps whose axes are not channels, height, width")
        low.names[name] = low.names[name + FIRST]
        sides = layout.of_map(low.program.values[low.names[name]])
        low.axes[name] = tuple(sides[at] for at in order)
    return True


def _order(low: Lowering, node: OnnxNode) -> Order | None:
    """The order of the axes of all maps that a node reads; None where it is the usual one, or there is none."""
    names = node.inputs if node.op == "Concat" else node.inputs[:1]
    if not names or any(name not in low.names or len(low.axes_of(name)) != RANK - 1 for name in names):
        return None
    maps = [(low.axes_of(name), layout.of_map(low.program.values[low.names[name]])) for name in names]
    # the usual order comes first: sides of one place fit to several
    fits = (one for one in permutations(range(3)) if all(axes == tuple(of[at] for at in one) for axes, of in maps))
    order = next(fits, None)
    return None if order == (0, 1, 2) else order


def _moved(low: Lowering, node: OnnxNode, order: Order) -> OnnxNode:
    """The node along the axes of the map. Raises InputError."""

    def place(axis: int) -> int:
        return 0 if axis == 0 else order[axis - 1] + 1

    at = node.attributes
    if node.op in ("Concat", "Gather", "Split"):
        if node.op == "Gather" and (places := low.tensor(node, 1)) is not None and not places.ndim:
            low.refuse(node, "one place of an input that has other axes than channels, height, width")
        (axis,) = normalized_axes(low, node, [at.get("axis", 0)], RANK)
        return replace(node, attributes={**at, "axis": place(axis)})
    if node.op == "Slice":
        starts, ends, axes, steps = slice_bounds(low, node)
        chosen = normalized_axes(low, node, range(len(starts)) if axes is None else axes, RANK)
        rows = (starts, ends, [place(axis) for axis in chosen], steps)
        inputs = tuple(_constant(low, node, f"slice {number}", row) for number, row in enumerate(rows))
        return replace(node, inputs=(node.inputs[0], *inputs), attributes={})
    if node.op == "Pad":
        sides, axes = low.ints(node, 1, "pads"), low.ints(node, 3)
        chosen = normalized_axes(low, node, range(RANK) if axes is None else axes, RANK)
        if sides is None or len(sides) != 2 * len(chosen):
            low.refuse(node, "its padding is not that of a map")
        pads = [0] * (2 * RANK)
        for number, axis in enumerate(chosen):
            pads[place(axis)], pads[place(axis) + RANK] = sides[number], sides[number + len(chosen)]
        rest = node.inputs[2:3]
        more = {key: value for key, value in at.items() if key != "pads"}
        return replace(node, inputs=(node.inputs[0], _constant(low, node, "pads", pads), *rest), attributes=more)
    return _resized(low, node, [place(axis) for axis in normalized_axes(low, node, at.get("axes", range(RANK)), RANK)])


def _resized(low: Lowering, node: OnnxNode, places: list[int]) -> OnnxNode:
    """A Resize or Upsample with its scales and sizes in the order of the map's axes."""
    by = np.argsort(places)
    attributes = {key: value for key, value in node.attributes.items() if key not in ("axes", "scales")}
    if "axes" in node.attributes:
        attributes["axes"] = sorted(places)
    inputs = list(node.inputs)
    if "scales" in node.attributes:
        scales = np.array(node.attributes["scales"], np.float32)
        inputs = [inputs[0], _constant(low, node, "scales", _sorted(low, node, scales, by))]
    for number, name in enumerate(inputs[1:], 1):
        sorted_name = f"{node.outputs[0]}\0input {number}"
        if name in low.shapes:
            low.shapes[sorted_name] = tuple(_sorted(low, node, one, by) for one in low.shapes[name])
        elif (values := low.onnx.tensors.get(name)) is not None and values.size == len(places):
            low.onnx.tensors[sorted_name] = _sorted(low, node, values, by)
        else:
            continue
        inputs[number] = sorted_name
    return replace(node, inputs=tuple(inputs), attributes=attributes)


def _sorted(low: Lowering, node: OnnxNode, values: Any, by: Any) -> Any:
    if values.shape != by.shape:
        low.refuse(node, f"{values.size} scales or sizes of {len(by)} axes")
    return values[by]


def _constant(low: Lowering, node: OnnxNode, what: str, values: Sequence[int] | Any) -> str:
    """A name for a new constant."""
    name = f"{node.outputs[0]}\0{what}"
    low.onnx.tensors[name] = np.asarray(values, None if isinstance(values, np.ndarray) else np.int64)
    return name

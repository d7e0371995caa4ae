"""Layout ops: operators that move no data, but change the axes of a map or read its shape."""

from __future__ import annotations

import math

import numpy as np

from gossamer.compile import layout
from gossamer.compile.attributes import normalized_axes
from gossamer.compile.layout import Axes
from gossamer.compile.lowering import Lowering
from gossamer.modelfile.onnx import OnnxNode


def transpose(low: Lowering, node: OnnxNode) -> None:
    source, axes = low.read(node), low.axes_of(node.inputs[0])
    order = node.attributes.get("perm", range(len(axes), -1, -1))
    if len(order) != len(axes) + 1 or sorted(order) != [*range(len(order))] or order[0] != 0:
        low.refuse(node, "its perm moves the batch, or has not one place for each axis")
    low.alias(node, source, tuple(axes[axis - 1] for axis in order[1:]))


def lower_reshape(low: Lowering, node: OnnxNode) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: the same numbers under other axes."""
    source = low.read(node)
    rearranged_axes = rearranged(low, node)
    if rearranged_axes is None and _strided(low, node, source):
        return
    if rearranged_axes is None:
        what = f"its axis is {node.attributes.get('axis', 1)}" if node.op == "Flatten" else "its shape"
        low.refuse(node, f"{what}, which mixes axes or the batch")
    low.alias(node, source, rearranged_axes)


def _strided(low: Lowering, node: OnnxNode, source: int) -> bool:
    """All numbers of one image in one row, then by Gather in the same order under other axes; whether that begins here.

    So torch's exporter writes `as_strided`, which its means over height and width become for a batch of one.
    """
    name, axes = node.outputs[0], low.axes_of(node.inputs[0])
    readers, count = low.users.get(name, []), math.prod(layout.sides_of(axes))
    sides = low.shape_of(node, 1) if node.op == "Reshape" else None
    if (low.onnx.input.shape or ())[0] != 1 or sides not in ([-1], [count]) or low.uses[name] != len(readers):
        return False
    found = []
    for reader in readers:
        places = low.onnx.tensors.get(reader.inputs[1]) if reader.op == "Gather" and reader.inputs[0] == name else None
        if places is None or reader.attributes.get("axis", 0) not in (0, -1) or places.dtype.kind not in "iu":
            return False
        in_order = places.ndim > 1 and places.shape[0] == 1 and places.size == count
        new = layout.reshaped_axes(axes, places.shape[1:]) if in_order else None
        if new is None or not np.array_equal(places.reshape(-1), np.arange(count)):
            return False
        found.append((reader, new))
    low.alias(node, source, axes)
    for reader, new in found:
        low.alias(reader, source, new)
        low.skip.add(id(reader))
    return bool(found)


def rearranged(low: Lowering, node: OnnxNode) -> Axes | None:
    """The axes that such a node gives a map; None where they mix axes or the batch."""
    axes = low.axes_of(node.inputs[0])
    sides: list[int | None] | None = None
    if node.op == "Reshape":
        sides = low.shape_of(node, 1)
        if sides is not None and 0 in sides and node.attributes.get("allowzero", 0):
            low.refuse(node, "its allowzero is 1, which makes a side of 0")
        if sides is not None and 0 in sides[1:]:
            known = (None, *layout.sides_of(axes))
            sides = [known[place] if side == 0 and place < len(known) else side for place, side in enumerate(sides)]
    elif node.op == "Flatten":
        axis = node.attributes.get("axis", 1)
        axis += len(axes) + 1 if axis < 0 else 0
        # what is flattened with the batch has one place
        sides = [None, -1] if axis >= 1 and max(layout.sides_of(axes)[: axis - 1], default=1) == 1 else None
    else:
        sides = _squeezed(low, node, layout.sides_of(axes))
    batch = (low.onnx.input.shape or ())[0]
    if not sides or not _is_batch(sides, batch) or None in sides[1:]:
        return None
    return layout.reshaped_axes(axes, [side for side in sides[1:] if side is not None])


def _is_batch(sides: list[int | None], batch: int | str | None) -> bool:
    """Whether the first of the sides of a shape is the batch."""
    return sides[0] in (None, 0, batch) or (sides[0] == -1 and -1 not in sides[1:])


def _squeezed(low: Lowering, node: OnnxNode, shape: tuple[int, ...]) -> list[int | None] | None:
    axes = low.ints(node, 1, "axes")
    sides: list[int | None] = [None, *shape]
    if axes is None and node.op == "Squeeze":  # all of one place
        batch = (low.onnx.input.shape or ())[0]
        if batch == 1 or not isinstance(batch, int):
            low.refuse(node, "it has no axes, and the batch may have one place")
        axes = [place for place, side in enumerate(sides) if side == 1]
    if axes is None:
        return None
    if node.op == "Squeeze":
        gone = normalized_axes(low, node, axes, len(sides))
        if any(sides[place] != 1 for place in gone):
            low.refuse(node, f"axes {str(axes)[:60]} of more than one place")
        return [side for place, side in enumerate(sides) if place not in gone]
    total = len(sides) + len(axes)
    new = normalized_axes(low, node, axes, total)
    old = iter(sides)
    return [1 if place in new else next(old) for place in range(total)]

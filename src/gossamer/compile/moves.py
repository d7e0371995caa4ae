"""Operators that move nothing: they give a map's numbers other axes, or tell its shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gossamer.compile import axes as lying
from gossamer.onnxfile import Node

if TYPE_CHECKING:
    from gossamer.compile.lowering import Lowering


def transpose(low: Lowering, node: Node) -> None:
    axes = low.axes_of(node.inputs[0])
    order = [int(axis) for axis in node.attributes.get("perm", range(len(axes), -1, -1))]
    if order[:1] != [0]:
        low.refuse(node, "the batch moved")
    low.alias(node, low.read(node), tuple(axes[axis - 1] for axis in order[1:]))


def reshape(low: Lowering, node: Node) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: the same numbers under other axes."""
    source, axes = low.read(node), low.axes_of(node.inputs[0])
    sides: list[int | None] | None = None
    if node.op == "Reshape":
        sides = low.shape_of(node, 1)
        if sides is not None and 0 in sides[1:] and not node.attributes.get("allowzero", 0):
            known = (None, *lying.shape(axes))
            sides = [known[place] if side == 0 and place < len(known) else side for place, side in enumerate(sides)]
    elif node.op == "Flatten":
        sides = [None, -1] if int(node.attributes.get("axis", 1)) == 1 else None
    else:
        sides = _squeezed(low, node, lying.shape(axes))
    found, batch = None, (low.onnx.input.shape or ())[0]
    if sides and _is_batch(sides, batch) and None not in sides[1:]:
        found = lying.reshape(axes, [side for side in sides[1:] if side is not None])
    if found is None:
        low.refuse(node, "a shape that mixes axes or the batch")
    low.alias(node, source, found)


def _is_batch(sides: list[int | None], batch: int | str | None) -> bool:
    """Whether the first of the sides of a shape is the batch."""
    return sides[0] in (None, 0, batch) or (sides[0] == -1 and -1 not in sides[1:])


def _squeezed(low: Lowering, node: Node, shape: tuple[int, ...]) -> list[int | None] | None:
    given = node.attributes.get("axes")
    if given is None:
        found = low.tensor(node, 1)
        given = None if found is None else found.tolist()
    if given is None:
        return None
    sides: list[int | None] = [None, *shape]
    if node.op == "Squeeze":
        gone = {int(axis) % len(sides) for axis in given}
        return [side for place, side in enumerate(sides) if place not in gone]
    total = len(sides) + len(given)
    new = {int(axis) % total for axis in given}
    old = iter(sides)
    return [1 if place in new else next(old) for place in range(total)]


def shape(low: Lowering, node: Node) -> None:
    """The sides of a map, which are known but for the batch (None)."""
    sides: list[int | None] = [None, *lying.shape(low.axes_of(node.inputs[0]))]
    end = node.attributes.get("end")
    low.shapes[node.outputs[0]] = sides[int(node.attributes.get("start", 0)) : None if end is None else int(end)]

"""What a file computes from constants alone, and from the sides of maps: known before anything runs."""

from __future__ import annotations

import numpy as np

from gossamer.compile.attributes import normalized_axes
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import QDQ_OPS
from gossamer.modelfile.onnx import OnnxNode
from gossamer.operators import OPERATORS

FIRST_OPSET = 13  # of the numpy operators; those of ALWAYS meant the same before
ALWAYS = frozenset(
    "Add Cast Concat Constant ConstantOfShape Div Exp Expand Gather Identity Mul Neg Pow Reshape Shape Sqrt Sub "
    "Transpose".split()
)
SLICE = ("starts", "ends", "axes", "steps")
SIDES_OF_ONE = ("Squeeze", "Unsqueeze")
KEPT = ("Cast", "Identity", "Squeeze", "Unsqueeze")  # of a shape: the same sides


def fold(low: Lowering, node: OnnxNode) -> bool:
    """A node that reads constants alone is a constant; whether it is one. Raises InputError where it fails."""
    tensors = low.onnx.tensors
    if (
        node.op in SIDES_OF_ONE
        and "axes" in node.attributes
        and tensors.get(node.inputs[0] if node.inputs else "") is not None
    ):
        return _sides_of_one(low, node)
    known = node.op in OPERATORS and (low.onnx.opset >= FIRST_OPSET or node.op in ALWAYS) and node.op not in QDQ_OPS
    if not known or len(node.outputs) != 1 or any(name and tensors.get(name) is None for name in node.inputs):
        return False
    try:
        with np.errstate(all="ignore"):
            result = OPERATORS[node.op](node, *(tensors[name] if name else None for name in node.inputs))
    except Exception as error:  # whatever numpy makes of constants that do not fit together
        low.refuse(node, f"it cannot be computed: {error}")
    tensors[node.outputs[0]] = np.asarray(result[0] if isinstance(result, tuple) else result)
    return True


def _sides_of_one(low: Lowering, node: OnnxNode) -> bool:
    """A constant with more or fewer sides of 1, whose axes were an attribute before operator set 13."""
    values, axes = low.onnx.tensors[node.inputs[0]], tuple(node.attributes["axes"])
    assert values is not None
    try:
        reshaped = np.expand_dims(values, axes) if node.op == "Unsqueeze" else np.squeeze(values, axes)
    except ValueError as error:  # AxisError among them
        low.refuse(node, f"it cannot be computed: {error}")
    low.onnx.tensors[node.outputs[0]] = reshaped
    return True


def follow(low: Lowering, node: OnnxNode) -> bool:
    """Sides of a map, picked and concatenated as a Reshape wants them; whether a node does that."""
    if not any(name in low.shapes for name in node.inputs):
        return False
    sides: list[int | None] | None = None
    if node.op == "Concat":
        if node.attributes.get("axis") not in (0, -1):
            low.refuse(node, "sides of maps concatenated along another axis than their own")
        sides = [side for place in range(len(node.inputs)) for side in low.shape_of(node, place) or []]
    elif node.inputs[0] in low.shapes:
        known_sides = low.shapes[node.inputs[0]]
        if node.op in KEPT:
            sides = known_sides
        elif node.op == "Gather":
            chosen = low.ints(node, 1)
            there = chosen is not None and all(-len(known_sides) <= one < len(known_sides) for one in chosen)
            if chosen is None or not there or node.attributes.get("axis", 0) not in (0, -1):
                low.refuse(node, f"places that {len(known_sides)} sides of a map do not have")
            sides = [known_sides[one] for one in chosen]
        elif node.op == "Slice":
            first, last, axes, step = slice_bounds(low, node)
            normalized_axes(low, node, [0] if axes is None else axes, 1)
            sides = known_sides[first[0] : last[0] : step[0]]
    if sides is None:
        return False
    low.shapes[node.outputs[0]] = sides
    return True


def slice_bounds(low: Lowering, node: OnnxNode) -> tuple[list[int], list[int], list[int] | None, list[int]]:
    """Starts, ends, axes and steps of a Slice, as many of each; attributes before operator set 10."""
    starts, ends, axes, steps = (low.ints(node, place, name) for place, name in enumerate(SLICE, 1))
    steps = [1] * len(starts or []) if steps is None else steps
    counts = {
        len(one) for one in (starts or [], ends or [], starts if axes is None else axes, steps) if one is not None
    }
    if not starts or not ends or len(counts) > 1 or 0 in steps:
        low.refuse(node, "its starts, ends, axes and steps are not as many of each, or a step is 0")
    return starts, ends, axes, steps

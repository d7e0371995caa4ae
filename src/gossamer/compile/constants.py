"""What a file computes from constants alone, and from the sides of maps: known before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gossamer.compile.program import MOVES
from gossamer.onnxfile import Node
from gossamer.operators import OPERATORS

if TYPE_CHECKING:
    from gossamer.compile.lowering import Lowering

FIRST_OPSET = 13  # of the numpy operators; those of ALWAYS meant the same before
ALWAYS = frozenset(
    "Add Cast Concat Constant ConstantOfShape Div Exp Expand Gather Identity Mul Neg Pow Reshape Shape Sqrt Sub "
    "Transpose".split()
)
KEPT = ("Cast", "Identity", "Squeeze", "Unsqueeze")  # of a shape: the same sides


def fold(low: Lowering, node: Node) -> bool:
    """A node that reads constants alone is a constant; whether it is one. Raises InputError where it fails."""
    tensors = low.onnx.tensors
    known = node.op in OPERATORS and (low.onnx.opset >= FIRST_OPSET or node.op in ALWAYS) and node.op not in MOVES
    if not known or len(node.outputs) != 1 or any(name and tensors.get(name) is None for name in node.inputs):
        return False
    try:
        with np.errstate(all="ignore"):
            found = OPERATORS[node.op](node, *(tensors[name] if name else None for name in node.inputs))
    except Exception as error:  # whatever numpy makes of constants that do not fit together
        low.refuse(node, f"it cannot be computed: {error}")
    tensors[node.outputs[0]] = np.asarray(found)
    return True


def follow(low: Lowering, node: Node) -> bool:
    """Sides of a map, picked and joined as a Reshape wants them; whether a node does that."""
    if not any(name in low.shapes for name in node.inputs):
        return False
    sides: list[int | None] | None = None
    if node.op == "Concat":
        sides = [side for place in range(len(node.inputs)) for side in low.shape_of(node, place) or []]
    elif node.inputs[0] in low.shapes:
        given = low.shapes[node.inputs[0]]
        if node.op in KEPT:
            sides = given
        elif node.op == "Gather":
            sides = [given[int(place)] for place in low.tensor(node, 1).reshape(-1)]
        elif node.op == "Slice":
            first, last = (int(low.tensor(node, place).reshape(-1)[0]) for place in (1, 2))
            step = low.constant(node, 4)
            sides = given[first : last : 1 if step is None else int(step.reshape(-1)[0])]
    if sides is None:
        return False
    low.shapes[node.outputs[0]] = sides
    return True

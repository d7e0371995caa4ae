"""What a file computes from constants alone: known before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.lowering import Lowering
from gossamer.compile.program import QDQ_OPS
from gossamer.compile.shapes import ARITHMETIC, MOST_PLACES, computed
from gossamer.modelfile.onnx import OnnxNode
from gossamer.operators import OPERATORS

FIRST_OPSET = 13  # of the numpy operators; those of ALWAYS meant the same before
ALWAYS = frozenset(
    "Add Cast Concat Constant ConstantOfShape Div Exp Expand Gather Identity Mul Neg Pow Reshape Shape Sqrt Squeeze Sub "
    "Transpose Unsqueeze".split()
)


def fold(low: Lowering, node: OnnxNode) -> bool:
    """A node that reads constants alone is a constant; whether it is one. Raises InputError where it fails."""
    tensors = low.onnx.tensors
    if node.op in QDQ_OPS or any(name and tensors.get(name) is None for name in node.inputs):
        return False
    inputs = [tensors[name] if name else None for name in node.inputs]
    if node.op == "BatchNormalization" and node.attributes.get("training_mode", 0):
        tensors[node.outputs[0]] = _standardised(low, node, inputs)
        return True
    if inputs and node.op in ARITHMETIC and all(one is None or one.size <= MOST_PLACES for one in inputs):
        for name, values in zip(node.outputs, computed(low, node, inputs)):
            if name:
                tensors[name] = values
        return True
    known = node.op in OPERATORS and (low.onnx.opset >= FIRST_OPSET or node.op in ALWAYS)
    if not known or len(node.outputs) != 1:
        return False
    try:
        with np.errstate(all="ignore"):
            result = OPERATORS[node.op](node, *inputs)
    except Exception as error:  # whatever numpy makes of constants that do not fit together
        low.refuse(node, f"it cannot be computed: {error}")
    tensors[node.outputs[0]] = np.asarray(result[0] if isinstance(result, tuple) else result)
    return True


def _standardised(low: Lowering, node: OnnxNode, inputs: list[Any]) -> NDArray[Any]:
    """A batch norm with the statistics of its own input, as torch writes the standardised weights of a layer (StdConv2d)."""
    x, scale, shift = inputs[:3]
    fits = all(one is not None and one.dtype == np.float32 for one in (x, scale, shift))
    if not fits or x.ndim < 2 or not x.size or scale.shape != shift.shape or scale.shape != (x.shape[1],):
        low.refuse(node, "its scale or shift is not a row of float32")
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    rows = (1, -1, *[1] * (x.ndim - 2))
    exact = x.astype(np.float64)
    centred = exact - exact.mean(axes, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axes, keepdims=True) + node.attributes.get("epsilon", 1e-5))
    return np.asarray(centred / deviation * scale.reshape(rows) + shift.reshape(rows), np.float32)


def slice_bounds(low: Lowering, node: OnnxNode) -> tuple[list[int], list[int], list[int] | None, list[int]]:
    """Starts, ends, axes and steps of a Slice, as many of each; attributes before operator set 10.

    An end that is the batch is the largest number.
    """
    starts, axes, steps = (low.ints(node, place, name) for place, name in ((1, "starts"), (3, "axes"), (4, "steps")))
    sides = node.attributes.get("ends") or low.shape_of(node, 2)
    ends = None if sides is None else [2**63 - 1 if side is None else side for side in sides]
    steps = [1] * len(starts or []) if steps is None else steps
    counts = {
        len(one) for one in (starts or [], ends or [], starts if axes is None else axes, steps) if one is not None
    }
    if not starts or not ends or len(counts) > 1 or 0 in steps:
        low.refuse(node, "its starts, ends, axes and steps are not as many of each, or a step is 0")
    return starts, ends, axes, steps

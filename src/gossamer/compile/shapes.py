"""Arithmetic on the sides of maps, which are known but for the batch: it is done before anything runs.

The batch may be any number. So each value is computed for several: what is the same for all of them is a constant, what is
the batch itself for all of them is the batch, and nothing else is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile import layout
from gossamer.compile.lowering import BATCHES, Lowering
from gossamer.modelfile.onnx import OnnxNode
from gossamer.operators import OPERATORS

BROADCAST = frozenset(
    "Add And Div Equal Expand Greater GreaterOrEqual Less LessOrEqual Max Min Mod Mul Or Pow Sub Where".split()
)
MOST_PLACES = 2**16  # numbers in one such value
MOST_RESULT = 2**24  # numbers that are computed before that is looked at
FROM_OPERATORS = (
    "Abs Add Cast Concat ConstantOfShape Div Expand Flatten Gather Identity Max Min Mul Neg Pow ReduceMax ReduceMean "
    "ReduceSum Reshape Shape Slice Split Sqrt Squeeze Sub Transpose Unsqueeze"
).split()


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    def operator(node: OnnxNode, x: NDArray[Any], axes: NDArray[Any] | None = None) -> Any:
        chosen = node.attributes.get("axes") if axes is None else axes.reshape(-1).tolist()
        if not chosen and node.attributes.get("noop_with_empty_axes", 0):
            return x
        keeps = bool(node.attributes.get("keepdims", 1))
        return np.asarray(function(x, axis=tuple(chosen) if chosen else None, keepdims=keeps), x.dtype)

    return operator


def _clip(node: OnnxNode, x: NDArray[Any], least: Any = None, most: Any = None) -> Any:
    least, most = (node.attributes.get(name) if one is None else one for name, one in (("min", least), ("max", most)))
    return x if least is None and most is None else np.clip(x, least, most).astype(x.dtype)


def _range(node: OnnxNode, start: Any, limit: Any, step: Any) -> Any:
    if not 0 <= (limit - start) / step <= MOST_PLACES:
        raise ValueError(f"a range from {start} to {limit} by {step}")
    return np.arange(start, limit, step).astype(start.dtype)


def _tile(node: OnnxNode, x: NDArray[Any], repeats: NDArray[Any]) -> NDArray[Any]:
    if x.size * int(np.prod(repeats.astype(object))) > MOST_PLACES or repeats.min(initial=1) < 0:
        raise ValueError(f"repeats of {repeats.tolist()}")
    return np.tile(x, repeats.tolist())


# operators that only such arithmetic has; the others are those of the reference runtime
ARITHMETIC: dict[str, Callable[..., Any]] = {
    **{op: OPERATORS[op] for op in FROM_OPERATORS},
    "And": lambda node, a, b: a & b,
    "Ceil": lambda node, x: np.ceil(x),
    "Clip": _clip,
    "Equal": lambda node, a, b: a == b,
    "Floor": lambda node, x: np.floor(x),
    "Greater": lambda node, a, b: a > b,
    "GreaterOrEqual": lambda node, a, b: a >= b,
    "Less": lambda node, a, b: a < b,
    "LessOrEqual": lambda node, a, b: a <= b,
    "Mod": lambda node, a, b: np.fmod(a, b) if node.attributes.get("fmod", 0) else np.mod(a, b),
    "Not": lambda node, x: ~x,
    "Or": lambda node, a, b: a | b,
    "Range": _range,
    "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod),
    "Size": lambda node, x: np.array(x.size, np.int64),
    "Tile": _tile,
    "Where": lambda node, chosen, a, b: np.where(chosen, a, b),
}


def follow(low: Lowering, node: OnnxNode) -> bool:
    """Whether a node computes with sides of maps and constants alone: then what it gives is noted."""
    if not any(name in low.shapes for name in node.inputs) or node.op not in ARITHMETIC:
        return False
    tensors = low.onnx.tensors
    if any(name and name not in low.shapes and tensors.get(name) is None for name in node.inputs):
        return False
    results = []
    for place in range(len(BATCHES)):
        inputs = [
            low.shapes[name][place] if name in low.shapes else tensors[name] if name else None for name in node.inputs
        ]
        results.append(computed(low, node, inputs))
        if any(one.size > MOST_PLACES for one in results[-1]):
            low.refuse(node, f"more than {MOST_PLACES} numbers")
    for output, *values in zip(node.outputs, *results):
        if output:
            note(low, node, output, values)
    return True


def computed(low: Lowering, node: OnnxNode, inputs: list[Any]) -> tuple[NDArray[Any], ...]:
    """What a node of ARITHMETIC gives for these inputs. Raises InputError where it fails."""
    if node.op == "Slice" and "starts" in node.attributes:  # before operator set 10
        names = ("starts", "ends", "axes")
        attributes = [node.attributes.get(name) for name in names]
        inputs = [*inputs[:1], *(None if one is None else np.array(one, np.int64) for one in attributes)]
    try:
        _check_size(node, inputs)
        with np.errstate(all="ignore"):
            result = ARITHMETIC[node.op](node, *inputs)
    except Exception as error:  # whatever numpy makes of numbers that do not fit together
        low.refuse(node, f"it cannot be computed: {error}")
    return tuple(np.asarray(one) for one in (result if isinstance(result, tuple) else (result,)))


def _check_size(node: OnnxNode, inputs: list[Any]) -> None:
    """Raises ValueError for a result that only a hostile file would ask for."""
    sides: tuple[int, ...] = ()
    if node.op.startswith("Reduce") and not inputs[0].size:
        raise ValueError("a reduction of no numbers")
    if node.op in ("ConstantOfShape", "Expand"):
        sides = tuple(inputs[-1].reshape(-1).tolist())
    if node.op == "Gather":
        sides = (inputs[0].size, inputs[1].size)
    elif node.op in BROADCAST:
        read = inputs[:1] if node.op == "Expand" else inputs  # not the row of sides
        sides = np.broadcast_shapes(*(one.shape for one in read if one is not None), *([sides] if sides else []))
    if math.prod(sides) > MOST_RESULT:
        raise ValueError(f"a result of {str(sides)[:60]} numbers")


def note(low: Lowering, node: OnnxNode, name: str, values: list[NDArray[Any]]) -> None:
    """Keep a value that was computed for each batch: as a constant, where it is the same for all. Raises InputError."""
    first = values[0]
    if any(one.shape != first.shape for one in values):
        low.refuse(node, "a number of numbers that depends on the batch")
    if all(np.array_equal(one, first) for one in values):
        low.onnx.tensors[name] = first
    else:
        low.shapes[name] = tuple(values)


def lower_shape(low: Lowering, node: OnnxNode) -> None:
    """Shape and Size: the sides of a map, which are known but for the batch."""
    name = node.inputs[0]
    if name in low.series:
        parts = [layout.sides_of(axes) for _, axes in low.series[name]]
        sides = (sum(one[0] for one in parts), *parts[0][1:])
    else:
        low.read(node)
        sides = layout.sides_of(low.axes_of(name))
    fixed = (low.onnx.input.shape or (None,))[0]
    values = []
    for batch in BATCHES:
        every = np.array([fixed if isinstance(fixed, int) else batch, *sides], np.int64)
        if node.op == "Size":
            values.append(np.array(every.prod(), np.int64))
        else:
            values.append(every[node.attributes.get("start", 0) : node.attributes.get("end")])
    note(low, node, node.outputs[0], values)

"""ONNX operators in plain numpy: one entry of OPERATORS each, for operator sets 13 and later.

Each takes its node and its inputs (None where an optional one is left out) and gives an array, or a tuple of arrays.
The definitions are those of onnx.ai/onnx/operators; images are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.modelfile.onnx import TYPES, OnnxNode
from gossamer.operators.windows import Unsupported, average_pool, check_size, conv, max_pool

Array = NDArray[Any]
Operator = Callable[..., "Array | tuple[Array, ...]"]


def _batch_norm(node: OnnxNode, x: Array, scale: Array, shift: Array, mean: Array, variance: Array) -> Array:
    if node.attributes.get("training_mode", 0):
        raise Unsupported("training_mode 1")
    factor = scale / np.sqrt(variance + np.float32(node.attributes.get("epsilon", 1e-5)))
    sides = (1, -1) + (1,) * (x.ndim - 2)
    return np.asarray(x * factor.reshape(sides) + (shift - mean * factor).reshape(sides))


def _gemm(node: OnnxNode, a: Array, b: Array, c: Array | None = None) -> Array:
    a = a.T if node.attributes.get("transA", 0) else a
    b = b.T if node.attributes.get("transB", 0) else b
    result = a @ b
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    if alpha != 1.0:
        result = result * result.dtype.type(alpha)
    return np.asarray(result if c is None else result + (c if beta == 1.0 else c * c.dtype.type(beta)))


def _clip(node: OnnxNode, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _sigmoid(node: OnnxNode, x: Array) -> Array:
    half = x.dtype.type(0.5)
    return np.asarray(np.tanh(x * half) * half + half)  # 1 / (1 + exp(-x)), but it never overflows


def _hard_sigmoid(node: OnnxNode, x: Array) -> Array:
    kind = x.dtype.type
    alpha, beta = kind(node.attributes.get("alpha", 0.2)), kind(node.attributes.get("beta", 0.5))
    return np.asarray(np.clip(x * alpha + beta, kind(0), kind(1)))


def _hard_swish(node: OnnxNode, x: Array) -> Array:
    kind = x.dtype.type
    return np.asarray(x * np.clip(x * kind(1 / 6) + kind(0.5), kind(0), kind(1)))


def _leaky_relu(node: OnnxNode, x: Array) -> Array:
    return np.where(x < 0, x * x.dtype.type(node.attributes.get("alpha", 0.01)), x)


def _softmax(node: OnnxNode, x: Array) -> Array:
    axis = node.attributes.get("axis", -1)
    power = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(power / power.sum(axis=axis, keepdims=True))


def _global(reduce: Callable[..., Array]) -> Operator:
    return lambda node, x: reduce(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def _reduce(reduce: Callable[..., Array]) -> Operator:
    """A reduction whose axes are an input (operator set 18) or an attribute (before)."""

    def operator(node: OnnxNode, x: Array, axes: Array | None = None) -> Array:
        chosen = _ints(axes, node.attributes.get("axes"))
        if not chosen and node.attributes.get("noop_with_empty_axes", 0):
            return x
        keep = bool(node.attributes.get("keepdims", 1))
        return np.asarray(reduce(x, axis=tuple(chosen) if chosen else None, keepdims=keep))

    return operator


def _ints(tensor: Array | None, attribute: Any) -> list[int] | None:
    """The numbers of an optional input, or else of an attribute."""
    if tensor is not None:
        return [int(value) for value in tensor.reshape(-1)]
    return None if attribute is None else [int(value) for value in attribute]


def _reshape(node: OnnxNode, x: Array, shape: Array) -> Array:
    sides = _ints(shape, None) or []
    if not node.attributes.get("allowzero", 0):
        sides = [x.shape[i] if side == 0 else side for i, side in enumerate(sides)]
    return x.reshape(sides)


def _flatten(node: OnnxNode, x: Array) -> Array:
    axis = int(node.attributes.get("axis", 1))
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)


def _squeeze(node: OnnxNode, x: Array, axes: Array | None = None) -> Array:
    chosen = _ints(axes, node.attributes.get("axes"))
    return np.squeeze(x, axis=None if chosen is None else tuple(chosen))


def _unsqueeze(node: OnnxNode, x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, tuple(_ints(axes, node.attributes.get("axes")) or ()))


def _split(node: OnnxNode, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    axis = int(node.attributes.get("axis", 0))
    parts = len(node.outputs)
    chunk = -(-x.shape[axis] // parts)  # equal parts, the last one smaller
    chosen = _ints(sizes, node.attributes.get("split")) or [chunk] * (parts - 1) + [x.shape[axis] - chunk * (parts - 1)]
    if sum(chosen) != x.shape[axis] or min(chosen) < 0:
        raise ValueError(f"parts of {chosen} do not make {x.shape[axis]}")
    return tuple(np.split(x, np.cumsum(chosen)[:-1].tolist(), axis=axis))


def _slice(
    node: OnnxNode, x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Array:
    first, last = _ints(starts, None) or [], _ints(ends, None) or []
    chosen = _ints(axes, range(len(first))) or []
    stride = _ints(steps, [1] * len(first)) or []
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(chosen, first, last, stride, strict=True):
        # below -side a backward slice runs to the first value, which Python writes as None
        stop = None if step < 0 and end < -x.shape[axis] else end
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def _pad(node: OnnxNode, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None) -> Array:
    mode = {b"constant": "constant", b"reflect": "reflect", b"edge": "edge"}.get(
        node.attributes.get("mode", b"constant")
    )
    amounts, chosen = _ints(pads, None) or [], _ints(axes, range(x.ndim)) or []
    if mode is None or min(amounts, default=0) < 0 or len(amounts) != 2 * len(chosen):
        raise Unsupported(f"mode {node.attributes.get('mode')!r}, pads {amounts}; pads from 0 are known")
    wanted = [(0, 0)] * x.ndim
    for i, axis in enumerate(chosen):
        wanted[axis] = (amounts[i], amounts[i + len(chosen)])
    check_size(tuple(side + sum(pair) for side, pair in zip(x.shape, wanted)))
    if mode == "constant":
        return np.pad(x, wanted, constant_values=0 if value is None else value.item())
    return np.pad(x, wanted, mode="reflect" if mode == "reflect" else "edge")


def _expand(node: OnnxNode, x: Array, shape: Array) -> Array:
    sides = np.broadcast_shapes(x.shape, tuple(_ints(shape, None) or ()))
    check_size(sides)
    return np.broadcast_to(x, sides)


def _constant_of_shape(node: OnnxNode, shape: Array) -> Array:
    value = node.attributes.get("value")
    sides = tuple(_ints(shape, None) or ())
    check_size(sides)
    fill = np.zeros(1, np.float32) if value is None else value
    return np.full(sides, fill.reshape(-1)[0], fill.dtype)


def _constant(node: OnnxNode) -> Array:
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, kind in kinds.items():
        if name in node.attributes:
            return np.array(node.attributes[name], kind)
    value = node.attributes.get("value")
    if not isinstance(value, np.ndarray):
        raise Unsupported(f"a constant given as {', '.join(node.attributes) or 'nothing'}")
    return value


def _shape(node: OnnxNode, x: Array) -> Array:
    return np.array(x.shape[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64)


def _cast(node: OnnxNode, x: Array) -> Array:
    kind = node.attributes.get("to")
    if kind not in TYPES:
        raise Unsupported(f"a cast to type {kind}")
    return x.astype(TYPES[kind][0])


def _divide(node: OnnxNode, a: Array, b: Array) -> Array:
    if np.issubdtype(a.dtype, np.integer):  # towards zero, as in C; numpy's // goes down
        return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)), a.dtype)
    return np.asarray(a / b)


def _pow(node: OnnxNode, x: Array, power: Array) -> Array:
    # one for each number: of a single 0.5 numpy takes the square root, which is NaN of -infinity
    x, power = np.broadcast_arrays(x, power)
    return np.power(x, power.copy()).astype(x.dtype)


def _dropout(node: OnnxNode, x: Array, ratio: Array | None = None, training: Array | None = None) -> Array:
    if training is not None and bool(training):
        raise Unsupported("training_mode 1")
    return x


def _resize(
    node: OnnxNode, x: Array, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None
) -> Array:
    """Nearest and linear, an axis at a time; not the antialiased, cubic or cropping ones."""
    at = node.attributes
    mode, where = (at.get(name, default).decode() for name, default in _RESIZE_DEFAULTS)
    if mode not in ("nearest", "linear") or where not in (
        "half_pixel",
        "pytorch_half_pixel",
        "asymmetric",
        "align_corners",
    ):
        raise Unsupported(f"mode {mode}, {where}")
    if at.get("antialias", 0) or at.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise Unsupported("antialias or keep_aspect_ratio_policy")
    axes = [axis % x.ndim for axis in at.get("axes") or range(x.ndim)]
    targets = dict(zip(axes, sizes.tolist() if sizes is not None and len(sizes) else [None] * len(axes)))
    factors = dict(zip(axes, scales.tolist() if scales is not None and len(scales) else [None] * len(axes)))
    for axis in axes:
        old, size, factor = x.shape[axis], targets[axis], factors[axis]
        new = int(old * factor) if size is None else int(size)
        factor = new / old if factor is None else factor
        if new != old or factor != 1:
            x = _resized(x, axis, new, factor, mode, where, at.get("nearest_mode", b"round_prefer_floor").decode())
    return x


_RESIZE_DEFAULTS = (("mode", b"nearest"), ("coordinate_transformation_mode", b"half_pixel"))
_ROUND: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda places: np.ceil(places - 0.5),
    "round_prefer_ceil": lambda places: np.floor(places + 0.5),
}


def _resized(x: Array, axis: int, new: int, factor: float, mode: str, where: str, rounding: str) -> Array:
    """One axis at `new` places, `factor` times as dense."""
    old, places = x.shape[axis], np.arange(new, dtype=np.float64)
    if where == "asymmetric":
        places = places / factor
    elif where == "align_corners":
        places = places * (old - 1) / max(new - 1, 1)
    elif where == "pytorch_half_pixel" and new == 1:
        places = np.zeros(1)
    else:
        places = (places + 0.5) / factor - 0.5
    if mode == "nearest":
        return np.take(x, np.clip(_ROUND[rounding](places), 0, old - 1).astype(np.int64), axis=axis)
    places = np.clip(places, 0, old - 1)
    first = np.floor(places).astype(np.int64)
    fraction = (places - first).astype(x.dtype).reshape([-1 if n == axis else 1 for n in range(x.ndim)])
    low, high = np.take(x, first, axis=axis), np.take(x, np.minimum(first + 1, old - 1), axis=axis)
    return np.asarray(low + (high - low) * fraction)


def _each(function: Callable[..., Array]) -> Operator:
    """An operator that is a numpy function of its inputs."""
    return lambda node, *inputs: function(*inputs)


def _fold(function: Callable[[Array, Array], Array]) -> Operator:
    """An operator of any number of inputs, applied from the left."""

    def operator(node: OnnxNode, first: Array, *others: Array) -> Array:
        for other in others:
            first = function(first, other)
        return first

    return operator


def _along(node: OnnxNode, x: Array, parameter: Array) -> Array:
    """A scale or zero of one number, or one per place of the node's axis, in a shape that meets `x`."""
    if parameter.size == 1:
        return parameter.reshape(())
    axis = int(node.attributes.get("axis", 1))
    sides = [1] * x.ndim
    sides[axis] = parameter.size
    return parameter.reshape(sides)


def _quantize_linear(node: OnnxNode, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """Half to even, then saturated to the type of the zero."""
    if zero is None and node.attributes.get("output_dtype", 0) not in (0, 2):
        raise Unsupported("output_dtype without a zero")
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    if kind not in (np.uint8, np.int8, np.int32, np.uint16, np.int16):
        raise Unsupported(f"values of {kind}")
    limits = np.iinfo(kind)
    levels = np.rint(x / _along(node, x, scale)).astype(np.float64)
    if zero is not None:
        levels += _along(node, x, zero)
    return np.clip(levels, limits.min, limits.max).astype(kind)


def _dequantize_linear(node: OnnxNode, x: Array, scale: Array, zero: Array | None = None) -> Array:
    levels = x.astype(np.int64)
    if zero is not None:
        levels = levels - _along(node, x, zero).astype(np.int64)
    return levels.astype(scale.dtype) * _along(node, x, scale)


OPERATORS: dict[str, Operator] = {
    # windows
    "Conv": conv,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": _global(np.mean),
    "GlobalMaxPool": _global(np.max),
    # matrices and normalisation
    "Gemm": _gemm,
    "MatMul": _each(np.matmul),
    "BatchNormalization": _batch_norm,
    "Softmax": _softmax,
    # activations
    "Relu": lambda node, x: np.maximum(x, x.dtype.type(0)),
    "LeakyRelu": _leaky_relu,
    "PRelu": lambda node, x, slope: np.where(x < 0, x * slope, x),
    "Clip": _clip,
    "HardSwish": _hard_swish,
    "HardSigmoid": _hard_sigmoid,
    "Sigmoid": _sigmoid,
    "Tanh": _each(np.tanh),
    # arithmetic
    "Add": _each(np.add),
    "Sub": _each(np.subtract),
    "Mul": _each(np.multiply),
    "Div": _divide,
    "Pow": _pow,
    "Sqrt": _each(np.sqrt),
    "Exp": _each(np.exp),
    "Neg": _each(np.negative),
    "Abs": _each(np.abs),
    "Max": _fold(np.maximum),
    "Min": _fold(np.minimum),
    "ReduceMean": _reduce(np.mean),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    # shapes
    "Resize": _resize,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": lambda node, x: np.transpose(x, node.attributes.get("perm")),
    "Concat": lambda node, *inputs: np.concatenate(inputs, axis=node.attributes["axis"]),
    "Split": _split,
    "Slice": _slice,
    "Shape": _shape,
    "Gather": lambda node, x, indices: np.take(x, indices, axis=node.attributes.get("axis", 0)),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Pad": _pad,
    "Expand": _expand,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Cast": _cast,
    "Identity": lambda node, x: x,
    "Dropout": _dropout,
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear,
}

"""ONNX operators in torch, with gradients: those of the networks that `gossamer export` writes, one entry of OPERATORS each.

Each takes its node and its inputs: tensors where they depend on the images, numpy arrays where they are shapes and indices,
None where an optional one is left out. The definitions are those of onnx.ai/onnx/operators; images are (N, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gossamer.modelfile.onnx import TYPES, OnnxNode
from gossamer.operators.windows import Unsupported, Windows
from gossamer.training.conv_gradients import conv2d

Operator = Callable[..., Any]
TORCH_TYPES = {"float32": torch.float32, "float64": torch.float64, "int64": torch.int64, "int32": torch.int32}


def tensor(value: Any, like: Tensor) -> Tensor:
    """A constant beside a tensor."""
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value)).to(like.device)


def _ints(value: Any, attribute: Any = None) -> list[int] | None:
    """The numbers of an optional input, or else of an attribute."""
    if isinstance(value, Tensor):
        raise Unsupported("a shape that depends on the images")
    if value is not None:
        return [int(one) for one in np.asarray(value).reshape(-1)]
    return None if attribute is None else [int(one) for one in attribute]


def _pair(values: Any, default: int = 1) -> tuple[int, int]:
    first, second = values if values else (default, default)
    return int(first), int(second)


def _padded(node: OnnxNode, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """The map with what padding torch's convolution cannot do, and the padding that it does."""
    if node.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise Unsupported("auto_pad")
    top, left, bottom, right = node.attributes.get("pads") or (0, 0, 0, 0)
    if (top, left) == (bottom, right):
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom)), (0, 0)


def _conv(node: OnnxNode, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.dim() != 4:
        raise Unsupported(f"an input with {x.dim()} axes")
    x, pads = _padded(node, x)
    at = node.attributes
    return conv2d(
        x, tensor(weight, x), None if bias is None else tensor(bias, x), _pair(at.get("strides")), pads,
        _pair(at.get("dilations")), int(at.get("group", 1)),
    )  # fmt: skip


def _conv_transpose(node: OnnxNode, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    at = node.attributes
    top, left, bottom, right = at.get("pads") or (0, 0, 0, 0)
    if (
        x.dim() != 4
        or (top, left) != (bottom, right)
        or at.get("output_shape")
        or at.get("auto_pad", b"NOTSET") != b"NOTSET"
    ):
        raise Unsupported("pads of two kinds, output_shape or auto_pad")
    return F.conv_transpose2d(
        x, tensor(weight, x), None if bias is None else tensor(bias, x), _pair(at.get("strides")), (top, left),
        _pair(at.get("output_padding"), 0), int(at.get("group", 1)), _pair(at.get("dilations")),
    )  # fmt: skip


def _max_pool(node: OnnxNode, x: Tensor) -> Tensor:
    x, windows = _windowed(node, x, -math.inf)
    result = F.max_pool2d(x, _pair(node.attributes["kernel_shape"]), windows.strides, 0, windows.dilations)
    return result[..., : windows.size[0], : windows.size[1]]


def _average_pool(node: OnnxNode, x: Tensor) -> Tensor:
    kernel, sides = _pair(node.attributes["kernel_shape"]), tuple(x.shape[2:])
    x, windows = _windowed(node, x, 0.0)
    if windows.dilations != (1, 1):
        raise Unsupported("dilations")
    sums = F.avg_pool2d(x, kernel, windows.strides, divisor_override=1)[..., : windows.size[0], : windows.size[1]]
    counted = windows.counted(sides, kernel, pads_too=bool(node.attributes.get("count_include_pad", 0)))
    return sums / torch.from_numpy(counted).to(x)


def _windowed(node: OnnxNode, x: Tensor, value: float) -> tuple[Tensor, Windows]:
    """The padded map, and where a pool's windows lie: torch pads by half a window at most, and alike on both sides."""
    kernel, ceil = _pair(node.attributes["kernel_shape"]), bool(node.attributes.get("ceil_mode", 0))
    windows = Windows.of(node, tuple(x.shape), kernel, ceil=ceil)
    (top, left, bottom, right), (down, across) = windows.pads, windows.overhang
    if any(windows.pads) or any(windows.overhang):
        x = F.pad(x, (left, right + across, top, bottom + down), value=value)
    return x, windows


def _gemm(node: OnnxNode, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    at = node.attributes
    a, b = (a.T if at.get("transA", 0) else a), tensor(b, a)
    result = a @ (b.T if at.get("transB", 0) else b)
    if at.get("alpha", 1.0) != 1.0:
        result = result * at["alpha"]
    return result if c is None else result + tensor(c, a) * at.get("beta", 1.0)


def _batch_norm(node: OnnxNode, x: Tensor, scale: Any, shift: Any, mean: Any, variance: Any) -> Tensor:
    if node.attributes.get("training_mode", 0):
        raise Unsupported("training_mode 1")
    scale, shift, mean, variance = (tensor(one, x) for one in (scale, shift, mean, variance))
    return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, node.attributes.get("epsilon", 1e-5))


def _layer_norm(node: OnnxNode, x: Tensor, scale: Any, shift: Any = None) -> Tensor:
    axis = int(node.attributes.get("axis", -1)) % x.dim()
    return F.layer_norm(
        x,
        x.shape[axis:],
        tensor(scale, x),
        None if shift is None else tensor(shift, x),
        node.attributes.get("epsilon", 1e-5),
    )


def _clip(node: OnnxNode, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    low, high = (None if one is None else float(one.item()) for one in (low, high))
    return x if low is None and high is None else x.clamp(low, high)


def _hard_sigmoid(node: OnnxNode, x: Tensor) -> Tensor:
    slope, offset = float(node.attributes.get("alpha", 0.2)), float(node.attributes.get("beta", 0.5))
    return (x * slope + offset).clamp(0, 1)


def _gelu(node: OnnxNode, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.attributes.get("approximate", b"none").decode())


def _both(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of any number of inputs, some of which may be constants, applied from the left."""

    def operator(node: OnnxNode, *inputs: Any) -> Tensor:
        like = next(one for one in inputs if isinstance(one, Tensor))
        return reduce(function, (tensor(one, like) for one in inputs))

    return operator


def _reduce(function: Callable[[Tensor, Sequence[int], bool], Tensor]) -> Operator:
    """A reduction whose axes are an input or an attribute."""

    def operator(node: OnnxNode, x: Tensor, axes: Any = None) -> Tensor:
        chosen = _ints(axes, node.attributes.get("axes"))
        if not chosen and node.attributes.get("noop_with_empty_axes", 0):
            return x
        return function(x, chosen or range(x.dim()), bool(node.attributes.get("keepdims", 1)))

    return operator


def _resize(node: OnnxNode, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    at = node.attributes
    mode = at.get("mode", b"nearest").decode()
    where = at.get("coordinate_transformation_mode", b"half_pixel").decode()
    axes = [axis % x.dim() for axis in at.get("axes") or range(x.dim())]
    new = list(x.shape)
    wanted, factors = _ints(sizes), None if scales is None else np.asarray(scales, np.float64).reshape(-1)
    for place, axis in enumerate(axes):
        if wanted:
            new[axis] = wanted[place]
        elif factors is not None and len(factors):
            side = x.shape[axis] * factors[place]
            new[axis] = int(side)
            if where != "align_corners" and side - new[axis] > 1e-4:  # a scale is float32
                raise Unsupported("a scale that gives no whole side: places are counted by it, not by the sides")
    height, width = new[2:] if len(new) == 4 else (0, 0)
    plain = at.get("keep_aspect_ratio_policy", b"stretch") == b"stretch" and not at.get("antialias", 0)
    if len(new) != 4 or new[:2] != list(x.shape[:2]) or not plain:
        raise Unsupported("a resize of other axes than height and width, antialias or keep_aspect_ratio_policy")
    if mode == "linear" and where == "align_corners":
        return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)
    if mode == "linear" and (where == "half_pixel" or (where == "pytorch_half_pixel" and min(height, width) > 1)):
        return F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
    rounding = at.get("nearest_mode", b"round_prefer_floor").decode()
    whole = height % x.shape[2] == 0 and width % x.shape[3] == 0
    repeats = whole and where in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round_prefer")
    if mode == "nearest" and (repeats or (where == "asymmetric" and rounding == "floor")):
        return F.interpolate(x, (height, width), mode="nearest")
    raise Unsupported(f"mode {mode}, {where}, {rounding}" if mode == "nearest" else f"mode {mode}, {where}")


def _reshape(node: OnnxNode, x: Tensor, shape: Any) -> Tensor:
    sides = _ints(shape) or []
    if not node.attributes.get("allowzero", 0):
        sides = [x.shape[i] if side == 0 else side for i, side in enumerate(sides)]
    return x.reshape(sides)


def _flatten(node: OnnxNode, x: Tensor) -> Tensor:
    axis = int(node.attributes.get("axis", 1))
    return x.reshape(math.prod(x.shape[: axis + x.dim() if axis < 0 else axis]), -1)


def _split(node: OnnxNode, x: Tensor, sizes: Any = None) -> tuple[Tensor, ...]:
    axis, parts = int(node.attributes.get("axis", 0)), len(node.outputs)
    chunk = -(-x.shape[axis] // parts)
    chosen = _ints(sizes, node.attributes.get("split")) or [chunk] * (parts - 1) + [x.shape[axis] - chunk * (parts - 1)]
    return torch.split(x, chosen, axis)


def _slice(node: OnnxNode, x: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Tensor:
    first, last = _ints(starts) or [], _ints(ends) or []
    index = [slice(None)] * x.dim()
    for axis, start, end, step in zip(
        _ints(axes, range(len(first))) or [], first, last, _ints(steps, [1] * len(first)) or [], strict=True
    ):
        if step < 1:
            raise Unsupported(f"a step of {step}")
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def _gather(node: OnnxNode, x: Tensor, indices: Any) -> Tensor:
    axis, places = int(node.attributes.get("axis", 0)) % x.dim(), np.asarray(indices)
    flat = torch.from_numpy(places.reshape(-1) % x.shape[axis]).to(x.device)
    result = x.index_select(axis, flat)
    return result.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


def _squeeze(node: OnnxNode, x: Tensor, axes: Any = None) -> Tensor:
    chosen = _ints(axes, node.attributes.get("axes"))
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


def _unsqueeze(node: OnnxNode, x: Tensor, axes: Any = None) -> Tensor:
    chosen = _ints(axes, node.attributes.get("axes")) or []
    rank = x.dim() + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def _pad(node: OnnxNode, x: Tensor, pads: Any, value: Any = None, axes: Any = None) -> Tensor:
    mode = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate"}[
        node.attributes.get("mode", b"constant")
    ]
    amounts, chosen = _ints(pads) or [], _ints(axes, range(x.dim())) or []
    both = {axis % x.dim(): (amounts[i], amounts[i + len(chosen)]) for i, axis in enumerate(chosen)}
    first = min((axis for axis, pair in both.items() if pair != (0, 0)), default=x.dim())
    if mode != "constant" and first < 2:
        raise Unsupported("pads of channels")
    flat = [side for axis in range(x.dim() - 1, first - 1, -1) for side in both.get(axis, (0, 0))]
    if not flat:
        return x
    return F.pad(x, flat, mode, float(value.item()) if mode == "constant" and value is not None else None)


def _expand(node: OnnxNode, x: Tensor, shape: Any) -> Tensor:
    sides = np.broadcast_shapes(tuple(x.shape), tuple(_ints(shape) or ()))
    return x.expand(sides)


def _cast(node: OnnxNode, x: Tensor) -> Tensor:
    kind = node.attributes.get("to")
    name = np.dtype(TYPES[kind][0]).name if kind in TYPES else ""
    if name not in TORCH_TYPES:
        raise Unsupported(f"a cast to type {kind}")
    return x.to(TORCH_TYPES[name])


def _shape(node: OnnxNode, x: Tensor) -> Any:
    return np.array(x.shape[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64)


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda node, x: x.mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda node, x: x.amax((2, 3), keepdim=True),
    "Gemm": _gemm,
    "MatMul": _both(torch.matmul),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Softmax": lambda node, x: x.softmax(int(node.attributes.get("axis", -1))),
    "Relu": lambda node, x: x.relu(),
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.attributes.get("alpha", 0.01)),
    "PRelu": lambda node, x, slope: torch.where(x < 0, x * tensor(slope, x), x),
    "Elu": lambda node, x: F.elu(x, node.attributes.get("alpha", 1.0)),
    "Clip": _clip,
    "HardSwish": lambda node, x: F.hardswish(x),
    "HardSigmoid": _hard_sigmoid,
    "Sigmoid": lambda node, x: x.sigmoid(),
    "Softplus": lambda node, x: F.softplus(x),
    "Tanh": lambda node, x: x.tanh(),
    "Erf": lambda node, x: x.erf(),
    "Gelu": _gelu,
    "Add": _both(torch.add),
    "Sub": _both(torch.sub),
    "Mul": _both(torch.mul),
    "Div": _both(torch.div),
    "Pow": _both(torch.pow),
    "Max": _both(torch.maximum),
    "Min": _both(torch.minimum),
    "Sqrt": lambda node, x: x.sqrt(),
    "Reciprocal": lambda node, x: x.reciprocal(),
    "Exp": lambda node, x: x.exp(),
    "Neg": lambda node, x: -x,
    "Abs": lambda node, x: x.abs(),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(tuple(axes), keepdim=keep)),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(tuple(axes), keepdim=keep)),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(tuple(axes), keepdim=keep)),
    # its gradient at zeros is 0, where that of a root is not a number
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=tuple(axes), keepdim=keep)),
    "Resize": _resize,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": lambda node, x: x.permute(tuple(node.attributes.get("perm") or range(x.dim() - 1, -1, -1))),
    "Concat": lambda node, *inputs: torch.cat(
        [tensor(one, next(x for x in inputs if isinstance(x, Tensor))) for one in inputs], int(node.attributes["axis"])
    ),
    "Split": _split,
    "Slice": _slice,
    "Shape": _shape,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Pad": _pad,
    "Expand": _expand,
    "Cast": _cast,
    "Identity": lambda node, x: x,
    "Dropout": lambda node, x, *rest: x,
}

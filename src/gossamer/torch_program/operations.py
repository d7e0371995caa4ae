"""Operations of a program as functions of maps (1, C, H, W); the module applies an operation's last activation itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gossamer.compile.program import Array, FeatureMap, Operation
from gossamer.errors import InputError

Step = Callable[[Tensor, Tensor | None], Tensor]
Keep = Callable[[Tensor], Tensor]  # takes numbers into the module
Values = Sequence[FeatureMap]
NEAR = 1e-5  # of a weight of a resize: float32's last bits
PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hard_swish": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "exp": torch.exp,
    "log": torch.log,
    "reciprocal": torch.reciprocal,
}


def refuse(what: str, one: Operation) -> InputError:
    """The error for an operation without a form here."""
    do = "export to another format, or take that layer out of the network"
    return InputError(f"node {one.name!r}: {what}, which has no form in torch here", "other operations", do)


def activated(x: Tensor, act: str, bound: tuple[float, float]) -> Tensor:
    """An activation of the program. Raises InputError for one that is unknown."""
    if act in PLAIN:
        return PLAIN[act](x)
    if act == "leaky_relu":
        return torch.abs(x) if bound[0] == -1 else F.leaky_relu(x, float(bound[0]))
    if act == "clip":
        low, high = (
            None if end == none else float(end) for end, none in zip(bound, (-math.inf, math.inf), strict=True)
        )
        return x if low is None and high is None else torch.clamp(x, low, high)
    raise InputError(f"an activation {act}", f"{', '.join(PLAIN)}, leaky_relu or clip", "export to another format")


def layer(one: Operation, place: int) -> tuple[Array, Array]:
    """A layer's weight and bias. Raises InputError where they are bytes."""
    weights = one.weights[place]
    if weights is None or weights.type != "float32":
        raise refuse(f"a layer of {'no' if weights is None else weights.type} weights", one)
    return np.asarray(weights.weight, np.float32), np.asarray(weights.bias, np.float32)


def tensor(values: Array) -> Tensor:
    """A copy of these numbers."""
    return torch.from_numpy(np.array(values, np.float32))


def behind(one: Operation, values: Values) -> tuple[int, int]:
    """Rows and columns of padding that windows reach behind the map."""
    value, out = values[one.input], values[one.out]
    reach = [(kernel - 1) * one.dilation + 1 for kernel in one.kernel]
    rows = max(0, (out.h - 1) * one.stride[0] + reach[0] - value.h - one.pads[0])
    return rows, max(0, (out.w - 1) * one.stride[1] + reach[1] - value.w - one.pads[1])


def padded(
    one: Operation, values: Values, filling: float = 0.0, most: float = math.inf
) -> tuple[tuple[int, int], Callable[[Tensor], Tensor]]:
    """The padding that the operation itself does, and what pads a map before it where its sides differ.

    most: of a window that the padding may be.
    """
    (top, left), (bottom, right) = one.pads[:2], behind(one, values)
    value, out = values[one.input], values[one.out]
    sides = ((value.h, top, out.h), (value.w, left, out.w))
    symmetric = all(
        (side + 2 * pad - (kernel - 1) * one.dilation - 1) // stride + 1 == count
        for (side, pad, count), kernel, stride in zip(sides, one.kernel, one.stride, strict=True)
    )
    reach = [(kernel - 1) * one.dilation + 1 for kernel in one.kernel]
    narrow = all(pad <= most * side for pad, side in zip((top, left), reach, strict=True))
    if (symmetric and narrow) or not any((top, left, bottom, right)):
        return (top, left), lambda x: x
    return (0, 0), lambda x: F.pad(x, (left, right, top, bottom), value=filling)


def conv(one: Operation, values: Values, keep: Keep) -> Step:
    """A convolution, or a fully connected layer where the window is the whole map; another map may be added to it."""
    weight, bias = layer(one, 0)
    value, out = values[one.input], values[one.out]
    offsets = keep(tensor(bias.reshape(-1)))
    if one.kernel == (value.h, value.w) and one.groups == 1 and not any(one.pads) and out.h * out.w == 1:
        rows = keep(tensor(weight.reshape(out.c, -1)))

        def dense(x: Tensor, other: Tensor | None) -> Tensor:
            made = F.linear(x.reshape(1, -1), rows, offsets).reshape(1, out.c, 1, 1)
            return made if other is None else made + other

        return dense
    taps = keep(tensor(weight.reshape(out.c, value.c // one.groups, *one.kernel)))
    padding, pad = padded(one, values)

    def convolved(x: Tensor, other: Tensor | None) -> Tensor:
        made = F.conv2d(pad(x), taps, offsets, one.stride, padding, one.dilation, one.groups)
        return made if other is None else made + other

    return convolved


def block(one: Operation, values: Values, keep: Keep) -> Step:
    """A block before it is fused with others: the depthwise layer alone."""
    if one.weights[0] is not None or one.weights[2] is not None:
        raise refuse("a fused block", one)
    (weight, bias), channels = layer(one, 1), values[one.out].c
    taps, offsets = keep(tensor(weight.reshape(channels, 1, *one.kernel))), keep(tensor(bias.reshape(-1)))
    padding, pad = padded(one, values)

    def step(x: Tensor, _: Tensor | None) -> Tensor:
        made = F.conv2d(pad(x), taps, offsets, one.stride, padding, one.dilation, channels)
        return activated(made, one.acts[1], one.bounds[1])

    return step


def max_pool(one: Operation, values: Values, _: Keep) -> Step:
    padding, pad = padded(one, values, -math.inf, 0.5)  # more torch refuses
    return lambda x, _: F.max_pool2d(pad(x), one.kernel, one.stride, padding, one.dilation)


def average_pool(one: Operation, values: Values, keep: Keep) -> Step:
    """The mean over whole windows of a padded map, times the places of a window over those that count."""
    if one.dilation != 1:
        raise refuse(f"an average pool of dilation {one.dilation}", one)
    (top, left), (bottom, right) = one.pads[:2], behind(one, values)
    value, out = values[one.input], values[one.out]
    inside = []
    for axis, (side, count) in enumerate(((value.h, out.h), (value.w, out.w))):
        first = np.arange(count) * one.stride[axis] - one.pads[axis]
        begin = first if one.count_padding else np.maximum(first, 0)
        end = side + (one.pads[axis + 2] if one.count_padding else 0)
        inside.append(np.maximum(np.minimum(first + one.kernel[axis], end) - begin, 0))
    places = np.maximum(inside[0][:, None] * inside[1][None, :], 1)
    whole = one.kernel[0] * one.kernel[1]
    factors = None if (places == whole).all() else keep(tensor((whole / places).astype(np.float32)[None, None]))

    def step(x: Tensor, _: Tensor | None) -> Tensor:
        wide = F.pad(x, (left, right, top, bottom)) if any((top, left, bottom, right)) else x
        made = F.avg_pool2d(wide, one.kernel, one.stride)
        return made if factors is None else made * factors

    return step


def global_average(_: Operation, __: Values, ___: Keep) -> Step:
    return lambda x, _: x.mean((2, 3), keepdim=True)


def add(_: Operation, __: Values, ___: Keep) -> Step:
    return lambda x, other: x if other is None else x + other


def multiply(_: Operation, __: Values, ___: Keep) -> Step:
    return lambda x, other: x if other is None else x * other


def affine(one: Operation, _: Values, keep: Keep) -> Step:
    """A factor and an offset for each channel; ones and zeros are left out."""
    factor, offset = layer(one, 0)
    factors = keep(tensor(factor.reshape(1, -1, 1, 1))) if (factor != 1).any() else None
    offsets = keep(tensor(offset.reshape(1, -1, 1, 1))) if offset.any() else None

    def step(x: Tensor, _: Tensor | None) -> Tensor:
        made = x if factors is None else x * factors
        return made if offsets is None else made + offsets

    return step


def unchanged(_: Operation, __: Values, ___: Keep) -> Step:
    return lambda x, _: x


def shuffle(one: Operation, values: Values, _: Keep) -> Step:
    """Channel c of group g becomes channel c * groups + g."""
    value, groups = values[one.input], one.groups
    apart = (groups, value.c // groups, value.h * value.w)
    return lambda x, _: x.reshape(apart).permute(1, 0, 2).reshape(1, value.c, value.h, value.w)


def softmax(one: Operation, values: Values, _: Keep) -> Step:
    """Over the channels of each place, in so many runs as there are groups."""
    value = values[one.input]
    if one.groups == 1:
        return lambda x, _: F.softmax(x, 1)
    apart = (one.groups, value.c // one.groups, value.h * value.w)
    return lambda x, _: F.softmax(x.reshape(apart), 1)


def depth_to_space(one: Operation, values: Values, _: Keep) -> Step:
    """Channels are groups x rows x columns x run, of which rows and columns become places."""
    value, out, (rows, columns) = values[one.input], values[one.out], one.stride
    run = out.c // one.groups
    apart = (one.groups, rows, columns, run, value.h, value.w)
    whole = (1, out.c, value.h * rows, value.w * columns)

    def step(x: Tensor, _: Tensor | None) -> Tensor:
        made = x.reshape(apart).permute(0, 3, 4, 1, 5, 2).reshape(whole)
        return made[:, :, : out.h, : out.w] if whole[2:] != (out.h, out.w) else made

    return step


def resize(one: Operation, values: Values, keep: Keep) -> Step:
    """torch's own where it computes the same, else products with the matrices of rows and of columns."""
    value, out = values[one.input], values[one.out]
    rows, columns = (places.reshape(-1, 2) for places in layer(one, 0))
    down, across = matrix(rows, value.h), matrix(columns, value.w)
    for mode, align in (("nearest", None), ("bilinear", False), ("bilinear", True)):
        if _reads(down, mode, align) and _reads(across, mode, align):
            size = (out.h, out.w)
            return lambda x, _, mode=mode, align=align: F.interpolate(x, size=size, mode=mode, align_corners=align)  # type: ignore[misc]
    by_rows = None if _is_identity(down) else keep(tensor(down))
    by_columns = None if _is_identity(across) else keep(tensor(across.T))

    def step(x: Tensor, _: Tensor | None) -> Tensor:
        made = x if by_rows is None else torch.matmul(by_rows, x)
        return made if by_columns is None else torch.matmul(made, by_columns)

    return step


def matrix(places: Array, side: int) -> Array:
    """(places, side): the weights of the rows or columns of each place; places: the first of two and the way to the next."""
    first, way = places[:, 0].astype(int), places[:, 1]
    weights = np.zeros((len(places), side), np.float32)
    weights[np.arange(len(places)), first] += 1 - way
    weights[np.arange(len(places)), np.minimum(first + 1, side - 1)] += way
    return weights


def _is_identity(weights: Array) -> bool:
    return weights.shape[0] == weights.shape[1] and bool((weights == np.eye(len(weights), dtype=np.float32)).all())


def _reads(weights: Array, mode: str, align: bool | None) -> bool:
    """Whether torch's resize has these weights along an axis."""
    wanted, side = weights.shape
    unit = torch.eye(side)[None, :, :, None]  # a channel for each place of the axis
    made = F.interpolate(unit, size=(wanted, 1), mode=mode, align_corners=align)[0, :, :, 0].numpy().T
    return bool((np.abs(made - weights) <= NEAR * max(1, side)).all())


HANDLERS: dict[str, Callable[[Operation, Values, Keep], Step]] = {
    "conv": conv,
    "block": block,
    "max_pool": max_pool,
    "average_pool": average_pool,
    "global_average": global_average,
    "add": add,
    "scale": multiply,
    "multiply": multiply,
    "affine": affine,
    "activation": unchanged,
    "copy": unchanged,
    "shuffle": shuffle,
    "resize": resize,
    "softmax": softmax,
    "depth_to_space": depth_to_space,
}

"""Convolution and pooling in plain numpy: what slides a window over images (N, C, H, W).

A window is split into its places ("taps"): for each place, what all windows see there is one strided view.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.modelfile.onnx import OnnxNode

Array = NDArray[Any]
SIZE_LIMIT = 2**28  # values in one result


class Unsupported(ValueError):
    """An operator is used in a way that this file does not know."""


def check_size(shape: tuple[int, ...]) -> None:
    """Raises ValueError for a result that only a hostile file would ask for."""
    count = 1
    for side in shape:
        count *= int(side)
        if side < 0 or count > SIZE_LIMIT:
            raise ValueError(f"a result of shape {tuple(shape)}")


def conv(node: OnnxNode, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x (N, C, H, W), weight (O, C/groups, kh, kw), bias (O) -> (N, O, oh, ow)."""
    if x.ndim != 4 or weight.ndim != 4:
        raise Unsupported(f"an input with {x.ndim} axes; only (N, C, H, W) is known")
    groups = int(node.attributes.get("group", 1))
    n, c = x.shape[:2]
    o, c_group, kh, kw = weight.shape
    if c != c_group * groups or o % groups:
        raise ValueError(f"weights {weight.shape} in {groups} groups do not fit {c} channels")
    x, windows = _prepare(node, x, (kh, kw), 0.0, ceil=False)
    (oh, ow), strides, dilations = windows.size, windows.strides, windows.dilations
    if c_group == 1 and groups > 1:
        result = _depthwise(x, weight, (oh, ow), strides, dilations)
    else:
        matrix = weight.reshape(groups, o // groups, c_group * kh * kw)
        result = np.empty((n, o, oh, ow), x.dtype)
        for i in range(n):  # one image at a time bounds the memory of the unfolded columns
            taps = [tap for _, _, tap in _taps(x[i : i + 1], (kh, kw), (oh, ow), strides, dilations)]
            columns = np.stack(taps, axis=2) if len(taps) > 1 else taps[0]
            np.matmul(
                matrix,
                columns.reshape(groups, c_group * kh * kw, oh * ow),
                out=result[i].reshape(groups, o // groups, oh * ow),
            )
    if bias is not None:
        result += bias.reshape(1, -1, 1, 1)
    return result


def _depthwise(
    x: Array, weight: Array, size: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> Array:
    """Every output channel sees one input channel: shift, multiply, add. x (N, C, H, W) is padded already."""
    o, _, kh, kw = weight.shape
    if o != x.shape[1]:
        x = np.repeat(x, o // x.shape[1], axis=1)
    result = np.zeros((x.shape[0], o, *size), x.dtype)
    product = np.empty_like(result)
    for i, j, tap in _taps(x, (kh, kw), size, strides, dilations):
        np.multiply(tap, weight[:, 0, i, j].reshape(1, o, 1, 1), out=product)
        result += product
    return result


def max_pool(node: OnnxNode, x: Array) -> Array:
    """x (N, C, H, W) -> (N, C, oh, ow); padding never wins."""
    kernel = _pair(node, "kernel_shape", None)
    x, windows = _prepare(node, x, kernel, -np.inf, ceil=bool(node.attributes.get("ceil_mode", 0)))
    result = np.full((*x.shape[:2], *windows.size), -np.inf, x.dtype)
    for _, _, tap in _taps(x, kernel, windows.size, windows.strides, windows.dilations):
        np.maximum(result, tap, out=result)
    return result


def average_pool(node: OnnxNode, x: Array) -> Array:
    """x (N, C, H, W) -> (N, C, oh, ow)."""
    kernel, sides = _pair(node, "kernel_shape", None), x.shape[2:]
    x, windows = _prepare(node, x, kernel, 0.0, ceil=bool(node.attributes.get("ceil_mode", 0)))
    result = np.zeros((*x.shape[:2], *windows.size), x.dtype)
    for _, _, tap in _taps(x, kernel, windows.size, windows.strides, windows.dilations):
        result += tap
    pads_too = bool(node.attributes.get("count_include_pad", 0))
    return np.asarray(result / windows.counted(sides, kernel, pads_too=pads_too).astype(x.dtype))


@dataclass(frozen=True)
class Windows:
    """Where the windows of a node lie on a map. pads: (top, left, bottom, right). size: how many, down and across. overhang:
    rows and columns that the last ones of ceil_mode reach beyond the pads. strides, dilations: (down, across)."""

    pads: tuple[int, int, int, int]
    size: tuple[int, int]
    overhang: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]

    @classmethod
    def of(cls, node: OnnxNode, shape: tuple[int, ...], kernel: tuple[int, int], *, ceil: bool) -> Windows:
        """Of a map of `shape` (N, C, H, W). Raises Unsupported for attributes that are not known, ValueError where none fits."""
        if len(shape) != 4:
            raise Unsupported(f"an input with {len(shape)} axes; only (N, C, H, W) is known")
        strides, dilations = _pair(node, "strides", (1, 1)), _pair(node, "dilations", (1, 1))
        pads = _pads(node, shape[2:], kernel)
        size, overhang = [], []
        for side, k, stride, dilation, before, after in zip(shape[2:], kernel, strides, dilations, pads[:2], pads[2:]):
            free = side + before + after - dilation * (k - 1) - 1
            if free < 0:
                raise ValueError(f"a window of {dilation * (k - 1) + 1} does not fit {side + before + after}")
            steps = -(-free // stride) if ceil else free // stride
            if (
                ceil and steps * stride >= side + before
            ):  # a window must start inside the image or the padding before it
                steps -= 1
            size.append(steps + 1)
            overhang.append(max(0, steps * stride - free))
        return cls(pads, (size[0], size[1]), (overhang[0], overhang[1]), strides, dilations)

    def counted(self, sides: tuple[int, ...], kernel: tuple[int, int], *, pads_too: bool) -> Array:
        """How many places of each window an average divides by: (1, 1, oh, ow) float32. pads_too: whether padding counts; the
        overhang of ceil_mode never does."""
        (top, left, bottom, right), (down, across), (height, width) = self.pads, self.overhang, sides
        places = np.zeros((1, 1, top + height + bottom + down, left + width + right + across), np.float32)
        if pads_too:
            places[:, :, : top + height + bottom, : left + width + right] = 1
        else:
            places[:, :, top : top + height, left : left + width] = 1
        return np.asarray(sum(tap for _, _, tap in _taps(places, kernel, self.size, self.strides, self.dilations)))


def _prepare(node: OnnxNode, x: Array, kernel: tuple[int, int], fill: float, *, ceil: bool) -> tuple[Array, Windows]:
    """The padded input, and where its windows lie."""
    windows = Windows.of(node, x.shape, kernel, ceil=ceil)
    check_size((*x.shape[:2], *windows.size))
    (top, left, bottom, right), (down, across) = windows.pads, windows.overhang
    if any(windows.pads) or any(windows.overhang):
        wanted = ((0, 0), (0, 0), (top, bottom + down), (left, right + across))
        check_size(tuple(side + sum(pad) for side, pad in zip(x.shape, wanted)))
        x = np.pad(x, wanted, constant_values=fill)
    return x, windows


def _taps(
    x: Array, kernel: tuple[int, int], size: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> Iterator[tuple[int, int, Array]]:
    """For each place (i, j) of the window, what all windows see there: a view (N, C, oh, ow)."""
    (sh, sw), (dh, dw), (oh, ow) = strides, dilations, size
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dh, j * dw
            yield i, j, x[:, :, top : top + sh * (oh - 1) + 1 : sh, left : left + sw * (ow - 1) + 1 : sw]


def _pair(node: OnnxNode, name: str, default: tuple[int, int] | None) -> tuple[int, int]:
    value = node.attributes.get(name, default)
    if value is None or len(value) != 2 or min(value) < 1:
        raise Unsupported(f"{name} {value}; two numbers above 0 are known")
    return int(value[0]), int(value[1])


def _pads(node: OnnxNode, sides: tuple[int, ...], kernel: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right)."""
    auto = node.attributes.get("auto_pad", b"NOTSET")
    if auto == b"NOTSET":
        pads = node.attributes.get("pads") or [0, 0, 0, 0]
        if len(pads) != 4 or min(pads) < 0:
            raise Unsupported(f"pads {pads}; four numbers from 0 are known")
        return int(pads[0]), int(pads[1]), int(pads[2]), int(pads[3])
    if auto == b"VALID":
        return 0, 0, 0, 0
    if auto not in (b"SAME_UPPER", b"SAME_LOWER"):
        raise Unsupported(f"auto_pad {auto!r}")
    strides, dilations = _pair(node, "strides", (1, 1)), _pair(node, "dilations", (1, 1))
    before, after = [], []
    for side, k, stride, dilation in zip(sides, kernel, strides, dilations):
        total = max(0, (-(-side // stride) - 1) * stride + dilation * (k - 1) + 1 - side)
        less, more = total // 2, total - total // 2
        before.append(less if auto == b"SAME_UPPER" else more)
        after.append(more if auto == b"SAME_UPPER" else less)
    return before[0], before[1], after[0], after[1]

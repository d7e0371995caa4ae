"""Operators that stand behind a backbone: softmax, transposed convolution, constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile import layout
from gossamer.compile.attributes import channel_row_input, normalized_axes, text_attribute
from gossamer.compile.conv_pool import spread
from gossamer.compile.layout import Axes
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import MOST_NUMBERS, MOST_STRIDE, MOST_TAPS, FeatureMap, LayerWeights
from gossamer.compile.scaling import append_channel_scale
from gossamer.host.text import counted
from gossamer.modelfile.onnx import OnnxNode

LEAST_DIVISOR = 2.0**-127  # one over less is infinite in float32


def lower_softmax(low: Lowering, node: OnnxNode) -> None:
    """Over an axis that is a run of channels: of a map its channels, of rows (N, A, K) their K."""
    flat = low.onnx.opset < 13  # over all axes from one on

    def one(source: int, axes: Axes) -> int:
        value = low.program.values[source]
        (place,) = normalized_axes(low, node, [node.attributes.get("axis", 1 if flat else -1)], len(axes) + 1)
        if place == 0:
            low.refuse(node, "the batch as its axis")
        if flat and any(axes[place:]):
            low.refuse(node, f"its axis is {place}: several axes at once, as before operator set 13")
        axis = layout.merged(axes[place - 1])
        if not axis:  # of one place
            return low.emit("softmax", source, FeatureMap(value.h, value.w, value.c), groups=value.c)
        outer = len(axis) == 1 and axis[0].step > 1 and axis[0].step * axis[0].size == value.c
        if len(axis) != 1 or axis[0].of != "c" or not (axis[0].step == 1 or outer):
            low.refuse(node, "an axis that is not made of neighbouring channels, nor of runs of them")
        groups = value.c // axis[0].size
        if outer:  # runs of channels: interleaved, they are neighbours
            source = low.emit("shuffle", source, value.like(value.h, value.w, value.c), groups=axis[0].size)
        probabilities = low.emit("softmax", source, FeatureMap(value.h, value.w, value.c), groups=groups)
        return (
            low.emit("shuffle", probabilities, FeatureMap(value.h, value.w, value.c), groups=groups)
            if outer
            else probabilities
        )

    low.each(node, one)


def conv_transpose(low: Lowering, node: OnnxNode) -> None:
    """As a convolution that makes the strides' positions as channels, and a move of those channels to their positions.

    Row q * s + p of the output takes input row q - d by the kernel's row d * s + p + pad, for each integer d there is.
    """
    source, weight, at = low.value(node), low.tensor(node, 1), node.attributes
    value, groups = low.program.values[source], at.get("group", 1)
    if weight is None or weight.ndim != 4 or weight.dtype != np.float32 or len(weight) != value.c:
        low.refuse(node, "its weight is not float32 of four axes")
    if (at.get("kernel_shape") or [*weight.shape[2:]]) != [*weight.shape[2:]] or not weight.size:
        low.refuse(node, "its kernel_shape is not that of its weight")
    if groups < 1 or value.c % groups:
        low.refuse(node, f"{counted(groups, 'group')} of {counted(value.c, 'channel')}")
    strides, dilations = at.get("strides") or (1, 1), at.get("dilations") or (1, 1)
    extra, each = at.get("output_padding") or (0, 0), int(weight.shape[1])
    wide = [(side - 1) * step + 1 for side, step in zip(weight.shape[2:], dilations)]
    pads = _transposed_pads(
        low,
        node,
        [
            stride * (side - 1) + more + reach
            for side, stride, more, reach in zip((value.h, value.w), strides, extra, wide)
        ],
        [side * stride for side, stride in zip((value.h, value.w), strides)],
    )
    plans = [
        _phases(side, wide[axis], strides[axis], pads[axis], pads[axis + 2], extra[axis])
        for axis, side in enumerate((value.h, value.w))
    ]
    (kh, sh, top, bottom, rows), (kw, sw, left, right, columns) = plans
    if max(strides) > MOST_STRIDE or kh * kw > MOST_TAPS or min(top, left) < 0 or min(rows, columns) < 1:
        low.refuse(node, "its kernel, stride or padding is outside what the engine has")
    if value.c * each * sh * sw * kh * kw > MOST_NUMBERS:
        low.refuse(node, "its weight is too large once zeros stand between its places")
    weight = spread(weight, wide, dilations)
    kernel = np.zeros((groups, sh, sw, each, value.c // groups, kh, kw), np.float32)
    grouped = weight.reshape(groups, value.c // groups, each, *weight.shape[2:])
    for y, x, a, b in np.ndindex(sh, sw, kh, kw):
        r, q = (top - a) * sh + y + pads[0], (left - b) * sw + x + pads[1]
        if 0 <= r < weight.shape[2] and 0 <= q < weight.shape[3]:
            kernel[:, y, x, :, :, a, b] = grouped[:, :, :, r, q].transpose(0, 2, 1)
    c_out = groups * each
    bias_row = channel_row_input(low, node, 2, c_out)
    bias = np.zeros(c_out, np.float32) if bias_row is None else bias_row
    biases = np.broadcast_to(bias.reshape(groups, 1, 1, each), (groups, sh, sw, each)).reshape(-1)
    if value.type == "uint8":  # the new kernel has no bytes
        source = low.emit("copy", source, FeatureMap(value.h, value.w, value.c))
    emitted = low.emit(
        "conv",
        source,
        FeatureMap(value.h + top + bottom - kh + 1, value.w + left + right - kw + 1, c_out * sh * sw),
        kernel=(kh, kw),
        pads=(top, left, bottom, right),
        groups=groups,
        weights=[LayerWeights(kernel.reshape(-1, value.c // groups, kh, kw), np.ascontiguousarray(biases))],
    )
    low.value_uses[emitted] = 1
    placed = low.emit("depth_to_space", emitted, FeatureMap(rows, columns, c_out), stride=(sh, sw), groups=groups)
    low.bind(node, placed)


def _transposed_pads(low: Lowering, node: OnnxNode, full: Sequence[int], same: Sequence[int]) -> list[int]:
    """What a ConvTranspose cuts off: its pads, or what is left of its full sides for those that it asks for.

    full: sides without pads. same: sides of auto_pad SAME_UPPER and SAME_LOWER. Raises InputError.
    """
    kind, shape = text_attribute(node, "auto_pad", "NOTSET"), node.attributes.get("output_shape")
    if kind not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        low.refuse(node, f"its auto_pad is {kind[:60]}")
    if not shape and kind in ("NOTSET", "VALID"):
        return list(node.attributes.get("pads") or [0] * 4) if kind == "NOTSET" else [0] * 4
    wanted = list(shape or same)
    if len(wanted) != 2 or any(side > most for side, most in zip(wanted, full)):
        low.refuse(node, f"its output_shape or auto_pad makes sides {str(wanted)[:60]}, of {list(full)} at most")
    pads = [0] * 4
    for axis, (most, side) in enumerate(zip(full, wanted)):
        half, rest = (most - side) // 2, (most - side) - (most - side) // 2
        pads[axis], pads[axis + 2] = (half, rest) if kind == "SAME_UPPER" else (rest, half)
    return pads


def _phases(
    side: int, kernel: int, stride: int, before: int, behind: int, extra: int
) -> tuple[int, int, int, int, int]:
    """Of an axis: the new kernel, the stride, the padding before and behind, and the places of the output."""
    out = (side - 1) * stride + kernel - before - behind + extra
    last, first = (kernel - 1 - before) // stride, -((stride - 1 + before) // stride)
    taps = last - first + 1
    return taps, stride, last, max(0, -(-out // stride) - side - last + taps - 1), out


def depth_to_space(low: Lowering, node: OnnxNode) -> None:
    source, block = low.value(node), node.attributes.get("blocksize", 1)
    value = low.program.values[source]
    mode = text_attribute(node, "mode", "DCR")
    if not 1 <= block <= MOST_STRIDE or value.c % block**2 or mode not in ("DCR", "CRD"):
        low.refuse(node, "its blocksize or mode is outside what the engine has")
    c = value.c // block**2
    groups = c if mode == "CRD" else 1
    out = FeatureMap(value.h * block, value.w * block, c)
    low.bind(node, low.emit("depth_to_space", source, out, stride=(block, block), groups=groups))


def with_constant(low: Lowering, node: OnnxNode) -> bool:
    """A sum, difference, product or quotient with a constant, one number or one per channel; whether it is one."""
    constants = [place for place, name in enumerate(node.inputs) if name and name in low.onnx.tensors]
    if len(constants) != 1 or len(node.inputs) != 2:
        return False
    constant: Any = low.tensor(node, constants[0])
    if constant.dtype != np.float32 or (constants[0] == 0 and node.op == "Div"):
        low.refuse(node, "a constant that is not float32, or over a map")
    source = low.read(node, 1 - constants[0])
    value, axes = low.program.values[source], low.axes_of(node.inputs[1 - constants[0]])
    row = layout.broadcast_channel_row(constant, axes, value)
    if row is None:
        low.refuse(node, "a constant that is neither one number nor one per channel")
    if node.op == "Div" and (np.abs(constant) < LEAST_DIVISOR).any():
        low.refuse(node, f"a division by zero, or by less than {LEAST_DIVISOR:.2g}")
    factor: NDArray[Any] = np.ones(value.c)
    offset: NDArray[Any] = np.zeros(value.c)
    if node.op in ("Add", "Sub"):
        offset = row if node.op == "Add" or constants[0] == 0 else -row
        factor = -factor if node.op == "Sub" and constants[0] == 0 else factor
    else:
        factor = row if node.op == "Mul" else np.reciprocal(row.astype(np.float64))
    low.bind(node, append_channel_scale(low, source, factor, offset), axes)
    return True

"""Operators that stand behind a backbone: resizing, softmax, transposed convolution, constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile import layout
from gossamer.compile.attributes import channel_row_input, normalized_axes, text_attribute
from gossamer.compile.layout import Axes
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import MOST_NUMBERS, MOST_SIDE, MOST_STRIDE, MOST_TAPS, Array, FeatureMap, LayerWeights
from gossamer.compile.scaling import append_channel_scale
from gossamer.modelfile.onnx import OnnxNode

NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}
PLACES: dict[str, Callable[[Array, int, int, np.float32], Array]] = {
    # (places in the output, sides of input and output, ratio) -> places in the input, in float32 as in ONNX Runtime
    "half_pixel": lambda x, input_side, side, ratio: (x + np.float32(0.5)) / ratio - np.float32(0.5),
    "pytorch_half_pixel": lambda x, input_side, side, ratio: (
        (x + np.float32(0.5)) / ratio - np.float32(0.5) if side > 1 else np.zeros_like(x)
    ),
    # what a side loses by rounding down is left out at both ends
    "half_pixel_symmetric": lambda x, input_side, side, ratio: (
        (x + np.float32(0.5)) / ratio
        + (np.float32(input_side) - np.float32(side) / ratio) / np.float32(2)
        - np.float32(0.5)
    ),
    "asymmetric": lambda x, input_side, side, ratio: x / ratio,
    "align_corners": lambda x, input_side, side, ratio: x * np.float32((input_side - 1) / max(side - 1, 1)),
}


def resize(low: Lowering, node: OnnxNode) -> None:
    """Each row and column of the output becomes a place between two of the input, so that the engine knows no modes."""
    source = low.value(node)
    value = low.program.values[source]
    old = node.op == "Upsample" or low.onnx.opset < 11  # of one rule for where a place of the output is
    scales, sizes = (_scales(low, node), None) if old else (low.constant(node, 2), low.shape_of(node, 3))
    mode = text_attribute(node, "mode", "nearest")
    place = text_attribute(node, "coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    rounding = text_attribute(node, "nearest_mode", "floor" if old else "round_prefer_floor")
    if mode not in ("nearest", "linear") or place not in PLACES or rounding not in NEAREST:
        low.refuse(node, f"mode {mode}, {place}, {rounding}")
    if node.attributes.get("antialias", 0) or text_attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        low.refuse(node, "antialias or a policy of the aspect ratio")
    axes = normalized_axes(low, node, node.attributes.get("axes", range(4)), 4)
    if axes not in ([2, 3], [1, 2, 3], [0, 1, 2, 3]):
        low.refuse(node, "axes other than height and width")
    if sizes is not None:
        sides = [side for side in sizes[-2:] if side is not None]
        fits = len(sides) == 2 and len(sizes) == len(axes) and sizes[:-2][-1:] in ([], [value.c])
        ratios = [side / input_side for side, input_side in zip(sides, (value.h, value.w))]
    elif scales is not None and scales.dtype == np.float32 and scales.size == len(axes):
        ratios = [float(scale) for scale in scales.reshape(-1)[-2:]]
        fits = all(0 < ratio <= MOST_SIDE for ratio in ratios) and set(scales.reshape(-1)[:-2].tolist()) <= {1.0}
        sides = [
            int(np.float32(input_side) * np.float32(ratio))
            for input_side, ratio in zip((value.h, value.w), ratios)
            if fits
        ]
    else:
        low.refuse(node, "neither constant scales nor sizes")
    if not fits or not all(1 <= side <= MOST_SIDE for side in sides):
        low.refuse(node, f"a size that is not constant, not from 1 to {MOST_SIDE}, or of the batch or the channels")
    if old and mode == "nearest":  # these round up where they make a map smaller
        roundings = ["ceil" if ratio < 1 else "floor" for ratio in ratios]
    else:
        roundings = [rounding] * 2
    rows, columns = (
        _between(input_side, side, ratio, mode, place, rounding)
        for input_side, side, ratio, rounding in zip((value.h, value.w), sides, ratios, roundings)
    )
    out = FeatureMap(sides[0], sides[1], value.c)
    low.bind(node, low.emit("resize", source, out, weights=[LayerWeights(rows, columns)]))


def _scales(low: Lowering, node: OnnxNode) -> Any:
    """Of an Upsample an attribute before operator set 9."""
    scales = node.attributes.get("scales")
    return low.constant(node, 1) if scales is None else np.array(scales, np.float32)


def _between(input_side: int, side: int, ratio: float, mode: str, place: str, rounding: str) -> Array:
    """(side, 2): of each row or column the first of the two it is between, and its fraction of the way to the second."""
    x = PLACES[place](np.arange(side, dtype=np.float32), input_side, side, np.float32(ratio))
    if mode == "nearest":
        first = np.clip(NEAREST[rounding](x), 0, input_side - 1)
        return np.stack([first, np.zeros_like(first)], 1).astype(np.float32)
    x = np.clip(x, 0, input_side - 1)
    fraction = x - np.floor(x)
    fraction[
        fraction == 0
    ] = -0.0  # the engine then reads the second all the same: 0 times NaN is NaN, as in ONNX Runtime
    return np.stack([np.floor(x), fraction], 1).astype(np.float32)


def lower_softmax(low: Lowering, node: OnnxNode) -> None:
    """Over an axis that is a run of channels: of a map its channels, of rows (N, A, K) their K."""
    flat = low.onnx.opset < 13  # over all axes from one on

    def one(source: int, axes: Axes) -> int:
        value = low.program.values[source]
        (place,) = normalized_axes(low, node, [node.attributes.get("axis", 1 if flat else -1)], len(axes) + 1)
        if place == 0:
            low.refuse(node, "the batch as its axis")
        if flat and any(axes[place:]):
            low.refuse(node, "several axes at once, as before operator set 13")
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
    if text_attribute(node, "auto_pad", "NOTSET") != "NOTSET" or "output_shape" in at:
        low.refuse(node, "auto_pad or output_shape")
    if (at.get("kernel_shape") or [*weight.shape[2:]]) != [*weight.shape[2:]] or not weight.size:
        low.refuse(node, "another kernel than its weight's")
    if groups < 1 or value.c % groups:
        low.refuse(node, f"{groups} groups of {value.c} channels")
    strides, dilations = at.get("strides") or (1, 1), at.get("dilations") or (1, 1)
    pads, extra, each = at.get("pads") or [0] * 4, at.get("output_padding") or (0, 0), int(weight.shape[1])
    wide = [(side - 1) * step + 1 for side, step in zip(weight.shape[2:], dilations)]
    plans = [
        _phases(side, wide[axis], strides[axis], pads[axis], pads[axis + 2], extra[axis])
        for axis, side in enumerate((value.h, value.w))
    ]
    (kh, sh, top, bottom, rows), (kw, sw, left, right, columns) = plans
    if max(strides) > MOST_STRIDE or kh * kw > MOST_TAPS or min(top, left) < 0 or min(rows, columns) < 1:
        low.refuse(node, "its kernel, stride or padding is outside what the engine has")
    if value.c * each * sh * sw * kh * kw > MOST_NUMBERS:
        low.refuse(node, "its weight is too large once zeros stand between its places")
    weight = _spread(weight, wide, dilations)
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
    spread = low.emit("depth_to_space", emitted, FeatureMap(rows, columns, c_out), stride=(sh, sw), groups=groups)
    low.bind(node, spread)


def _spread(weight: Array, sides: Sequence[int], dilations: Sequence[int]) -> Array:
    """The kernel with zeros between its places."""
    wide = np.zeros((*weight.shape[:2], *sides), np.float32)
    wide[:, :, :: dilations[0], :: dilations[1]] = weight
    return wide


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
        low.refuse(node, "a block or mode outside what the engine has")
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
    if node.op == "Div" and not constant.all():
        low.refuse(node, "a division by zero")
    factor: NDArray[Any] = np.ones(value.c)
    offset: NDArray[Any] = np.zeros(value.c)
    if node.op in ("Add", "Sub"):
        offset = row if node.op == "Add" or constants[0] == 0 else -row
        factor = -factor if node.op == "Sub" and constants[0] == 0 else factor
    else:
        factor = row if node.op == "Mul" else np.reciprocal(row.astype(np.float64))
    low.bind(node, append_channel_scale(low, source, factor, offset), axes)
    return True

"""Convolutions, batch norms, pools and means over the positions of a map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile import (
    channel_scales,
    layout,
    padding,
    quantised,
    reductions,
    sequences,
    windows,
)
from gossamer.compile.attributes import LENGTHS, channel_row_input, text_attribute
from gossamer.compile.lowering import Lowering, Pads
from gossamer.compile.program import MOST_KERNEL, MOST_TAPS, Array, FeatureMap, LayerWeights
from gossamer.compile.scaling import append_channel_scale
from gossamer.host.text import counted
from gossamer.modelfile.onnx import OnnxNode


def _pair(values: Any, default: int = 1) -> tuple[int, int]:
    first, second = values if values else (default, default)
    return int(first), int(second)


def _window(
    value: FeatureMap, kernel: tuple[int, int], stride: tuple[int, int], pads: Pads, dilation: int
) -> tuple[int, int]:
    h = (value.h + pads[0] + pads[2] - dilation * (kernel[0] - 1) - 1) // stride[0] + 1
    w = (value.w + pads[1] + pads[3] - dilation * (kernel[1] - 1) - 1) // stride[1] + 1
    return h, w


def convolution(low: Lowering, node: OnnxNode) -> None:
    weight = low.tensor(node, 1)
    if weight is None or weight.ndim not in (3, 4) or weight.dtype != np.float32:
        low.refuse(node, "its weight is not float32 of three or four axes")
    if weight.ndim == 3:
        sequences.convolution(low, node, weight, convolution)
        return
    source = low.value(node)
    for name, (count, _) in LENGTHS.items():
        if len(node.attributes.get(name) or ()) not in (0, count):
            low.refuse(node, f"its {name} is not {counted(count, 'number')}")
    value, groups, c_out = low.program.values[source], node.attributes.get("group", 1), int(weight.shape[0])
    stride, dilations = _pair(node.attributes.get("strides")), _pair(node.attributes.get("dilations"))
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    if kernel != _pair(node.attributes.get("kernel_shape") or kernel):
        low.refuse(node, "its kernel_shape is not that of its weight")
    if dilations[0] != dilations[1]:
        convolution(low, _of_one_dilation(low, node, weight, dilations))
        return
    if not 1 <= kernel[0] * kernel[1] <= MOST_TAPS or value.c != weight.shape[1] * groups or c_out % groups:
        low.refuse(node, "its kernel, channels or groups are outside what the engine has")
    pads = padding.pads_of(low, node, kernel, stride, dilations)
    h, w = _window(value, kernel, stride, pads, dilations[0])
    bias_row = channel_row_input(low, node, 2, c_out)
    bias = np.zeros(c_out, np.float32) if bias_row is None else bias_row
    depthwise = groups > 1 and groups == value.c == c_out
    source, layer = (
        (source, quantised.depthwise_layer(low, node, weight, bias, source))
        if depthwise
        else quantised.layer(low, node, weight, bias, source)
    )
    layer = channel_scales.into_weights(low, node, layer)
    layers: list[LayerWeights | None] = [None, layer, None] if depthwise else [layer]
    emitted = low.emit(
        "block" if depthwise else "conv",
        source,
        FeatureMap(h, w, c_out),
        kernel=kernel,
        stride=stride,
        pads=pads,
        dilation=dilations[0],
        groups=1 if depthwise else groups,
        mid=c_out if depthwise else 0,
        weights=layers,
    )
    low.bind(node, emitted)


def _of_one_dilation(low: Lowering, node: OnnxNode, weight: Array, dilations: tuple[int, int]) -> OnnxNode:
    """The convolution with zeros in its kernel, so that it has one dilation. Raises InputError where that is too large."""
    taps = [(side, step) for side, step in zip(weight.shape[2:], dilations) if side > 1]
    one = math.gcd(*(step for _, step in taps)) if taps else 1
    steps = [step // one if side > 1 else 1 for side, step in zip(weight.shape[2:], dilations)]
    sides = [(side - 1) * step + 1 for side, step in zip(weight.shape[2:], steps)]
    if max(sides) > MOST_KERNEL or math.prod(sides) > MOST_TAPS:
        low.refuse(node, f"its dilations {list(dilations)} make a kernel of {sides[0]} x {sides[1]}")
    name = f"{node.outputs[0]}\0of one dilation"  # as no name of a file is
    low.onnx.tensors[name] = spread(weight, sides, steps)
    if (quantised := low.quantised.get(node.inputs[1])) is not None:
        low.quantised[name] = replace(quantised, data=spread(quantised.data, sides, steps))
    attributes = {**node.attributes, "dilations": [one, one], "kernel_shape": sides}
    return replace(node, inputs=(node.inputs[0], name, *node.inputs[2:]), attributes=attributes)


def spread(weight: NDArray[Any], sides: Sequence[int], steps: Sequence[int]) -> NDArray[Any]:
    """A kernel with zeros between its places."""
    wide = np.zeros((*weight.shape[:2], *sides), weight.dtype)
    wide[:, :, :: steps[0], :: steps[1]] = weight
    return wide


def batch_norm(low: Lowering, node: OnnxNode) -> None:
    source = low.value(node)
    value = low.program.values[source]
    scale, shift, mean, variance = (channel_row_input(low, node, place, value.c) for place in range(1, 5))
    if node.attributes.get("training_mode", 0):
        low.refuse(node, "its training_mode is 1")
    if any(one is None for one in (scale, shift, mean, variance)):
        low.refuse(node, "its scale, shift, mean or variance is left out")
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + node.attributes.get("epsilon", 1e-5))
    offset = shift - mean * factor
    low.bind(node, append_channel_scale(low, source, factor, offset))


def pool(low: Lowering, node: OnnxNode) -> None:
    source, at = low.value(node), node.attributes
    if not at.get("kernel_shape"):
        low.refuse(node, "it has no kernel_shape")
    value, kernel = low.program.values[source], _pair(at["kernel_shape"])
    stride, dilations = _pair(at.get("strides")), _pair(at.get("dilations"))
    _refuse_unlike_pads(low, node, (value.h, value.w), kernel, stride, dilations)
    pads = padding.pads_of(low, node, kernel, stride, dilations)
    count_padding = bool(at.get("count_include_pad", 0)) or low.map_name(node.inputs[0]) in low.padded
    if any(one >= side for one, side in zip(at.get("pads") or (), kernel * 2)):
        low.refuse(node, "its pads are as wide as its kernel")
    if at.get("ceil_mode", 0):
        bottom = _rounded_up(value.h, dilations[0] * (kernel[0] - 1) + 1, stride[0], pads[0], pads[2])
        right = _rounded_up(value.w, dilations[1] * (kernel[1] - 1) + 1, stride[1], pads[1], pads[3])
        if count_padding and (bottom, right) != pads[2:]:  # what is added does not count
            if max(pads):
                low.refuse(node, "its ceil_mode and count_include_pad are 1 and a window reaches beyond its pads")
            count_padding = False
        pads = (*pads[:2], bottom, right)
    kind = "max_pool" if node.op == "MaxPool" else "average_pool"
    windows_of = [(kernel, stride, pads, dilations[0])]
    if dilations[0] != dilations[1]:  # of rows, then of columns: the same, as the windows are rectangles
        windows_of = [
            ((kernel[0], 1), (stride[0], 1), (pads[0], 0, pads[2], 0), dilations[0]),
            ((1, kernel[1]), (1, stride[1]), (0, pads[1], 0, pads[3]), dilations[1]),
        ]
    for kernel, stride, pads, dilation in windows_of:
        value = low.program.values[source]
        h, w = _window(value, kernel, stride, pads, dilation)
        out = FeatureMap(h, w, value.c)
        window: dict[str, Any] = {"kernel": kernel, "stride": stride, "pads": pads, "dilation": dilation}
        source = low.emit(kind, source, out, count_padding=count_padding, **window)
    low.bind(node, source)


def _refuse_unlike_pads(
    low: Lowering,
    node: OnnxNode,
    sides: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilations: tuple[int, int],
) -> None:
    """Raises InputError for a pool with auto_pad SAME_UPPER or SAME_LOWER that ONNX Runtime pads otherwise than the specification.

    It leaves the dilation out, and moves windows by half of what two strides leave between them.
    """
    kind = text_attribute(node, "auto_pad", "NOTSET")
    if kind not in padding.SAME:
        return
    for side, taps, step, dilation in zip(sides, kernel, stride, dilations, strict=True):
        if taps > 1 and dilation > 1:
            low.refuse(node, f"its auto_pad is {kind} and its dilations are not 1, which runtimes compute differently")
        if (side - 1) // step * step + taps - side <= -2:
            low.refuse(
                node, f"its auto_pad is {kind} and its strides pass over its input, which runtimes compute differently"
            )


def _rounded_up(side: int, kernel: int, stride: int, before: int, behind: int) -> int:
    """The padding behind an axis with which its last window is complete, unless it would begin behind the map."""
    over = (side + before + behind - kernel) % stride
    begins = side + before + behind - kernel - over + stride
    return behind + stride - over if over and begins < side + before else behind


def global_average(low: Lowering, node: OnnxNode) -> None:
    source = low.value(node)
    low.bind(node, low.emit("global_average", source, FeatureMap(1, 1, low.program.values[source].c)))


def reduce_mean(low: Lowering, node: OnnxNode) -> None:
    """ReduceMean, of a map or of some of its rows or columns."""
    name = node.inputs[0]
    usual = name not in low.names or low.axes_of(name) == layout.of_map(low.program.values[low.names[name]])
    if not usual or not windows.mean(low, node, reductions.axes_of(low, node)):
        reductions.reduce(low, node)

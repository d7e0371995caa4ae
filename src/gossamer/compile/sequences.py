"""Convolutions of one axis: along the rows or columns of a map, or along its channels as one sequence (ECA)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gossamer.compile import layout, reductions
from gossamer.compile.attributes import LENGTHS, channel_row_input, text_attribute
from gossamer.compile.lowering import Handler, Lowering
from gossamer.compile.program import MOST_KERNEL, Array, FeatureMap, LayerWeights
from gossamer.host.text import counted
from gossamer.modelfile.onnx import OnnxNode

MOST_MATRIX = 2**22  # numbers of what a sequence of 2048 is multiplied with
MAP, WEIGHT = "\0of a map", "\0of two axes"  # behind a name, as no name of a file is


def convolution(low: Lowering, node: OnnxNode, weight: Array, of_maps: Handler) -> None:
    """A Conv whose weight has three axes. of_maps: the handler of those with four. Raises InputError."""
    source, axes = low.read(node), low.axes_of(node.inputs[0])
    channels, rows, columns = layout.of_map(low.program.values[source])
    for name, (count, _) in LENGTHS.items():
        if len(node.attributes.get(name) or ()) not in (0, count // 2):
            low.refuse(node, f"its {name} is not {counted(count // 2, 'number')}, for a weight of one axis")
    if axes == ((), channels) and channels and not rows and not columns:
        _along_channels(low, node, weight, source)
        return
    along_rows = axes == (channels, rows) and not columns and bool(rows)
    if not along_rows and (axes != (channels, columns) or rows):
        low.refuse(node, "its input is neither a map of one row or column, nor its channels as one sequence")
    of_one = {"dilations": 1, "kernel_shape": 1, "strides": 1}
    at = dict(node.attributes)
    for name, other in of_one.items():
        if at.get(name):
            at[name] = [at[name][0], other] if along_rows else [other, at[name][0]]
    if at.get("pads"):
        first, last = at["pads"]
        at["pads"] = [first, 0, last, 0] if along_rows else [0, first, 0, last]
    if at.get("dilations"):  # those of an axis of one place say nothing
        at["dilations"] = [max(at["dilations"])] * 2
    weight_name, map_name = f"{node.inputs[1]}{WEIGHT}", f"{node.inputs[0]}{MAP}"
    low.onnx.tensors[weight_name] = weight[:, :, :, None] if along_rows else weight[:, :, None, :]
    low.names[map_name] = source
    low.axes[map_name] = (channels, rows, columns)
    of_map = replace(node, inputs=(map_name, weight_name, *node.inputs[2:]), attributes=at)
    of_maps(low, of_map)
    made = layout.of_map(low.program.values[low.names[node.outputs[0]]])
    low.axes[node.outputs[0]] = (made[0], made[1] if along_rows else made[2])


def _along_channels(low: Lowering, node: OnnxNode, weight: Array, source: int) -> None:
    """One sequence of C numbers to `out` sequences: a 1x1 convolution with each kernel along its diagonals."""
    at, count = node.attributes, low.program.values[source].c
    out, inputs, kernel = weight.shape
    (stride,), (dilation,) = (at.get(name) or [1] for name in ("strides", "dilations"))
    kind, reach = text_attribute(node, "auto_pad", "NOTSET"), dilation * (kernel - 1) + 1
    before, behind = at.get("pads") or [0, 0]
    if kind in ("SAME_UPPER", "SAME_LOWER"):
        missing = max((count - 1) // stride * stride + reach - count, 0)
        before, behind = missing // 2, missing - missing // 2
        before, behind = (behind, before) if kind == "SAME_LOWER" else (before, behind)
    elif kind == "VALID":
        before = behind = 0
    elif kind != "NOTSET":
        low.refuse(node, f"auto_pad {kind}")
    length = (count + before + behind - reach) // stride + 1
    if (
        inputs != 1
        or at.get("group", 1) != 1
        or length < 1
        or kernel > MOST_KERNEL
        or not 1 <= kernel == (at.get("kernel_shape") or [kernel])[0]
    ):
        low.refuse(node, "its kernel, channels or groups are outside what the engine has")
    if out * length * count > MOST_MATRIX:
        low.refuse(node, f"a sequence of {count} numbers")
    matrix = np.zeros((out, length, count), np.float32)
    for tap in range(kernel):
        positions = np.arange(length) * stride - before + tap * dilation
        (places,) = ((positions >= 0) & (positions < count)).nonzero()
        matrix[:, places, positions[places]] += weight[:, 0, tap, None]
    bias = channel_row_input(low, node, 2, out)
    biases = np.zeros(out * length, np.float32) if bias is None else np.repeat(bias, length)
    layer = LayerWeights(matrix.reshape(out * length, count, 1, 1), biases)
    emitted = low.emit("conv", reductions.floats(low, source), FeatureMap(1, 1, out * length), weights=[layer])
    made = layout.reshaped_axes(layout.of_map(low.program.values[emitted])[:1], (out, length))
    low.bind(node, emitted, made)

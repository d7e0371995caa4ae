"""Gemm and MatMul with a constant: fully connected layers, as convolutions over the full map."""

from __future__ import annotations

from typing import Any

import numpy as np

from gossamer.compile import layout, quantised, reductions
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import MOST_KERNEL, MOST_TAPS, Array, FeatureMap, LayerWeights
from gossamer.compile.slices import cropped
from gossamer.host.text import counted
from gossamer.modelfile.onnx import OnnxNode

MOST_PARTS = 512  # of a map that one kernel cannot cover


def gemm(low: Lowering, node: OnnxNode) -> None:
    """Gemm, and MatMul, which has no bias."""
    at = node.attributes
    source, weight, bias_row = low.read(node), low.tensor(node, 1), low.tensor(node, 2)
    axes = low.axes_of(node.inputs[0])
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
        low.refuse(node, "its weight is not float32 of two axes")
    if at.get("transA", 0):
        low.refuse(node, "transA")
    axis = 0 if at.get("transB", 0) else 1
    weight = weight.T if axis else weight
    bias = _bias(low, node, bias_row, len(weight), at.get("beta", 1.0))
    alpha = np.float32(at.get("alpha", 1.0))
    value = low.program.values[source]
    if len(axes) != 1:
        _of_each_position(low, node, source, weight, bias)
        return
    if value.h * value.w * value.c != weight.shape[1]:
        low.refuse(
            node, f"its input has {counted(value.h * value.w * value.c, 'number')}, its weight {weight.shape[1]}"
        )
    # the layer is a convolution over all of the map, whose kernel has its columns channels first
    order = None if layout.channels_last(axes, value) is False else np.argsort(layout.places(axes, value))
    weight = weight if order is None else weight[:, order]
    kernel = np.ascontiguousarray(weight.reshape(-1, value.c, value.h, value.w))
    if value.h * value.w > MOST_TAPS or max(value.h, value.w) > MOST_KERNEL:
        emitted = _in_parts(low, node, reductions.floats(low, source), kernel * alpha, bias)
    else:
        layer = LayerWeights(kernel * alpha, bias)
        if alpha == 1:
            source, layer = quantised.layer(low, node, kernel, bias, source, axis, order)
        else:
            source = reductions.floats(low, source)
        emitted = low.emit("conv", source, FeatureMap(1, 1, len(weight)), kernel=(value.h, value.w), weights=[layer])
    low.bind(node, emitted, layout.of_map(low.program.values[emitted])[:1])


def _bias(low: Lowering, node: OnnxNode, row: Any, count: int, beta: float) -> Array:
    """A number for each output. Raises InputError."""
    row = np.zeros(1, np.float32) if row is None else row
    fits = row.size == 1 or row.shape in ((count,), (1, count))
    if not fits or row.ndim > 2 or row.dtype != np.float32:
        low.refuse(node, f"its bias is not a row of {count} float32")
    return np.ascontiguousarray(np.broadcast_to(row.reshape(-1), (count,)) * np.float32(beta), np.float32)


def _of_each_position(low: Lowering, node: OnnxNode, source: int, weight: Array, bias: Array) -> None:
    """The same layer for each position of a map whose channels are the tensor's last axis."""
    value, axes = low.program.values[source], low.axes_of(node.inputs[0])
    channels = layout.of_map(value)[0]
    if node.op != "MatMul" or not axes or axes[-1] != channels or value.c != weight.shape[1]:
        low.refuse(node, "its input is no flattened map, nor one with its channels last")
    kernel = np.ascontiguousarray(weight.reshape(-1, value.c, 1, 1))
    source, layer = quantised.layer(low, node, kernel, bias, source, 1)
    emitted = low.emit("conv", source, FeatureMap(value.h, value.w, len(weight)), weights=[layer])
    low.bind(node, emitted, (*axes[:-1], layout.of_map(low.program.values[emitted])[0]))


def _in_parts(low: Lowering, node: OnnxNode, source: int, kernel: Array, bias: Array) -> int:
    """The layer of a map that is larger than a kernel may be: of its parts, each added to those before it."""
    value, out = low.program.values[source], -1
    columns = min(value.w, MOST_KERNEL)
    rows = min(value.h, MOST_KERNEL, MOST_TAPS // columns)
    corners = [(top, left) for top in range(0, value.h, rows) for left in range(0, value.w, columns)]
    if len(corners) > MOST_PARTS:
        low.refuse(node, f"a map of {value.h} x {value.w}, larger than {MOST_PARTS} kernels")
    for top, left in corners:
        bottom, right = min(top + rows, value.h), min(left + columns, value.w)
        part = cropped(low, source, range(top, bottom), range(left, right))
        layer = LayerWeights(np.ascontiguousarray(kernel[:, :, top:bottom, left:right]), bias if out < 0 else bias * 0)
        size = (bottom - top, right - left)
        out = low.emit("conv", part, FeatureMap(1, 1, len(kernel)), kernel=size, other=out, weights=[layer])
    return out

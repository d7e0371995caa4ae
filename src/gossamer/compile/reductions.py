"""Maxima and means over the channels or over the positions of a map, by pools and layers that the engine has."""

from __future__ import annotations

import numpy as np

from gossamer.compile.attributes import normalized_axes
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import MOST_STRIDE, FeatureMap, LayerWeights
from gossamer.modelfile.onnx import OnnxNode

LARGEST_POOL, LARGEST_BLOCK = 64, 16  # of a pool's kernel; of the positions that channels become


def axes_of(low: Lowering, node: OnnxNode) -> list[int]:
    """The axes that a reduction of a map is over, an attribute or a second input."""
    return sorted(normalized_axes(low, node, low.ints(node, 1, "axes") or [], 4))


def largest(low: Lowering, node: OnnxNode) -> None:
    """ReduceMax and GlobalMaxPool."""
    axes = [2, 3] if node.op == "GlobalMaxPool" else axes_of(low, node)
    source = low.value(node)
    value = low.program.values[source]
    if axes not in ([1], [2, 3]) or (node.op == "ReduceMax" and not node.attributes.get("keepdims", 1)):
        low.refuse(node, "axes other than the channels, or height and width, that stay")
    if axes == [1]:
        low.bind(node, _of_channels(low, node, source))
        return
    if max(value.h, value.w) > LARGEST_POOL:
        low.refuse(node, f"a map of more than {LARGEST_POOL} rows or columns")
    low.bind(node, low.emit("max_pool", source, FeatureMap(1, 1, value.c), kernel=(value.h, value.w)))


def _of_channels(low: Lowering, node: OnnxNode, source: int) -> int:
    """Channels become positions, of which a pool takes the largest, until there is one."""
    value = low.program.values[source]
    while value.c > 1:
        rows = next((one for one in range(LARGEST_BLOCK, 0, -1) if value.c % one == 0), 1)
        columns = next((one for one in range(LARGEST_BLOCK, 0, -1) if value.c // rows % one == 0), 1)
        if rows * columns == 1:
            low.refuse(node, f"a number of channels that has a prime factor over {LARGEST_BLOCK}")
        block, c = (rows, columns), value.c // (rows * columns)
        spread = low.emit("depth_to_space", source, FeatureMap(value.h * rows, value.w * columns, c), stride=block)
        source = low.emit("max_pool", spread, FeatureMap(value.h, value.w, c), kernel=block, stride=block)
        value = low.program.values[source]
    return source


def mean_of_lines(low: Lowering, node: OnnxNode, source: int, rows: bool) -> int:
    """The mean of all rows, or of all columns, of a map: a pool, or several where one would be too large."""
    value = low.program.values[source]
    side = value.h if rows else value.w
    while side > 1:
        part = side if side <= LARGEST_POOL else next((one for one in range(MOST_STRIDE, 1, -1) if side % one == 0), 0)
        if not part:
            low.refuse(
                node, f"a number of rows or columns over {LARGEST_POOL} that has a prime factor over {MOST_STRIDE}"
            )
        side, step = side // part, 1 if side == part else part
        kernel, stride = ((part, 1), (step, 1)) if rows else ((1, part), (1, step))
        out = FeatureMap(side, value.w, value.c) if rows else FeatureMap(value.h, side, value.c)
        source = low.emit("average_pool", source, out, kernel=kernel, stride=stride)
    return source


def mean_of_channels(low: Lowering, node: OnnxNode) -> None:
    """ReduceMean over the channels, which stay as one."""
    source = floats(low, low.value(node))
    value = low.program.values[source]
    weight = np.full((1, value.c, 1, 1), 1 / value.c, np.float32)
    layer = LayerWeights(weight, np.zeros(1, np.float32))
    low.bind(node, low.emit("conv", source, FeatureMap(value.h, value.w, 1), weights=[layer]))


def floats(low: Lowering, source: int) -> int:
    """A map as floats, which weights of floats can meet: itself, or a copy."""
    value = low.program.values[source]
    return low.emit("copy", source, FeatureMap(value.h, value.w, value.c)) if value.type == "uint8" else source


def to_channels(low: Lowering, source: int, channels: int) -> int:
    """A map of one channel as one of many that are alike."""
    source = floats(low, source)
    value = low.program.values[source]
    if value.c == channels:
        return source
    layer = LayerWeights(np.ones((channels, 1, 1, 1), np.float32), np.zeros(channels, np.float32))
    return low.emit("conv", source, FeatureMap(value.h, value.w, channels), weights=[layer])

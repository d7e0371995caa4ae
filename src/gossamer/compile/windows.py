"""Means of neighbouring rows or columns, one for each part of a map, as adaptive pooling is written with plain operators."""

from __future__ import annotations

from typing import Any

from gossamer.compile import layout, reductions
from gossamer.compile.attributes import normalized_axes
from gossamer.compile.constants import slice_bounds
from gossamer.compile.lowering import Lowering, Window
from gossamer.compile.program import FeatureMap, LayerWeights
from gossamer.compile.slices import crop_map, repeated, resize_pairs
from gossamer.modelfile.onnx import OnnxNode

ROWS, COLUMNS = 2, 3  # axes of a map


def cut(low: Lowering, node: OnnxNode) -> bool:
    """A slice of rows or columns that only means over them read; whether it is one."""
    start, end, axes, steps = slice_bounds(low, node)
    axes = None if axes is None else normalized_axes(low, node, axes, 4)
    name = node.outputs[0]
    readers = low.users.get(name, [])
    if axes not in ([ROWS], [COLUMNS]) or not readers or len(readers) != low.uses[name]:
        return False
    if any(one.op != "ReduceMean" or reductions.axes_of(low, one) != axes for one in readers):
        return False
    source, axis = low.value(node), axes[0]
    side = _side(low.program.values[source], axis)
    first, last, step = slice(start[0], end[0], steps[0]).indices(side)
    if step != 1 or first >= last:
        return False
    low.windows[name] = Window(source, axis, first, last)
    return True


def mean(low: Lowering, node: OnnxNode, axes: list[int]) -> bool:
    """The mean over rows or columns, of a window or of a map; whether it is one. What joins several is behind it."""
    window, name = low.windows.get(node.inputs[0]), node.outputs[0]
    if axes not in ([ROWS], [COLUMNS]):
        return False
    axis = axes[0]
    if window is None:
        source = low.value(node)
        window = Window(source, axis, 0, _side(low.program.values[source], axis))
    keeps, readers = node.attributes.get("keepdims", 1), low.users.get(name, [])
    concatenated = all(one.op == "Concat" and one.attributes.get("axis") in (axis, axis - 4) for one in readers)
    if keeps and readers and concatenated and len(readers) == low.uses[name]:
        low.windows[name] = Window(window.source, axis, window.first, window.end, True)
        return True
    emitted = _mean(low, node, window)
    if emitted == window.source:  # one row or column, which others may read
        value = low.program.values[emitted]
        emitted = low.emit("copy", emitted, FeatureMap(value.h, value.w, value.c))
    low.bind(node, emitted, None if keeps else _without(low.program.values[emitted], axis))
    return True


def _mean(low: Lowering, node: OnnxNode, window: Window) -> int:
    """The mean of a window as a map of its own."""
    value, lines = low.program.values[window.source], range(window.first, window.end)
    rows, columns = (lines, range(value.w)) if window.axis == ROWS else (range(value.h), lines)
    return reductions.mean_of_lines(low, node, crop_map(low, window.source, rows, columns), window.axis == ROWS)


def _side(value: FeatureMap, axis: int) -> int:
    return value.h if axis == ROWS else value.w


def _without(value: FeatureMap, axis: int) -> layout.Axes:
    """The axes of a map but for one, of one row or column."""
    return tuple(parts for place, parts in enumerate(layout.of_map(value), 1) if place != axis)


def lower_concat(low: Lowering, node: OnnxNode) -> bool:
    """Means of windows of one map side by side: an average pool, or a resize where parts differ in size; whether it is that."""
    parts: list[Any] = [low.windows.get(name) for name in node.inputs]
    if not any(parts):
        return False
    one = parts[0]
    alike = all(part is not None and part.mean and (part.source, part.axis) == (one.source, one.axis) for part in parts)
    if not alike or node.attributes.get("axis") != one.axis:
        low.refuse(node, "rows or columns of several maps, or along another axis than theirs")
    value, along_rows = low.program.values[one.source], one.axis == ROWS
    side = _side(value, one.axis)
    sizes, starts = [part.end - part.first for part in parts], [part.first for part in parts]
    step = starts[1] - starts[0] if len(starts) > 1 else side
    count = len(parts)
    out = FeatureMap(count if along_rows else value.h, value.w if along_rows else count, value.c)
    even = set(sizes) == {sizes[0]} and starts == [index * step for index in range(count)]
    if even and 0 < step <= 16 and sizes[0] <= 64 and (side - sizes[0]) // step + 1 == count:
        kernel, stride = ((sizes[0], 1), (step, 1)) if along_rows else ((1, sizes[0]), (1, step))
        emitted = low.emit("average_pool", one.source, out, kernel=kernel, stride=stride)
    elif max(sizes) <= 2:
        between = resize_pairs(starts, [size / 2 - 0.5 for size in sizes])
        others = value.w if along_rows else value.h
        same = resize_pairs(list(range(others)), [0.0] * others)
        layer = LayerWeights(between, same) if along_rows else LayerWeights(same, between)
        emitted = low.emit("resize", one.source, out, weights=[layer])
    elif all(part == one for part in parts):
        emitted = repeated(low, node, _mean(low, node, one), along_rows)
    else:
        low.refuse(node, "means of three or more rows or columns in parts of different sizes")
    low.bind(node, emitted)
    return True

"""Means of neighbouring rows or columns, one for each part of a map, as adaptive pooling is written with plain operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from gossamer.compile.attributes import places
from gossamer.compile.constants import bounds
from gossamer.compile.lowering import Lowering, Window
from gossamer.compile.program import Array, Layer, Value
from gossamer.onnxfile import Node

ROWS, COLUMNS = 2, 3  # axes of a map


def cut(low: Lowering, node: Node) -> bool:
    """A slice of rows or columns of which only means are taken; whether it is one."""
    start, end, axes, steps = bounds(low, node)
    axes = None if axes is None else places(low, node, axes, 4)
    readers = [one.op for one in low.users.get(node.outputs[0], [])]
    if axes not in ([ROWS], [COLUMNS]) or not readers or set(readers) != {"ReduceMean"}:
        return False
    source, axis = low.value(node), axes[0]
    value = low.program.values[source]
    side = (value.h, value.w)[axis - ROWS]
    first, last, step = slice(start[0], end[0], steps[0]).indices(side)
    if step != 1 or first >= last:
        return False
    low.windows[node.outputs[0]] = Window(source, axis, first, last)
    return True


def mean(low: Lowering, node: Node, axes: list[int]) -> bool:
    """The mean over a window's own axis; whether it is one."""
    window = low.windows.get(node.inputs[0])
    if window is None:
        return False
    if axes != [window.axis] or not node.attributes.get("keepdims", 1):
        low.refuse(node, "a mean of some rows or columns over another axis than theirs")
    low.windows[node.outputs[0]] = Window(window.source, window.axis, window.first, window.end, True)
    return True


def join(low: Lowering, node: Node) -> bool:
    """Means of windows of one map side by side: an average pool, or a resize where parts differ in size; whether it is that."""
    parts: list[Any] = [low.windows.get(name) for name in node.inputs]
    if not any(parts):
        return False
    one = parts[0]
    alike = all(part is not None and part.mean and (part.source, part.axis) == (one.source, one.axis) for part in parts)
    if not alike or node.attributes.get("axis") != one.axis:
        low.refuse(node, "rows or columns of several maps, or along another axis than theirs")
    value, along_rows = low.program.values[one.source], one.axis == ROWS
    side = value.h if along_rows else value.w
    sizes, starts = [part.end - part.first for part in parts], [part.first for part in parts]
    step = starts[1] - starts[0] if len(starts) > 1 else side
    count = len(parts)
    out = Value(count if along_rows else value.h, value.w if along_rows else count, value.c)
    even = set(sizes) == {sizes[0]} and starts == [index * step for index in range(count)]
    if even and 0 < step <= 16 and sizes[0] <= 64 and (side - sizes[0]) // step + 1 == count:
        kernel, stride = ((sizes[0], 1), (step, 1)) if along_rows else ((1, sizes[0]), (1, step))
        made = low.emit("average_pool", one.source, out, kernel=kernel, stride=stride)
    elif max(sizes) <= 2:
        between = pairs(starts, [size / 2 - 0.5 for size in sizes])
        others = value.w if along_rows else value.h
        same = pairs(list(range(others)), [0.0] * others)
        layer = Layer(between, same) if along_rows else Layer(same, between)
        made = low.emit("resize", one.source, out, weights=[layer])
    else:
        low.refuse(node, "means of three or more rows or columns in parts of different sizes")
    low.bind(node, made)
    return True


def pairs(first: list[int], on: list[float]) -> Array:
    """As a resize has them: the first of two rows, and how far on."""
    return np.stack([np.asarray(first, np.float32), np.asarray(on, np.float32)], 1)

"""Some rows and columns of a map, and convolutions over neighbours that slices have laid into channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gossamer.compile import layout
from gossamer.compile.attributes import text_attribute
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import (
    MOST_KERNEL,
    MOST_NUMBERS,
    MOST_PAD,
    MOST_SIDE,
    MOST_STRIDE,
    MOST_TAPS,
    Array,
    FeatureMap,
    LayerWeights,
    Operation,
)
from gossamer.modelfile.onnx import OnnxNode

MOST_RUNS = 64  # of channels that are copied one by one
MOST_WEIGHT = MOST_NUMBERS // MOST_TAPS  # kernels of the largest size


def resize_pairs(first: Sequence[int], on: Sequence[float]) -> Array:
    """As a resize has them: the first of two rows, and how far on."""
    return np.stack([np.asarray(first, np.float32), np.asarray(on, np.float32)], 1)


def crop_map(low: Lowering, source: int, rows: range, columns: range) -> int:
    """The map of these rows and columns of a map, in this order; itself where they are all of it."""
    value, maker = low.program.values[source], low.free_to_take(source)
    if rows == range(value.h) and columns == range(value.w):
        return source
    if maker is not None and (before := _chosen(maker)) is not None:  # a slice of a slice is one
        maker.weights = [_layer([before[0][place] for place in rows], [before[1][place] for place in columns])]
        value.h, value.w = len(rows), len(columns)
        return source
    return cropped(low, source, rows, columns)


def cropped(low: Lowering, source: int, rows: Sequence[int], columns: Sequence[int]) -> int:
    """The same as a map of its own; the map that it is taken from stays as it is."""
    out = FeatureMap(len(rows), len(columns), low.program.values[source].c)
    return low.emit("resize", source, out, weights=[_layer(rows, columns)])


def _layer(rows: Sequence[int], columns: Sequence[int]) -> LayerWeights:
    return LayerWeights(resize_pairs(rows, [0.0] * len(rows)), resize_pairs(columns, [0.0] * len(columns)))


def _chosen(operation: Operation) -> tuple[list[int], list[int]] | None:
    """The rows and columns that an operation copies; None where it does anything else."""
    layer: Any = operation.weights[0] if operation.kind == "resize" else None
    if layer is None or any(pairs[:, 1].any() or np.signbit(pairs[:, 1]).any() for pairs in (layer.weight, layer.bias)):
        return None
    return layer.weight[:, 0].astype(int).tolist(), layer.bias[:, 0].astype(int).tolist()


def focus(low: Lowering, node: OnnxNode) -> bool:
    """A convolution of every t-th row and column, from each of several first ones, all laid into channels.

    It is one of a kernel and strides t times as large over the map itself; whether a Concat begins that.
    """
    name = node.outputs[0]
    readers = low.users.get(name, [])
    if node.attributes.get("axis") != 1 or [one.op for one in readers] != ["Conv"] or low.uses[name] != 1:
        return False
    conv, parts = readers[0], [low.names.get(one, -1) for one in node.inputs]
    makers = [low.free_to_take(part) for part in parts]
    picked = [None if one is None else _chosen(one) for one in makers]
    weight = low.onnx.tensors.get(conv.inputs[1]) if len(conv.inputs) > 1 and conv.inputs[0] == name else None
    firsts, step = _firsts(low, makers, picked)
    if weight is None or weight.ndim != 4 or weight.dtype != np.float32 or not firsts or len(set(parts)) < len(parts):
        return False
    source = next(one.input for one in makers if one is not None)
    c, at = low.program.values[source].c, conv.attributes
    kernel, strides, pads = weight.shape[2:], at.get("strides") or [1, 1], at.get("pads") or [0] * 4
    plain = (
        at.get("group", 1) == 1
        and set(at.get("dilations") or [1]) == {1}
        and text_attribute(conv, "auto_pad", "NOTSET") == "NOTSET"
    )
    plain = plain and list(at.get("kernel_shape") or kernel) == list(kernel) and weight.shape[1] == c * len(parts)
    sides = [int(side) * step for side in kernel]
    if not plain or max(sides) > MOST_KERNEL or sides[0] * sides[1] > MOST_TAPS or len(weight) * c > MOST_WEIGHT:
        return False
    if max(strides) * step > MOST_STRIDE or max(pads) * step > MOST_PAD or low.program.values[source].type != "float32":
        return False
    wide = np.zeros((len(weight), c, *sides), np.float32)
    for place, (top, left) in enumerate(firsts):
        wide[:, :, top::step, left::step] = weight[:, place * c : place * c + c]
    gone = {id(one) for one in makers}
    low.program.operations = [one for one in low.program.operations if id(one) not in gone]
    map_name, weight_name = f"{name}\0map", f"{name}\0weight"  # as no name of a file is
    low.names[map_name], low.onnx.tensors[weight_name] = source, wide
    larger = {"kernel_shape": sides, "strides": [one * step for one in strides], "pads": [one * step for one in pads]}
    low.skip.add(id(conv))
    low.handlers["Conv"](
        low,
        OnnxNode(
            conv.op, conv.name, (map_name, weight_name, *conv.inputs[2:]), conv.outputs, {**conv.attributes, **larger}
        ),
    )
    return True


def _firsts(
    low: Lowering, makers: Sequence[Operation | None], picked: Sequence[tuple[list[int], list[int]] | None]
) -> tuple[list[tuple[int, int]], int]:
    """The first row and column of each part, all different, and the step; none where they are not such parts of one map."""
    one, first = makers[0], picked[0]
    if one is None or first is None:
        return [], 0
    value, step = low.program.values[one.input], low.program.values[one.input].h // len(first[0])
    offsets = []
    if step < 2:
        return [], 0
    for other, lines in zip(makers, picked, strict=True):
        if other is None or lines is None or other.input != one.input:
            return [], 0
        top, left = lines[0][0], lines[1][0]
        every = [list(range(top, value.h, step)), list(range(left, value.w, step))]
        if value.h % step or value.w % step or max(top, left) >= step or list(lines) != every:
            return [], 0
        offsets.append((top, left))
    return (offsets, step) if len(set(offsets)) == len(offsets) else ([], 0)


def again(low: Lowering, node: OnnxNode) -> bool:
    """One map several times along its rows or columns; whether a Concat is that."""
    axis = node.attributes.get("axis")
    if axis not in (2, 3) or len(set(node.inputs)) > 1 or node.inputs[0] not in low.names:
        return False
    if len(low.axes_of(node.inputs[0])) != 3:
        return False
    low.bind(node, repeated(low, node, low.value(node), axis == 2))
    return True


def repeated(low: Lowering, node: OnnxNode, source: int, along_rows: bool) -> int:
    """The map as many times as a node has inputs, below or beside itself."""
    value, count = low.program.values[source], len(node.inputs)
    if count * (value.h if along_rows else value.w) > MOST_SIDE:
        low.refuse(node, f"a map of more than {MOST_SIDE} rows or columns")
    rows, columns = list(range(value.h)), list(range(value.w))
    rows, columns = (rows * count, columns) if along_rows else (rows, columns * count)
    return low.emit("resize", source, FeatureMap(len(rows), len(columns), value.c), weights=[_layer(rows, columns)])


def select_channels(low: Lowering, node: OnnxNode, source: int, channels: Sequence[int]) -> int:
    """The map of these channels of a map, in this order: runs of neighbours are copied. Raises InputError for too many runs."""
    value = low.program.values[source]
    starts = [at for at, one in enumerate(channels) if at == 0 or one != channels[at - 1] + 1]
    if len(starts) > MOST_RUNS:
        low.refuse(node, f"channels in more than {MOST_RUNS} runs of neighbours")
    base, values = value.parent if value.parent >= 0 else source, low.program.values
    values.append(FeatureMap(value.h, value.w, len(channels)))
    out = len(values) - 1
    for start, end in zip(starts, [*starts[1:], len(channels)]):
        part = value.like(value.h, value.w, end - start)
        part.parent, part.first = base, value.first + channels[start]
        values.append(part)
        copied = low.emit("copy", len(values) - 1, FeatureMap(value.h, value.w, end - start))
        values[copied].parent, values[copied].first = out, start
    return out


def lower_gather(low: Lowering, node: OnnxNode) -> None:
    """Gather of channels, rows or columns at constant places; a single place leaves its axis out."""
    places, source = low.tensor(node, 1), low.value(node)
    value, axes = low.program.values[source], low.axes_of(node.inputs[0])
    axis = node.attributes.get("axis", 0)
    if places is None or places.dtype.kind not in "iu" or places.ndim > 1 or not places.size:
        low.refuse(node, "places that are no row of integers")
    if not 1 <= axis <= len(axes):
        low.refuse(node, "its axis is 0, the batch, or none that it has")
    side = layout.sides_of(axes)[axis - 1]
    chosen = [int(one) + (side if one < 0 else 0) for one in places.reshape(-1)]
    if not all(0 <= one < side for one in chosen) or len(chosen) > MOST_SIDE:
        low.refuse(node, f"places that {side} do not have")
    if axis == 1:
        emitted = select_channels(low, node, source, chosen)
    else:
        rows, columns = (chosen, range(value.w)) if axis == 2 else (range(value.h), chosen)
        emitted = cropped(low, source, rows, columns)
    output_axes = layout.of_map(low.program.values[emitted])[: len(axes)]
    low.bind(
        node, emitted, output_axes if places.ndim else tuple(one for at, one in enumerate(output_axes, 1) if at != axis)
    )

"""Concat, Split, Slice and channel shuffle: maps side by side, and parts of them."""

from __future__ import annotations

from gossamer.compile import (
    layout,
    layout_ops,
    quantised,
    slices,
    windows,
)
from gossamer.compile.attributes import (
    normalized_axes,
    refuse_mixed_ranks,
)
from gossamer.compile.constants import slice_bounds
from gossamer.compile.lowering import FUSES_ACTIVATION, Lowering
from gossamer.compile.program import QDQ_OPS, FeatureMap
from gossamer.host.text import counted
from gossamer.modelfile.onnx import OnnxNode


def reshape(low: Lowering, node: OnnxNode) -> None:
    if not _shuffle(low, node):
        layout_ops.lower_reshape(low, node)


def _shuffle(low: Lowering, node: OnnxNode) -> bool:
    """Reshape, Transpose, Reshape: the channels of some groups interleaved; whether that is what begins here."""
    source, chain = low.read(node), [node]
    while len(chain) < 8 and len(users := low.users.get(name := chain[-1].outputs[0], [])) == 1 == low.uses[name]:
        chain.append(users[0])
        if chain[-1].op == "Reshape":
            break
    moved = [one for one in chain if one.op not in QDQ_OPS]
    names, value = [one.op for one in moved], low.program.values[source]
    if names != ["Reshape", "Transpose", "Reshape"] or moved[1].attributes.get("perm") != [0, 2, 1, 3, 4]:
        return False
    axes = layout_ops.rearranged(low, node) if low.axes_of(node.inputs[0]) == layout.of_map(value) else None
    groups, each, *sides = (0, 0) if axes is None else layout.sides_of(axes)
    if axes is None or groups * each != value.c or sides != [value.h, value.w]:
        return False
    for one in chain[1:-1]:
        quantised.follow_bytes(low, one)
    for one in chain[1:-1]:  # bytes that are moved stay as they are, unless they are rounded again
        if one.op in QDQ_OPS:
            source = quantised.requantised(low, one, source)
    value = low.program.values[source]
    low.skip |= {id(one) for one in chain[:-1]}
    emitted = low.emit("shuffle", source, value.like(value.h, value.w, value.c), groups=groups)
    low.bind(chain[-2], emitted, layout.reshaped_axes(layout.of_map(value), (each, groups, *sides)))
    return True


def concat(low: Lowering, node: OnnxNode) -> None:
    if (
        windows.lower_concat(low, node)
        or slices.focus(low, node)
        or slices.again(low, node)
        or _transposed_rows(low, node)
    ):
        return
    if node.attributes.get("axis") == 1 and not all(_is_map(low, name) for name in node.inputs):
        rows = [low.series.get(name) or [(low.read(node, i), low.axes_of(name))] for i, name in enumerate(node.inputs)]
        merged = [one for part in rows for one in part]
        if len({layout.sides_of(axes)[1:] for _, axes in merged}) > 1:
            low.refuse(node, "rows of different lengths")
        low.series[node.outputs[0]] = merged
        return
    if node.attributes.get("axis") != 1:
        low.refuse(node, f"its axis is {node.attributes.get('axis')}, other than the channels")
    parts = [low.value(node, place) for place in range(len(node.inputs))]
    refuse_mixed_ranks(low, node)
    values = low.program.values
    first = values[parts[0]]
    values.append(FeatureMap(first.h, first.w, sum(values[part].c for part in parts)))
    concatenated, offset = len(values) - 1, 0
    for part in parts:
        value = values[part]
        if (value.h, value.w) != (first.h, first.w):
            low.refuse(node, "maps of two sizes")
        # a layer writes its slice itself, unless its output is a slice already or has slices of its own
        alone = part in low.maker and value.parent < 0 and parts.count(part) == 1
        maker = low.maker.get(part)
        if alone and value.type == "uint8":
            # bytes are those of the concatenated map, of what was rounded to the part's own before
            alone = (
                maker is not None
                and maker.kind in FUSES_ACTIVATION
                and maker.act == "none"
                and low.value_uses[part] <= 1
                and low.take_rounding(part, maker)
            )
        if alone and not any(other.parent == part for other in values):
            value.parent, value.first = concatenated, offset
        else:
            copied = low.emit("copy", part, FeatureMap(value.h, value.w, value.c))
            values[copied].parent, values[copied].first = concatenated, offset
        offset += value.c
    low.bind(node, concatenated)


def _transposed_rows(low: Lowering, node: OnnxNode) -> bool:
    """Maps flattened to (C, positions) side by side, then transposed: rows behind rows; whether a Concat begins that."""
    name, readers = node.outputs[0], low.users.get(node.outputs[0], [])
    parts = [(low.names[one], low.axes_of(one)) for one in node.inputs if one in low.names]
    flat = len(parts) == len(node.inputs) and all(len(axes) == 2 for _, axes in parts)
    if (
        not flat
        or node.attributes.get("axis") not in (2, -1)
        or len({layout.sides_of(axes)[0] for _, axes in parts}) > 1
    ):
        return False
    if len(readers) != 1 or low.uses[name] != 1 or readers[0].op != "Transpose":
        return False
    if readers[0].attributes.get("perm") != [0, 2, 1]:
        return False
    low.skip.add(id(readers[0]))
    low.series[readers[0].outputs[0]] = [(value, (axes[1], axes[0])) for value, axes in parts]
    return True


def _is_map(low: Lowering, name: str) -> bool:
    """Whether a name is a map, flattened to its channels or not: such are concatenated by channels, others as rows."""
    if name not in low.names:
        return False
    value, axes = low.program.values[low.names[name]], low.axes_of(name)
    return axes == layout.of_map(value) or (value.h * value.w == 1 and len(axes) == 1)


def split_or_slice(low: Lowering, node: OnnxNode) -> None:
    if node.op == "Slice" and windows.cut(low, node):
        return
    source, at = low.value(node), node.attributes
    value = low.program.values[source]
    if node.op == "Split":
        sizes, count = low.ints(node, 1, "split"), len(node.outputs)
        axis = at.get("axis", 0)
        if not 1 <= axis <= len(low.axes_of(node.inputs[0])):
            low.refuse(node, "its axis is 0, the batch")
        side = (value.c, value.h, value.w)[axis - 1]
        if at.get("num_outputs", count) != count or (sizes is not None and "num_outputs" in at):
            low.refuse(
                node,
                f"{counted(count, 'output')}, not as many as its num_outputs, or it has both num_outputs and sizes",
            )
        each = sizes
        if each is None:  # equal parts, the last one smaller where the number of parts is given
            equal = -(-side // count)
            each = [equal] * (count - 1) + [side - equal * (count - 1)]
            if "num_outputs" not in at and side % count:
                low.refuse(node, f"{count} equal parts of {side}")
        if len(each) != count or min(each) < 1 or sum(each) != side:
            what = "num_outputs" if "num_outputs" in at else "split"
            low.refuse(node, f"its {what} makes {counted(count, 'part')} of {str(each)[:60]} of {side}")
        starts = [sum(each[:place]) for place in range(count)]
        if axis > 1:
            for name, begin, size in zip(node.outputs, starts, each):
                lines, every = range(begin, begin + size), (range(value.h), range(value.w))
                rows, columns = (lines, every[1]) if axis == 2 else (every[0], lines)
                if name:
                    low.names[name] = slices.cropped(low, source, rows, columns)
                    low.value_uses[low.names[name]] = low.uses.get(name, 0)
            return
    else:
        channels, rows, columns = _chosen(low, node, value)
        full_map = rows == range(value.h) and columns == range(value.w)
        if channels == range(value.c):
            low.alias(node, source) if full_map else low.bind(node, slices.crop_map(low, source, rows, columns))
            return
        source = source if full_map else slices.crop_map(low, source, rows, columns)
        if channels.step != 1:
            low.bind(node, slices.select_channels(low, node, source, channels))
            return
        value, first, last = low.program.values[source], channels.start, channels.stop
        starts, each = [first], [last - first]
    base = value.parent if value.parent >= 0 else source
    for name, begin, size in zip(node.outputs, starts, each):
        part = value.like(value.h, value.w, size)
        part.parent, part.first = base, value.first + begin
        low.program.values.append(part)
        if not name:
            continue
        low.names[name] = len(low.program.values) - 1
        if len(low.axes_of(node.inputs[0])) == 1:
            low.axes[name] = layout.of_map(part)[:1]
        low.value_uses[low.names[name]] = low.uses.get(name, 0)


def _chosen(low: Lowering, node: OnnxNode, value: FeatureMap) -> list[range]:
    """The channels, rows and columns of a map that a Slice leaves. Raises InputError."""
    start, end, axes, steps = slice_bounds(low, node)
    rank = len(low.axes_of(node.inputs[0])) + 1
    axes = normalized_axes(low, node, range(len(start)) if axes is None else axes, rank)
    sides, chosen = (value.c, value.h, value.w), [range(value.c), range(value.h), range(value.w)]
    for axis, first, last, step in zip(axes, start, end, steps, strict=True):
        if axis == 0 and (first, step) == (0, 1) and (last >= 2**31 - 1 or last == (low.onnx.input.shape or ())[0]):
            continue  # all of the batch
        if axis == 0:
            low.refuse(node, "part of the batch")
        # below -side a backward slice runs to the first place, which Python writes as None
        stop = None if step < 0 and last < -sides[axis - 1] else last
        chosen[axis - 1] = range(sides[axis - 1])[slice(first, stop, step)]
        if not chosen[axis - 1]:
            low.refuse(node, f"nothing of axis {axis}")
    return chosen

"""Maps stacked along an axis of their own, weighted by one number per channel and summed, as selective kernels have them."""

from __future__ import annotations

from gossamer.compile import layout, reductions
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import FeatureMap
from gossamer.modelfile.onnx import OnnxNode


def _maps(low: Lowering, node: OnnxNode, name: str) -> list[int]:
    """The maps of a stack (paths, C, H, W). Raises InputError for other rows."""
    parts = low.series[name]
    if any(axes != ((), *layout.of_map(low.program.values[value])) or axes != parts[0][1] for value, axes in parts):
        low.refuse(node, "rows of several maps that are no stack of them")
    return [value for value, _ in parts]


def total(low: Lowering, node: OnnxNode) -> None:
    """ReduceSum, of a map or over the axis along which maps are stacked."""
    if node.inputs[0] not in low.series:
        reductions.reduce(low, node)
        return
    if reductions.axes_of(low, node) != [1] or node.attributes.get("keepdims", 1):
        low.refuse(node, "a sum that is not over maps stacked along axis 1")
    first, *others = _maps(low, node, node.inputs[0])
    value = low.program.values[first]
    for other in others:
        first = low.emit("add", first, FeatureMap(value.h, value.w, value.c), other=other)
    low.bind(node, first)


def weigh(low: Lowering, node: OnnxNode) -> bool:
    """A stack times one number for each of its channels (paths, C, 1, 1); whether it is one."""
    names = [name for name in node.inputs if name in low.series]
    if len(names) != 1:
        return False
    maps, place = _maps(low, node, names[0]), 1 - node.inputs.index(names[0])
    weights, axes = low.read(node, place), low.axes_of(node.inputs[place])
    value, c = low.program.values[weights], low.program.values[maps[0]].c
    in_order = layout.merged([part for axis in axes for part in axis]) == layout.of_map(value)[0]
    if layout.sides_of(axes) != (len(maps), c, 1, 1) or not in_order or value.parent >= 0:
        low.refuse(node, "rows of several maps times other than one number per channel")
    emitted = []
    for index, source in enumerate(maps):
        part, one = value.like(1, 1, c), low.program.values[source]
        part.parent, part.first = weights, index * c
        low.program.values.append(part)
        number = len(low.program.values) - 1
        emitted.append(low.emit("scale", source, FeatureMap(one.h, one.w, one.c), other=number))
    low.series[node.outputs[0]] = [
        (scaled, axes) for scaled, (_, axes) in zip(emitted, low.series[names[0]], strict=True)
    ]
    return True

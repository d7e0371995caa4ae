"""Sums and products of two maps of which one is repeated along some axes, in whatever order the tensors have their axes."""

from __future__ import annotations

from gossamer.compile import layout, reductions
from gossamer.compile.layout import Axes
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import FeatureMap
from gossamer.compile.slices import cropped
from gossamer.modelfile.onnx import OnnxNode


def common_axes(low: Lowering, node: OnnxNode) -> Axes | None:
    """The axes of the result of a node of two maps that can be computed number by number, one of them repeated along whole
    axes where it has one place; None for others.
    """
    both = [low.axes_of(name) if name in low.names else None for name in node.inputs]
    a, b = both
    if a is None or b is None or len(a) != len(b):
        return None
    one, other = (low.program.values[low.names[name]] for name in node.inputs)
    if a == b and (one.h, one.w, one.c) == (other.h, other.w, other.c):
        return a
    for axes, value in ((a, one), (b, other)):
        own = [axis for axis in layout.of_map(value) if axis]
        if len(own) != sum(map(bool, axes)) or any(axis not in own for axis in axes if axis):
            return None  # parts of axes, or several as one
    if any(mine and theirs and mine != theirs for mine, theirs in zip(a, b, strict=True)):
        return None
    joined = tuple(mine or theirs for mine, theirs in zip(a, b, strict=True))
    over = [axis[0].of for axis in joined if axis]
    return joined if len(set(over)) == len(over) else None


def emit(low: Lowering, kind: str, a: int, b: int) -> int:
    """The sum ("add") or product ("multiply") of two maps, each side of one place repeated."""
    values = low.program.values
    one, other = values[a], values[b]
    c, h, w = max(one.c, other.c), max(one.h, other.h), max(one.w, other.w)
    a, b = (part if values[part].c == c else reductions.to_channels(low, part, c) for part in (a, b))
    if h * w > 1 and values[a].h * values[a].w == 1:
        a, b = b, a
    a = _expanded(low, a, h, w)
    if h * w > 1 and values[b].h * values[b].w == 1:  # one number per channel
        kind = "scale" if kind == "multiply" else kind
    else:
        b = _expanded(low, b, h, w)
    return low.emit(kind, a, FeatureMap(h, w, c), other=b)


def _expanded(low: Lowering, source: int, h: int, w: int) -> int:
    """The map with its only row or column repeated; itself where it has as many."""
    value = low.program.values[source]
    if (value.h, value.w) == (h, w):
        return source
    rows = [0] * h if value.h == 1 else list(range(h))
    columns = [0] * w if value.w == 1 else list(range(w))
    return cropped(low, source, rows, columns)

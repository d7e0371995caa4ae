"""Maxima and means over the channels or over the positions of a map, by pools and layers that the engine has."""

from __future__ import annotations

import math

import numpy as np

from gossamer.compile.attributes import normalized_axes
from gossamer.compile.layout import Axes
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import MOST_STRIDE, FeatureMap, LayerWeights
from gossamer.compile.slices import cropped, select_channels
from gossamer.modelfile.onnx import OnnxNode

OF_ONE_ITSELF = ("Max", "Mean", "Min", "Prod", "Sum")  # reductions that leave a single number as it is
NONE, TINY = (0.0, 0.0), float(np.finfo(np.float32).tiny)
LARGEST_POOL, LARGEST_BLOCK = 64, 16  # of a pool's kernel; of the positions that channels become


def axes_of(low: Lowering, node: OnnxNode) -> list[int]:
    """The axes that a reduction of a map is over, an attribute or a second input."""
    rank = (low.rank(node.inputs[0]) if node.inputs else None) or 4
    return sorted(normalized_axes(low, node, low.ints(node, 1, "axes") or [], rank))


def reduce(low: Lowering, node: OnnxNode) -> None:
    """A mean, sum, maximum, minimum or norm over height and width, one of them, the channels, or all, in whatever order the
    tensor has them.
    """
    gone, source, axes = axes_of(low, node), low.read(node), low.axes_of(node.inputs[0])
    value = low.program.values[source]
    over = {part.of for place in gone if place for part in axes[place - 1]}
    kept = {part.of for place, axis in enumerate(axes, 1) if place not in gone for part in axis}
    if not gone and node.attributes.get("noop_with_empty_axes", 0):
        if node.op.removeprefix("Reduce") not in OF_ONE_ITSELF:
            low.refuse(node, "its noop_with_empty_axes is 1, and it has no axes")
        low.pass_on(node)
        return
    if not gone or 0 in gone or over & kept:
        low.refuse(node, "its axes are none, or axes that are not some of channels, height and width")
    count = math.prod({"c": value.c, "h": value.h, "w": value.w}[of] for of in over)
    to = ReductionOps(low, node)
    kind = node.op.removeprefix("Reduce")
    if kind in ("SumSquare", "L2"):
        source = low.emit("multiply", source, FeatureMap(value.h, value.w, value.c), other=source)
    elif kind == "L1":
        source = low.activation(source, "leaky_relu", (-1.0, 0.0))
    elif kind == "Min":
        source = to.times(source, -1)
    elif kind == "LogSumExp" and over != {"c"}:
        low.refuse(node, "its axes are other than the channels")
    elif kind == "Prod":
        _bind(low, node, to.product(floats(low, source), over), axes, gone)
        return
    if kind == "LogSumExp":  # of any channel: itself less its logarithm as a probability; their mean
        source = to.log_sum(source)
        count = 1
    largest_of = kind in ("Max", "Min")
    reduced = to.largest(source, over) if largest_of else to.mean(source, over)
    if kind == "Min":
        reduced = to.times(reduced, -1)
    elif not largest_of and kind != "Mean" and count > 1:
        reduced = to.times(reduced, count)
    if kind == "L2":
        reduced = to.square_root(reduced)
    _bind(low, node, reduced, axes, gone)


def _bind(low: Lowering, node: OnnxNode, reduced: int, axes: Axes, gone: list[int]) -> None:
    """The node's output, without the axes that are gone, or with one place in each."""
    keeps = node.attributes.get("keepdims", 1)
    left = [() if place in gone else axis for place, axis in enumerate(axes, 1) if keeps or place not in gone]
    if reduced == low.names[node.inputs[0]]:  # over axes of one place: what else reads it still does
        low.alias(node, reduced, tuple(left))
        return
    low.bind(node, reduced, tuple(left))
    low.axes[node.outputs[0]] = tuple(left)


class ReductionOps:
    """Maps of one row, column or channel, or all of that; each method gives the number of a new value."""

    def __init__(self, low: Lowering, node: OnnxNode) -> None:
        self.low, self.node = low, node

    def times(self, source: int, factor: float) -> int:
        value = self.low.program.values[source]
        layer = LayerWeights(np.full(value.c, factor, np.float32), np.zeros(value.c, np.float32))
        return self.low.emit("affine", source, FeatureMap(value.h, value.w, value.c), weights=[layer])

    def square_root(self, source: int) -> int:
        """exp(log(x) / 2)."""
        return self.low.activation(self.times(self.low.activation(source, "log", NONE), 0.5), "exp", NONE)

    def mean(self, source: int, over: set[str]) -> int:
        low = self.low
        if {"h", "w"} <= over:
            source = low.emit("global_average", source, FeatureMap(1, 1, low.program.values[source].c))
        elif over & {"h", "w"}:
            source = mean_of_lines(low, self.node, source, "h" in over)
        return _mean_of_channels(low, source) if "c" in over else source

    def largest(self, source: int, over: set[str]) -> int:
        low = self.low
        value = low.program.values[source]
        kernel = (value.h if "h" in over else 1, value.w if "w" in over else 1)
        if max(kernel) > LARGEST_POOL:
            low.refuse(self.node, f"a map of more than {LARGEST_POOL} rows or columns")
        if max(kernel) > 1:
            out = FeatureMap(value.h // kernel[0], value.w // kernel[1], value.c)
            source = low.emit("max_pool", source, out, kernel=kernel)
        return _of_channels(low, self.node, source) if "c" in over else source

    def product(self, source: int, over: set[str]) -> int:
        """The product over axes: of one half of the places times the other, until there is one."""
        low = self.low
        for axis in sorted(over):
            odd = []  # last places that have no other, each a map of one place
            while (side := getattr(low.program.values[source], axis)) > 1:
                half = side // 2
                a, b = (self._lines(source, axis, range(first, first + half)) for first in (0, half))
                if side % 2:
                    odd.append(self._lines(source, axis, range(side - 1, side)))
                source = self._times(a, b)
            for one in odd:
                source = self._times(source, one)
        return source

    def _lines(self, source: int, axis: str, lines: range) -> int:
        """Some channels, rows or columns of a map."""
        value = self.low.program.values[source]
        if axis == "c":
            return select_channels(self.low, self.node, source, lines)
        rows, columns = (lines, range(value.w)) if axis == "h" else (range(value.h), lines)
        return cropped(self.low, source, rows, columns)

    def _times(self, a: int, b: int) -> int:
        value = self.low.program.values[a]
        return self.low.emit("multiply", a, FeatureMap(value.h, value.w, value.c), other=b)

    def log_sum(self, source: int) -> int:
        """log(sum(exp(x))) over the channels, the same in each of them."""
        low, value = self.low, self.low.program.values[source]
        sides = (value.h, value.w, value.c)
        probability = low.emit("softmax", source, FeatureMap(*sides), groups=1)
        logarithm = low.activation(low.activation(probability, "clip", (TINY, 1.0)), "log", NONE)
        each = low.emit("add", self.times(logarithm, -1), FeatureMap(*sides), other=source)
        weighted = low.emit("multiply", each, FeatureMap(*sides), other=probability)
        return self.times(weighted, value.c)  # whose mean is taken


def largest(low: Lowering, node: OnnxNode) -> None:
    """GlobalMaxPool."""
    source = low.value(node)
    value = low.program.values[source]
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


def _mean_of_channels(low: Lowering, source: int) -> int:
    """The mean over the channels, which stay as one."""
    source = floats(low, source)
    value = low.program.values[source]
    weight = np.full((1, value.c, 1, 1), 1 / value.c, np.float32)
    layer = LayerWeights(weight, np.zeros(1, np.float32))
    return low.emit("conv", source, FeatureMap(value.h, value.w, 1), weights=[layer])


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

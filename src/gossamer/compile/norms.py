"""Norms that depend on the image: of channels, of groups of them, of each position, and of neighbouring channels.

Mean and variance are those of two passes, as ONNX's definitions have them; one over the root is exp(-log(x) / 2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile import layout, reductions
from gossamer.compile.arithmetic import ElementwiseOps
from gossamer.compile.attributes import channel_row_input, normalized_axes
from gossamer.compile.lowering import NO_BOUND, Lowering
from gossamer.compile.program import Array, FeatureMap, LayerWeights
from gossamer.compile.slices import MOST_WEIGHT
from gossamer.host.text import counted
from gossamer.modelfile.onnx import OnnxNode

TINY = 1e-37  # the least number that one over the root is taken of


class NormOps(ElementwiseOps):
    """Each method gives the number of a new value."""

    def __init__(self, low: Lowering, node: OnnxNode) -> None:
        super().__init__(low)
        self.node = node

    def check_size(self, numbers: int, channels: int) -> None:
        """Raises InputError for a matrix of too many numbers, before it is made."""
        if numbers > MOST_WEIGHT:
            self.low.refuse(self.node, f"{channels} channels")

    def mix(self, source: int, weight: Array, bias: float = 0.0, other: int = -1, groups: int = 1) -> int:
        """Sums over the channels of as many groups, by rows of `weight` (out, in a group), plus a map."""
        self.check_size(weight.size, weight.shape[1])
        source = reductions.floats(self.low, source)
        value, out = self.low.program.values[source], len(weight)
        kernel = np.ascontiguousarray(weight.reshape(out, -1, 1, 1), np.float32)
        layer = LayerWeights(kernel, np.full(out, bias, np.float32))
        return self.low.emit(
            "conv", source, FeatureMap(value.h, value.w, out), other=other, groups=groups, weights=[layer]
        )

    def over_root(self, source: int, power: float = 0.5) -> int:
        """x to the power of -`power`, of numbers from 0 up."""
        return self.act(self.affine(self.act(source, "log"), -power), "exp")

    def mean_of_positions(self, source: int) -> int:
        value = self.low.program.values[source]
        if value.h * value.w == 1:
            return source
        return self.low.emit("global_average", source, FeatureMap(1, 1, value.c))

    def times_row(self, source: int, row: int) -> int:
        """A map times one number per channel, of a map of one position."""
        value = self.low.program.values[source]
        kind = "multiply" if value.h * value.w == 1 else "scale"
        return self.low.emit(kind, source, FeatureMap(value.h, value.w, value.c), other=row)

    def groups(self, source: int, group: NDArray[Any], epsilon: float) -> int:
        """Each number less the mean of its group of channels (all positions), over the root of their variance.

        group: of each channel the number of its group.
        """
        c, size = len(group), int(np.bincount(group).max())
        parts = (
            c // size if (group == np.arange(c) // size).all() else 1
        )  # so that no number meets those of other groups
        self.check_size(0 if size == 1 else c * c // parts, c)
        alike = np.ones((c, size), bool) if parts > 1 or size == 1 else group[:, None] == group[None, :]
        average = (alike / alike.sum(1, keepdims=True)).astype(np.float32)
        mean = self.mean_of_positions(source)
        less = self.affine(mean, -1) if size == 1 else self.mix(mean, -average, groups=parts)
        centred = self.add(source, less)
        variance = self.mean_of_positions(self.times(centred, centred))
        variance = (
            self.affine(variance, 1, epsilon) if size == 1 else self.mix(variance, average, epsilon, groups=parts)
        )
        return self.times_row(centred, self.over_root(variance))

    def positions(self, source: int, epsilon: float) -> int:
        """Each number less the mean of the channels at its position, over the root of their variance."""
        value = self.low.program.values[source]
        average, every = np.full((1, value.c), 1 / value.c, np.float32), np.ones((value.c, 1), np.float32)
        source = reductions.floats(self.low, source)
        centred = self.mix(self.mix(source, -average), every, other=source)
        variance = self.mix(self.times(centred, centred), average, epsilon)
        return self.times(centred, self.mix(self.over_root(variance), every))


def _scaled(low: Lowering, node: OnnxNode, source: int, axes: layout.Axes, scale: Any, shift: Any) -> None:
    """Bind the node's output: `scale` and `shift` are constants that meet the tensor by broadcasting, or None."""
    value, rows = low.program.values[source], []
    for constant, usual in ((scale, 1.0), (shift, 0.0)):
        row: Any = np.full(value.c, usual, np.float32)
        if constant is not None:
            row = layout.broadcast_channel_row(constant, axes, value) if constant.dtype == np.float32 else None
        if row is None:
            low.refuse(node, "a scale or shift that is not one float32 per channel")
        rows.append(row)
    if (rows[0] != 1).any() or (rows[1] != 0).any():
        source = ElementwiseOps(low).affine(source, *rows)
    low.bind(node, source, axes)


def instance(low: Lowering, node: OnnxNode) -> None:
    """InstanceNormalization, also of groups of channels and their positions as one axis, as torch writes GroupNorm."""
    source, axes = low.read(node), low.axes_of(node.inputs[0])
    value = low.program.values[source]
    if not axes or any(part.of != "c" for part in axes[0]):
        low.refuse(node, "its first axis is not the channels, or groups of them")
    count = layout.sides_of(axes)[0]
    scale, shift = (channel_row_input(low, node, place, count) for place in (1, 2))
    if scale is None or shift is None:
        low.refuse(node, "its scale or shift is left out")
    sides = (count, *[1] * (len(axes) - 1))
    group: Any = layout.broadcast_channel_row(np.arange(count).reshape(sides), axes, value)
    source = NormOps(low, node).groups(source, group, float(node.attributes.get("epsilon", 1e-5)))
    _scaled(low, node, source, axes, scale.reshape(sides), shift.reshape(sides))


def group(low: Lowering, node: OnnxNode) -> None:
    """GroupNormalization: scale and shift one per group before operator set 21, then one per channel."""
    source, count = low.value(node), node.attributes.get("num_groups", 0)
    value = low.program.values[source]
    if count < 1 or value.c % count:
        low.refuse(node, f"its num_groups makes {counted(count, 'group')} of {counted(value.c, 'channel')}")
    old = low.onnx.opset < 21
    rows = [channel_row_input(low, node, place, count if old else value.c) for place in (1, 2)]
    if any(row is None for row in rows):
        low.refuse(node, "its scale or shift is left out")
    scale, shift = (np.repeat(row, value.c // count) if old else row for row in rows)
    groups = np.repeat(np.arange(count), value.c // count)
    source = NormOps(low, node).groups(source, groups, float(node.attributes.get("epsilon", 1e-5)))
    axes = low.axes_of(node.inputs[0])
    sides = (value.c, *[1] * (len(axes) - 1))
    _scaled(low, node, source, axes, scale.reshape(sides), shift.reshape(sides))


def layer(low: Lowering, node: OnnxNode) -> None:
    """LayerNormalization over the channels at each position, or over all of the map."""
    source, axes = low.read(node), low.axes_of(node.inputs[0])
    value, rank = low.program.values[source], len(axes) + 1
    (first,) = normalized_axes(low, node, [node.attributes.get("axis", -1)], rank)
    over = [part for axis in axes[first - 1 :] for part in axis] if first else []
    kept = [part for axis in axes[: first - 1] for part in axis] if first else []
    epsilon, to = float(node.attributes.get("epsilon", 1e-5)), NormOps(low, node)
    if any(node.outputs[1:]):
        low.refuse(node, "mean or deviation as an output")
    channels = layout.of_map(value)[0]
    if first and layout.merged(over) == channels:
        source = to.positions(source, epsilon)
    elif first and not kept:
        source = to.groups(source, np.zeros(value.c, int), epsilon)
    else:
        low.refuse(node, "its axis begins axes that are neither the channels nor all of the map")
    _scaled(low, node, source, axes, low.tensor(node, 1), low.tensor(node, 2))


def length(low: Lowering, node: OnnxNode) -> None:
    """LpNormalization over the channels: each number over the sum of magnitudes, or over the root of the sum of squares."""
    source, axes = low.read(node), low.axes_of(node.inputs[0])
    value, p = low.program.values[source], node.attributes.get("p", 2)
    (place,) = normalized_axes(low, node, [node.attributes.get("axis", -1)], len(axes) + 1)
    if p not in (1, 2) or place == 0 or layout.merged(axes[place - 1]) != layout.of_map(value)[0]:
        low.refuse(node, "its axis is other than the channels, or its p not 1 or 2")
    to, every = NormOps(low, node), np.ones((1, value.c), np.float32)
    source = reductions.floats(low, source)
    total = to.mix(to.times(source, source) if p == 2 else to.magnitude(source), every)
    over = to.over_root(to.act(total, "clip", TINY, NO_BOUND), 1 / p)
    low.bind(node, to.times(source, to.mix(over, every.T)), axes)


def local_response(low: Lowering, node: OnnxNode) -> None:
    """LRN: x / (bias + alpha / size * sum of squares of `size` neighbouring channels) ** beta."""
    source, at = low.value(node), node.attributes
    size, alpha, beta, bias = at.get("size", 0), at.get("alpha", 1e-4), at.get("beta", 0.75), at.get("bias", 1.0)
    c = low.program.values[source].c
    if size < 1 or not (alpha >= 0 and bias > 0 and beta >= 0):
        low.refuse(node, "its size below 1, a bias of 0 or below, or its alpha or beta below 0")
    to = NormOps(low, node)
    to.check_size(c * c, c)
    before = np.arange(c)[:, None] - np.arange(c)[None, :]  # of a channel to a neighbour: how many before it
    near = (before <= (size - 1) // 2) & (before >= -(size // 2))
    source = reductions.floats(low, source)
    total = to.mix(to.times(source, source), near * np.float32(alpha / size), bias)
    low.bind(node, to.times(source, to.over_root(total, beta)))

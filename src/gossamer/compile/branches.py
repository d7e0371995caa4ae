"""Parallel linear layers of one map whose outputs are added, as one: the branches that MobileOne, RepVGG and RepGhost train with.

The sum of convolutions of one map is the convolution with the sum of their kernels, aligned at the places that they read; a batch
norm beside them is one of 1x1 along the diagonal. Kernels are added in float64 and rounded once.
Sources: MobileOne (arXiv 2206.04040, section 3), RepVGG (arXiv 2101.03697, section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.program import MOST_KERNEL, MOST_PAD, MOST_TAPS, LayerWeights, Operation, Program, Rounding

PLAIN = (Rounding(), Rounding())


@dataclass
class _Branch:
    """A linear layer: weight (out, in per group, kh, kw) and bias in float64, with the window that it reads."""

    source: int
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    groups: int
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilation: int

    @property
    def depthwise(self) -> bool:
        return self.weight.shape[1] == 1 and self.groups == len(self.weight)


def merge_branches(program: Program) -> Program:
    """The program with each sum of parallel linear layers as one layer, where that takes no more multiply-adds."""
    operations = list(program.operations)
    makers = {one.out: one for one in operations}
    uses: dict[int, int] = {}
    for one in operations:
        for value in (one.input, one.other):
            uses[value] = uses.get(value, 0) + 1
    shown = program.output_values() | {value.parent for value in program.values}
    gone: set[int] = set()

    def branch(value: int) -> _Branch | None:
        """The layer that makes a value for its only reader; None for others."""
        maker = makers.get(value)
        free = uses.get(value) == 1 and value not in shown and program.values[value].parent < 0
        return _branch(program, maker) if maker is not None and free and maker.other < 0 else None

    for one in operations:
        if one.kind not in ("add", "conv") or one.other < 0 or one.input == one.other:
            continue
        if not _plain(program, one) or one.rounding.sum[0] or not _of_one_size(program, one):
            continue
        second = branch(one.other)
        first = branch(one.input) if one.kind == "add" else _branch(program, one)
        merged = None if first is None or second is None else _merged(program, one.out, first, second)
        if merged is None:
            continue
        removed = [makers[one.other], *([makers[one.input]] if one.kind == "add" else [])]
        gone |= {id(other) for other in removed}
        uses[merged.source] -= 1
        _write(one, merged)
    return replace(program, operations=[one for one in operations if id(one) not in gone])


def _plain(program: Program, one: Operation) -> bool:
    """Whether an operation reads and makes floats by weights of floats."""
    maps = [program.values[value] for value in (one.input, one.other, one.out) if value >= 0]
    return all(value.type == "float32" for value in maps) and all(
        layer is None or layer.type == "float32" for layer in one.weights
    )


def _of_one_size(program: Program, one: Operation) -> bool:
    """Whether what is added has the sides of the sum: a map of one position is repeated, which no kernel does."""
    out, other = program.values[one.out], program.values[one.other]
    return (out.h, out.w, out.c) == (other.h, other.w, other.c)


def _branch(program: Program, one: Operation) -> _Branch | None:
    """A convolution, a depthwise one or a batch norm as a linear layer, whatever is behind its sum; None for others."""
    if not _plain(program, one):
        return None
    if one.kind == "block":
        depthwise = (
            one.weights[0] is None and one.weights[2] is None and one.acts[1] == "none" and one.roundings == PLAIN
        )
        layer, groups = (one.weights[1] if depthwise else None), one.mid
    elif one.kind == "conv":
        layer = one.weights[0] if one.act == "none" or one.other >= 0 else None
        groups = one.groups
    elif one.kind == "affine":
        layer, groups = (one.weights[0] if one.act == "none" else None), program.values[one.input].c
    else:
        return None
    if layer is None or one.rounding.sum[0]:
        return None
    weight, bias = layer.weight.astype(np.float64), layer.bias.astype(np.float64)
    weight = weight.reshape(len(bias), -1, *one.kernel)
    return _Branch(one.input, weight, bias, groups, one.stride, one.pads, one.dilation)


def _merged(program: Program, out: int, a: _Branch, b: _Branch) -> _Branch | None:
    """Both as one layer; None where they read other maps or places, or one would cost more than both."""
    if a.source != b.source or a.stride != b.stride or len(a.weight) != len(b.weight):
        return None
    if a.depthwise and b.depthwise and a.groups != b.groups:
        return None
    dilation = max(a.dilation, b.dilation)
    if any(one.weight.shape[2] * one.weight.shape[3] > 1 and one.dilation != dilation for one in (a, b)):
        return None
    # places that are read, counted in dilations from the one at the output's own
    if any(pad % dilation for one in (a, b) for pad in one.pads[:2]):
        return None
    tops = [one.pads[0] // dilation for one in (a, b)]
    lefts = [one.pads[1] // dilation for one in (a, b)]
    top, left = max(tops), max(lefts)
    height = max(one.weight.shape[2] + top - before for one, before in zip((a, b), tops, strict=True))
    width = max(one.weight.shape[3] + left - before for one, before in zip((a, b), lefts, strict=True))
    source, made = program.values[a.source], program.values[out]
    behind = [
        (side - 1) * step + dilation * (kernel - 1) + 1 - input_side - before * dilation
        for side, step, kernel, input_side, before in (
            (made.h, a.stride[0], height, source.h, top),
            (made.w, a.stride[1], width, source.w, left),
        )
    ]
    pads = (top * dilation, left * dilation, max(0, behind[0]), max(0, behind[1]))
    both = a.depthwise and b.depthwise
    groups = a.groups if both or not a.depthwise else b.groups
    weights = []
    for one, above, before in zip((a, b), tops, lefts, strict=True):
        weight = _in_groups(one, groups, source.c)
        if weight is None:
            return None
        placed = np.zeros((*weight.shape[:2], height, width))
        first = (top - above, left - before)
        placed[:, :, first[0] : first[0] + weight.shape[2], first[1] : first[1] + weight.shape[3]] = weight
        weights.append(placed)
    total = weights[0] + weights[1]
    fits = max(height, width) <= MOST_KERNEL and max(pads) <= MOST_PAD and height * width <= MOST_TAPS
    cheaper = total.size < a.weight.size + b.weight.size
    merged = _Branch(a.source, total, a.bias + b.bias, groups, a.stride, pads, dilation)
    with np.errstate(over="ignore"):
        finite = all(np.isfinite(array.astype(np.float32)).all() for array in (merged.weight, merged.bias))
    return merged if fits and cheaper and finite else None


def _in_groups(one: _Branch, groups: int, channels: int) -> NDArray[np.float64] | None:
    """The weight with each output reading all channels of its group; None where it reads those of more."""
    if one.groups == groups:
        return one.weight
    if not one.depthwise or len(one.weight) != channels or channels % groups:
        return None
    each = channels // groups
    weight = np.zeros((channels, each, *one.weight.shape[2:]))
    place = np.arange(channels)
    weight[place, place % each] = one.weight[:, 0]
    return weight


def _write(one: Operation, merged: _Branch) -> None:
    """Make an operation the merged layer; what is behind its sum stays."""
    layer = LayerWeights(merged.weight.astype(np.float32), merged.bias.astype(np.float32))
    kernel = (int(merged.weight.shape[2]), int(merged.weight.shape[3]))
    one.input, one.other, one.kernel, one.stride = merged.source, -1, kernel, merged.stride
    one.pads, one.dilation = merged.pads, merged.dilation
    if merged.depthwise and merged.groups > 1:
        one.kind, one.groups, one.mid, one.weights = "block", 1, merged.groups, [None, layer, None]
        one.acts, one.act = ("none", one.act), "none"
        one.bounds, one.bound = ((0.0, 0.0), one.bound), (0.0, 0.0)
        one.roundings, one.rounding = (Rounding(), one.rounding), Rounding()
    else:
        one.kind, one.groups, one.weights = "conv", merged.groups, [layer]

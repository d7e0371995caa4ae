"""Padding as an operator of its own: it becomes that of what reads it, or a map that repeats rows and columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gossamer.compile import reductions
from gossamer.compile.attributes import normalized_axes, scalar_input, text_attribute
from gossamer.compile.lowering import FLOAT_MOST, Lowering, Pads
from gossamer.compile.program import MOST_PAD, QDQ_OPS, FeatureMap, LayerWeights
from gossamer.compile.slices import MOST_WEIGHT, cropped
from gossamer.host.text import counted
from gossamer.modelfile.onnx import OnnxNode

RANK = 4
SAME = ("SAME_UPPER", "SAME_LOWER")
MOST_FILL = 256  # of a number around a map, to which rounding is relative
FROM_ZERO = ("relu", "relu6", "sigmoid", "hard_sigmoid")
KEEPS_SIGN = "add average_pool copy depth_to_space global_average max_pool multiply resize scale shuffle".split()
REPEATS = ("edge", "reflect", "wrap")  # by these names in numpy too


def pads_of(
    low: Lowering, node: OnnxNode, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Pads:
    """The padding of a convolution or pool, and that of an operator of its own before it. Raises InputError."""
    before = low.padded.get(low.map_name(node.inputs[0]), (0, 0, 0, 0))
    value = low.program.values[low.value(node)]
    sides = (value.h + before[0] + before[2], value.w + before[1] + before[3])
    own = _own(low, node, sides, kernel, stride, dilation)
    top, left, bottom, right = (a + b for a, b in zip(own, before, strict=True))
    return top, left, bottom, right


def _own(
    low: Lowering,
    node: OnnxNode,
    sides: tuple[int, int],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> list[int]:
    """What a convolution or pool itself pads around a map of these sides. Raises InputError."""
    kind = text_attribute(node, "auto_pad", "NOTSET")
    own = [0, 0, 0, 0] if kind == "VALID" else list(node.attributes.get("pads") or [0, 0, 0, 0])
    if kind in SAME:
        for axis, side in enumerate(sides):
            reach = dilation[axis] * (kernel[axis] - 1) + 1
            missing = max((side - 1) // stride[axis] * stride[axis] + reach - side, 0)
            own[axis], own[axis + 2] = missing // 2, missing - missing // 2
            if kind == "SAME_LOWER":
                own[axis], own[axis + 2] = own[axis + 2], own[axis]
    elif kind not in ("NOTSET", "VALID"):
        low.refuse(node, f"its auto_pad is {kind[:60]}")
    return own


def pad(low: Lowering, node: OnnxNode) -> None:
    """Pad: a number around a map, which what reads it does itself where it can, or rows and columns again."""
    around, channels = _around(low, node)
    source, name = low.value(node), node.outputs[0]
    mode: Any = text_attribute(node, "mode", "constant")
    if mode not in ("constant", *REPEATS):
        low.refuse(node, f"mode {mode}")
    if min(around) < 0:  # what is cut goes first
        top, left, bottom, right = (max(0, -side) for side in around)
        value = low.program.values[source]
        if mode != "constant" or top + bottom >= value.h or left + right >= value.w:
            low.refuse(node, "it cuts all of the map, or cuts and repeats")
        source = cropped(low, source, range(top, value.h - bottom), range(left, value.w - right))
    top, left, bottom, right = around = tuple(max(0, side) for side in around)  # type: ignore[assignment]
    value = low.program.values[source]
    if mode in REPEATS:
        inner = {"edge": MOST_PAD, "reflect": -1, "wrap": 0}[mode]
        if any(one > side + inner for one, side in zip(around, (value.h, value.w) * 2)):
            low.refuse(node, f"mode {mode} of more rows or columns than its input has")
        if any(channels):
            low.refuse(node, f"mode {mode} of channels")
        rows = np.pad(np.arange(value.h), (top, bottom), mode=mode)
        columns = np.pad(np.arange(value.w), (left, right), mode=mode)
        low.bind(node, cropped(low, source, rows.tolist(), columns.tolist()))
        return
    fill = scalar_input(low, node, 2, "value") or 0.0
    cut = source != low.names[node.inputs[0]]
    if not cut and not any(channels) and _pad_themselves(low, name, source, fill, around):
        low.alias(node, source)
        low.padded[name] = around
        return
    readers = low.users.get(name, [])
    fused = [one.op for one in readers] == ["MaxPool"] and text_attribute(readers[0], "auto_pad", "NOTSET") == "NOTSET"
    if fill == 0 and not cut and not any(channels) and fused:
        low.refuse(node, "0 around a map that may be below it, before a MaxPool: which ONNX Runtime takes as -infinity")
    if any(channels):
        source = _with_channels(low, node, source, channels, fill)
    if any(around):
        source = _with_border(low, node, source, around, fill)
    if source == low.names[node.inputs[0]]:  # nothing is added: what else reads the map still does
        low.alias(node, source)
    else:
        low.bind(node, source)


def _with_border(low: Lowering, node: OnnxNode, source: int, around: Pads, fill: float) -> int:
    """The map with a number around it: a depthwise convolution of 1x1 pads with 0, to and from which others are moved."""
    if not abs(fill) <= MOST_FILL:
        low.refuse(node, f"{fill:g} around a map that something else reads than what can pad so itself")
    value, (top, left, bottom, right) = low.program.values[source], around
    ones = np.ones(value.c, np.float32)
    if fill:
        moved = FeatureMap(value.h, value.w, value.c)
        source = low.emit("affine", source, moved, weights=[LayerWeights(ones, ones * np.float32(-fill))])
    out = FeatureMap(value.h + top + bottom, value.w + left + right, value.c)
    if not out.fits():
        low.refuse(node, f"a map of {counted(out.c, 'channel')} and {out.h} x {out.w}")
    same = LayerWeights(ones.reshape(-1, 1, 1, 1), ones * 0)
    bordered = low.emit("block", source, out, pads=around, mid=value.c, weights=[None, same, None])
    if not fill:
        return bordered
    layer = LayerWeights(ones, ones * np.float32(fill))
    return low.emit("affine", bordered, FeatureMap(out.h, out.w, out.c), weights=[layer])


def _with_channels(low: Lowering, node: OnnxNode, source: int, channels: tuple[int, int], fill: float) -> int:
    """The map with channels of one number before and behind its own, as shortcuts of residual networks have them."""
    value, (before, behind) = low.program.values[source], channels
    count = before + value.c + behind
    if min(channels) < 0 or count * value.c > MOST_WEIGHT or not abs(fill) <= MOST_FILL:
        low.refuse(node, "it cuts channels, adds too many, or too large a number")
    weight, bias = np.zeros((count, value.c, 1, 1), np.float32), np.full(count, fill, np.float32)
    weight[before : before + value.c, :, 0, 0] = np.eye(value.c, dtype=np.float32)
    bias[before : before + value.c] = 0
    source = reductions.floats(low, source)
    return low.emit("conv", source, FeatureMap(value.h, value.w, count), weights=[LayerWeights(weight, bias)])


def _around(low: Lowering, node: OnnxNode) -> tuple[Pads, tuple[int, int]]:
    """Rows and columns that a Pad adds, and channels before and behind. Raises InputError where it does anything else."""
    sides, axes = low.ints(node, 1, "pads"), low.ints(node, 3)
    chosen = normalized_axes(low, node, range(RANK) if axes is None else axes, RANK)
    before, behind = [0] * RANK, [0] * RANK
    if sides is None or len(sides) != 2 * len(chosen) or low.rank(node.inputs[0]) != RANK:
        low.refuse(node, "its padding is not that of a map")
    for place, first, last in zip(chosen, sides[: len(chosen)], sides[len(chosen) :], strict=True):
        before[place], behind[place] = first, last
    top, left, bottom, right = *before[2:], *behind[2:]
    if before[0] or behind[0] or max(top, left, bottom, right) > MOST_PAD:
        low.refuse(node, f"it adds to the batch, or more than {MOST_PAD} rows or columns")
    return (top, left, bottom, right), (before[1], behind[1])


def _pad_themselves(low: Lowering, name: str, source: int, number: float, around: Pads) -> bool:
    """Whether all that read a map surrounded by a number would output the same with padding of their own."""
    names = [name]
    for one in names:  # 0 stays 0 as a byte, and what is less than all bytes the least of them
        readers = low.users.get(one, [])
        if low.uses.get(one, 0) != len(readers) or not all(
            _pads_itself(low, each, one, source, number, around) for each in readers
        ):
            return False
        names += [reader.outputs[0] for reader in readers if reader.op in QDQ_OPS]
    return True


def _pads_itself(low: Lowering, reader: OnnxNode, name: str, source: int, number: float, around: Pads) -> bool:
    if reader.inputs.count(name) != 1 or reader.inputs[0] != name:
        return False
    if reader.op in QDQ_OPS:
        return True
    if reader.op == "MaxPool":
        if number == -math.inf:
            return True
        alike = number <= -FLOAT_MOST or (number == 0 and from_zero_up(low, source))
        return alike and _fits_a_pool(low, reader, source, around)
    if reader.op == "AveragePool":  # whose own padding counts as that before it does, or there is none
        alone = not any(reader.attributes.get("pads", [0])) and "auto_pad" not in reader.attributes
        counts = bool(reader.attributes.get("count_include_pad", 0)) or alone
        return number == 0 and counts and not reader.attributes.get("ceil_mode", 0)
    return (
        reader.op == "Conv"
        and number == 0
        and all(a + b <= MOST_PAD for a, b in zip(around, reader.attributes.get("pads") or (0, 0, 0, 0)))
    )


def from_zero_up(low: Lowering, number: int) -> bool:
    """Whether no number of a map can be below 0."""
    left, seen = [number], {number}
    while left:
        at = left.pop()
        value, maker = low.program.values[at], low.maker.get(at)
        if value.type == "uint8" and value.zero == 0:
            continue
        if maker is None:  # a slice, or concatenated maps
            parts = [part for part, other in enumerate(low.program.values) if other.parent == at and part in low.maker]
            reads = [value.parent] if value.parent >= 0 else parts
            if not reads:
                return False
        elif (
            maker.kind == "softmax"
            or maker.act in FROM_ZERO
            or (maker.act == "clip" and maker.bound[0] >= 0)
            or (maker.kind == "block" and maker.acts[1] in FROM_ZERO and maker.weights[2] is None)
        ):
            continue
        elif maker.kind in KEEPS_SIGN and maker.act == "none":
            reads = [maker.input, *([maker.other] if maker.other >= 0 else [])]
        else:
            return False
        left += [one for one in reads if one not in seen]
        seen.update(reads)
    return True


def _fits_a_pool(low: Lowering, reader: OnnxNode, source: int, around: Pads) -> bool:
    """Whether each window of a pool meets the map, and none such a padding, or that of the pool, alone."""
    at, value = reader.attributes, low.program.values[source]
    kernel = tuple(at.get("kernel_shape") or ())
    stride, dilation = (tuple(at.get(name) or (1, 1)) for name in ("strides", "dilations"))
    if not len(kernel) == len(stride) == len(dilation) == 2 or min(*kernel, *stride, *dilation) < 1:
        return False
    sides = (value.h + around[0] + around[2], value.w + around[1] + around[3])
    own = _own(low, reader, sides, kernel, stride, dilation)
    if len(own) != 4:
        return False
    for axis, side in enumerate((value.h, value.w)):
        left = own[axis] + around[axis]
        last = sides[axis] + own[axis] + own[axis + 2] - dilation[axis] * (kernel[axis] - 1) - 1
        if at.get("ceil_mode"):  # a last window that is cut off, unless it begins in the padding
            last = min(-(-last // stride[axis]) * stride[axis], sides[axis] + own[axis] - 1)
        for start in range(-left, last - left + 1, stride[axis]):
            if not any(0 <= start + tap * dilation[axis] < side for tap in range(kernel[axis])):
                return False
    return True

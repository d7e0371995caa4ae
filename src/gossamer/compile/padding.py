"""Padding as an operator of its own: it becomes that of what reads it, or a map that repeats rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from gossamer.compile.attributes import normalized_axes, scalar_input, text_attribute
from gossamer.compile.lowering import FLOAT_MOST, Lowering, Pads
from gossamer.compile.program import MOST_PAD, QDQ_OPS, FeatureMap, LayerWeights
from gossamer.compile.slices import resize_pairs
from gossamer.modelfile.onnx import OnnxNode

RANK = 4
SAME = ("SAME_UPPER", "SAME_LOWER")
REPEATS = ("edge", "reflect", "wrap")  # by these names in numpy too


def of(low: Lowering, node: OnnxNode, kernel: tuple[int, int], stride: tuple[int, int], dilation: int) -> Pads:
    """The padding of a convolution or pool, and that of an operator of its own before it. Raises InputError."""
    kind = text_attribute(node, "auto_pad", "NOTSET")
    before = low.padded.get(low.map_name(node.inputs[0]), (0, 0, 0, 0))
    own = [0, 0, 0, 0] if kind == "VALID" else list(node.attributes.get("pads") or [0, 0, 0, 0])
    if kind in SAME:
        value = low.program.values[low.value(node)]
        for axis, side in enumerate((value.h + before[0] + before[2], value.w + before[1] + before[3])):
            reach = dilation * (kernel[axis] - 1) + 1
            missing = max((side - 1) // stride[axis] * stride[axis] + reach - side, 0)
            own[axis], own[axis + 2] = missing // 2, missing - missing // 2
            if kind == "SAME_LOWER":
                own[axis], own[axis + 2] = own[axis + 2], own[axis]
    elif kind not in ("NOTSET", "VALID"):
        low.refuse(node, f"auto_pad {kind}")
    top, left, bottom, right = (a + b for a, b in zip(own, before, strict=True))
    return top, left, bottom, right


def pad(low: Lowering, node: OnnxNode) -> None:
    """Pad: a number around what only convolutions and pools read that can do so themselves, or rows and columns again."""
    around, source, name = _around(low, node), low.value(node), node.outputs[0]
    mode: Any = text_attribute(node, "mode", "constant")
    if mode in REPEATS:
        value = low.program.values[source]
        inner = {"edge": MOST_PAD, "reflect": -1, "wrap": 0}[mode]
        if any(one > side + inner for one, side in zip(around, (value.h, value.w) * 2)):
            low.refuse(node, f"mode {mode} of more rows or columns than its input has")
        rows = np.pad(np.arange(value.h), around[0::2], mode=mode)
        columns = np.pad(np.arange(value.w), around[1::2], mode=mode)
        layer = LayerWeights(*(resize_pairs(line.tolist(), [0.0] * len(line)) for line in (rows, columns)))
        low.bind(node, low.emit("resize", source, FeatureMap(len(rows), len(columns), value.c), weights=[layer]))
        return
    fill = scalar_input(low, node, 2, "value") or 0.0
    if mode != "constant" or not _pad_themselves(low, name, fill):
        low.refuse(node, f"{mode} {fill:g} around a map that something else reads than what can pad so itself")
    low.alias(node, source)
    low.padded[name] = around


def _around(low: Lowering, node: OnnxNode) -> Pads:
    """Rows and columns that a Pad adds. Raises InputError where it does anything else."""
    sides, axes = low.ints(node, 1, "pads"), low.ints(node, 3)
    chosen = normalized_axes(low, node, range(RANK) if axes is None else axes, RANK)
    before, behind = [0] * RANK, [0] * RANK
    if sides is None or len(sides) != 2 * len(chosen):
        low.refuse(node, "its padding is not that of a map")
    for place, first, last in zip(chosen, sides[: len(chosen)], sides[len(chosen) :], strict=True):
        before[place], behind[place] = first, last
    top, left, bottom, right = *before[2:], *behind[2:]
    if (
        any(before[:2])
        or any(behind[:2])
        or min(top, left, bottom, right) < 0
        or max(top, left, bottom, right) > MOST_PAD
    ):
        low.refuse(node, f"it cuts, adds to the batch or the channels, or more than {MOST_PAD} rows or columns")
    return top, left, bottom, right


def _pad_themselves(low: Lowering, name: str, number: float) -> bool:
    """Whether all that read a map surrounded by a number would output the same with padding of their own."""
    names = [name]
    for one in names:  # 0 stays 0 as a byte, and what is less than all bytes the least of them
        readers = low.users.get(one, [])
        if low.uses.get(one, 0) != len(readers) or not all(_pads_itself(each, one, number) for each in readers):
            return False
        names += [reader.outputs[0] for reader in readers if reader.op in QDQ_OPS]
    return True


def _pads_itself(reader: OnnxNode, name: str, number: float) -> bool:
    if reader.inputs.count(name) != 1 or reader.inputs[0] != name:
        return False
    if reader.op in QDQ_OPS:
        return True
    if reader.op == "MaxPool":
        return number <= -FLOAT_MOST
    if reader.op == "AveragePool":  # whose own padding counts as that before it does, or there is none
        alone = not any(reader.attributes.get("pads", [0])) and "auto_pad" not in reader.attributes
        counts = bool(reader.attributes.get("count_include_pad", 0)) or alone
        return number == 0 and counts and not reader.attributes.get("ceil_mode", 0)
    return reader.op == "Conv" and number == 0

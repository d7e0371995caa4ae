"""What the attributes of a node may be: looked at once, so that whoever reads one knows its type, length and range."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import isnan
from typing import Any

import numpy as np

from gossamer.compile import schema
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import MOST_SIDE, QDQ_OPS
from gossamer.host.text import counted
from gossamer.modelfile.onnx import OnnxNode

# an attribute of one name is of one type in every operator that the engine has
KINDS = {
    "an integer": "axis blocksize block_size end group num_groups num_outputs output_dtype p precision size stash_type start to",
    "0 or 1": (
        "allowzero antialias ceil_mode count_include_pad exclude_outside fmod keepdims noop_with_empty_axes saturate "
        "storage_order training_mode transA transB"
    ),
    "integers": "axes dilations ends kernel_shape output_padding output_shape pads perm split starts steps strides",
    "a number": "alpha beta bias epsilon gamma max min value",
    "numbers": "scales",
    "a text": "approximate auto_pad coordinate_transformation_mode keep_aspect_ratio_policy mode nearest_mode",
}
KIND = {name: kind for kind, names in KINDS.items() for name in names.split()}
WINDOWS = ("AveragePool", "Conv", "ConvTranspose", "MaxPool")
# of a window: how many numbers, from which on
LENGTHS = {"dilations": (2, 1), "kernel_shape": (2, 1), "output_padding": (2, 0), "pads": (4, 0), "strides": (2, 1)}
PAIRS = ("Add", "Div", "MatMul", "Mul", "PRelu", "Sub")


def check(low: Lowering, node: OnnxNode) -> None:
    """Raises InputError for a node that reads or makes nothing, or has an attribute that its operator does not have, or one
    of another type, length or range.
    """
    if wrong := schema.problem(node.op, low.onnx.opset, len(node.inputs), node.attributes):
        low.refuse(node, wrong)
    if node.op not in low.handlers and node.op not in low.others:
        return
    if not node.inputs or not node.outputs or not node.outputs[0]:
        low.refuse(node, "it has no input or no output")
    if node.op in PAIRS and len(node.inputs) != 2:
        low.refuse(node, counted(len(node.inputs), "input"))
    for name, value in node.attributes.items():
        kind = KIND.get(name)
        if kind is not None and node.op != "ConstantOfShape" and not _is(kind, value):
            low.refuse(node, f"its {name} is not {kind}")
        if node.op in WINDOWS and name in LENGTHS:
            count, least = LENGTHS[name]
            count = count // 2 if _of_one_axis(node) else count
            if len(value) not in (0, count) or not all(least <= one <= MOST_SIDE for one in value):
                low.refuse(node, f"its {name} is not {counted(count, 'number')} from {least} to {MOST_SIDE}")


def _of_one_axis(node: OnnxNode) -> bool:
    """Whether a convolution has one axis: then all that it says of its window is half as long."""
    given = [(node.attributes.get(name), count) for name, (count, _) in LENGTHS.items()]
    sides = [(len(numbers), count) for numbers, count in given if isinstance(numbers, list) and numbers]
    return node.op == "Conv" and bool(sides) and all(2 * size == count for size, count in sides)


def _is(kind: str, value: Any) -> bool:
    if kind == "an integer":
        return isinstance(value, int)
    if kind == "0 or 1":
        return isinstance(value, int) and value in (0, 1)
    if kind == "integers":
        return isinstance(value, list) and all(isinstance(one, int) for one in value)
    if kind == "numbers":
        return isinstance(value, list) and all(isinstance(one, float) and not isnan(one) for one in value)
    if kind == "a number":
        return isinstance(value, float) and not isnan(value)
    return isinstance(value, bytes) and value.isascii()


def from_the_first(low: Lowering, node: OnnxNode) -> OnnxNode:
    """The node with its axis counted from the first on, where it is counted from the last. Raises InputError for others."""
    axis = node.attributes.get("axis", 0)
    rank = low.rank(node.inputs[0]) if axis < 0 and node.inputs else None
    if rank is None or node.op in QDQ_OPS:
        return node
    return replace(node, attributes={**node.attributes, "axis": normalized_axes(low, node, [axis], rank)[0]})


def text_attribute(node: OnnxNode, name: str, default: str) -> str:
    """An attribute that is a text."""
    return bytes(node.attributes.get(name, default.encode())).decode()


def normalized_axes(low: Lowering, node: OnnxNode, axes: Iterable[int], rank: int) -> list[int]:
    """Axes counted from the first on. Raises InputError where a tensor of `rank` axes lacks one, or one is there twice."""
    axes_given = list(axes)
    normalized = [axis % rank for axis in axes_given if -rank <= axis < rank]
    if len(set(normalized)) < len(axes_given):  # too large, or one twice
        low.refuse(node, f"its axis or axes {str(axes_given)[:60]} of a tensor of {rank}")
    return normalized


def channel_row_input(low: Lowering, node: OnnxNode, place: int, count: int) -> Any:
    """A constant input of one float32 per channel; None where it is left out. Raises InputError for others."""
    value = low.tensor(node, place)
    if value is not None and (value.dtype != np.float32 or value.shape != (count,)):
        low.refuse(node, f"its input {place} is not a row of {count} float32")
    return value


def scalar_input(low: Lowering, node: OnnxNode, place: int, name: str = "") -> float | None:
    """One number that is a constant input, or an attribute in other operator sets; None where it is left out."""
    value = node.attributes.get(name)
    if value is None and (constant := low.tensor(node, place)) is not None:
        if constant.dtype != np.float32 or constant.size != 1 or np.isnan(constant).any():
            low.refuse(node, f"its input {place} is not one number in float32")
        value = float(constant.reshape(()))
    return value


def refuse_mixed_ranks(low: Lowering, node: OnnxNode) -> None:
    """Raises InputError where a row of channels meets a map."""
    if len({len(low.axes_of(name)) for name in node.inputs}) > 1:
        low.refuse(node, "its inputs have different numbers of axes")

"""How a network's input is stored in its map: channels first, or as other exporters have it.

TensorFlow's exporters leave the input (N, H, W, C) and a Transpose after it; some networks take (N, H, W) or rows (N, F).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from gossamer.compile import layout
from gossamer.compile.program import MOST_SIDE, MOST_STRIDE, FeatureMap
from gossamer.errors import InputError
from gossamer.modelfile.onnx import OnnxModel, OnnxNode, OnnxValue

TO_CHANNELS_FIRST = [0, 3, 1, 2]
# what stands between an input and the Transpose, and leaves the axes in their places
BETWEEN = ("Gather", "Pad", "Resize", "Slice")
EACH = "Add Cast Clip DequantizeLinear Div Identity Mul Neg QuantizeLinear Sub".split()


@dataclass(frozen=True)
class InputLayout:
    """value: the map that the caller's numbers fill, channels first. axes: of the input's tensor. shape: as in Program.

    pixels: (channels, width) where a row of the map is a row of pixels, the channels of each side by side.
    """

    value: FeatureMap
    axes: layout.Axes
    shape: tuple[int, ...] | None = None
    pixels: tuple[int, int] | None = None


def is_channels_last(onnx: OnnxModel, given: OnnxValue) -> bool:
    """Whether all that reads an input brings its last axis to the front, so that the axes are height, width, channels."""
    shape = given.shape or ()
    readers = _readers(onnx, given.name)
    if len(shape) != 4 or not readers:
        return False
    of_one = shape[3] == 1 and shape[1] != 1  # one channel, which any reshape leaves where it is
    orders = [one.attributes.get("perm") if one.op == "Transpose" else None for one in readers]
    return all(
        (isinstance(order, list) and order == TO_CHANNELS_FIRST) or (of_one and one.op == "Reshape")
        for one, order in zip(readers, orders, strict=True)
    )


def _readers(onnx: OnnxModel, name: str) -> list[OnnxNode]:
    """All that reads a name, or what is computed from it with the axes in their places."""
    names, readers = {name}, []
    for node in onnx.nodes:
        if names.intersection(node.inputs[:1]) or (node.op in EACH and names.intersection(node.inputs)):
            if node.op in EACH or node.op in BETWEEN:
                names.update(node.outputs)
            else:
                readers.append(node)
    return readers


def check_batches(onnx: OnnxModel) -> None:
    """Raises InputError where several inputs are not of one batch."""
    firsts = [(given.shape or (None,))[0] if given.shape != () else "none" for given in onnx.inputs]
    fixed = {first for first in firsts if isinstance(first, int)}
    if len(fixed) > 1 or (fixed and not all(isinstance(first, int) for first in firsts)):
        shown = ", ".join(f"{given.name[:60]} {given.shape}" for given in onnx.inputs[:4])
        raise InputError(
            f"inputs of different batches: {shown}",
            "inputs whose first axis is the batch, free in all of them or fixed alike",
            "export the network so",
        )


def layout_of_input(onnx: OnnxModel, given: OnnxValue) -> InputLayout:
    """Raises InputError for an input that is no map of known sides, nor a row."""
    shape, which = given.shape or (), f" {given.name[:60]!r}" if len(onnx.inputs) > 1 else ""
    sides = [side for side in shape[1:] if isinstance(side, int) and 1 <= side <= MOST_SIDE]
    last = (
        len(sides) == 3 and sides[2] <= MOST_STRIDE and is_channels_last(onnx, given)
    )  # of more it is a Transpose like others
    if not 2 <= len(shape) <= 4 or len(sides) < len(shape) - 1:
        raise InputError(
            f"an input{which} of {'x'.join(str(side)[:20] for side in shape[:8]) or 'one number'}",
            f"batch x channels x height x width, all but the batch fixed, from 1 to {MOST_SIDE}",
            "give height and width where the file leaves them open (--input HxW), or export the network at one size",
        )
    if len(sides) == 1:
        value = _as_reshaped(onnx, given, sides[0])
        return InputLayout(value, (tuple(part for axis in layout.of_map(value) for part in axis),), (sides[0],))
    if len(sides) == 2:
        value = FeatureMap(sides[0], sides[1], 1)
        return InputLayout(value, layout.of_map(value)[1:], (sides[0], sides[1]))
    c, h, w = sides
    if not last:
        value = FeatureMap(h, w, c)
        return InputLayout(value, layout.of_map(value))
    h, w, c = sides
    if w * c > MOST_SIDE or prod(sides) > MOST_SIDE**2:
        raise InputError(
            f"an input{which} of {'x'.join(map(str, sides))}, channels last",
            f"up to {MOST_SIDE} numbers in a row of pixels",
            "export the network with channels first",
        )
    channels, rows, columns = layout.of_map(FeatureMap(h, w, c))
    axes = (rows, columns, channels)
    return InputLayout(FeatureMap(h, w * c, 1), axes, (h, w, c), (c, w) if c > 1 else None)


def _as_reshaped(onnx: OnnxModel, given: OnnxValue, count: int) -> FeatureMap:
    """The map that all readers make of an input of rows of numbers, where they do, else its numbers as channels."""
    readers = _readers(onnx, given.name)
    targets = [onnx.tensors.get(one.inputs[1]) for one in readers if one.op == "Reshape" and len(one.inputs) > 1]
    first = targets[0] if targets else None
    if first is None or len(targets) < len(readers) or first.shape != (4,) or first.dtype.kind != "i":
        return FeatureMap(1, 1, count)
    _, c, h, w = (int(side) for side in first)
    c, h, w = (w, c, h) if w == 1 else (c, h, w)  # channels last
    known = all(one is not None and one.tolist() == first.tolist() for one in targets)
    if not known or not all(1 <= side <= MOST_SIDE for side in (c, h, w)) or c * h * w != count:
        return FeatureMap(1, 1, count)
    return FeatureMap(h, w, c)

"""Height and width of a network's input, where its file leaves them dynamic."""

from __future__ import annotations

from dataclasses import replace

from gossamer.compile import input_layout
from gossamer.compile.program import MOST_SIDE
from gossamer.errors import InputError
from gossamer.modelfile.metadata import ModelFile
from gossamer.modelfile.onnx import OnnxModel, OnnxValue


def set_static_input_size(file: ModelFile, size: tuple[int, int]) -> ModelFile:
    """Set the static input size of a file with dynamic height or width, of each of its inputs that has it.

    Raises InputError where a side is not positive, or the file has no free side or another fixed one.
    """
    onnx = file.onnx
    free = [given for given in onnx.inputs if len(onnx.inputs) == 1 or _has_free_side(onnx, given)]
    sized = {given.name: _sized(onnx, given, size) for given in free or onnx.inputs[:1]}
    return replace(file, onnx=replace(onnx, inputs=tuple(sized.get(given.name, given) for given in onnx.inputs)))


def _first_side(onnx: OnnxModel, given: OnnxValue) -> int:
    return 1 if input_layout.is_channels_last(onnx, given) else 2


def _has_free_side(onnx: OnnxModel, given: OnnxValue) -> bool:
    shape, first = given.shape or (), _first_side(onnx, given)
    return len(shape) == 4 and not all(isinstance(side, int) and side > 0 for side in shape[first : first + 2])


def _sized(onnx: OnnxModel, given: OnnxValue, size: tuple[int, int]) -> OnnxValue:
    shape = given.shape or ()
    shown, wanted_size = "x".join(str(side)[:20] for side in shape[:8]), "x".join(str(side) for side in size)
    wanted, do = "a file whose input has a free height or width", "leave the size out"
    if not all(isinstance(side, int) and 1 <= side <= MOST_SIDE for side in size):
        raise InputError(f"an input size of {wanted_size}", f"height x width from 1 to {MOST_SIDE}", "use such a size")
    first = _first_side(onnx, given)
    sides = shape[first : first + 2]
    known = [isinstance(side, int) and side > 0 for side in sides]
    if len(shape) != 4 or all(known):
        raise InputError(f"an input size of {wanted_size} for an input of {shown}", wanted, do)
    if any(there and side != other for there, side, other in zip(known, sides, size, strict=True)):
        wanted = "the fixed side as the file has it"
        raise InputError(f"an input size of {wanted_size} for an input of {shown}", wanted, "give that side as it is")
    return replace(given, shape=(*shape[:first], *size, *shape[first + 2 :]))

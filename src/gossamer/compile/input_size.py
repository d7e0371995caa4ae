"""Height and width of a network's input, where its file leaves them dynamic."""

from __future__ import annotations

from dataclasses import replace

from gossamer.compile import input_layout
from gossamer.compile.program import MOST_SIDE
from gossamer.errors import InputError
from gossamer.modelfile.metadata import ModelFile


def set_static_input_size(file: ModelFile, size: tuple[int, int]) -> ModelFile:
    """Set the static input size of a file with dynamic height or width.

    Raises InputError where a side is not positive, or the file has no free side or another fixed one.
    """
    shape = file.onnx.input.shape or ()
    shown, wanted_size = "x".join(str(side)[:20] for side in shape[:8]), "x".join(str(side) for side in size)
    wanted, do = "a file whose input has a free height or width", "leave the size out"
    if not all(isinstance(side, int) and 1 <= side <= MOST_SIDE for side in size):
        raise InputError(f"an input size of {wanted_size}", f"height x width from 1 to {MOST_SIDE}", "use such a size")
    first = 1 if input_layout.is_channels_last(file.onnx) else 2
    sides = shape[first : first + 2]
    known = [isinstance(side, int) and side > 0 for side in sides]
    if len(shape) != 4 or all(known):
        raise InputError(f"an input size of {wanted_size} for an input of {shown}", wanted, do)
    if any(there and side != other for there, side, other in zip(known, sides, size, strict=True)):
        wanted = "the fixed side as the file has it"
        raise InputError(f"an input size of {wanted_size} for an input of {shown}", wanted, "give that side as it is")
    sized = replace(file.onnx.input, shape=(*shape[:first], *size, *shape[first + 2 :]))
    return replace(file, onnx=replace(file.onnx, input=sized))

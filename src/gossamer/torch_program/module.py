"""A program of the compile step as a torch.nn.Module of one image: the same operations, with norms folded and shapes fixed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gossamer.compile.lower import lower
from gossamer.compile.program import Operation, Program, ProgramOutput
from gossamer.errors import InputError
from gossamer.modelfile.metadata import ModelFile
from gossamer.torch_program.operations import HANDLERS, Step, activated


class ProgramModule(nn.Module):
    """A program; its weights are parameters without gradients.

    forward: (1, C, H, W), or what the ONNX file has behind its batch -> the outputs in order, each (1, ...) of the ONNX file's
    shape.
    """

    def __init__(self, program: Program) -> None:
        """Raises InputError that names the node which has no form here."""
        super().__init__()
        self.program, self.constants = program, nn.ParameterList()
        self.steps: list[tuple[Operation, Step]] = []
        for one in program.operations:
            self.steps.append((one, HANDLERS[one.kind](one, program.values, self.constant)))

    def constant(self, values: Tensor) -> Tensor:
        """Numbers that belong to the module."""
        parameter = nn.Parameter(values.contiguous(), requires_grad=False)
        self.constants.append(parameter)
        return parameter

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Sides behind the batch."""
        value = self.program.values[self.program.input]
        return (value.c, value.h, value.w) if self.program.shape is None else tuple(self.program.shape)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One image to its outputs."""
        maps = {self.program.input: self._map(x, self.program.input)}
        for one, step in self.steps:
            other = self._read(maps, one.other) if one.other >= 0 else None
            made = step(self._read(maps, one.input), other)
            maps[one.out] = activated(self._map(made, one.out), one.act, one.bound)
        return tuple(self._output(maps, one) for one in self.program.outputs)

    def _map(self, x: Tensor, value: int) -> Tensor:
        """The numbers as the map of a value: (1, C, H, W)."""
        one = self.program.values[value]
        shape = (1, one.c, one.h, one.w)
        return x if tuple(x.shape) == shape else x.reshape(shape)

    def _read(self, maps: dict[int, Tensor], value: int) -> Tensor:
        """The map of a value: what an operation wrote, written slices put together, or a slice of channels."""
        if value not in maps:
            values, one = self.program.values, self.program.values[value]
            parent, first = (value, 0) if one.parent < 0 else (one.parent, one.first)
            at, parts = first, []
            inside = [number for number in maps if values[number].parent == parent]
            for number in sorted(inside, key=lambda number: values[number].first):
                if values[number].first == at and at + values[number].c <= first + one.c:
                    parts.append(maps[number])
                    at += values[number].c
            if at == first + one.c:
                maps[value] = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
            else:
                maps[value] = self._read(maps, parent)[:, first : first + one.c]
        return maps[value]

    def _output(self, maps: dict[int, Tensor], one: ProgramOutput) -> Tensor:
        """An output of its ONNX shape."""
        parts = []
        for value, channels_last in one.pieces:
            part = self._read(maps, value)
            parts.append(part.permute(0, 2, 3, 1) if channels_last else part)
        made = parts[0] if len(parts) == 1 else torch.cat([part.reshape(1, -1) for part in parts], 1)
        shape = (1, *one.shape) if one.shape else (1, math.prod(made.shape))
        return made if tuple(made.shape) == shape else made.reshape(shape)


def module_of(file: ModelFile) -> ProgramModule:
    """The module of an ONNX file in float32, in eval mode.

    Raises InputError that names the operator and node which the compile step lacks, or an int8 file (QDQ).
    """
    program = lower(file.graph)
    if program.in_bytes():
        raise InputError(
            f"{file.path}: a network in int8 (QDQ)", "a network in float32", "export the file that was quantised"
        )
    try:
        return ProgramModule(program).eval()
    except InputError as error:
        raise InputError(f"{file.path}: {error.given}", error.allowed, error.do) from error

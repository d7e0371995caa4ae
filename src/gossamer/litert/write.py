"""A program as the bytes of a .tflite file, with gossamer's own among its metadata."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from gossamer.compile.lower import lower
from gossamer.compile.program import Program, ProgramOutput
from gossamer.litert.graph import Graph
from gossamer.litert.integers import IntegerEmitter
from gossamer.litert.metadata import DIGEST_AT, DIGITS, ENTRY, VERSION
from gossamer.litert.operations import Emitter, refuse
from gossamer.litert.tool_metadata import TOOL_ENTRY, tool_metadata, with_files
from gossamer.modelfile.metadata import ModelFile


def litert_bytes(file: ModelFile) -> bytes:
    """The .tflite file of an ONNX file, for images one at a time; the batch is 1. Of a QDQ file the maps are int8.

    The input is (1, height, width, channels) in float32, or what the ONNX file has where that is no image. The outputs have
    the ONNX file's shapes and names, in float32. Raises InputError that names the operator which LiteRT or the compile step
    lacks, MissingPackageError.
    """
    program = lower(file.graph)
    writer = ProgramWriter(program)
    outputs = [writer.output(one) for one in program.outputs]
    value = program.values[program.input]
    sides = [value.c, value.h, value.w] if program.shape is None else list(program.shape)
    entry = {
        "version": VERSION,
        "input": sides,
        "channels_last": program.shape is None,
        "metadata": None if file.metadata is None else file.metadata.to_json(),
    }
    writer.graph.name(writer.input, file.onnx.input.name)
    for number, one in zip(outputs, program.outputs, strict=True):
        writer.graph.name(number, one.name)
    entries = {ENTRY: metadata_bytes(entry)}
    files: dict[str, bytes] = {}
    if file.metadata is not None:
        entries[TOOL_ENTRY], files = tool_metadata(file.metadata, program.outputs)
    return with_digest(with_files(writer.graph.encoded([writer.input], outputs, entries), files))


def metadata_bytes(entry: dict[str, Any]) -> bytes:
    """The entry's JSON, the digest of the file, which is still to come, as zeros in front."""
    return json.dumps({"sha256": "0" * DIGITS, **entry}, ensure_ascii=False, allow_nan=False).encode()


def with_digest(data: bytes) -> bytes:
    """The file with its digest in the entry: SHA-256 of all bytes, the digest's own 64 digits as zeros."""
    mark = b'{"sha256": "' + b"0" * DIGITS
    at = data.index(mark) + DIGEST_AT
    return data[:at] + hashlib.sha256(data).hexdigest().encode() + data[at + DIGITS :]


class ProgramWriter:
    """All operations of a program as a graph; slices of maps become SLICE and CONCATENATION where they are read."""

    def __init__(self, program: Program) -> None:
        self.program, self.graph = program, Graph()
        self.emitter = (IntegerEmitter if program.in_bytes() else Emitter)(self.graph, program.values)
        self.tensors: dict[int, int] = {}  # values -> their tensors
        self.outputs: set[int] = set()
        self.input = self._input()
        for operation in program.operations:
            source = self.read(operation.input)
            other = self.read(operation.other) if operation.other >= 0 else -1
            self.tensors[operation.out] = self.emitter.emit(operation, source, other)

    def _input(self) -> int:
        """The tensor of the input; its value's numbers may come in another shape, then channels first."""
        program, value = self.program, self.program.values[self.program.input]
        shape = (1, value.h, value.w, value.c)
        given = self.graph.tensor(shape if program.shape is None else (1, *program.shape))
        first = self.emitter.stored(given, value)
        if program.shape is not None:
            rows = self.graph.reshape(first, (1, value.c, value.h, value.w))
            first = self.graph.reshape(self.graph.transpose(rows, (0, 2, 3, 1)), shape)
        self.tensors[program.input] = first
        return given

    def read(self, value: int) -> int:
        """The tensor of a value: what an operation wrote, parts that were written put together, or a part cut out."""
        if value not in self.tensors:
            one = self.program.values[value]
            parent = value if one.parent < 0 else one.parent
            parts = self._parts(parent, one.first if one.parent >= 0 else 0, one.c)
            if parts:
                made = self.graph.concatenate(parts, 3)
                if all(part in self.emitter.not_negative for part in parts):
                    self.emitter.not_negative.add(made)
            elif parent == value:
                raise refuse("a map that is read before it is written")
            else:
                made = self.graph.cut(self.read(parent), (0, 0, 0, one.first), (1, one.h, one.w, one.c))
            self.tensors[value] = made
        return self.tensors[value]

    def _parts(self, parent: int, first: int, count: int) -> list[int]:
        """The tensors of written slices of a map that together are its channels from `first` on; none where they are not."""
        values = self.program.values
        inside = [
            (values[number].first, values[number].c, tensor)
            for number, tensor in self.tensors.items()
            if values[number].parent == parent and first <= values[number].first < first + count
        ]
        at, parts = first, []
        for begins, width, tensor in sorted(inside):
            if begins != at:
                continue  # a slice that is read, beside those that are written
            parts.append(tensor)
            at += width
        return parts if at == first + count else []

    def output(self, one: ProgramOutput) -> int:
        """The tensor of an output, of its ONNX shape, a tensor of its own."""
        graph, rest, parts = self.graph, one.shape[1:], []
        for value, channels_last in one.pieces:
            tensor, sides = self.read(value), self.program.values[value]
            if not channels_last and sides.c > 1 and sides.h * sides.w > 1:
                tensor = graph.transpose(tensor, (0, 3, 1, 2))
            tensor, count = self.emitter.floats(tensor), sides.c * sides.h * sides.w
            parts.append(graph.reshape(tensor, (1, count // max(1, math.prod(rest)), *rest)))
        made = graph.concatenate(parts, 1)
        if made == self.input or made in self.outputs or made in self.tensors.values():
            # what another operator reads, or another output is, keeps its own name
            made = graph.add("RESHAPE", [made, graph.row(1, *one.shape)], (1, *one.shape), new_shape=[1, *one.shape])
        self.outputs.add(made)
        return made

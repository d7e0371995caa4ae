"""A program as the three files of an ncnn network: layers, weights, and gossamer's metadata beside them."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Any

from gossamer.compile.lower import lower
from gossamer.compile.program import Program, ProgramOutput
from gossamer.errors import InputError
from gossamer.modelfile.digest_json import with_digest
from gossamer.modelfile.metadata import ModelFile
from gossamer.ncnn.graph import Graph
from gossamer.ncnn.metadata import FORMAT, VERSION
from gossamer.ncnn.operations import Emitter, refuse

PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,62}$")  # ncnn's names end at a space
OWN_NAME = re.compile(r"b\d+(_\d+)?$")
MOST_BYTES = 2**31 - 1  # of the weights


@dataclass(frozen=True)
class NcnnFiles:
    """The contents of NAME.param, NAME.bin and NAME.json."""

    param: bytes
    bin: bytes
    json: bytes


def ncnn_files(file: ModelFile) -> NcnnFiles:
    """The ncnn network of an ONNX file, float32, for images one at a time.

    The input is (channels, height, width), or what the ONNX file has where that is no image. The outputs have the ONNX file's
    shapes behind the batch, and its names where ncnn can read them. Raises InputError that names the operator and the node
    which ncnn or the compile step lacks.
    """
    program = lower(file.graph)
    if program.in_bytes():
        # ncnn rounds a map to -127 to 127 steps around 0, a tie away from 0: 256 steps around a zero point have no form there
        allowed = "a network in float32: ncnn's own int8 has no zero points"
        raise InputError(f"{file.path}: a network in int8 (QDQ)", allowed, "export the file that was quantised")
    try:
        writer = ProgramWriter(program)
        blobs = [writer.output(one) for one in program.outputs]
    except InputError as error:
        raise InputError(f"{file.path}: {error.given}", error.allowed, error.do) from error
    names = blob_names([file.onnx.input.name, *(one.name for one in program.outputs)])
    for blob, name in zip([writer.input, *blobs], names, strict=True):
        writer.graph.name(blob, name)
    text, weights = writer.graph.encoded(blobs)
    if len(weights) > MOST_BYTES:
        raise InputError(
            f"weights of {len(weights)} bytes", f"at most {MOST_BYTES} in a .bin file", "use a smaller network"
        )
    value = program.values[program.input]
    param = text.encode()
    return NcnnFiles(
        param,
        weights,
        metadata_bytes(
            param,
            weights,
            {
                "input": [value.c, value.h, value.w] if program.shape is None else list(program.shape),
                "input_blob": names[0],
                "outputs": [
                    {"name": one.name, "blob": name, "shape": list(one.shape)}
                    for one, name in zip(program.outputs, names[1:], strict=True)
                ],
                "metadata": None if file.metadata is None else file.metadata.to_json(),
            },
        ),
    )


def metadata_bytes(param: bytes, weights: bytes, entry: dict[str, Any]) -> bytes:
    """The JSON file: its own digest, those of the two others, and the entries."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in (("param", param), ("bin", weights))}
    return with_digest({"format": FORMAT, "version": VERSION, **digests, **entry})


def blob_names(names: list[str]) -> list[str]:
    """Names for blobs: those given where ncnn can read them and they are no other's."""
    made: list[str] = []
    for place, name in enumerate(names):
        good = PLAIN_NAME.match(name) and not OWN_NAME.match(name) and name not in made
        number = f"out{place - 1}" if place else "in0"
        while number in names or number in made:
            number += "_"
        made.append(name if good else number)
    return made


class ProgramWriter:
    """All operations of a program as a graph; slices of maps become Crop and Concat where they are read."""

    def __init__(self, program: Program) -> None:
        self.program, self.graph = program, Graph()
        self.emitter = Emitter(self.graph, program.values)
        self.blobs: dict[int, int] = {}  # values -> their blobs
        self.outputs: set[int] = set()
        self.input = self._input()
        for operation in program.operations:
            source = self.read(operation.input)
            other = self.read(operation.other) if operation.other >= 0 else -1
            self.blobs[operation.out] = self.emitter.emit(operation, source, other)

    def _input(self) -> int:
        """The blob of the input; its value's numbers may come in another shape, then channels first."""
        program, value = self.program, self.program.values[self.program.input]
        shape = (value.c, value.h, value.w)
        given = self.graph.input(shape if program.shape is None else program.shape)
        self.blobs[program.input] = self.graph.reshape(given, shape)
        return given

    def read(self, value: int) -> int:
        """The blob of a value: what an operation wrote, parts that were written put together, or a part cut out."""
        if value not in self.blobs:
            one, emitter = self.program.values[value], self.emitter
            parent = value if one.parent < 0 else one.parent
            first = one.first if one.parent >= 0 else 0
            parts = self._parts(parent, first, one.c)
            if parts:
                made = self.graph.concatenate([emitter.map(part) for part in parts] if len(parts) > 1 else parts)
            elif parent == value:
                raise refuse("a map that is read before it is written", "")
            else:
                made = self.graph.cut(emitter.map(self.read(parent)), (first, 0, 0), (one.c, one.h, one.w))
            self.blobs[value] = made
        return self.blobs[value]

    def _parts(self, parent: int, first: int, count: int) -> list[int]:
        """The blobs of written slices of a map that together are its channels from `first` on; none where they are not."""
        values = self.program.values
        inside = [
            (values[number].first, values[number].c, blob)
            for number, blob in self.blobs.items()
            if values[number].parent == parent and first <= values[number].first < first + count
        ]
        at, parts = first, []
        for begins, width, blob in sorted(inside):
            if begins != at:
                continue  # a slice that is read, beside those that are written
            parts.append(blob)
            at += width
        return parts if at == first + count else []

    def output(self, one: ProgramOutput) -> int:
        """The blob of an output, of its ONNX shape behind the batch, a blob of its own."""
        graph, parts = self.graph, []
        for value, channels_last in one.pieces:
            blob, sides = self.read(value), self.program.values[value]
            if channels_last and sides.c > 1 and sides.h * sides.w > 1:
                blob = graph.transpose(self.emitter.map(blob), (1, 2, 0))
            parts.append(blob)
        made = parts[0] if len(parts) == 1 else graph.concatenate([self.emitter.flat(part) for part in parts])
        shape = one.shape or (math.prod(graph.shapes[made]),)
        made = graph.reshape(made, shape)
        if made == self.input or made in self.outputs or made in self.blobs.values():
            # what another layer reads, or another output is, keeps its own name
            made = graph.add("Noop", [made], shape)
        self.outputs.add(made)
        return made

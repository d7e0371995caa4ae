"""A program as the bytes of the native file; FORMAT.md, "The native file", is its description."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from gossamer.compile.classifier import in_bytes, last_layers
from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.compile.narrow import narrow
from gossamer.compile.program import ACTS, KINDS, MOST_AXES, TYPES, Program, Weight
from gossamer.errors import InputError, UnknownNameError
from gossamer.host.storage import write_bytes
from gossamer.modelfile.metadata import ModelFile, read_model_file

MAGIC, VERSION = b"GOSSAMER", 3
HEADER = struct.Struct("<8sII7QIIiIQQI20x")
VALUE = struct.Struct("<6ifi")
OPERATION = struct.Struct("<20i8q2i7fi8x")
OUTPUT = struct.Struct("<64s7i4x")
PIECE = struct.Struct("<2i8x")
ALIGNMENT = 64
PRECISIONS = ("float32", "bfloat16")
SAME = "same"
CLASSIFIERS = (SAME, "int8")  # weights of the last layers: as the others, or bytes


def compile_file(
    path: str | os.PathLike[str], out: str | os.PathLike[str], precision: str = "float32", classifier: str = SAME
) -> Path:
    """Compile an ONNX file for the native engine, with its metadata where it has one; see `compile_bytes`.

    Raises ModelFileError for a file that breaks a rule, InputError for an operator that the engine lacks, StorageError.
    """
    write_bytes(out, compile_bytes(read_model_file(path), precision, classifier)[0])
    return Path(out)


def compile_bytes(file: ModelFile, precision: str = "float32", classifier: str = SAME) -> tuple[bytes, bool]:
    """The native file of an ONNX file, and whether it computes in less than float32.

    precision: float32, or bfloat16 for maps and weights of what the file has in float32; what it has in int8 (QDQ) stays.
    classifier: int8 for the weights of the last layers, which meet maps of floats all the same.
    Raises InputError for an operator that the engine lacks or a network without such layers, UnknownNameError.
    """
    for what, given, known in (("precision", precision, PRECISIONS), ("classifier", classifier, CLASSIFIERS)):
        if given not in known:
            raise UnknownNameError(what, given, known)
    program = fuse(lower(file.graph))
    last = last_layers(program) if classifier != SAME else []
    if classifier != SAME and not last:
        raise InputError(
            "a classifier in int8", "a network that ends in fully connected layers of floats", "leave --classifier out"
        )
    layers = [in_bytes(layer) for one in last if (layer := one.weights[0]) is not None]  # before they are rounded
    if not all(np.isfinite(layer.scale).all() for layer in layers if layer.scale is not None):
        raise InputError("a classifier in int8", "weights that are finite", "leave --classifier out")
    if precision == "bfloat16":
        narrow(program)
    for one, layer in zip(last, layers, strict=True):
        one.weights[0] = layer
    metadata = json.dumps(
        file.metadata.to_json() if file.metadata else None, ensure_ascii=False, sort_keys=True
    ).encode()
    return to_bytes(program, metadata), bool(last) or any(value.type != "float32" for value in program.values)


def to_bytes(program: Program, metadata: bytes = b"null") -> bytes:
    """The native file."""
    weights: list[bytes] = []
    count = 0

    def add(array: Weight) -> int:
        nonlocal count
        offset = count
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        data += bytes(-len(data) % ALIGNMENT)
        weights.append(data)
        count += len(data) // 4
        return offset

    records = []
    for one in program.operations:
        offsets, types = [-1] * 8, [0, 0, 0]
        for place, layer in enumerate(one.weights):
            if layer is not None:
                offsets[2 * place], offsets[2 * place + 1] = add(layer.weight), add(layer.bias)
                types[place] = TYPES[layer.type]
                if layer.scale is not None:
                    offsets[6 + place // 2] = add(layer.scale)
        top, left, bottom, right = one.pads
        records.append(
            OPERATION.pack(
                KINDS[one.kind],
                one.input,
                one.other,
                one.out,
                *one.kernel,
                *one.stride,
                top,
                left,
                bottom,
                right,
                one.dilation,
                one.groups,
                one.mid,
                ACTS[one.act],
                ACTS[one.acts[0]],
                ACTS[one.acts[1]],
                int(one.count_padding),
                0,
                *offsets,
                types[0],
                types[2],
                *one.bound,
                *one.bounds[0],
                *one.bounds[1],
                *one.middle,
            )
        )
    values = b"".join(
        VALUE.pack(v.h, v.w, v.c, v.parent, v.first, TYPES[v.type], v.scale, v.zero) for v in program.values
    )
    outputs, pieces = _outputs(program)
    parts = [values, b"".join(records), outputs, pieces, b"".join(weights), metadata]
    places, body, at = [], b"", HEADER.size
    for part in parts:
        gap = -at % ALIGNMENT
        body += bytes(gap) + part
        places.append(at + gap)
        at += gap + len(part)
    sizes = (count, len(metadata), len(program.values), len(records), program.input, len(program.outputs))
    fields = (at, *places[:2], *places[4:], *sizes, *places[2:4], len(pieces) // PIECE.size)
    header = HEADER.pack(MAGIC, VERSION, 0, *fields)
    checksum = zlib.crc32(header[16:] + body)
    return HEADER.pack(MAGIC, VERSION, checksum, *fields) + body


def _outputs(program: Program) -> tuple[bytes, bytes]:
    """The tables of outputs and of pieces."""
    outputs, pieces = b"", b""
    for one in program.outputs:
        sides = (*one.shape, *[0] * (MOST_AXES - len(one.shape)))
        outputs += OUTPUT.pack(one.name.encode(), len(one.shape), *sides, len(pieces) // PIECE.size, len(one.pieces))
        pieces += b"".join(PIECE.pack(value, int(last)) for value, last in one.pieces)
    return outputs, pieces

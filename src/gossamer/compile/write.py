"""A program as the bytes of the native file; FORMAT.md, "The native file", is its description."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from gossamer import modelfile
from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.compile.program import ACTS, KINDS, Array, Program
from gossamer.storage import write_bytes

MAGIC, VERSION = b"GOSSAMER", 1
HEADER = struct.Struct("<8sII7QII2i40x")
VALUE = struct.Struct("<5i12x")
OPERATION = struct.Struct("<20i6q")
ALIGNMENT = 64


def compile_file(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Compile an ONNX file for the native engine, with its card where it has one.

    Raises ModelFileError for a file that breaks a rule, InputError for an operator that the engine lacks, StorageError.
    """
    file = modelfile.read(path)
    card = file.card.to_json() if file.card else None
    write_bytes(out, to_bytes(fuse(lower(file.onnx)), json.dumps(card, ensure_ascii=False, sort_keys=True).encode()))
    return Path(out)


def to_bytes(program: Program, card: bytes = b"null") -> bytes:
    """The native file."""
    weights: list[Array] = []
    count = 0

    def add(array: Array) -> int:
        nonlocal count
        offset = count
        flat = np.ascontiguousarray(array, np.float32).ravel()
        padded = np.zeros(-(-flat.size // 16) * 16, np.float32)
        padded[: flat.size] = flat
        weights.append(padded)
        count += padded.size
        return offset

    records = []
    for one in program.operations:
        offsets = [-1] * 6
        for place, pair in enumerate(one.weights):
            if pair is not None:
                offsets[2 * place], offsets[2 * place + 1] = add(pair[0]), add(pair[1])
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
            )
        )
    values = b"".join(VALUE.pack(v.h, v.w, v.c, v.parent, v.first) for v in program.values)
    parts = [values, b"".join(records), b"".join(array.astype("<f4").tobytes() for array in weights), card]
    offsets, body, at = [], b"", HEADER.size
    for part in parts:
        gap = -at % ALIGNMENT
        body += bytes(gap) + part
        offsets.append(at + gap)
        at += gap + len(part)
    fields = (at, *offsets, count, len(card), len(program.values), len(records), program.input, program.output)
    header = HEADER.pack(MAGIC, VERSION, 0, *fields)
    checksum = zlib.crc32(header[16:] + body)
    return HEADER.pack(MAGIC, VERSION, checksum, *fields) + body

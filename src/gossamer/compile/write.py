"""A program as the bytes of the native file; FORMAT.md, "The native file", is its description."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np

from gossamer.compile.bfloat16 import convert_to_bfloat16
from gossamer.compile.classifier import in_bytes, last_layers
from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.compile.program import MOST_AXES, Operation, Program, Weight
from gossamer.compile.records import (
    ACTIVATIONS,
    ALIGNMENT,
    HEADER,
    INPUT,
    MAGIC,
    MAP_TYPES,
    OPERATION,
    OPERATION_KINDS,
    OUTPUT,
    PIECE,
    VALUE,
    VERSION,
    VERSION_OF_SEVERAL_INPUTS,
)
from gossamer.errors import InputError, UnknownNameError
from gossamer.host.storage import write_bytes
from gossamer.modelfile.metadata import ModelFile, read_model_file

PRECISIONS = ("float32", "bfloat16")
SAME = "same"
CLASSIFIERS = (SAME, "int8")  # weights of the last layers: as the others, or bytes


def compile_file(
    path: str | os.PathLike[str], out: str | os.PathLike[str], precision: str = "float32", classifier: str = SAME
) -> Path:
    """Compile an ONNX file for the native engine, with its metadata where it has one; see `compile_bytes`.

    Raises ModelFileError for a file that breaks a rule, InputError for an operator that the engine lacks, StorageError.
    """
    write_bytes(out, compile_bytes(read_model_file(path, several_inputs=True), precision, classifier)[0])
    return Path(out)


def compile_bytes(file: ModelFile, precision: str = "float32", classifier: str = SAME) -> tuple[bytes, bool]:
    """The native file of an ONNX file, and whether it computes in less than float32.

    precision: float32, or bfloat16 for maps and weights of what the file has in float32; what it has in int8 (QDQ) stays.
    classifier: int8 for the weights of the last layers, which meet maps of floats all the same.
    Raises InputError for an operator that the engine lacks or a network without such layers, UnknownNameError.
    """
    for what, value, known in (("precision", precision, PRECISIONS), ("classifier", classifier, CLASSIFIERS)):
        if value not in known:
            raise UnknownNameError(what, value, known)
    program = fuse(lower(file.graph))
    last = last_layers(program) if classifier != SAME else []
    if classifier != SAME and not last:
        raise InputError(
            "a classifier in int8", "a network that ends in fully connected layers of floats", "leave --classifier out"
        )
    layers = [
        in_bytes(layer) for operation in last if (layer := operation.weights[0]) is not None
    ]  # before they are rounded
    if not all(np.isfinite(layer.scale).all() for layer in layers if layer.scale is not None):
        raise InputError("a classifier in int8", "weights that are finite", "leave --classifier out")
    if precision == "bfloat16":
        convert_to_bfloat16(program)
    for operation, layer in zip(last, layers, strict=True):
        operation.weights[0] = layer
    facts = file.metadata.to_json() if file.metadata else None
    if program.shape is not None and not program.inputs:  # of no file with metadata: there images are channels first
        facts = {"input": list(program.shape)}
    metadata = json.dumps(facts, ensure_ascii=False, sort_keys=True).encode()
    return program_bytes(program, metadata), bool(last) or any(value.type != "float32" for value in program.values)


class _Weights:
    """The weights' part of the file, built up; offsets in units of 4 bytes."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.count = 0

    def add(self, array: Weight) -> int:
        """Append an array; its offset."""
        offset = self.count
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        data += bytes(-len(data) % ALIGNMENT)
        self.parts.append(data)
        self.count += len(data) // 4
        return offset


def program_bytes(program: Program, metadata: bytes = b"null") -> bytes:
    """The native file."""
    weights = _Weights()
    operations = b"".join(_operation(operation, weights) for operation in program.operations)
    values = b"".join(VALUE.pack({**vars(value), "type": MAP_TYPES.index(value.type)}) for value in program.values)
    outputs, pieces = _outputs(program)
    tables = {"values": values, "ops": operations, "outputs": outputs, "pieces": pieces}
    tables |= {"inputs": _inputs(program)} if program.inputs else {}
    tables |= {"weights": b"".join(weights.parts), "metadata": metadata}
    version = VERSION_OF_SEVERAL_INPUTS if program.inputs else VERSION
    fields: dict[str, int | bytes] = {"magic": MAGIC, "version": version, "crc": 0, "inputs": 0}
    body, at = b"", HEADER.size
    for name, table in tables.items():
        gap = -at % ALIGNMENT
        body += bytes(gap) + table
        fields[name] = at + gap
        at += gap + len(table)
    fields |= {"file_size": at, "weight_count": weights.count, "metadata_size": len(metadata), "input": program.input}
    fields |= {"value_count": len(program.values), "op_count": len(program.operations)}
    fields |= {"output_count": len(program.outputs), "piece_count": len(pieces) // PIECE.size}
    fields |= {"input_count": len(program.inputs)}
    checksum = zlib.crc32(HEADER.pack(fields)[16:] + body)
    return HEADER.pack({**fields, "crc": checksum}) + body


def _operation(operation: Operation, weights: _Weights) -> bytes:
    """An operation's record; its weights are appended."""
    offsets, scales, types = [-1] * 6, [-1] * 3, [0, 0, 0]
    for place, layer in enumerate(operation.weights):
        if layer is not None:
            offsets[2 * place], offsets[2 * place + 1] = weights.add(layer.weight), weights.add(layer.bias)
            types[place] = MAP_TYPES.index(layer.type)
            if layer.scale is not None:
                scales[place] = weights.add(layer.scale)
    weight_fields = ("weight0", "bias0", "weight1", "bias1", "weight2", "bias2")
    fields: dict[str, float] = dict(zip(weight_fields, offsets, strict=True))
    fields |= {"kind": OPERATION_KINDS.index(operation.kind), "in": operation.input}
    fields |= {"other": operation.other, "out": operation.out, "reserved0": 0}
    fields |= dict(zip(("kh", "kw", "sh", "sw"), (*operation.kernel, *operation.stride), strict=True))
    fields |= dict(zip(("top", "left", "bottom", "right"), operation.pads, strict=True))
    fields |= {"dilation": operation.dilation, "groups": operation.groups, "mid": operation.mid}
    fields |= {"act": ACTIVATIONS.index(operation.act), "count_padding": int(operation.count_padding)}
    fields |= {f"act{place}": ACTIVATIONS.index(act) for place, act in enumerate(operation.acts)}
    for place in range(3):
        fields |= {f"type{place}": types[place], f"scale{place}": scales[place]}
    fields |= {"low": operation.bound[0], "high": operation.bound[1]}
    for place, (low, high) in enumerate(operation.bounds):
        fields |= {f"low{place}": low, f"high{place}": high}
    roundings = (operation.rounding, *operation.roundings)
    pairs = {"middle": operation.middle, "expanded": operation.expanded}
    for suffix, rounding in zip(("", "0", "1"), roundings, strict=True):
        pairs |= {f"sum{suffix}": rounding.sum, f"gate{suffix}": rounding.gate}
    for name, (scale, zero) in pairs.items():
        stem, suffix = (name[:-1], name[-1]) if name[-1].isdigit() else (name, "")
        fields |= {f"{stem}_scale{suffix}": scale, f"{stem}_zero{suffix}": zero}
    return OPERATION.pack(fields)


def _inputs(program: Program) -> bytes:
    """The table of several inputs."""
    records = []
    for one in program.inputs:
        sides = (*one.shape, *[0] * (MOST_AXES - len(one.shape)))
        fields = {"name": one.name.encode(), "rank": len(one.shape), "sides": sides, "value": one.value}
        records.append(INPUT.pack(fields))
    return b"".join(records)


def _outputs(program: Program) -> tuple[bytes, bytes]:
    """The tables of outputs and of pieces."""
    outputs, pieces = b"", b""
    for output in program.outputs:
        fields = {
            "name": output.name.encode(),
            "rank": len(output.shape),
            "sides": (*output.shape, *[0] * (MOST_AXES - len(output.shape))),
            "first": len(pieces) // PIECE.size,
            "pieces": len(output.pieces),
        }
        outputs += OUTPUT.pack(fields)
        pieces += b"".join(PIECE.pack({"value": value, "channels_last": last}) for value, last in output.pieces)
    return outputs, pieces

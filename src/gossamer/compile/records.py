"""The records of the native file: for each its name, its fields in order and their struct formats.

The one definition for the writer, the reader and the tests; FORMAT.md's tables and the engine's structs
(`engine/src/model.h`) are tested against it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAGIC, VERSION = b"GOSSAMER", 4
VERSION_OF_SEVERAL_INPUTS = 5  # written only for such a network: older engines read the others
ALIGNMENT = 64  # bytes, of tables and weights

C_TYPES = {"i": "int32_t", "I": "uint32_t", "q": "int64_t", "Q": "uint64_t", "f": "float", "s": "char"}


@dataclass(frozen=True)
class RecordField:
    """One field: its name (that of the engine's struct), its struct format, and its offset in bytes in the record."""

    name: str
    format: str
    offset: int

    @property
    def size(self) -> int:
        """Bytes."""
        return struct.calcsize(f"<{self.format}")

    @property
    def c_type(self) -> str:
        """The type of its numbers in the engine."""
        return C_TYPES[self.format[-1]]

    @property
    def count(self) -> int:
        """How many numbers of that type it holds."""
        return int(self.format[:-1] or 1)


class Record:
    """A record of little-endian fields without gaps, filled with zeros to `size` bytes."""

    def __init__(self, struct_name: str, size: int, fields: str) -> None:
        """fields: "FORMAT: NAME NAME; FORMAT: NAME", in order; a format with a count ("4i") is a row of numbers."""
        self.struct_name, self.size = struct_name, size
        record_fields, offset = [], 0
        for group in fields.split(";"):
            kind, names = group.split(":")
            for name in names.split():
                record_fields.append(RecordField(name, kind.strip(), offset))
                offset += record_fields[-1].size
        self.fields = tuple(record_fields)
        self.struct = struct.Struct("<" + "".join(field.format for field in record_fields) + f"{size - offset}x")

    def pack(self, values: Mapping[str, Any]) -> bytes:
        """The bytes of a record: a value for each field, a sequence for a row of numbers."""
        numbers: list[Any] = []
        for field in self.fields:
            one_number = field.count == 1 or field.format.endswith("s")
            numbers += [values[field.name]] if one_number else values[field.name]
        return self.struct.pack(*numbers)

    def unpack(self, data: bytes | memoryview, offset: int = 0) -> dict[str, Any]:
        """The record at an offset of the file: a value for each field, a tuple for a row of numbers."""
        numbers = iter(self.struct.unpack_from(data, offset))
        values: dict[str, Any] = {}
        for field in self.fields:
            one_number = field.count == 1 or field.format.endswith("s")
            values[field.name] = next(numbers) if one_number else tuple(next(numbers) for _ in range(field.count))
        return values

    def offset(self, name: str) -> int:
        """Bytes from the start of the record to a field."""
        return next(field.offset for field in self.fields if field.name == name)


HEADER = Record(
    "Header",
    128,
    "8s: magic; I: version crc; Q: file_size values ops weights metadata weight_count metadata_size;"
    "I: value_count op_count; i: input; I: output_count; Q: outputs pieces; I: piece_count input_count; Q: inputs",
)
VALUE = Record("Value", 32, "i: h w c parent first type; f: scale; i: zero")
OPERATION = Record(
    "Op",
    256,
    "i: kind in other out kh kw sh sw top left bottom right dilation groups mid act act0 act1 count_padding reserved0;"
    "q: weight0 bias0 weight1 bias1 weight2 bias2 scale0 scale2; i: type0 type2;"
    "f: low high low0 high0 low1 high1 middle_scale; i: middle_zero;"
    "f: sum_scale sum_scale0 sum_scale1 gate_scale gate_scale0 gate_scale1 expanded_scale;"
    "i: sum_zero sum_zero0 sum_zero1 gate_zero gate_zero0 gate_zero1 expanded_zero; q: scale1; i: type1",
)
OPERATION_BYTES_OF_VERSION_3 = 192  # the fields up to middle_zero; those behind it are 0


def unpack_operation(data: bytes | memoryview, offset: int, version: int) -> dict[str, Any]:
    """The operation at an offset of a file of any version from 3 on."""
    if version != 3:
        return OPERATION.unpack(data, offset)
    known = bytes(data[offset : offset + OPERATION.offset("sum_scale")])
    return OPERATION.unpack(known.ljust(OPERATION.size, b"\0"))


INPUT = Record("Input", 96, "64s: name; i: rank; 4i: sides; i: value")
OUTPUT = Record("Output", 96, "64s: name; i: rank; 4i: sides; i: first pieces")
PIECE = Record("Piece", 16, "i: value channels_last")
RECORDS = (HEADER, VALUE, OPERATION, INPUT, OUTPUT, PIECE)

# the numbers of FORMAT.md, "The native file", are those of the place in a row
OPERATION_KINDS = (
    "conv",
    "block",
    "max_pool",
    "average_pool",
    "global_average",
    "add",
    "scale",
    "affine",
    "activation",
    "copy",
    "shuffle",
    "multiply",
    "resize",
    "softmax",
    "depth_to_space",
)
ACTIVATIONS = (
    "none",
    "relu",
    "relu6",
    "hard_swish",
    "hard_sigmoid",
    "sigmoid",
    "silu",
    "tanh",
    "clip",
    "leaky_relu",
    "exp",
    "log",
    "reciprocal",
)
MAP_TYPES = ("float32", "bfloat16", "uint8")  # weights of the third are int8

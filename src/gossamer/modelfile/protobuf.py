"""Protobuf's wire format, read with every bound checked.

Source: protobuf.dev/programming-guides/encoding. Groups, which protobuf no longer has, are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gossamer.errors import ModelFileError
from gossamer.host.text import counted

WELL_FORMED = "well-formed protobuf"
FIELD_LIMIT = 4_000_000  # decoded fields in a file: a bound on memory, far above any network
DEPTH_LIMIT = 32
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5


class FieldSpec(NamedTuple):
    """A field of a message: its name, what it holds (int, float, double, text, bytes or a message), how often."""

    name: str
    kind: str
    repeated: bool = False


def malformed(problem: str) -> ModelFileError:
    """The error for bytes that are not protobuf: rule 2 of FORMAT.md."""
    return ModelFileError(2, problem, WELL_FORMED, "fetch or export the file again")


def scan(data: memoryview) -> Iterator[tuple[int, int, int | memoryview, int, int]]:
    """Each field of a message: (number, wire type, value, first byte, end). Raises ModelFileError (rule 2)."""
    at = 0
    while at < len(data):
        start = at
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        value: int | memoryview
        if not 0 < number < 2**29:
            raise malformed(f"field number {number} at byte {start}")
        if wire == VARINT:
            value, at = varint(data, at)
        elif wire in (FIXED64, DELIMITED, FIXED32):
            if wire == DELIMITED:
                length, at = varint(data, at)
            else:
                length = 8 if wire == FIXED64 else 4
            if length > len(data) - at:
                raise malformed(f"field {number} is {counted(length, 'byte')} long where {len(data) - at} are left")
            value, at = data[at : at + length], at + length
        else:
            raise malformed(f"wire type {wire} at byte {start}")
        yield number, wire, value, start, at


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The unsigned 64-bit number at byte `at`, and the byte behind it. Raises ModelFileError (rule 2)."""
    result = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise malformed("a number is cut off")
        byte = data[at]
        at += 1
        result |= (byte & 127) << shift
        if byte < 128:
            if result >= 2**64:
                break
            return result, at
    raise malformed("a number is longer than 64 bits")


class MessageReader:
    """Turns messages into dicts; counts their fields, so that a small file cannot fill the memory.

    messages: for each kind of message, field number -> FieldSpec; other fields are ignored.
    """

    def __init__(self, messages: dict[str, dict[int, FieldSpec]]) -> None:
        self.messages, self.left = messages, FIELD_LIMIT

    def message(self, data: memoryview, kind: str, depth: int = 0) -> dict[str, Any]:
        """The fields of one message by name, repeated ones as lists. Raises ModelFileError (rule 2)."""
        if depth > DEPTH_LIMIT:
            raise malformed(f"messages nested deeper than {DEPTH_LIMIT}")
        fields = self.messages[kind]
        values: dict[str, Any] = {field.name: [] for field in fields.values() if field.repeated}
        for number, wire, value, _, _ in scan(data):
            self.spend(1)
            field = fields.get(number)
            if field is None:
                continue
            if field.repeated:
                values[field.name].extend(self.items(field, wire, value, depth))
            elif field.name in values:  # protobuf would take the last, or merge: two readers could see two models
                raise malformed(f"{kind}.{field.name} is there twice")
            else:
                values[field.name] = self.single(field, wire, value, depth)
        return values

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise malformed(f"more than {FIELD_LIMIT} fields")

    def single(self, field: FieldSpec, wire: int, value: int | memoryview, depth: int) -> Any:
        expected = {"int": VARINT, "float": FIXED32, "double": FIXED64}.get(field.kind, DELIMITED)
        if wire != expected:
            raise malformed(f"{field.name} has wire type {wire} where {expected} belongs")
        if isinstance(value, int):
            return value - 2**64 if value >= 2**63 else value
        if field.kind in ("float", "double"):
            return struct.unpack("<f" if field.kind == "float" else "<d", value)[0]
        if field.kind == "bytes":
            return value
        if field.kind == "text":
            return _text(value)
        return self.message(value, field.kind, depth + 1)

    def items(self, field: FieldSpec, wire: int, value: int | memoryview, depth: int) -> list[Any]:
        """One item, or the items of a packed field."""
        if field.kind not in ("int", "float", "double") or not isinstance(value, memoryview) or wire != DELIMITED:
            return [self.single(field, wire, value, depth)]
        if field.kind == "int":
            numbers, at = [], 0
            while at < len(value):
                number, at = varint(value, at)
                self.spend(1)
                numbers.append(number - 2**64 if number >= 2**63 else number)
            return numbers
        size = 4 if field.kind == "float" else 8
        if len(value) % size:
            raise malformed(f"{field.name} holds {counted(len(value), 'byte')}, no multiple of {size}")
        self.spend(len(value) // size)
        return list(np.frombuffer(value, f"<f{size}").tolist())


def _text(value: memoryview) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise malformed(f"text that is not UTF-8: {error.reason}") from error

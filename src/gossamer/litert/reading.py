"""The tables of a FlatBuffer, read without a package; whatever the bytes are, struct.error, IndexError or OverflowError at worst."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

MOST_TABLES = (
    2**17
)  # in a list: a network has thousands of tensors; a list as long as a file would take many times its memory


@dataclass(frozen=True)
class TableReader:
    """A table at a place of the bytes; its fields by their numbers in the schema."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> TableReader:
        """The first table."""
        return cls(data, _offset(data, 0))

    def place(self, number: int) -> int:
        """Where a field lies; 0 where it is left out."""
        layout = self.at - int(struct.unpack_from("<i", self.data, self.at)[0])
        if layout < 0:
            raise IndexError(layout)
        (size,) = struct.unpack_from("<H", self.data, layout)
        if 4 + 2 * number + 2 > size:
            return 0
        (offset,) = struct.unpack_from("<H", self.data, layout + 4 + 2 * number)
        return self.at + offset if offset else 0

    def number(self, number: int, kind: str, default: int = 0) -> int:
        """A number; kind: as struct names it."""
        at = self.place(number)
        return int(struct.unpack_from(f"<{kind}", self.data, at)[0]) if at else default

    def table(self, number: int) -> TableReader | None:
        """A table, None where it is left out."""
        at = self.place(number)
        return TableReader(self.data, _offset(self.data, at)) if at else None

    def tables(self, number: int) -> list[TableReader]:
        """A list of tables, empty where it is left out."""
        begin, end = self._vector(number, 4)
        if (end - begin) // 4 > MOST_TABLES:
            raise OverflowError(end - begin)
        return [TableReader(self.data, _offset(self.data, at)) for at in range(begin, end, 4)]

    def numbers(self, number: int, kind: str) -> tuple[Any, ...]:
        """A list of numbers, empty where it is left out."""
        begin, end = self._vector(number, width := struct.calcsize(f"<{kind}"))
        return struct.unpack_from(f"<{(end - begin) // width}{kind}", self.data, begin)

    def content(self, number: int) -> tuple[int, int]:
        """Where bytes or a text begin and end."""
        return self._vector(number, 1)

    def _vector(self, number: int, width: int) -> tuple[int, int]:
        field = self.place(number)
        if not field:
            return 0, 0
        at = _offset(self.data, field)
        (size,) = struct.unpack_from("<I", self.data, at)
        if at + 4 + size * width > len(self.data):
            raise IndexError(size)
        return at + 4, at + 4 + size * width


def _offset(data: bytes, at: int) -> int:
    """Where an offset leads."""
    return at + int(struct.unpack_from("<I", data, at)[0])

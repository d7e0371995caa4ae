"""Rows of answers in JSON lines or Parquet: key, answer, and the reason where there is none."""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Iterable
from typing import IO, Any, NamedTuple, Protocol

from gossamer.errors import MissingPackageError, UnknownNameError
from gossamer.host.strict_json import dumps

GROUP = 4096  # rows that are kept until they are written as one row group of Parquet


class Row(NamedTuple):
    """One image: its key, its answer as `gossamer predict --json` has it, or the reason why there is none."""

    key: str
    answer: dict[str, Any] | None
    error: str = ""


class RowWriter(Protocol):
    """Writes rows to an open file."""

    def __init__(self, file: IO[bytes]) -> None: ...

    def write(self, rows: Iterable[Row]) -> None:
        """Add rows."""

    def close(self) -> None:
        """Write what is left; the file stays open."""


class JsonRows:
    """{"key": ..., "answer": ..., "error": ...} a line, UTF-8."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            values = row._asdict()
            try:
                line = dumps(values).encode()
            except UnicodeEncodeError:  # the name of a file that is no UTF-8
                line = dumps(values, ascii_only=True).encode()
            self._file.write(line + b"\n")

    def close(self) -> None:
        pass


class ParquetRows:
    """Columns key, answer (JSON text, null where there is none) and error, all strings."""

    def __init__(self, file: IO[bytes]) -> None:
        pyarrow = import_pyarrow()
        parquet = importlib.import_module("pyarrow.parquet")
        self._schema = pyarrow.schema([(name, pyarrow.string()) for name in Row._fields])
        self._table = pyarrow.Table
        self._writer = parquet.ParquetWriter(file, self._schema)
        self._rows: list[dict[str, str | None]] = []

    def write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            answer = None if row.answer is None else _text(dumps(row.answer))
            self._rows.append({"key": _text(row.key), "answer": answer, "error": _text(row.error)})
            if len(self._rows) == GROUP:
                self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


class VectorRows:
    """{"key": ..., "vector": base64 of float32, little-endian, or null, "error": ...} a line, for an index."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            vector = None if row.answer is None else base64.b64encode(row.answer["vector"].astype("<f4").tobytes())
            values = {"key": row.key, "vector": None if vector is None else vector.decode(), "error": row.error}
            self._file.write(json.dumps(values).encode() + b"\n")

    def close(self) -> None:
        pass


VECTORS = "vectors"  # of `gossamer index` alone
FORMATS: dict[str, type[RowWriter]] = {"jsonl": JsonRows, "parquet": ParquetRows, VECTORS: VectorRows}


def check_format(name: str) -> None:
    """Raises UnknownNameError, MissingPackageError where its package is not installed."""
    if name not in FORMATS or name == VECTORS:
        raise UnknownNameError("format", name, [each for each in FORMATS if each != VECTORS])
    if name == "parquet":
        import_pyarrow()


def import_pyarrow() -> Any:
    """pyarrow. Raises MissingPackageError."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingPackageError("pyarrow", "batch", "Parquet") from error
    return pyarrow


def _text(text: str) -> str:
    """As UTF-8 can hold it: the name of a file may have bytes that are none."""
    return text.encode("utf-8", "backslashreplace").decode()

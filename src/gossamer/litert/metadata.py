"""gossamer's metadata in a .tflite file: found, checked and read without a package, whatever the file holds."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gossamer.errors import ModelFileError
from gossamer.host.storage import open_regular
from gossamer.litert.reading import TableReader
from gossamer.litert.structure import structure_problem
from gossamer.modelfile.litert import IDENTIFIER, IDENTIFIER_AT
from gossamer.modelfile.metadata import ModelMetadata

ENTRY, VERSION = "gossamer", 1  # the name of the metadata buffer; of the entry
DIGITS = 64
DIGEST_AT = len('{"sha256": "')
MOST_ENTRIES, MOST_LETTERS = 1024, 64  # of metadata that are looked at; of their names
FILE_LIMIT = 2**31
MODEL_BUFFERS, MODEL_METADATA = 4, 6  # fields of the tables that are read
RULES = {
    1: "a LiteRT file, 8 bytes to 2 GiB, that begins as one",
    2: "a complete file, in which every offset leads to a place within it",
    3: "a file that `gossamer export --to litert` wrote, with its entry gossamer among the metadata",
    4: "a file as it was written, with the SHA-256 that its metadata state",
    5: f"metadata of version {VERSION} with the input's shape and the metadata of FORMAT.md",
    6: "operators that the runtime has, and the input and outputs that the metadata state",
}


@dataclass(frozen=True)
class Stated:
    """input: sides behind the batch, channels first of an image. channels_last: whether the file itself has the channels last."""

    input: tuple[int, ...]
    channels_last: bool
    metadata: ModelMetadata | None


def litert_error(
    rule: int, problem: str, do: str = "export it again: gossamer export FILE --to litert"
) -> ModelFileError:
    """The error for a rule of FORMAT.md, "The LiteRT file", that does not hold."""
    return ModelFileError(rule, problem, RULES[rule], do)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file. Raises ModelFileError."""
    name = os.fspath(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if not IDENTIFIER_AT + len(IDENTIFIER) <= size <= FILE_LIMIT:
                raise litert_error(1, f"{name}: {size} bytes", "check the path")
            data = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise litert_error(1, f"{name}: {reason}", "check the path") from error
    if data[IDENTIFIER_AT : IDENTIFIER_AT + len(IDENTIFIER)] != IDENTIFIER:
        raise litert_error(1, f"{name}: not a LiteRT file", "check the path")
    return data


def read_metadata(data: bytes, name: str) -> Stated:
    """The metadata of a file's bytes. Raises ModelFileError, and no other error whatever the file holds."""
    try:
        found = [(begin, end) for label, begin, end in _metadata(data) if label == ENTRY.encode()]
    except (struct.error, IndexError, OverflowError) as error:
        raise litert_error(
            2,
            f"{name}: an offset leads out of the file, or a list is too long: it is cut off or damaged",
            "fetch it again",
        ) from error
    if len(found) != 1:
        raise litert_error(3, f"{name}: {'no' if not found else 'more than one'} metadata of gossamer in it")
    begin, end = found[0]
    at = begin + DIGEST_AT
    digest = data[at : at + DIGITS]
    whole = hashlib.sha256(memoryview(data)[:at])
    whole.update(b"0" * DIGITS)
    whole.update(memoryview(data)[at + DIGITS :])
    if end - begin < DIGEST_AT + DIGITS or digest != whole.hexdigest().encode():
        raise litert_error(4, f"{name}: the file is not as it was written", "fetch it again, or export it again")
    if problem := structure_problem(data):
        raise litert_error(6, f"{name}: {problem}")
    try:
        return _stated(json.loads(data[begin:end].decode()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise litert_error(5, f"{name}: its metadata: {type(error).__name__}: {error}") from error


def _stated(values: Any) -> Stated:
    """Raises ValueError and the like, and ModelFileError for metadata that break a rule."""
    if values["version"] != VERSION:
        raise ValueError(f"version {str(values['version'])[:20]}")
    sides, last, metadata = values["input"], values["channels_last"], values["metadata"]
    if (
        not isinstance(sides, list)
        or not 1 <= len(sides) <= 3
        or not all(type(one) is int and one > 0 for one in sides)
    ):
        raise ValueError(f"an input of {str(sides)[:60]}")
    if not isinstance(last, bool) or (last and len(sides) != 3):
        raise ValueError(f"channels_last {str(last)[:20]} of an input of {len(sides)} sides")
    known = None if metadata is None else ModelMetadata.from_json(metadata)
    if known is not None and sides != [known.preprocess.channels, *known.preprocess.size]:
        raise ValueError(f"preprocessing that does not make an input of {sides}")
    return Stated(tuple(sides), last, known)


def _metadata(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The name of each metadata entry, and where its buffer begins and ends. Raises struct.error, IndexError."""
    model = TableReader.root(data)
    entries, buffers = model.tables(MODEL_METADATA), model.tables(MODEL_BUFFERS)
    for entry in entries[:MOST_ENTRIES]:
        begin, end = entry.content(0)
        yield data[begin : min(end, begin + MOST_LETTERS)], *buffers[entry.number(1, "I")].content(0)

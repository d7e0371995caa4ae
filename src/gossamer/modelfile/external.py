"""Tensors stored in files beside an ONNX file, merged into it, so that readers get one piece of bytes.

Source: onnx.ai/onnx/repo-docs/ExternalData.html. Such files lie in the folder of the ONNX file, and nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from gossamer.errors import ModelFileError
from gossamer.host.text import counted
from gossamer.modelfile import protobuf
from gossamer.modelfile.onnx import FILE_LIMIT, MESSAGES, TYPES, onnx_rule_error

MARK = b"location"  # every tensor with its data elsewhere has an entry of this name
ABOVE_TENSORS = ("Graph", "Node", "Attribute", "SparseTensor", "Function")
RAW_DATA, REPLACED = 9, (9, 13, 14)  # fields of a tensor
KEYS = ("location", "offset", "length", "checksum")
SHOWN = 200


def inline(data: bytes, folder: Path) -> bytes:
    """The bytes of an ONNX file with the data of its external tensors in it, read from files in `folder`.

    Raises ModelFileError: rule 1 where that is more than a file may have, rule 2, rule 4.
    """
    if MARK not in data:
        return data
    with _Files(folder) as files:
        parts = _rewritten(memoryview(data), "Model", files, 0)
        return data if parts is None else b"".join(parts)


class _Files:
    """The files beside an ONNX file: each is opened once, and none outside its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.left = folder, FILE_LIMIT
        self.open_files: dict[str, int] = {}
        self.checked: set[str] = set()
        self.reader = protobuf.MessageReader(MESSAGES)

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.open_files.values():
            os.close(handle)

    def tensor(self, message: memoryview) -> bytes | None:
        """The data of a tensor that lie elsewhere, or None where they do not. Raises ModelFileError."""
        at = self.reader.message(message, "Tensor")
        if not at["external_data"] and at.get("data_location", 0) == 0:
            return None
        name = at.get("name", "")[:SHOWN]
        if at.get("data_location", 0) != 1 or len(at.get("raw_data", b"")):
            raise onnx_rule_error(4, f"tensor {name!r} has a data_location or data that do not fit its external_data")
        entries = {entry.get("key", ""): entry.get("value", "") for entry in at["external_data"]}
        unknown = [key for key in entries if key not in KEYS and not key.startswith("prepacked")]
        if unknown or len(entries) < len(at["external_data"]) or not entries.get("location"):
            raise onnx_rule_error(4, f"tensor {name!r} has external_data {str(list(entries))[:SHOWN]}")
        offset, length = (_number(entries, key, name) for key in ("offset", "length"))
        size = _size(at, name)
        if size is not None and length is not None and size != length:
            raise onnx_rule_error(
                5, f"tensor {name!r} has {counted(length, 'byte')} of external_data where its shape needs {size}"
            )
        size = length if size is None else size
        handle, there = self.file(entries["location"], name)
        size = there - (offset or 0) if size is None else size
        if (offset or 0) + size > there or size < 0:
            raise onnx_rule_error(
                4,
                f"tensor {name!r} needs {counted(size, 'byte')} from {offset or 0} on of {entries['location'][:SHOWN]!r}, "
                f"which has {there}",
            )
        self.left -= size
        if self.left < 0:
            raise onnx_rule_error(1, f"more than {FILE_LIMIT} bytes with the data beside the file")
        if "checksum" in entries and entries["location"] not in self.checked:
            self.checked.add(entries["location"])
            _check(handle, there, entries["checksum"], entries["location"][:SHOWN])
        data = _read(handle, offset or 0, size)
        if len(data) < size:
            raise onnx_rule_error(4, f"{entries['location'][:SHOWN]!r} became shorter while it was read")
        return data

    def file(self, location: str, name: str) -> tuple[int, int]:
        """An open file, and how many bytes it has. Raises ModelFileError (rule 4) for one outside the folder."""
        if location not in self.open_files:
            self.open_files[location] = self._opened(location, name)
        handle = self.open_files[location]
        return handle, os.fstat(handle).st_size

    def _opened(self, location: str, name: str) -> int:
        shown, path = f"tensor {name!r} has its data in {location[:SHOWN]!r}", PurePosixPath(location)
        outside = path.is_absolute() or ".." in path.parts or PureWindowsPath(location).anchor
        if outside or "\\" in location or "\0" in location or len(location) > 4096:
            raise onnx_rule_error(4, f"{shown}, which is no path within the folder of the file")
        try:
            folder = self.folder.resolve(strict=True)
            resolved = (folder / location).resolve(strict=True)
            if not resolved.is_relative_to(folder):
                raise onnx_rule_error(4, f"{shown}, a link out of the folder of the file")
            if not resolved.is_file():
                raise onnx_rule_error(4, f"{shown}, which is no file")
            handle = os.open(resolved, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a circle of links
            if isinstance(error, ModelFileError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise ModelFileError(
                4, f"{shown}: {reason}", "that file in the folder of the ONNX file", "copy both files to one folder"
            ) from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise onnx_rule_error(4, f"{shown}, which is no file")
        return handle


def _rewritten(data: memoryview, kind: str, files: _Files, depth: int) -> list[bytes | memoryview] | None:
    """A message as parts with the data of its tensors in them; None where nothing in it changes."""
    if depth > protobuf.DEPTH_LIMIT:
        raise protobuf.malformed(f"messages nested deeper than {protobuf.DEPTH_LIMIT}")
    parts: list[bytes | memoryview] = []
    copied, changed = 0, False
    for number, wire, value, start, end in protobuf.scan(data):
        field = MESSAGES[kind].get(number)
        if field is None or wire != protobuf.DELIMITED or not isinstance(value, memoryview):
            continue
        below = None
        if field.kind == "Tensor":
            below = _filled(value, files)
        elif field.kind in ABOVE_TENSORS:
            below = _rewritten(value, field.kind, files, depth + 1)
        if below is not None:
            changed = True
            parts += [data[copied:start], *_field(number, below)]
            copied = end
    return [*parts, data[copied:]] if changed else None


def _filled(tensor: memoryview, files: _Files) -> list[bytes | memoryview] | None:
    raw = files.tensor(tensor)
    if raw is None:
        return None
    kept: list[bytes | memoryview] = [
        tensor[start:end] for number, _, _, start, end in protobuf.scan(tensor) if number not in REPLACED
    ]
    return kept + _field(RAW_DATA, [raw])


def _field(number: int, parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """A delimited field of these parts."""
    head = _varint(number << 3 | protobuf.DELIMITED) + _varint(sum(len(part) for part in parts))
    return [head, *parts]


def _varint(number: int) -> bytes:
    done = bytearray()
    while number > 127:
        done.append(number & 127 | 128)
        number >>= 7
    return bytes([*done, number])


def _number(entries: dict[str, str], key: str, name: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise onnx_rule_error(4, f"tensor {name!r} has {key} {text[:SHOWN]!r} in its external_data")
    return int(text)


def _size(tensor: dict[str, Any], name: str) -> int | None:
    """The bytes that a tensor needs; None for a type that numpy lacks. Raises ModelFileError (rule 5)."""
    kind = TYPES.get(tensor.get("data_type", 0))
    count = 1
    for side in tensor["dims"]:
        count *= side
        if not 0 <= side <= FILE_LIMIT or count > FILE_LIMIT * 8:
            raise onnx_rule_error(5, f"tensor {name!r} has the shape {tensor['dims'][:8]}")
    return None if kind is None else count * np.dtype(kind[0]).itemsize


def _read(handle: int, offset: int, size: int) -> bytes:
    os.lseek(handle, offset, os.SEEK_SET)
    return b"".join(_chunks(handle, size))


def _chunks(handle: int, size: int) -> Iterator[bytes]:
    while size > 0:
        part = os.read(handle, min(size, 1 << 24))
        if not part:
            return
        size -= len(part)
        yield part


def _check(handle: int, size: int, checksum: str, location: str) -> None:
    """Raises ModelFileError (rule 4) where a file's SHA-1 is another than the one given."""
    os.lseek(handle, 0, os.SEEK_SET)
    digest = hashlib.sha1(usedforsecurity=False)
    for part in _chunks(handle, size):
        digest.update(part)
    if digest.hexdigest() != checksum.lower():
        raise onnx_rule_error(4, f"{location!r} has the SHA-1 {digest.hexdigest()}, not {checksum[:SHOWN]}")

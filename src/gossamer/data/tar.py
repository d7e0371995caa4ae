"""An index of a tar file from one pass over its headers; contents are sought over, nothing is ever extracted.

Read: POSIX ustar with prefix, GNU long names and base-256 numbers, pax records `path` and `size`. The layout is that
of IEEE Std 1003.1 (pax, "ustar Interchange Format" and "pax Header Block") and of GNU tar's tar.h.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gossamer.errors import DataError
from gossamer.host.storage import open_descriptor
from gossamer.host.text import counted

BLOCK = 512
_LARGEST_HEADER = 1 << 20  # bytes of a long name or a set of pax records; real ones have some hundred
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_EMPTY = bytes(BLOCK)
_LONGEST_END = 1 << 20  # closing zeros fill up a record, of 10 kB unless the writer was told otherwise
_CHECKSUM = slice(148, 156)  # the checksum's own field, which counts as eight spaces
_ALLOWED = "complete, uncompressed tar files"


class TarMember(NamedTuple):
    """A regular file in a tar. start, size: bytes; the content is file[start : start + size]."""

    name: str
    start: int
    size: int


def members(path: Path, notes: list[str] | None = None) -> Iterator[TarMember]:
    """The regular files of a tar, in order. Folders, links, devices and sparse files are passed over.

    notes: gets a line where the tar ends without its closing zeros, as one does that was cut off between two files, or
    where more follows them. Raises DataError: compressed, not a tar, a damaged header, or cut off within a file (the message
    names the part that can be read).
    """
    try:
        handle = open_descriptor(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", _ALLOWED, "check the path") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: is not a file", _ALLOWED, "check the path")
        yield from _members(path, handle, status.st_size, [] if notes is None else notes)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", _ALLOWED, "check the disk") from error
    finally:
        os.close(handle)


def _members(path: Path, handle: int, end: int, notes: list[str]) -> Iterator[TarMember]:
    at, complete = 0, 0
    long_name: str | None = None
    records: dict[str, str] = {}  # of the next member
    for_all: dict[str, str] = {}  # of all that follow
    while at < end:
        header = os.pread(handle, BLOCK, at)
        if len(header) < BLOCK:
            raise _cut(path, complete, at, end)
        if header == _EMPTY:
            notes += _after_end(path, handle, at, end, complete)
            return
        _check(path, header, at)
        kind, size = header[156:157], _number(path, header[124:136], at)
        start = at + BLOCK
        if kind in b"LKxg":
            if size > _LARGEST_HEADER:
                raise _bad(path, at, f"an extended header of {counted(size, 'byte')}")
            content = os.pread(handle, size, start)
            if len(content) < size:
                raise _cut(path, complete, at, end)
            if kind == b"L":
                long_name = _text(content)
            elif kind == b"x":
                records = _records(path, content, at)
            elif kind == b"g":
                for_all.update(_records(path, content, at))
        else:
            own = {**for_all, **records} if for_all or records else {}
            if "size" in own:
                size = _decimal(path, own["size"], at)
            if kind in (b"1", b"2", b"3", b"4", b"5", b"6"):  # links, devices, folders, pipes have no content
                size = 0
            if start + size > end:
                raise _cut(path, complete, at, end, size)
            sparse = own and any(key.startswith("GNU.sparse") for key in own)
            if kind in (b"0", b"\0", b"7") and not sparse:
                yield TarMember(own.get("path") or long_name or _name(header), start, size)
                complete += 1
            long_name, records = None, {}
        at = start + -(-size // BLOCK) * BLOCK
    if at:
        notes.append(
            f"{path}: ends without the closing zeros of a tar: it may be cut off behind its {counted(complete, 'file')}"
        )


def _after_end(path: Path, handle: int, at: int, end: int, complete: int) -> list[str]:
    """A note where a file goes on behind the closing zeros at `at`: with another tar, or with the rest of a download."""
    tail = os.pread(handle, _LONGEST_END, at)
    used = next((i for i in range(0, len(tail), BLOCK) if any(tail[i : i + BLOCK])), -1)
    if used < 0 and at + len(tail) == end:
        return []
    what = f"more from byte {at + used} on" if used >= 0 else f"{counted(end - at, 'byte')}, mostly or all zeros"
    return [
        f"{path}: its closing zeros are at byte {at}, and {what}, which is not read: {counted(complete, 'file was', 'files were')}"
    ]


def _check(path: Path, header: bytes, at: int) -> None:
    """The header's checksum: the sum of its bytes, some old writers take them as signed. Raises DataError."""
    field = header[_CHECKSUM]
    stated = _octal(field)
    used = header.translate(None, b"\0")  # most are 0, and summing is half of the time of a pass over the headers
    total = sum(used) - sum(field) + 8 * 32
    if stated == total:
        return
    if stated is not None and stated == total - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
        return
    if at == 0:
        for mark, name in _COMPRESSED.items():
            if header.startswith(mark):
                raise DataError(
                    f"{path}: is compressed ({name})",
                    _ALLOWED,
                    "decompress it first; images are compressed as they are",
                )
        raise DataError(f"{path}: is not a tar file", _ALLOWED, "check the path")
    raise _bad(path, at, "a header whose checksum does not fit")


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    if not digits.isdigit():  # something behind the NUL that ends the number, or no number
        digits = digits.split(b"\0")[0].strip()
    try:
        return int(digits, 8) if digits.isdigit() else None
    except ValueError:  # an 8 or a 9
        return None


def _number(path: Path, field: bytes, at: int) -> int:
    """A size: octal digits, or base 256 where the first bit is set."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise _bad(path, at, "a size below zero or beyond all bounds")
        return int.from_bytes(field[1:], "big")
    if not field.strip(b" \0"):
        return 0
    value = _octal(field)
    if value is None:
        raise _bad(path, at, "a size that is no number")
    return value


def _decimal(path: Path, text: str, at: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _bad(path, at, "a size that is no number")
    return int(text)


def _name(header: bytes) -> str:
    name = _text(header[:100])
    # GNU tar has other fields there
    prefix = _text(header[345:500]) if header[345] and header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _records(path: Path, content: bytes, at: int) -> dict[str, str]:
    """Pax records: "LENGTH KEY=VALUE\\n", LENGTH counting the whole record."""
    records, position = {}, 0
    content = content.rstrip(b"\0")
    while position < len(content):
        digits = content[position : position + 8].split(b" ", 1)[0]
        length = int(digits) if digits.isdigit() else 0
        record = content[position + len(digits) + 1 : position + length]
        if length <= len(digits) + 2 or not record.endswith(b"\n") or b"=" not in record:
            raise _bad(path, at, "a damaged extended header")
        key, value = record[:-1].split(b"=", 1)
        records[key.decode("utf-8", "backslashreplace")] = value.decode("utf-8", "backslashreplace").split("\0", 1)[0]
        position += length
    return records


def _bad(path: Path, at: int, what: str) -> DataError:
    return DataError(f"{path}: {what} at byte {at}", _ALLOWED, "copy the file again")


def _cut(path: Path, complete: int, at: int, end: int, size: int | None = None) -> DataError:
    wants = f" (its next file has {counted(size, 'byte')})" if size is not None else ""
    return DataError(
        f"{path}: is cut off: {counted(complete, 'file is', 'files are')} complete, "
        f"byte {at} begins one that goes beyond the end at {end}{wants}",
        _ALLOWED,
        "copy the file again",
    )

"""Text files of other programs: UTF-8, or what a byte order mark says, as Windows' tools write it."""

from __future__ import annotations

import codecs

# the mark of UTF-32 begins with that of UTF-16, so it comes first
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(data: bytes) -> str:
    """The text of a file: UTF-8, or UTF-16 or UTF-32 behind their byte order mark, as PowerShell's `>` and Excel's "Unicode
    text" have it. No other encoding is guessed at. Raises UnicodeDecodeError."""
    return data.decode(next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8"))


def peeked(data: bytes) -> bytes:
    """The start of a file as UTF-8 without a byte order mark, to look for words in; as it is where it is no UTF-16."""
    name = next((name for mark, name in _MARKS if data.startswith(mark)), "")
    return data.decode(name, "replace").encode("utf-8", "replace") if name else data


def not_text(error: UnicodeDecodeError) -> str:
    """What is said of a file that `decode_text` cannot read: "byte 13 is not UTF-8"."""
    return f"byte {error.start} is not {error.encoding.upper()[:6].rstrip('-')}"

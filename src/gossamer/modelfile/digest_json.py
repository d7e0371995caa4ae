"""A JSON file that states its own SHA-256, taken with its 64 digits as zeros; the entry "sha256" is the first."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

START, DIGITS = b'{"sha256": "', 64


class ChangedFileError(ValueError):
    """A file that is not as it was written."""


def with_digest(entries: dict[str, Any]) -> bytes:
    """The file of these entries."""
    data = json.dumps({"sha256": "0" * DIGITS, **entries}, ensure_ascii=False, allow_nan=False).encode()
    return START + hashlib.sha256(data).hexdigest().encode() + data[len(START) + DIGITS :]


def checked_values(data: bytes) -> dict[str, Any]:
    """The entries of a file. Raises ChangedFileError for another digest, ValueError for another kind of file."""
    digest, rest = data[len(START) : len(START) + DIGITS], data[len(START) + DIGITS :]
    if not data.startswith(START) or not re.fullmatch(rb"[0-9a-f]{64}", digest):
        raise ValueError("not a file of gossamer")
    if digest != hashlib.sha256(START + b"0" * DIGITS + rest).hexdigest().encode():
        raise ChangedFileError("the file is not as it was written")
    try:
        values = json.loads(data.decode())
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(values, dict):
        raise ValueError("not an object")
    return values

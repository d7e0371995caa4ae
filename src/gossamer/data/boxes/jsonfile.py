"""JSON from anywhere: bounded, its shape checked where it is used, one line for each way in which it is broken."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

from gossamer.data.boxes.records import contents
from gossamer.data.folder import printable_path
from gossamer.errors import DataError
from gossamer.host.encoding import decode_text, not_text

LIMIT = 1 << 31
"""Bytes of a JSON file; the largest of COCO has a quarter of that."""


def read_json(path: Path, limit: int = LIMIT) -> dict[str, Any]:
    """The object that a file holds. Raises DataError."""
    value = _parsed(path, limit)
    if not isinstance(value, dict):
        raise DataError(
            f"{printable_path(str(path))}: holds a {type(value).__name__}", "an object at its top", "fix the file"
        )
    return value


def read_list(path: Path, allowed: str, limit: int = LIMIT) -> tuple[list[dict[str, Any]], int]:
    """The objects in the list that a file holds, and how many other entries it has. Raises DataError where there is no
    list, or no object in one that is not empty."""
    value = _parsed(path, limit)
    objects = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
    if not isinstance(value, list) or (value and not objects):
        raise DataError(f"{printable_path(str(path))}: holds no list of objects", allowed, "fix the file")
    return objects, len(value) - len(objects)


def _parsed(path: Path, limit: int) -> Any:
    name = printable_path(str(path))
    try:
        return json.loads(decode_text(contents(path, limit)))
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: {not_text(error)}", "JSON", "save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: is no JSON: {reprlib.repr(str(error))}", "JSON", "fix the file") from error


def listed_entries(value: dict[str, Any], key: str, where: str, failed: list[DataError]) -> list[dict[str, Any]]:
    """The objects in the list under `key`; an error for each other entry goes to `failed`.

    Raises DataError where there is no list, or no object in a list that is not empty.
    """
    listed = value.get(key)
    if isinstance(listed, list) and any(isinstance(entry, dict) for entry in listed):
        failed += [
            DataError(f"{where}: {key} holds {reprlib.repr(entry)}", "objects", "fix the file")
            for entry in listed
            if not isinstance(entry, dict)
        ]
        return [entry for entry in listed if isinstance(entry, dict)]
    return entries(value, key, where)


def entries(value: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """The list of objects under `key`. Raises DataError."""
    listed = value.get(key)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        what = "is missing" if key not in value else "is no list of objects"
        raise DataError(f"{where}: {key} {what}", "lists images, annotations and categories", "fix the file")
    return listed

"""How results look in a Python session: short, without the contents of arrays; as a report where they have one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from gossamer.host.text import counted

ITEMS, CHARACTERS = 6, 120  # of a collection and of a text; the rest is counted
DEPTH = 3  # of values in values


def short_repr(value: Any, depth: int = DEPTH) -> str:
    """`repr`, with arrays as their type and shape, and what is long or nested deeper than `depth` cut."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}>"
    if isinstance(value, (str, bytes, os.PathLike)):
        text = repr(value if isinstance(value, (str, bytes)) else os.fspath(value))
        return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}... ({len(text)} characters)"
    if isinstance(value, float):
        return f"{value:.6g}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.repr]
        if not depth:
            return f"{type(value).__name__}(...)"
        shown = ", ".join(f"{name}={short_repr(getattr(value, name), depth - 1)}" for name in fields)
        return f"{type(value).__name__}({shown})"
    if isinstance(value, Mapping):
        pairs = [f"{short_repr(k, depth - 1)}: {short_repr(v, depth - 1)}" for k, v in list(value.items())[:ITEMS]]
        return f"{{{_joined(pairs, len(value), depth)}}}"
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [short_repr(item, depth - 1) for item in list(value)[:ITEMS]] if depth else []
        content = _joined(items, len(value), depth)
        start, end = ("[", "]") if isinstance(value, list) else ("(", ")") if isinstance(value, tuple) else ("{", "}")
        return start + content + ("," if isinstance(value, tuple) and len(value) == 1 else "") + end
    text = repr(value)
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}..."


def _joined(items: list[str], count: int, depth: int) -> str:
    if not depth and count:
        return f"... {counted(count, 'item')}"
    return ", ".join([*items, *([f"... {count} items"] if count > len(items) else [])])


class Brief:
    """A dataclass (with repr=False) whose `repr` is `short_repr`."""

    def __repr__(self) -> str:
        return short_repr(self)


class Report(Brief):
    """A `Brief` that prints its text."""

    def __str__(self) -> str:
        return str(self.text())  # type: ignore[attr-defined]  # of the class that has one

"""The images that a place holds and that are not read from it: how many of how many, and the first names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gossamer.data.folder import printable_path
from gossamer.data.source import Files, LeftOut
from gossamer.data.table import StrPath, Table
from gossamer.images.hidden import is_hidden
from gossamer.images.preprocess import IMAGE_SUFFIXES

NAMES = 20
"""Names that are kept; the text shows the first few of them."""
_OF_MASKS = frozenset(
    "masks mask ann_dir segmentationclass segmentationobject segmentationclassvisualization gtfine gtcoarse".split()
)
"""Folders, in lower case, of images that are no images of a data set of boxes or masks."""


def left_out(root: StrPath, table: Table, others: Sequence[Table] = ()) -> LeftOut | None:
    """What `table` leaves out of the images at `root`; None where it reads all, and of kinds that say so themselves.

    A folder is walked; of a file, such as a CSV, only the folders that its images are in. others: tables whose images
    are not left out, either. Reads no image.
    """
    store = table.store
    if table.kind == "image folder" or not isinstance(store, Files):
        return None
    used, beside = _used([table]), _beside([table, *others])
    beside |= _used(others) - used
    top = os.fspath(root) if os.path.isdir(root) else store.root  # noqa: PTH112 (paths are plain text here)
    holders = {os.path.dirname(path) for path in used}  # noqa: PTH120
    unused: list[str] = []
    held = 0
    for folder, below, files in os.walk(top):
        below[:] = sorted(
            name
            for name in below
            if not is_hidden(name) and (name.lower() not in _OF_MASKS or _holds(os.path.join(folder, name), holders))  # noqa: PTH118
        )
        here = _plain(folder, "")
        if not os.path.isdir(root) and here not in holders:  # noqa: PTH112
            continue
        for name in files:
            path = _plain(folder, name)
            if os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES or is_hidden(name) or path in beside:  # noqa: PTH122
                continue
            held += 1
            if path not in used:
                unused.append(os.path.relpath(path, top))
    if unused:  # a file that is read by way of a link is not left out
        read = set(map(os.path.realpath, used))
        linked = [name for name in unused if os.path.realpath(os.path.join(top, name)) in read]  # noqa: PTH118
        unused, held = [name for name in unused if name not in set(linked)], held - len(linked)
    if not unused:
        return None
    names = tuple(printable_path(Path(name).as_posix()) for name in sorted(unused)[:NAMES])
    return LeftOut(os.fspath(root), held, len(unused), names)


def _used(tables: Sequence[Table]) -> set[str]:
    """The images of tables."""
    stores = [table.store for table in tables]
    return {_plain(store.root, path) for store in stores if isinstance(store, Files) for path in store.paths}


def _beside(tables: Sequence[Table]) -> set[str]:
    """The files of masks of tables, also those that a column names."""
    result: set[str] = set()
    for table in tables:
        for reader in (table.targets, *(column.reader for column in getattr(table.targets, "columns", {}).values())):
            if isinstance(table.store, Files):
                result |= {_plain(table.store.root, path) for path in getattr(reader, "paths", ())}
    return result


def _plain(folder: str, name: str) -> str:
    return os.path.abspath(os.path.join(folder, name))  # noqa: PTH100, PTH118


def _holds(folder: str, holders: set[str]) -> bool:
    """Whether images that are read lie below a folder."""
    top = _plain(folder, "")
    return any(holder == top or holder.startswith(top + os.sep) for holder in holders)

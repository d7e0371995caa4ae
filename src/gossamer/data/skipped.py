"""Lines, labels and other parts of a data set that cannot be used: a few are skipped with a note, many refuse the data."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gossamer.data.source import shown
from gossamer.data.table import StrPath
from gossamer.errors import DataError


def note_skipped(where: StrPath, failed: Sequence[DataError], count: int, what: str, notes: list[str]) -> None:
    """A note on what cannot be used and is skipped: `failed` of `count`. where: the file. what: lines, labels, ...

    Raises the first error where they are more than a third, or all: then the file is wrong and not a few of its lines.
    """
    if failed and (3 * len(failed) > count or len(failed) == count):
        raise failed[0]
    if failed:
        place = os.fspath(where)
        given = shown(dict.fromkeys(error.given.removeprefix(f"{place}: ") for error in failed), 3)
        notes.append(f"{place}: {len(failed)} of {count} {what} cannot be used and are skipped: {given}")

"""Files whose names a list spells otherwise than the disk: letters with accents are composed on Windows and Linux and often
decomposed on macOS (Unicode NFC and NFD), and Windows and macOS take a.JPG for a.jpg."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path


def spelling(name: str) -> str:
    """What all spellings of a name have in common."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The names that one spelling has in common, but for blanks: Cat and cat, accents of two systems; in groups, in order."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(spelling(" ".join(name.split())), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


class Spellings:
    """The entries of folders by their spelling; a folder is listed once, when a name is looked for in it."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, str | None]] = {}

    def find(self, folder: Path, parts: Sequence[str], *, folder_too: bool = False) -> Path | None:
        """The file at `parts` below `folder` in whatever spelling; None where there is none, or several are spelt alike.

        folder_too: what is there may be a folder.
        """
        place = folder
        for part in parts:
            exact = place / part
            if os.path.lexists(exact):
                place = exact
            elif entry := self._entries(place).get(spelling(part)):
                place = place / entry
            else:
                return None
        there = os.path.isfile(place) or (folder_too and os.path.isdir(place))  # noqa: PTH112, PTH113 (no error for long names)
        return place if there else None

    def _entries(self, folder: Path) -> dict[str, str | None]:
        if folder not in self._folders:
            entries: dict[str, str | None] = {}
            try:
                names = [entry.name for entry in folder.iterdir()]
            except (OSError, ValueError):  # not a folder, or one that cannot be read: nothing is found in it
                names = []
            for name in names:
                key = spelling(name)
                entries[key] = None if key in entries else name
            self._folders[folder] = entries
        return self._folders[folder]

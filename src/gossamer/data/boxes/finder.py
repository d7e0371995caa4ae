"""Where an image is that an annotation file names by a path of another machine, a server or a tool."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from gossamer.data.boxes.records import image_files
from gossamer.data.spelling import Spellings, spelling
from gossamer.images.preprocess import IMAGE_SUFFIXES

LONGEST_PATH = 4096
_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio puts eight digits before the name of an uploaded file


class Finder:
    """Finds images below `root`, which no path can lead out of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] | None = None
        self._by_spelling: dict[str, list[Path]] = {}
        self._spellings = Spellings()

    def find(self, name: str, near: Iterable[Path] = ()) -> Path | None:
        """The image that `name` means, None where there is none or where several are called so.

        name: a path with either slash, of this machine or of another, or an address. near: folders to try first. What
        counts is the longest end of the path that is there, as it is written or else in another spelling; then its last part
        alone, anywhere below the root, also without its ending.
        """
        places = list(dict.fromkeys([*near, self.root]))
        if len(name) > LONGEST_PATH:  # no file has it, and asking would be an error
            return None
        for parts in dict.fromkeys((_parts(name), _parts(unquote(name)), _parts(name.strip()))):
            for start in range(len(parts)):
                for place in places:
                    candidate = place.joinpath(*parts[start:])
                    if os.path.isfile(candidate):  # noqa: PTH113 (False, not an error, for a name that is too long)
                        return candidate
            for start in range(len(parts)):
                for place in places:
                    if spelt := self._spellings.find(place, parts[start:]):
                        return spelt
            for last in dict.fromkeys([*parts[-1:], *(_UPLOAD.sub("", part) for part in parts[-1:])]):
                if len(called := self._named(last)) == 1:
                    return called[0]
        return None

    def _named(self, name: str) -> list[Path]:
        if self._by_name is None:
            self._by_name = {}
            for path in image_files(self.root):
                last = PurePosixPath(path).name
                self._by_name.setdefault(last, []).append(self.root / path)
                self._by_spelling.setdefault(spelling(last), []).append(self.root / path)
                stem = PurePosixPath(path).stem
                if PurePosixPath(stem).suffix.lower() not in IMAGE_SUFFIXES:  # a.jpg.png is no a.jpg
                    self._by_spelling.setdefault(spelling(stem), []).append(self.root / path)
        return self._by_name.get(name) or self._by_spelling.get(spelling(name), [])


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a path or an address that can lie below a folder."""
    if "\0" in name:
        return ()
    if "?d=" in name:  # Label Studio's local files: /data/local-files/?d=folder/a.jpg
        name = name.partition("?d=")[2]
    elif "://" in name:
        name = path_of(name)
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return tuple(part for part in parts if part not in ("/", "//", "..", ".") and part[1:2] != ":")


def path_of(address: str) -> str:
    """The path of an address, without what a server is asked for behind it."""
    try:
        return urlsplit(address).path
    except ValueError:  # brackets that are no address
        return address

"""The images of a unit of work, one after the other, each read where it is."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gossamer.batch.plan import SHARD, Unit
from gossamer.data.tar import TarMember, members
from gossamer.errors import DataError, ImageError
from gossamer.host.storage import open_descriptor
from gossamer.images.decode import FILE_LIMIT, read_file
from gossamer.images.hidden import is_hidden
from gossamer.images.preprocess import IMAGE_SUFFIXES


class UnitImage(NamedTuple):
    """An image of a unit: a file, or bytes of an open shard."""

    key: str
    size: int
    start: int = 0
    shard: int = -1

    def read(self) -> bytes:
        """Its bytes. Raises ImageError."""
        if self.shard < 0:
            return read_file(self.key)
        if self.size > FILE_LIMIT:
            raise ImageError(f"{self.key}: has {self.size} bytes", f"files of at most {FILE_LIMIT} bytes", "remove it")
        try:
            data = os.pread(self.shard, self.size, self.start)
        except OSError as error:
            raise ImageError(f"{self.key}: {error.strerror}", "a shard that can be read", "check the disk") from error
        if len(data) < self.size:
            raise ImageError(f"{self.key}: its shard has become shorter", "a complete shard", "copy it again")
        return data


class UnitImages:
    """The images of a unit.

    repeated: members of a shard with the name of an earlier one, which are passed over. damaged: why a shard could not be
    read to its end, "" where it could. doubtful: that it ends as one that was cut off may, "" where it does not. Raises DataError where a shard cannot be opened.
    """

    def __init__(self, unit: Unit) -> None:
        self._unit, self._shard = unit, -1
        self.repeated, self.damaged, self.doubtful = 0, "", ""

    def __iter__(self) -> Iterator[UnitImage]:
        entries = self._unit.entries()
        if self._unit.kind != SHARD:
            for key, size, _ in entries:
                yield UnitImage(key, size)
            return
        path = entries[0][0]
        try:
            self._shard = open_descriptor(path)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}", "the shards as they were planned", "check the path") from error
        repeated = self._repeated_hashes(path)
        seen: set[str] = set()
        notes: list[str] = []
        try:
            for name, member in _images(path, notes):
                if repeated and hash(name) in repeated:
                    if name in seen:
                        self.repeated += 1
                        continue
                    seen.add(name)
                yield UnitImage(f"{path}/{name}", member.size, member.start, self._shard)
        except DataError as error:
            self.damaged = str(error)
        self.doubtful = "; ".join(notes)

    def close(self) -> None:
        """Close the shard; no image can be read after."""
        if self._shard >= 0:
            os.close(self._shard)
            self._shard = -1

    @staticmethod
    def _repeated_hashes(path: str) -> set[int]:
        """Hashes that more than one name has: 8 bytes an image, where a set of a million names takes 100 MB."""
        hashes = array("q")
        with contextlib.suppress(DataError):  # told by the pass that gives the images
            hashes.extend(hash(name) for name, _ in _images(path))
        ordered = np.sort(np.frombuffer(hashes, np.int64)) if hashes else np.zeros(0, np.int64)
        return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def _images(path: str, notes: list[str] | None = None) -> Iterator[tuple[str, TarMember]]:
    """(name, member) of each image of a shard; hidden ones are left out. notes: see `members`. Raises DataError."""
    from pathlib import Path

    for member in members(Path(path), notes):
        name = member.name.removeprefix("./")
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not any(map(is_hidden, name.split("/"))):
            yield name, member

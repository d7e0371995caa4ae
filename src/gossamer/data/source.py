"""A source: the images of one split, with their names, labels and a way to read the bytes.

Folders, CSV files and tar shards differ in their store only: where the bytes of a row are, and in which order a disk
likes to read them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gossamer.data.streams import ORDER, stream
from gossamer.errors import ImageError
from gossamer.images.preprocess import read_file

Indices = NDArray[np.int64]
OrderKind = Literal["shuffle", "balanced", "none"]
SPLITS = ("train", "val", "test")


class Store(Protocol):
    """Where the bytes of the rows of a table are."""

    def read(self, row: int) -> bytes:
        """The encoded image of a row. Raises OSError, ImageError."""

    def stats(self, rows: Indices) -> Iterator[tuple[int, int]]:
        """(bytes, modification time in ns) of each row, (-1, 0) where it is missing; no content is read."""

    def arrange(self, rows: Indices, rng: np.random.Generator) -> Indices:
        """A random order of the positions 0..len(rows)-1 that the disk can follow."""


class Targets(Protocol):
    """What is known of the rows of a table: boxes, masks, several labels."""

    def read(self, row: int) -> Any:
        """The target of a row. Raises OSError, ImageError."""

    def line(self, row: int) -> str:
        """A line that changes when the target does, for the fingerprint; no image is read."""


class Files:
    """One file per image; `paths` are relative to `root`, or absolute."""

    def __init__(self, root: Path, paths: list[str]) -> None:
        self.root, self.paths = os.fspath(root), paths

    def read(self, row: int) -> bytes:
        return read_file(os.path.join(self.root, self.paths[row]))  # noqa: PTH118 (Path is slow, and this is hot)

    def stats(self, rows: Indices) -> Iterator[tuple[int, int]]:
        for row in rows.tolist():
            try:
                status = os.stat(os.path.join(self.root, self.paths[row]))  # noqa: PTH116, PTH118
                yield status.st_size, status.st_mtime_ns
            except (OSError, ValueError):  # ValueError for a null character, which no path can have
                yield -1, 0

    def arrange(self, rows: Indices, rng: np.random.Generator) -> Indices:
        return rng.permutation(len(rows))


@dataclass
class Source:
    """The images of one split. names: display paths. labels: (n,) int64, index into `classes`.

    rows: the row of each image in `store`. targets: what is known of each row, where it is more than a class. notes,
    left_out: as of `Data`, where the images were opened alone.
    """

    classes: tuple[str, ...]
    names: list[str]
    labels: Indices
    store: Store
    rows: Indices
    targets: Targets | None = None
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """The encoded image. Raises ImageError where it cannot be read."""
        try:
            return self.store.read(int(self.rows[index]))
        except OSError as error:
            raise ImageError(
                f"{self.names[index]}: {error.strerror}", "a readable image file", "restore it or take it out"
            ) from error

    def target(self, index: int) -> Any:
        """What is known of an image: its class number, or what `targets` says. Raises ImageError."""
        if self.targets is None:
            return int(self.labels[index])
        try:
            return self.targets.read(int(self.rows[index]))
        except OSError as error:
            raise ImageError(
                f"{self.names[index]}: what belongs to it: {error.strerror}", "a readable file", "restore it"
            ) from error

    def select(self, indices: Indices) -> Source:
        """The source of these images, in this order."""
        names = [self.names[i] for i in indices.tolist()]
        return Source(self.classes, names, self.labels[indices], self.store, self.rows[indices], self.targets)

    def order(self, epoch: int, seed: int, kind: OrderKind = "shuffle") -> Indices:
        """The indices of one epoch, (len(self),), the same for the same (epoch, seed).

        "shuffle": each image once. "balanced": each class that has images equally often (to within one), images of a
        small class repeated as evenly as possible. "none": in stored order.
        """
        if kind == "none":
            return np.arange(len(self), dtype=np.int64)
        rng = stream(seed, epoch, 0, ORDER)
        picks = np.arange(len(self), dtype=np.int64) if kind == "shuffle" else _balanced(self.labels, rng)
        return picks[self.store.arrange(self.rows[picks], rng)]

    def fingerprint(self) -> str:
        """SHA-256 over the sorted (name, bytes, class or target) of the images. No content is read: a file that was
        replaced by another of the same size goes unnoticed."""
        stats, targets = self.store.stats(self.rows), self.targets
        described = (self.classes[n] for n in self.labels.tolist()) if targets is None else map(targets.line, self.rows)
        lines = (
            f"{name}\0{size}\0{target}" for name, (size, _), target in zip(self.names, stats, described, strict=True)
        )
        return digest(sorted(lines))


@dataclass(frozen=True)
class LeftOut:
    """Images that a place holds and that are not read. place: where. held: image files there, without hidden ones. count: those
    that are left out; names: the first."""

    place: str
    held: int
    count: int
    names: tuple[str, ...]

    def line(self) -> str:
        """The note on them."""
        few = self.names[:5]
        more = f" and {self.count - len(few)} more" if self.count > len(few) else ""
        return f"{self.place}: {self.count} of {self.held} images are left out: {', '.join(few)}{more}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"place": self.place, "held": self.held, "left_out": self.count, "names": list(self.names)}


@dataclass
class Data:
    """Training, validation and test images with one class list.

    how: one line that says what was recognised. notes: what was skipped or looks odd, a line each. left_out: the images
    that the places of the data hold and that are not read; the notes say why.
    """

    train: Source
    val: Source
    test: Source | None
    classes: tuple[str, ...]
    how: str
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def splits(self) -> dict[str, Source]:
        """The sources there are, by the name of their split."""
        return {"train": self.train, "val": self.val, **({"test": self.test} if self.test else {})}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprints of the splits."""
        return digest(f"{name}\0{source.fingerprint()}" for name, source in self.splits().items())


def digest(lines: Iterable[str]) -> str:
    """SHA-256 of lines, in hexadecimal digits."""
    state = hashlib.sha256()
    for line in lines:
        state.update(line.encode("utf-8", "surrogateescape"))
        state.update(b"\n")
    return state.hexdigest()


def shown(names: Iterable[str], most: int = 5) -> str:
    """The first few of `names`, for a message."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in order: by value where all are whole numbers, by code point otherwise."""
    unique = set(names)
    if all(name.isascii() and name.isdigit() and len(name) < 19 for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


def _balanced(labels: Indices, rng: np.random.Generator) -> Indices:
    present = np.unique(labels)
    each, rest = divmod(len(labels), len(present))
    more = set(rng.permutation(present)[:rest].tolist())
    picks = []
    for label in present.tolist():
        members, wanted = np.flatnonzero(labels == label), each + (label in more)
        rounds = -(-wanted // len(members))
        picks.append(np.concatenate([rng.permutation(members) for _ in range(rounds)])[:wanted])
    return np.concatenate(picks)

"""Splitting by class and seed, what every kind of data makes of its splits, and the rows that save one with a run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from gossamer.data.source import SPLITS, Data, Indices, Source, Table, shown
from gossamer.data.streams import SPLIT, stream
from gossamer.errors import DataError

Row = tuple[str, int, str]  # name, class number, "train", "val" or "test"
StrPath = str | os.PathLike[str]


class Divided(Protocol):
    """What `Table` and the table of boxes have in common."""

    names: list[str]

    def rows(self, *splits: str) -> Indices: ...

    def source(self, classes: Sequence[str], rows: Indices) -> Source: ...


AnyTable = TypeVar("AnyTable", bound=Divided)


class Validated(NamedTuple):
    """The training rows that are left, what validates, whether that was held out of them, in words, and notes."""

    train: Indices
    val: Source
    held: bool
    how: str
    notes: list[str]


def stratified(labels: Indices, share: float, seed: int) -> tuple[Indices, Indices]:
    """Positions kept and held out, each in order: `share` of every class is held out, to the nearest image.

    A class of two or more images has at least one on either side; a single image is kept.
    """
    held = np.zeros(len(labels), dtype=bool)
    rng = stream(seed, kind=SPLIT)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shuffled = rng.permutation(members)
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        held[shuffled[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def led(table: AnyTable, place: StrPath) -> AnyTable:
    """`table` with its names led by its path, so that they differ from those of data that lie elsewhere."""
    top = Path(place).as_posix()
    table.names = [f"{top}/{name}" for name in table.names]
    return table


def validation_rows(table: Divided) -> Indices:
    """The rows to validate on: those marked so, or all where there are none."""
    rows = table.rows("val")
    return rows if len(rows) else np.arange(len(table.names))


def scored_rows(table: Divided, root: StrPath, split: str = "") -> Indices:
    """The rows to evaluate on: those of `split`, or without one the test images, or else those to validate on.

    Raises DataError where the data at `root` have no such split of their own.
    """
    rows = table.rows(split or "test")
    if split and not len(rows):
        own = [name for name in SPLITS if len(table.rows(name))]
        allowed = ", ".join(own) or "data with splits of their own"
        raise DataError(f"{os.fspath(root)}: no {split} images", allowed, "choose another split, or none")
    return rows if len(rows) else validation_rows(table)


def validated(
    table: AnyTable,
    classes: Sequence[str],
    *,
    root: StrPath,
    other: AnyTable | None,
    val: StrPath,
    strata: Indices,
    share: float,
    seed: int,
    of: str,
) -> Validated:
    """Validation by `other`, which lies at `val`, or else by the table's own images, or else by `share` of `strata`.

    strata: (rows,) the class of each row of the table that is split alike. of: what the share is of, in words.
    Raises DataError where no image can be held out, or for a class that is not among `classes`.
    """
    train, inner = table.rows("train", ""), table.rows("val")
    if other is not None:
        unused = [f"{os.fspath(root)}: its own {len(inner)} validation images are not used"] if len(inner) else []
        found = other.source(classes, validation_rows(other))
        return Validated(train, found, False, f"validation from {os.fspath(val)}", unused)
    if len(inner):
        return Validated(train, table.source(classes, inner), False, "with its own validation images", [])
    kept, held = stratified(strata[train], share, seed)
    if not len(held):
        each = " a class" if len(np.unique(strata[train])) > 1 else ""
        raise DataError(
            f"{os.fspath(root)}: has one image{each}, so none can be held out",
            f"two or more images{each}",
            "give validation data",
        )
    how = f"{share:.0%} of {of} held out for validation (seed {seed})"
    return Validated(train[kept], table.source(classes, train[held]), True, how, [])


def opened(
    table: Divided,
    classes: tuple[str, ...],
    parts: Validated,
    notes: list[str],
    *,
    place: str,
    content: str,
    images: str = "images",
    more: str = "",
) -> Data:
    """The data that `parts` and the test images of the table make, described in a line.

    place: kind and path. content: what the line counts before the images, such as "5 classes"; more: after them.
    """
    test = table.rows("test")
    tested = table.source(classes, test) if len(test) else None
    train = table.source(classes, parts.train)
    counts = f"{content}, {len(train)} training and {len(parts.val)} validation {images}"
    counts += f", {len(tested)} for testing" if tested else ""
    return Data(train, parts.val, tested, classes, f"{place}: {counts}{more}; {parts.how}", notes)


def split_rows(data: Data) -> list[Row]:
    """(name, class number, split) of every image, which `apply_split` takes."""
    return [
        (name, label, split)
        for split, source in data.splits().items()
        for name, label in zip(source.names, source.labels.tolist(), strict=True)
    ]


def sources_of(
    tables: Sequence[Table], rows: Iterable[Row], classes: Sequence[str]
) -> tuple[dict[str, Source], list[str]]:
    """The sources that saved rows describe, found again in what lies there now, and notes on what differs.

    Images that are gone, new, or of another class now are noted; the saved class holds. Images keep the order of the
    rows, so that a run goes on in the order in which it began. Raises DataError where a whole split is gone, and where
    none was saved to train or to validate on.
    """
    places = {name: (table, row) for table in tables for row, name in enumerate(table.names)}
    wanted: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for name, label, split in rows:
        if split not in wanted or not 0 <= label < len(classes):
            raise DataError(
                f"saved split: {name},{label},{split}", f"{len(classes)} classes, {shown(SPLITS)}", "restore split.csv"
            )
        wanted[split].append((name, label, split))
    sources: dict[str, Source] = {}
    gone: list[str] = []
    moved: list[str] = []
    used: set[str] = set()
    for split, expected in wanted.items():
        there = [row for row in expected if row[0] in places]
        gone += [name for name, _, _ in expected if name not in places]
        if not expected:
            continue
        if not there:
            raise DataError(
                f"none of the {len(expected)} {split} images of the saved split is there, such as {expected[0][0]}",
                "the data that the run was made with",
                "check the path of the data",
            )
        used.update(name for name, _, _ in there)
        table = places[there[0][0]][0]
        if any(places[name][0] is not table for name, _, _ in there):
            raise DataError(f"saved split: {split} images lie in two places", "one place a split", "restore the data")
        at = np.array([places[name][1] for name, _, _ in there], dtype=np.int64)
        labels = np.array([label for _, label, _ in there], dtype=np.int64)
        moved += [
            name
            for name, label, row in zip([r[0] for r in there], labels.tolist(), at.tolist(), strict=True)
            if table.classes[table.labels[row]] != classes[label]
        ]
        found = [table.names[i] for i in at.tolist()]
        sources[split] = Source(tuple(classes), found, labels, table.store, at, table.targets)
    for split in ("train", "val"):
        if split not in sources:
            raise DataError(f"the saved split has no {split} images", "rows of train and of val", "restore split.csv")
    new = [name for name in places if name not in used]
    notes = []
    for found, what in (
        (gone, "are gone"),
        (new, "were added and are not used"),
        (moved, "have another class now; the saved one is used"),
    ):
        if found:
            notes.append(f"since the split was saved, {len(found)} images {what}: {shown(found)}")
    return sources, notes


def reopened(
    sources: Mapping[str, Source], classes: Sequence[str], notes: list[str], *, place: str, images: str = "images"
) -> Data:
    """The data of a saved split, which `sources_of` found, described in a line. place: kind and path."""
    counts = f"{len(sources['train'])} training and {len(sources['val'])} validation {images}"
    how = f"{place}: the saved split, {counts}"
    return Data(sources["train"], sources["val"], sources.get("test"), tuple(classes), how, notes)

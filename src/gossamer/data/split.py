"""Splitting by class and seed, and the rows that save a split with a run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gossamer.data.source import SPLITS, Data, Indices, Source, shown
from gossamer.data.streams import SPLIT, stream
from gossamer.data.table import StrPath, Table
from gossamer.errors import DataError
from gossamer.host.text import counted, none_of

Row = tuple[str, int, str]  # name, class number, "train", "val" or "test"


class Validation(NamedTuple):
    """train: rows to train on. held: rows held out of them to validate on. source: what validates. how: where it comes
    from, in words."""

    train: Indices
    held: Indices
    source: Source
    how: str
    notes: list[str]


def stratified(labels: Indices, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Positions kept and held out, each in order: `fraction` of every class is held out, to the nearest image.

    A class of two or more images has at least one on either side; a single image is kept.
    """
    held = np.zeros(len(labels), dtype=bool)
    rng = stream(seed, kind=SPLIT)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shuffled = rng.permutation(members)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held[shuffled[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def prefixed(table: Table, place: StrPath) -> Table:
    """`table` with its path in front of its names, so that they differ from those of data elsewhere."""
    top = Path(place).as_posix()
    table.names = [f"{top}/{name}" for name in table.names]
    return table


def validation_rows(table: Table) -> Indices:
    """The rows to validate on: those marked so, or all where there are none."""
    rows = table.rows("val")
    return rows if len(rows) else np.arange(len(table.names))


def scored_rows(table: Table, root: StrPath, split: str = "") -> Indices:
    """The rows to evaluate on: those of `split`, or without one the test images, or else those to validate on.

    Raises DataError where the data at `root` have no such split of their own.
    """
    rows = table.rows(split or "test")
    if split and not len(rows):
        own = [name for name in SPLITS if len(table.rows(name))]
        allowed = ", ".join(own) or "data with splits of their own"
        raise DataError(f"{os.fspath(root)}: no {split} images", allowed, "choose another split, or none")
    return rows if len(rows) else validation_rows(table)


def validation(
    table: Table,
    classes: Sequence[str],
    *,
    root: StrPath,
    other: Table | None,
    val: StrPath,
    fraction: float,
    seed: int,
) -> Validation:
    """Validation by `other`, the data at `val`, or else by the table's own images, or else by `fraction` of its strata.

    Raises DataError where no image can be held out, or for a class that is not among `classes`.
    """
    train, own, none = table.rows("train", ""), table.rows("val"), np.zeros(0, np.int64)
    if other is not None:
        notes = (
            [f"{os.fspath(root)}: its own {counted(len(own), 'validation image is', 'validation images are')} not used"]
            if len(own)
            else []
        )
        source = other.source(classes, validation_rows(other))
        return Validation(train, none, source, f"validation from {os.fspath(val)}", notes)
    if len(own):
        return Validation(train, none, table.source(classes, own), "with its own validation images", [])
    strata = table.strata()[train]
    kept, held = stratified(strata, fraction, seed)
    if not len(held):
        each = " per class" if len(np.unique(strata)) > 1 else ""
        raise DataError(
            f"{os.fspath(root)}: has one image{each}, so none can be held out",
            f"two or more images{each}",
            "give validation data",
        )
    how = f"{fraction:.0%} of {table.stratified} held out for validation (seed {seed})"
    return Validation(train[kept], train[held], table.source(classes, train[held]), how, [])


def split_rows(data: Data) -> list[Row]:
    """(name, class number, split) of every image, which `apply_split` takes."""
    return [
        (name, label, split)
        for split, source in data.splits().items()
        for name, label in zip(source.names, source.labels.tolist(), strict=True)
    ]


def saved_sources(
    tables: Sequence[Table], rows: Iterable[Row], classes: Sequence[str]
) -> tuple[dict[str, Source], list[str]]:
    """The sources that saved rows describe, looked up in the tables of today, and notes on what differs.

    Images that are gone, new, or of another class now are noted; the saved class holds, unless it follows from the
    targets. Images keep the order of the rows, so that a run resumes in the order in which it began. Raises DataError
    where a whole split is gone, and where none was saved to train or to validate on.
    """
    derived = tables[0].derived
    places = {name: (table, row) for table in tables for row, name in enumerate(table.names)}
    saved: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for name, label, split in rows:
        if split not in saved or not (derived or 0 <= label < len(classes)):
            raise DataError(
                f"saved split: {name},{label},{split}",
                f"{counted(len(classes), 'class')}, {shown(SPLITS)}",
                "restore split.csv",
            )
        saved[split].append((name, label, split))
    sources: dict[str, Source] = {}
    gone: list[str] = []
    moved: list[str] = []
    elsewhere: list[str] = []
    used: set[str] = set()
    for split, expected in saved.items():
        present = [row for row in expected if row[0] in places]
        gone += [name for name, _, _ in expected if name not in places]
        if not expected:
            continue
        if not present:
            raise DataError(
                f"{none_of(len(expected), f'{split} image')} of the saved split is there, such as {expected[0][0]}",
                "the data that the run was made with",
                "check the path of the data",
            )
        used.update(name for name, _, _ in present)
        table = places[present[0][0]][0]
        if any(places[name][0] is not table for name, _, _ in present):
            raise DataError(f"saved split: {split} images are in two places", "one place per split", "restore the data")
        at = np.array([places[name][1] for name, _, _ in present], dtype=np.int64)
        if table is tables[0] and (len(tables) == 1 or split == "train"):
            # a table without validation images of its own has them drawn from those for training
            own = ("", split, "train") if split == "val" and "val" not in table.splits else ("", split)
            elsewhere += [table.names[row] for row in at.tolist() if table.splits[row] not in own]
        if derived:
            sources[split] = table.source(classes, at)
            continue
        labels = np.array([label for _, label, _ in present], dtype=np.int64)
        moved += [
            table.names[row]
            for label, row in zip(labels.tolist(), at.tolist(), strict=True)
            if table.classes[table.labels[row]] != classes[label]
        ]
        sources[split] = table.labelled(classes, at, labels)
    for split in ("train", "val"):
        if split not in sources:
            raise DataError(f"the saved split has no {split} images", "rows of train and of val", "restore split.csv")
    new = [name for name in places if name not in used]
    notes = _renamed(gone, new)
    saved_is_used = "now; the saved one is used"
    for names, one, several in (
        (gone, "image is gone", "images are gone"),
        (new, "image was added and is not used", "images were added and are not used"),
        (moved, f"image has another class {saved_is_used}", f"images have another class {saved_is_used}"),
        (elsewhere, f"image is in another split {saved_is_used}", f"images are in another split {saved_is_used}"),
    ):
        if names:
            notes.append(f"since the split was saved, {counted(len(names), one, several)}: {shown(names)}")
    return sources, notes


def _renamed(gone: Sequence[str], new: Sequence[str]) -> list[str]:
    """A note for each folder whose images are gone, all of them, while those of a new folder have their file names."""
    notes = []
    for old_folder, old_names in _by_folder(gone).items():
        for new_folder, new_names in _by_folder(new).items():
            if len(old_names) > 1 and len(old_names & new_names) > len(old_names) // 2:
                notes.append(
                    f"since the split was saved, {old_folder} seems to have been renamed to {new_folder}: "
                    f"{len(old_names & new_names)} images have the same file names; rename it back to resume with them"
                )
    return notes


def _by_folder(names: Iterable[str]) -> dict[str, set[str]]:
    folders: dict[str, set[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, set()).add(file)
    return folders

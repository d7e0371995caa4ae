"""Splitting by class and seed, and the rows that save a split with a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gossamer.data.source import SPLITS, Data, Indices, Source, Table, shown
from gossamer.data.streams import SPLIT, stream
from gossamer.errors import DataError

Row = tuple[str, int, str]  # name, class number, "train", "val" or "test"


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
    rows, so that a run goes on in the order in which it began. Raises DataError where a whole split is gone.
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
        sources[split] = Source(tuple(classes), found, labels, table.store, at, table.answers)
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

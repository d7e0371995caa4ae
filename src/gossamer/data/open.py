"""Recognise what lies at a path, an image folder, a CSV file or tar shards, and give it as training, validation and
test images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gossamer.data.csvfile import read_csv
from gossamer.data.folder import read_folder
from gossamer.data.shards import find_shards, read_shards
from gossamer.data.source import Data, Indices, Source, Table, class_order, shown
from gossamer.data.split import Row, led, opened, reopened, scored_rows, sources_of, split_rows, validated
from gossamer.errors import DataError

__all__ = ["Data", "Source", "apply_split", "open_data", "open_source", "read_table", "split_rows"]

_ALLOWED = "a folder of images, a CSV file of path,label, or tar shards"
StrPath = str | os.PathLike[str]


def read_table(root: StrPath) -> Table:
    """All labelled images at `root`, whatever kind of data it is, not yet split. Raises DataError."""
    path = Path(root)
    if "\0" in os.fspath(path):
        raise DataError(f"data {os.fspath(path)!r}", _ALLOWED, "check the path")
    try:
        shards = find_shards(path)
        if shards:
            return read_shards(*shards, path)
        if path.is_dir():
            return read_folder(path)
        if path.suffix.lower() == ".csv":
            return read_csv(path)
        there = path.exists()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", _ALLOWED, "check the path") from error
    raise DataError(f"{path}: {'is another kind of file' if there else 'does not exist'}", _ALLOWED, "check the path")


def open_data(
    root: StrPath, *, val: StrPath = "", val_share: float = 0.2, seed: int = 0, every_class: bool = False
) -> Data:
    """The data at `root`, split as they say themselves, or else stratified by class with `seed`.

    val: validation data that lie elsewhere (then those of `root` are not used). Where there are none at all,
    `val_share` of every class of the training data is held out. every_class: classes without a training image are
    allowed in the other splits. Raises DataError: nothing there, one class only, a
    class that no training image has, a damaged shard or CSV file.
    """
    table = read_table(root)
    other = _elsewhere(val) if os.fspath(val) else None
    notes = [*table.notes, *(other.notes if other else [])]
    train = table.rows("train", "")
    if not len(train):
        raise DataError(
            f"{os.fspath(root)}: holds no training images", _ALLOWED, "put them under train/, or into folders by class"
        )
    classes = table.classes if table.fixed or every_class else _present(table, train)
    if every_class and other:
        classes = class_order([*classes, *other.classes])
    if len(classes) < 2:
        raise DataError(f"{os.fspath(root)}: holds one class only, {shown(classes)}", "two or more classes", _ONE_CLASS)
    parts = validated(
        table,
        classes,
        root=root,
        other=other,
        val=val,
        strata=table.labels,
        share=val_share,
        seed=seed,
        of="each class",
    )
    notes += parts.notes
    if parts.held:
        single = len(np.unique(table.labels[train])) - len(np.unique(table.labels[parts.val.rows]))
        if single:
            notes.append(f"{single} classes have one image, which is trained on; validation has none of them")
    place = f"{table.kind} {os.fspath(root)}"
    return opened(table, classes, parts, notes, place=place, content=f"{len(classes)} classes")


def open_source(root: StrPath, classes: Sequence[str], split: str = "") -> Source:
    """The images at `root` as one source with the class numbers of `classes`, to be evaluated.

    split: train, val or test; without one, data with splits of their own give their test images, or else their
    validation images. classes: () for those that are there. Raises DataError, also for a class that is not among
    `classes`.
    """
    table = read_table(root)
    classes = classes or table.classes
    return table.source(classes, scored_rows(table, root, split))


def apply_split(root: StrPath, rows: Iterable[Row], *, val: StrPath = "", classes: Sequence[str] = ()) -> Data:
    """The data at `root` (and `val`) with a split that `split_rows` gave, whatever was added since.

    classes: the class names that the rows number; default those that `open_data` finds. Differences between the rows
    and what is there now are in the notes. Raises DataError where the images of a whole split are gone.
    """
    table = read_table(root)
    tables = [table, *([_elsewhere(val)] if os.fspath(val) else [])]
    classes = tuple(classes) or (table.classes if table.fixed else _present(table, table.rows("train", "")))
    sources, notes = sources_of(tables, rows, classes)
    notes = [*table.notes, *notes]
    return reopened(sources, classes, notes, place=f"{table.kind} {os.fspath(root)}")


_ONE_CLASS = "add images of another class"


def _present(table: Table, rows: Indices) -> tuple[str, ...]:
    """The classes that these rows have, in the table's order."""
    return tuple(table.classes[i] for i in np.unique(table.labels[rows]))


def _elsewhere(val: StrPath) -> Table:
    """The table at `val`, its names led by the path."""
    return led(read_table(val), val)

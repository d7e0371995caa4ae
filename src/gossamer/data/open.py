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
from gossamer.data.split import Row, sources_of, split_rows, stratified
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
    train, inner, test = table.rows("train", ""), table.rows("val"), table.rows("test")
    if not len(train):
        raise DataError(
            f"{os.fspath(root)}: holds no training images", _ALLOWED, "put them under train/, or into folders by class"
        )
    classes = table.classes if table.fixed or every_class else _present(table, train)
    if every_class and other:
        classes = class_order([*classes, *other.classes])
    if len(classes) < 2:
        raise DataError(f"{os.fspath(root)}: holds one class only, {shown(classes)}", "two or more classes", _ONE_CLASS)
    if other:
        val_source = other.source(classes, _validation(other))
        if len(inner):
            notes.append(f"{os.fspath(root)}: its own {len(inner)} validation images are not used")
        how = f"validation from {os.fspath(val)}"
    elif len(inner):
        val_source, how = table.source(classes, inner), "with its own validation images"
    else:
        kept, held = stratified(table.labels[train], val_share, seed)
        if not len(held):
            raise DataError(
                f"{os.fspath(root)}: has one image a class, so none can be held out",
                "two or more images a class",
                "give validation data",
            )
        single = len(np.unique(table.labels[train])) - len(np.unique(table.labels[train[held]]))
        if single:
            notes.append(f"{single} classes have one image, which is trained on; validation has none of them")
        train, val_source = train[kept], table.source(classes, train[held])
        how = f"{val_share:.0%} of each class held out for validation (seed {seed})"
    test_source = table.source(classes, test) if len(test) else None
    train_source = table.source(classes, train)
    counts = f"{len(classes)} classes, {len(train_source)} training and {len(val_source)} validation images"
    counts += f", {len(test_source)} for testing" if test_source else ""
    return Data(
        train_source, val_source, test_source, classes, f"{table.kind} {os.fspath(root)}: {counts}; {how}", notes
    )


def open_source(root: StrPath, classes: Sequence[str]) -> Source:
    """The images at `root` as one source with the class numbers of `classes`, to be evaluated.

    Data with splits of their own give their test images, or else their validation images. classes: () for those that
    are there. Raises DataError, also for a class that is not among `classes`.
    """
    table = read_table(root)
    classes = classes or table.classes
    return table.source(classes, rows if len(rows := table.rows("test")) else _validation(table))


def apply_split(root: StrPath, rows: Iterable[Row], *, val: StrPath = "", classes: Sequence[str] = ()) -> Data:
    """The data at `root` (and `val`) with a split that `split_rows` gave, whatever was added since.

    classes: the class names that the rows number; default those that `open_data` finds. Differences between the rows
    and what is there now are in the notes. Raises DataError where the images of a whole split are gone.
    """
    table = read_table(root)
    tables = [table, *([_elsewhere(val)] if os.fspath(val) else [])]
    classes = tuple(classes) or (table.classes if table.fixed else _present(table, table.rows("train", "")))
    sources, notes = sources_of(tables, rows, classes)
    for split in ("train", "val"):
        if split not in sources:
            raise DataError(f"the saved split has no {split} images", "rows of train and of val", "restore split.csv")
    how = f"{table.kind} {os.fspath(root)}: the saved split, {len(sources['train'])} training and {len(sources['val'])} validation images"
    return Data(sources["train"], sources["val"], sources.get("test"), classes, how, [*table.notes, *notes])


_ONE_CLASS = "add images of another class"


def _present(table: Table, rows: Indices) -> tuple[str, ...]:
    """The classes that these rows have, in the table's order."""
    return tuple(table.classes[i] for i in np.unique(table.labels[rows]))


def _validation(table: Table) -> Indices:
    """The rows to evaluate on: those marked so, or all where there are none."""
    rows = table.rows("val")
    return rows if len(rows) else np.arange(len(table.names))


def _elsewhere(val: StrPath) -> Table:
    """The table at `val`, its names led by the path, so that they differ from those of the training data."""
    table = read_table(val)
    top = Path(val).as_posix()
    table.names = [f"{top}/{name}" for name in table.names]
    return table

"""Open the data at a path as training, validation and test images: one way for every kind of targets.

A kind of targets is a function that reads a path as a `Table`. Without one, it is one class per image: a folder, a CSV
file or tar shards.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from gossamer.data.csvfile import read_csv
from gossamer.data.folder import read_folder
from gossamer.data.left_out import left_out
from gossamer.data.shards import find_shards, read_shards
from gossamer.data.source import Data, LeftOut, Source, shown
from gossamer.data.spelling import alike
from gossamer.data.split import Row, prefixed, saved_sources, scored_rows, split_rows, validation
from gossamer.data.table import ALLOWED, StrPath, Table
from gossamer.data.toolclasses import read_tool_classes
from gossamer.errors import DataError
from gossamer.host.text import counted

__all__ = ["Data", "ReadTable", "Source", "apply_split", "open_data", "open_source", "read_table", "split_rows"]


LABELS = "labels.csv"


class ReadTable(Protocol):
    """How one kind of data is read."""

    def __call__(self, root: StrPath, *, classes: Sequence[str] = (), reference: Table | None = None) -> Table:
        """All images at `root`, not yet split.

        classes: class names to number the targets by; default those that are there. reference: the table of the
        training data, where `root` holds validation data beside them. Raises DataError.
        """


def read_table(
    root: StrPath, *, classes: Sequence[str] = (), reference: Table | None = None, every_class: bool = False
) -> Table:
    """All labelled images at `root`, whatever kind of data it is, not yet split. A `ReadTable`.

    classes: what the class numbers in shards stand for that have no classes.txt; default those of `reference`, where
    they are written down. Class names are numbered when the table is split. every_class: classes without a training
    image are allowed in the other splits. Raises DataError.
    """
    if not classes and reference is not None and reference.fixed:
        classes = reference.classes
    table = _read(Path(root), tuple(classes))
    table.unseen = every_class
    return table


def _read(path: Path, classes: tuple[str, ...]) -> Table:
    if "\0" in os.fspath(path):
        raise DataError(f"data {os.fspath(path)!r}", ALLOWED, "check the path")
    try:
        shards = find_shards(path)
        if shards:
            return read_shards(*shards, path, classes)
        if path.is_dir():
            return read_tool_classes(path) or _read_folder(path)
        if path.suffix.lower() == ".csv":
            return read_csv(path)
        exists = path.exists()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", ALLOWED, "check the path") from error
    raise DataError(f"{path}: {'is another kind of file' if exists else 'does not exist'}", ALLOWED, "check the path")


def _read_folder(path: Path) -> Table:
    """A folder of class folders; where there are not two of them, the CSV file labels.csv in it. Raises DataError."""
    if not (path / LABELS).is_file():
        return read_folder(path)
    try:
        table = read_folder(path)
    except DataError:
        return read_csv(path / LABELS)
    return table if len(table.classes) > 1 else read_csv(path / LABELS)


def open_data(
    root: StrPath,
    *,
    val: StrPath = "",
    val_share: float = 0.2,
    seed: int = 0,
    every_class: bool = False,
    read: ReadTable | None = None,
) -> Data:
    """The data at `root`, with their own split, or else stratified with `seed`.

    val: validation data elsewhere (then those of `root` are not used). Where there are none at all,
    `val_share` of the training data is held out. every_class: classes without a training image are allowed in the
    other splits. read: how the kind of data is read; default one class per image. Raises DataError: nothing there, one
    class only, a class that no training image has, a damaged file.
    """
    read = read or partial(read_table, every_class=every_class)
    table = read(root)
    other = prefixed(read(val, reference=table), val) if os.fspath(val) else None
    classes = table.training_classes(root, other)
    split = validation(table, classes, root=root, other=other, val=val, fraction=val_share, seed=seed)
    missed = _left_out([(root, table), *([(val, other)] if other else [])])
    notes = [*(each.line() for each in missed), *table.notes, *(other.notes if other else []), *split.notes]
    notes += [*table.split_notes(classes, split.train, split.held), *_alike(root, classes)]
    train, tested = table.source(classes, split.train), table.rows("test")
    test = table.source(classes, tested) if len(tested) else None
    counts = f"{table.content(classes)}, {_pair(table, train, split.source)}"
    counts += f", {len(test)} for testing" if test else ""
    how = f"{table.kind} {os.fspath(root)}: {counts}{table.details()}; {split.how}"
    return Data(train, split.source, test, classes, how, notes, missed)


def _alike(root: StrPath, classes: Sequence[str]) -> list[str]:
    """A note on classes that a reader may take for one."""
    groups = [" and ".join(map(repr, group)) for group in alike(classes)]
    return (
        [f"{os.fspath(root)}: classes that are spelt alike are classes of their own: {shown(groups)}"] if groups else []
    )


def _left_out(places: Sequence[tuple[StrPath, Table]]) -> list[LeftOut]:
    """What the tables of these places leave out."""
    tables = [table for _, table in places]
    missed = [left_out(root, table, [each for each in tables if each is not table]) for root, table in places]
    return [each for each in missed if each is not None]


def open_source(
    root: StrPath, classes: Sequence[str], split: str = "", *, read: ReadTable | None = None, every_class: bool = False
) -> Source:
    """The images at `root` as one source with the class numbers of `classes`, to be evaluated.

    split: train, val or test; without one, data with splits of their own give their test images, or else their
    validation images. classes: () for those that are there. read, every_class: as in `open_data`. Raises DataError,
    also for a class that is not among `classes`.
    """
    read = read or partial(read_table, every_class=every_class)
    table = read(root, classes=classes)
    named = table.classes if table.unseen or not classes else classes
    source = table.source(named, scored_rows(table, root, split))
    source.left_out = _left_out([(root, table)])
    source.notes = [*(each.line() for each in source.left_out), *table.notes]
    return source


def apply_split(
    root: StrPath,
    rows: Iterable[Row],
    *,
    val: StrPath = "",
    classes: Sequence[str] = (),
    read: ReadTable | None = None,
) -> Data:
    """The data at `root` (and `val`) with a split that `split_rows` gave, whatever was added since.

    classes: the class names that the rows number; default those that `open_data` finds. read: as in `open_data`.
    Differences between the rows and what is there now are in the notes. Raises DataError where the images of a whole
    split are gone.
    """
    read = read or read_table
    table = read(root, classes=classes)
    tables = [table, *([prefixed(read(val, reference=table), val)] if os.fspath(val) else [])]
    classes = tuple(classes) or table.training_classes(root)
    sources, changes = saved_sources(tables, rows, classes)
    missed = _left_out(list(zip([root, val], tables, strict=False)))
    notes = [*(each.line() for each in missed), *(note for each in tables for note in each.notes), *changes]
    train, val_source = sources["train"], sources["val"]
    how = f"{table.kind} {os.fspath(root)}: the saved split, {_pair(table, train, val_source)}"
    return Data(train, val_source, sources.get("test"), classes, how, notes, missed)


def _pair(table: Table, train: Source, val: Source) -> str:
    """ "6 training and 2 validation images"."""
    validation = counted(len(val), f"validation {table.image}", f"validation {table.images}")
    return f"{len(train)} training and {validation}"

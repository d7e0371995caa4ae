"""The labels of one head, from the cells of a table: classes, labels, numbers, boxes or masks, or nothing."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gossamer.data.boxes.records import Draft, ImageRecord, image_size
from gossamer.data.boxes.table import table_of
from gossamer.data.boxes.voc import annotation_of, objects_of
from gossamer.data.boxes.yolo_labels import check_known, read_labels
from gossamer.data.csvfile import with_slashes
from gossamer.data.folder import printable_path
from gossamer.data.heads.spec import HeadSpec
from gossamer.data.masks.classes import label_map_of, numbered
from gossamer.data.masks.open import ANY_VALUE, Masks, count_classes
from gossamer.data.skipped import note_skipped
from gossamer.data.source import Files, Indices, class_order, shown
from gossamer.data.spelling import Spellings
from gossamer.errors import DataError, ImageError
from gossamer.host.text import counted
from gossamer.predictions.head import is_plain_text

NONE = "|"
"""The cell of an image that is known to have none of the labels."""


@dataclass
class Grid:
    """The lines of a table, one per image. path: of the table. numbers: of the lines. images: paths, relative to `root`
    or absolute. splits: "train", "val", "test" or "" a line. cells: of each column, "" where an image has none."""

    path: Path
    root: Path
    numbers: list[int]
    images: list[str]
    splits: list[str]
    cells: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)
    spellings: Spellings = field(default_factory=Spellings)

    def where(self, row: int, column: str) -> str:
        """How a message names a cell."""
        return f"{self.path}: line {self.numbers[row]}: {column}"

    def known(self, column: str) -> list[int]:
        """The rows that have something in this column."""
        return [row for row, cell in enumerate(self.cells[column]) if cell]


class LabelReader(Protocol):
    """The labels of the rows that have some."""

    def read(self, row: int) -> Any: ...
    def line(self, row: int) -> str: ...


class Listed:
    """Labels that are in memory; the cells already tell when one changes."""

    def __init__(self, values: Sequence[Any] | NDArray[np.float32]) -> None:
        self.values = values

    def read(self, row: int) -> Any:
        return self.values[row]

    def line(self, row: int) -> str:
        return ""


@dataclass
class LabelColumn:
    """The labels of one head. classes: names of classes, identities or quantities. at: (rows,) the row in `reader` of
    each row of the table, -1 where it has no label."""

    classes: tuple[str, ...]
    at: Indices
    reader: LabelReader

    def read(self, row: int) -> Any:
        """The label of a row, None where it has none. Raises OSError, ImageError."""
        return None if self.at[row] < 0 else self.reader.read(int(self.at[row]))

    def line(self, row: int) -> str:
        """What tells that the label of a row is another now, beside its cells."""
        return "" if self.at[row] < 0 else self.reader.line(int(self.at[row]))


def read_column(
    spec: HeadSpec, grid: Grid, classes: tuple[str, ...] = (), ignore_index: int | None = None
) -> LabelColumn:
    """The labels of a head.

    classes: the names to number by; default those of `spec`, or that the cells have, in order. ignore_index: value of
    masks that is ignored. Raises DataError.
    """
    names = classes or spec.classes
    if spec.kind in ("classify", "embed"):
        return _tree(spec, grid, names) if spec.hierarchy else _classes(spec, grid, names)
    if spec.kind == "multilabel":
        return _labels(spec, grid, names) if len(spec.columns) == 1 else _numbers(spec, grid, binary=True)
    if spec.kind == "regress":
        return _numbers(spec, grid, binary=False)
    return _boxes(spec, grid, names) if spec.kind == "detect" else _masks(spec, grid, names, ignore_index)


def _at(rows: Sequence[int], count: int) -> Indices:
    """(count,) the place of each row in `rows`, -1 for the others."""
    result = np.full(count, -1, np.int64)
    result[list(rows)] = np.arange(len(rows))
    return result


def _usable(grid: Grid, column: str, check: Callable[[int], None]) -> list[int]:
    """The rows whose cell in `column` passes `check`, which raises DataError where it cannot be used: those are noted and
    have no label. Raises DataError where they are many."""
    rows, failed = [], []
    known = grid.known(column)
    for row in known:
        try:
            check(row)
            rows.append(row)
        except DataError as error:
            failed.append(error)
    note_skipped(grid.path, failed, len(known), f"cells of {column}", grid.notes)
    return rows


def _check_name(name: str, where: str, allowed: dict[str, None]) -> None:
    """Raises DataError on a name that cannot be printed, or that is none of the head's classes where it has some.

    allowed: the classes in their order, as keys: there may be as many as there are rows.
    """
    if not is_plain_text(name):
        raise DataError(f"{where} {reprlib.repr(name)}", "printable names", "fix the cell")
    if allowed and name not in allowed:
        raise DataError(f"{where} {name[:80]!r} is no class of this head", shown(allowed), "fix the cell or the heads")


def _classes(spec: HeadSpec, grid: Grid, allowed: tuple[str, ...]) -> LabelColumn:
    """A class or an identity a row, by its number."""
    column, known = spec.columns[0], dict.fromkeys(allowed)
    rows = _usable(grid, column, lambda row: _check_name(grid.cells[column][row], grid.where(row, column), known))
    cells = [grid.cells[column][row] for row in rows]
    names = allowed or class_order(cells)
    if len(names) < 2:
        raise DataError(
            f"{grid.path}: {column} has one class, {shown(names) or 'or none'}", "two or more", "add images"
        )
    number = {name: i for i, name in enumerate(names)}
    return LabelColumn(names, _at(rows, len(grid.images)), Listed([number[cell] for cell in cells]))


def _tree(spec: HeadSpec, grid: Grid, allowed: tuple[str, ...]) -> LabelColumn:
    """A path of names per row, down to a leaf or to an inner class; the classes are the leaves."""
    column = spec.columns[0]
    leaves_of = [tuple(leaf.split("/")) for leaf in allowed]
    known = {leaf[:end] for leaf in leaves_of for end in range(1, len(leaf) + 1)}

    def path_of(row: int) -> tuple[str, ...]:
        return tuple(part.strip() for part in grid.cells[column][row].split("/"))

    def check(row: int) -> None:
        path, where = path_of(row), grid.where(row, column)
        if not all(map(is_plain_text, path)):
            raise DataError(f"{where} {reprlib.repr('/'.join(path))}", "names with / between", "fix the cell")
        if allowed and path not in known:
            raise DataError(f"{where} {'/'.join(path)[:80]!r} is no class of this head", shown(allowed), "fix the cell")

    rows = _usable(grid, column, check)
    paths = [path_of(row) for row in rows]
    every = {path[:end] for path in paths for end in range(1, len(path))}
    leaves = allowed or class_order("/".join(path) for path in paths if path not in every)
    if len(leaves) < 2:
        raise DataError(
            f"{grid.path}: {column} has one class, {shown(leaves) or 'or none'}", "two or more", "add images"
        )
    return LabelColumn(leaves, _at(rows, len(grid.images)), Listed(paths))


def _labels(spec: HeadSpec, grid: Grid, allowed: tuple[str, ...]) -> LabelColumn:
    """Any number of labels a row, with | between: (K,) float32 of 0 and 1."""
    column, known = spec.columns[0], dict.fromkeys(allowed)

    def labels_of(row: int) -> list[str]:
        return [part.strip() for part in grid.cells[column][row].split(NONE) if part.strip()]

    def check(row: int) -> None:
        for name in labels_of(row):
            _check_name(name, grid.where(row, column), known)

    rows = _usable(grid, column, check)
    cells = list(map(labels_of, rows))
    names = allowed or class_order(name for cell in cells for name in cell)
    if not names:
        raise DataError(f"{grid.path}: {column} has no labels", "labels with | between", "fill the column")
    values = np.array([[name in cell for name in names] for cell in cells], np.float32).reshape(-1, len(names))
    return LabelColumn(names, _at(rows, len(grid.images)), Listed(values))


def _numbers(spec: HeadSpec, grid: Grid, binary: bool) -> LabelColumn:
    """A number from each column: (columns,) float32, NaN for an empty cell; rows of which all are empty have none."""
    values = np.full((len(grid.images), len(spec.columns)), np.nan, np.float32)
    for index, column in enumerate(spec.columns):

        def check(row: int, column: str = column) -> None:
            value = _number(grid.cells[column][row])
            if not math.isfinite(value) or (binary and value not in (0, 1)):
                raise DataError(
                    f"{grid.where(row, column)} {reprlib.repr(grid.cells[column][row])}",
                    "0, 1 or nothing" if binary else "a number, with a decimal point, or nothing",
                    "fix the cell",
                )

        for row in _usable(grid, column, check):
            values[row, index] = _number(grid.cells[column][row])
    rows = np.flatnonzero(~np.isnan(values).all(axis=1)).tolist()
    return LabelColumn(spec.columns, _at(rows, len(grid.images)), Listed(values[rows]))


def _number(cell: str) -> float:
    try:
        value = np.float32(cell)
    except ValueError:
        return math.nan
    return float(value)


def _boxes(spec: HeadSpec, grid: Grid, allowed: tuple[str, ...]) -> LabelColumn:
    """Boxes from a PASCAL VOC .xml or a YOLO .txt a row; files that cannot be used are noted, and count as none."""
    column, known = spec.columns[0], dict.fromkeys(allowed)
    rows, records, failed = [], [], []
    for row in grid.known(column):
        try:
            record = _record(grid, row, column, allowed)
            for box in record.boxes:
                _check_name(box.name, grid.where(row, column), known)
            records.append(record)
            rows.append(row)
        except (DataError, ImageError) as error:
            failed.append(error)
    if failed and not records:
        raise DataError(f"{grid.path}: {column}: {failed[0].given}", failed[0].allowed, failed[0].do) from failed[0]
    if failed:
        grid.notes.append(
            f"{column}: {counted(len(failed), 'file')} cannot be used: {shown([e.given for e in failed], 3)}"
        )
    names = allowed or class_order(box.name for record in records for box in record.boxes)
    table = table_of(Draft("voc", grid.path, names, bool(allowed), records))
    grid.notes.extend(f"{column}: {note}" for note in table.notes)
    return LabelColumn(names, _at(rows, len(grid.images)), table.targets)


def _record(grid: Grid, row: int, column: str, names: tuple[str, ...]) -> ImageRecord:
    """Raises DataError, ImageError."""
    path, image = (
        grid.root / with_slashes(grid.root, grid.cells[column][row], grid.spellings),
        grid.root / grid.images[row],
    )
    if path.suffix.lower() == ".xml":
        boxes, declared_size = objects_of(annotation_of(path), printable_path(str(path)))
        return ImageRecord(grid.images[row], path.name, "", declared_size or image_size(image), boxes)
    if path.suffix.lower() != ".txt":
        raise DataError(f"{grid.where(row, column)} {path.name!r}", "a PASCAL VOC .xml or a YOLO .txt", "fix the cell")
    if not names:
        raise DataError(
            f"{grid.where(row, column)} {path.name!r}: YOLO numbers its classes",
            "their names",
            "add classes: [...] to the head",
        )
    size = image_size(image)
    record = ImageRecord(grid.images[row], path.name, "", size, read_labels(path, size, names))
    check_known(record, names)
    return record


def _masks(spec: HeadSpec, grid: Grid, allowed: tuple[str, ...], ignore_index: int | None) -> LabelColumn:
    """A mask of class numbers a row, read on demand."""
    column = spec.columns[0]
    rows = grid.known(column)
    store = Files(grid.root, [grid.images[row] for row in rows])
    masks = Masks(
        grid.root, [with_slashes(grid.root, grid.cells[column][row], grid.spellings) for row in rows], store, ANY_VALUE
    )
    if not rows:
        raise DataError(f"{grid.path}: {column} names no mask", "paths of index PNGs", "fill the column")
    if allowed:
        entries = numbered(len(allowed), ignore_index, allowed)
    else:
        entries = numbered(count_classes(masks, list(range(len(rows))), ignore_index), ignore_index)
    masks.label_map = label_map_of(entries, ignore_index)
    return LabelColumn(masks.label_map.classes, _at(rows, len(grid.images)), masks)


Strata = NDArray[np.int64]


def class_numbers(column: LabelColumn) -> Strata:
    """(rows,) the class of each row, -1 where it has none; of a column of classes or identities."""
    return np.array([-1 if number is None else number for number in map(column.read, range(len(column.at)))], np.int64)

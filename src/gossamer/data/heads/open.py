"""Images with the labels of several heads: a CSV file with a column each, opened as training, validation and test images.

`path` and, where there is one, `split` are columns of their own. An empty cell is a label that this image lacks.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.data.csvfile import (
    check_column,
    check_width,
    filled_splits,
    name_split,
    note_missing,
    read_lines,
    with_slashes,
)
from gossamer.data.folder import SPLIT_NAMES, printable_path
from gossamer.data.heads.columns import Grid, LabelColumn, class_numbers, read_column
from gossamer.data.heads.spec import HeadSpec
from gossamer.data.skipped import note_skipped
from gossamer.data.source import Files, Indices, shown
from gossamer.data.spelling import Spellings
from gossamer.data.table import StrPath, Table, TargetTable
from gossamer.data.toolclasses import ROBOFLOW, roboflow_lines, roboflow_tables
from gossamer.errors import DataError
from gossamer.host.text import counted
from gossamer.predictions.head import is_plain_text

FILE = "labels.csv"
_ALLOWED = f"a CSV file, or a folder with {FILE}: a header with path and a column for each head, a line per image"


class HeadTargets:
    """What is known of each row: the label of each head by its name, None where it lacks it; of a nameless head the
    label itself. cells: of each row, all that the table says."""

    def __init__(self, columns: dict[str, LabelColumn], cells: list[str]) -> None:
        self.columns, self.cells = columns, cells

    def read(self, row: int) -> Any:
        """The target of a row. Raises OSError, ImageError."""
        if "" in self.columns:
            return self.columns[""].read(row)
        return {name: column.read(row) for name, column in self.columns.items()}

    def line(self, row: int) -> str:
        """The cells, and what they point to."""
        return "\0".join([self.cells[row], *(column.line(row) for column in self.columns.values())])


@dataclass(kw_only=True)
class HeadTable(TargetTable):
    """Images with the labels of several heads. specs: the heads."""

    targets: HeadTargets
    specs: Sequence[HeadSpec]

    def strata(self) -> Indices:
        """(rows,) the class by which images are held out: that of the first head that has one per image, or 0."""
        for spec in self.specs:
            if spec.kind in ("classify", "embed") and not spec.hierarchy:
                return class_numbers(self.targets.columns[spec.name])
        return np.zeros(len(self.names), np.int64)

    def content(self, classes: Sequence[str]) -> str:
        return counted(len(self.specs), "head")

    def split_notes(self, classes: Sequence[str], train: Indices, held: Indices) -> list[str]:
        """Notes on classes without a training image. Raises DataError where a head has no training image at all."""
        notes = []
        for spec in self.specs:
            column = self.targets.columns[spec.name]
            if not len(train) or not (column.at[train] >= 0).any():
                raise DataError(
                    f"{self.kind}: {shown(spec.columns)}: no training image has a label", _ALLOWED, "add some"
                )
            if spec.kind == "classify" and not spec.hierarchy:
                absent = set(range(len(column.classes))) - set(class_numbers(column)[train].tolist())
                if absent:
                    names = shown(column.classes[i] for i in sorted(absent))
                    have = counted(len(absent), "class has", "classes have")
                    notes.append(f"{spec.columns[0]}: {have} no training image: {names}")
        return notes


def read_heads(
    root: StrPath,
    specs: Sequence[HeadSpec],
    *,
    classes: Sequence[str] = (),
    reference: Table | None = None,
    ignore_index: int | None = None,
) -> HeadTable:
    """All images that the table at `root` lists, not yet split; its targets are `HeadTargets`. With `specs`, a
    `ReadTable`.

    classes: of all heads, as `merge_classes` gives them, to number by; default those of `reference`, or those that are
    there. Raises DataError.
    """
    classes = classes or (reference.classes if reference else ())
    grid = read_grid(root, [column for spec in specs for column in spec.columns])
    classes_of = split_classes(classes, specs)
    columns = {spec.name: read_column(spec, grid, classes_of.get(spec.name, ()), ignore_index) for spec in specs}
    for spec in specs:
        if not (columns[spec.name].at >= 0).any():
            raise DataError(f"{grid.path}: {shown(spec.columns)}: no image has a label", _ALLOWED, "fill the column")
    names = merge_classes({name: column.classes for name, column in columns.items()})
    cells = ["\0".join(row) for row in zip(*grid.cells.values())]
    return HeadTable(
        "CSV file",
        names,
        [printable_path(name) for name in grid.images],
        np.zeros(len(grid.images), np.int64),
        grid.splits,
        Files(grid.root, grid.images),
        fixed=True,
        notes=grid.notes,
        targets=HeadTargets(columns, cells),
        specs=specs,
    )


def columns_of(root: StrPath) -> tuple[str, ...]:
    """The columns of the table at `root`, but for path and split. Raises DataError."""
    _, lines = _lines(root, [])
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    return tuple(name for name in header if name.lower() not in ("path", "split"))


def named_columns(root: StrPath) -> tuple[str, ...]:
    """As `columns_of`, where each is something to learn. Raises DataError where one has no printable name, as an index that
    pandas wrote, or what commas at the ends of the lines make."""
    columns = columns_of(root)
    for name in columns:
        if not is_plain_text(name):
            given = f"the name {reprlib.repr(name)}" if name else "no name"
            raise DataError(f"{root}: a column has {given}", "a name for each column", "name it, or remove the column")
    return columns


def merge_classes(classes: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The classes of all heads as one list of "head/class"; those of a nameless head as they are."""
    return tuple(f"{head}/{name}" if head else name for head, names in classes.items() for name in names)


def split_classes(classes: Sequence[str], specs: Sequence[HeadSpec]) -> dict[str, tuple[str, ...]]:
    """The classes of each head: the inverse of `merge_classes`."""
    if len(specs) == 1 and not specs[0].name:
        return {"": tuple(classes)}
    parts = [name.partition("/") for name in classes]
    return {spec.name: tuple(name for head, _, name in parts if head == spec.name) for spec in specs}


def read_grid(root: StrPath, columns: Sequence[str]) -> Grid:
    """The lines of the table at `root`, with these columns. Lines given twice count once; those that cannot be used are noted
    and skipped. Raises DataError."""
    failed: list[DataError] = []
    path, lines = _lines(root, failed)
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    plain = [name.lower() if name.lower() in ("path", "split") else name for name in header]
    for wanted in ("path", *columns):
        check_column(path, plain, wanted, _ALLOWED, "fix the header or the heads")
    notes: list[str] = []
    name_split(path, plain, lines[1:], ("path", *columns), notes)
    lines_of: dict[str, list[tuple[int, list[str]]]] = {}
    spellings = Spellings()
    for number, cells in lines[1:]:
        try:
            name, labels = _entry(path, number, cells, plain, columns, spellings)
            lines_of.setdefault(name, []).append((number, labels))
        except DataError as error:  # a quotation mark that is not closed takes lines with it
            failed += [error] * (1 + sum(cell.count("\n") for cell in cells))
    count = len(failed) + sum(map(len, lines_of.values()))
    kept: dict[str, tuple[int, list[str]]] = {}
    for name, entries in lines_of.items():
        other = next((at for at, labels in entries if labels != entries[0][1]), None)
        if other is None:
            kept[name] = entries[0]
            continue
        contradiction = DataError(
            f"{path}: line {other}: {printable_path(name)} is in line {entries[0][0]} with other labels",
            "a line per image",
            "remove one",
        )
        failed += [contradiction] * len(entries)  # none is known to be right
    note_skipped(path, failed, count, "lines", notes)
    if not kept:
        raise DataError(f"{path}: lists no images", _ALLOWED, "add lines below the header")
    return _grid(path, columns, kept, notes)


def _entry(
    path: Path, number: int, cells: list[str], header: list[str], columns: Sequence[str], spellings: Spellings
) -> tuple[str, list[str]]:
    """(path of the image, its split and the cells of `columns`) of a line. Raises DataError."""
    check_width(path, number, cells, header, _ALLOWED)
    row = dict(zip(header, (cell.strip() for cell in cells)))
    name, split = row["path"], row.get("split", "").lower()
    if not name or "\0" in name or (split and split not in SPLIT_NAMES):
        what = f"split {split[:40]!r}" if name else "no path"
        raise DataError(f"{path}: line {number}: {what}", "a path, and train, val, test or nothing", "fix the line")
    return os.path.normpath(with_slashes(path.parent, name, spellings)), [
        SPLIT_NAMES.get(split, ""),
        *(row[c] for c in columns),
    ]


def _grid(path: Path, columns: Sequence[str], lines_of: dict[str, tuple[int, list[str]]], notes: list[str]) -> Grid:
    """Raises DataError where none of the images exists."""
    images = sorted(lines_of)
    rows = [lines_of[name][1] for name in images]
    note_missing(path, Files(path.parent, images), notes)
    splits = filled_splits(path, [row[0] for row in rows], notes)
    cells = {column: [row[i] for row in rows] for i, column in enumerate(columns, 1)}
    return Grid(path, path.parent, [lines_of[name][0] for name in images], images, splits, cells, notes)


def _lines(root: StrPath, failed: list[DataError]) -> tuple[Path, list[tuple[int, list[str]]]]:
    """The path of the table at `root`, and its lines; Roboflow's tables, one per split, are one. failed: as of `read_lines`.
    Raises DataError."""
    path = Path(root)
    if "\0" not in os.fspath(path) and path.is_dir() and not (path / FILE).exists() and roboflow_tables(path):
        return path / ROBOFLOW, roboflow_lines(path, failed)
    path = _file(root)
    return path, read_lines(path, failed)


def _file(root: StrPath) -> Path:
    """The table at `root`. Raises DataError."""
    path = Path(root)
    if "\0" in os.fspath(path):
        raise DataError(f"data {os.fspath(path)!r}", _ALLOWED, "check the path")
    if path.is_dir():
        path = path / FILE
    if not path.is_file():
        raise DataError(f"{path}: {'is no file' if path.exists() else 'does not exist'}", _ALLOWED, "check the path")
    return path

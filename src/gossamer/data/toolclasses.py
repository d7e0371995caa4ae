"""One class per image, as tools write it in a file beside the images.

labels.json + data/              FiftyOne: {"classes": [...], "labels": {"a": 0}}
export.json + images             Label Studio: a list of tasks with choices
train/_classes.csv + train/*.jpg Roboflow: filename, and a column of 0 and 1 per class
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from gossamer.data.boxes.fiftyone import FILE
from gossamer.data.boxes.finder import Finder
from gossamer.data.boxes.jsonfile import read_json
from gossamer.data.boxes.labelstudio import label_studio_file, label_tasks
from gossamer.data.boxes.records import class_name, image_files, split_of_path
from gossamer.data.csvfile import read_lines
from gossamer.data.folder import SPLIT_NAMES, folders, printable_path
from gossamer.data.skipped import note_skipped
from gossamer.data.source import Files, class_order, shown
from gossamer.data.table import Table
from gossamer.errors import DataError
from gossamer.host.encoding import peeked
from gossamer.host.storage import open_regular
from gossamer.host.text import counted

ROBOFLOW = "_classes.csv"
_LABELS = re.compile(rb'"labels"\s*:\s*\{')
_PEEK = 1 << 16
_ONE = "one class an image"

ClassRows = list[tuple[str, str, str]]
"""(path below the root, class, split) of each image."""


def read_tool_classes(root: Path) -> Table | None:
    """The images of a folder with a file of their classes, None where it has none. Raises DataError."""
    for kind, find, read in KINDS:
        file = find(root)
        if file is not None:
            notes: list[str] = []
            return _table(root, kind, read(root, file, notes), notes)
    return None


def _table(root: Path, kind: str, labels: ClassRows, notes: list[str]) -> Table:
    if not labels:
        raise DataError(f"{root}: none of the images of its {kind} is there", "its images beside it", "restore them")
    labels = sorted(set(labels))
    paths = [path for path, _, _ in labels]
    twice = next((a for a, b in pairwise(paths) if a == b), None)
    if twice is not None:
        raise DataError(f"{root}: {printable_path(twice)} has two classes", _ONE, "use --task multilabel, or fix it")
    classes = class_order(label for _, label, _ in labels)
    number = {name: i for i, name in enumerate(classes)}
    splits = [split for _, _, split in labels]
    if "" in splits and any(splits):
        notes.append(
            f"{root}: {counted(splits.count(''), 'image in no split counts', 'images in no split count')} as train"
        )
        splits = [split or "train" for split in splits]
    targets = np.array([number[label] for _, label, _ in labels], np.int64)
    names = [printable_path(path) for path in paths]
    return Table(kind, classes, names, targets, splits, Files(root, paths), notes=notes)


def _fiftyone(root: Path) -> Path | None:
    path = root / FILE
    try:
        with open_regular(path) as file:
            start = peeked(file.read(_PEEK))
    except OSError:
        return None
    return path if _LABELS.search(start) and b'"bounding_box"' not in start else None


def _read_fiftyone(root: Path, file: Path, notes: list[str]) -> ClassRows:
    value, where = read_json(file), printable_path(str(file))
    listed, labels = value.get("classes"), value.get("labels")
    names = [class_name(name, where) for name in listed] if isinstance(listed, list) else []
    if not isinstance(labels, dict):
        raise DataError(f"{where}: has no labels", "classes, and one class per image", "fix the file")
    by_stem: dict[str, str] = {}
    for path in image_files(root, notes):
        stem = Path(path).with_suffix("").as_posix()
        for key in (stem, stem.removeprefix("data/"), path, path.removeprefix("data/"), Path(path).stem):
            by_stem.setdefault(key, path)
    result: ClassRows = []
    missing, bare = [], []
    failed: list[DataError] = []
    for key, label in labels.items():
        try:
            name = _fiftyone_class(label, names, f"{where}: {printable_path(key)!r}")
        except DataError as error:
            failed.append(error)
            continue
        if not name:
            bare.append(key)
        elif key not in by_stem:
            missing.append(key)
        else:
            path = by_stem[key]
            result.append((path, name, split_of_path(Path(path).parent)))
    note_skipped(where, failed, len(labels), "labels", notes)
    _note(notes, where, missing, "image is not there, and skipped", "images are not there, and skipped")
    _note(notes, where, bare, "image has no class, and is left out", "images have no class, and are left out")
    return result


def _fiftyone_class(label: object, names: Sequence[str], where: str) -> str:
    """The name of a class that a label gives by its name or number, "" where it is null. Raises DataError."""
    label = label.get("label") if isinstance(label, dict) else label
    if label is None:
        return ""
    if type(label) is int:
        if not 0 <= label < len(names):
            raise DataError(f"{where}: class {str(label)[:40]}", f"0 to {len(names) - 1}", "fix the file")
        return names[label]
    if not isinstance(label, str):
        raise DataError(f"{where}: its label is no class", _ONE, "fix the file")
    return class_name(label, where)


def _note(notes: list[str], where: str, names: Sequence[str], one: str, several: str) -> None:
    if names:
        notes.append(f"{where}: {counted(len(names), one, several)}: {shown(map(printable_path, names))}")


def _label_studio(root: Path) -> Path | None:
    path = label_studio_file(root)
    if path is None:
        return None
    with open_regular(path) as file:
        start = peeked(file.read(_PEEK))
    return path if b'"choice' in start and b'labels"' not in start else None


def _read_label_studio(root: Path, file: Path, notes: list[str]) -> ClassRows:
    where, finder = printable_path(str(file)), Finder(root)
    result: ClassRows = []
    missing, bare = [], []
    failed: list[DataError] = []
    tasks = label_tasks(file, notes)
    for task in tasks:
        chosen: list[object] = []
        for region in task.regions:
            value = region.get("value")
            choices = value.get("choices") if isinstance(value, dict) else None
            chosen += choices if isinstance(choices, list) else [] if choices is None else [choices]
        if not chosen:  # JSON-MIN has the choice itself at the top of the task
            plain = task.task.get("choice") or task.task.get("label")
            chosen = [plain] if isinstance(plain, str) else []
        place = finder.find(task.image, [root / "images"])
        if len(chosen) > 1:
            raise DataError(f"{where}: a task has {len(chosen)} choices", _ONE, "use --task multilabel with a CSV file")
        if not chosen:
            bare.append(task.image)
        elif place is None:
            missing.append(task.image)
        else:
            path = place.relative_to(root)
            try:
                name = class_name(chosen[0], f"{where}: {printable_path(task.image)!r}")
                result.append((path.as_posix(), name, split_of_path(path.parent)))
            except DataError as error:
                failed.append(error)
    note_skipped(where, failed, len(tasks), "labels", notes)
    _note(notes, where, missing, "image is not there, and skipped", "images are not there, and skipped")
    _note(notes, where, bare, "task has no choice, and is left out", "tasks have no choice, and are left out")
    return result


def roboflow_tables(root: Path) -> list[tuple[str, Path]]:
    """(split, file) of the tables of classes that Roboflow writes, at the top of a folder or in those of its splits."""
    if not root.is_dir():
        return []
    tops = [("", root), *((SPLIT_NAMES.get(folder.name.lower(), ""), folder) for folder in folders(root))]
    return [(split, top / ROBOFLOW) for split, top in tops if (split or top == root) and _is_table(top / ROBOFLOW)]


def _is_table(path: Path) -> bool:
    """Whether a file begins with the header of a table of images: a file of the same name lists the classes of masks."""
    try:
        with open_regular(path) as file:
            return peeked(file.read(_PEEK)).lstrip().lower().startswith(b"filename")
    except OSError:
        return False


def roboflow_lines(root: Path, failed: list[DataError]) -> list[tuple[int, list[str]]]:
    """The tables as one, with the header path, split and a column per class, and `failed`, as of `read_lines`. Raises DataError."""
    result: list[tuple[int, list[str]]] = []
    for split, file in roboflow_tables(root):
        lines = [(number, [cell.strip() for cell in cells]) for number, cells in read_lines(file, failed)]
        if not lines or len(lines[0][1]) < 2:
            raise DataError(f"{file}: has no header", "filename, and a column per class", "export it again")
        header = ["path", "split", *lines[0][1][1:]]
        if not result:
            result.append((1, header))
        elif result[0][1] != header:
            raise DataError(f"{file}: has other columns than {roboflow_tables(root)[0][1]}", "the same", "fix one")
        for number, cells in lines[1:]:
            if len(cells) != len(header) - 1:
                error = DataError(
                    f"{file}: line {number} has {counted(len(cells), 'cell')}, the header {len(header) - 1}",
                    "a cell a column",
                    "fix the line",
                )
                failed += [error] * (1 + sum(cell.count("\n") for cell in cells))
                continue
            place = os.path.relpath(file.parent / cells[0], root)
            result.append((number, [place, split, *cells[1:]]))
    if not result:
        raise DataError(f"{root}: its {ROBOFLOW} is gone", "filename, and a column per class", "export it again")
    return result


def _roboflow(root: Path) -> Path | None:
    return next((file for _, file in roboflow_tables(root)), None)


def _read_roboflow(root: Path, file: Path, notes: list[str]) -> ClassRows:
    failed: list[DataError] = []
    lines = roboflow_lines(root, failed)
    count = len(failed) + len(lines) - 1
    names = [class_name(name, str(file)) for name in lines[0][1][2:]]
    result: ClassRows = []
    missing, bare, several = [], [], []
    for number, (path, split, *cells) in lines[1:]:
        if any(cell not in ("0", "1") for cell in cells):
            given = f"{root}: line {number} of a {ROBOFLOW}: a cell is not 0 or 1"
            failed.append(DataError(given, "0 or 1", "fix the line"))
            continue
        marked = [name for name, cell in zip(names, cells, strict=True) if cell == "1"]
        if not (root / path).is_file():
            missing.append(path)
        elif not marked:
            bare.append(path)
        elif len(marked) > 1:
            several.append(path)
        else:
            result.append((path, marked[0], split))
    note_skipped(root, failed, count, "lines", notes)
    if several:
        raise DataError(
            f"{root}: {counted(len(several), 'image has', 'images have')} several classes: {shown(map(printable_path, several), 3)}",
            _ONE,
            "add --task multilabel",
        )
    gone = "not there, and skipped"
    _note(notes, str(root), missing, f"image of {ROBOFLOW} is {gone}", f"images of {ROBOFLOW} are {gone}")
    of = f"no class in {ROBOFLOW}, and"
    _note(notes, str(root), bare, f"image has {of} is left out", f"images have {of} are left out")
    return result


Find = Callable[[Path], Path | None]
ReadClasses = Callable[[Path, Path, list[str]], ClassRows]
KINDS: tuple[tuple[str, Find, ReadClasses], ...] = (
    ("FiftyOne classes", _fiftyone, _read_fiftyone),
    ("Label Studio choices", _label_studio, _read_label_studio),
    ("Roboflow classes", _roboflow, _read_roboflow),
)

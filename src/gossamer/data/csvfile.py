"""A CSV file of path,label or path,label,split, with a header line."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from gossamer.data.folder import SPLIT_NAMES, printable_path
from gossamer.data.skipped import note_skipped
from gossamer.data.source import Files, class_order, shown
from gossamer.data.spelling import Spellings
from gossamer.data.table import Table
from gossamer.errors import DataError
from gossamer.host.encoding import decode_text, not_text
from gossamer.host.storage import read_unchanged
from gossamer.host.text import counted, none_of
from gossamer.images.decode import IMAGE_SUFFIXES, is_text

LONGEST_PATH = 4096
_ALLOWED = "UTF-8 text with the header path,label or path,label,split and a line per image"
# what other tools call the columns
_PATHS = (
    "filename",
    "file_name",
    "file",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_name",
    "img",
    "image_id",
    "filepaths",
    "filenames",
)
_LABELS = ("class", "class_name", "category", "target", "labels", "breed", "species")
_BOXES = (("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"), ("x1", "y1", "x2", "y2"))
_SEPARATORS = (",", ";", "\t", "|")  # as spreadsheets write them, by country
_MOST_BROKEN = 1000  # lines with a quotation mark that is not closed: each is looked for up to csv's limit of a cell
_IS_VALID = ("is_valid", "is_val", "is_validation", "valid", "val")  # columns of true and false, as fastai has them
_TRUTH = {"true": "val", "1": "val", "1.0": "val", "yes": "val"}
_TRUTH |= {"false": "train", "0": "train", "0.0": "train", "no": "train"}
_SCHEME = re.compile(r"file://|[A-Za-z][A-Za-z0-9+.-]+://[^/]*")
_SEPARATOR_LINE = re.compile(r"sep=([,;\t|]?)", re.IGNORECASE)  # of Excel, above the header


def read_csv(path: Path) -> Table:
    """The images that a CSV file lists; paths are relative to its folder, or absolute.

    Labels are class names; where all are whole numbers, classes are in their order, else in alphabetical order. A
    line given twice counts once, and is noted; so is a line that cannot be used, which is skipped. Missing files are noted
    and stay, to be listed as unreadable. Raises DataError, also where more than a third of the lines cannot be used.
    """
    notes: list[str] = []
    rows, repeated = _rows(path, notes)
    names = [name for name, _, _ in rows]
    classes = class_order(label for _, label, _ in rows)
    number = {name: i for i, name in enumerate(classes)}
    store = Files(path.parent, names)
    note_missing(path, store, notes)
    if repeated:
        notes.append(f"{path}: {counted(repeated, 'repeated line is', 'repeated lines are')} counted once")
    labels = np.array([number[label] for _, label, _ in rows], dtype=np.int64)
    splits = filled_splits(path, [split for _, _, split in rows], notes)
    return Table("CSV file", classes, [printable_path(name) for name in names], labels, splits, store, notes=notes)


def note_missing(path: Path, store: Files, notes: list[str]) -> None:
    """A note on the files that a table lists and that do not exist. Raises DataError where none exists."""
    names = store.paths
    missing = [names[i] for i, (size, _) in enumerate(store.stats(np.arange(len(names)))) if size < 0]
    if len(missing) == len(names):
        raise DataError(
            f"{path}: {none_of(len(names), 'file')} exists, such as {printable_path(missing[0])}",
            f"paths relative to {path.parent}/, or absolute ones",
            "check the paths, or move the CSV file to its images",
        )
    if missing:
        notes.append(f"{path}: {len(missing)} of {len(names)} files are missing: {shown(map(printable_path, missing))}")


def check_column(path: Path, header: list[str], name: str, allowed: str, do: str) -> None:
    """Raises DataError unless the header has the column once."""
    if header.count(name) != 1:
        how = "no" if name not in header else "more than one"
        raise DataError(f"{path}: {how} column {name!r} in the header {shown(header, 12) or '(empty)'}", allowed, do)


def check_width(path: Path, number: int, cells: list[str], header: list[str], allowed: str) -> None:
    """Raises DataError unless line `number` has a cell for each column of the header."""
    if len(cells) != len(header):
        raise DataError(
            f"{path}: line {number} has {counted(len(cells), 'cell')}, the header {len(header)}",
            allowed,
            "fix the line",
        )


def name_split(
    path: Path, header: list[str], lines: Sequence[tuple[int, list[str]]], taken: Collection[str], notes: list[str]
) -> None:
    """Where no column is called split, makes the one of the header `split` that says train, val or test of the lines by
    another name (set, subset, phase), or is_valid, whose cells it replaces by such words; with a note.

    taken: columns that are read as something else. Raises DataError where two could be it: a guess would train on what the
    other one keeps apart.
    """
    found: list[tuple[int, dict[str, str]]] = []
    for at, name in enumerate(header if "split" not in header else ()):
        words = {cells[at].strip().lower() for _, cells in lines if at < len(cells)} - {""}
        meaning = _TRUTH if name.lower() in _IS_VALID and words <= _TRUTH.keys() else SPLIT_NAMES
        if name not in taken and words <= meaning.keys() and len({meaning[word] for word in words}) > 1:
            found.append((at, meaning))
    if len(found) > 1:
        names = shown(header[at] for at, _ in found)
        raise DataError(
            f"{path}: the columns {names} both say what trains", "one split", "rename the right one to split"
        )
    for at, meaning in found:
        notes.append(f"{path}: the column {printable_path(header[at])} is read as split")
        header[at] = "split"
        for _, cells in lines:
            if at < len(cells):
                cells[at] = meaning.get(cells[at].strip().lower(), "")


def filled_splits(path: Path, splits: list[str], notes: list[str]) -> list[str]:
    """The splits of a table's lines; where only some are named, the others are train, with a note."""
    if "" not in splits or not any(splits):
        return splits
    count = counted(splits.count(""), "line without a split counts", "lines without a split count")
    notes.append(f"{path}: {count} as train")
    return [split or "train" for split in splits]


def _rows(path: Path, notes: list[str]) -> tuple[list[tuple[str, str, str]], int]:
    """(path, label, split) of each image, in the order of the paths, and how many lines were repetitions. notes: gets the
    columns that are called otherwise, and the lines that are skipped."""
    failed: list[DataError] = []
    lines = read_lines(path, failed)
    header = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    for wanted, others in (("path", _PATHS), ("label", _LABELS)):
        named = [name for name in others if name in header] if wanted not in header else []
        if not named and wanted == "path" and any(Path(cell).suffix.lower() in IMAGE_SUFFIXES for cell in header):
            raise DataError(f"{path}: begins without a header", _ALLOWED, "add the line path,label above the others")
        if len(named) == 1:
            header[header.index(named[0])] = wanted
            notes.append(f"{path}: the column {named[0]} is read as {wanted}")
        check_column(path, header, wanted, _ALLOWED, "fix the header")
    if boxes := next((names for names in _BOXES if set(names) <= set(header)), None):
        raise DataError(
            f"{path}: the columns {', '.join(boxes)} are of boxes, not of a class an image",
            "a table of classes, or boxes as PASCAL VOC, COCO or YOLO with --task detect",
            "convert the boxes, or take these columns out",
        )
    name_split(path, header, lines[1:], ("path", "label"), notes)
    seen: dict[str, list[tuple[int, tuple[str, str]]]] = {}
    spellings = Spellings()
    for number, cells in lines[1:]:
        try:
            name, entry = _entry(path, number, cells, header, spellings)
            seen.setdefault(name, []).append((number, entry))
        except DataError as error:  # a quotation mark that is not closed takes lines with it
            failed += [error] * (1 + sum(cell.count("\n") for cell in cells))
    count = len(failed) + sum(map(len, seen.values()))
    images: list[tuple[str, str, str]] = []
    for name, entries in sorted(seen.items()):
        first = entries[0][1]
        number, other = next((each for each in entries if each[1] != first), (0, first))
        if other == first:
            images.append((name, *first))
            continue
        contradiction = DataError(
            f"{path}: line {number}: {printable_path(name)} is {_said(other)}, and {_said(first)} above",
            "one label and one split an image",
            "remove one of the lines",
        )
        failed += [contradiction] * len(entries)  # none is known to be right
    note_skipped(path, failed, count, "lines", notes)
    if not images:
        raise DataError(f"{path}: lists no images", _ALLOWED, "add lines below the header")
    return images, count - len(failed) - len(images)


def _entry(
    path: Path, number: int, cells: list[str], header: list[str], spellings: Spellings
) -> tuple[str, tuple[str, str]]:
    """(path, (label, split)) of a line. Raises DataError."""
    check_width(path, number, cells, header, _ALLOWED)
    name, label = cells[header.index("path")].strip(), cells[header.index("label")].strip()
    word = cells[header.index("split")].strip().lower() if "split" in header else ""
    if not name or not label or "\0" in name:
        what = "label" if name and "\0" not in name else "path"
        raise DataError(f"{path}: line {number} has no {what}", _ALLOWED, "fix the line")
    if not is_text(label):
        raise DataError(f"{path}: line {number} has the label {label[:40]!r}", "printable text", "fix the line")
    if word and word not in SPLIT_NAMES:
        raise DataError(f"{path}: line {number}: split {word[:40]!r}", "train, val or test", "fix the line")
    name = os.path.normpath(with_slashes(path.parent, name, spellings))  # a/b.jpg and ./a/b.jpg are one image
    return name, (label, SPLIT_NAMES.get(word, ""))


def with_slashes(folder: Path, name: str, spellings: Spellings) -> str:
    """A path of a CSV file in `folder`, where there is no file of the name as it stands: with slashes where Windows wrote it
    (a\\b.jpg), and of an absolute path or an address of another machine its longest end, of two parts or more, that is there.
    A file that is spelt otherwise is taken where no other spelling is there, and a name without its ending means the image
    of that name."""
    if os.path.exists(folder / name) or len(name) > LONGEST_PATH:  # noqa: PTH110 (False, not an error, for long names)
        return name
    slashed = _SCHEME.sub("", name.replace("\\", "/"), count=1)
    parts = [part for part in PurePosixPath(slashed).parts if part not in ("/", "~") and part[1:2] != ":"]
    absolute = slashed.startswith(("/", "~/")) or slashed[1:2] == ":"
    ends = ["/".join(parts[start:]) for start in range(len(parts) - 1)] if absolute and ".." not in parts else []
    candidates = list(dict.fromkeys([slashed, *ends]))
    for each in candidates:
        if os.path.isfile(folder / each):  # noqa: PTH113
            return each
    for each in candidates:
        if (
            not each.startswith("/")
            and ".." not in parts
            and (spelt := spellings.find(folder, PurePosixPath(each).parts))
        ):
            return spelt.relative_to(folder).as_posix()
    endings = () if PurePosixPath(slashed).suffix.lower() in IMAGE_SUFFIXES else sorted(IMAGE_SUFFIXES)
    there = (each + ending for each in candidates for ending in endings if os.path.isfile(folder / (each + ending)))  # noqa: PTH113
    return next(there, name)


def separator_of(content: str) -> str:
    """What separates the cells of a CSV file: what its line sep= says, as Excel writes it, or else by its first line."""
    first, _, rest = content.lstrip("\r\n").partition("\n")
    if declared := _SEPARATOR_LINE.fullmatch(first.strip()):
        return declared[1] or next((mark for mark in _SEPARATORS if mark in rest.partition("\n")[0]), ",")
    return next((mark for mark in _SEPARATORS if mark in first), ",")


def _said(entry: tuple[str, str]) -> str:
    return f"{entry[0]!r} in {entry[1]}" if entry[1] else repr(entry[0])


def read_lines(path: Path, failed: list[DataError] | None = None) -> list[tuple[int, list[str]]]:
    """(line number, cells) of each line that is not blank; quotes, CRLF and a byte order mark are understood.

    failed: gets the errors of lines that are no CSV, such as a quotation mark that is not closed; the lines behind them are
    read. Without it, in the header, or where they are many, they are raised. Raises DataError.
    """
    try:
        content = decode_text(read_unchanged(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "a CSV file that can be read", "check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {not_text(error)}", _ALLOWED, "save it as UTF-8") from error
    text, separator = list(io.StringIO(content, newline="")), separator_of(content)
    lines: list[tuple[int, list[str]]] = []
    start = 0
    while start < len(text):
        reader = csv.reader((text[i] for i in range(start, len(text))), delimiter=separator, strict=True)
        begins = start  # the line that the next cells begin at
        try:
            for cells in reader:
                begins = start + reader.line_num
                if any(cell.strip() for cell in cells):
                    lines.append((begins, cells))
            break
        except csv.Error as error:
            wrong = DataError(f"{path}: line {begins + 1}: {error}", _ALLOWED, "fix the line")
            if failed is None or not lines or len(failed) >= _MOST_BROKEN:
                raise wrong from error
            failed.append(wrong)
            start = begins + 1
    return lines[1:] if lines and _SEPARATOR_LINE.fullmatch("".join(lines[0][1])) else lines

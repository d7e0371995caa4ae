"""An image folder: one folder per class, alone or under train/ and val/ (and test/)."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from gossamer.data.source import Files, shown
from gossamer.data.table import Table
from gossamer.errors import DataError
from gossamer.host.text import counted, truncated
from gossamer.images.hidden import DOUBTFUL_FOLDERS, is_hidden
from gossamer.images.preprocess import IMAGE_SUFFIXES, printable

# the names that a split's folder, file or CSV entry may have, in lower case
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_ALLOWED = "one folder per class with image files in it, or such folders under train/ and val/"


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of the splits of `root`, {} where it has no train/ (or val/) that holds folders itself.

    A class may be called "train" too (steam trains): its folder holds images, not folders. Raises DataError where
    two folders name one split.
    """
    by_split: dict[str, Path] = {}
    for folder in folders(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None or not any(folders(folder)):
            continue
        if split in by_split:
            raise DataError(
                f"{root}: both {by_split[split].name}/ and {folder.name}/", f"one {split} folder", "remove one"
            )
        by_split[split] = folder
    return by_split if "train" in by_split or "val" in by_split else {}


def read_folder(root: Path) -> Table:
    """The images of a folder. Hidden files and folders, thumbnails and recycle bins are passed over and the images in them
    noted; folders inside a class are walked.

    Classes are sorted by code point, as torchvision's ImageFolder does. Raises DataError.
    """
    parts = split_folders(root) or {"": root}
    prefix = "" if os.fspath(root) == "." else os.path.join(root, "")  # noqa: PTH118 (Path drops the last slash)
    notes: list[str] = []
    entries: list[tuple[str, str, str]] = []  # path, class, split
    names: set[str] = set()
    others: Counter[str] = Counter()
    skipped: list[str] = []
    doubtful: list[str] = []
    if "" not in parts:
        _scan(root, skipped)
    for split, top in parts.items():
        classes = list(folders(top, skipped))
        for folder in classes:
            before = len(entries)
            for path in walk_files(folder, notes, skipped, above=root, doubtful=doubtful):
                ending = os.path.splitext(path)[1].lower()  # noqa: PTH122 (a million times)
                if ending in IMAGE_SUFFIXES:
                    entries.append((path[len(prefix) :], folder.name, split))
                else:
                    others[ending] += 1
            if len(entries) == before:
                notes.append(f"{folder}: holds no images, so it is no class")
            else:
                names.add(folder.name)
        loose = sum(1 for path in _images(top))
        if loose and not names:
            raise DataError(
                f"{top}: holds {counted(loose, 'image')} but no class folders", _ALLOWED, "sort them into class folders"
            )
        if loose:
            notes.append(
                f"{top}: {counted(loose, 'image')} outside class folders {'is' if loose == 1 else 'are'} passed over"
            )
    if "" not in parts:
        passed = [folder.name for folder in folders(root) if folder not in parts.values()]
        if passed:
            notes.append(
                f"{root}: {shown(passed)} passed over: only {', '.join(sorted(p.name for p in parts.values()))} are read"
            )
    if not entries:
        raise DataError(
            f"{root}: holds no images", _ALLOWED, f"check the path; images end in {shown(sorted(IMAGE_SUFFIXES), 12)}"
        )
    notes += hidden_notes(root, skipped)
    notes += _doubtful_notes(root, [path for path, _, _ in entries], [name[len(prefix) :] for name in doubtful])
    if others:
        notes.append(f"{root}: {no_images(others)}")
    entries.sort()
    same: dict[str, str] = {}
    for name in sorted(names):  # macOS writes an accent as a character of its own, other systems do not
        same.setdefault(unicodedata.normalize("NFC", name), name)
    if len(same) < len(names):
        twice = [printable(same[key]) for key in same if sum(unicodedata.normalize("NFC", n) == key for n in names) > 1]
        notes.append(
            f"{root}: folders whose names differ in the form of their accents only are one class: {shown(twice)}"
        )
    order = tuple(sorted(same.values()))
    number = {name: order.index(same[unicodedata.normalize("NFC", name)]) for name in names}
    paths = [path for path, _, _ in entries]
    labels = np.array([number[name] for _, name, _ in entries], dtype=np.int64)
    return Table(
        "image folder",
        tuple(printable(name) for name in order),
        [printable_path(path.replace(os.sep, "/")) for path in paths],
        labels,
        [split for _, _, split in entries],
        Files(root, paths),
        notes=notes,
    )


def printable_path(path: str) -> str:
    """`path` as printable text, whatever bytes the file system has.

    Stricter than `printable`, which shows the joiners and spaces of languages: saved splits name images by it.
    """
    if path.isprintable():
        return path
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path)


def _scan(folder: Path | str, skipped: list[str] | None = None) -> list[os.DirEntry[str]]:
    """The entries of a folder by name, without hidden ones, which are added to `skipped`."""
    try:
        with os.scandir(folder) as entries:
            shown_entries = []
            for entry in entries:
                if not is_hidden(entry.name):
                    shown_entries.append(entry)
                elif skipped is not None:
                    skipped.append(entry.path)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}", "a folder that can be read", "check its permissions") from error
    return sorted(shown_entries, key=lambda entry: entry.name)


def hidden_notes(root: Path, skipped: Iterable[str]) -> list[str]:
    """A note on the images that hidden files and folders have, [] where there are none. skipped: their paths."""
    counts: dict[str, int] = {}
    for path in skipped:
        name = os.path.basename(path)  # noqa: PTH119 (paths are plain text here)
        below = [name] if not os.path.isdir(path) else (f for _, _, files in os.walk(path) for f in files)  # noqa: PTH112
        images = sum(1 for file in below if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES)  # noqa: PTH122
        if images:
            counts[name] = counts.get(name, 0) + images
    if not counts:
        return []
    names = shown(f"{printable_path(name)} ({count})" for name, count in sorted(counts.items()))
    total = sum(counts.values())
    where = f"in hidden files, thumbnails and recycle bins {'is' if total == 1 else 'are'} passed over"
    return [f"{root}: {counted(total, 'image')} {where}: {names}"]


def _doubtful_notes(root: Path, paths: Iterable[str], doubtful: Iterable[str]) -> list[str]:
    """A note on images that are read from folders that are called as those of copies and deleted files, [] without any."""
    starts = tuple(os.path.join(name, "") for name in doubtful)  # noqa: PTH118 (paths are plain text here)
    counts = Counter(
        next(start for start in starts if path.startswith(start)) for path in paths if path.startswith(starts)
    )
    if not counts:
        return []
    names = shown(f"{printable_path(name[:-1])} ({count})" for name, count in sorted(counts.items()))
    count = counted(counts.total(), "image is", "images are")
    return [
        f"{root}: {count} read from folders called as those of copies and deleted files, remove them if they are: {names}"
    ]


def no_images(endings: Counter[str]) -> str:
    """What a note says of files of a folder that are no images, by the endings of their names."""
    by_name = "by {} name {} passed over"
    one, several = by_name.format("its", "is"), by_name.format("their", "are")
    said = counted(endings.total(), f"file that is no image {one}", f"files that are no images {several}")
    often_first = sorted(endings.items(), key=lambda each: (-each[1], each[0]))
    names = ((truncated(printable_path(ending), 12) or "no ending", count) for ending, count in often_first)
    return f"{said}: {shown(f'{name} ({count})' for name, count in names)}"


def folders(folder: Path, skipped: list[str] | None = None) -> Iterator[Path]:
    """The folders in a folder that are not hidden, by name; `skipped` gets the paths of the hidden ones.

    Raises DataError.
    """
    return (folder / entry.name for entry in _scan(folder, skipped) if _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: left to the reading of the file, which says so
        return False


def _images(folder: Path) -> Iterator[str]:
    for entry in _scan(folder):
        if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and not _is_folder(entry):  # noqa: PTH122
            yield entry.path


def _above(top: Path, root: Path) -> set[tuple[int, int]]:
    """`root` and the folders between it and `top`, as numbers of device and inode: a link to one would lead in a circle."""
    between = [root, *(folder for folder in top.parents if root in folder.parents)]
    return {(status.st_dev, status.st_ino) for status in map(os.stat, between)}


def walk_files(
    top: Path,
    notes: list[str],
    skipped: list[str] | None = None,
    above: Path | None = None,
    doubtful: list[str] | None = None,
) -> Iterator[str]:
    """The paths of all files under `top`. Links are followed, but no folder is entered twice, nor one of those from `above`
    down to `top`.

    notes: gets a line for a folder that is not entered again. skipped: gets the paths of what is hidden;
    doubtful: of folders, `top` among them, that are called as those of copies and deleted files.
    """
    entered = _above(top, above) if above else set()
    todo = [os.fspath(top)]
    while todo:
        folder = todo.pop()
        entries = _scan(folder, skipped)
        status = os.stat(folder)  # noqa: PTH116 (all paths are plain text here, a million of them)
        if (status.st_dev, status.st_ino) in entered:
            notes.append(f"{printable_path(folder)}: a link to a folder that was read already is passed over")
            continue
        entered.add((status.st_dev, status.st_ino))
        if doubtful is not None and os.path.basename(folder).lower() in DOUBTFUL_FOLDERS:  # noqa: PTH119
            doubtful.append(folder)
        for entry in entries:
            if _is_folder(entry):
                todo.append(entry.path)
            else:  # a broken link counts as a file: it will be listed as unreadable rather than silently missed
                yield entry.path

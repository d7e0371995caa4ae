"""WebDataset shards: tar files of KEY.jpg with KEY.cls, KEY.txt or KEY.json (https://github.com/webdataset/webdataset).

A shard is indexed by one pass over its headers; an image is then one pread at its place. So shards may be larger than
memory, any number of processes may read them, and a resumed run starts anywhere at once.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from gossamer.data.folder import SPLIT_NAMES, folders, printable_path
from gossamer.data.skipped import note_skipped
from gossamer.data.source import Indices, class_order, shown
from gossamer.data.table import Table
from gossamer.data.tar import TarMember, members
from gossamer.errors import DataError
from gossamer.host.encoding import decode_text
from gossamer.host.storage import open_descriptor, read_unchanged
from gossamer.host.text import counted
from gossamer.images.decode import IMAGE_SUFFIXES, is_text
from gossamer.images.hidden import is_hidden

WINDOW = 8192  # samples that are shuffled among one another; at 100 kB an image, 0.8 GB of one shard after the other
_IMAGES = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)
_LABELS = ("cls", "txt", "json")
_JSON_LABELS = ("label", "class", "class_name", "cls", "category")  # the first that is there
_LARGEST_LABEL = 1 << 20
_MOST_CLASSES = 1_000_000  # where only numbers say how many there are
_OPEN_SHARDS = 32
_MOST_SHARDS = 100_000  # of a pattern of braces
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")  # the compressed get an error that says so
_SPLIT = re.compile(r"(?:^|[-_.])(" + "|".join(SPLIT_NAMES) + r")(?=[-_.])", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_ALLOWED = "shards with KEY.jpg (.png, .webp, .bmp, ...) and KEY.cls (or .txt, or .json with a label)"


class _Handle:
    """An open file that closes with its last reader, also in a forked process."""

    def __init__(self, path: str) -> None:
        self.number = -1
        self.number = open_descriptor(path)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class Shards:
    """Where each sample is. shard, start, size: (n,) int64, the shard's number and bytes in it."""

    def __init__(self, paths: list[str], shard: Indices, start: Indices, size: Indices) -> None:
        self.paths, self.shard, self.start, self.size = paths, shard, start, size
        self._open: dict[int, _Handle] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}

    def read(self, row: int) -> bytes:
        size = int(self.size[row])
        handle = self._handle(int(self.shard[row]))  # held by name until the read is done, so that it stays open
        data = os.pread(handle.number, size, int(self.start[row]))
        if len(data) < size:
            raise OSError(0, "the shard has become shorter")
        return data

    def _handle(self, shard: int) -> _Handle:
        # Without a lock, which a fork at the wrong moment would leave locked for ever: each of these operations on a
        # plain dict is whole for other threads, and a handle that is dropped stays open for those that still read.
        handle = self._open.get(shard)
        if handle is None:
            handle = self._open[shard] = _Handle(self.paths[shard])
            for oldest in list(self._open)[:-_OPEN_SHARDS]:
                self._open.pop(oldest, None)
        return handle

    def stats(self, rows: Indices) -> Iterator[tuple[int, int]]:
        times: dict[int, int] = {}
        for row in rows.tolist():
            shard = int(self.shard[row])
            if shard not in times:
                try:
                    times[shard] = os.stat(self.paths[shard]).st_mtime_ns  # noqa: PTH116 (paths are text here)
                except OSError:
                    times[shard] = -1
            yield (int(self.size[row]), times[shard]) if times[shard] >= 0 else (-1, 0)

    def arrange(self, rows: Indices, rng: np.random.Generator) -> Indices:
        """Shards in a random order, samples shuffled within windows of WINDOW that follow one another on the disk.

        The first window's length is drawn as well, so that windows end elsewhere in every epoch.
        """
        rank = rng.permutation(len(self.paths))
        line = np.lexsort((self.start[rows], rank[self.shard[rows]]))
        first = int(rng.integers(WINDOW // 2, WINDOW + 1))
        for begin, end in _windows(len(line), first):
            line[begin:end] = rng.permutation(line[begin:end])
        return line


def _windows(count: int, first: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of windows over 0..count; the last one takes up to half a window more, so that none is small."""
    cuts = [0, *range(first, max(first, count - WINDOW // 2), WINDOW), count]
    return pairwise(cuts)


def find_shards(root: Path) -> tuple[list[tuple[Path, str]], Path] | None:
    """(shard, split) of each shard of `root`, and the folder of its classes.txt; None where `root` has no shards.

    root: a folder of .tar files, one with such folders train/ and val/, a .tar file, or a pattern as
    train-{00000..00004}.tar. Raises DataError where a pattern names files that are not there.
    """
    if _BRACES.search(root.name) and not root.exists():
        paths = [root.parent / name for name in _expand(root.name)]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise DataError(
                f"{root}: {shown(missing)} not there", "shards that exist", "check the numbers in the braces"
            )
        return [(path, _split_of(path.name)) for path in paths], root.parent
    if root.is_file():
        return ([(root, _split_of(root.name))], root.parent) if root.name.lower().endswith(_SUFFIXES) else None
    if not root.is_dir():
        return None
    shards = [(path, _split_of(path.name)) for path in _tars(root)]
    if not shards:
        for folder in folders(root):
            split = SPLIT_NAMES.get(folder.name.lower())
            if split:
                shards += [(path, split) for path in _tars(folder)]
    return (shards, root) if shards else None


def read_shards(
    shards: list[tuple[Path, str]], classes_folder: Path, root: Path, numbered: tuple[str, ...] = ()
) -> Table:
    """The samples of these shards. numbered: what class numbers stand for where there is no classes.txt.

    A label that cannot be used is noted, and its image skipped. Raises DataError, also where more than a third cannot.
    """
    notes: list[str] = []
    failed: list[DataError] = []
    names: list[str] = []
    labels: list[str | int] = []
    places: list[tuple[int, int, int]] = []
    splits: list[str] = []
    if any(split for _, split in shards) and not all(split for _, split in shards):
        plain = [path.name for path, split in shards if not split]
        notes.append(f"{root}: shards without a split in their name count as train: {shown(plain)}")
        shards = [(path, split or "train") for path, split in shards]
    for number, (path, split) in enumerate(shards):
        label = path.relative_to(root).as_posix() if path.is_relative_to(root) and path != root else path.name
        for name, start, size, target in _samples(path, notes, failed):
            names.append(f"{label}/{name}")
            labels.append(target)
            places.append((number, start, size))
            splits.append(split)
    if not names:
        note_skipped(root, failed, len(failed), "labels", notes)
        raise DataError(f"{root}: holds no labelled images", _ALLOWED, "check the shards")
    listed = _read_classes(classes_folder / "classes.txt") or _read_json(classes_folder / "classes.json")
    numbers = [label for label in labels if isinstance(label, int)]
    if not listed and 2 * len(numbers) > len(labels) and not {str(n) for n in numbers if n >= 0} <= {*numbered}:
        listed = numbered  # where the classes are called by numbers themselves, a label is the name
    count = len(failed) + len(names)
    kept, classes, targets = _targets(names, labels, listed, failed)
    note_skipped(root, failed, count, "labels", notes)
    unused = [classes[i] for i in np.flatnonzero(np.bincount(targets, minlength=len(classes)) == 0)]
    if unused:
        notes.append(f"{len(unused)} of {len(classes)} classes have no images: {shown(unused)}")
    names, splits = [names[i] for i in kept], [splits[i] for i in kept]
    shard, start_at, size_of = np.array(places, dtype=np.int64)[kept].T.copy()
    store = Shards([os.fspath(path) for path, _ in shards], shard, start_at, size_of)
    return Table("tar shards", classes, names, targets, splits, store, fixed=True, notes=notes)


def _samples(path: Path, notes: list[str], failed: list[DataError]) -> Iterator[tuple[str, int, int, str | int]]:
    """(name, start, size, label) of each labelled image of one shard, in the order of the images. failed: gets the errors of
    labels that cannot be used."""
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, str | int] = {}
    wrong: dict[str, DataError] = {}
    repeated = 0
    handle = _Handle(os.fspath(path)) if path.is_file() else None
    for member in members(path, notes):
        folder, _, base = member.name.removeprefix("./").rpartition("/")
        stem, _, extension = base.partition(".")
        if not stem or any(
            map(is_hidden, (folder.split("/") if folder else []))
        ):  # hidden, as the ._NAME files of macOS
            continue
        key, extension = f"{folder}/{stem}", extension.lower()
        if extension in _IMAGES:
            repeated += key in images
            images.setdefault(key, (member.name.removeprefix("./"), member.start, member.size))
        elif extension in _LABELS and handle is not None and (key not in labels or extension == "cls"):
            try:
                label = _label(path, member, extension, handle.number)
            except DataError as error:
                wrong.setdefault(key, error)
                continue
            if label is not None:
                labels[key] = label
                wrong.pop(key, None)
    if repeated:
        notes.append(
            f"{path}: {counted(repeated, 'image has the key of another one and is', 'images have the key of another one and are')} passed over"
        )
    lonely = [key.removeprefix("/") for key in labels if key not in images]
    if lonely:
        alone = counted(len(lonely), "label without an image is", "labels without an image are")
        notes.append(f"{path}: {alone} passed over: {shown(map(printable_path, lonely))}")
    failed += [error for key, error in wrong.items() if key in images]
    labels = {key: label for key, label in labels.items() if key not in wrong}
    bare = [name for key, (name, _, _) in images.items() if key not in labels and key not in wrong]
    if bare:
        without = counted(len(bare), "image without a label is", "images without a label are")
        notes.append(f"{path}: {without} passed over: {shown(bare)}")
    for key, (name, start, size) in images.items():
        if key in labels:
            yield name, start, size, labels[key]


def _label(path: Path, member: TarMember, extension: str, handle: int) -> str | int | None:
    """A class number or a class name; None where a .json has no label. handle: the shard's. Raises DataError."""
    name = printable_path(member.name)
    if member.size > _LARGEST_LABEL:
        raise DataError(
            f"{path}: {name} has {counted(member.size, 'byte')}", "a label of some bytes", "check the shard"
        )
    content = os.pread(handle, member.size, member.start)
    try:
        text = decode_text(content).strip()
        if extension == "json":
            value = json.loads(text)
            keys = [key for key in _JSON_LABELS if key in value] if isinstance(value, dict) else []
            label = value[keys[0]] if keys else None
            if isinstance(label, float) and label.is_integer():
                label = int(label)
            if label is None or (type(label) is int or (isinstance(label, str) and is_text(label))):
                return label
        elif text and is_text(text):  # webdataset's .cls are numbers, and names as well where another tool wrote them
            number = text.removesuffix(".0") if extension == "cls" else text
            digits = number.lstrip("+-") if extension == "cls" else number
            is_number = digits.isascii() and digits.isdigit() and (extension == "cls" or len(digits) < 10)
            return int(number) if is_number else text
    except (ValueError, RecursionError) as error:
        raise _bad_label(path, name, content) from error
    raise _bad_label(path, name, content)


def _bad_label(path: Path, name: str, content: bytes) -> DataError:
    return DataError(f"{path}: {name} holds {content[:40]!r}", "a class number or a class name", "fix the shard")


def _targets(
    names: list[str], labels: list[str | int], listed: tuple[str, ...], failed: list[DataError]
) -> tuple[list[int], tuple[str, ...], Indices]:
    """The samples whose label is a class, in order, the classes, and the class number of each of these samples. failed: gets
    the errors of the others. Raises the first of them where there is no other."""
    words = [label for label in labels if isinstance(label, str)]
    by_name = 2 * len(words) >= len(labels)  # then a number that is no class is a mistake, and else a name
    numbers = [label for label in labels if isinstance(label, int) and 0 <= label < _MOST_CLASSES]
    if listed:
        classes = listed
    elif by_name:
        classes = class_order(words)
    else:
        classes = tuple(str(number) for number in range(max(numbers, default=-1) + 1))
    number_of = {name: i for i, name in enumerate(classes)} if listed or by_name else {}
    kept: list[int] = []
    targets: list[int] = []
    for row, label in enumerate(labels):
        target = number_of.get(label, -1) if isinstance(label, str) else label if listed or not by_name else -1
        if 0 <= target < len(classes):
            kept.append(row)
            targets.append(target)
        else:
            failed.append(_no_class(names[row], label, classes, listed, by_name))
    if not kept:
        raise failed[0]
    return kept, classes, np.array(targets, dtype=np.int64)


def _no_class(
    name: str, label: str | int, classes: tuple[str, ...], listed: tuple[str, ...], by_name: bool
) -> DataError:
    """The error of a label that is none of the classes."""
    if not listed and isinstance(label, int) == by_name:
        other = repr(classes[0]) if by_name else "numbers"
        return DataError(
            f"{name}: label {label!r}, and {other} elsewhere",
            "class numbers, or class names, or both with a classes.txt",
            "add a classes.txt with one class name per line",
        )
    allowed = f"0 to {len(classes) - 1}, or a name of classes.txt" if listed else "class numbers from 0"
    return DataError(f"{name}: label {label!r}", allowed, "fix the shard or classes.txt")


def _read_classes(path: Path) -> tuple[str, ...]:
    """The lines of classes.txt, () where there is none. Raises DataError."""
    try:
        lines = decode_text(read_unchanged(path)).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}", "UTF-8 text with one class name per line", "fix the file") from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if not all(names) or len(set(names)) != len(names) or not all(map(is_text, names)):
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        what = "an empty line" if not all(names) else f"{twice!r} twice"
        if all(names) and twice is None:
            what = f"{next(n for n in names if not is_text(n))!r}"
        raise DataError(f"{path}: has {what}", "one class name per line, each once", "fix the file")
    return tuple(names)


def _read_json(path: Path) -> tuple[str, ...]:
    """The names of classes.json: a list, or an object of number: name or of name: number; () where there is none.

    Raises DataError.
    """
    allowed = 'a list of class names, or {"0": "cat", "1": "dog"}, or {"cat": 0, "dog": 1}'
    try:
        value = json.loads(decode_text(read_unchanged(path)))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())[:200]}", allowed, "fix the file") from error
    if isinstance(value, dict):
        swapped = all(type(number) is int for number in value.values())
        pairs = [(str(a), b) for b, a in value.items()] if swapped else list(value.items())
        named = {int(key): name for key, name in pairs if key.isascii() and key.isdigit() and len(key) < 10}
        value = [named[i] for i in range(len(named))] if sorted(named) == list(range(len(value))) else None
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name.strip() for name in value):
        raise DataError(f"{path}: lists no class names by their numbers 0, 1, 2, ...", allowed, "fix the file")
    names = tuple(name.strip() for name in value)
    if len(set(names)) < len(names):
        raise DataError(f"{path}: gives a class name twice", "each once", "fix the file")
    if not all(map(is_text, names)):
        wrong = next(name for name in names if not is_text(name))
        raise DataError(f"{path}: has the class name {wrong[:40]!r}", "printable text", "fix the file")
    return names


def _tars(folder: Path) -> list[Path]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.lower().endswith(_SUFFIXES) and path.is_file())
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}", "a folder that can be read", "check its permissions") from error
    return [path for path in paths if not path.name.startswith(".")]


def _split_of(name: str) -> str:
    match = _SPLIT.search(name)
    return SPLIT_NAMES[match.group(1).lower()] if match else ""


def _expand(pattern: str) -> list[str]:
    """train-{00000..00004}.tar and {a,b}.tar, as a shell expands them. Raises DataError."""
    braces = _BRACES.search(pattern)
    if not braces:
        return [pattern]
    allowed = f"up to {_MOST_SHARDS:,} shards, the lower number first"
    span = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", braces.group(1))
    if span:
        low, high = int(span.group(1)), int(span.group(2))
        if not low <= high < low + _MOST_SHARDS:
            raise DataError(f"{pattern}: {braces.group(0)}", allowed, "fix the pattern")
        parts = [str(number).zfill(len(span.group(1))) for number in range(low, high + 1)]
    else:
        parts = braces.group(1).split(",")
    rests = _expand(pattern[braces.end() :])
    if len(parts) * len(rests) > _MOST_SHARDS:
        raise DataError(f"{pattern}: {len(parts) * len(rests)} shards", allowed, "fix the pattern")
    return [pattern[: braces.start()] + part + rest for part in parts for rest in rests]

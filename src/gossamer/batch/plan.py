"""The shards and image files of the sources as units of work: one shard, or a run of files of about the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gossamer.errors import DataError
from gossamer.host.text import counted
from gossamer.images.hidden import is_hidden
from gossamer.images.preprocess import IMAGE_SUFFIXES

SHARD, FILES = "shard", "files"
SHARD_SUFFIX = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
PARTS = 32  # runs that the files are divided into at least, so that every worker has some
RUN_BYTES = (1 << 20, 64 << 20)  # the fewest and the most of a run of files
RUN_FILES = (16, 2000)
ALLOWED = "images, folders of images, and uncompressed .tar shards"

Entry = tuple[str, int, int]  # key (the path as `gossamer predict` prints it), bytes, time of the last change in ns


class Unit(NamedTuple):
    """A unit of work. size: bytes; length: its entries; fingerprint: of their keys, sizes and times; line: as it is saved."""

    number: int
    kind: str
    size: int
    length: int
    fingerprint: str
    line: bytes

    @classmethod
    def of(cls, number: int, kind: str, entries: Sequence[Entry]) -> Unit:
        """The unit of these entries."""
        line = json.dumps([number, kind, *entries], separators=(",", ":")).encode()  # ASCII: any name of a file fits
        return cls(number, kind, sum(entry[1] for entry in entries), len(entries), _digest(line), line)

    @classmethod
    def parse(cls, line: bytes) -> Unit:
        """The unit of a saved line. Raises ValueError."""
        values = json.loads(line)
        good = isinstance(values, list) and len(values) > 2 and type(values[0]) is int and values[1] in (SHARD, FILES)
        if not good or values[0] < 0 or not all(map(_is_entry, values[2:])):
            raise ValueError("is no unit of work")
        return cls.of(values[0], values[1], [(key, size, time) for key, size, time in values[2:]])

    def entries(self) -> list[Entry]:
        """What it consists of: one shard, or files."""
        return [(key, size, time) for key, size, time in json.loads(self.line)[2:]]


def identity(line: bytes) -> tuple[int, str]:
    """Number and fingerprint of the unit of a saved line, which is not parsed. Raises ValueError."""
    return int(line[1:20].partition(b",")[0]), _digest(line.rstrip(b"\n"))


def _is_entry(values: object) -> bool:
    """Whether a value of a saved line is the key, bytes and time of a file."""
    return isinstance(values, list) and list(map(type, values)) == [str, int, int] and values[1] >= 0


class Scan(NamedTuple):
    """What is there now, in the order of the sources."""

    shards: list[Entry]
    files: list[Entry]


class Plan(NamedTuple):
    """The units of a folder. changed: whether they differ from the saved ones. notes: lines about what differs."""

    units: list[Unit]
    changed: bool
    notes: list[str]


def scan(sources: Sequence[Path]) -> Scan:
    """All shards and image files of files, folders and patterns such as train-{0000..0099}.tar; hidden ones are left out.

    Raises DataError: a source that is missing, cannot be read, holds no images, or is part of another source.
    """
    if not sources:
        raise DataError("no source of images", ALLOWED, "name one")
    _check_apart(sources)
    result = Scan([], [])
    for source in sources:
        before = len(result.shards) + len(result.files)
        for key, status in _walk(source):
            lower = key.lower()
            if lower.endswith(COMPRESSED):
                raise DataError(
                    f"{key}: is compressed", ALLOWED, "decompress it first; images are compressed as they are"
                )
            entry = (key, status.st_size, status.st_mtime_ns) if status else (key, 0, 0)
            (result.shards if lower.endswith(SHARD_SUFFIX) else result.files).append(entry)
        if len(result.shards) + len(result.files) == before:
            raise DataError(f"{source}: holds no images and no shards", ALLOWED, "check the path")
    return result


def first_plan(found: Scan, align: int = 1) -> list[Unit]:
    """The units of a folder that is begun. align: the files of each but the last are a multiple of so many."""
    return _pack(found, 0, align)


def next_plan(saved: Sequence[Unit], found: Scan, done: Mapping[int, str]) -> Plan:
    """The saved units brought up to date: new images are added, changed ones answered again, missing ones left out.

    done: the fingerprint with which each unit was committed. A committed unit whose images are gone stays as it is.
    """
    now = {key: (size, time) for entries in found for key, size, time in entries}
    units: list[Unit] = []
    changed_count = gone = 0
    for unit in saved:
        before = unit.entries()
        here: list[Entry] = []
        different = 0
        for entry in before:
            current = now.pop(entry[0], None)
            if current is not None:
                here.append((entry[0], *current))
                different += current != entry[1:]
        changed_count += different
        committed = done.get(unit.number) == unit.fingerprint
        if committed and not different:
            units.append(unit)
            continue
        gone += len(before) - len(here)
        if here:
            units.append(unit if here == before else Unit.of(unit.number, unit.kind, here))
    new = Scan(*([entry for entry in entries if entry[0] in now] for entries in found))
    added = _pack(new, max((unit.number for unit in saved), default=-1) + 1)
    notes = []
    again = "answered again, with the unit that"
    for count, one, several in (
        (len(now), "new shard or file is added", "new shards and files are added"),
        (
            changed_count,
            f"shard or file has changed and is {again} it belongs to",
            f"shards and files have changed and are {again} they belong to",
        ),
        (gone, "shard or file that was planned is gone", "shards and files that were planned are gone"),
    ):
        if count:
            notes.append(counted(count, one, several))
    return Plan([*units, *added], bool(notes), notes)


def _pack(found: Scan, first: int, align: int = 1) -> list[Unit]:
    units = [Unit.of(first + index, SHARD, [entry]) for index, entry in enumerate(found.shards)]
    most_bytes = min(max(sum(entry[1] for entry in found.files) // PARTS, RUN_BYTES[0]), RUN_BYTES[1])
    most_files = min(max(len(found.files) // PARTS, RUN_FILES[0]), RUN_FILES[1])
    run: list[Entry] = []
    size = 0
    for entry in found.files:
        if run and len(run) % align == 0 and (len(run) >= most_files or size + entry[1] > most_bytes):
            units.append(Unit.of(first + len(units), FILES, run))
            run, size = [], 0
        run.append(entry)
        size += entry[1]
    if run:
        units.append(Unit.of(first + len(units), FILES, run))
    return units


def _check_apart(sources: Sequence[Path]) -> None:
    """Raises DataError where a source is another one, or a part of it: its images would have two rows."""
    try:
        places = [os.path.realpath(source) for source in sources]
    except (OSError, ValueError) as error:
        raise DataError(f"sources: {error}", ALLOWED, "check the paths") from error
    first: dict[str, Path] = {}
    for place, source in zip(places, sources):
        if place in first:
            raise DataError(
                f"{source}: is the same as the source {first[place]}", "each image once", "leave one of them out"
            )
        first[place] = source
    for place, source in zip(places, sources):
        above = os.path.dirname(place)
        while above != place:
            if above in first:
                raise DataError(
                    f"{source}: is a part of the source {first[above]}", "each image once", "leave one of them out"
                )
            place, above = above, os.path.dirname(above)


def _walk(source: Path) -> Iterator[tuple[str, os.stat_result | None]]:
    """(key, status) of each shard and image, in the order of `gossamer predict`; None where it cannot be asked for."""
    if "{" in source.name and not os.path.exists(source):
        from gossamer.data.shards import find_shards

        for path, _ in (find_shards(source) or ([], None))[0]:
            yield str(path), os.stat(path)
        return
    try:
        status = os.stat(source)
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}", ALLOWED, "check the path") from error
    if not stat.S_ISDIR(status.st_mode):
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{source}: is a pipe, socket or device", ALLOWED, "check the path")
        yield str(source), status
        return
    folders = [str(source)]
    while folders:
        folder = folders.pop()
        inner = []
        try:
            with os.scandir(folder) as listing:
                children = sorted((child for child in listing if not is_hidden(child.name)), key=lambda each: each.name)
            for child in children:
                if _is_folder(child):
                    if not child.is_symlink():
                        inner.append(_joined(folder, child.name))
                elif _is_wanted(child.name):
                    yield _joined(folder, child.name), _status(child)
        except OSError as error:
            raise DataError(
                f"{folder}: {error.strerror}", "folders that can be read", "check its permissions"
            ) from error
        folders += reversed(inner)


def _is_folder(child: os.DirEntry[str]) -> bool:
    try:
        return child.is_dir()
    except OSError:  # a loop of links: whoever reads it says so in its row
        return False


def _status(child: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return child.stat()
    except OSError:  # a link to nothing: whoever reads it says so in its row
        return None


def _joined(folder: str, name: str) -> str:
    return name if folder == "." else os.path.join(folder, name)


def _is_wanted(name: str) -> bool:
    lower = name.lower()
    return lower.endswith((SHARD_SUFFIX, *COMPRESSED)) or os.path.splitext(lower)[1] in IMAGE_SUFFIXES


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:32]

"""What an annotation file says of an image, unchanged: nothing is clipped or dropped.

VOC, COCO and YOLO readers give a `Draft`; `table.py` makes boxes to train on of it, `convert.py` writes it in another
format.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from gossamer.data.folder import SPLIT_NAMES, hidden_notes, printable_path
from gossamer.data.source import shown
from gossamer.errors import DataError, ImageError
from gossamer.host.encoding import decode_text, not_text
from gossamer.host.storage import read_unchanged
from gossamer.host.text import none_of
from gossamer.images.decode import is_text
from gossamer.images.hidden import is_hidden
from gossamer.images.preprocess import IMAGE_SUFFIXES, SIDE_LIMIT, describe

Edges = tuple[float, float, float, float]
Size = tuple[int, int]
CHANGED, WAIT = "its annotations changed while they were read", "wait until they are written"
"""What is said, and to be done, where files that were recognised are others when they are read."""
SIDECAR = "gossamer-boxes.json"
"""The file that a conversion leaves beside what it wrote."""


@dataclass(slots=True)
class BoxRecord:
    """A box as it stands in the file, in pixels (continuous edges x0, y0, x1, y1).

    area: nan where the file gives none. extra: what else the file says, by format, for the way back to it. outlines:
    the polygons that the file draws around it, each x, y, x, y, ... in pixels; () where it gives a box alone.
    """

    box: Edges
    name: str
    crowd: bool = False
    difficult: bool = False
    area: float = math.nan
    extra: dict[str, Any] = field(default_factory=dict)
    outlines: tuple[tuple[float, ...], ...] = ()


@dataclass(slots=True)
class ImageRecord:
    """An image: path relative to the root, split ("" for none), (height, width) as the file says, its boxes.

    name: the path below the format's folder of images, which a conversion keeps.
    """

    path: str
    name: str
    split: str
    size: Size
    boxes: list[BoxRecord]
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Draft:
    """All that a folder says.

    kind: a key of `table.KINDS`. declared: the class list is written down, so classes stay that no image has.
    extra: what else the files say of the data set, by format.
    """

    kind: str
    root: Path
    classes: tuple[str, ...]
    declared: bool
    records: list[ImageRecord]
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


def parse_number(value: object) -> float:
    """A number, or the text of one, as float; nan where it is none or does not fit."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return (
            math.nan if isinstance(value, str) and "_" in value else float(value)
        )  # 1_0 is a number of Python's alone
    except (ValueError, OverflowError):
        return math.nan


def parse_angle(value: object) -> float:
    """As `parse_number` of an angle in degrees, in radians; nan where it is not finite, of which there is no cosine."""
    angle = math.radians(parse_number(value))
    return angle if math.isfinite(angle) else math.nan


def declared_size(height: object, width: object) -> Size | None:
    """(height, width) where both are sides that an image can have."""
    sides = [parse_number(height), parse_number(width)]
    return (round(sides[0]), round(sides[1])) if all(1 <= side <= SIDE_LIMIT for side in sides) else None


def class_name(value: object, where: str) -> str:
    """A class name without blanks around it. Raises DataError where it is none."""
    name = value.strip() if isinstance(value, str) else ""
    if not name or not is_text(name):
        raise DataError(f"{where}: class name {reprlib.repr(value)}", "printable text", "fix the name")
    return name


def inside(name: str, where: str) -> str:
    """A relative path with slashes. Raises DataError where it leads out of its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts or path.parts[0][1:2] == ":":
        raise DataError(f"{where}: path {printable_path(name)[:300]!r}", "a path inside the folder", "fix the path")
    return str(path)


def contents(path: Path, limit: int) -> bytes:
    """The bytes of a file of at most `limit` bytes. Raises DataError."""
    try:
        if not path.is_file():
            raise DataError(f"{printable_path(str(path))}: is not a file", "a file that can be read", "check the path")
        size = path.stat().st_size
        if size > limit:
            raise DataError(
                f"{printable_path(str(path))}: has {size} bytes", f"at most {limit}", "check that it is the right file"
            )
        return read_unchanged(path)
    except OSError as error:
        raise DataError(
            f"{printable_path(str(path))}: {error.strerror}", "a file that can be read", "check the path"
        ) from error


def lines_of(path: Path, limit: int = 1 << 28) -> list[str]:
    """The lines of a UTF-8 text file, stripped, blank ones too. Raises DataError."""
    try:
        return [line.strip() for line in split_lines(decode_text(contents(path, limit)))]
    except UnicodeDecodeError as error:
        raise DataError(f"{printable_path(str(path))}: {not_text(error)}", "UTF-8 text", "save it as UTF-8") from error


def split_lines(text: str) -> list[str]:
    """The lines of a text as text files have them: `str.splitlines` also ends them at a few characters inside a line."""
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")


def files_in(folder: Path, suffix: str) -> list[Path]:
    """The files in a folder whose names end in `suffix`, whatever the case, in order; hidden ones (as the ._NAME files of
    macOS) are passed over. [] where there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.lower().endswith(suffix))
    return [folder / name for name in names if not is_hidden(name)]


def split_of(word: str) -> str:
    """The split that a folder or a file is named for, such as "val" for "valid" or "instances_val2017"; "" for none."""
    parts = "".join(c if c.isalpha() else " " for c in word.lower()).split()
    splits = {SPLIT_NAMES[part] for part in parts if part in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 else ""


def split_of_path(folder: PurePath) -> str:
    """The split that a folder of a path is named for, the first that is; "" for none."""
    return next((split for part in folder.parts if (split := split_of(part))), "")


def image_files(folder: Path, notes: list[str] | None = None) -> Iterator[str]:
    """The images below a folder, by their path in it with slashes, in order; hidden ones are passed over, and noted."""
    paths: list[str] = []
    skipped: list[str] = []
    entered: set[tuple[int, int]] = set()  # links to folders are followed, but no folder is entered twice
    for top, below, files in os.walk(folder, followlinks=True):
        status = os.stat(top)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in entered:
            below[:] = []
            continue
        entered.add((status.st_dev, status.st_ino))
        skipped += [f"{top}/{name}" for name in (*below, *files) if is_hidden(name)]
        below[:] = sorted(name for name in below if not is_hidden(name))
        start = Path(top).relative_to(folder)
        paths += [
            (start / name).as_posix()
            for name in files
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not is_hidden(name)
        ]
    if notes is not None:
        notes += hidden_notes(folder, skipped)
    return iter(sorted(paths))


def image_size(path: Path) -> Size:
    """(height, width) of the upright image, from its header. Raises ImageError."""
    header = describe(path)
    return header.height, header.width


def each_image(
    items: Sequence[str], read: Callable[[str], ImageRecord], one: str, several: str, notes: list[str]
) -> list[ImageRecord]:
    """The records that `read` gives; what raises is skipped and noted. one, several: what an item is called, and more of
    them. Raises DataError where all raise."""
    records, failed = [], []
    for item in items:
        try:
            records.append(read(item))
        except (DataError, ImageError) as error:
            failed.append(error)
    if failed and not records:
        raise DataError(
            f"{none_of(len(items), one, several)} can be used: {failed[0].given}",
            failed[0].allowed,
            failed[0].do,
        ) from failed[0]
    if failed:
        notes.append(
            f"{len(failed)} of {len(items)} {several} cannot be used and are skipped: "
            + shown([f.given for f in failed], 3)
        )
    return records


def one_split(lists: Mapping[str, Iterable[str]], where: str) -> dict[str, str]:
    """name -> split. Raises DataError where an image is in two."""
    result: dict[str, str] = {}
    for split, names in lists.items():
        for name in names:
            if result.setdefault(name, split) != split:
                raise DataError(
                    f"{where}: {printable_path(name)} is in {result[name]} and in {split}",
                    "one split an image",
                    "remove it from one",
                )
    return result

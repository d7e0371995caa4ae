"""Boxes from one format to another, images and all, and back without a loss."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from gossamer.data.boxes.coco_write import coco_texts, lost_in_coco
from gossamer.data.boxes.open import read_draft
from gossamer.data.boxes.records import SIDECAR, Draft, ImageRecord, image_size, split_of
from gossamer.data.boxes.sidecar import sidecar_text
from gossamer.data.boxes.table import KINDS
from gossamer.data.boxes.voc import lost_in_voc, voc_files
from gossamer.data.boxes.yolo_config import YAML
from gossamer.data.boxes.yolo_write import lost_in_yolo, yolo_files
from gossamer.data.folder import printable_path
from gossamer.data.source import shown
from gossamer.errors import DataError, ImageError, UnknownNameError
from gossamer.host.shown import Report
from gossamer.host.storage import atomic_folder
from gossamer.host.text import counted
from gossamer.images.preprocess import IMAGE_SUFFIXES, describe, read_file

StrPath = str | os.PathLike[str]
Writer = Callable[[Draft, list[str]], Iterator[tuple[str, str]]]
WRITERS: dict[str, tuple[Writer, Callable[[Draft], list[str]]]] = {
    "voc": (voc_files, lost_in_voc),
    "coco": (coco_texts, lost_in_coco),
    "yolo": (yolo_files, lost_in_yolo),
}
"""Format -> its files, and what it has no place for."""


@dataclass(frozen=True, repr=False)
class BoxConversion(Report):
    """What a conversion wrote to `folder`.

    lost: what the format has no place for, a line each; it stands in the sidecar, and reading or converting the folder
    with gossamer gives it back. notes: what was skipped or renamed.
    """

    folder: Path
    source: str
    to: str
    images: int
    boxes: int
    lost: tuple[str, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """A few lines for people."""
        content = f"{counted(self.images, 'image')} with {counted(self.boxes, 'box')}"
        first = f"{self.folder}: {content}, {KINDS[self.source]} as {KINDS[self.to]}"
        return "\n".join([first, *(f"kept in {SIDECAR}: {line}" for line in self.lost), *self.notes])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "folder": str(self.folder)}


def convert(root: StrPath, out: StrPath, to: str) -> BoxConversion:
    """Write the boxes at `root`, with their images, to the new folder `out` as "voc", "coco" or "yolo".

    Boxes are copied as they stand: what is clipped or dropped in training is so from either folder. Only boxes whose
    corners are no numbers, and images that cannot be read, are skipped; the notes count them. `out` is complete or does not
    exist. Raises UnknownNameError, DataError, StorageError.
    """
    if to not in WRITERS:
        raise UnknownNameError("box format", to, WRITERS)
    source, target = Path(root), Path(out)
    _check_target(source, target)
    draft = read_draft(source)
    notes = [*draft.notes, *_finite(draft)]
    try:
        with atomic_folder(target) as folder:
            paths, written = _copy_images(draft, folder, to, notes)
            lost = _write(draft, written, paths, folder, target, to)
    except RecursionError as error:
        raise DataError(f"{source}: a field is nested too deeply to be written", "flat fields", "remove it") from error
    if to == "yolo" and all(record.split != "val" for record in draft.records):
        notes.append(f"{YAML[0]}: no images are held out for validation, so val names those of train")
    boxes = sum(len(record.boxes) for record in draft.records)
    return BoxConversion(target, draft.kind, to, len(paths), boxes, tuple(lost), tuple(notes))


def _check_target(source: Path, target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target}: is already there", "a new or an empty folder", "give another place")
    # realpath, as Path.resolve raises RuntimeError for a circle of links
    if Path(os.path.realpath(source)) in Path(os.path.realpath(target)).parents:
        raise DataError(f"{target}: is inside {source}", "a folder outside the data", "give another place")


def _copy_images(draft: Draft, folder: Path, to: str, notes: list[str]) -> tuple[list[str], list[ImageRecord]]:
    """Where the images went, and their records with the sizes to write; unreadable ones leave the draft. A YOLO line
    needs the image's own size, whatever its annotations say. Raises DataError where none can be read."""
    paths, records, written = [], [], []
    for record, place in zip(draft.records, _places(draft, to, notes), strict=True):
        try:
            content = read_file(draft.root / record.path)
            size = image_size(draft.root / record.path) if to == "yolo" else record.size
        except ImageError as error:
            notes.append(f"{error.given}: not converted")
            continue
        _put(folder / place, content)
        paths.append(place)
        records.append(record)
        written.append(replace(record, size=size))
    if not paths:
        raise DataError(f"{draft.root}: none of its images can be read", "images that can be read", "restore them")
    other = sum(a.size != b.size for a, b in zip(records, written, strict=True))
    if other:
        differ = (
            "image has another size than its annotations say",
            "images have another size than their annotations say",
        )
        notes.append(f"{counted(other, *differ)}; boxes keep their pixels")
    draft.records = records
    return paths, written


def _write(
    draft: Draft, written: list[ImageRecord], paths: list[str], folder: Path, target: Path, to: str
) -> list[str]:
    """Write the annotations and the sidecar into `folder`, which becomes `target`; what the format has no place for."""
    files, lost_in = WRITERS[to]
    lost = [*lost_in(draft), *_further(draft.records, to)]
    for name, content in files(replace(draft, records=written), paths):
        if name == YAML[0]:  # Ultralytics takes relative paths from a folder of its own settings, not from the file
            content = f"path: {json.dumps(str(target.resolve()), ensure_ascii=False)}\n{content}"
        _put(folder / name, content.encode())
    _put(folder / SIDECAR, sidecar_text(draft, paths, to, lost).encode())
    return lost


def _finite(draft: Draft) -> list[str]:
    """Drop boxes whose corners are no numbers, which no format can write; a note counts them."""
    count = 0
    for record in draft.records:
        finite = [box for box in record.boxes if all(abs(edge) < float("inf") for edge in box.box)]
        count += len(record.boxes) - len(finite)
        record.boxes = finite
    no_numbers = "corners that are no numbers, and {} not written"
    one, several = f"box has {no_numbers.format('is')}", f"boxes have {no_numbers.format('are')}"
    return [counted(count, one, several)] if count else []


def _further(records: list[ImageRecord], to: str) -> list[str]:
    """What the files say of boxes and images beyond the boxes themselves, in a format other than `to`."""
    lines = []
    for kind in sorted(set(WRITERS) - {to}):
        boxes = sum(kind in box.extra for record in records for box in record.boxes)
        images = sum(kind in record.extra for record in records)
        if boxes or images:
            lines.append(
                f"{KINDS[to]} have no place for further fields of {KINDS[kind]}: "
                f"{counted(images, 'image')}, {counted(boxes, 'box')}"
            )
    return lines


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _places(draft: Draft, to: str, notes: list[str]) -> list[str]:
    """Where the image of each record goes: its name, made printable, and made unique where two would be equal.

    VOC names an image by its stem alone, YOLO's label file by the path without its ending.
    """
    used: set[str] = set()
    places, renamed = [], []
    for record in draft.records:
        plain = _plain(record, draft.root)
        flat = to == "voc" or (to == "yolo" and not record.split and split_of(plain.parts[0]))
        name = PurePosixPath("_".join(plain.parts)) if flat else plain
        top = PurePosixPath("JPEGImages") if to == "voc" else PurePosixPath("images", record.split)
        place, count = top / name, 1
        while str(place.with_suffix("")).casefold() in used:
            count += 1
            place = top / name.with_stem(f"{name.stem}_{count}")
        used.add(str(place.with_suffix("")).casefold())
        if str(place.relative_to(top)) != record.name:
            renamed.append(f"{printable_path(record.path)} is {place}")
        places.append(str(place))
    if renamed:
        notes.append(f"{counted(len(renamed), 'image has', 'images have')} another name: {shown(renamed, 3)}")
    return places


def _plain(record: ImageRecord, root: Path) -> PurePosixPath:
    """A record's name with an image's ending, that every format and file system takes."""
    parts = ["".join(c if c.isprintable() else "_" for c in part).strip() for part in PurePosixPath(record.name).parts]
    path = PurePosixPath(*(f"_{part[1:]}" if part.startswith(".") else part or "_" for part in parts))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path
    try:
        return path.with_name(f"{path.name}.{describe(root / record.path).format.lower()}")
    except ImageError:
        return path  # not read, so not copied either

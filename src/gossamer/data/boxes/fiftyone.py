"""FiftyOne's own detections: data/ and labels.json with classes, and for each image its boxes in parts of its sides.

https://docs.voxel51.com/user_guide/export_datasets.html, FiftyOneImageDetectionDataset.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from gossamer.data.boxes.finder import Finder
from gossamer.data.boxes.jsonfile import read_json
from gossamer.data.boxes.records import (
    BoxRecord,
    Draft,
    ImageRecord,
    class_name,
    each_image,
    image_files,
    image_size,
    parse_number,
    split_of_path,
)
from gossamer.data.folder import printable_path
from gossamer.data.source import class_order, shown
from gossamer.errors import DataError
from gossamer.host.encoding import peeked
from gossamer.host.storage import open_regular
from gossamer.host.text import counted

FILE = "labels.json"
_LABELS = re.compile(rb'"labels"\s*:\s*\{')
_ALLOWED = "FiftyOne's labels.json: classes, and labels with a list of boxes per image"


def fiftyone_file(root: Path) -> Path | None:
    """labels.json of FiftyOne with boxes, None where there is none."""
    path = root / FILE
    try:
        with open_regular(path) as file:
            start = peeked(file.read(1 << 16))
    except OSError:
        return None
    return path if _LABELS.search(start) and b'"bounding_box"' in start else None


def read_fiftyone(root: Path, file: Path) -> Draft:
    """What labels.json says; the images are in data/ or beside. Raises DataError."""
    where = printable_path(str(file))
    value = read_json(file)
    listed, labels = value.get("classes"), value.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise DataError(f"{where}: has no labels", _ALLOWED, "fix the file")
    declared = tuple(class_name(name, where) for name in listed) if isinstance(listed, list) else ()
    if len(set(declared)) < len(declared):
        raise DataError(f"{where}: a class name is given twice", "unique names", "fix the file")
    notes: list[str] = []
    finder = Finder(root)
    stems: dict[str, str] = {}
    for path in image_files(root, notes):
        plain = Path(path)
        for key in (
            plain.stem,
            plain.with_suffix("").as_posix(),
            plain.with_suffix("").as_posix().removeprefix("data/"),
        ):
            stems.setdefault(key, path)

    def read(key: str) -> ImageRecord:
        place = root / stems[key] if key in stems else finder.find(key, [root / "data"])
        if place is None:
            raise DataError(f"{where}: {printable_path(key)!r} is not there", "its image in data/", "restore the image")
        relative = place.relative_to(root)
        size = image_size(place)
        entries = labels[key] or []
        if not isinstance(entries, list):
            raise DataError(f"{where}: the labels of {printable_path(key)!r} are no list", _ALLOWED, "fix the file")
        boxes = [_drawn(entry, size, declared, where) for entry in entries]
        return ImageRecord(relative.as_posix(), relative.as_posix(), split_of_path(relative.parent), size, boxes)

    records = each_image(list(labels), read, "image", "images", notes)
    known = {record.path for record in records}
    bare = [path for path in image_files(root) if path not in known]
    if bare:
        unlisted = counted(len(bare), "image is not listed and is", "images are not listed and are")
        notes.append(f"{where}: {unlisted} left out: {shown(map(printable_path, bare))}")
    used = class_order(box.name for record in records for box in record.boxes)
    written = set(used) <= set(declared)
    return Draft("fiftyone", root, declared if written else used, written, records, notes)


def _drawn(entry: Any, size: tuple[int, int], classes: tuple[str, ...], where: str) -> BoxRecord:
    """Raises DataError."""
    box, label = (entry.get("bounding_box"), entry.get("label")) if isinstance(entry, dict) else (None, None)
    if not isinstance(box, list) or len(box) != 4:
        raise DataError(f"{where}: a box is no list of x, y, width, height", _ALLOWED, "fix the file")
    if type(label) is int and 0 <= label < len(classes):
        label = classes[label]
    x, y, w, h = (parse_number(part) * side for part, side in zip(box, (size[1], size[0]) * 2))
    corners = (x, y, x + w, y + h)
    return BoxRecord(corners if all(map(math.isfinite, corners)) else (math.nan,) * 4, class_name(label, where))

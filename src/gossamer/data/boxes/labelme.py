"""labelme's JSON, a file per image, as labelme and X-AnyLabeling write it: shapes with a label and points in pixels.

https://github.com/wkentaro/labelme and https://github.com/CVHub520/X-AnyLabeling. Rectangles, polygons, circles and
rotated boxes have an area; points and lines have none. The files lie beside their images or in a folder of their own.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from gossamer.data.boxes.finder import Finder
from gossamer.data.boxes.jsonfile import read_json
from gossamer.data.boxes.records import (
    CHANGED,
    SIDECAR,
    WAIT,
    BoxRecord,
    Draft,
    ImageRecord,
    class_name,
    declared_size,
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
from gossamer.images.hidden import is_hidden

_PEEK = 1 << 16
_SHAPES = re.compile(rb'"shapes"\s*:\s*\[')
_TRIED = 20  # files of a folder that are looked into before it is one without such files
_CORNERS = 36  # of the polygon for a circle
_LIMIT = 1 << 28  # bytes; the file may hold the image, too
_ALLOWED = "labelme's JSON files: shapes, imagePath"


def labelme_files(root: Path) -> list[Path]:
    """The files of labelme below a folder, in order; [] where none of the first is one."""
    result: list[Path] = []
    for top, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not is_hidden(name))
        paths = [
            Path(top, name)
            for name in sorted(files)
            if name.lower().endswith(".json") and not is_hidden(name) and name != SIDECAR
        ]
        if any(is_labelme(path) for path in paths[:_TRIED]):
            result += paths
    return result


def is_labelme(path: Path) -> bool:
    """Whether a JSON file has shapes."""
    try:
        with open_regular(path) as file:
            return bool(_SHAPES.search(peeked(file.read(_PEEK))))
    except OSError:
        return False


def read_labelme(root: Path) -> Draft:
    """What labelme's files below a folder say, in the splits of its folders. Raises DataError."""
    notes: list[str] = []
    skipped: Counter[str] = Counter()
    finder = Finder(root)
    files = [path.relative_to(root).as_posix() for path in labelme_files(root)]
    read = partial(_record, root, finder, skipped)
    if not files:
        raise DataError(f"{root}: {CHANGED}", _ALLOWED, WAIT)
    records = each_image(files, read, "labelme file", "labelme files", notes)
    seen: dict[str, ImageRecord] = {}
    twice = [record.path for record in records if seen.setdefault(record.path, record) is not record]
    if twice:
        raise DataError(f"{root}: two files are of {printable_path(twice[0])}", "one file per image", "remove one")
    if skipped:
        kinds = ", ".join(f"{count} {printable_path(kind)}" for kind, count in skipped.most_common())
        no_area = counted(sum(skipped.values()), "shape has no area and is", "shapes have no area and are")
        notes.append(f"{root}: {no_area} left out: {kinds}")
    bare = [name for name in image_files(root, notes) if name not in seen]
    if bare:
        no_annotation = counted(len(bare), "image has no annotation and is", "images have no annotation and are")
        notes.append(f"{root}: {no_annotation} left out: {shown(map(printable_path, bare))}")
    classes = class_order(box.name for record in records for box in record.boxes)
    return Draft("labelme", root, classes, False, records, notes)


def _record(root: Path, finder: Finder, skipped: Counter[str], name: str) -> ImageRecord:
    """Raises DataError, ImageError."""
    path = root / name
    where = printable_path(str(path))
    value = read_json(path, _LIMIT)
    shapes, image = value.get("shapes"), value.get("imagePath")
    if not isinstance(shapes, list):
        raise DataError(f"{where}: has no shapes", _ALLOWED, "fix or remove the file")
    named = [image] if isinstance(image, str) and image else []
    beside = [f"{path.stem}{suffix}" for suffix in (".jpg", ".png", ".jpeg", ".JPG", ".bmp", ".tif", ".webp")]
    place = next((image_path for each in [*named, *beside] if (image_path := finder.find(each, [path.parent]))), None)
    if place is None:
        raise DataError(f"{where}: its image {shown(map(printable_path, named))} is not there", _ALLOWED, "restore it")
    size = declared_size(value.get("imageHeight"), value.get("imageWidth")) or image_size(place)
    relative = place.relative_to(root).as_posix()
    boxes = [box for shape in shapes for box in _drawn(shape, where, skipped)]
    return ImageRecord(relative, relative, split_of_path(PurePosixPath(name).parent), size, boxes)


def _drawn(shape: Any, where: str, skipped: Counter[str]) -> Iterator[BoxRecord]:
    """The box of a shape; none of one without an area, which is counted. Raises DataError."""
    if not isinstance(shape, dict):
        raise DataError(f"{where}: a shape is no object", _ALLOWED, "fix the file")
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if not isinstance(kind, str) or not isinstance(points, list):
        raise DataError(f"{where}: a shape has no points", _ALLOWED, "fix the file")
    pairs = [tuple(map(parse_number, point)) if isinstance(point, list) else () for point in points]
    if any(len(pair) != 2 for pair in pairs):
        raise DataError(f"{where}: a point is no pair of numbers", _ALLOWED, "fix the file")
    corners = [(pair[0], pair[1]) for pair in pairs]
    if kind == "circle" and len(corners) == 2:
        (x, y), (a, b) = corners
        radius = math.hypot(a - x, b - y)
        turns = [2 * math.pi * i / _CORNERS for i in range(_CORNERS)]
        corners = [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
    elif kind in ("rectangle", "mask") and len(corners) == 2:
        (x, y), (a, b) = corners
        corners = [(x, y), (a, y), (a, b), (x, b)]
    elif kind in ("point", "points", "line", "linestrip", "linepoints") or len(corners) < 3:
        skipped[kind] += 1
        return
    name = class_name(shape.get("label"), where)
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    outline = tuple(value for corner in corners for value in corner)
    difficult = shape.get("difficult") is True
    box = (min(xs), min(ys), max(xs), max(ys)) if all(map(math.isfinite, outline)) else (math.nan,) * 4
    outlines = (outline,) if kind not in ("rectangle", "mask") and math.isfinite(box[0]) else ()  # a box is no outline
    yield BoxRecord(box, name, difficult=difficult, outlines=outlines)

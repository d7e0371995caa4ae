"""CVAT for images: one XML file with the labels and, for each image, its boxes and polygons in pixels.

https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/, version 1.1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from gossamer.data.boxes.finder import Finder
from gossamer.data.boxes.records import (
    BoxRecord,
    Draft,
    Edges,
    ImageRecord,
    class_name,
    declared_size,
    each_image,
    files_in,
    image_files,
    image_size,
    parse_angle,
    parse_number,
    split_of,
)
from gossamer.data.boxes.xmlfile import read_xml
from gossamer.data.folder import printable_path
from gossamer.data.source import class_order, shown
from gossamer.errors import DataError
from gossamer.host.encoding import peeked
from gossamer.host.storage import open_regular
from gossamer.host.text import counted

_PEEK = 1 << 12
_LIMIT = 1 << 28
_ALLOWED = "CVAT for images 1.1: <annotations> with an <image> each"
_CORNERS = 36  # of the polygon for an ellipse


def cvat_file(root: Path) -> Path | None:
    """The file of CVAT for images at the top of a folder, None where there is none."""
    return next((path for path in files_in(root, ".xml") if is_cvat(path)), None)


def is_cvat(path: Path) -> bool:
    """Whether an XML file begins with <annotations>."""
    try:
        with open_regular(path) as file:
            return b"<annotations" in peeked(file.read(_PEEK))
    except OSError:
        return False


def read_cvat(root: Path, file: Path) -> Draft:
    """What a file of CVAT for images says; the images are below `root`. Raises DataError."""
    where = printable_path(str(file))
    top = read_xml(file, _LIMIT, _ALLOWED)
    if top.tag != "annotations":
        raise DataError(f"{where}: begins with <{printable_path(top.tag)}>", _ALLOWED, "give another file")
    if top.find("track") is not None:
        raise DataError(f"{where}: has tracks of a video", _ALLOWED, "export it as CVAT for images")
    notes: list[str] = []
    skipped: Counter[str] = Counter()
    finder = Finder(root)
    images = {str(number): element for number, element in enumerate(top.iter("image"))}
    if not images:
        raise DataError(f"{where}: has no images", _ALLOWED, "export the task again")
    records = each_image(
        list(images), lambda key: _record(images[key], root, finder, where, skipped), "image", "images", notes
    )
    if skipped:
        kinds = ", ".join(f"{count} {printable_path(kind)}" for kind, count in skipped.most_common())
        no_boxes = ("shape is no box or polygon and is", "shapes are no boxes or polygons and are")
        notes.append(f"{where}: {counted(sum(skipped.values()), *no_boxes)} left out: {kinds}")
    known = {record.path for record in records}
    bare = [name for name in image_files(root, notes) if name not in known]
    if bare:
        unlisted = counted(len(bare), "image is not listed and is", "images are not listed and are")
        notes.append(f"{where}: {unlisted} left out: {shown(map(printable_path, bare))}")
    labels = [name for label in top.iter("label") if (name := (label.findtext("name") or "").strip())]
    used = class_order(box.name for record in records for box in record.boxes)
    declared = set(used) <= set(labels)
    classes = tuple(dict.fromkeys(class_name(name, where) for name in labels)) if declared else used
    return Draft("cvat", root, classes, declared, records, notes)


def _record(element: ElementTree.Element, root: Path, finder: Finder, where: str, skipped: Counter[str]) -> ImageRecord:
    """Raises DataError, ImageError."""
    name, subset = element.get("name", ""), element.get("subset", "")
    near = [root / "images" / subset, root / "images"] if subset.isalnum() else [root / "images"]
    place = finder.find(name, near)
    if place is None:
        raise DataError(f"{where}: {printable_path(name)!r} is not there", "its images beside it", "restore the image")
    size = declared_size(element.get("height"), element.get("width")) or image_size(place)
    boxes = [box for shape in element for box in _drawn(shape, where, skipped)]
    relative = place.relative_to(root).as_posix()
    return ImageRecord(relative, relative, split_of(subset), size, boxes)


def _drawn(shape: ElementTree.Element, where: str, skipped: Counter[str]) -> Iterator[BoxRecord]:
    """The box of a shape; what has no area is counted. Raises DataError where it has no label."""
    outline: list[float] = []
    upright = False  # a box alone is no outline of what is in it

    def numbers(*keys: str) -> list[float]:
        return [parse_number(shape.get(key)) for key in keys]

    if shape.tag == "box":
        x0, y0, x1, y1 = numbers("xtl", "ytl", "xbr", "ybr")
        turn = parse_angle(shape.get("rotation", "0"))
        upright = not turn
        outline = _turned([x0, y0, x1, y0, x1, y1, x0, y1], (x0 + x1) / 2, (y0 + y1) / 2, turn)
    elif shape.tag == "polygon":
        points = (shape.get("points") or "").replace(";", ",").split(",")
        outline = [parse_number(value.strip()) for value in points]
    elif shape.tag == "ellipse":
        x, y, rx, ry = numbers("cx", "cy", "rx", "ry")
        turns = [2 * math.pi * i / _CORNERS for i in range(_CORNERS)]
        round_it = [value for turn in turns for value in (x + rx * math.cos(turn), y + ry * math.sin(turn))]
        outline = _turned(round_it, x, y, parse_angle(shape.get("rotation", "0")))
    elif shape.tag == "mask":
        left, top, width, height = numbers("left", "top", "width", "height")
        yield BoxRecord((left, top, left + width, top + height), class_name(shape.get("label"), where))
        return
    if len(outline) < 6 or len(outline) % 2:
        skipped[shape.tag] += 1
        return
    box: Edges = (math.nan,) * 4
    if all(map(math.isfinite, outline)):
        xs, ys = outline[::2], outline[1::2]
        box = (min(xs), min(ys), max(xs), max(ys))
    yield BoxRecord(
        box,
        class_name(shape.get("label"), where),
        outlines=(tuple(outline),) if math.isfinite(box[0]) and not upright else (),
    )


def _turned(outline: list[float], x: float, y: float, turn: float) -> list[float]:
    """An outline turned about (x, y), clockwise as seen, by `turn` in radians."""
    if not turn:
        return outline
    cosine, sine = math.cos(turn), math.sin(turn)
    return [
        value
        for a, b in zip(outline[::2], outline[1::2])
        for value in (x + (a - x) * cosine - (b - y) * sine, y + (a - x) * sine + (b - y) * cosine)
    ]

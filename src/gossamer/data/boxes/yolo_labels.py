"""The lines of a YOLO label file: class, centre x, centre y, width, height, in parts of the image's sides.

A line with more is a polygon, class, x, y, x, y, ...: its box is what encloses it; or a box with key points behind it, as
kpt_shape of data.yaml says, which are left out.
"""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.data.boxes.records import BoxRecord, Edges, ImageRecord, Size, lines_of, parse_number
from gossamer.data.folder import printable_path
from gossamer.data.source import shown
from gossamer.errors import DataError

_LINE = "class, centre x, centre y, width, height, or class and a polygon"


@dataclass
class KeyPoints:
    """count: numbers behind each box that are its key points, 0 for none. boxes: how many have had some."""

    count: int
    boxes: int = 0


def read_labels(path: Path, size: Size, names: tuple[str, ...], points: KeyPoints | None = None) -> list[BoxRecord]:
    """The boxes of a label file, of an image of `size`. points: of the set; counts the boxes that have some.

    Raises DataError.
    """
    where = printable_path(str(path))
    counted = points or KeyPoints(0)
    lines = enumerate(lines_of(path), 1)
    return [_drawn(line, f"{where}: line {i}", size, names, counted) for i, line in lines if line]


def _drawn(line: str, where: str, size: Size, names: tuple[str, ...], points: KeyPoints) -> BoxRecord:
    """Raises DataError on a line of another shape."""
    words = line.split()
    values = [parse_number(word) for word in words]
    if len(words) > 5 and (len(words) == 5 + points.count or _are_key_points(values[5:])):
        points.boxes += 1
        words, values = words[:5], values[:5]
    polygon = len(words) >= 7 and len(words) % 2 == 1
    if len(words) == 6 or (len(words) == 7 and values[6] > 1 and values[6].is_integer()):  # a track is no corner
        what = f"{reprlib.repr(line)} has more than a box, as confidences and tracks"
        raise DataError(f"{where}: {what}", _LINE, "cut off what stands behind the box")
    if not (len(words) == 5 or polygon) or not values[0].is_integer():
        raise DataError(f"{where}: {reprlib.repr(line)}", _LINE, "fix or remove the file")
    height, width = size
    if polygon:
        xs, ys = values[1::2], values[2::2]
        bad = any(map(math.isnan, values))
        box: Edges = (math.nan,) * 4 if bad else (min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height)
    else:
        _, x, y, w, h = values
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    known = 0 <= values[0] < len(names)
    extra: dict[str, Any] = {} if known else {"class": words[0]}
    outlines: tuple[tuple[float, ...], ...] = ()
    if polygon:
        extra["yolo"] = words[1:]
        if all(map(math.isfinite, values)):
            outlines = (tuple(value * (height if i % 2 else width) for i, value in enumerate(values[1:])),)
    return BoxRecord(box, names[int(values[0])] if known else "", extra=extra, outlines=outlines)


def _are_key_points(values: list[float]) -> bool:
    """Whether numbers behind a box are x, y and a visibility of 0, 1 or 2 a point: a polygon has as many of another
    number, an even one with the four of the box."""
    return len(values) % 6 == 3 and all(value in (0, 1, 2) for value in values[2::3])


def check_known(record: ImageRecord, names: tuple[str, ...]) -> None:
    """Raises DataError on a class number beyond the names: it is a mistake in the names, not in one image."""
    for box in record.boxes:
        if "class" in box.extra:
            raise DataError(
                f"{printable_path(record.path)}: its labels have class {reprlib.repr(box.extra['class'])}",
                f"0 to {len(names) - 1} ({shown(names)})",
                "fix the label file or the class names",
            )

"""Label Studio's JSON and JSON-MIN: a list of tasks with an image and its regions, in per cent of its sides.

https://labelstud.io/guide/export and https://labelstud.io/templates/image_bbox. A region turned about its upper left
corner counts as the polygon that it covers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.data.boxes.finder import Finder
from gossamer.data.boxes.jsonfile import read_list
from gossamer.data.boxes.records import (
    BoxRecord,
    Draft,
    ImageRecord,
    class_name,
    declared_size,
    each_image,
    files_in,
    image_size,
    parse_angle,
    parse_number,
    split_of_path,
)
from gossamer.data.folder import printable_path
from gossamer.data.source import class_order, shown
from gossamer.errors import DataError
from gossamer.host.encoding import peeked
from gossamer.host.storage import open_regular
from gossamer.host.text import counted

_PEEK = 1 << 16
_WORDS = re.compile(
    rb'"(?:annotations|completions|rectanglelabels|polygonlabels|ellipselabels|choices?|annotation_id)"'
)
_ADDRESS = re.compile(r"\.(?:jpe?g|png|bmp|gif|tiff?|webp)(?:\?.*)?$", re.IGNORECASE)
_ALLOWED = "Label Studio's JSON: a list of tasks with data and annotations"
_CORNERS = 36  # of the polygon for an ellipse


@dataclass(frozen=True)
class LabelTask:
    """A task: the image as the file names it, and the regions of the annotation that counts."""

    image: str
    regions: list[dict[str, Any]]
    task: dict[str, Any]


def label_studio_file(root: Path) -> Path | None:
    """The first file of Label Studio at the top of a folder, None where there is none."""
    return next((path for path in files_in(root, ".json") if is_label_studio(path)), None)


def is_label_studio(path: Path) -> bool:
    """Whether a JSON file is a list with the words of Label Studio."""
    try:
        with open_regular(path) as file:
            start = peeked(file.read(_PEEK)).lstrip()
    except OSError:
        return False
    return start.startswith(b"[") and b'"bndbox"' not in start and bool(_WORDS.search(start))


def label_tasks(path: Path, notes: list[str]) -> list[LabelTask]:
    """The tasks of a file that have an image and an annotation; the notes count the others. Raises DataError."""
    where = printable_path(str(path))
    tasks: list[LabelTask] = []
    bare, several, nameless = [], 0, 0
    entries, odd = read_list(path, _ALLOWED)
    for entry in entries:
        image = _image_of(entry)
        if not image:
            nameless += 1
            continue
        drafts = entry.get("annotations", entry.get("completions"))
        if not {"annotations", "completions"} & entry.keys():  # JSON-MIN: the regions stand at the top of the task
            regions = [
                region
                for value in entry.values()
                if isinstance(value, list)
                for region in value
                if isinstance(region, dict)
            ]
            tasks.append(LabelTask(image, regions, entry))
            continue
        done = [each for each in _objects(drafts) if not each.get("was_cancelled") and each.get("result") is not None]
        if not done:
            bare.append(image)
            continue
        several += len(done) > 1
        chosen = next((each for each in done if each.get("ground_truth") is True), done[-1])
        tasks.append(LabelTask(image, _objects(chosen["result"]), entry))
    if nameless and not tasks:
        raise DataError(
            f"{where}: {counted(nameless, 'task names', 'tasks name')} no image", _ALLOWED, "export tasks of images"
        )
    if nameless:
        no_image = counted(nameless, "task names no image and is", "tasks name no image and are")
        notes.append(f"{where}: {no_image} left out")
    if odd:
        notes.append(f"{where}: {counted(odd, 'task is no object and is', 'tasks are no objects and are')} left out")
    if bare:
        no_annotation = counted(len(bare), "task has no annotation and is", "tasks have no annotation and are")
        notes.append(f"{where}: {no_annotation} left out: {shown(map(printable_path, bare))}")
    if several:
        tasks_with = counted(several, "task has", "tasks have")
        notes.append(f"{where}: {tasks_with} several annotations; the ground truth counts, or else the last")
    if not tasks:
        raise DataError(f"{where}: none of its tasks has an annotation", _ALLOWED, "annotate and export them")
    return tasks


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _image_of(entry: dict[str, Any]) -> str:
    data = entry.get("data")
    values: dict[str, Any] = data if isinstance(data, dict) else entry
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    named = texts.get("image") or texts.get("img") or ""
    return named or next((value for value in texts.values() if _ADDRESS.search(value)), "")


def read_label_studio(root: Path, file: Path) -> Draft:
    """What a file of Label Studio says; the images are below `root`. Raises DataError."""
    where = printable_path(str(file))
    notes: list[str] = []
    skipped: Counter[str] = Counter()
    finder = Finder(root)
    tasks = {str(number): task for number, task in enumerate(label_tasks(file, notes))}
    records = each_image(
        list(tasks), lambda key: _record(tasks[key], root, finder, where, skipped), "task", "tasks", notes
    )
    paths = Counter(record.path for record in records)
    repeated = [printable_path(path) for path, count in paths.items() if count > 1]
    records = [record for record in records if paths[record.path] == 1]  # none of the others is known to be right
    if repeated and not records:
        raise DataError(f"{where}: two tasks are of {repeated[0]}", "one task an image", "remove one")
    if repeated:
        of_two = counted(len(repeated), "image has two tasks or more, and is", "images have two tasks or more, and are")
        notes.append(f"{where}: {of_two} skipped: {shown(repeated)}")
    if skipped:
        kinds = ", ".join(f"{count} {printable_path(kind)}" for kind, count in skipped.most_common())
        no_boxes = ("region is no labelled box or polygon", "regions are no labelled boxes or polygons")
        notes.append(f"{where}: {counted(sum(skipped.values()), *no_boxes)}, and left out: {kinds}")
    classes = class_order(box.name for record in records for box in record.boxes)
    return Draft("labelstudio", root, classes, False, records, notes)


def _record(task: LabelTask, root: Path, finder: Finder, where: str, skipped: Counter[str]) -> ImageRecord:
    """Raises DataError, ImageError."""
    place = finder.find(task.image, [root / "images"])
    if place is None:
        raise DataError(f"{where}: {printable_path(task.image)!r} is not there", "its images beside it", "restore it")
    relative = place.relative_to(root)
    first = task.regions[0] if task.regions else {}
    size = declared_size(first.get("original_height"), first.get("original_width")) or image_size(place)
    boxes = [box for region in task.regions for box in _drawn(region, size, where, skipped)]
    return ImageRecord(relative.as_posix(), relative.as_posix(), split_of_path(relative.parent), size, boxes)


def _drawn(region: dict[str, Any], size: tuple[int, int], where: str, skipped: Counter[str]) -> Iterator[BoxRecord]:
    """The boxes of a region, one per label; none of one that is no box or polygon, or has no label, which is counted."""
    inner = region.get("value")
    value: dict[str, Any] = inner if isinstance(inner, dict) else region
    kind = next(
        (key.removesuffix("labels") for key in value if key.endswith("labels")), str(region.get("type", "other"))
    )
    labels = next((value[key] for key in value if key.endswith("labels")), None)
    outline = _outline(value, size)
    if not isinstance(labels, list) or not labels or not outline:
        skipped[kind] += 1
        return
    box = (math.nan,) * 4
    if finite := all(map(math.isfinite, outline)):
        xs, ys = outline[::2], outline[1::2]
        box = (min(xs), min(ys), max(xs), max(ys))
    drawn = (
        "points" in value or "radiusX" in value or parse_number(value.get("rotation", 0)) != 0
    )  # a box is no outline
    for label in labels:
        yield BoxRecord(box, class_name(label, where), outlines=(tuple(outline),) if finite and drawn else ())


def _outline(value: dict[str, Any], size: tuple[int, int]) -> list[float]:
    """The outline of a region in pixels, [] where it has none."""
    height, width = size
    if isinstance(value.get("points"), list):
        points = value["points"]
        if len(points) < 3 or not all(isinstance(point, list) and len(point) == 2 for point in points):
            return []
        return [parse_number(part) * side / 100 for point in points for part, side in zip(point, (width, height))]
    turn = parse_angle(value.get("rotation", 0))
    x, y = parse_number(value.get("x")) * width / 100, parse_number(value.get("y")) * height / 100
    if "radiusX" in value:
        a, b = parse_number(value.get("radiusX")) * width / 100, parse_number(value.get("radiusY")) * height / 100
        turns = [2 * math.pi * i / _CORNERS for i in range(_CORNERS)]
        corners = [(a * math.cos(t), b * math.sin(t)) for t in turns]
    elif "width" in value and "height" in value:
        w, h = parse_number(value["width"]) * width / 100, parse_number(value["height"]) * height / 100
        corners = [(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)]
    else:
        return []
    cosine, sine = (math.cos(turn), math.sin(turn)) if turn else (1.0, 0.0)
    return [part for a, b in corners for part in (x + a * cosine - b * sine, y + a * sine + b * cosine)]

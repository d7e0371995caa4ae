"""YOLO text files: images/<split>/ and labels/<split>/, or <split>/images/ and <split>/labels/, or beside their images,
or where data.yaml says; and the class names in data.yaml or classes.txt.

A line is: class, centre x, centre y, width, height, in parts of the image's sides. A line with more is a polygon,
class, x, y, x, y, ...: its box is what encloses it; or a box with key points behind it, as kpt_shape of data.yaml says,
which are left out. An image without a label file shows nothing.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from gossamer.data.boxes import jsonfile
from gossamer.data.boxes.records import (
    BoxRecord,
    Draft,
    Edges,
    ImageRecord,
    Size,
    class_name,
    each_image,
    files_in,
    image_files,
    image_size,
    lines_of,
    parse_number,
    split_of,
)
from gossamer.data.boxes.yolo_config import DARKNET, NAMES, PARTS, YAML, YoloConfig, images_by_split, read_config
from gossamer.data.folder import folders, printable_path
from gossamer.data.source import shown
from gossamer.errors import DataError
from gossamer.host.storage import open_regular
from gossamer.images.hidden import is_hidden
from gossamer.images.preprocess import IMAGE_SUFFIXES

TEXT = (
    *("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "classes.names"),
    *("predefined_classes.txt", "_classes.txt", "names.txt", "coco.names", "voc.names"),
)
NOTES = "notes.json"  # Label Studio's: categories with ids and names
_NAME_STEMS = {"classes", "obj", "labels", "predefined_classes", "_classes", "names"}
_IMAGES = ("images", "jpegimages", "image", "imgs", "img", "data", "photos", "pictures")
_LABELS = ("labels", "label", "annotations", "annotation", "ann", "yolo", "txt")
_ALLOWED = "images/ and labels/ with a text file per image, and data.yaml or classes.txt with the class names"
_TRIED = 20  # label files that are looked into before a folder is one without
_LINE = "class, centre x, centre y, width, height, or class and a polygon"


def yolo_folders(root: Path) -> list[tuple[str, Path, Path]]:
    """(split, folder of images, folder of labels) of each part, [] where there is none."""
    below = {folder.name.lower(): folder for folder in reversed(list(folders(root)))}
    images, labels = below.get("images"), below.get("labels")
    if images and labels:
        named = [folder for folder in folders(images) if split_of(folder.name)]
        return [(split_of(f.name), f, labels / f.name) for f in named] or [("", images, labels)]
    tops = [folder for folder in folders(root) if split_of(folder.name)]
    parts = [(split_of(top.name), top / "images", top / "labels") for top in tops]
    parts = [part for part in parts if part[1].is_dir() and part[2].is_dir()]
    if parts or not _names_file(root, tops):
        return parts
    beside = [(split_of(top.name), top, top) for top in tops if _labels_beside(top)]
    alone = [("", top, top) for top in (root, root / "data", root / "images") if top.is_dir() and _labels_beside(top)]
    return beside or alone[:1] or _folders_by_contents(root, below)


def _folders_by_contents(root: Path, below: Mapping[str, Path]) -> list[tuple[str, Path, Path]]:
    """Folders of images and of labels of other names, as tools and older data sets have them: JPEGImages/ and labels/,
    images/ and annotations/, or labels/ beside the images themselves; [] where the names of the files do not match."""
    images = [below[name] for name in _IMAGES if name in below]
    for labels in (below[name] for name in _LABELS if name in below):
        stems = {path.stem for path in islice(files_in(labels, ".txt"), _TRIED)}
        if not any(_is_label(labels / f"{stem}.txt") for stem in stems):
            continue
        for folder in [*(each for each in images if each != labels), root]:
            if any(path.suffix.lower() in IMAGE_SUFFIXES and path.stem in stems for path in folder.iterdir()):
                return [("", folder, labels)]
    return []


def _names_file(root: Path, tops: Sequence[Path] = ()) -> Path | None:
    """The text file of the class names of a folder: at its top, in one of labels, or of a split."""
    places = (root, root / "labels", root / "data", *tops)
    return next((top / name for top in places for name in TEXT if (top / name).is_file()), None)


def _labels_beside(folder: Path) -> bool:
    """Whether a folder has images with a label file of the same name beside them."""
    stems = {path.stem for path in files_in(folder, ".txt")} - _NAME_STEMS
    names = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    labelled = (path.with_suffix(".txt") for path in names if path.stem in stems)
    return any(_is_label(path) for path in islice(labelled, _TRIED))


def _is_label(path: Path) -> bool:
    """Whether the first line of a text file is one of numbers that a label has."""
    try:
        with open_regular(path) as file:
            words = file.readline(1 << 16).split()
    except OSError:
        return False
    return len(words) >= 5 and all(math.isfinite(parse_number(word.decode("ascii", "replace"))) for word in words)


def is_yolo(root: Path) -> bool:
    """Whether a folder has images/ and labels/, or a configuration whose images have label files."""
    if yolo_folders(root):
        return True
    try:
        config = read_config(root)
    except DataError:
        if any((root / name).is_file() for name in (*YAML, DARKNET)):
            raise
        return False  # another file that ends in .yaml
    named = images_by_split(config, root).splits if config is not None and config.parts else {}
    return any(_label_of(image).is_file() for image in named)


def read_yolo(root: Path, file: Path | None = None) -> Draft:
    """What a YOLO folder says. file: its configuration, where it has a name of its own. The splits are those of data.yaml (or obj.data) where it names them, and else those of the
    folders. Raises DataError: no class names, a class number beyond them, a line of another shape in every file, no
    image at all."""
    notes: list[str] = []
    config = read_config(root, file)
    names = _class_names(root, config, notes)
    places: dict[str, _Place] = {}
    written: set[Path] = set()
    points = _KeyPoints(config.points if config else 0)
    for split, images, labels in yolo_folders(root):
        files = list(image_files(images, notes))
        stems = {_stem(name) for name in files}
        if len(stems) < len(files):
            twice = next(name for i, name in enumerate(files) if i and _stem(name) == _stem(files[i - 1]))
            raise DataError(f"{images}: two images are called {_stem(twice)}", "one image a label file", "rename one")
        written |= {
            path
            for path in labels.rglob("*.txt")
            if (path.stem not in _NAME_STEMS or path.parent != labels) and not is_hidden(path.name)
        }
        for name in files:
            places[(images / name).relative_to(root).as_posix()] = _Place(split, name, labels / f"{_stem(name)}.txt")
    folder_images = bool(places)
    if config is not None and config.parts:
        places = _as_configured(config, root, places, notes)
    if not places:
        what = "none of its images is in a split" if folder_images else "holds labels but no images"
        raise DataError(f"{root}: {what}", _ALLOWED, "check the path")
    bare = sum(not place.label.is_file() for place in places.values())
    orphans = len(written - {place.label for place in places.values()})
    if bare == len(places):
        raise DataError(f"{root}: none of the {bare} images has a label file", _ALLOWED, "check the names of the files")
    if bare:
        notes.append(f"{root}: {bare} images have no label file and count as showing nothing")
    if orphans:
        notes.append(f"{root}: {orphans} label files have no image and are passed over")
    records = each_image(list(places), lambda path: _record(root, path, places[path], names, points), "images", notes)
    records = _of_known_classes(records, names, notes)
    if points.boxes:
        notes.append(f"{root}: {points.boxes} boxes have key points, which are left out")
    return Draft("yolo", root, names, True, records, list(dict.fromkeys(notes)))


@dataclass
class _KeyPoints:
    """count: numbers behind each box that are its key points, 0 for none. boxes: how many have had some."""

    count: int
    boxes: int = 0


class _Place(NamedTuple):
    """The split of an image, its path below its folder of images, and its label file."""

    split: str
    name: str
    label: Path


def _as_configured(config: YoloConfig, root: Path, places: dict[str, _Place], notes: list[str]) -> dict[str, _Place]:
    """The images in the splits that the configuration names; in the order of the folders, those elsewhere behind.

    A split that it does not name, or names where nothing is, is that of the folder called so. Raises DataError where the
    training images that it names are not there.
    """
    configured = images_by_split(config, root)
    notes += configured.notes
    where = printable_path(str(config.path))
    in_folders = {place.split for place in places.values()}
    for split, entries in configured.missing.items():
        if split not in in_folders:  # else the folder that is called so has what the path means
            notes.append(f"{where}: {split} names {_first(entries)}, which is not there")
    by_path = {_relative(image, root): split for image, split in configured.splits.items()}
    if not by_path:
        return places
    configured_splits = set(by_path.values())
    result: dict[str, _Place] = {}
    left: list[str] = []
    for path, place in places.items():
        if path in by_path:
            result[path] = place if configured.undivided else place._replace(split=by_path[path])
        elif place.split and place.split not in configured_splits:
            result[path] = place
        else:
            left.append(path)
    if left:
        notes.append(f"{where}: {len(left)} images are in none of its splits and left out: {_first(left)}")
    for image in configured.splits:
        path = _relative(image, root)
        if path not in result:
            result[path] = _Place(by_path[path], _name_of(path), _label_of(image))
    missing = configured.missing.get("train")
    if missing and all(place.split != "train" for place in result.values()):
        raise DataError(f"{where}: train names {_first(missing)}, which is not there", PARTS, "fix the path")
    return result


def _first(paths: Iterable[str]) -> str:
    return shown(map(printable_path, paths), 3)


def _relative(image: Path, root: Path) -> str:
    """The path of an image from the root, which it may be outside of."""
    return Path(os.path.relpath(image, root)).as_posix()


def _name_of(path: str) -> str:
    """The path of an image below its last folder called images, or else without the folders above the root."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("..", "/")]
    at = max((i for i, part in enumerate(parts[:-1]) if part == "images"), default=-1)
    return PurePosixPath(*parts[at + 1 :]).as_posix()


def _label_of(image: Path) -> Path:
    """The label file of an image as Ultralytics finds it: labels/ for the last images/ in its path, else beside it."""
    parts = list(image.parts)
    at = next((i for i in range(len(parts) - 2, -1, -1) if parts[i] == "images"), None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def _of_known_classes(records: list[ImageRecord], names: tuple[str, ...], notes: list[str]) -> list[ImageRecord]:
    """The records without those of a class number beyond the names, which are noted. Raises DataError where they are as
    many as a third of all: then the names are wrong."""
    known: list[ImageRecord] = []
    failed: list[DataError] = []
    for record in records:
        try:
            check_known(record, names)
            known.append(record)
        except DataError as error:
            failed.append(error)
    if 3 * len(failed) >= len(records) and failed:
        raise failed[0]
    if failed:
        given = shown([error.given for error in failed], 3)
        notes.append(
            f"{len(failed)} of {len(records)} images have a class beyond 0 to {len(names) - 1} and are skipped: {given}"
        )
    return known


def check_known(record: ImageRecord, names: tuple[str, ...]) -> None:
    """Raises DataError on a class number beyond the names: it is a mistake in the names, not in one image."""
    for box in record.boxes:
        if "class" in box.extra:
            raise DataError(
                f"{printable_path(record.path)}: its labels have class {reprlib.repr(box.extra['class'])}",
                f"0 to {len(names) - 1} ({shown(names)})",
                "fix the label file or the class names",
            )


def _record(root: Path, path: str, place: _Place, names: tuple[str, ...], points: _KeyPoints) -> ImageRecord:
    """Raises DataError, ImageError."""
    split, name, label = place
    size = image_size(root / path)
    return ImageRecord(path, name, split, size, read_labels(label, size, names, points) if label.is_file() else [])


def read_labels(path: Path, size: Size, names: tuple[str, ...], points: _KeyPoints | None = None) -> list[BoxRecord]:
    """The boxes of a label file, of an image of `size`. points: of the set; counts the boxes that have some.

    Raises DataError.
    """
    where = printable_path(str(path))
    counted = points or _KeyPoints(0)
    lines = enumerate(lines_of(path), 1)
    return [_drawn(line, f"{where}: line {i}", size, names, counted) for i, line in lines if line]


def _drawn(line: str, where: str, size: Size, names: tuple[str, ...], points: _KeyPoints) -> BoxRecord:
    """Raises DataError on a line of another shape."""
    words = line.split()
    values = [parse_number(word) for word in words]
    if len(words) > 5 and (len(words) == 5 + points.count or _are_key_points(values[5:])):
        points.boxes += 1
        words, values = words[:5], values[:5]
    polygon = len(words) >= 7 and len(words) % 2 == 1
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


def _class_names(root: Path, config: YoloConfig | None, notes: list[str]) -> tuple[str, ...]:
    """The class names in the order of their numbers. Raises DataError."""
    plain = _names_file(root, [folder for folder in folders(root) if split_of(folder.name)])
    if config is not None and config.names:
        path, listed = config.path, list(config.names)
    elif plain is not None:
        path, listed = plain, [line for line in lines_of(plain) if line]
    elif (root / NOTES).is_file():
        path, listed = root / NOTES, _noted_names(root / NOTES)
    elif config is not None:
        raise DataError(f"{config.path}: has no names", NAMES, "add the class names")
    else:
        raise DataError(f"{root}: has no class names", _ALLOWED, "write one class name per line into classes.txt")
    names = tuple(class_name(name, str(path)) for name in listed)
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"{path}: {'a class name is given twice' if names else 'names no class'}", "unique names", "fix it"
        )
    if config is not None and config.count not in (-1, len(names)):
        notes.append(f"{config.path}: says {config.count} classes but names {len(names)}; the names count")
    return names


def _noted_names(path: Path) -> list[Any]:
    """The names of Label Studio's notes.json, by their ids from 0. Raises DataError."""
    named = {
        entry.get("id"): entry.get("name")
        for entry in jsonfile.entries(jsonfile.read_json(path), "categories", str(path))
    }
    if set(named) != set(range(len(named))):
        raise DataError(f"{path}: the ids of its categories have gaps", "0, 1, 2, ...", "write a classes.txt")
    return [named[number] for number in range(len(named))]


def yolo_files(draft: Draft, paths: list[str]) -> Iterator[tuple[str, str]]:
    """(path, text) of the label files and data.yaml for records whose images are at `paths` (images/...).

    record.size must be the image's own. Ultralytics needs both train and val: where the images are not divided, or have one
    part alone, the two name the same images, which `images_by_split` reads back as no split.
    """
    number_of = {name: i for i, name in enumerate(draft.classes)}
    for record, path in zip(draft.records, paths, strict=True):
        lines = [_line(box, number_of[box.name], record.size) for box in record.boxes]
        label = PurePosixPath("labels", *PurePosixPath(path).parts[1:]).with_suffix(".txt")
        yield str(label), "".join(f"{line}\n" for line in lines)
    folders = {record.split: f"images/{record.split}".rstrip("/") for record in draft.records}
    only = next((folders[split] for split in ("train", "", "val", "test") if split in folders), "images")
    lines = [f"train: {folders.get('train', only)}", f"val: {folders.get('val', only)}"]
    if "train" not in folders and len(folders) > 1:  # Ultralytics asks for the key, and validates without its images
        lines[0] = "train:  # no images"
    if "val" not in folders:
        lines[-1] += "  # the images of train: none are held out for validation"
    lines += [f"test: {folders['test']}"] if "test" in folders else []
    lines += ["names:", *(f"  {i}: {json.dumps(name, ensure_ascii=False)}" for i, name in enumerate(draft.classes))]
    yield "data.yaml", "\n".join(lines) + "\n"


def _line(box: BoxRecord, label: int, size: Size) -> str:
    """Twelve digits, a thousandth of a thousandth of a pixel in the largest image."""
    if "yolo" in box.extra:
        return " ".join([str(label), *box.extra["yolo"]])
    height, width = size
    x0, y0, x1, y1 = box.box
    values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
    return " ".join([str(label), *(f"{value:.12g}" for value in values)])


def lost_in_yolo(draft: Draft) -> list[str]:
    """What the format has no place for, a line each."""
    boxes = [box for record in draft.records for box in record.boxes]
    counts = {
        "crowds": sum(box.crowd for box in boxes),
        "difficult": sum(box.difficult for box in boxes),
        "areas": sum(not math.isnan(box.area) for box in boxes),
    }
    return [f"YOLO has no place for {what}: {count} boxes" for what, count in counts.items() if count]

"""YOLO text files: images/<split>/ and labels/<split>/, or <split>/images/ and <split>/labels/, and the class names in
data.yaml or classes.txt.

A line is: class, centre x, centre y, width, height, in parts of the picture's sides. A line with more is a polygon,
class, x, y, x, y, ...: its box is what encloses it. An image without a label file shows nothing.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from gossamer.data.boxes.records import (
    BoxRecord,
    Draft,
    Edges,
    ImageRecord,
    Size,
    class_name,
    contents,
    each_image,
    image_files,
    image_size,
    lines_of,
    parse_number,
    split_of,
)
from gossamer.data.folder import folders, printable_path
from gossamer.data.source import shown
from gossamer.errors import DataError, MissingPackageError

YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
TEXT = ("classes.txt", "obj.names")
_YAML_LIMIT = 1 << 20
_BRACKETS = 1000  # PyYAML takes time with the square of their depth
_ALLOWED = "images/ and labels/ with a text file an image, and data.yaml or classes.txt with the class names"
_LINE = "class, centre x, centre y, width, height, or class and a polygon"


def yolo_folders(root: Path) -> list[tuple[str, Path, Path]]:
    """(split, folder of images, folder of labels) of each part, [] where there is none."""
    images, labels = root / "images", root / "labels"
    if images.is_dir() and labels.is_dir():
        named = [folder for folder in folders(images) if split_of(folder.name)]
        return [(split_of(f.name), f, labels / f.name) for f in named] or [("", images, labels)]
    tops = [folder for folder in folders(root) if split_of(folder.name)]
    parts = [(split_of(top.name), top / "images", top / "labels") for top in tops]
    return [part for part in parts if part[1].is_dir() and part[2].is_dir()]


def read_yolo(root: Path) -> Draft:
    """What a YOLO folder says. Raises DataError: no class names, a class number beyond them, a line of another shape in
    every file, no image at all."""
    names = _names(root)
    notes: list[str] = []
    places: dict[str, tuple[str, Path, Path]] = {}
    orphans = bare = 0
    for split, images, labels in yolo_folders(root):
        files = list(image_files(images))
        stems = {Path(name).with_suffix("").as_posix() for name in files}
        if len(stems) < len(files):
            twice = next(name for i, name in enumerate(files) if i and _stem(name) == _stem(files[i - 1]))
            raise DataError(f"{images}: two images are called {_stem(twice)}", "one image a label file", "rename one")
        written = {p.relative_to(labels).with_suffix("").as_posix() for p in labels.rglob("*.txt")}
        written -= {Path(name).stem for name in TEXT}
        orphans, bare = orphans + len(written - stems), bare + len(stems - written)
        places.update({(images / name).relative_to(root).as_posix(): (split, images, labels) for name in files})
    if not places:
        raise DataError(f"{root}: holds labels but no images", _ALLOWED, "check the path")
    if bare == len(places):
        raise DataError(f"{root}: none of the {bare} images has a label file", _ALLOWED, "check the names of the files")
    if bare:
        notes.append(f"{root}: {bare} images have no label file and count as showing nothing")
    if orphans:
        notes.append(f"{root}: {orphans} label files have no image and are passed over")
    records = each_image(list(places), lambda path: _record(root, path, *places[path], names), "images", notes)
    for record in records:
        check_known(record, names)
    return Draft("yolo", root, names, True, records, notes)


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def check_known(record: ImageRecord, names: tuple[str, ...]) -> None:
    """Raises DataError on a class number beyond the names: it is a mistake in the names, not in one image."""
    for box in record.boxes:
        if "class" in box.extra:
            raise DataError(
                f"{printable_path(record.path)}: its labels have class {reprlib.repr(box.extra['class'])}",
                f"0 to {len(names) - 1} ({shown(names)})",
                "fix the label file or the class names",
            )


def _record(root: Path, path: str, split: str, images: Path, labels: Path, names: tuple[str, ...]) -> ImageRecord:
    """Raises DataError, ImageError."""
    name = (root / path).relative_to(images).as_posix()
    label = labels / f"{_stem(name)}.txt"
    size = image_size(root / path)
    return ImageRecord(path, name, split, size, read_labels(label, size, names) if label.is_file() else [])


def read_labels(path: Path, size: Size, names: tuple[str, ...]) -> list[BoxRecord]:
    """The boxes of a label file, of an image of `size`. Raises DataError."""
    where = printable_path(str(path))
    return [_drawn(line, f"{where}: line {i}", size, names) for i, line in enumerate(lines_of(path), 1) if line]


def _drawn(line: str, where: str, size: Size, names: tuple[str, ...]) -> BoxRecord:
    """Raises DataError on a line of another shape."""
    words = line.split()
    values = [parse_number(word) for word in words]
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
    if polygon:
        extra["yolo"] = words[1:]
    return BoxRecord(box, names[int(values[0])] if known else "", extra=extra)


def _names(root: Path) -> tuple[str, ...]:
    """The class names in the order of their numbers. Raises DataError, MissingPackageError."""
    yaml = next((root / name for name in YAML if (root / name).is_file()), None)
    plain = next((top / name for top in (root, root / "labels") for name in TEXT if (top / name).is_file()), None)
    if yaml is None and plain is None:
        raise DataError(f"{root}: has no class names", _ALLOWED, "write a class name a line into classes.txt")
    path = yaml or plain
    listed = _from_yaml(yaml) if yaml else [line for line in lines_of(path or root) if line]
    names = tuple(class_name(name, str(path)) for name in listed)
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"{path}: {'a class name is given twice' if names else 'names no class'}", "unique names", "fix it"
        )
    return names


def _from_yaml(path: Path) -> list[Any]:
    """What stands under `names`: a list, or numbers 0, 1, ... and a name each. Raises DataError."""
    try:
        import yaml
    except ImportError as error:
        raise MissingPackageError("PyYAML", "train", f"reading {path.name}") from error
    allowed = "names: [a, b] or names: {0: a, 1: b}"
    try:
        source = contents(path, _YAML_LIMIT).decode("utf-8-sig")
        if sum(map(source.count, "[{")) > _BRACKETS:
            raise DataError(f"{path}: has more than {_BRACKETS} brackets", allowed, "leave only the names in it")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(source, yaml.SafeLoader)):
            raise DataError(f"{path}: has aliases, which can grow without end", allowed, "write the names out")
        value = yaml.load(source, yaml.BaseLoader)  # all is text: a class may be called "no", "1" or "null"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no YAML: {reprlib.repr(str(error))}", allowed, "fix the file") from error
    if not isinstance(value, dict) or "names" not in value:
        raise DataError(f"{path}: has no names", allowed, "add the class names")
    if "kpt_shape" in value:
        raise DataError(f"{path}: has key points (kpt_shape)", "boxes and polygons", "export boxes")
    names = value["names"]
    if isinstance(names, dict):
        keys = {parse_number(key): name for key, name in names.items()}
        if len(keys) < len(names) or set(keys) != set(range(len(names))):
            raise DataError(
                f"{path}: the names are numbered {shown(map(str, names))}", "0, 1, 2, ...", "fix the numbers"
            )
        names = [keys[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise DataError(f"{path}: names is {reprlib.repr(names)}", allowed, "fix the file")
    return names


def yolo_files(draft: Draft, paths: list[str]) -> Iterator[tuple[str, str]]:
    """(path, text) of the label files and data.yaml for records whose images lie at `paths` (images/...).

    record.size must be the picture's own.
    """
    number_of = {name: i for i, name in enumerate(draft.classes)}
    for record, path in zip(draft.records, paths, strict=True):
        lines = [_line(box, number_of[box.name], record.size) for box in record.boxes]
        label = PurePosixPath("labels", *PurePosixPath(path).parts[1:]).with_suffix(".txt")
        yield str(label), "".join(f"{line}\n" for line in lines)
    splits = dict.fromkeys(record.split for record in draft.records)
    lines = [f"{split}: images/{split}" for split in ("train", "val", "test") if split in splits]
    lines += ["names:", *(f"  {i}: {json.dumps(name, ensure_ascii=False)}" for i, name in enumerate(draft.classes))]
    yield "data.yaml", "\n".join(lines) + "\n"


def _line(box: BoxRecord, label: int, size: Size) -> str:
    """Twelve digits, a thousandth of a thousandth of a pixel in the largest picture."""
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

"""YOLO text files: images/<split>/ and labels/<split>/, or <split>/images/ and <split>/labels/, or beside their images,
or where data.yaml says; and the class names in data.yaml or classes.txt.

`yolo_layout.py` finds them, `yolo_labels.py` reads the lines. An image without a label file shows nothing.
"""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from gossamer.data.boxes import jsonfile
from gossamer.data.boxes.records import (
    Draft,
    ImageRecord,
    class_name,
    each_image,
    image_files,
    image_size,
    lines_of,
    split_of,
    split_of_path,
)
from gossamer.data.boxes.yolo_config import (
    DARKNET,
    NAMES,
    PARTS,
    SPLIT_ORDER,
    YAML,
    YoloConfig,
    YoloSplits,
    images_by_split,
    read_config,
)
from gossamer.data.boxes.yolo_labels import KeyPoints, check_known, read_labels
from gossamer.data.boxes.yolo_layout import LabelFiles, names_file, yolo_folders
from gossamer.data.folder import folders, printable_path
from gossamer.data.source import shown
from gossamer.data.spelling import Spellings
from gossamer.errors import DataError
from gossamer.host.text import counted, none_of

NOTES = "notes.json"  # Label Studio's: categories with ids and names
_ALLOWED = "images/ and labels/ with a text file per image, and data.yaml or classes.txt with the class names"


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
    spellings = Spellings()
    return any(_label_of(image, spellings).is_file() for image in named)


def read_yolo(root: Path, file: Path | None = None) -> Draft:
    """What a YOLO folder says. file: its configuration, where it has a name of its own. The splits are those of data.yaml (or obj.data) where it names them, and else those of the
    folders. Raises DataError: no class names, a class number beyond them, a line of another shape in every file, no
    image at all."""
    notes: list[str] = []
    config = read_config(root, file)
    names = _class_names(root, config, notes)
    places: dict[str, _Place] = {}
    written: set[Path] = set()
    points = KeyPoints(config.points if config else 0)
    for split, images, labels in yolo_folders(root):
        files = list(image_files(images, notes))
        counts = Counter(map(_stem, files))
        if len(counts) < len(files):
            twice = next(stem for stem, count in counts.items() if count > 1)
            raise DataError(f"{images}: two images are called {twice}", "one image a label file", "rename one")
        label_files = LabelFiles(labels)
        written |= label_files.paths
        for name in files:
            places[(images / name).relative_to(root).as_posix()] = _Place(split, name, label_files.of(name))
    folder_images = bool(places)
    if config is not None and config.parts:
        places = _as_configured(config, root, places, notes)
    if not places:
        what = "none of its images is in a split" if folder_images else "holds labels but no images"
        raise DataError(f"{root}: {what}", _ALLOWED, "check the path")
    bare = sum(not place.label.is_file() for place in places.values())
    orphans = len(written - {place.label for place in places.values()})
    if bare == len(places):
        raise DataError(f"{root}: {none_of(bare, 'image')} has a label file", _ALLOWED, "check the names of the files")
    if bare:
        without = counted(bare, "image has no label file and counts", "images have no label file and count")
        notes.append(f"{root}: {without} as showing nothing")
    if orphans:
        alone = counted(orphans, "label file has no image and is", "label files have no image and are")
        notes.append(f"{root}: {alone} passed over")
    records = each_image(
        list(places), lambda path: _record(root, path, places[path], names, points), "image", "images", notes
    )
    records = _of_known_classes(records, names, notes)
    if points.boxes:
        notes.append(f"{root}: {counted(points.boxes, 'box has', 'boxes have')} key points, which are left out")
    return Draft("yolo", root, names, True, records, list(dict.fromkeys(notes)))


class _Place(NamedTuple):
    """The split of an image, its path below its folder of images, and its label file."""

    split: str
    name: str
    label: Path


def _as_configured(config: YoloConfig, root: Path, places: dict[str, _Place], notes: list[str]) -> dict[str, _Place]:
    """The images in the splits that the configuration names; in the order of the folders, those elsewhere behind.

    A split that it does not name, or names where nothing is, is that of the folder called so. Raises DataError where the
    images to train or to validate on are not where it says, and no such folder has them.
    """
    configured = images_by_split(config, root)
    notes += configured.notes
    where = printable_path(str(config.path))
    in_folders = {place.split for place in places.values()}
    unfound = {split: said for split, said in _unfound(configured).items() if split not in in_folders}
    _check_found(config, configured, unfound, where)
    notes += [f"{where}: {split} {said}" for split, said in unfound.items()]
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
        in_none = counted(len(left), "image is", "images are")
        notes.append(f"{where}: {in_none} in none of its splits and left out: {_first(left)}")
    spellings = Spellings()
    for image in configured.splits:
        path = _relative(image, root)
        if path not in result:
            result[path] = _Place(by_path[path], _name_of(path), _label_of(image, spellings))
    return result


def _unfound(configured: YoloSplits) -> dict[str, str]:
    """split -> what a note says of the places that it names without an image in them."""
    said: dict[str, list[str]] = {}
    for places, one, several in (
        (configured.missing, "which is not there", "none of which is there"),
        (configured.empty, "which leads to no image", "none of which leads to an image"),
    ):
        for split, entries in places.items():
            said.setdefault(split, []).append(f"{_first(entries)}, {one if len(entries) == 1 else several}")
    return {split: f"names {' and '.join(said[split])}" for split in SPLIT_ORDER if split in said}


def _check_found(config: YoloConfig, configured: YoloSplits, unfound: Mapping[str, str], where: str) -> None:
    """Raises DataError where training or validation images are not where the configuration says: whatever images there are,
    those that it keeps apart may be among them.

    Validation images may lack as a whole where their place is called so, as images/val: tools name it without having any.
    """
    present = set(configured.splits.values())
    lacking = [split for split in ("train", "val") if split in unfound and split not in present]
    if not lacking or (lacking == ["val"] and all(map(_is_for_validation, config.parts["val"]))):
        return
    if lacking == ["val"]:
        do = "fix the path, or remove val to have some of the training images held out"
    elif "val" in present:
        do = "fix the path"
    else:
        do = f"fix the {'path' if len(lacking) == 1 else 'paths'}, or remove {' and '.join(lacking)} to have all images split"
    raise DataError(f"{where}: {'; '.join(f'{split} {unfound[split]}' for split in lacking)}", PARTS, do)


def _is_for_validation(entry: str) -> bool:
    """Whether a path of the configuration is called as validation images are: images/val, ../valid/images, val.txt."""
    return split_of_path(PurePosixPath(entry.replace("\\", "/"))) == "val"


def _first(paths: Iterable[str]) -> str:
    return shown(map(printable_path, paths), 3)


def _relative(image: Path, root: Path) -> str:
    """The path of an image from the root, which it may be outside of."""
    return Path(os.path.relpath(image, root)).as_posix()


def _name_of(path: str) -> str:
    """The path of an image below its last folder called images, or else without the folders above the root."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("..", "/")]
    at = max((i for i, part in enumerate(parts[:-1]) if part.lower() == "images"), default=-1)
    return PurePosixPath(*parts[at + 1 :]).as_posix()


def _label_of(image: Path, spellings: Spellings) -> Path:
    """The label file of an image as Ultralytics finds it: labels/ for the last images/ in its path, else beside it; either
    folder in whatever case."""
    parts = image.parts
    at = next((i for i in range(len(parts) - 2, -1, -1) if parts[i].lower() == "images"), None)
    if at is None:
        return image.with_suffix(".txt")
    above = Path(*parts[:at])
    labels = spellings.find(above, ("labels",), folder_too=True) or above / "labels"
    path = labels.joinpath(*parts[at + 1 :]).with_suffix(".txt")
    return spellings.find(labels, path.relative_to(labels).parts) or path


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


def _record(root: Path, path: str, place: _Place, names: tuple[str, ...], points: KeyPoints) -> ImageRecord:
    """Raises DataError, ImageError."""
    split, name, label = place
    size = image_size(root / path)
    return ImageRecord(path, name, split, size, read_labels(label, size, names, points) if label.is_file() else [])


def _class_names(root: Path, config: YoloConfig | None, notes: list[str]) -> tuple[str, ...]:
    """The class names in the order of their numbers. Raises DataError."""
    plain = names_file(root, [folder for folder in folders(root) if split_of(folder.name)])
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
        notes.append(f"{config.path}: says {counted(config.count, 'class')} but names {len(names)}; the names count")
    return names


def _noted_names(path: Path) -> list[Any]:
    """The names of Label Studio's notes.json, by their ids from 0. Raises DataError."""
    listed = jsonfile.entries(jsonfile.read_json(path), "categories", str(path))
    ids: list[Any] = [entry.get("id") for entry in listed]
    if not all(type(number) is int for number in ids) or sorted(ids) != list(range(len(ids))):
        what = f"the ids of its categories are {reprlib.repr(ids)}"
        raise DataError(f"{path}: {what}", "0, 1, 2, ..., each once", "write a classes.txt")
    return [entry.get("name") for entry in sorted(listed, key=lambda entry: entry["id"])]

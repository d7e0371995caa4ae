"""COCO detection: JSON with images, annotations and categories, one file per split.

Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, and https://cocodataset.org/#format-data: a bbox is
x, y, width, height in pixels from 0; category ids may have gaps; the area is that of the mask.
"""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections import Counter
from collections.abc import Container
from pathlib import Path, PurePosixPath
from typing import Any

from gossamer.data.boxes.finder import Finder, path_of
from gossamer.data.boxes.jsonfile import entries, listed_entries, read_json
from gossamer.data.boxes.labelme import is_labelme
from gossamer.data.boxes.listed import ListedImages
from gossamer.data.boxes.outlines import box_around
from gossamer.data.boxes.records import (
    CHANGED,
    SIDECAR,
    WAIT,
    BoxRecord,
    Draft,
    ImageRecord,
    class_name,
    declared_size,
    files_in,
    image_files,
    image_size,
    inside,
    parse_number,
    split_of,
)
from gossamer.data.boxes.rle import rle_box
from gossamer.data.folder import folders, printable_path
from gossamer.data.source import shown
from gossamer.errors import DataError, ImageError
from gossamer.host.encoding import peeked
from gossamer.host.storage import open_regular
from gossamer.host.text import counted, none_of

_OWN = frozenset({"bbox", "category_id", "image_id", "iscrowd", "area"})
_OWN_IMAGE = frozenset({"id", "file_name", "width", "height"})
_ALLOWED = "annotations/instances_*.json, or *.json with images, annotations and categories beside the images"
_FOLDERS = ("annotations", "annotation", "labels", "label", "ann", "anns", "json", "coco")  # in lower case
_OTHERS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")  # of COCO, not with boxes to detect
_PEEK = 1 << 16
_LISTS = re.compile(rb'"(?:images|annotations)"\s*:\s*\[')


def coco_files(root: Path) -> list[Path]:
    """The annotation files of a folder: annotations/instances_*.json, else annotations/*.json, else *.json at the top
    and in the folders of splits."""
    for folder in folders(root):
        if folder.name.lower() not in _FOLDERS:
            continue
        paths = [path for path in files_in(folder, ".json") if not is_labelme(path)]
        if folder.name.lower() != _FOLDERS[0] or any(map(is_coco, paths)):
            paths = [path for path in paths if is_coco(path)]
        instances = [path for path in paths if path.name.startswith("instances_")]
        if paths:
            return instances or [path for path in paths if not path.name.startswith(_OTHERS)] or paths
    tops = [root, *(folder for folder in folders(root) if split_of(folder.name))]
    return [path for top in tops for path in files_in(top, ".json") if path.name != SIDECAR and is_coco(path)]


def is_coco(path: Path) -> bool:
    """Whether a JSON file looks like one of COCO: it has lists of images or of annotations. Categories alone, as Label
    Studio's notes.json has them, and counts are none; where the start of a large file shows no more, they do."""
    try:
        with open_regular(path) as file:
            start = file.read(_PEEK + 1)
    except FileNotFoundError:
        return path.is_symlink()  # a link to nothing is told; a file that is gone by now is none
    except OSError:
        return True  # reading it will say what is wrong
    if path.name.endswith(".coco.json"):
        return True
    is_longer, start = len(start) > _PEEK, peeked(start)
    is_list = start.lstrip().startswith(b"[")  # at the top: of another tool
    return not is_list and (bool(_LISTS.search(start)) or (is_longer and b'"categories"' in start))


def is_whole_coco(path: Path) -> bool:
    """Whether a file that looks like one of COCO has its three lists, all empty or all of objects with ids. What it
    says is not checked; one that cannot be read counts as one.

    For a file beside other boxes: lists of images of another kind are written by many tools.
    """
    try:
        content = read_json(path)
    except DataError:
        return True
    lists = [content.get(key) for key in ("images", "annotations", "categories")]
    keys = ("id", "image_id", "id")
    if all(listed == [] for listed in lists):
        return True
    return all(
        isinstance(listed, list) and any(isinstance(entry, dict) and key in entry for entry in listed)
        for listed, key in zip(lists, keys, strict=True)
    )


def read_coco(root: Path, file: Path | None = None) -> Draft:
    """What the COCO files of a folder say, or `file` alone; images and annotations that cannot be used are skipped and noted. Raises
    DataError: a file of another shape, categories that differ between files, no image at all."""
    draft = Draft("coco", root, (), True, [])
    files = [file] if file else coco_files(root)
    if not files:
        raise DataError(f"{root}: {CHANGED}", _ALLOWED, WAIT)
    contents = {path: read_json(path) for path in files}
    categories = _categories(contents)
    draft.classes, draft.extra["coco"] = tuple(categories.values()), {"categories": _others(contents)}
    listed = ListedImages()
    for path, content in contents.items():
        split = split_of(path.stem) or (split_of(path.parent.name) if path.parent != root else "")
        _read_file(draft, path, content, categories, split, listed)
    if not draft.records:
        lost = [*listed.missing, *listed.unreadable]
        none = f"{none_of(len(lost), 'image')} can be read, such as {lost[0]}" if lost else "lists no images"
        raise DataError(
            f"{root}: {none}",
            _ALLOWED,
            "check the path of the images",
        )
    draft.notes += listed.notes()
    known = {record.path for record in draft.records} | listed.paths
    if file is None and (unlisted := [path for path in image_files(root, draft.notes) if path not in known]):
        draft.notes.append(
            f"{root}: {counted(len(unlisted), 'image is', 'images are')} in no annotation file: "
            f"{shown(map(printable_path, unlisted))}"
        )
    _drop_parent(draft)
    return draft


def _categories(contents: dict[Path, dict[str, Any]]) -> dict[int, str]:
    """id -> class name in the order of the ids; all files must agree. Raises DataError."""
    categories: dict[int, str] = {}
    for path, content in contents.items():
        own: dict[int, str] = {}
        for entry in entries(content, "categories", str(path)):
            key = _number(entry.get("id"))
            if key in own and entry.get("name") == own[key]:
                continue
            if type(key) is not int or key in own:
                what = "is no whole number" if type(key) is not int else "is given twice"
                raise DataError(f"{path}: category id {reprlib.repr(key)} {what}", "unique whole numbers", "fix it")
            name = entry.get("name")
            own[key] = class_name(str(name) if type(name) is int else name, str(path))
            if categories.setdefault(key, own[key]) != own[key]:
                raise DataError(
                    f"{path}: category {key} is {own[key]}, and {categories[key]} in another file",
                    "the same categories in all files",
                    "fix one of them",
                )
    twice = [name for name, count in Counter(categories.values()).items() if count > 1]
    if twice:
        raise DataError(f"{next(iter(contents))}: two categories are called {twice[0]}", "unique names", "rename one")
    return dict(sorted(categories.items()))


def _others(contents: dict[Path, dict[str, Any]]) -> list[dict[str, Any]]:
    """The categories as they stand, for the way back."""
    every = {
        number: {**entry, "id": number, "name": str(entry["name"])}
        for content in contents.values()
        for entry in content["categories"]
        if isinstance(number := _number(entry["id"]), int)
    }
    return [every[key] for key in sorted(every)]


def _read_file(
    draft: Draft,
    path: Path,
    content: dict[str, Any],
    categories: dict[int, str],
    split: str,
    listed: ListedImages,
) -> None:
    """Add the records of one file, and its images to `listed`. Entries that cannot be used are skipped and noted.

    Raises DataError where no image or no annotation of the file can be used.
    """
    where = printable_path(str(path))
    images: dict[int | str, tuple[str, dict[str, Any]]] = {}
    failed: list[DataError] = []
    ambiguous: set[int | str] = set()
    repeated: set[int | str] = set()
    finder = Finder(draft.root)
    for entry in listed_entries(content, "images", where, failed):
        try:
            key, name = _identity(entry, where, finder)
        except DataError as error:
            failed.append(error)
            continue
        if key not in images:
            images[key] = (name, entry)
        elif key not in ambiguous and images[key][0] == name:
            repeated.add(key)
        else:
            # nobody can say to which of them the annotations belong
            given = f"{where}: image id {reprlib.repr(key)} is given twice, to {printable_path(name)} as well"
            failed.append(DataError(given, "an id for each image", "fix the file"))
            ambiguous.add(key)
    for key in ambiguous:
        given = f"{where}: {printable_path(images.pop(key)[0])} shares its id {reprlib.repr(key)}"
        failed.append(DataError(given, "an id for each image", "fix the file"))
    drawn: dict[int | str, list[BoxRecord]] = {key: [] for key in images}
    _note_skipped(draft, failed, len(images), "images", where)
    _read_annotations(draft, content, drawn, categories, where)
    places = _places(draft.root, path)
    seen = {record.path: record for record in draft.records}
    for key, (name, entry) in images.items():
        place = next((place for place in places if os.path.isfile(place / name)), None)  # noqa: PTH113
        if place is not None:
            places.sort(key=lambda other: other != place)  # where one image is, the next is likely to be
            image = place / name
        elif elsewhere := finder.find(name, places[:1]):
            image = elsewhere
        else:
            listed.missing.append(printable_path(name)[:300])
            continue
        relative = image.relative_to(draft.root).as_posix()
        if relative in listed.paths:
            if relative in seen:  # it can be read
                listed.join(seen[relative], split, drawn[key])
            continue
        listed.paths.add(relative)
        if key in repeated:
            listed.merged[printable_path(relative)] = 0
        try:
            size = declared_size(entry.get("height"), entry.get("width")) or image_size(image)
        except ImageError as error:
            listed.unreadable.append(error.given)
            continue
        extra = {key: value for key, value in entry.items() if key not in _OWN_IMAGE}
        extra["id"] = key
        seen[relative] = ImageRecord(relative, name, split, size, drawn[key], {"coco": extra})
        draft.records.append(seen[relative])


def _identity(entry: dict[str, Any], where: str, finder: Finder) -> tuple[int | str, str]:
    """The id and the path of an image's entry. Raises DataError."""
    key, name = _id(entry.get("id")), entry.get("file_name") or entry.get("coco_url")
    if key is None:
        raise DataError(
            f"{where}: image id {reprlib.repr(entry.get('id'))} is no number or text", "unique ids", "fix the file"
        )
    text = name if isinstance(name, str) else ""
    if not text:
        raise DataError(f"{where}: image {reprlib.repr(key)} has no file_name", "a path for each", "fix the file")
    if "://" in text:
        text = path_of(text).lstrip("/")
    try:
        return key, inside(text, where)
    except DataError:
        # a path of another machine, or Label Studio's ../../media/upload/1/a.jpg; other ways out of the folder are mistakes
        elsewhere = ".." not in PurePosixPath(text.replace("\\", "/")).parts or "upload" in text
        place = finder.find(text) if text and elsewhere else None
        if place is None:
            raise
        return key, place.relative_to(finder.root).as_posix()


def _id(value: object) -> int | str | None:
    """An id: a number or text, None for another value. 1.0, as tables write it, is 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None  # true is no 1


def _number(value: object) -> object:
    """The id of a category: a whole number, also where it is written as text; another value as it stands."""
    key = _id(value)
    return int(key) if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 20 else key


def _either(key: int | str | None, known: Container[int | str]) -> int | str | None:
    """An id as the file's other lists have it: some tools write numbers as text in one of them."""
    if key in known or key is None:
        return key
    if isinstance(key, int):
        return str(key) if str(key) in known else key
    number = int(key) if key.isascii() and key.isdigit() and len(key) < 20 else None
    return number if number in known else key


def _read_annotations(
    draft: Draft,
    content: dict[str, Any],
    drawn: dict[int | str, list[BoxRecord]],
    categories: dict[int, str],
    where: str,
) -> None:
    """Add the boxes of a file to the lists of their images. Raises DataError where none can be used."""
    failed: list[DataError] = []
    used = 0
    for entry in listed_entries(content, "annotations", where, failed):
        key = _either(_id(entry.get("image_id")), drawn)
        try:
            if key not in drawn:
                raise DataError(
                    f"{where}: an annotation is of image {reprlib.repr(key)}, which is not listed",
                    "ids of images",
                    "fix it",
                )
            drawn[key].append(_drawn(entry, categories, where))
            used += 1
        except DataError as error:
            failed.append(error)
    _note_skipped(draft, failed, used, "annotations", where)


def _note_skipped(draft: Draft, failed: list[DataError], used: int, what: str, where: str) -> None:
    """A note on entries that cannot be used. Raises the first of their errors where there is no other entry."""
    if failed and not used:
        raise failed[0]
    if failed:
        reasons = dict.fromkeys(error.given.removeprefix(f"{where}: ") for error in failed)
        draft.notes.append(
            f"{where}: {len(failed)} of {used + len(failed)} {what} cannot be used and are skipped: {shown(reasons, 3)}"
        )


def _drawn(entry: dict[str, Any], categories: dict[int, str], where: str) -> BoxRecord:
    """Raises DataError where the category or the box is none."""
    key, bbox = _either(_id(entry.get("category_id")), categories), entry.get("bbox")
    if type(key) is not int or key not in categories:
        raise DataError(
            f"{where}: an annotation has category {reprlib.repr(key)}",
            f"ids of categories ({shown(map(str, categories))})",
            "fix it",
        )
    crowd = entry.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise DataError(f"{where}: iscrowd is {reprlib.repr(crowd)}", "0 or 1", "fix it")
    if bbox in (None, []):
        segmentation = entry.get("segmentation")
        bbox = box_around(segmentation) or rle_box(segmentation)
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(type(value) in (int, float) for value in bbox):
        raise DataError(f"{where}: a bbox is {reprlib.repr(bbox)}", "four numbers x, y, width, height", "fix it")
    x, y, width, height = map(parse_number, bbox)
    area = parse_number(entry.get("area"))
    own = math.isfinite(area) and not math.isclose(area, width * height, rel_tol=1e-9)  # else it says nothing more
    extra = {key: value for key, value in entry.items() if key not in _OWN}
    return BoxRecord(
        (x, y, x + width, y + height),
        categories[key],
        bool(crowd),
        area=area if own else math.nan,
        extra={"coco": extra} if extra else {},
    )


def _places(root: Path, path: Path) -> list[Path]:
    """Folders where the images of an annotation file may be, likely ones first."""
    word = path.stem.partition("_")[2] or path.stem  # instances_train2017 -> train2017
    names = [word, split_of(word)] if split_of(word) else []
    below = [root / "images" / name for name in names] + [root / name for name in names]
    return list(
        dict.fromkeys([path.parent, *below, root / "images", root, path.parent / "data", path.parent / "images"])
    )


def _drop_parent(draft: Draft) -> None:
    """Take out the category 0 that some exports add as the parent of all others: it has no boxes and is no class."""
    every = draft.extra["coco"]["categories"]
    first = every[0] if every else {}
    others = {entry.get("supercategory") for entry in every[1:]}
    used = any(box.name == draft.classes[0] for record in draft.records for box in record.boxes) if every else True
    if len(every) > 1 and first.get("id") == 0 and not used and others == {draft.classes[0]}:
        draft.notes.append(f"category {draft.classes[0]} is the parent of the others and has no boxes: it is no class")
        draft.classes = draft.classes[1:]

"""Folders of boxes or masks that are opened without their task: recognised and reported."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from gossamer.data.boxes.open import find_boxes
from gossamer.data.boxes.table import KINDS
from gossamer.data.boxes.yolo_layout import yolo_folders
from gossamer.data.folder import folders, split_folders
from gossamer.data.masks.layout import find_pairs
from gossamer.data.masks.polygons import draft_of_polygons
from gossamer.data.masks.siblings import by_pixels
from gossamer.data.table import StrPath, Table
from gossamer.errors import DataError

_WORDS = frozenset(
    # of images
    "image images img imgs jpegimages jpeg jpg png photo photos picture pictures rgb raw original stills left bit full"
    # of annotations
    " mask masks label labels labeled labelled annotation annotations ann annot annots anno json xml xmls txt yolo voc coco"
    " gt ground truth groundtruth fine seg segmentation segmentations segmentationclass segmentationobject object class"
    " trimap trimaps bbox bboxes box boxes approved"
    # of splits and of folders around them
    " train training trainval val valid validation test testing default obj data dir dataset set".split()
)
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")


def read_class_folders(root: StrPath, read: Callable[[], Table]) -> Table:
    """The table of classes that `read` gives of `root`.

    Raises what `read` raises, and DataError with the task to name where `root` holds boxes or masks: folders of images,
    of masks and of labels are not classes. Boxes beside folders that are called as classes are noted.
    """
    try:
        table = read()
    except DataError as error:
        if tasks := annotated_for(root):
            raise _unnamed(root, tasks) from error
        raise
    if table.kind != "image folder":
        return table
    as_layout = all(map(_is_layout_word, table.classes)) or len(table.classes) == 1
    if (as_layout or _two_of_one(root)) and (tasks := annotated_for(root)):
        raise _unnamed(root, tasks)
    if not as_layout and (kind := _boxes_at(root)):
        table.notes.append(
            f"{os.fspath(root)}: holds {KINDS[kind]}, too, which are not read: add --task detect to train on them"
        )
    return table


def check_task_named(root: StrPath) -> None:
    """What `read_classes` raises for most layouts of boxes and masks, by the names of folders and without a walk through
    the images: before torch is loaded. Raises DataError with the task to name.
    """
    path = Path(root)
    try:
        parts = (split_folders(path) or {"": path}).values() if path.is_dir() else ()
        names = {folder.name for part in parts for folder in folders(part)}
    except (DataError, OSError, ValueError):
        return  # the reading of the data says so
    is_file = not path.is_dir() and path.suffix.lower() in (".json", ".xml", ".yaml", ".yml", ".data")
    if (is_file or (path.is_dir() and (all(map(_is_layout_word, names)) or len(names) == 1))) and (
        tasks := annotated_for(root)
    ):
        raise _unnamed(root, tasks)


def _is_layout_word(name: str) -> bool:
    """Whether a folder is called as those of images, annotations or splits are, such as train_labels or gtFine."""
    tokens = _TOKEN.findall(name)
    return bool(tokens) and all(
        token.lower() in _WORDS or token.lower().removesuffix("annot") in _WORDS  # SegNet's trainannot
        for token in tokens
    )


def _two_of_one(root: StrPath) -> bool:
    """Whether two folders hold images and their masks, by their pixels."""
    path = Path(root)
    try:
        return any(by_pixels(top) for top in (split_folders(path) or {"": path}).values())
    except (DataError, OSError):
        return False


def _boxes_at(root: StrPath) -> str:
    """The kind of the boxes that a folder has beside its classes, "" for none or an empty list of them."""
    try:
        place = find_boxes(root, deep=False)  # a data set of classes may hold a million images
        if place.inside or not place.kind:
            return ""
        return place.kind if annotated_for(root) else ""
    except (DataError, OSError, ValueError):
        return ""


def annotated_for(root: StrPath) -> list[str]:
    """The tasks that the annotations of a folder are for: "detect" with boxes, "segment" with masks or polygons."""
    path, tasks = Path(root), []
    try:
        place = find_boxes(path)
        parts = yolo_folders(place.root) if place.kind == "yolo" and place.root.is_dir() else []
        # classes may be called images and labels, too
        if place.kind and (not parts or any(any(labels.rglob("*.txt")) for _, _, labels in parts)):
            tasks.append("detect")
            if draft_of_polygons(path) is not None:
                tasks.append("segment")
    except (DataError, OSError, ValueError):  # not to be read as boxes, or boxes without polygons
        pass
    try:
        find_pairs(path, [])
        tasks += ["segment"] * ("segment" not in tasks)
    except (DataError, OSError, ValueError):  # not to be read as masks
        pass
    return tasks


def _unnamed(root: StrPath, tasks: list[str]) -> DataError:
    what = {"detect": "boxes", "segment": "masks"}
    is_folder = Path(root).is_dir()
    return DataError(
        f"{os.fspath(root)}: holds {'images with ' if is_folder else ''}{' and '.join(what[task] for task in tasks)}"
        f"{', no folders of classes' if is_folder else ''}",
        "a folder of images per class, or the task that the annotations are for",
        f"add {' or '.join(f'--task {task}' for task in tasks)}",
    )

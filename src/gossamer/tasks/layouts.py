"""Folders of boxes or masks that are opened without their task: recognised, and said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gossamer.data.boxes.open import recognise
from gossamer.data.boxes.yolo import yolo_folders
from gossamer.data.masks.layout import IMAGE_FOLDERS, MASK_FOLDERS, find_pairs
from gossamer.data.table import StrPath, Table
from gossamer.errors import DataError

_LAYOUT_FOLDERS = {*IMAGE_FOLDERS, *MASK_FOLDERS}


def read_classes(root: StrPath, read: Callable[[], Table]) -> Table:
    """The table of classes that `read` gives of `root`.

    Raises what `read` raises, and DataError with the task to name where `root` holds boxes or masks: folders of images,
    of masks and of labels are not classes.
    """
    try:
        table = read()
    except DataError as error:
        if tasks := annotated_for(root):
            raise _unnamed(root, tasks) from error
        raise
    if {name.lower() for name in table.classes} <= _LAYOUT_FOLDERS and (tasks := annotated_for(root)):
        raise _unnamed(root, tasks)
    return table


def annotated_for(root: StrPath) -> list[str]:
    """The tasks that the annotations of a folder are for: "detect" with boxes, "segment" with masks."""
    path, tasks = Path(root), []
    try:
        if not path.is_dir():
            return []
        kind = recognise(path)
        folders = yolo_folders(path) if kind == "yolo" else []  # classes may be called images and labels, too
        if kind and (not folders or any(any(labels.rglob("*.txt")) for _, _, labels in folders)):
            tasks.append("detect")
    except (DataError, OSError, ValueError):  # not to be read as boxes
        pass
    try:
        find_pairs(path, [])
        tasks.append("segment")
    except (DataError, OSError, ValueError):  # not to be read as masks
        pass
    return tasks


def _unnamed(root: StrPath, tasks: list[str]) -> DataError:
    what = {"detect": "boxes", "segment": "masks"}
    return DataError(
        f"{root}: holds images with {' and '.join(what[task] for task in tasks)}, no folders of classes",
        "a folder of images per class, or the task that the annotations are for",
        f"add {' or '.join(f'--task {task}' for task in tasks)}",
    )

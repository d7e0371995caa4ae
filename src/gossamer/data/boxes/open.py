"""Recognise boxes at a path, PASCAL VOC, COCO or YOLO, and give them as training, validation and test images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gossamer.data.boxes.coco import coco_files, read_coco
from gossamer.data.boxes.records import Draft
from gossamer.data.boxes.sidecar import restore_from_sidecar
from gossamer.data.boxes.table import ALLOWED, KINDS, BoxTable, table_of
from gossamer.data.boxes.voc import is_voc, read_voc
from gossamer.data.boxes.yolo import is_yolo, read_yolo, yolo_folders
from gossamer.data.open import open_data
from gossamer.data.source import Data, shown
from gossamer.data.table import StrPath, Table
from gossamer.errors import DataError

READERS = {"voc": read_voc, "coco": read_coco, "yolo": read_yolo}


def recognise(root: StrPath) -> str:
    """ "voc", "coco" or "yolo", by the files of a folder; "" where it has boxes of no kind.

    Raises DataError: no folder, or boxes of two kinds.
    """
    path = Path(root)
    try:
        if "\0" in os.fspath(path) or not path.is_dir():
            what = "is another kind of file" if "\0" not in os.fspath(path) and path.exists() else "does not exist"
            raise DataError(f"{os.fspath(path)!r}: {what}", f"a folder of {ALLOWED}", "check the path")
        present = {"voc": is_voc(path), "coco": bool(coco_files(path)), "yolo": bool(yolo_folders(path))}
        if not any(present.values()):
            present["yolo"] = is_yolo(path)  # only its data.yaml may name the folders of its images
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "a folder that can be read", "check its permissions") from error
    kinds = [kind for kind, is_present in present.items() if is_present]
    if len(kinds) > 1:
        raise DataError(
            f"{path}: holds {shown(KINDS[kind] for kind in kinds)}", "one kind of boxes", "remove the others"
        )
    return kinds[0] if kinds else ""


def read_draft(root: StrPath) -> Draft:
    """What the annotations at `root` say, with what a conversion kept for them. Raises DataError."""
    kind = recognise(root)
    if not kind:
        raise DataError(f"{os.fspath(root)}: holds no boxes", ALLOWED, "check the path")
    draft = READERS[kind](Path(root))
    restore_from_sidecar(draft)
    unsaid = [record for record in draft.records if not record.split]
    if unsaid and len(unsaid) < len(draft.records):
        draft.notes.append(f"{os.fspath(root)}: {len(unsaid)} images in no split count as train")
        for record in unsaid:
            record.split = "train"
    return draft


def read_boxes(root: StrPath, *, classes: Sequence[str] = (), reference: Table | None = None) -> BoxTable:
    """All images with boxes at `root`, not yet split. A `ReadTable`.

    classes, reference: change nothing, since boxes are numbered when the table is split. Raises DataError.
    """
    return table_of(read_draft(root))


def open_boxes(root: StrPath, *, val: StrPath = "", val_share: float = 0.2, seed: int = 0) -> Data:
    """The boxes at `root`, with their own split, or else split by the rarest class of each image with `seed`.

    val: validation data elsewhere (then those of `root` are not used). Where there are none at all,
    `val_share` of the training images is held out. Raises DataError: nothing there, no training image, a class that
    no training image has, broken annotations.
    """
    return open_data(root, val=val, val_share=val_share, seed=seed, read=read_boxes)

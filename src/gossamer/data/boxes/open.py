"""Recognise boxes at a path, PASCAL VOC, COCO or YOLO, and give them as training, validation and test images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gossamer.data.boxes.coco import coco_files, read_coco
from gossamer.data.boxes.records import Draft
from gossamer.data.boxes.sidecar import restore
from gossamer.data.boxes.table import KINDS, BoxTable, table_of
from gossamer.data.boxes.voc import is_voc, read_voc
from gossamer.data.boxes.yolo import read_yolo, yolo_folders
from gossamer.data.source import Data, Indices, Source, Table, shown
from gossamer.data.split import Row, led, opened, reopened, scored_rows, sources_of, validated
from gossamer.errors import DataError

__all__ = ["apply_box_split", "open_box_source", "open_boxes", "read_boxes", "read_draft", "recognise"]

StrPath = str | os.PathLike[str]
READERS = {"voc": read_voc, "coco": read_coco, "yolo": read_yolo}
_ALLOWED = (
    "PASCAL VOC (Annotations/*.xml, JPEGImages/), COCO (annotations/*.json or *.json beside images) "
    "or YOLO (images/, labels/ and data.yaml)"
)


def recognise(root: StrPath) -> str:
    """ "voc", "coco" or "yolo", by the files of a folder; "" where it has boxes of no kind.

    Raises DataError: no folder, or boxes of two kinds.
    """
    path = Path(root)
    try:
        if "\0" in os.fspath(path) or not path.is_dir():
            what = "is another kind of file" if "\0" not in os.fspath(path) and path.exists() else "does not exist"
            raise DataError(f"{os.fspath(path)!r}: {what}", f"a folder of {_ALLOWED}", "check the path")
        found = {"voc": is_voc(path), "coco": bool(coco_files(path)), "yolo": bool(yolo_folders(path))}
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "a folder that can be read", "check its permissions") from error
    kinds = [kind for kind, there in found.items() if there]
    if len(kinds) > 1:
        raise DataError(
            f"{path}: holds {shown(KINDS[kind] for kind in kinds)}", "one kind of boxes", "remove the others"
        )
    return kinds[0] if kinds else ""


def read_draft(root: StrPath) -> Draft:
    """What the annotations at `root` say, with what a conversion kept for them. Raises DataError."""
    kind = recognise(root)
    if not kind:
        raise DataError(f"{os.fspath(root)}: holds no boxes", _ALLOWED, "check the path")
    draft = READERS[kind](Path(root))
    restore(draft)
    unsaid = [record for record in draft.records if not record.split]
    if unsaid and len(unsaid) < len(draft.records):
        draft.notes.append(f"{os.fspath(root)}: {len(unsaid)} images in no split count as train")
        for record in unsaid:
            record.split = "train"
    return draft


def read_boxes(root: StrPath) -> BoxTable:
    """All images with boxes at `root`, not yet split. Raises DataError."""
    return table_of(read_draft(root))


def open_boxes(root: StrPath, *, val: StrPath = "", val_share: float = 0.2, seed: int = 0) -> Data:
    """The boxes at `root`, split as they say themselves, or else by the rarest class of each image with `seed`.

    val: validation data that lie elsewhere (then those of `root` are not used). Where there are none at all,
    `val_share` of the training images is held out. Raises DataError: nothing there, no training image, a class that
    no training image has, broken annotations.
    """
    table = read_boxes(root)
    other = _elsewhere(val) if os.fspath(val) else None
    notes = [*table.notes, *(other.notes if other else [])]
    classes = _classes(table, table.rows("train", ""))
    parts = validated(
        table,
        classes,
        root=root,
        other=other,
        val=val,
        strata=table.strata(),
        share=val_share,
        seed=seed,
        of="the images of each class",
    )
    notes += parts.notes
    without = set(classes) - set(table.present(parts.train))
    if without:
        notes.append(f"{len(without)} classes have no training box: {shown(sorted(without))}")
    return opened(
        table,
        classes,
        parts,
        notes,
        place=f"{KINDS[table.kind]} {os.fspath(root)}",
        content=f"{len(classes)} classes",
        more=f", {len(table.targets.labels)} boxes",
    )


def open_box_source(root: StrPath, classes: Sequence[str], split: str = "") -> Source:
    """The images at `root` as one source with the class numbers of `classes`, to be evaluated.

    split: train, val or test; without one, data with splits of their own give their test images, or else their
    validation images. Raises DataError, also for a class that is not among `classes`.
    """
    table = read_boxes(root)
    return table.source(classes, scored_rows(table, root, split))


def apply_box_split(root: StrPath, rows: Iterable[Row], *, val: StrPath = "", classes: Sequence[str] = ()) -> Data:
    """The boxes at `root` (and `val`) with a split that `split_rows` gave, whatever was added since.

    classes: the class names of the run; default those that `open_boxes` finds. Boxes are those that are there now;
    images that are gone or new are in the notes. Raises DataError where the images of a whole split are gone.
    """
    tables = [read_boxes(root), *([_elsewhere(val)] if os.fspath(val) else [])]
    table = tables[0]
    classes = tuple(classes) or _classes(table, table.rows("train", ""))
    unlabelled = [(name, 0, split) for name, _, split in rows]  # the label of an image follows from its boxes
    found, notes = sources_of([_unlabelled(each, classes) for each in tables], unlabelled, classes)
    sources = {
        split: next(each for each in tables if each.store is source.store).source(classes, source.rows)
        for split, source in found.items()
    }
    notes = [*(note for each in tables for note in each.notes), *notes]
    return reopened(sources, classes, notes, place=f"{KINDS[table.kind]} {os.fspath(root)}")


def _unlabelled(table: BoxTable, classes: tuple[str, ...]) -> Table:
    labels = np.zeros(len(table.names), dtype=np.int64)
    return Table(table.kind, classes, table.names, labels, table.splits, table.store)


def _classes(table: BoxTable, train: Indices) -> tuple[str, ...]:
    """The classes to train on: those written down, or else those that training images have. Raises DataError."""
    if not len(train) or not len(found := table.present(train)):
        what = "boxes on its training images" if len(train) else "training images"
        raise DataError(f"{table.root}: has no {what}", _ALLOWED, "check the splits")
    return table.classes if table.declared else found


def _elsewhere(val: StrPath) -> BoxTable:
    """The table at `val`, its names led by the path."""
    return led(read_boxes(val), val)

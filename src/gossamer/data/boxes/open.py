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
from gossamer.data.split import Row, sources_of, stratified
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
    train, inner, test = table.rows("train", ""), table.rows("val"), table.rows("test")
    classes = _classes(table, train)
    if other:
        val_source = other.source(classes, _validation(other))
        if len(inner):
            notes.append(f"{os.fspath(root)}: its own {len(inner)} validation images are not used")
        how = f"validation from {os.fspath(val)}"
    elif len(inner):
        val_source, how = table.source(classes, inner), "with its own validation images"
    else:
        kept, held = stratified(table.strata()[train], val_share, seed)
        if not len(held):
            raise DataError(
                f"{os.fspath(root)}: has one image a class, so none can be held out",
                "two or more images a class",
                "give validation data",
            )
        val_source = table.source(classes, train[held])
        train = train[kept]
        how = f"{val_share:.0%} of the images of each class held out for validation (seed {seed})"
    without = set(classes) - set(table.present(train))
    if without:
        notes.append(f"{len(without)} classes have no training box: {shown(sorted(without))}")
    test_source = table.source(classes, test) if len(test) else None
    train_source = table.source(classes, train)
    counts = f"{len(classes)} classes, {len(train_source)} training and {len(val_source)} validation images"
    counts += f", {len(test_source)} for testing" if test_source else ""
    counts += f", {len(table.answers.labels)} boxes"
    how = f"{KINDS[table.kind]} {os.fspath(root)}: {counts}; {how}"
    return Data(train_source, val_source, test_source, classes, how, notes)


def open_box_source(root: StrPath, classes: Sequence[str]) -> Source:
    """The images at `root` as one source with the class numbers of `classes`, to be evaluated.

    Data with splits of their own give their test images, or else their validation images. Raises DataError, also for
    a class that is not among `classes`.
    """
    table = read_boxes(root)
    return table.source(classes, rows if len(rows := table.rows("test")) else _validation(table))


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
    for split in ("train", "val"):
        if split not in found:
            raise DataError(f"the saved split has no {split} images", "rows of train and of val", "restore split.csv")
    sources = {
        split: next(each for each in tables if each.store is source.store).source(classes, source.rows)
        for split, source in found.items()
    }
    counts = f"{len(sources['train'])} training and {len(sources['val'])} validation images"
    how = f"{KINDS[table.kind]} {os.fspath(root)}: the saved split, {counts}"
    notes = [*(note for each in tables for note in each.notes), *notes]
    return Data(sources["train"], sources["val"], sources.get("test"), classes, how, notes)


def _unlabelled(table: BoxTable, classes: tuple[str, ...]) -> Table:
    labels = np.zeros(len(table.names), dtype=np.int64)
    return Table(table.kind, classes, table.names, labels, table.splits, table.store)


def _classes(table: BoxTable, train: Indices) -> tuple[str, ...]:
    """The classes to train on: those written down, or else those that training images have. Raises DataError."""
    if not len(train) or not len(found := table.present(train)):
        what = "boxes on its training images" if len(train) else "training images"
        raise DataError(f"{table.root}: has no {what}", _ALLOWED, "check the splits")
    return table.classes if table.declared else found


def _validation(table: BoxTable) -> Indices:
    """The rows to evaluate on: those marked so, or all where there are none."""
    rows = table.rows("val")
    return rows if len(rows) else np.arange(len(table.names))


def _elsewhere(val: StrPath) -> BoxTable:
    """The table at `val`, its names led by the path, so that they differ from those of the training data."""
    table = read_boxes(val)
    top = Path(val).as_posix()
    table.names = [f"{top}/{name}" for name in table.names]
    return table

"""A table of images with boxes to train and score on: what a `Draft` says, clipped to the images, broken boxes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gossamer.data.boxes.annotation import Annotations
from gossamer.data.boxes.records import BoxRecord, Draft, image_size
from gossamer.data.folder import printable_path
from gossamer.data.source import Files, Indices, Source, shown
from gossamer.data.table import StrPath, Table
from gossamer.errors import DataError, ImageError
from gossamer.host.text import counted, none_of

CLIPPED = 0.05
"""Pixels beyond the edge from which a clipped box is counted; less is rounding."""
SLIVER = 1e-3
"""Pixels that a side must have: less can be the last digit of a box that ends at the edge."""
ALLOWED = (
    "PASCAL VOC (Annotations/*.xml, JPEGImages/), COCO (annotations/*.json or *.json beside images), "
    "YOLO (images/, labels/ and data.yaml), or the files of CVAT, Label Studio, labelme or FiftyOne"
)
KINDS = {
    "voc": "PASCAL VOC boxes",
    "coco": "COCO boxes",
    "yolo": "YOLO boxes",
    "cvat": "CVAT boxes",
    "labelstudio": "Label Studio boxes",
    "labelme": "labelme boxes",
    "fiftyone": "FiftyOne boxes",
}


@dataclass(kw_only=True)
class BoxTable(Table):
    """Images with boxes, before they are split; `labels` are 0 and mean nothing.

    root: the folder. paths: of the images, relative to `root`. targets: the boxes of each row.
    """

    stratified: ClassVar[str] = "the images of each class"
    derived: ClassVar[bool] = True

    root: Path
    paths: list[str]
    targets: Annotations

    def strata(self) -> Indices:
        """(rows,) the rarest class on each image, -1 on one without boxes: what a split and a balance go by."""
        labels, images = self.targets.labels, self.targets.images_of()
        counts = np.bincount(labels, minlength=len(self.classes))
        order = np.lexsort((labels, counts[labels], images))
        result = np.full(len(self.names), -1, dtype=np.int64)
        first, at = np.unique(images[order], return_index=True)
        result[first] = labels[order][at]
        return result

    def present(self, rows: Indices) -> tuple[str, ...]:
        """The classes with boxes on these rows, in the table's order."""
        chosen = np.isin(self.targets.images_of(), rows)
        return tuple(self.classes[i] for i in np.unique(self.targets.labels[chosen]))

    def source(self, classes: Sequence[str], rows: Indices) -> Source:
        """These rows as a source with the class numbers of `classes` and boxes as targets.

        The label of an image is its rarest class, 0 where it has no boxes. Raises DataError on a class not among them.
        """
        unknown = [name for name in self.present(rows) if name not in classes]
        if unknown:
            chosen = np.isin(self.targets.images_of(), rows) & (self.targets.labels == self.classes.index(unknown[0]))
            first = self.names[int(self.targets.images_of()[chosen][0])]
            raise DataError(
                f"{first}: class {shown(unknown)} has no training box",
                f"the classes {shown(classes)}",
                "fix the class names, or add training boxes of it",
            )
        number = {name: i for i, name in enumerate(classes)}
        strata = self.strata()[rows].tolist()
        labels = np.array([number[self.classes[i]] if i >= 0 else 0 for i in strata], dtype=np.int64)
        names = [self.names[i] for i in rows.tolist()]
        return Source(tuple(classes), names, labels, self.store, rows, self.targets.numbered(tuple(classes)))

    def training_classes(self, root: StrPath, other: Table | None = None) -> tuple[str, ...]:
        """The classes to train on: those written down, or else those that training images have. Raises DataError."""
        train = self.rows("train", "")
        present = self.present(train)
        if not present:
            what = "boxes on its training images" if len(train) else "training images"
            raise DataError(f"{self.root}: has no {what}", ALLOWED, "check the splits")
        return self.classes if self.fixed else present

    def details(self) -> str:
        return f", {counted(len(self.targets.labels), 'box')}"

    def split_notes(self, classes: Sequence[str], train: Indices, held: Indices) -> list[str]:
        """A note on classes without a box on the rows to train on."""
        without = sorted(set(classes) - set(self.present(train)))
        return (
            [f"{counted(len(without), 'class has', 'classes have')} no training box: {shown(without)}"]
            if without
            else []
        )


def table_of(draft: Draft) -> BoxTable:
    """The table of a draft. Boxes are clipped to their image, those without area there are dropped; notes count both.

    Raises DataError where no box is left.
    """
    drawn = [box for record in draft.records for box in record.boxes]
    sizes = np.array([record.size for record in draft.records], dtype=np.int64).reshape(-1, 2)
    counts = np.array([len(record.boxes) for record in draft.records], dtype=np.int64)
    images = np.repeat(np.arange(len(counts)), counts)
    corners = np.array([box.box for box in drawn], dtype=np.float64).reshape(-1, 4)
    clipped, kept, notes = _clean(corners, sizes[images])
    if not kept.any():
        raise DataError(
            f"{draft.root}: {none_of(len(drawn), 'box')} can be used" if drawn else f"{draft.root}: has no boxes",
            "boxes with an area inside their image",
            "check the annotations",
        )
    starts = np.concatenate([[0], np.cumsum(np.bincount(images[kept], minlength=len(counts)))])
    annotations = _annotations(draft.classes, drawn, kept, clipped, starts.astype(np.int64), sizes)
    paths = [record.path for record in draft.records]
    splits = [record.split for record in draft.records]
    return BoxTable(
        KINDS[draft.kind],
        draft.classes,
        [printable_path(path) for path in paths],
        np.zeros(len(paths), np.int64),
        splits,
        Files(draft.root, paths),
        fixed=draft.declared,
        notes=[*draft.notes, *notes],
        root=draft.root,
        paths=paths,
        targets=annotations,
    )


def size_differences(table: BoxTable) -> list[str]:
    """A line for each way in which images have another size than their annotations say; every header is read."""
    turned: list[str] = []
    other: list[str] = []
    for path, (height, width) in zip(table.paths, table.targets.sizes.tolist(), strict=True):
        try:
            own = image_size(table.root / path)
        except ImageError:
            continue  # whoever reads the image says so
        if own != (height, width):
            line = f"{printable_path(path)} ({width} x {height}, the image {own[1]} x {own[0]})"
            (turned if own == (width, height) else other).append(line)
    before = "which were drawn before the image was turned upright"
    one = f"image lies on its side by its annotations, {before}"
    found = (
        (turned, one, f"images lie on their side by their annotations, {before}"),
        (
            other,
            "image has another size than its annotations say",
            "images have another size than their annotations say",
        ),
    )
    return [f"{counted(len(line), *words)}: {shown(line, 2)}" for line, *words in found if line]


def _clean(corners: NDArray[np.float64], sizes: Indices) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[str]]:
    """Corners clipped to (height, width), (m, 4); which have an area there, (m,); and notes on the others."""
    limits = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    number = np.logical_and.reduce(np.isfinite(corners), axis=1)
    safe = np.where(number[:, None], corners, 0)
    drawn: NDArray[np.bool_] = number & (safe[:, 2] > safe[:, 0]) & (safe[:, 3] > safe[:, 1])
    clipped = np.clip(safe, 0, limits)
    single = clipped.astype(np.float32)  # far from 0, a thin box can lose its area to rounding
    wide = (clipped[:, 2:] - clipped[:, :2] > SLIVER) & (single[:, 2:] > single[:, :2])
    kept = drawn & wide.all(axis=1)
    over = kept & (np.abs(clipped - safe).max(1, initial=0) > CLIPPED)
    found = (
        (~number, "have corners that are no numbers, and are dropped"),
        (number & ~drawn, "have no area, and are dropped"),
        (drawn & ~kept, "lie outside their image, and are dropped"),
        (over, "reach over the edge of their image, and are clipped"),
    )
    return clipped, kept, [f"{boxes.sum()} of {len(corners)} boxes {what}" for boxes, what in found if boxes.any()]


def _annotations(
    classes: tuple[str, ...],
    drawn: list[BoxRecord],
    kept: NDArray[np.bool_],
    clipped: NDArray[np.float64],
    starts: Indices,
    sizes: Indices,
) -> Annotations:
    number = {name: i for i, name in enumerate(classes)}
    corners = clipped[kept].astype(np.float32)
    boxes = [box for box, keep in zip(drawn, kept.tolist(), strict=True) if keep]
    area = np.array([box.area for box in boxes], dtype=np.float64)
    own = np.prod(corners[:, 2:].astype(np.float64) - corners[:, :2], axis=1)
    return Annotations(
        classes,
        starts,
        sizes,
        corners,
        np.array([number[box.name] for box in boxes], dtype=np.int64),
        np.array([box.crowd for box in boxes], dtype=np.bool_),
        np.array([box.difficult for box in boxes], dtype=np.bool_),
        np.where(np.isfinite(area) & (area > 0), area, own),
    )

"""Masks drawn from the polygons of box annotations: YOLO's segments, COCO's, CVAT's, labelme's and Label Studio's.

Class 0 is the background. Large objects are drawn first, so that small ones on them stay; an object that has a box and
no polygon is drawn as 255, which is ignored: its pixels are of its class or of the background.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gossamer.data.boxes.open import find_boxes, read_draft
from gossamer.data.boxes.outlines import polygons_of
from gossamer.data.boxes.records import BoxRecord, Draft, ImageRecord
from gossamer.data.boxes.rle import rle_mask
from gossamer.data.boxes.table import KINDS
from gossamer.data.folder import printable_path
from gossamer.data.masks.classes import LabelMap
from gossamer.data.source import Files
from gossamer.data.table import StrPath
from gossamer.errors import DataError, ImageError
from gossamer.images.decode import PIXEL_LIMIT, describe
from gossamer.predictions.masks import IGNORED, Mask

BACKGROUND = "background"


class DrawnMasks:
    """The masks of records, which `numbers` gives the class of each name. paths: of the images, relative to `root`."""

    def __init__(self, root: Path, records: Sequence[ImageRecord], label_map: LabelMap) -> None:
        self.root, self.records, self.label_map = root, records, label_map
        self.paths = [record.path for record in records]
        self.store = Files(root, self.paths)

    def read(self, row: int) -> Mask:
        """Class numbers, IGNORED where a box has no polygon: uint8 (H, W), of the upright image's size.

        Raises ImageError.
        """
        record = self.records[row]
        name = printable_path(record.path)
        header = describe(self.store.read(row), pixel_limit=PIXEL_LIMIT, name=name)
        if record.size != (header.height, header.width):
            raise ImageError(
                f"{name}: has {header.width} x {header.height} pixels, its annotation {record.size[1]} x {record.size[0]}",
                "polygons on the image upright",
                "annotate it again",
            )
        return draw_mask(record, self.label_map.classes)

    def line(self, row: int) -> str:
        """A digest of the polygons and their class names."""
        record = self.records[row]
        state = hashlib.sha256(repr(record.size).encode())
        for box in record.boxes:
            state.update(repr((box.name, box.box, box.outlines, box.extra.get("coco"))).encode("utf-8", "replace"))
        return state.hexdigest()


def draw_mask(record: ImageRecord, classes: Sequence[str]) -> Mask:
    """The mask of a record with the numbers of `classes`, of which one is the background."""
    mask = np.full(record.size, classes.index(BACKGROUND), np.uint8)
    for box in sorted(record.boxes, key=lambda box: -_extent(box)):
        number = classes.index(box.name)
        drawn = False
        for part in _parts(box, record.size):
            mask[part] = number
            drawn = True
        if not drawn and all(map(np.isfinite, box.box)):
            x0, y0, x1, y1 = box.box
            mask[_rows(y0, y1, record.size[0]), _rows(x0, x1, record.size[1])] = IGNORED
    return mask


def _extent(box: BoxRecord) -> float:
    extent = (box.box[2] - box.box[0]) * (box.box[3] - box.box[1])
    return extent if extent == extent else 0.0


def _rows(low: float, high: float, size: int) -> slice:
    """The pixels whose centres lie between two edges."""
    first, last = np.clip(np.ceil(np.array([low, high]) - 0.5), 0, size).astype(int)
    return slice(int(first), int(last))


def _parts(box: BoxRecord, size: tuple[int, int]) -> Iterator[NDArray[np.bool_]]:
    """The pixels of each part of an object, (height, width); none where it has a box only."""
    segmentation = box.extra.get("coco", {}).get("segmentation")
    mask = rle_mask(segmentation)
    if mask is not None and mask.shape == size:
        yield mask
    for outline in (*box.outlines, *polygons_of(segmentation)):
        yield fill(np.array(outline, np.float64).reshape(-1, 2), size)


def fill(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centres lie inside a polygon (n, 2) of x and y, by the even-odd rule: bool (height, width)."""
    height, width = size
    result = np.zeros(size, np.bool_)
    rows = _rows(float(corners[:, 1].min()), float(corners[:, 1].max()), height)
    if rows.stop <= rows.start:
        return result
    centres = np.arange(rows.start, rows.stop)[:, None] + 0.5
    x0, y0 = corners.T
    x1, y1 = np.roll(corners, -1, axis=0).T
    crossed = (y0 <= centres) != (y1 <= centres)  # (rows, edges)
    row, edge = np.nonzero(crossed)
    at = x0[edge] + (centres[row, 0] - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    column = np.clip(np.ceil(at - 0.5), 0, width).astype(np.int64)
    toggles = np.zeros((rows.stop - rows.start, width + 1), np.int32)
    np.add.at(toggles, (row, column), 1)
    result[rows] = np.cumsum(toggles, axis=1)[:, :width] % 2 == 1
    return result


def draft_of_polygons(root: StrPath) -> Draft | None:
    """What the annotations at `root` say, where one of them has a polygon; None where there are no annotations.

    Raises DataError where they are boxes alone, or broken.
    """
    if not find_boxes(root).kind:
        return None
    draft = read_draft(root)
    alone = sum(not has_outline(box) for record in draft.records for box in record.boxes)
    every = sum(len(record.boxes) for record in draft.records)
    if alone == every:
        raise DataError(
            f"{os.fspath(root)}: holds {KINDS[draft.kind]} without polygons", "masks or polygons", "use --task detect"
        )
    if alone:
        draft.notes.append(
            f"{os.fspath(root)}: {alone} of {every} objects have a box and no polygon; their pixels are ignored"
        )
    return draft


def has_outline(box: BoxRecord) -> bool:
    """Whether an object has a polygon or a mask of its own."""
    if box.outlines:
        return True
    segmentation = box.extra.get("coco", {}).get("segmentation")
    return bool(segmentation) and (bool(polygons_of(segmentation)) or rle_mask(segmentation) is not None)


def classes_of(draft: Draft) -> tuple[str, ...]:
    """The background and the classes of a draft."""
    return (BACKGROUND, *(name for name in draft.classes if name != BACKGROUND))

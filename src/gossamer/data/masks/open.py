"""Images with one mask each, one class per pixel: opened as training, validation and test images."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from gossamer.data.boxes.table import KINDS
from gossamer.data.folder import printable_path
from gossamer.data.masks.classes import LabelMap, label_map_of, numbered
from gossamer.data.masks.classfiles import own_names, read_class_entries
from gossamer.data.masks.layout import ALLOWED, MaskPair, find_pairs
from gossamer.data.masks.polygons import DrawnMasks, classes_of, draft_of_polygons
from gossamer.data.open import open_data
from gossamer.data.source import Data, Files, Source, shown
from gossamer.data.table import StrPath, Table, TargetTable
from gossamer.errors import DataError, ImageError
from gossamer.host.text import counted
from gossamer.images.decode import PIXEL_LIMIT, decode_stored, describe, read_file
from gossamer.predictions.masks import IGNORED, Mask

LOSSY = ("JPEG", "WEBP")
PROBED = 8
"""Training masks read before anything else, so that a wrong label map is found at once."""
ANY_VALUE = label_map_of([(str(value), None) for value in range(IGNORED)], None)


class Masks:
    """The masks of a table's rows, of which `store` holds the images. paths: relative to `root`."""

    def __init__(self, root: Path, paths: list[str], store: Files, label_map: LabelMap) -> None:
        self.root, self.paths, self.store, self.label_map = root, paths, store, label_map

    def read(self, row: int) -> Mask:
        """Class numbers, IGNORED where there is none: uint8 (H, W), of the upright image's size. Raises ImageError."""
        name = printable_path(self.paths[row])
        image = decode_stored(read_file(self.root / self.paths[row]), name=name)
        if image.format in LOSSY:
            raise ImageError(f"{name}: is a {image.format} file, which changes values", "PNG masks", "save it as PNG")
        mask = self.label_map.mask(image, name)
        shown_size = describe(self.store.read(row), pixel_limit=PIXEL_LIMIT, name=printable_path(self.store.paths[row]))
        if mask.shape != (shown_size.height, shown_size.width):
            raise ImageError(
                f"{name}: has {mask.shape[1]} x {mask.shape[0]} pixels, its image {shown_size.width} x {shown_size.height}",
                "a mask of its image's size, the image upright",
                "scale the mask without interpolation",
            )
        return mask

    def line(self, row: int) -> str:
        """The mask's path and bytes, -1 where it is missing."""
        size, _ = next(Files(self.root, self.paths).stats(np.array([row])))
        return f"{printable_path(self.paths[row])}\0{size}"


def open_masks(
    root: StrPath,
    *,
    val: StrPath = "",
    val_share: float = 0.2,
    seed: int = 0,
    ignore_index: int | None = None,
    num_classes: int | None = None,
) -> Data:
    """The images with masks at `root`, split as their folders say, or else with `seed`.

    Class v is the v-th line of classes.txt or classes.json at `root`, or else is called by its number; then there are
    `num_classes`, or as many as the largest value in the training masks says, all of which are read for it.
    ignore_index: a value to ignore beside 255; it is no class, and values above it move up. val: validation data that
    lie elsewhere. Where there are none, `val_share` of the training images is held out. Raises DataError.
    """
    read = partial(read_masks, ignore_index=ignore_index, num_classes=num_classes)
    return open_data(root, val=val, val_share=val_share, seed=seed, read=read)


@dataclass(kw_only=True)
class MaskTable(TargetTable):
    """Images with a mask each."""

    image: ClassVar[str] = "image with masks"
    images: ClassVar[str] = "images with masks"
    targets: Masks | DrawnMasks


def read_masks(
    root: StrPath,
    *,
    classes: Sequence[str] = (),
    reference: Table | None = None,
    ignore_index: int | None = None,
    num_classes: int | None = None,
) -> MaskTable:
    """All images with masks at `root`, not yet split; the targets of the table are `Masks`. A `ReadTable`.

    classes: the class names to number by; a classes file must have the same, and without one they take the values in
    their order. reference: masks whose label map holds where there is no classes file. Raises DataError.
    """
    label_map = None
    if isinstance(reference, MaskTable):
        label_map, num_classes = reference.targets.label_map, None
        classes = label_map.classes
    path = Path(root)
    if "\0" in os.fspath(path) or not path.exists():
        raise DataError(f"{os.fspath(path)!r}: does not exist", ALLOWED, "check the path")
    notes: list[str] = []
    try:
        kind, pairs = find_pairs(path, notes)
    except DataError as error:
        drawn = _drawn_masks(path, classes, num_classes, ignore_index, error)
        if drawn is None:
            raise
        return drawn
    return _stored_masks(path, kind, pairs, notes, label_map, classes, num_classes, ignore_index)


def _stored_masks(
    path: Path,
    kind: str,
    pairs: list[MaskPair],
    notes: list[str],
    label_map: LabelMap | None,
    classes: Sequence[str],
    num_classes: int | None,
    ignore_index: int | None,
) -> MaskTable:
    """The table of images with a file of a mask each. Raises DataError."""
    images, paths = ([os.path.relpath(p, path) for p in column] for column in zip(*((p.image, p.mask) for p in pairs)))
    masks = Masks(path, paths, Files(path, images), label_map or ANY_VALUE)
    splits = [pair.split for pair in pairs]
    training = [row for row, split in enumerate(splits) if split in ("train", "")] or list(range(len(pairs)))
    masks.label_map = _label_map(masks, training, ignore_index, num_classes, classes, label_map, notes)
    _probe(masks, training)
    return MaskTable(
        kind,
        masks.label_map.classes,
        [printable_path(name.replace(os.sep, "/")) for name in images],
        np.zeros(len(pairs), np.int64),
        splits,
        masks.store,
        fixed=True,
        notes=notes,
        targets=masks,
    )


def _drawn_masks(
    path: Path, classes: Sequence[str], num_classes: int | None, ignore_index: int | None, error: DataError
) -> MaskTable | None:
    """The table of images whose masks are polygons; None where there are no annotations of objects.

    error: why there are no files of masks. Raises DataError.
    """
    try:
        draft = draft_of_polygons(path)
    except DataError as other:
        if other.do == "use --task detect" or path.is_file():
            raise
        raise error from other  # boxes that cannot be read are not what was looked for
    if draft is None:
        return None
    own = classes_of(draft)
    if unknown := [name for name in own if classes and name not in classes]:
        raise DataError(
            f"{path}: has polygons of {shown(unknown)}", f"the classes {shown(classes)}", "fix the class names"
        )
    label_map = label_map_of([(name, None) for name in classes or own], None)
    if num_classes not in (None, len(label_map.classes)):
        raise DataError(
            f"{path}: its polygons are of {counted(len(own) - 1, 'class')} and the background",
            f"num_classes {num_classes}",
            "leave it out",
        )
    if ignore_index is not None:
        draft.notes.append(f"{path}: ignore_index {ignore_index} is not used: masks are drawn from polygons")
    masks = DrawnMasks(draft.root, draft.records, label_map)
    return MaskTable(
        KINDS[draft.kind].replace("boxes", "polygons"),
        label_map.classes,
        [printable_path(name) for name in masks.paths],
        np.zeros(len(masks.paths), np.int64),
        [record.split for record in draft.records],
        masks.store,
        fixed=True,
        notes=draft.notes,
        targets=masks,
    )


def pixel_counts(source: Source) -> list[int]:
    """Pixels of each class in the masks of `source`; those that cannot be read count nothing."""
    assert source.targets is not None
    counts = np.zeros(IGNORED + 1, np.int64)
    for mask in _readable(source.targets.read, source.rows.tolist()):
        if isinstance(mask, np.ndarray):
            counts += np.bincount(mask.ravel(), minlength=IGNORED + 1)
    return [int(count) for count in counts[: len(source.classes)]]


def _label_map(
    masks: Masks,
    training: list[int],
    ignore_index: int | None,
    num_classes: int | None,
    classes: Sequence[str],
    label_map: LabelMap | None,
    notes: list[str],
) -> LabelMap:
    """What the masks' values mean: by the classes file beside them, by `label_map`, or by their number; then the notes say
    which of these no training mask has. Raises DataError."""
    first = masks.paths[training[0]]
    entries = read_class_entries(masks.root, first) or own_names(masks.root, first)
    if entries is None and label_map is not None:
        return label_map
    if entries is None:
        count = len(classes) or num_classes or 0
        if not count:
            values = class_values(masks, training, ignore_index)
            count = _class_count(values, ignore_index)
            unseen = [value for value in range(max(values)) if value not in values and value != ignore_index]
            if unseen:
                have = counted(len(unseen), "class has", "classes have")
                notes.append(
                    f"{masks.root}: {have} no pixel in the training masks: {shown(map(str, unseen))}; where a value is no "
                    "class number, write classes.txt"
                )
        entries = numbered(count, ignore_index, classes)
    result = label_map_of(entries, ignore_index)
    if num_classes not in (None, len(result.classes)):
        raise DataError(
            f"{masks.root}: its classes file has {counted(len(result.classes), 'class')}",
            f"num_classes {num_classes}",
            "fix one",
        )
    return result.ordered(classes) if classes else result


def count_classes(masks: Masks, training: list[int], ignore_index: int | None) -> int:
    """How many classes the training masks have, by the largest value in them. Raises DataError."""
    return _class_count(class_values(masks, training, ignore_index), ignore_index)


def _class_count(values: Collection[int], ignore_index: int | None) -> int:
    highest = max(values)
    return highest + 1 - (ignore_index is not None and ignore_index <= highest)


def class_values(masks: Masks, training: list[int], ignore_index: int | None) -> set[int]:
    """The values in the training masks, but for what is ignored. Raises DataError where they make fewer than two classes."""
    present = np.zeros(IGNORED + 1, bool)
    failed: ImageError | None = None
    for mask in _readable(masks.read, training):
        if isinstance(mask, ImageError):
            failed = failed or mask
        else:
            present |= np.bincount(mask.ravel(), minlength=IGNORED + 1) > 0
    values = set(np.flatnonzero(present).tolist()) - {IGNORED, ignore_index}
    if not values and failed:
        raise DataError(failed.given, failed.allowed, failed.do) from failed
    if max(values, default=-1) < 1:
        raise DataError(
            f"{masks.root}: its masks hold one class, beside {IGNORED} to ignore",
            "two or more classes",
            'where 255 is a class, write classes.txt with one line "name red green blue" per class, as "object 255 255 255"',
        )
    return values


def _readable(read: Callable[[int], Mask], rows: list[int]) -> Iterator[Mask | ImageError]:
    """The mask of each row, or why it cannot be read, in order; decoding is shared among threads."""

    def attempt(row: int) -> Mask | ImageError:
        try:
            return read(row)
        except ImageError as error:
            return error

    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(rows), 4 * workers):  # a few at a time: masks of a large data set fill the memory
            yield from pool.map(attempt, rows[start : start + 4 * workers])


def _probe(masks: Masks, rows: list[int]) -> None:
    """Raises DataError where none of the first masks can be read: then it is not the masks that are wrong."""
    first = list(_readable(masks.read, rows[:PROBED]))
    errors = [each for each in first if isinstance(each, ImageError)]
    if len(errors) == len(first):
        raise DataError(errors[0].given, errors[0].allowed, errors[0].do) from errors[0]

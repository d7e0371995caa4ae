"""Recognise boxes at a path, by the files of their format, and give them as training, validation and test images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gossamer.data.boxes.coco import coco_files, is_coco, is_whole_coco, read_coco
from gossamer.data.boxes.cvat import cvat_file, is_cvat, read_cvat
from gossamer.data.boxes.fiftyone import fiftyone_file, read_fiftyone
from gossamer.data.boxes.labelme import labelme_files, read_labelme
from gossamer.data.boxes.labelstudio import is_label_studio, label_studio_file, read_label_studio
from gossamer.data.boxes.listed import joined
from gossamer.data.boxes.records import Draft
from gossamer.data.boxes.sidecar import restore_from_sidecar
from gossamer.data.boxes.table import ALLOWED, KINDS, BoxTable, table_of
from gossamer.data.boxes.voc import is_voc, read_voc
from gossamer.data.boxes.yolo import is_yolo, read_yolo
from gossamer.data.boxes.yolo_layout import yolo_folders
from gossamer.data.folder import folders, printable_path
from gossamer.data.open import open_data
from gossamer.data.source import Data, shown
from gossamer.data.table import StrPath, Table
from gossamer.errors import DataError
from gossamer.host.text import counted

_NESTED = 3  # folders that an archive may have around the data, one in the other
_FILES = "data.yaml, obj.data, or an annotation file of COCO (.json), CVAT (.xml), Label Studio or FiftyOne (.json)"


class Place(NamedTuple):
    """Boxes at a path. kind: a key of `table.KINDS`, "" for none. root: their folder. file: the file that names them,
    where it is one. inside: `root` is not the folder that was given but one in it."""

    kind: str
    root: Path
    file: Path | None = None
    inside: bool = False


def recognise(root: StrPath) -> str:
    """The kind of boxes at a path, a key of `table.KINDS`; "" where it has boxes of no kind.

    Raises DataError: no folder and no annotation file, or boxes of two kinds.
    """
    return find_boxes(root).kind


def find_boxes(root: StrPath, *, deep: bool = True) -> Place:
    """Which boxes are at a path, and where. deep: also walk all folders below for labelme's files, a file an image.

    Raises DataError: nothing there, or boxes of two kinds.
    """
    path = Path(root)
    try:
        if "\0" in os.fspath(path) or not path.exists():
            raise DataError(f"{os.fspath(path)!r}: does not exist", f"a folder of {ALLOWED}", "check the path")
        if not path.is_dir():
            return _of_file(path)
        place = _of_folder(path, deep)
        for _ in range(_NESTED):
            inner = [] if place.kind else list(folders(place.root))
            if len(inner) != 1 or any(each.is_file() for each in place.root.glob("*.[jJpP][pPnN]*[gG]")):
                break
            place = _of_folder(inner[0], deep)._replace(inside=True)
        return place if place.kind else Place("", path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "a folder that can be read", "check its permissions") from error


def _of_file(path: Path) -> Place:
    """Raises DataError where a file is no annotation file."""
    top = path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml", ".data"):
        return Place("yolo", path.parent, path)
    if suffix == ".xml" and is_cvat(path):
        return Place("cvat", top, path)
    if suffix == ".json":
        if is_label_studio(path):
            return Place("labelstudio", path.parent, path)
        if fiftyone_file(path.parent) == path:
            return Place("fiftyone", path.parent, path)
        if is_coco(path):
            return Place("coco", top, path)
    raise DataError(
        f"{printable_path(os.fspath(path))!r}: is another kind of file",
        f"a folder of {ALLOWED}; or {_FILES}",
        "check the path",
    )


def _of_folder(path: Path, deep: bool) -> Place:
    """Raises DataError where it holds two kinds."""
    present: dict[str, Path | bool | None] = {
        "voc": is_voc(path),
        "coco": bool(coco_files(path)),
        "yolo": bool(yolo_folders(path)),
        "cvat": cvat_file(path),
        "labelstudio": label_studio_file(path),
        "fiftyone": fiftyone_file(path),
    }
    if not any(present.values()):
        present["yolo"] = is_yolo(path)  # only its data.yaml may name the folders of its images
    labelled = present["yolo"] and any(_has_labels(part) for part in yolo_folders(path))
    if not any(present.values()) or (list(filter(present.get, present)) == ["yolo"] and not labelled):
        present["labelme"] = bool(labelme_files(path))
    kinds = [kind for kind, is_present in present.items() if is_present]
    if len(kinds) > 1 and "yolo" in kinds and not labelled:
        kinds.remove("yolo")  # images/ and labels/ with the files of another kind in them
    if len(kinds) > 1 and "coco" in kinds and not any(map(is_whole_coco, coco_files(path))):
        kinds.remove("coco")  # a JSON of a tool, with a list of images or annotations of its own
    if len(kinds) > 1:
        raise DataError(
            f"{path}: holds {shown(KINDS[kind] for kind in kinds)}",
            "one kind of boxes",
            "remove the others, or give the annotation file itself",
        )
    kind = kinds[0] if kinds else ""
    label_file = present.get(kind)
    return Place(kind, path, label_file if isinstance(label_file, Path) else None)


def _has_labels(part: tuple[str, Path, Path]) -> bool:
    return any(part[2].rglob("*.txt"))


def read_draft(root: StrPath) -> Draft:
    """What the annotations at `root` say, with what a conversion kept for them. Raises DataError."""
    place = find_boxes(root)
    if not place.kind:
        raise DataError(f"{os.fspath(root)}: holds no boxes", ALLOWED, "check the path")
    draft = _read(place)
    draft.records = joined(draft.records, draft.notes)
    if place.inside:
        draft.notes.insert(0, f"{os.fspath(root)}: the data are in {printable_path(os.fspath(place.root))}")
    restore_from_sidecar(draft)
    unsaid = [record for record in draft.records if not record.split]
    if unsaid and len(unsaid) < len(draft.records):
        count = counted(len(unsaid), "image in no split counts", "images in no split count")
        draft.notes.append(f"{os.fspath(root)}: {count} as train")
        for record in unsaid:
            record.split = "train"
    return draft


def _read(place: Place) -> Draft:
    """Raises DataError."""
    if place.kind == "voc":
        return read_voc(place.root)
    if place.kind == "coco":
        return read_coco(place.root, place.file)
    if place.kind == "yolo":
        return read_yolo(place.root, place.file)
    if place.kind == "labelme":
        return read_labelme(place.root)
    assert place.file is not None, place.kind
    reader = {"cvat": read_cvat, "labelstudio": read_label_studio, "fiftyone": read_fiftyone}[place.kind]
    return reader(place.root, place.file)


def read_boxes(root: StrPath, *, classes: Sequence[str] = (), reference: Table | None = None) -> BoxTable:
    """All images with boxes at `root`, not yet split. A `ReadTable`.

    root: a folder, or the file that names the boxes. classes, reference: change nothing, since boxes are numbered when
    the table is split. Raises DataError.
    """
    return table_of(read_draft(root))


def open_boxes(root: StrPath, *, val: StrPath = "", val_share: float = 0.2, seed: int = 0) -> Data:
    """The boxes at `root`, with their own split, or else split by the rarest class of each image with `seed`.

    val: validation data elsewhere (then those of `root` are not used). Where there are none at all,
    `val_share` of the training images is held out. Raises DataError: nothing there, no training image, a class that
    no training image has, broken annotations.
    """
    return open_data(root, val=val, val_share=val_share, seed=seed, read=read_boxes)

"""The file beside converted boxes that keeps what their format has no place for, so that the way back loses nothing.

It names a box by its place in the image's list, and applies while that box has not moved.
"""

from __future__ import annotations

import json
import math
import reprlib
from typing import Any

from gossamer.data.boxes.jsonfile import read_json
from gossamer.data.boxes.records import (
    SIDECAR,
    BoxRecord,
    Draft,
    ImageRecord,
    class_name,
    declared_size,
    inside,
    parse_number,
)
from gossamer.data.folder import printable_path
from gossamer.data.source import shown
from gossamer.errors import DataError
from gossamer.host.strict_json import dumps
from gossamer.host.text import counted

VERSION = 1
HELD = {"voc": {"difficult"}, "coco": {"crowd", "area"}, "yolo": set[str]()}
"""What a format itself has a place for, of crowd, difficult and area."""
SAME = 0.01
"""Pixels that a box may have moved and be the same: the digits of the formats."""


def sidecar_text(draft: Draft, paths: list[str], to: str, lost: list[str]) -> str:
    """The sidecar of records that are written to `paths` as `to`: an image a line."""
    head = {
        "gossamer_boxes": VERSION,
        "from": draft.kind,
        "to": to,
        "lost": lost,
        "classes": draft.classes,
        "declared": draft.declared,
        "extra": draft.extra,
    }
    lines = [
        f"{json.dumps(path)}: {dumps(_image(record, to), ascii_only=True)}"
        for record, path in zip(draft.records, paths, strict=True)
    ]
    return f'{dumps(head, ascii_only=True)[:-1]}, "images": {{\n' + ",\n".join(lines) + "\n}}\n"


def _image(record: ImageRecord, to: str) -> dict[str, Any]:
    boxes = {str(i): entry for i, box in enumerate(record.boxes) if (entry := _box(box, to))}
    extra = {key: value for key, value in record.extra.items() if key != to}
    fields = {"name": record.name, "size": record.size, "count": len(record.boxes), "extra": extra, "boxes": boxes}
    return {key: value for key, value in fields.items() if value not in ({}, None)}


def _box(box: BoxRecord, to: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"crowd": box.crowd, "difficult": box.difficult}
    fields["area"] = 0 if math.isnan(box.area) else box.area
    fields["extra"] = {key: value for key, value in box.extra.items() if key != to}
    changed = {key: value for key, value in fields.items() if value and key not in HELD[to]}
    return {"box": box.box, "name": box.name, **changed} if changed else {}


def restore_from_sidecar(draft: Draft) -> None:
    """Give a draft back what the sidecar beside it kept; boxes that were changed since stay as they are, and are noted.

    Raises DataError where the sidecar is broken.
    """
    path = draft.root / SIDECAR
    if not path.is_file():
        return
    value = read_json(path)
    where = printable_path(str(path))
    if value.get("gossamer_boxes") != VERSION:
        raise _broken(where, "gossamer_boxes", value.get("gossamer_boxes"))
    if value.get("to") != draft.kind:
        draft.notes.append(f"{where}: is for {reprlib.repr(value.get('to'))}, and not used")
        return
    images = _typed(value, "images", dict, where)
    changed = [record.path for record in draft.records if not _restore_image(record, images.get(record.path), where)]
    if changed:
        draft.notes.append(
            f"{where}: {counted(len(changed), 'image was', 'images were')} added or changed since, "
            f"and what it keeps of {'it' if len(changed) == 1 else 'them'} is not used: "
            f"{shown(changed)}"
        )
    draft.extra = {**_extra(value, where, of_draft=True), **draft.extra}
    classes = tuple(class_name(name, where) for name in _typed(value, "classes", list, where))
    if set(draft.classes) <= set(classes) and len(set(classes)) == len(classes):
        draft.classes, draft.declared = classes, _typed(value, "declared", bool, where)


def _restore_image(record: ImageRecord, value: Any, where: str) -> bool:
    """Whether the image is the one that was written, and so has what was kept of it."""
    if value is None:
        return False
    if not isinstance(value, dict):
        raise _broken(where, record.path, value)
    kept = _typed(value, "boxes", dict, where, {})
    pairs = []
    for key, entry in kept.items():
        place = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else -1
        if place < 0 or not isinstance(entry, dict):
            raise _broken(where, "boxes", key)
        if place >= len(record.boxes) or not _same(record.boxes[place], entry, where):
            return False
        pairs.append((record.boxes[place], entry))
    if value.get("count") != len(record.boxes):
        return False
    size = _typed(value, "size", list, where)
    record.size = (declared_size(*size) if len(size) == 2 else None) or record.size
    record.name = inside(_typed(value, "name", str, where), where)
    record.extra = {**_extra(value, where), **record.extra}
    for box, entry in pairs:
        box.crowd = _typed(entry, "crowd", bool, where, box.crowd)
        box.difficult = _typed(entry, "difficult", bool, where, box.difficult)
        area = parse_number(entry.get("area"))
        box.area = area if math.isfinite(area) else box.area
        box.extra = {**_extra(entry, where), **box.extra}
    return True


def _same(box: BoxRecord, entry: dict[str, Any], where: str) -> bool:
    corners = [parse_number(value) for value in _typed(entry, "box", list, where)]
    near = len(corners) == 4 and all(abs(a - b) <= SAME for a, b in zip(corners, box.box, strict=True))
    return near and entry.get("name") == box.name


def _extra(value: dict[str, Any], where: str, of_draft: bool = False) -> dict[str, Any]:
    """What is kept by format; each of the shape that its writer takes."""
    extra: dict[str, Any] = _typed(value, "extra", dict, where, {})
    words = [*extra.get("voc", ()), *extra.get("yolo", ())] if _lists(extra) else [None]
    coco = extra.get("coco", {})
    good = set(extra) <= {"voc", "coco", "yolo"} and isinstance(coco, dict) and all(isinstance(w, str) for w in words)
    good = good and all(math.isfinite(parse_number(word)) for word in extra.get("yolo", ()))
    if of_draft and good:
        categories = coco.get("categories", [])
        good = isinstance(categories, list) and all(
            isinstance(c, dict) and type(c.get("id")) is int and isinstance(c.get("name"), str) for c in categories
        )
    if not good:
        raise _broken(where, "extra", extra)
    return extra


def _lists(extra: dict[str, Any]) -> bool:
    return all(isinstance(extra.get(key, []), list) for key in ("voc", "yolo"))


def _typed(value: dict[str, Any], key: str, kind: type, where: str, default: Any = None) -> Any:
    """value[key], of this type. Raises DataError where it is of another, or missing without a default."""
    field = value.get(key, default)
    if not isinstance(field, kind):
        raise _broken(where, key, field)
    return field


def _broken(where: str, key: str, value: object) -> DataError:
    return DataError(
        f"{where}: {printable_path(key)} is {reprlib.repr(value)}", "what a conversion wrote", "remove the file"
    )

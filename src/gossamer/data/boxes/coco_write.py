"""COCO detection files from boxes: one JSON per split. The format: `gossamer.data.boxes.coco`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from gossamer.data.boxes.records import Draft, ImageRecord
from gossamer.host.strict_json import strict
from gossamer.host.text import counted


def coco_texts(draft: Draft, paths: list[str]) -> Iterator[tuple[str, str]]:
    """(path, text) of annotations/instances_<split>.json for records whose images are at `paths` (images/...)."""
    known = {entry["name"].strip(): entry for entry in draft.extra.get("coco", {}).get("categories", ())}
    if set(draft.classes) <= set(known):
        categories = sorted(known.values(), key=lambda entry: entry["id"])
    else:
        categories = [{"id": i, "name": name} for i, name in enumerate(draft.classes, 1)]
    ids = {entry["name"].strip(): entry["id"] for entry in categories}
    for split in dict.fromkeys(record.split for record in draft.records):
        mine = [(r, path) for r, path in zip(draft.records, paths, strict=True) if r.split == split]
        value = {"images": _images(mine), "annotations": [], "categories": categories}
        value["annotations"] = _annotations([r for r, _ in mine], [entry["id"] for entry in value["images"]], ids)
        yield (
            f"annotations/instances_{split or 'all'}.json",
            json.dumps(strict(value), separators=(",", ":"), allow_nan=False)
            + "\n",  # a file that was read may hold NaN
        )


def _images(mine: Iterable[tuple[ImageRecord, str]]) -> list[dict[str, Any]]:
    used: set[int | str] = set()
    result = []
    for record, path in mine:
        extra = record.extra.get("coco", {})
        key = _fresh(extra.get("id"), used)
        height, width = record.size
        name = path.removeprefix("images/").removeprefix(f"{record.split}/" if record.split else "")
        result.append({**extra, "id": key, "file_name": name, "height": height, "width": width})
    return result


def _annotations(records: list[ImageRecord], image_ids: list[int | str], ids: dict[str, int]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    used: set[int | str] = set()
    for record, image_id in zip(records, image_ids, strict=True):
        for box in record.boxes:
            x0, y0, x1, y1 = box.box
            area = (x1 - x0) * (y1 - y0) if math.isnan(box.area) else box.area
            extra = box.extra.get("coco", {})
            result.append(
                {
                    **extra,
                    "id": _fresh(extra.get("id"), used),
                    "image_id": image_id,
                    "category_id": ids[box.name],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": area,
                    "iscrowd": int(box.crowd),
                }
            )
    return result


def _fresh(key: object, used: set[int | str]) -> int | str:
    """`key`, or a number where it is none or used already; it is used now."""
    first = len(used) + 1
    chosen = key if isinstance(key, int | str) and key not in used else None
    result = next(i for i in range(first, 2 * first) if i not in used) if chosen is None else chosen
    used.add(result)
    return result


def lost_in_coco(draft: Draft) -> list[str]:
    """What the format has no place for, a line each."""
    difficult = sum(box.difficult for record in draft.records for box in record.boxes)
    return [f"COCO has no place for difficult: {counted(difficult, 'box')}"] if difficult else []

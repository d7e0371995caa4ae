"""Boxes as YOLO text files with a data.yaml, which Ultralytics reads."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import PurePosixPath

from gossamer.data.boxes.records import BoxRecord, Draft, Size
from gossamer.host.text import counted


def yolo_files(draft: Draft, paths: list[str]) -> Iterator[tuple[str, str]]:
    """(path, text) of the label files and data.yaml for records whose images are at `paths` (images/...).

    record.size must be the image's own. Ultralytics needs both train and val: where the images are not divided, or have one
    part alone, the two name the same images, which `images_by_split` reads back as no split.
    """
    number_of = {name: i for i, name in enumerate(draft.classes)}
    for record, path in zip(draft.records, paths, strict=True):
        lines = [_line(box, number_of[box.name], record.size) for box in record.boxes]
        label = PurePosixPath("labels", *PurePosixPath(path).parts[1:]).with_suffix(".txt")
        yield str(label), "".join(f"{line}\n" for line in lines)
    folders = {record.split: f"images/{record.split}".rstrip("/") for record in draft.records}
    only = next((folders[split] for split in ("train", "", "val", "test") if split in folders), "images")
    lines = [f"train: {folders.get('train', only)}", f"val: {folders.get('val', only)}"]
    if "train" not in folders and len(folders) > 1:  # Ultralytics asks for the key, and validates without its images
        lines[0] = "train:  # no images"
    if "val" not in folders:
        lines[-1] += "  # the images of train: none are held out for validation"
    lines += [f"test: {folders['test']}"] if "test" in folders else []
    lines += ["names:", *(f"  {i}: {json.dumps(name, ensure_ascii=False)}" for i, name in enumerate(draft.classes))]
    yield "data.yaml", "\n".join(lines) + "\n"


def _line(box: BoxRecord, label: int, size: Size) -> str:
    """Twelve digits, a thousandth of a thousandth of a pixel in the largest image."""
    if "yolo" in box.extra:
        return " ".join([str(label), *box.extra["yolo"]])
    height, width = size
    x0, y0, x1, y1 = box.box
    values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
    return " ".join([str(label), *(f"{value:.12g}" for value in values)])


def lost_in_yolo(draft: Draft) -> list[str]:
    """What the format has no place for, a line each."""
    boxes = [box for record in draft.records for box in record.boxes]
    counts = {
        "crowds": sum(box.crowd for box in boxes),
        "difficult": sum(box.difficult for box in boxes),
        "areas": sum(not math.isnan(box.area) for box in boxes),
    }
    return [f"YOLO has no place for {what}: {counted(count, 'box')}" for what, count in counts.items() if count]

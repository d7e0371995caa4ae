"""Annotations of boxes to write, in every format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from gossamer.data.boxes.annotation import BoxTarget
from gossamer.data.boxes.table import BoxTable

KINDS = ("voc", "coco", "yolo")


def write_image(path: Path, width: int = 48, height: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 30)).save(path)
    return path


def write_file(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def xml(*objects: tuple[str, float, float, float, float], more: str = "", size: tuple[int, int] = (48, 32)) -> str:
    """An annotation with VOC's numbers as given; more: elements for each object."""
    parts = "".join(
        f"<object><name>{name}</name>{more}<bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
        "</bndbox></object>"
        for name, a, b, c, d in objects
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{parts}</annotation>"


def voc(root: Path, images: dict[str, str], **lists: Iterable[str]) -> Path:
    for stem, content in images.items():
        write_image(root / "JPEGImages" / f"{stem}.png")
        write_file(root / "Annotations" / f"{stem}.xml", content)
    for name, stems in lists.items():
        write_file(root / "ImageSets" / "Main" / f"{name}.txt", "\n".join(stems))
    return root


def coco_value(entries: list[dict[str, Any]], count: int = 1, **changed: Any) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 48, "height": 32} for i in range(count)],
        "annotations": [{"id": i, "image_id": 0, "category_id": 3, **entry} for i, entry in enumerate(entries)],
        "categories": [{"id": 3, "name": "zebra"}, {"id": 9, "name": "ant"}],
        **changed,
    }


def coco(root: Path, value: Any = None, name: str = "instances_all.json", images: int = 1) -> Path:
    for i in range(images):
        write_image(root / "images" / f"{i}.png")
    value = coco_value([{"bbox": [4, 8, 16, 22]}], images) if value is None else value
    write_file(root / "annotations" / name, value if isinstance(value, str) else json.dumps(value))
    return root


def yolo(root: Path, labels: dict[str, str | None], names: str = "names: [zebra, ant]\n") -> Path:
    for name, content in labels.items():
        write_image(root / "images" / f"{name}.png")
        (root / "labels").mkdir(exist_ok=True)
        if content is not None:
            write_file(root / "labels" / f"{name}.txt", content)
    write_file(root / "data.yaml", names)
    return root


def two_classes(root: Path, count: int = 20) -> Path:
    images = {
        f"{i:02}": xml(("rare" if i % 5 == 0 else "often", 1, 1, 9, 9), ("often", 4, 4, 8, 8)) for i in range(count)
    }
    return voc(root, images)


def seen(table: BoxTable) -> dict[str, tuple[str, BoxTarget, list[str]]]:
    """By the name of the image: its split, its boxes and their class names."""
    result = {}
    for row, path in enumerate(table.paths):
        boxes = table.targets.read(row)
        result[Path(path).stem] = (table.splits[row], boxes, [table.classes[i] for i in boxes.labels.tolist()])
    return result


def same(first: BoxTable, second: BoxTable) -> None:
    assert (first.classes, first.fixed) == (second.classes, second.fixed)
    one, two = seen(first), seen(second)
    assert one.keys() == two.keys()
    for name, (split, boxes, labels) in one.items():
        other_split, other, other_labels = two[name]
        assert (split, labels, boxes.size) == (other_split, other_labels, other.size)
        np.testing.assert_allclose(other.corners, boxes.corners, atol=1e-3)
        np.testing.assert_allclose(other.area, boxes.area, rtol=1e-4)
        assert other.crowd.tolist() == boxes.crowd.tolist()
        assert other.difficult.tolist() == boxes.difficult.tolist()


def full(root: Path, kind: str) -> Path:
    """A folder with all that a format can say."""
    if kind == "voc":
        kept = "<pose>Left &amp; up</pose><truncated>1</truncated><difficult>1</difficult>"
        images = {
            "a": xml(("zebra", 1.5, 2.25, 30, 31), ("ant", 3, 4, 5, 6), more=kept),
            "b": xml(("ant", -3, 4, 55, 6), ("ant", 5, 5, 1, 9)),
            "c": xml(),
        }
        return voc(root, images, train=["a"], val=["b"], test=["c"], trainval=["a", "b"])
    if kind == "coco":
        for split, images in (("train", 2), ("val", 1)):
            entries = [
                {"bbox": [0.1, 0.2, 10.3, 10.4], "category_id": 9, "area": 55.5, "segmentation": [[1, 2, 3, 4, 5, 6]]},
                {"bbox": [40, 2, 30, 4], "iscrowd": 1, "id": 77},
                {"bbox": [40, 2, 0, 4]},
            ]
            value = coco_value(entries, images)
            for image in value["images"]:
                image.update(file_name=f"{split}{image['id']}.png", license=3)
                write_image(root / "images" / split / image["file_name"])
            write_file(root / "annotations" / f"instances_{split}.json", json.dumps(value))
        return root
    lines = "1 0.1234567 0.5 0.2 0.3\n0 0.25 0.25 0.75 0.25 0.5 1\n"
    return yolo(root, {"a": lines, "b": "1 0.9 0.9 0.5 0.5\n", "c": ""})


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=6)

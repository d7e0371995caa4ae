"""COCO files that list an image more than once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gossamer.data.boxes.convert import convert
from gossamer.data.boxes.open import read_boxes
from tests.annotations import coco, coco_value, seen, write_file

A, B = [1, 1, 4, 4], [8, 8, 6, 6]


def images(*names: str, first: int = 0) -> list[dict[str, Any]]:
    return [{"id": first + i, "file_name": name, "width": 48, "height": 32} for i, name in enumerate(names)]


def notes_of(root: Path) -> tuple[dict[str, tuple[str, int]], str]:
    """Split and number of boxes by image, and the notes."""
    table = read_boxes(root)
    return {name: (split, len(boxes.labels)) for name, (split, boxes, _) in seen(table).items()}, " | ".join(
        table.notes
    )


def test_the_boxes_of_an_image_listed_twice_are_joined(tmp_path: Path) -> None:
    annotations = [{"bbox": A}, {"bbox": B, "image_id": 1}, {"bbox": A, "image_id": 1}, {"bbox": B, "image_id": 2}]
    value = coco_value(annotations, images=images("0.png", "0.png", "1.png"))
    found, notes = notes_of(coco(tmp_path, value, images=2))
    assert found == {"0": ("", 2), "1": ("", 1)}  # the box that both entries have is there once
    assert "1 image is listed more than once, and 1 box of its further entries is added: images/0.png" in notes


def test_an_entry_that_stands_there_twice_counts_once(tmp_path: Path) -> None:
    value = coco_value([{"bbox": A}], images=[*images("0.png"), *images("0.png"), *images("1.png", first=1)])
    found, notes = notes_of(coco(tmp_path, value, images=2))
    assert found == {"0": ("", 1), "1": ("", 0)}
    assert "1 image is listed more than once" in notes


def test_two_files_of_one_split_are_joined(tmp_path: Path) -> None:
    coco(tmp_path, coco_value([{"bbox": A}], images=images("0.png", "1.png")), "first.json", images=2)
    coco(tmp_path, coco_value([{"bbox": B}], images=images("0.png")), "second.json", images=2)
    found, notes = notes_of(tmp_path)
    assert found == {"0": ("", 2), "1": ("", 0)}
    assert "listed more than once, and 1 box" in notes


def test_images_of_one_id_are_left_out_with_its_annotations(tmp_path: Path) -> None:
    every = [*images("0.png"), *images("1.png"), *images("2.png"), *images("3.png", first=5)]
    found, notes = notes_of(
        coco(tmp_path, coco_value([{"bbox": A}, {"bbox": B, "image_id": 5}], images=every), images=4)
    )
    assert found == {"3": ("", 1)}
    assert "3 of 4 images cannot be used" in notes and "image id 0 is given twice" in notes
    assert "0.png shares its id 0" in notes and "1 of 2 annotations cannot be used" in notes


def test_an_image_of_two_splits_stays_in_the_one_that_measures(tmp_path: Path) -> None:
    coco(tmp_path, coco_value([{"bbox": A}], images=images("0.png", "1.png")), "instances_train.json", images=3)
    both = coco_value([{"bbox": A}, {"bbox": B}], images=images("0.png", "2.png"))
    coco(tmp_path, both, "instances_val.json", images=3)
    found, notes = notes_of(tmp_path)
    assert found == {"0": ("val", 2), "1": ("train", 0), "2": ("val", 0)}  # with the boxes of its own file
    assert "1 image is listed in two splits and stays in one: images/0.png (in val, not in train)" in notes


def test_a_missing_or_broken_image_listed_twice_is_noted_once_a_kind(tmp_path: Path) -> None:
    value = coco_value([{"bbox": A}], images=images("0.png", "gone.png", "gone.png", "bad.png", "bad.png"))
    for entry in value["images"]:
        del entry["width"]  # so that the image is opened
    root = coco(tmp_path, value)
    write_file(root / "images" / "bad.png", b"no image")
    found, notes = notes_of(root)
    assert found == {"0": ("", 1)}
    assert "images are listed but missing" in notes and "1 image cannot be read" in notes


def test_what_was_joined_is_converted_once(tmp_path: Path) -> None:
    value = coco_value([{"bbox": A}, {"bbox": B, "image_id": 1}], images=images("0.png", "0.png"))
    convert(coco(tmp_path / "in", value), tmp_path / "out", "coco")
    (path,) = (tmp_path / "out" / "annotations").glob("*.json")
    written = json.loads(path.read_text())
    assert [entry["file_name"] for entry in written["images"]] == ["0.png"]
    assert sorted(entry["bbox"] for entry in written["annotations"]) == [A, B]

"""Class names in the characters of all languages, kept as they are in every kind of data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gossamer.data.boxes.convert import convert
from gossamer.data.boxes.open import open_boxes, read_boxes
from gossamer.data.masks.open import open_masks
from gossamer.data.open import open_data
from gossamer.errors import DataError
from gossamer.images.decode import is_text, printable
from tests.annotations import coco, coco_value, voc, write_file, write_image, xml, yolo

NAMES = {
    "Persian": "\u0645\u06cc\u200c\u0648\u0647",
    "Malayalam": "\u0d28\u0d4d\u200d\u0d2a",
    "Japanese": "\u8d64\u3000\u308a\u3093\u3054",
    "French": "n\u00b0\u00a05",
    "Hebrew": "\u05d0\u200f-\u05d1",
    "German": "Donau\u00addampf",
    "emoji": "\U0001f468\u200d\U0001f33e",
    "narrow": "10\u202f000",
}
named = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
CONTROLS = ["a\u202eb", "a\u2066b", "a\x1b[31m", "a\x07", "a\u2028b", "a\x85b"]


@pytest.mark.parametrize("name", CONTROLS)
def test_what_a_terminal_obeys_is_escaped_or_refused(tmp_path: Path, name: str) -> None:
    assert not is_text(name) and printable(name).isprintable()
    with pytest.raises(DataError, match="printable text"):
        read_boxes(coco(tmp_path, coco_value([], categories=[{"id": 3, "name": name}])))
    for each in (name, "dog"):
        for i in range(2):
            write_image(tmp_path / "folder" / each / f"{i}.png")
    assert set(open_data(tmp_path / "folder").classes) == {printable(name), "dog"}


@named
def test_folders_and_csv(tmp_path: Path, name: str) -> None:
    assert is_text(name) and printable(name) == name
    lines = ["path,label"]
    for each in (name, "dog"):
        for i in range(3):
            write_image(tmp_path / each / f"{i}.png")
            lines.append(f"{each}/{i}.png,{each}")
    write_file(tmp_path / "d.csv", "\n".join(lines) + "\n")
    assert set(open_data(tmp_path).classes) == set(open_data(tmp_path / "d.csv").classes) == {name, "dog"}


@named
def test_boxes_of_every_format_and_back(tmp_path: Path, name: str) -> None:
    line = "0 .5 .5 .5 .5\n1 .5 .5 .2 .2\n"
    categories = [{"id": 3, "name": name}, {"id": 9, "name": "dog"}]
    roots = {
        "coco": coco(tmp_path / "coco", coco_value([{"bbox": [1, 1, 9, 9]}], categories=categories)),
        "voc": voc(tmp_path / "voc", {"a": xml((name, 1, 1, 9, 9), ("dog", 2, 2, 9, 9))}),
        "yolo": yolo(tmp_path / "yolo", {"a": line}, f"names: [{json.dumps(name, ensure_ascii=False)}, dog]\n"),
        "plain": yolo(tmp_path / "plain", {"a": line}),
    }
    (roots["plain"] / "data.yaml").unlink()
    write_file(roots["plain"] / "classes.txt", f"{name}\ndog\n")
    for kind, root in roots.items():
        assert set(read_boxes(root).classes) == {name, "dog"}, kind
    for kind in ("voc", "coco", "yolo"):
        assert set(read_boxes(convert(roots["voc"], tmp_path / "to" / kind, kind).folder).classes) == {name, "dog"}


@named
def test_masks(tmp_path: Path, name: str) -> None:
    for i in range(3):
        write_image(tmp_path / f"images/{i}.png", 4, 4)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / f"masks/{i}.png")
    write_file(tmp_path / "classes.txt", f"{name}\ntwo  words\n")
    assert open_masks(tmp_path).classes == (name, "two words")
    write_file(tmp_path / "classes.txt", f"{name} 0 0 0\ndog\t1 1 1\n")
    assert open_masks(tmp_path).classes == (name, "dog")


def test_the_names_of_images_stay_as_they_were(tmp_path: Path) -> None:
    """Saved splits look images up by them."""
    for each in ("cat", "dog"):
        for i in range(2):
            write_image(tmp_path / each / f"a\u3000\u200c{i}.png")
    assert "cat/a\\u3000\\u200c0.png" in [*open_data(tmp_path).train.names, *open_data(tmp_path).val.names]


def test_boxes_open(tmp_path: Path) -> None:
    name = NAMES["emoji"]
    labels = {str(i): "0 .5 .5 .5 .5\n1 .5 .5 .2 .2\n" for i in range(4)}
    assert open_boxes(yolo(tmp_path, labels, f"names: ['{name}', dog]\n")).classes == (name, "dog")

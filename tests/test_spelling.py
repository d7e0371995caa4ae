"""Lists that spell the names of files otherwise than the disk does: composed or decomposed letters, upper or lower case."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from gossamer.data.boxes.open import open_boxes
from gossamer.data.open import open_data
from gossamer.data.spelling import Spellings, spelling

COMPOSED, DECOMPOSED = "\u00e9t\u00e9", unicodedata.normalize("NFD", "\u00e9t\u00e9")
SPELLINGS = [  # (on the disk, in the list)
    (DECOMPOSED + "{}.jpg", COMPOSED + "{}.jpg"),
    (COMPOSED + "{}.jpg", DECOMPOSED + "{}.jpg"),
    ("img{}.jpg", "IMG{}.JPG"),
    ("Img{}.JPEG", "img{}.jpeg"),
    ("stra\u00dfe{}.jpg", "STRASSE{}.JPG"),
]
BOX = [4, 5, 20, 10]


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.new("RGB", (32, 24), (40 * i, 90, 10)).save(folder / name, "JPEG")


@pytest.mark.parametrize("kind", ["coco", "coco folder", "yolo", "csv", "csv windows"])
@pytest.mark.parametrize(("disk", "listed"), SPELLINGS)
def test_lists_find_files_that_are_spelt_otherwise(tmp_path: Path, kind: str, disk: str, listed: str) -> None:
    there, names = ([pattern.format(i) for i in range(6)] for pattern in (disk, listed))
    write_images(tmp_path / "images", there)
    if kind.startswith("csv"):
        before = "D:\\set\\images\\" if kind == "csv windows" else "images/"
        rows = [f"{before}{name},{'ab'[i % 2]}" for i, name in enumerate(names)]
        (tmp_path / "d.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
        data = open_data(tmp_path / "d.csv")
    elif kind == "yolo":
        (tmp_path / "labels").mkdir()
        for name in there:
            (tmp_path / "labels" / name).with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.2\n")
        (tmp_path / "train.txt").write_text("\n".join(f"images/{name}" for name in names), encoding="utf-8")
        (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [a]\n")
        data = open_boxes(tmp_path)
    else:
        top = "Images/" if kind == "coco folder" else ""
        content = {
            "images": [{"id": i, "file_name": top + name, "width": 32, "height": 24} for i, name in enumerate(names)],
            "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": BOX} for i in range(6)],
            "categories": [{"id": 1, "name": "a"}],
        }
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        data = open_boxes(tmp_path)
    found = [*data.train.names, *data.val.names]
    assert sorted(Path(name).name for name in found) == sorted(there)
    assert not any("missing" in note or "left out" in note for note in data.notes), data.notes


def test_a_name_as_it_is_written_comes_before_other_spellings(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg", "A.jpg", "b.jpg", "Sub.jpg"])
    names = Spellings()
    assert names.find(tmp_path, ["A.jpg"]) == tmp_path / "A.jpg"
    assert names.find(tmp_path, ["A.JPG"]) is None  # two are spelt so
    assert names.find(tmp_path, ["B.JPG"]) == tmp_path / "b.jpg"
    assert names.find(tmp_path, ["b.jpg", "c.jpg"]) is None and names.find(tmp_path, ["none", "b.jpg"]) is None
    assert names.find(tmp_path, ["b" * 5000]) is None and names.find(tmp_path, []) is None
    rows = "path,label\nA.JPG,x\nB.JPG,x\nsub.jpg,y\n"
    (tmp_path / "d.csv").write_text(rows)
    data = open_data(tmp_path / "d.csv")
    assert any("1 of 3 files are missing: A.JPG" in note for note in data.notes), data.notes


def test_a_spelling_is_that_of_all_forms() -> None:
    assert (
        len({spelling(COMPOSED), spelling(DECOMPOSED), spelling(COMPOSED.upper()), spelling(DECOMPOSED.upper())}) == 1
    )
    assert spelling("a") != spelling("\u00e0")

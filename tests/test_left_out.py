"""A data set that reads fewer images than it holds says how many, which and why: when it is opened, checked, evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gossamer.cli.main import main
from gossamer.data.open import apply_split, open_data, open_source
from gossamer.data.source import Data
from gossamer.data.split import split_rows
from gossamer.data.tasks import reader_of
from gossamer.settings import Settings
from tests.annotations import write_file
from tests.toollayouts import BOXES, COUNT, image, images, mask, name_of


def masks(root: Path) -> None:
    images(root)
    for number in range(COUNT):
        mask(root / f"masks/a{number}.png", number)
        mask(root / f"SegmentationObject/a{number}.png", number)  # of the same set, and no image of it


def table(root: Path) -> None:
    images(root)
    write_file(root / "labels.csv", "path,label\n" + "".join(f"images/a{n}.jpg,{name_of(n)}\n" for n in range(COUNT)))


def opened(root: Path, task: str) -> Data:
    place = root / "labels.csv" if task == "classify" else root
    return open_data(place, read=reader_of(task, Settings()))


KINDS: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "voc": (BOXES["voc: Label Studio"], "detect", "images/extra{}.jpg", "have no annotation"),
    "coco": (BOXES["coco: one file"], "detect", "images/extra{}.jpg", "in no annotation file"),
    "coco elsewhere": (BOXES["coco: one file"], "detect", "more/extra{}.jpg", "in no annotation file"),
    "yolo lists": (BOXES["yolo: CVAT 1.1"], "detect", "obj_train_data/extra{}.jpg", ""),
    "labelme": (BOXES["labelme: beside"], "detect", "extra{}.jpg", "have no annotation"),
    "labelstudio": (BOXES["labelstudio: JSON"], "detect", "images/extra{}.jpg", ""),
    "cvat": (BOXES["cvat: boxes"], "detect", "images/extra{}.jpg", "3 images are not listed"),
    "fiftyone": (BOXES["fiftyone: detections"], "detect", "data/extra{}.jpg", "3 images are not listed"),
    "masks": (masks, "segment", "images/extra{}.jpg", "have no mask"),
    "CSV": (table, "classify", "images/extra{}.jpg", ""),
    "multilabel": (table, "multilabel", "images/extra{}.jpg", ""),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_left_out_is_reported(tmp_path: Path, name: str) -> None:
    make, task, pattern, reason = KINDS[name]
    make(tmp_path)
    before = opened(tmp_path, task)
    assert not before.left_out and not any("left out" in note for note in before.notes)
    for number in range(3):
        image(tmp_path / pattern.format(number), 90 + number)
    image(tmp_path / "@eaDir/extra.jpg", 3)  # no image of the set at all
    data = opened(tmp_path, task)
    (missed,) = data.left_out
    assert (missed.count, missed.held, len(missed.names)) == (3, COUNT + 3, 3)
    assert any(
        f"3 of {COUNT + 3} images are left out" in note and "extra0" in note and "extra2" in note for note in data.notes
    )
    assert any(reason in note for note in data.notes)
    read = reader_of(task, Settings())
    again = apply_split(tmp_path / "labels.csv" if task == "classify" else tmp_path, split_rows(data), read=read)
    assert again.left_out == data.left_out
    if task != "multilabel":
        source = open_source(
            tmp_path / "labels.csv" if task == "classify" else tmp_path, data.classes, read=reader_of(task, Settings())
        )
        assert source.left_out == data.left_out and set(source.notes) <= set(data.notes)


def test_validation_data_inside_the_training_data_are_not_left_out(tmp_path: Path) -> None:
    images(tmp_path, "images/a{}.jpg")
    images(tmp_path / "check", "b{}.jpg")
    lines = "".join(f"images/a{n}.jpg,{name_of(n)}\n" for n in range(COUNT))
    write_file(tmp_path / "train.csv", "path,label\n" + lines)
    write_file(tmp_path / "check/val.csv", "path,label\n" + lines.replace("images/a", "b"))
    assert not open_data(tmp_path / "train.csv", val=tmp_path / "check/val.csv").left_out


def test_the_dataset_check_lists_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    BOXES["coco: one file"](tmp_path)
    image(tmp_path / "images/extra.jpg", 90)
    command = ["doctor", "--data", str(tmp_path), "--task", "detect"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"1 of {COUNT + 1} images are left out: images/extra.jpg" in out and "Nothing: no unreadable" not in out
    assert main([*command, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["left_out"] == [
        {"place": str(tmp_path), "held": COUNT + 1, "left_out": 1, "names": ["images/extra.jpg"]}
    ]
    assert any("left out" in note for note in plain["notes"])


def test_many_names_are_counted(tmp_path: Path) -> None:
    BOXES["coco: one file"](tmp_path)
    for number in range(30):
        image(tmp_path / f"images/extra{number:02}.jpg", number)
    (missed,) = opened(tmp_path, "detect").left_out
    assert len(missed.names) == 20 and missed.line().endswith("images/extra04.jpg and 25 more")

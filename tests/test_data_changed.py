"""What has changed in the data of a run since it began is reported when it resumes, whatever it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gossamer
from gossamer.data.changed import changes_since, image_states
from gossamer.data.open import apply_split, open_data
from gossamer.data.source import Data
from gossamer.data.split import split_rows
from gossamer.data.tasks import reader_of
from gossamer.run import Run
from gossamer.settings import Settings
from gossamer.training.restore import changes_in_data
from tests.annotations import write_file
from tests.test_trainer import Messages, small
from tests.toollayouts import BOXES, COUNT, coco_value, image, images, mask, yolo_line


def folder(root: Path) -> None:
    for split, count in (("train", 6), ("val", 2)):
        for number in range(count):
            image(root / split / ("cat", "dog")[number % 2] / f"p{number}.png", number)


def masks(root: Path) -> None:
    images(root)
    for number in range(COUNT):
        mask(root / f"masks/a{number}.png", number)


def table(root: Path) -> None:
    images(root)
    write_file(root / "labels.csv", "path,label\n" + "".join(f"images/a{n}.jpg,{n}.5\n" for n in range(COUNT)))


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def same_size(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data)
    os.utime(path, ns=(1, 10**18))


def reorder(path: Path) -> None:
    edit(path, "names: [car, dog]", "names: [dog, car]")


def recategorise(path: Path) -> None:
    value = coco_value("a{}.jpg".format)
    value["annotations"][0]["category_id"] = 1
    write_file(path, __import__("json").dumps(value))


CHANGES: dict[str, tuple[Callable[[Path], Any], str, Callable[[Path], Any], tuple[str, ...]]] = {
    "gone": (folder, "classify", lambda r: (r / "train/cat/p0.png").unlink(), ("1 image is gone: train/cat/p0.png",)),
    "added": (folder, "classify", lambda r: image(r / "train/cat/new.png", 50), ("1 image was added", "cat/new.png")),
    "other content": (
        folder,
        "classify",
        lambda r: Image.new("RGB", (5, 5)).save(r / "train/cat/p0.png"),
        ("1 image has other content now", "train/cat/p0.png"),
    ),
    "written again": (
        folder,
        "classify",
        lambda r: same_size(r / "val/dog/p1.png"),
        ("1 image was written again with the same size", "val/dog/p1.png"),
    ),
    "moved to another class": (
        folder,
        "classify",
        lambda r: (r / "train/cat/p0.png").rename(r / "train/dog/p0.png"),
        ("1 image is gone: train/cat/p0.png", "1 image was added", "train/dog/p0.png"),
    ),
    "a class renamed": (
        folder,
        "classify",
        lambda r: (r / "train/cat").rename(r / "train/kitty"),
        ("train/cat seems to have been renamed to train/kitty: 3 images",),
    ),
    "gone from its table": (
        table,
        "regress",
        lambda r: (r / "images/a3.jpg").unlink(),
        ("1 image is gone, though still listed: images/a3.jpg",),
    ),
    "a mask": (
        masks,
        "segment",
        lambda r: Image.fromarray(np.zeros((48, 64), np.uint8)).save(r / "masks/a1.png"),
        ("1 image has another label or annotation now", "images/a1.jpg"),
    ),
    "a number": (
        table,
        "regress",
        lambda r: edit(r / "labels.csv", "a3.jpg,3.5", "a3.jpg,4.5"),
        ("1 image has another label or annotation now: images/a3.jpg",),
    ),
    "a box": (
        BOXES["yolo: Roboflow"],
        "detect",
        lambda r: (r / "train/labels/a2.txt").write_text(yolo_line(2) + yolo_line(3)),
        ("1 image has another label or annotation now", "a2.jpg"),
    ),
    "names in another order": (
        BOXES["yolo: Roboflow"],
        "detect",
        lambda r: reorder(r / "data.yaml"),
        ("8 images have another label or annotation now",),
    ),
    "a category": (
        BOXES["coco: one file"],
        "detect",
        lambda r: recategorise(r / "annotations.json"),
        ("1 image has another label or annotation now: images/a0.jpg",),
    ),
    "another split": (
        BOXES["yolo: a file of any name"],
        "detect",
        lambda r: edit(
            r / "cars.yaml", "train: images/train\nval: images/valid", "train: images/valid\nval: images/train"
        ),
        ("8 images are in another split now",),
    ),
}


def opened(root: Path, task: str) -> Data:
    return open_data(root, read=reader_of(task, Settings()))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_reported(tmp_path: Path, name: str) -> None:
    make, task, change, messages = CHANGES[name]
    make(tmp_path)
    data = opened(tmp_path, task)
    rows, states = split_rows(data), list(image_states(data))
    again = apply_split(tmp_path, rows, classes=data.classes, read=reader_of(task, Settings()))
    assert not [note for note in again.notes if note.startswith("since")] and not changes_since(states, again)
    change(tmp_path)
    again = apply_split(tmp_path, rows, classes=data.classes, read=reader_of(task, Settings()))
    notes = [note for note in [*again.notes, *changes_since(states, again)] if note.startswith("since")]
    for words in messages:
        assert any(words in note for note in notes), notes
    assert all("\n" not in note for note in notes)


def test_a_copy_of_the_data_is_one_note(tmp_path: Path) -> None:
    folder(tmp_path)
    states = list(image_states(opened(tmp_path, "classify")))
    for path in tmp_path.rglob("*.png"):
        same_size(path)
    (note,) = changes_since(states, opened(tmp_path, "classify"))
    assert "all 8 images were written again" in note


def test_a_run_of_an_older_version_goes_by_its_fingerprint(tmp_path: Path) -> None:
    folder(tmp_path / "data")
    data = opened(tmp_path / "data", "classify")
    run = Run.create(Settings(data=str(tmp_path / "data"), out=str(tmp_path / "run")))
    run.save_data(data.classes, {"fingerprint": data.fingerprint}, split_rows(data))
    (run.path / "images.csv").unlink()
    assert run.images() == [] and not changes_in_data(run, data)
    Image.new("RGB", (5, 5)).save(tmp_path / "data/train/cat/p0.png")
    assert "the data have changed" in changes_in_data(run, opened(tmp_path / "data", "classify"))[0]


def test_a_resumed_run_says_it_and_removes_what_a_kill_left(tmp_path: Path) -> None:
    folder(tmp_path / "data")
    gossamer.train(small(tmp_path / "data", tmp_path / "run", epochs=1, batch=2))
    Image.new("RGB", (9, 9)).save(tmp_path / "data/train/cat/p0.png")
    image(tmp_path / "data/train/dog/new.png", 70)
    left = tmp_path / "run/.last.safetensors.ab12cd_3.part"
    left.write_bytes(b"half")
    shutil.copy(tmp_path / "data/train/cat/p2.png", tmp_path / "run/mine.part")
    progress = Messages()
    gossamer.resume(tmp_path / "run", progress=progress)
    text = "\n".join(progress.lines)
    assert "since the run began, 1 image has other content now, by its size: train/cat/p0.png" in text
    assert "1 image was added and is not used: train/dog/new.png" in text
    assert "removed 1 unfinished file of a killed process: .last.safetensors.ab12cd_3.part" in text
    assert not left.exists() and (tmp_path / "run/mine.part").exists()

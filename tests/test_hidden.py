"""Thumbnails, recycle bins and other folders of a system beside the images: skipped in every kind of data, and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gossamer.data.boxes.open import open_boxes
from gossamer.data.masks.open import open_masks
from gossamer.data.open import open_data
from gossamer.images.hidden import is_hidden
from gossamer.runtime.predict import find_images
from tests.annotations import voc, write_file, write_image, xml, yolo

KEPT_BESIDE = (
    *("@eaDir/p0.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/gone.jpg", "@Recycle/gone.png", "$RECYCLE.BIN/S-1/$R1.jpg"),
    *("__MACOSX/._p0.jpg", "lost+found/#1.jpg", "System Volume Information/x.png", "found.000/file0.jpg", "._p0.jpg"),
    *(".thumbnails/normal/a.png", ".@__thumb/p0.jpg", ".Trash-1000/files/p0.jpg", "@__thumb/p0.jpg"),
    *("@Transcode/a.jpg", "_vti_cnf/p0.jpg", "iPod Photo Cache/T1.jpg", "[Originals]/p0.jpg", "$Extend/a.jpg"),
)


@pytest.mark.parametrize("name", ["found.jpg", "recycled", "#1", "@home", "thumbs", "lost", "eaDir", "$10", "macosx"])
def test_ordinary_names_are_not_hidden(name: str) -> None:
    assert not is_hidden(name)


def classes(root: Path) -> Path:
    for name in ("cat", "dog"):
        for i in range(5):
            write_image(root / name / f"p{i}.png")
    return root


@pytest.mark.parametrize("beside", KEPT_BESIDE)
@pytest.mark.parametrize("at", ["", "cat/"])
def test_a_folder_of_classes(tmp_path: Path, beside: str, at: str) -> None:
    plain, root = open_data(classes(tmp_path / "plain")), classes(tmp_path / "root")
    write_image(root / at / beside)
    data = open_data(root)
    assert data.classes == ("cat", "dog") and data.fingerprint == plain.fingerprint
    (note,) = data.notes
    assert "1 image in hidden files" in note and f"{beside.split('/')[0]} (1)" in note


@pytest.mark.parametrize("place", ["Thumbnails", "cat/thumbs", "dog/2019/Originals/raw", "Trash"])
def test_folders_that_may_be_of_copies_are_read_and_told(tmp_path: Path, place: str) -> None:
    """A class may be called so, too."""
    write_image(classes(tmp_path) / place / "a.png")
    data = open_data(tmp_path)
    assert len(data.train) + len(data.val) == 11
    called = place.removesuffix("/raw")
    assert [
        note
        for note in data.notes
        if "1 image is read from folders called as those of copies" in note and f"{called} (1)" in note
    ]


@pytest.mark.parametrize(
    "name", [".DS_Store", "Thumbs.db", "desktop.ini", ".stfolder/x", ".ipynb_checkpoints/a.ipynb", "ehthumbs.db"]
)
def test_a_system_s_files_that_are_no_images_are_no_news(tmp_path: Path, name: str) -> None:
    write_file(classes(tmp_path) / "cat" / name, "x")
    assert not open_data(tmp_path).notes


@pytest.mark.parametrize("name", ["@Recently-Snapshot/a.jpg", ".ipynb_checkpoints/a.png", ".Trash-1000/files/a.jpg"])
def test_boxes_leave_them_out_too(tmp_path: Path, name: str) -> None:
    root = yolo(tmp_path, dict.fromkeys("abcd", "0 .5 .5 .5 .5\n1 .5 .5 .2 .2\n"))
    plain = open_boxes(root)
    write_image(root / "images" / name)
    write_image(root / name)
    data = open_boxes(root)
    assert data.fingerprint == plain.fingerprint and not data.left_out


def test_folders_of_splits_count_them_by_their_name(tmp_path: Path) -> None:
    for split in ("train", "val"):
        classes(tmp_path / split)
        write_image(tmp_path / split / "cat/@eaDir/p0.png/T.jpg")
        write_image(tmp_path / split / "@eaDir/x.jpg")
    write_image(tmp_path / "#recycle/cat/a.jpg")
    write_file(tmp_path / ".git/config", "")
    data = open_data(tmp_path)
    assert [len(source) for source in data.splits().values()] == [10, 10]
    assert [note for note in data.notes if "#recycle (1), @eaDir (4)" in note and "5 images" in note]


def test_boxes_and_masks(tmp_path: Path) -> None:
    labels = dict.fromkeys("abcd", "0 .5 .5 .5 .5\n1 .5 .5 .2 .2\n")
    boxes = [
        (yolo(tmp_path / "yolo", labels), "images"),
        (yolo(tmp_path / "lists", labels, "names: [zebra, ant]\ntrain: images\n"), "images"),
        (voc(tmp_path / "voc", {name: xml(("a", 1, 1, 9, 9), ("b", 4, 4, 8, 8)) for name in "abcd"}), "JPEGImages"),
    ]
    for root, folder in boxes:
        write_image(root / folder / "@eaDir/a.png/THUMB.jpg")
        write_image(root / folder / "._b.png")
        data = open_boxes(root)
        assert len(data.train) + len(data.val) == 4
        assert [note for note in data.notes if "2 images in hidden files" in note and "@eaDir (1)" in note]
    root = tmp_path / "masks"
    for name in "abcd":
        write_image(root / f"images/{name}.png", 4, 4)
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.eye(4, dtype=np.uint8)).save(root / f"masks/{name}.png")
    for folder in ("images", "masks"):
        write_image(root / folder / "@eaDir/a.png/T.png")
    data = open_masks(root)
    assert len(data.train) + len(data.val) == 4
    assert len([note for note in data.notes if "@eaDir (1)" in note]) == 2


def test_predictions_of_a_folder(tmp_path: Path) -> None:
    for beside in KEPT_BESIDE:
        write_image(tmp_path / beside)
    write_image(tmp_path / "a.png")
    assert find_images(tmp_path) == [(tmp_path / "a.png", "")]

"""Data opened for another task than theirs, or written by other tools: recognised, read or refused in one line."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gossamer.data.boxes.open import open_boxes, recognise
from gossamer.data.layouts import annotated_for, check_task_named
from gossamer.data.open import open_data, open_source, read_table
from gossamer.errors import DataError
from gossamer.settings import Settings
from gossamer.tasks.registry import task_of
from tests.annotations import coco, voc, write_file, write_image, xml, yolo

LINE = "0 .5 .5 .5 .5\n1 .5 .5 .2 .2\n"


def masks(root: Path, images: str, targets: str) -> Path:
    for split in ("train", "val"):
        for name in "abc":
            write_image(root / images.format(split) / f"{name}.png", 4, 4)
            target = root / targets.format(split) / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.eye(4, dtype=np.uint8)).save(target)
    return root


OTHER_TASKS = {
    "masks by split": (lambda root: masks(root, "{}/images", "{}/masks"), "segment"),
    "masks and splits inside": (lambda root: masks(root, "images/{}", "masks/{}"), "segment"),
    "masks": (lambda root: masks(root, "images", "masks"), "segment"),
    "masks called labels": (lambda root: masks(root, "img", "Labels"), "segment"),
    "VOC": (lambda root: voc(root, {"a": xml(("a", 1, 1, 9, 9))}), "detect"),
    "COCO": (coco, "detect"),
    "YOLO": (lambda root: yolo(root, {"a": LINE}), "detect"),
    "YOLO by split": (
        lambda root: [
            (write_image(root / split / "images/a.png"), write_file(root / split / "labels/a.txt", LINE))
            for split in ("train", "val")
        ],
        "detect",
    ),
}


@pytest.mark.parametrize("name", OTHER_TASKS)
@pytest.mark.parametrize("task", ["classify", "embed"])
def test_boxes_and_masks_are_no_classes(tmp_path: Path, name: str, task: str) -> None:
    make, expected = OTHER_TASKS[name]
    make(tmp_path)
    with pytest.raises(DataError) as caught:
        task_of(task).open_data(Settings(data=str(tmp_path), task=task))  # type: ignore[arg-type]
    assert f"--task {expected}" in str(caught.value) and str(caught.value).count("--task") == 1


def test_classes_called_as_such_folders_are_classes(tmp_path: Path) -> None:
    for name, stem in (("images", "a{}"), ("masks", "b{}"), ("labels", "c{}")):
        for i in range(3):
            write_image(tmp_path / name / f"{stem.format(i)}.png")
    data = task_of("classify").open_data(Settings(data=str(tmp_path)))
    assert data.classes == ("images", "labels", "masks")


def test_classes_beside_a_json_of_boxes_are_classes(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(3):
            write_image(tmp_path / name / f"{i}.png")
    write_file(tmp_path / "boxes.json", json.dumps({"images": [], "annotations": [], "categories": []}))
    assert task_of("classify").open_data(Settings(data=str(tmp_path))).classes == ("cat", "dog")


@pytest.mark.parametrize(
    "value",
    [
        {"categories": [{"id": 0, "name": "zebra"}], "info": {"contributor": "Label Studio"}},
        {"images": 8, "annotations": 8},
        {"images": {"train": 6}, "annotations": None},
        {"names": ["images", "annotations"]},
    ],
)
def test_a_json_beside_yolo_labels_leaves_them_yolo(tmp_path: Path, value: object) -> None:
    root = yolo(tmp_path, dict.fromkeys("abcd", LINE))
    write_file(root / "notes.json", json.dumps(value, indent=1))
    assert recognise(root) == "yolo"
    assert open_boxes(root).classes == ("zebra", "ant")


def test_csv_paths_with_backslashes(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(3):
            write_image(tmp_path / name / f"p{i}.png")
    write_image(tmp_path / "cat\\odd.png")
    lines = [f"{name}\\p{i}.png,{name}" for name in ("cat", "dog") for i in range(3)]
    write_file(tmp_path / "w.csv", "path,label\r\n" + "\r\n".join(lines) + "\r\n")
    write_file(tmp_path / "u.csv", "path,label\n" + "\n".join(lines).replace("\\", "/") + "\ncat\\odd.png,cat\n")
    windows, plain = read_table(tmp_path / "w.csv"), read_table(tmp_path / "u.csv")
    assert windows.names == plain.names[:3] + plain.names[4:] and not windows.notes and not plain.notes
    assert plain.store.read(plain.names.index("cat\\\\odd.png" if "cat\\\\odd.png" in plain.names else "cat\\odd.png"))


def shard(path: Path, labels: list[object], ending: str = "cls") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = write_image(path.parent / "x.png").read_bytes()
    with tarfile.open(path, "w") as tar:
        for i, label in enumerate(labels):
            for name, data in ((f"s{i}.png", image), (f"s{i}.{ending}", str(label).encode())):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    (path.parent / "x.png").unlink()
    return path


@pytest.mark.parametrize("ending", ["cls", "txt"])
def test_class_numbers_in_shards_index_the_classes_argument(tmp_path: Path, ending: str) -> None:
    names = ("zebra", "apple", "mule")
    path = shard(tmp_path / "some.tar", [2, 0, 0, 1], ending)
    source = open_source(path, names)
    assert source.classes == names and source.labels.tolist() == [2, 0, 0, 1]
    one = open_source(shard(tmp_path / "one.tar", [0, 0], ending), names)
    assert one.classes == names and one.labels.tolist() == [0, 0]
    task = task_of("classify")
    assert task.open_source(str(path), names, Settings()).labels.tolist() == [2, 0, 0, 1]


def test_classes_that_are_called_by_numbers_keep_their_names(tmp_path: Path) -> None:
    path = shard(tmp_path / "some.tar", [3, 7, 3])
    assert open_source(path, ("7", "3")).labels.tolist() == [1, 0, 1]


def test_a_class_number_beyond_the_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"label 5; allowed: 0 to 1"):
        open_source(shard(tmp_path / "some.tar", [0, 5]), ("zebra", "apple"))
    with pytest.raises(DataError) as caught:
        open_source(shard(tmp_path / "words.tar", ["cow", "apple"], "txt"), ("zebra", "apple"))
    assert "move the images" not in str(caught.value) and "class cow" in str(caught.value)


def test_validation_shards_elsewhere_have_the_classes_of_the_training_shards(tmp_path: Path) -> None:
    shard(tmp_path / "learn/train.tar", [0, 1, 1, 0])
    write_file(tmp_path / "learn/classes.txt", "zebra\napple\n")
    val = shard(tmp_path / "check/some.tar", [1, 1, 0])
    data = open_data(tmp_path / "learn", val=val)
    assert data.classes == data.val.classes == ("zebra", "apple") and data.val.labels.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("image", "annotation"),
    [
        ("images/{name}.png", "Annotations/{name}.xml"),
        ("images/{name}.png", "annotations/{name}.xml"),
        ("{name}.png", "{name}.xml"),
        ("{split}/{name}.png", "{split}/{name}.xml"),
        ("{split}/images/{name}.png", "{split}/annotations/{name}.xml"),
        ("images/{split}/{name}.png", "annotations/{split}/{name}.xml"),
    ],
)
def test_voc_as_tools_write_it(tmp_path: Path, image: str, annotation: str) -> None:
    for split, names in (("train", "abcd"), ("valid", "ef")):
        for name in names:
            write_image(tmp_path / image.format(split=split, name=name))
            write_file(
                tmp_path / annotation.format(split=split, name=name), xml(("a", 5, 9, 20, 30), ("b", 1, 1, 9, 9))
            )
    data = open_boxes(tmp_path)
    assert data.classes == ("a", "b") and len(data.train) + len(data.val) == 6 and not data.notes
    if "{split}" in image:
        assert sorted(Path(name).stem for name in data.val.names) == ["e", "f"]
    np.testing.assert_allclose(data.train.target(0).corners[0], [4, 8, 20, 30])


@pytest.mark.parametrize("content", ['["zebra", "apple"]', '{"0": "zebra", "1": "apple"}', '{"apple": 1, "zebra": 0}'])
def test_classes_json_beside_shards_names_their_numbers(tmp_path: Path, content: str) -> None:
    shard(tmp_path / "train.tar", [0, 1, 1, 0])
    write_file(tmp_path / "classes.json", content)
    table = read_table(tmp_path)
    assert table.classes == ("zebra", "apple") and table.labels.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    "content",
    [
        "[",
        "{}",
        "[1]",
        '["a", "a"]',
        '["a", "a "]',
        r'["a", "b\nc"]',
        '{"0": "a", "2": "b"}',
        '{"a": 1, "b": 1}',
        '"a"',
    ],
)
def test_a_broken_classes_json_beside_shards_is_one_line(tmp_path: Path, content: str) -> None:
    shard(tmp_path / "train.tar", [0, 1])
    write_file(tmp_path / "classes.json", content)
    with pytest.raises(DataError, match=r"classes\.json: ") as caught:
        read_table(tmp_path)
    assert "\n" not in str(caught.value)


def test_numbers_in_a_shard_are_scored_as_the_same_images_in_folders(tmp_path: Path) -> None:
    """Also where the shard has images of one class alone."""
    names = ("zebra", "apple")
    for number, name in enumerate(names):
        for i in range(3):
            write_image(tmp_path / "folder" / name / f"s{number}{i}.png", 20 + i, 10 + number)
    for labels in ([0, 0, 0, 1, 1, 1], [0, 0, 0], [1, 1, 1]):
        kept = [names[label] for label in sorted(set(labels))]
        place = tmp_path / ("one" if len(kept) == 1 else "both") / kept[0]
        files = [path for name in kept for path in sorted((tmp_path / "folder" / name).iterdir())]
        for path in files:
            write_file(place / path.parent.name / path.name, path.read_bytes())
        tar_path = place.with_suffix(".tar")
        with tarfile.open(tar_path, "w") as tar:
            for path, label in zip(files, labels, strict=True):
                for name, data in ((path.name, path.read_bytes()), (f"{path.stem}.cls", str(label).encode())):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
        shard_source, folder_source = open_source(tar_path, names), open_source(place, names)
        by_label = [
            sorted((source.read(i), label) for i, label in enumerate(source.labels.tolist()))
            for source in (shard_source, folder_source)
        ]
        assert by_label[0] == by_label[1] and len(by_label[0]) == len(labels)


def test_a_layout_of_boxes_or_masks_is_refused_by_the_names_of_its_folders_alone(tmp_path: Path) -> None:
    """Before the images are read; folders that are called as classes are left to the reading."""
    refused = {
        "masks": masks(tmp_path / "masks", "images/{}", "masks/{}"),
        "file": coco(tmp_path / "file") / "annotations/instances_all.json",
    }
    for root in refused.values():
        with pytest.raises(DataError, match="--task"):
            check_task_named(root)
    classes = tmp_path / "classes"
    for name in ("cat", "dog"):
        write_image(classes / name / "0.png")
    check_task_named(classes)
    (coco(tmp_path / "other") / "annotations/instances_all.json").rename(classes / "boxes.json")
    assert annotated_for(classes) == ["detect"]
    check_task_named(classes)
    check_task_named(tmp_path / "missing")

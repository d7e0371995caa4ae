"""Layouts, lists, names and files next to those that other tests have: of another tool, another system or another fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gossamer.data.boxes.open import open_boxes
from gossamer.data.masks.open import open_masks
from gossamer.data.open import open_data
from gossamer.errors import DataError
from gossamer.images.decode import is_text
from tests.annotations import write_file
from tests.toollayouts import (
    COUNT,
    NAMES,
    coco_json,
    coco_value,
    cvat,
    each,
    fiftyone,
    image,
    images,
    label_studio,
    mask,
    voc_xml,
    yolo_line,
)

Files = list[tuple[str, bytes]]


def is_complete(root: Path) -> None:
    data = open_boxes(root)
    assert data.classes == NAMES and len(data.train) + len(data.val) == COUNT


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        ("a{}.jpg", "labels/a{}.txt"),
        ("JPEGImages/a{}.jpg", "labels/a{}.txt"),
        ("imgs/a{}.jpg", "labels/a{}.txt"),
        ("Images/a{}.jpg", "Labels/a{}.txt"),
        ("images/a{}.jpg", "annotations/a{}.txt"),
        ("a{}.jpg", "annotations/a{}.xml"),
        ("photos/a{}.jpg", "annotation/a{}.xml"),
        ("img/a{}.jpg", "ann/a{}.xml"),
        ("a{}.jpg", "pascal_voc/a{}.xml"),
        ("images/a{}.jpg", "images/labels/a{}.txt"),
        ("train/a{}.jpg", "train/labels/a{}.txt"),
        ("images/a{}.jpg", "labels/a{}.TXT"),
        ("images/a{}.JPG", "labels/A{}.txt"),
        ("images/a{}.jpg", "labels/a{}.jpg.txt"),
        ("a{}.jpg", "a{}.TXT"),
        ("JPEGImages/a{}.jpg", "Annotations/a{}.XML"),
        ("JPEGImages/a{}.jpg", "Annotations/A{}.xml"),
        ("JPEGImages/a{}.jpg", "Annotations/a{}.jpg.xml"),
    ],
)
def test_folders_of_boxes_of_other_names(tmp_path: Path, pictures: str, labels: str) -> None:
    images(tmp_path, pictures)
    each(tmp_path, labels, voc_xml if labels.lower().endswith("xml") else yolo_line)
    if labels.lower().endswith("txt"):
        write_file(tmp_path / "classes.txt", "car\ndog\n")
    is_complete(tmp_path)
    data = open_boxes(tmp_path)
    assert data.notes == [] and len(data.train.target(0)) == 1


@pytest.mark.parametrize("name", ["predefined_classes.txt", "coco.names", "_classes.txt", "labels/classes.txt"])
def test_files_of_class_names(tmp_path: Path, name: str) -> None:
    images(tmp_path)
    each(tmp_path, "labels/a{}.txt", yolo_line)
    write_file(tmp_path / name, "car\ndog\n")
    is_complete(tmp_path)


@pytest.mark.parametrize("place", ["Annotations/coco.json", "labels/coco.json", "ann/x.json", "annotations.JSON"])
def test_places_of_coco_files(tmp_path: Path, place: str) -> None:
    images(tmp_path)
    write_file(tmp_path / place, coco_json("a{}.jpg".format))
    is_complete(tmp_path)


def test_other_json_and_files_of_macos_beside_coco(tmp_path: Path) -> None:
    images(tmp_path, "train/a{}.jpg")
    write_file(tmp_path / "annotations/train.json", coco_json("a{}.jpg".format))
    write_file(tmp_path / "annotations/notes.json", '{"author": "me"}')
    (tmp_path / "annotations/._train.json").write_bytes(b"\0\5\x16\7\xff")
    is_complete(tmp_path)


@pytest.mark.parametrize("kind", ["xml", "txt"])
def test_files_of_macos_are_no_annotations(tmp_path: Path, kind: str) -> None:
    images(tmp_path)
    each(tmp_path, f"labels/a{{}}.{kind}", voc_xml if kind == "xml" else yolo_line)
    (tmp_path / f"labels/._a1.{kind}").write_bytes(b"\0\5\x16\7\xff")
    if kind == "txt":
        write_file(tmp_path / "classes.txt", "car\ndog\n")
    assert not open_boxes(tmp_path).notes


@pytest.mark.parametrize(
    "content",
    [
        '{"images": ["a0.jpg", "a1.jpg"]}',
        '{"images": [{"file": "a0.jpg", "score": 0.5}]}',
        '{"annotations": [{"by": "me"}]}',
        '{"images": [{"id": 1}], "annotations": [], "categories": []}',
    ],
)
def test_a_json_of_a_tool_leaves_a_yolo_folder_yolo(tmp_path: Path, content: str) -> None:
    yolo(tmp_path)
    write_file(tmp_path / "classes.txt", "car\ndog\n")
    write_file(tmp_path / "export.json", content)
    is_complete(tmp_path)
    assert not open_boxes(tmp_path).notes


@pytest.mark.parametrize("cut", [0, 40])
def test_coco_beside_yolo_is_not_guessed_at(tmp_path: Path, cut: int) -> None:
    """Whole or broken off: either may be what is meant."""
    yolo(tmp_path)
    write_file(tmp_path / "classes.txt", "car\ndog\n")
    write_file(tmp_path / "all.json", coco_json("a{}.jpg".format)[: -cut or None])
    with pytest.raises(DataError, match="holds COCO boxes, YOLO boxes"):
        open_boxes(tmp_path)


def test_a_number_of_python_alone_is_none(tmp_path: Path) -> None:
    yolo(tmp_path)
    write_file(tmp_path / "classes.txt", "car\ndog\n")
    write_file(tmp_path / "labels/a0.txt", "0 .5 .5 .2 1_0\n")
    assert "1 of 8 boxes have corners that are no numbers, and are dropped" in open_boxes(tmp_path).notes


def numbers_as_text(value: dict[str, list[dict[str, object]]]) -> None:
    for entry in value["images"]:
        entry["id"] = str(entry["id"])


def categories_as_text(value: dict[str, list[dict[str, object]]]) -> None:
    for entry in value["categories"]:
        entry["id"] = str(entry["id"])


def twice(value: dict[str, list[dict[str, object]]]) -> None:
    value["categories"].append(dict(value["categories"][0]))


def a_long_name(value: dict[str, list[dict[str, object]]]) -> None:
    for length in (300, 5000):
        value["images"].append({"id": 1000 + length, "file_name": "a" * length, "width": 64, "height": 48})


@pytest.mark.parametrize("change", [numbers_as_text, categories_as_text, twice, a_long_name])
def test_odd_entries_of_coco(tmp_path: Path, change: Callable[[dict[str, list[dict[str, object]]]], None]) -> None:
    images(tmp_path)
    value = coco_value("a{}.jpg".format)
    change(value)
    write_file(tmp_path / "annotations/instances_all.json", json.dumps(value))
    is_complete(tmp_path)
    assert all(len(note) < 1500 for note in open_boxes(tmp_path).notes)


def yolo(root: Path) -> None:
    images(root)
    each(root, "labels/a{}.txt", yolo_line)


@pytest.mark.parametrize(
    "line", ["a{}.jpg", "a{}", "./images/a{}.JPG", '"images/a{}.jpg"', "images\\a{}.jpg", "D:\\set\\images\\a{}.jpg"]
)
def test_lists_of_names(tmp_path: Path, line: str) -> None:
    yolo(tmp_path)
    for split, numbers in (("train", range(5)), ("val", range(5, 8))):
        write_file(tmp_path / f"{split}.txt", "".join(line.format(i) + "\n" for i in numbers))
    write_file(tmp_path / "data.yaml", "train: train.txt\nval: val.txt\nnames: [car, dog]\n")
    assert sorted(Path(name).name for name in open_boxes(tmp_path).val.names) == ["a5.jpg", "a6.jpg", "a7.jpg"]


@pytest.mark.parametrize(
    "parts",
    [
        "train: images/a[0-4].jpg\nval: images/a[5-7].jpg",
        f"train: {[f'images/a{i}.jpg' for i in range(5)]}\nval: {[f'./images/a{i}.jpg' for i in range(5, 8)]}",
    ],
)
def test_images_that_data_yaml_names_itself(tmp_path: Path, parts: str) -> None:
    yolo(tmp_path)
    write_file(tmp_path / "data.yaml", f"{parts}\nnames: [car, dog]\n")
    assert sorted(Path(name).name for name in open_boxes(tmp_path).val.names) == ["a5.jpg", "a6.jpg", "a7.jpg"]


def test_two_images_of_one_name_are_not_guessed_at(tmp_path: Path) -> None:
    yolo(tmp_path)
    image(tmp_path / "images/sub/a0.jpg", 0)
    write_file(tmp_path / "labels/sub/a0.txt", yolo_line(0))
    write_file(tmp_path / "train.txt", "".join(f"a{i}.jpg\n" for i in range(6)))
    write_file(tmp_path / "data.yaml", "train: train.txt\nnames: [car, dog]\n")
    data = open_boxes(tmp_path)
    assert len(data.train) + len(data.val) == 5 and any("1 of 6 images are not there" in note for note in data.notes)


def test_one_class_number_beyond_the_names_costs_one_image_and_many_the_data(tmp_path: Path) -> None:
    yolo(tmp_path)
    write_file(tmp_path / "classes.txt", "car\ndog\n")
    write_file(tmp_path / "labels/a1.txt", "7 .5 .5 .2 .2\n")
    data = open_boxes(tmp_path)
    assert len(data.train) + len(data.val) == COUNT - 1 and any("class '7'" in note for note in data.notes)
    for i in (2, 3):
        write_file(tmp_path / f"labels/a{i}.txt", "7 .5 .5 .2 .2\n")
    with pytest.raises(DataError, match="class '7'"):
        open_boxes(tmp_path)


@pytest.mark.parametrize(
    "line", ["a{}", "a{}  1", "a{} -1", "a{}.jpg", "JPEGImages/a{}.jpg", "/mnt/voc/JPEGImages/a{}.jpg"]
)
def test_lists_of_voc(tmp_path: Path, line: str) -> None:
    images(tmp_path, "JPEGImages/a{}.jpg")
    each(tmp_path, "Annotations/a{}.xml", voc_xml)
    for split, numbers in (("train", range(5)), ("val", range(5, 8))):
        write_file(tmp_path / f"ImageSets/Main/{split}.txt", "".join(line.format(i) + "\n" for i in numbers))
    data = open_boxes(tmp_path)
    assert (len(data.train), len(data.val)) == (5, 3)


@pytest.mark.parametrize(
    ("pictures", "masks"),
    [
        ("a{}.jpg", "masks/a{}.png"),
        ("images/a{}.jpg", "gt/a{}.png"),
        ("image/a{}.jpg", "label/a{}.png"),
        ("images/a{}.jpg", "masks/mask_a{}.png"),
        ("images/img_{}.jpg", "masks/mask_{}.png"),
        ("images/a{}.jpg", "masks/a{}_gt.png"),
        ("images/a{}.jpg", "masks/a{}-mask.png"),
        ("images/a{}.jpg", "masks/a{}.jpg.png"),
        ("JPEGImages/a{}.jpg", "SegmentationClassPNG/a{}.png"),
        ("train/image/a{}.png", "train/label/a{}.png"),
    ],
)
def test_names_of_masks_and_their_folders(tmp_path: Path, pictures: str, masks: str) -> None:
    for number, path in enumerate(images(tmp_path, pictures)):
        mask(tmp_path / masks.format(number), number)
        assert path.is_file()
    data = open_masks(tmp_path)
    assert len(data.classes) == 2 and len(data.train) + len(data.val) == COUNT


def test_lists_of_the_paths_of_images_and_masks(tmp_path: Path) -> None:
    for number in range(COUNT):
        image(tmp_path / f"JPEGImages/a{number}.jpg", number)
        mask(tmp_path / f"SegmentationClass/a{number}.png", number)
    for split, numbers in (("train", range(5)), ("val", range(5, 8))):
        lines = [f"JPEGImages/a{i}.jpg SegmentationClass/a{i}.png\n" for i in numbers]
        write_file(tmp_path / f"ImageSets/Segmentation/{split}.txt", "".join(lines))
    data = open_masks(tmp_path)
    assert (len(data.train), len(data.val)) == (5, 3)


@pytest.mark.parametrize(
    "name",
    [
        "\u0e01\u200b\u0e02",
        "\U0001f3f4\U000e0067\U000e0062\U000e007f",
        "\u1820\u180e\u1820",
        "\ue000",
        "\U0001fae9",
        "\u0600\u0661",
    ],
    ids=["Thai", "flag", "Mongolian", "private", "new", "Arabic"],
)
def test_characters_that_languages_need(tmp_path: Path, name: str) -> None:
    assert is_text(name)
    for each_name in (name, "dog"):
        for i in range(3):
            image(tmp_path / "classes" / each_name / f"{i}.png", i)
    assert name in open_data(tmp_path / "classes").classes
    yolo(tmp_path / "boxes")
    write_file(tmp_path / "boxes/classes.txt", f"{name}\ndog\n")
    assert open_boxes(tmp_path / "boxes").classes == (name, "dog")


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0b", "\x1c"])
def test_a_line_of_class_names_ends_at_line_ends_only(tmp_path: Path, end: str) -> None:
    yolo(tmp_path)
    write_file(tmp_path / "classes.txt", f"c{end}ar\ndog\n")
    with pytest.raises(DataError, match="printable text"):
        open_boxes(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "https://host/data/a{}.jpg?token=x&y=1",
        "gs://bucket/set/a{}.jpg#2",
        "http://host/my%20set/images/a{}.jpg",
        "a{}",
        "set/images/a{}",
        " a{}.jpg ",
    ],
)
def test_names_of_images_in_a_coco_file(tmp_path: Path, name: str) -> None:
    images(tmp_path)
    write_file(tmp_path / "annotations/instances_all.json", coco_json(lambda n: name.format(n)))
    is_complete(tmp_path)
    assert open_boxes(tmp_path).notes == []


def test_a_coco_file_with_addresses_alone_and_one_without_names(tmp_path: Path) -> None:
    images(tmp_path)
    value = coco_value("a{}.jpg".format)
    for entry in value["images"]:
        entry["coco_url"] = f"http://images.host/val2017/{entry.pop('file_name')}"
    path = write_file(tmp_path / "annotations/instances_all.json", json.dumps(value))
    is_complete(tmp_path)
    for entry in value["images"]:
        entry["title"] = entry.pop("coco_url")
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match="image 0 has no file_name"):
        open_boxes(tmp_path)


@pytest.mark.parametrize("more", [" 0.87", " 12", " 0.87 12", " 0 3"])
def test_what_stands_behind_a_yolo_box_makes_it_no_polygon(tmp_path: Path, more: str) -> None:
    """A confidence and the number of a track, as detectors write them, are two numbers as a polygon's third corner is."""
    images(tmp_path)
    each(tmp_path, "labels/a{}.txt", lambda n: yolo_line(n, more if n == 3 else ""))
    write_file(tmp_path / "classes.txt", "car\ndog\n")
    data = open_boxes(tmp_path)
    assert len(data.train) + len(data.val) == COUNT - 1
    assert any("a3.txt: line 1" in note and "has more than a box" in note for note in data.notes)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ((0, 128), "127 classes have no pixel in the training masks: 1, 2, 3, 4, 5 and 122 more; where a value is no"),
        ((1, 2), "1 class has no pixel in the training masks: 0"),
        ((0, 1), ""),
    ],
)
def test_classes_that_no_mask_has_are_said(tmp_path: Path, values: tuple[int, int], note: str) -> None:
    images(tmp_path)
    for number in range(COUNT):
        mask(tmp_path / f"masks/A{number}.png", number, values)
    data = open_masks(tmp_path)
    assert len(data.classes) == max(values) + 1
    assert [note in each for each in data.notes] == [True] * bool(note)


@pytest.mark.parametrize("subset", ["default", "val"])
def test_an_image_that_cvat_lists_twice_is_one(tmp_path: Path, subset: str) -> None:
    """It would be trained on and validate."""
    images(tmp_path)
    cvat(tmp_path)
    path = tmp_path / "annotations.xml"
    first = path.read_text().partition("<image")[2].partition("</image>")[0]
    again = f"<image{first}</image>".replace('subset="default"', f'subset="{subset}"').replace('xtl="4"', 'xtl="5"')
    path.write_text(path.read_text().replace("</annotations>", f"{again}</annotations>"))
    data = open_boxes(tmp_path)
    assert len(data.train) + len(data.val) == COUNT and len({*data.train.names, *data.val.names}) == COUNT
    assert any("a0.jpg" in note and ("more than once" in note or "two splits" in note) for note in data.notes)


def test_annotations_of_label_studio_that_are_null_are_none(tmp_path: Path) -> None:
    images(tmp_path, "images/1a2b3c4d-a{}.jpg")
    label_studio(tmp_path)
    path = tmp_path / "project-3.json"
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"] = None
    path.write_text(json.dumps(tasks))
    data = open_boxes(tmp_path)
    assert len(data.train) + len(data.val) == COUNT - 1
    assert any("1 task has no annotation" in note for note in data.notes)


def test_a_class_that_fiftyone_lists_twice_is_refused(tmp_path: Path) -> None:
    images(tmp_path, "data/a{}.jpg")
    fiftyone(tmp_path)
    path = tmp_path / "labels.json"
    path.write_text(path.read_text().replace('["car", "dog"]', '["car", "car"]'))
    with pytest.raises(DataError, match="a class name is given twice"):
        open_boxes(tmp_path)


def test_images_behind_a_link_are_read_and_not_called_left_out(tmp_path: Path) -> None:
    images(tmp_path, "real/a{}.jpg")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/sub").symlink_to(tmp_path / "real")
    (tmp_path / "images/loop").symlink_to(tmp_path / "images")
    each(tmp_path, "labels/sub/a{}.txt", yolo_line)
    write_file(tmp_path / "classes.txt", "car\ndog\n")
    is_complete(tmp_path)
    assert not any("left out" in note for note in open_boxes(tmp_path).notes)

"""Layouts, lists, names and files next to those that other tests have: of another tool, another system or another fault."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gossamer.data.boxes.open import open_boxes
from gossamer.data.csvfile import read_csv
from gossamer.data.heads.open import read_heads
from gossamer.data.heads.spec import HeadSpec
from gossamer.data.masks.open import open_masks
from gossamer.data.open import open_data
from gossamer.data.table import Table
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


def classes_of(root: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(4):
            image(root / name / f"p{i}.jpg", i + len(name))


ROWS = [(f"{name}/p{i}.jpg", name) for name in ("cat", "dog") for i in range(4)]


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("sep=;\npath;label", "{};{}"),
        ("path|label", "{}|{}"),
        ("image_id,breed", "{},{}"),
        ("path,label", "/mnt/set/{},{}"),
        ("path,label", "C:/data/{},{}"),
        ("path,label", "file://{},{}"),
        ("path,label", "https://host/set/{},{}"),
        ("path,label", "~/set/{},{}"),
        ("id,path,label", "7,{},{}"),
    ],
)
def test_forms_of_csv(tmp_path: Path, header: str, line: str) -> None:
    classes_of(tmp_path)
    lines = [line.format(path.replace("/", "\\") if "C:" in line else path, label) for path, label in ROWS]
    write_file(tmp_path / "d.csv", "\n".join([header, *lines]) + "\n")
    data = open_data(tmp_path / "d.csv")
    assert data.classes == ("cat", "dog") and len(data.train) + len(data.val) == 8


def test_names_without_their_ending_in_a_table(tmp_path: Path) -> None:
    classes_of(tmp_path)
    lines = [f"{path.removesuffix('.jpg')},{label}" for path, label in ROWS]
    data = open_data(write_file(tmp_path / "d.csv", "\n".join(["image_id,breed", *lines]) + "\n"))
    assert sorted(data.train.names + data.val.names) == [path for path, _ in ROWS]


SPLIT_COLUMNS = {
    "set": ("train", "val"),
    "Subset": ("TRAIN", "Validation"),
    "data set": ("training", "valid"),
    "phase": ("train", "test"),
    "is_valid": ("False", "True"),
    "is_val": ("0", "1"),
    "is_validation": ("0.0", "1.0"),
}


@pytest.mark.parametrize("name", SPLIT_COLUMNS)
def test_the_split_of_a_table_is_read_whatever_its_column_is_called(tmp_path: Path, name: str) -> None:
    """It would be drawn at random, and what the table keeps apart trained on."""
    classes_of(tmp_path)
    train, held = SPLIT_COLUMNS[name]
    lines = [f"{path},{label},{held if '3' in path else train}" for path, label in ROWS]
    path = write_file(tmp_path / "d.csv", "\n".join([f"path,label,{name}", *lines]) + "\n")
    tables: tuple[Table, ...] = (read_csv(path), read_heads(path, [HeadSpec("label", "classify", ("label",))]))
    for table in tables:
        split = "test" if held == "test" else "val"
        assert {n: s for n, s in zip(table.names, table.splits) if s != "train"} == {
            "cat/p3.jpg": split,
            "dog/p3.jpg": split,
        }
        assert any(f"the column {name.lower()} is read as split" in note.lower() for note in table.notes)


@pytest.mark.parametrize(
    ("name", "words"),
    [("set", ("train", "train")), ("colour", ("red", "val")), ("is_new", ("0", "1")), ("valid", ("yes", "perhaps"))],
)
def test_other_columns_of_a_table_are_no_split(tmp_path: Path, name: str, words: tuple[str, str]) -> None:
    classes_of(tmp_path)
    lines = [f"{path},{label},{words['3' in path]}" for path, label in ROWS]
    table = read_csv(write_file(tmp_path / "d.csv", "\n".join([f"path,label,{name}", *lines]) + "\n"))
    assert set(table.splits) == {""} and table.notes == []


def test_two_columns_that_could_be_the_split_are_refused(tmp_path: Path) -> None:
    classes_of(tmp_path)
    lines = [f"{path},{label},{'val' if '3' in path else 'train'},{int('2' in path)}" for path, label in ROWS]
    path = write_file(tmp_path / "d.csv", "\n".join(["path,label,set,is_valid", *lines]) + "\n")
    with pytest.raises(DataError, match="the columns set, is_valid both say what trains"):
        read_csv(path)


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


def test_classes_that_are_spelt_alike_are_said(tmp_path: Path) -> None:
    classes_of(tmp_path)
    labels = ("Cat", "cat", "caf\u00e9", "cafe\u0301")
    lines = [f"{path},{labels[i % 4]}" for i, (path, _) in enumerate(ROWS)]
    data = open_data(write_file(tmp_path / "d.csv", "\n".join(["path,label", *lines]) + "\n"))
    (note,) = data.notes
    assert len(data.classes) == 4 and "'Cat' and 'cat'" in note and "classes of their own" in note
    assert open_data(tmp_path).notes == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("cat/p0.jpg,cat\ndog/p0.jpg,dog\n", "begins without a header"),
        ("path,label\ncat/p0.jpg,c\0t\n", "printable text"),
    ],
)
def test_csv_files_that_say_less(tmp_path: Path, content: str, words: str) -> None:
    classes_of(tmp_path)
    write_file(tmp_path / "d.csv", content)
    with pytest.raises(DataError, match=words):
        open_data(tmp_path / "d.csv")


@pytest.mark.parametrize(
    "name",
    [
        "#sharesnap",
        "@appstore",
        "@database",
        "__pycache__",
        "@SynoResource",
        "_gsdata_",
        "LOST.DIR",
        "PaxHeaders.12",
        "PaxHeader",
        "$WinREAgent",
        "TheVolumeSettingsFolder",
        "@eaDir@tmp",
    ],
)
def test_folders_of_systems_are_no_classes(tmp_path: Path, name: str) -> None:
    classes_of(tmp_path)
    image(tmp_path / name / "x.jpg", 1)
    data = open_data(tmp_path)
    assert data.classes == ("cat", "dog") and any(name in note for note in data.notes)


def test_files_that_are_no_images_are_told_by_their_endings(tmp_path: Path) -> None:
    """Photos that a telephone wrote as HEIC are missed otherwise."""
    classes_of(tmp_path)
    for name in ("a.HEIC", "b.heic", "c.json", "README", f"x.{'y' * 40}", "e.a\x1b[31m"):
        write_file(tmp_path / "cat" / name, "x")
    (note,) = open_data(tmp_path).notes
    said = ".heic (2), no ending (1), .a\\x1b[31m (1), .json (1), .yyyyyyyyyy… (1)"
    assert note == f"{tmp_path}: 6 files that are no images by their name are passed over: {said}", note


@pytest.mark.parametrize("link", ["loop", "cat/loop"])
def test_a_link_to_a_folder_above_brings_no_images(tmp_path: Path, link: str) -> None:
    classes_of(tmp_path)
    (tmp_path / link).symlink_to(tmp_path)
    data = open_data(tmp_path)
    assert data.classes == ("cat", "dog") and len(data.train) + len(data.val) == 8
    assert any("link" in note for note in data.notes)


def test_images_behind_a_link_are_read_and_not_called_left_out(tmp_path: Path) -> None:
    images(tmp_path, "real/a{}.jpg")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/sub").symlink_to(tmp_path / "real")
    (tmp_path / "images/loop").symlink_to(tmp_path / "images")
    each(tmp_path, "labels/sub/a{}.txt", yolo_line)
    write_file(tmp_path / "classes.txt", "car\ndog\n")
    is_complete(tmp_path)
    assert not any("left out" in note for note in open_boxes(tmp_path).notes)


def test_accents_of_two_systems_are_one_class(tmp_path: Path) -> None:
    for split, name in (("train", "caf\u00e9"), ("val", "cafe\u0301")):
        for i in range(3):
            image(tmp_path / split / name / f"{i}.png", i)
            image(tmp_path / split / "dog" / f"{i}.png", i + 9)
    data = open_data(tmp_path)
    assert len(data.classes) == 2 and (len(data.train), len(data.val)) == (6, 6)
    assert any("accents" in note for note in data.notes)


def picture(number: int, ending: str) -> bytes:
    path = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (16, 16), (number * 20, 0, 0)).save(path, {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending))
    return path.getvalue()


def shard(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending", ["bmp", "gif", "ppm", "tif"])
def test_shards_of_every_format(tmp_path: Path, ending: str) -> None:
    files: Files = []
    for i in range(8):
        files += [(f"{i}.{ending}", picture(i, ending)), (f"{i}.cls", b"%d" % (i % 2))]
    data = open_data(shard(tmp_path / "a.tar", files))
    assert len(data.train) + len(data.val) == 8


@pytest.mark.parametrize(
    ("ending", "contents"),
    [
        ("cls", ("\ufeff0\r\n", "\ufeff1\r\n")),
        ("json", ('{"label": 0.0}', '{"label": 1.0}')),
        ("json", ('{"class": "cat"}', '{"class": "dog"}')),
    ],
)
def test_forms_of_labels_in_shards(tmp_path: Path, ending: str, contents: tuple[str, str]) -> None:
    files: Files = [("lonely.cls", b"1"), ("__MACOSX/0.png", b"x"), ("__MACOSX/0.cls", b"x")]
    for i in range(8):
        files += [(f"{i}.png", picture(i, "png")), (f"{i}.{ending}", contents[i % 2].encode())]
    if ending == "json":
        files = files[1:]
    data = open_data(shard(tmp_path / "a.tar", files))
    assert len(data.train) + len(data.val) == 8 and len(data.classes) == 2
    assert any("1 label without an image is" in note for note in data.notes) == (ending == "cls")


@pytest.mark.parametrize("name", ["ca\nt", "ca\x1b[31mt", "ca\u202et"])
def test_class_names_of_shards_are_printable(tmp_path: Path, name: str) -> None:
    files: Files = [
        ("0.png", picture(0, "png")),
        ("0.txt", name.encode()),
        ("1.png", picture(1, "png")),
        ("1.txt", b"dog"),
    ]
    with pytest.raises(DataError, match="class name"):
        open_data(shard(tmp_path / "a.tar", files))

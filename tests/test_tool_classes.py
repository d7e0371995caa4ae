"""One class per image, and several labels, as tools write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gossamer.data.open import open_data
from gossamer.data.tasks import reader_of
from gossamer.data.toolclasses import roboflow_tables
from gossamer.errors import DataError
from gossamer.settings import Settings
from tests.annotations import write_file
from tests.toollayouts import COUNT, NAMES, image, images, name_of, split_name


def fiftyone(root: Path, by_name: bool = False) -> None:
    images(root, "data/a{}.jpg")
    labels = {f"a{n}": name_of(n) if by_name else n % 2 for n in range(COUNT)}
    write_file(root / "labels.json", json.dumps({"classes": list(NAMES), "labels": labels}))


def label_studio(root: Path) -> None:
    images(root)
    tasks = []
    for n in range(COUNT):
        region = {"type": "choices", "from_name": "c", "to_name": "image", "value": {"choices": [name_of(n)]}}
        data = {"image": f"/data/upload/1/01234567-a{n}.jpg"}
        tasks.append({"id": n, "data": data, "annotations": [{"id": n, "result": [region]}]})
    write_file(root / "project.json", json.dumps(tasks))


def label_studio_min(root: Path) -> None:
    images(root)
    tasks = [{"id": n, "image": f"/data/upload/1/a{n}.jpg", "choice": name_of(n)} for n in range(COUNT)]
    write_file(root / "project.json", json.dumps(tasks))


def roboflow(root: Path) -> None:
    for split in ("train", "valid"):
        lines = ["filename, car, dog"]
        for n in range(COUNT):
            if split_name(n) == split:
                image(root / split / f"a{n}.jpg", n)
                lines.append(f"a{n}.jpg, {int(n % 2 == 0)}, {int(n % 2 == 1)}")
        write_file(root / split / "_classes.csv", "\n".join(lines) + "\n")


def labels_csv(root: Path) -> None:
    images(root)
    write_file(root / "labels.csv", "path,label\n" + "".join(f"images/a{n}.jpg,{name_of(n)}\n" for n in range(COUNT)))


KINDS: dict[str, Callable[[Path], None]] = {
    "FiftyOne": fiftyone,
    "FiftyOne by name": lambda root: fiftyone(root, by_name=True),
    "Label Studio": label_studio,
    "Label Studio JSON-MIN": label_studio_min,
    "Roboflow": roboflow,
    "labels.csv": labels_csv,
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("task", ["classify", "embed"])
def test_classes_of_tools_are_read_as_they_are(tmp_path: Path, name: str, task: str) -> None:
    KINDS[name](tmp_path)
    data = open_data(tmp_path, read=reader_of(task, Settings()))
    assert data.classes == NAMES and not data.left_out and not data.notes
    assert len(data.train) + len(data.val) == COUNT
    for source in (data.train, data.val):
        for path, label in zip(source.names, source.labels.tolist(), strict=True):
            assert label == int(Path(path).stem[-1]) % 2 and (tmp_path / path).is_file()
    if name == "Roboflow":
        assert sorted(Path(path).stem for path in data.val.names) == ["a6", "a7"]


def test_roboflow_s_table_has_several_labels_an_image(tmp_path: Path) -> None:
    roboflow(tmp_path)
    path = tmp_path / "train/_classes.csv"
    path.write_text(path.read_text().replace("a0.jpg, 1, 0", "a0.jpg, 1, 1"))
    data = open_data(tmp_path, read=reader_of("multilabel", Settings()))
    assert data.classes == NAMES and len(data.train) == 6 and len(data.val) == 2
    assert data.train.target(0).tolist() == [1, 1] and data.train.target(1).tolist() == [0, 1]
    with pytest.raises(DataError, match=r"1 image has several classes: train/a0.jpg.*--task multilabel"):
        open_data(tmp_path, read=reader_of("classify", Settings()))


def test_what_has_no_class_or_is_missing_is_reported(tmp_path: Path) -> None:
    fiftyone(tmp_path)
    value = json.loads((tmp_path / "labels.json").read_text())
    value["labels"] |= {"a0": None, "gone": 1}
    write_file(tmp_path / "labels.json", json.dumps(value))
    data = open_data(tmp_path)
    assert any("1 image is not there, and skipped: gone" in note for note in data.notes)
    assert any("1 image has no class, and is left out: a0" in note for note in data.notes)
    assert data.left_out[0].names == ("data/a0.jpg",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"classes": ["a"], "labels": {"a0": 7}}', "class 7"),
        ('{"classes": [1], "labels": {}}', "class name 1"),
        ('{"labels": {"a0": []}}', "is no class"),
        ('{"labels": {"zzz": "cat"}}', "none of the images"),
        ('{"labels": {"a0": "cat"', "is no JSON"),
    ],
)
def test_a_broken_labels_json_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    images(tmp_path, "data/a{}.jpg")
    write_file(tmp_path / "labels.json", content)
    with pytest.raises(DataError) as caught:
        open_data(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("header", ["filename,class", "image,label", "path,category", "File_Name,Target"])
def test_columns_of_other_names_are_read_and_noted(tmp_path: Path, header: str) -> None:
    images(tmp_path)
    lines = "".join(f"images/a{n}.jpg,{name_of(n)}\n" for n in range(COUNT))
    data = open_data(write_file(tmp_path / "any.csv", f"{header}\n{lines}"))
    assert data.classes == NAMES and any("is read as" in note for note in data.notes)


def test_two_columns_that_could_be_the_path_are_refused(tmp_path: Path) -> None:
    images(tmp_path)
    with pytest.raises(DataError, match="no column 'path'"):
        open_data(write_file(tmp_path / "any.csv", "file,image,label\nimages/a0.jpg,images/a0.jpg,car\n"))


def test_what_is_no_folder_has_no_tables_of_roboflow(tmp_path: Path) -> None:
    assert roboflow_tables(tmp_path / "none") == []


@pytest.mark.parametrize("columns", ["xmin,ymin,xmax,ymax", "XMin,YMin,XMax,YMax", "x1,y1,x2,y2"])
def test_a_table_of_boxes_is_no_table_of_classes(tmp_path: Path, columns: str) -> None:
    for i in range(4):
        image(tmp_path / f"a{i}.jpg", i)
    lines = [f"a{i}.jpg,{'car' if i % 2 else 'dog'},1,1,20,20\n" for i in range(4)]
    path = write_file(tmp_path / "labels.csv", f"filename,class,{columns}\n{''.join(lines)}")
    with pytest.raises(DataError, match=r"are of boxes.*--task detect"):
        open_data(path)

"""Boxes as labelling tools and public sets lay them out are read as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gossamer.data.boxes.open import open_boxes, read_boxes, recognise
from gossamer.data.open import open_data
from gossamer.data.tasks import reader_of
from gossamer.errors import DataError
from gossamer.settings import Settings
from tests.annotations import write_file
from tests.toollayouts import BOXES, COUNT, FILES, box, coco_json, image, name_of


def check(root: Path, name: str) -> None:
    table = read_boxes(root)
    assert table.classes == ("car", "dog") and len(table.names) == COUNT
    for row, path in enumerate(table.paths):
        number = int(Path(path).stem[-1])
        target = table.targets.read(row)
        assert [table.classes[i] for i in target.labels] == [name_of(number)]
        np.testing.assert_allclose(target.corners, [box(number)], atol=0.01)
        assert target.size == (48, 64)
        if any(table.splits):
            assert table.splits[row] == ("val" if number > 5 else "train") or "CVAT 1.1" in name


@pytest.mark.parametrize("name", BOXES)
def test_boxes_of_tools_are_read_as_they_are(tmp_path: Path, name: str) -> None:
    BOXES[name](tmp_path)
    assert recognise(tmp_path) == name.partition(":")[0]
    check(tmp_path, name)
    data = open_boxes(tmp_path)
    assert len(data.train) + len(data.val) == COUNT
    notes = [note for note in data.notes if "key points" in note]
    assert len(notes) == ("key points" in name) and all(f"{COUNT} boxes" in note for note in notes)


@pytest.mark.parametrize("name", FILES)
def test_the_annotation_file_itself_may_be_the_data(tmp_path: Path, name: str) -> None:
    BOXES[name](tmp_path)
    file, kind = FILES[name]
    assert recognise(tmp_path / file) == kind
    check(tmp_path / file, name)


@pytest.mark.parametrize("task", ["classify", "embed"])
@pytest.mark.parametrize("name", BOXES)
def test_boxes_without_their_task_are_no_classes(tmp_path: Path, name: str, task: str) -> None:
    BOXES[name](tmp_path)
    with pytest.raises(DataError) as caught:
        open_data(tmp_path, read=reader_of(task, Settings()))
    message = str(caught.value)
    assert "--task detect" in message and "\n" not in message
    assert ("--task segment" in message) == ("polygon" in name or "rotated" in name)


@pytest.mark.parametrize("name", FILES)
def test_an_annotation_file_without_its_task_is_reported(tmp_path: Path, name: str) -> None:
    BOXES[name](tmp_path)
    with pytest.raises(DataError, match="--task detect"):
        open_data(tmp_path / FILES[name][0], read=reader_of("classify", Settings()))


def test_annotations_beside_folders_of_classes_are_noted(tmp_path: Path) -> None:
    for number in range(8):
        image(tmp_path / ("cat", "dog")[number % 2] / f"a{number}.jpg", number)
    write_file(tmp_path / "boxes.json", coco_json(lambda n: f"{('cat', 'dog')[n % 2]}/a{n}.jpg"))
    data = open_data(tmp_path, read=reader_of("classify", Settings()))
    assert data.classes == ("cat", "dog")
    assert any("holds COCO boxes, too" in note and "--task detect" in note for note in data.notes)

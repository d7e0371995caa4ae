"""Boxes as labelling tools and public sets lay them out are read as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gossamer.data.boxes.open import open_boxes, read_boxes, recognise
from tests.toollayouts import BOXES, COUNT, FILES, box, name_of


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
    said = [note for note in data.notes if "key points" in note]
    assert len(said) == ("key points" in name) and all(f"{COUNT} boxes" in note for note in said)


@pytest.mark.parametrize("name", FILES)
def test_the_annotation_file_itself_may_be_given(tmp_path: Path, name: str) -> None:
    BOXES[name](tmp_path)
    file, kind = FILES[name]
    assert recognise(tmp_path / file) == kind
    check(tmp_path / file, name)

"""Boxes from one format to another and back."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.data.boxes import convert as convert_module
from gossamer.data.boxes.convert import convert
from gossamer.data.boxes.open import read_boxes, read_draft, recognise
from gossamer.data.boxes.records import SIDECAR, BoxRecord, Draft, ImageRecord
from gossamer.data.boxes.table import KINDS as KIND_NAMES
from gossamer.data.boxes.table import BoxTable, table_of
from gossamer.errors import DataError, StorageError
from gossamer.images.preprocess import decode
from tests import toollayouts
from tests.annotations import KINDS, coco, coco_value, full, names, same, seen, voc, write_file, write_image, xml
from tests.toollayouts import COUNT, images


@pytest.mark.parametrize(("start", "middle"), list(itertools.product(KINDS, KINDS)))
def test_there_and_back_loses_nothing(tmp_path: Path, start: str, middle: str) -> None:
    root = full(tmp_path / "start", start)
    there = convert(root, tmp_path / "there", middle)
    back = convert(tmp_path / "there", tmp_path / "back", start)
    assert (there.source, there.to, back.source, back.to) == (start, middle, middle, start)
    first, between, last = read_boxes(root), read_boxes(tmp_path / "there"), read_boxes(tmp_path / "back")
    assert recognise(tmp_path / "there") == middle
    same(first, between)
    same(first, last)
    told = {"voc": "further fields of PASCAL VOC", "coco": "further fields of COCO", "yolo": "further fields of YOLO"}
    assert any(told[start] in line for line in there.lost) == (start != middle)
    records = {record.name: record for record in read_draft(root).records}
    for record in read_draft(tmp_path / "back").records:  # also the fields that are no boxes
        assert record.extra.get(start) == records[record.name].extra.get(start)
        assert [b.extra.get(start) for b in record.boxes] == [b.extra.get(start) for b in records[record.name].boxes]
    for row, path in enumerate(last.paths):
        first_row = [Path(p).stem for p in first.paths].index(Path(path).stem)
        assert last.store.read(row) == first.store.read(first_row)


def test_what_a_format_has_no_place_for_is_told(tmp_path: Path) -> None:
    lost = convert(full(tmp_path / "c", "coco"), tmp_path / "y", "yolo").lost
    assert lost[:2] == ("YOLO has no place for crowds: 2 boxes", "YOLO has no place for areas: 2 boxes")
    lost = convert(full(tmp_path / "cv", "coco"), tmp_path / "w", "voc").lost
    assert lost[:2] == ("PASCAL VOC has no place for crowds: 2 boxes", "PASCAL VOC has no place for areas: 2 boxes")
    lost = convert(full(tmp_path / "v", "voc"), tmp_path / "vc", "coco").lost
    assert lost[0] == "COCO has no place for difficult: 2 boxes"
    assert json.loads((tmp_path / "vc" / SIDECAR).read_text())["lost"] == list(lost)


def test_further_fields_of_images_alone_or_of_boxes_alone_are_told(tmp_path: Path) -> None:
    value = coco_value([{"bbox": [4, 8, 16, 22]}])
    del value["annotations"][0]["id"]
    lost = convert(coco(tmp_path / "c", value), tmp_path / "y", "yolo").lost
    assert lost == ("YOLO boxes have no place for further fields of COCO boxes: 1 image, 0 boxes",)
    content = xml(("zebra", 1, 2, 30, 31), more="<pose>Left</pose>")
    lost = convert(voc(tmp_path / "v", {"a": content}), tmp_path / "vy", "yolo").lost
    assert lost == ("YOLO boxes have no place for further fields of PASCAL VOC boxes: 0 images, 1 box",)


@pytest.mark.parametrize(
    ("extra", "good"),
    [
        ({}, True),
        ({"voc": ["<pose>Left</pose>"]}, True),
        ({"yolo": ["0.5"], "coco": {"id": 3}}, True),
        ({"voc": [], "coco": {}, "yolo": []}, True),
        ({"png": []}, False),
        ({"coco": []}, False),
        ({"voc": [3]}, False),
        ({"voc": "text"}, False),
        ({"yolo": ["nan"]}, False),
        ({"yolo": ["0.5", "x"]}, False),
        ({"yolo": "0.5"}, False),
    ],
)
def test_a_sidecar_keeps_only_what_its_formats_write(tmp_path: Path, extra: dict[str, Any], good: bool) -> None:
    convert(full(tmp_path / "v", "voc"), tmp_path / "y", "yolo")
    path = tmp_path / "y" / SIDECAR
    value = json.loads(path.read_text())
    image = next(name for name, entry in value["images"].items() if entry.get("boxes"))
    value["images"][image]["extra"] = extra
    path.write_text(json.dumps(value))
    if good:
        record = next(record for record in read_draft(tmp_path / "y").records if record.path == image)
        assert extra.items() <= record.extra.items()
    else:
        with pytest.raises(DataError, match="extra is"):
            read_draft(tmp_path / "y")


def test_a_box_that_was_moved_since_is_read_from_its_file(tmp_path: Path) -> None:
    convert(full(tmp_path / "v", "voc"), tmp_path / "y", "yolo")
    label = tmp_path / "y" / "labels" / "train" / "a.txt"
    write_file(label, "1 .5 .5 .5 .5\n" + label.read_text().splitlines()[1])
    table = read_boxes(tmp_path / "y")
    boxes = seen(table)["a"][1]
    assert boxes.corners[0].tolist() == [12, 8, 36, 24] and boxes.difficult.tolist() == [False, False]
    assert [note for note in table.notes if "1 image was added or changed since" in note]


edge = st.integers(-6000, 12000).map(lambda value: value / 100)


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    classes = tuple(draw(st.lists(names, min_size=1, max_size=3, unique=True)))
    splits = draw(st.sampled_from([("",), ("train", "val"), ("train", "test"), ("train", "val", "test")]))
    records = []
    for i in range(draw(st.integers(1, 4))):
        split = draw(st.sampled_from(splits))
        stem = draw(st.sampled_from(["a", "b 1", "é"]))
        size = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
        drawn = []
        for _ in range(draw(st.integers(0, 3))):
            area = draw(st.sampled_from([math.nan, 3.25]))
            flags = draw(st.tuples(st.booleans(), st.booleans()))
            drawn.append(BoxRecord(tuple(draw(edge) for _ in range(4)), draw(st.sampled_from(classes)), *flags, area))  # type: ignore[arg-type]
        records.append(ImageRecord(f"{i}.png", f"{i}/{stem}.png", split, size, drawn))
    return Draft("coco", Path(), classes, draw(st.booleans()), records)


@settings(max_examples=30)
@given(drafts(), st.permutations(KINDS))
def test_any_boxes_come_back_through_any_formats(draft: Draft, kinds: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        draft.root = top / "images"
        for record in draft.records:
            write_image(draft.root / record.path, record.size[1], record.size[0])
        try:
            expected = table_of(draft)
        except DataError:
            return  # no box has an area
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(convert_module, "read_draft", lambda root: draft)
            convert(draft.root, top / "0", kinds[0])
        for step, kind in enumerate((*kinds[1:], kinds[0]), 1):
            convert(top / str(step - 1), top / str(step), kind)
        for step, kind in enumerate((*kinds, kinds[0])):
            table = read_boxes(top / str(step))
            assert table.kind == KIND_NAMES[kind]
            unchanged(draft, expected, table, top / str(step))


def unchanged(draft: Draft, expected: BoxTable, converted: BoxTable, root: Path) -> None:
    assert (converted.classes, converted.fixed) == (draft.classes, draft.declared)
    original = {record.name: row for row, record in enumerate(draft.records)}
    restored = read_draft(root).records
    assert sorted(record.name for record in restored) == sorted(original)
    for row, record in enumerate(restored):
        at = original[record.name]
        ours, theirs = converted.targets.read(row), expected.targets.read(at)
        assert (converted.splits[row], ours.size) == (expected.splits[at], theirs.size)
        assert decode(converted.store.read(row)).size == ours.size[::-1]
        assert len(record.boxes) == len(draft.records[at].boxes)
        for box, true in zip(record.boxes, draft.records[at].boxes, strict=True):
            np.testing.assert_allclose(box.box, true.box, atol=1e-3)
            assert (box.name, box.crowd, box.difficult) == (true.name, true.crowd, true.difficult)
            area = (true.box[2] - true.box[0]) * (true.box[3] - true.box[1])
            assert math.isnan(box.area) == math.isnan(true.area) or math.isclose(true.area, area)
            assert math.isnan(box.area) or box.area == true.area


def test_a_conversion_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = full(tmp_path / "v", "voc")

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert_module, "sidecar_text", full_disk)
    with pytest.raises(StorageError, match="disk is full"):
        convert(root, tmp_path / "out", "coco")
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_unreadable_images_stay_behind(tmp_path: Path) -> None:
    root = full(tmp_path / "v", "voc")
    write_file(root / "JPEGImages" / "b.png", b"no image")
    result = convert(root, tmp_path / "y", "yolo")
    assert result.images == 2 and any("b.png: is not an image" in note for note in result.notes)


@pytest.mark.parametrize("to", KINDS)
def test_names_that_would_collide_are_made_unique(tmp_path: Path, to: str) -> None:
    value = coco_value([{"bbox": [1, 1, 5, 5]}, {"bbox": [2, 2, 5, 5], "image_id": 1}], 3)
    for entry, name in zip(value["images"], ("train/a.png", "train_a.png", "TRAIN_A.jpg"), strict=True):
        entry["file_name"] = name
        write_image(tmp_path / "c" / "images" / name)
    write_file(tmp_path / "c" / "annotations" / "all.json", json.dumps(value))
    convert(tmp_path / "c", tmp_path / "out", to)
    records = read_draft(tmp_path / "out").records
    assert {r.name: [round(b.box[0], 6) for b in r.boxes] for r in records} == {
        "train/a.png": [1],
        "train_a.png": [2],
        "TRAIN_A.jpg": [],
    }
    assert len({Path(r.path).with_suffix("").as_posix().casefold() for r in records}) == 3
    assert {r.split for r in records} == {""}


def strict_json(path: Path) -> Any:
    """What a JSON file holds; NaN and infinity, which Python reads, are no JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{path.name} holds {word}")

    return json.loads(path.read_text(), parse_constant=refuse)


ODD = {
    "names that are numbers": lambda value: [
        one.update(name=index + 3) for index, one in enumerate(value["categories"])
    ],
    "a score of NaN": lambda value: value["annotations"][0].update(score=math.nan),
    "a corner at infinity": lambda value: value["annotations"][0].update(segmentation=[[1, 2, math.inf, 4, 5, 6]]),
    "a place that is none": lambda value: value["images"][0].update(gps=[math.inf, math.nan]),
    "a weight of a category": lambda value: value["categories"][0].update(weight=-math.inf),
}


@pytest.mark.parametrize("to", ["coco", *(pytest.param(to, marks=pytest.mark.full) for to in KINDS if to != "coco")])
@pytest.mark.parametrize("odd", ODD)
def test_what_json_has_no_word_for_is_not_written(tmp_path: Path, odd: str, to: str) -> None:
    images(tmp_path / "start")
    value = toollayouts.coco_value("a{}.jpg".format)
    ODD[odd](value)
    write_file(tmp_path / "start" / "annotations.json", json.dumps(value))
    convert(tmp_path / "start", tmp_path / "there", to)
    convert(tmp_path / "there", tmp_path / "back", "coco")
    written = [path for folder in ("there", "back") for path in (tmp_path / folder).rglob("*.json")]
    assert len(written) >= 3 and all(strict_json(path) for path in written)
    first, last = read_boxes(tmp_path / "start"), read_boxes(tmp_path / "back")
    assert first.classes == last.classes and len(first.targets.labels) == len(last.targets.labels) == COUNT

"""Boxes of PASCAL VOC, COCO and YOLO: what is read, what is refused, and that a conversion there and back loses nothing."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gossamer.data.boxes import convert as convert_module
from gossamer.data.boxes.annotation import Boxes
from gossamer.data.boxes.convert import WRITERS, convert
from gossamer.data.boxes.open import apply_box_split, open_box_source, open_boxes, read_boxes, read_draft, recognise
from gossamer.data.boxes.records import SIDECAR, Draft, Drawn, Record, split_of
from gossamer.data.boxes.table import BoxTable, size_differences, table_of
from gossamer.data.source import Source
from gossamer.data.split import split_rows
from gossamer.errors import DataError, GossamerError, StorageError, UnknownNameError
from gossamer.images import decode

HOSTILE = Path(__file__).parent / "hostile" / "boxes"
KINDS = ("voc", "coco", "yolo")


def picture(path: Path, width: int = 48, height: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 30)).save(path)
    return path


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def xml(*objects: tuple[str, float, float, float, float], more: str = "", size: tuple[int, int] = (48, 32)) -> str:
    """An annotation with VOC's numbers as given; more: elements for each object."""
    parts = "".join(
        f"<object><name>{name}</name>{more}<bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
        "</bndbox></object>"
        for name, a, b, c, d in objects
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{parts}</annotation>"


def voc(root: Path, images: dict[str, str], **lists: Iterable[str]) -> Path:
    for stem, content in images.items():
        picture(root / "JPEGImages" / f"{stem}.png")
        put(root / "Annotations" / f"{stem}.xml", content)
    for name, stems in lists.items():
        put(root / "ImageSets" / "Main" / f"{name}.txt", "\n".join(stems))
    return root


def coco_value(entries: list[dict[str, Any]], count: int = 1, **changed: Any) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 48, "height": 32} for i in range(count)],
        "annotations": [{"id": i, "image_id": 0, "category_id": 3, **entry} for i, entry in enumerate(entries)],
        "categories": [{"id": 3, "name": "zebra"}, {"id": 9, "name": "ant"}],
        **changed,
    }


def coco(root: Path, value: Any = None, name: str = "instances_all.json", images: int = 1) -> Path:
    for i in range(images):
        picture(root / "images" / f"{i}.png")
    value = coco_value([{"bbox": [4, 8, 16, 22]}], images) if value is None else value
    put(root / "annotations" / name, value if isinstance(value, str) else json.dumps(value))
    return root


def yolo(root: Path, labels: dict[str, str | None], names: str = "names: [zebra, ant]\n") -> Path:
    for name, content in labels.items():
        picture(root / "images" / f"{name}.png")
        (root / "labels").mkdir(exist_ok=True)
        if content is not None:
            put(root / "labels" / f"{name}.txt", content)
    put(root / "data.yaml", names)
    return root


def boxes_at(source: Source, index: int) -> Boxes:
    assert source.answers is not None
    found: Boxes = source.answers.read(int(source.rows[index]))
    return found


# what is read


def test_voc_counts_pixels_from_one_and_coco_from_zero(tmp_path: Path) -> None:
    one = read_boxes(voc(tmp_path / "v", {"a": xml(("zebra", 5, 9, 20, 30))})).answers.read(0)
    two = read_boxes(coco(tmp_path / "c")).answers.read(0)
    line = f"0 {12 / 48} {19 / 32} {16 / 48} {22 / 32}"
    three = read_boxes(yolo(tmp_path / "y", {"a": line})).answers.read(0)
    for boxes in (one, two, three):
        np.testing.assert_allclose(boxes.corners, [[4, 8, 20, 30]], atol=1e-5)
        assert boxes.size == (32, 48)
        assert boxes.area[0] == pytest.approx(16 * 22)
        assert (boxes.corners.dtype, boxes.labels.dtype) == (np.float32, np.int64)


def test_voc_splits_difficult_and_empty_images(tmp_path: Path) -> None:
    images = {s: xml(("b", 1, 1, 5, 5), ("a", 2, 2, 9, 9), more="<difficult>1</difficult>") for s in ("p", "q", "r 1")}
    images["s"] = xml()
    root = voc(tmp_path, images, train=["p", "s"], val=["q"], test=["r 1"], trainval=["p", "s", "q"])
    data = open_boxes(root)
    assert data.classes == ("a", "b")
    assert [len(source) for source in data.splits().values()] == [2, 1, 1]
    assert [len(boxes_at(data.train, i)) for i in range(2)] == [2, 0]
    assert boxes_at(data.val, 0).difficult.tolist() == [True, True]
    assert boxes_at(data.val, 0).labels.tolist() == [1, 0]
    assert data.notes == []


def test_what_only_trainval_lists_is_for_training(tmp_path: Path) -> None:
    images = {str(i): xml(("a", 1, 1, 5, 5)) for i in range(10)}
    root = voc(tmp_path, images, trainval=[str(i) for i in range(7)], test=["7", "8"])
    data = open_boxes(root, val_share=0.3)
    assert [len(source) for source in data.splits().values()] == [5, 2, 2]
    assert ["passed over" in note for note in data.notes] == [True]  # image 9


def test_coco_ids_with_gaps_crowds_and_areas(tmp_path: Path) -> None:
    entries = [
        {"bbox": [0, 0, 10, 10], "category_id": 9, "area": 55.5},
        {"bbox": [1.5, 2, 3, 4], "iscrowd": 1, "segmentation": {"counts": [1], "size": [32, 48]}},
    ]
    table = read_boxes(coco(tmp_path, coco_value(entries, 2), images=2))
    boxes = table.answers.read(0)
    assert table.classes == ("zebra", "ant")
    assert boxes.labels.tolist() == [1, 0]
    assert boxes.crowd.tolist() == [False, True]
    assert boxes.area.tolist() == [55.5, 12]
    assert boxes.corners[1].tolist() == [1.5, 2, 4.5, 6]
    assert len(table.answers.read(1)) == 0  # a negative stays
    assert table.strata().tolist() == [0, -1]


@pytest.mark.parametrize("where", ["images/train2017", "train2017", "images", ".", "annotations", "images/train"])
def test_coco_images_are_found_where_they_usually_lie(tmp_path: Path, where: str) -> None:
    root = coco(tmp_path, coco_value([{"bbox": [1, 1, 5, 5]}]), "instances_train2017.json", images=0)
    picture(root / where / "0.png")
    table = read_boxes(root)
    assert table.splits == ["train"]
    assert table.store.read(0) == (root / where / "0.png").read_bytes()


def test_exports_with_a_file_a_split_and_a_parent_category(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "RBC", "supercategory": "cells"},
        {"id": 2, "name": "WBC", "supercategory": "cells"},
    ]
    for split in ("train", "valid", "test"):
        value = coco_value([{"bbox": [1, 1, 5, 5], "category_id": 2}], categories=categories)
        put(tmp_path / split / "_annotations.coco.json", json.dumps(value))
        picture(tmp_path / split / "0.png")
    data = open_boxes(tmp_path)
    assert data.classes == ("RBC", "WBC")
    assert sorted(data.splits()) == ["test", "train", "val"]
    assert boxes_at(data.train, 0).labels.tolist() == [1]
    assert [note for note in data.notes if "cells is the parent" in note]
    assert [note for note in data.notes if "no training box: RBC" in note]


@pytest.mark.parametrize("layout", ["images/{0}|labels/{0}", "{0}/images|{0}/labels"])
def test_yolo_layouts_polygons_and_images_without_labels(tmp_path: Path, layout: str) -> None:
    images, labels = layout.split("|")
    for split in ("train", "valid"):
        for name in ("a", "b"):
            picture(tmp_path / images.format(split) / "deep" / f"{name}.png")
        put(tmp_path / labels.format(split) / "deep" / "a.txt", "1 0.25 0.25 0.75 0.25 0.5 1\n\n0 .5 .5 1 1\n")
    put(tmp_path / labels.format("train") / "gone.txt", "0 .5 .5 1 1\n")
    put(tmp_path / "data.yaml", "names:\n  0: no\n  1: '1'\ntrain: ../train/images\n")
    data = open_boxes(tmp_path)
    assert data.classes == ("no", "1")
    assert boxes_at(data.train, 0).corners.tolist() == [[12, 8, 36, 32], [0, 0, 48, 32]]
    assert len(boxes_at(data.val, 1)) == 0
    assert [note.split(": ", 1)[1] for note in data.notes] == [
        "2 images have no label file and count as showing nothing",
        "1 label files have no image and are passed over",
    ]


def test_yolo_names_in_a_text_file(tmp_path: Path) -> None:
    root = yolo(tmp_path, {"a": "1 .5 .5 .5 .5"})
    (root / "data.yaml").unlink()
    put(root / "labels" / "classes.txt", "zebra\nant\n")
    assert read_boxes(root).classes == ("zebra", "ant")


def test_boxes_are_clipped_or_dropped_and_counted(tmp_path: Path) -> None:
    objects = [
        ("a", -9, 5, 20, 99),  # over two edges
        ("a", 5, 5, 4, 9),  # no width
        ("a", 9, 9, 2, 20),  # turned round
        ("a", "nan", 1, 5, 5),
        ("a", "inf", 1, 5, 5),
        ("a", "x", 1, 5, 5),
        ("a", 60, 5, 70, 9),  # outside
        ("a", 1, 1, 48, 32),  # the whole picture
    ]
    table = read_boxes(voc(tmp_path, {"a": xml(*objects)}))  # type: ignore[arg-type]
    assert table.answers.read(0).corners.tolist() == [[0, 4, 20, 32], [0, 0, 48, 32]]
    assert table.answers.read(0).area.tolist() == [560, 1536]
    assert table.notes == [
        "3 of 8 boxes have corners that are no numbers, and are dropped",
        "2 of 8 boxes have no area, and are dropped",
        "1 of 8 boxes lie outside their image, and are dropped",
        "1 of 8 boxes reach over the edge of their image, and are clipped",
    ]


@given(
    st.lists(
        st.tuples(*[st.floats(-100, 200) | st.sampled_from([math.nan, math.inf, 1e300])] * 4),
        min_size=1,
        max_size=8,
    )
)
def test_boxes_to_train_on_lie_inside_and_have_an_area(corners: list[tuple[float, float, float, float]]) -> None:
    drawn = [Drawn(box, "a") for box in corners]
    draft = Draft("coco", Path("x"), ("a",), True, [Record("a", "a", "", (32, 48), drawn)])
    try:
        boxes = table_of(draft).answers.read(0)
    except DataError:
        return
    c = boxes.corners
    assert (c >= 0).all() and (c[:, 2] <= 48).all() and (c[:, 3] <= 32).all()
    assert (c[:, 2] > c[:, 0]).all() and (c[:, 3] > c[:, 1]).all() and (boxes.area > 0).all()
    inside = [
        b
        for b in corners
        if 0 <= b[0] < b[2] - 1e-3 <= 48 and 0 <= b[1] < b[3] - 1e-3 <= 32 and b[2] <= 48 and b[3] <= 32
    ]
    for box in inside:  # what needs no clipping is there as it was
        assert np.abs(c - np.array(box)).max(1).min() < 1e-4


def test_one_broken_xml_is_set_aside_and_listed_ones_without_annotation(tmp_path: Path) -> None:
    root = voc(tmp_path, {s: xml(("a", 1, 1, 5, 5)) for s in "abc"}, train=["a", "b", "c", "d"])
    put(root / "Annotations" / "b.xml", "<annotation>")
    (root / "JPEGImages" / "c.png").unlink()
    table = read_boxes(root)
    assert table.names == ["JPEGImages/a.png"]
    assert len(table.notes) == 1 and "3 of 4 images" in table.notes[0]
    for part in ("b.xml: is no XML", "c.xml: there is no JPEGImages/c", "d is listed but has no"):
        assert part in table.notes[0]


def test_missing_coco_images_are_set_aside(tmp_path: Path) -> None:
    table = read_boxes(coco(tmp_path, coco_value([{"bbox": [1, 1, 5, 5]}], 3)))
    assert len(table.names) == 1
    assert table.notes == ["2 images are listed but missing, and set aside: 1.png, 2.png"]


def test_sizes_are_checked_when_asked(tmp_path: Path) -> None:
    box = ("a", 1, 1, 5, 5)
    images = {"a": xml(box), "b": xml(box, size=(32, 48)), "c": xml(box, size=(480, 320)), "d": xml(box, size=(0, 0))}
    table = read_boxes(voc(tmp_path, images))
    notes = size_differences(table)
    assert len(notes) == 2
    assert notes[0].startswith("1 images lie on their side") and "b.png (32 x 48, the image 48 x 32)" in notes[0]
    assert notes[1].startswith("1 images have another size") and "c.png (480 x 320" in notes[1]


# splits


def many(root: Path, count: int = 20) -> Path:
    images = {
        f"{i:02}": xml(("rare" if i % 5 == 0 else "often", 1, 1, 9, 9), ("often", 4, 4, 8, 8)) for i in range(count)
    }
    return voc(root, images)


def test_without_splits_each_class_is_held_out(tmp_path: Path) -> None:
    data = open_boxes(many(tmp_path), val_share=0.25)
    assert (len(data.train), len(data.val)) == (15, 5)
    assert data.val.labels.tolist().count(1) == 1  # of 4 images with the rare class
    again = open_boxes(tmp_path, val_share=0.25, seed=1)
    assert again.val.names != data.val.names


def test_a_saved_split_is_found_again(tmp_path: Path) -> None:
    data = open_boxes(many(tmp_path))
    rows = split_rows(data)
    voc(tmp_path, {"new": xml(("rare", 1, 1, 5, 5))})
    (tmp_path / "Annotations" / "03.xml").unlink()
    again = apply_box_split(tmp_path, rows)
    gone = {"JPEGImages/03.png"}
    for old, new in zip(data.splits().values(), again.splits().values(), strict=True):
        kept = [i for i, name in enumerate(old.names) if name not in gone]
        assert new.names == [old.names[i] for i in kept]
        assert new.labels.tolist() == [old.labels[i] for i in kept]
        np.testing.assert_array_equal(boxes_at(new, 0).corners, boxes_at(old, kept[0]).corners)
    assert [note.split(" images ")[1].split(":")[0] for note in again.notes] == [
        "are gone",
        "were added and are not used",
    ]


def test_validation_data_elsewhere_and_their_class_numbers(tmp_path: Path) -> None:
    many(tmp_path / "a")
    voc(tmp_path / "b", {"x": xml(("rare", 1, 1, 5, 5))})
    data = open_boxes(tmp_path / "a", val=tmp_path / "b")
    assert (len(data.train), len(data.val)) == (20, 1)
    assert boxes_at(data.val, 0).labels.tolist() == [1]  # the only class there, and the second here
    again = apply_box_split(tmp_path / "a", split_rows(data), val=tmp_path / "b")
    assert again.fingerprint == data.fingerprint
    source = open_box_source(tmp_path / "b", ("x", "y", "rare"))
    assert (boxes_at(source, 0).labels.tolist(), source.labels.tolist()) == ([2], [2])
    with pytest.raises(DataError, match="class rare has no training box"):
        open_box_source(tmp_path / "b", ("often",))


def test_a_moved_box_changes_the_fingerprint_and_a_selection_keeps_its_boxes(tmp_path: Path) -> None:
    root = many(tmp_path)
    before = open_boxes(root)
    assert open_boxes(root).fingerprint == before.fingerprint
    part = before.train.select(np.array([3, 1]))
    np.testing.assert_array_equal(boxes_at(part, 0).corners, boxes_at(before.train, 3).corners)
    put(root / "Annotations" / "01.xml", xml(("often", 1, 1, 9, 10), ("often", 4, 4, 8, 8)))
    assert open_boxes(root).fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("instances_val2017", "val"),
        ("VALID", "val"),
        ("train", "train"),
        ("testing", "test"),
        ("images", ""),
        ("train_val", ""),
        ("contest", ""),
        ("_annotations.coco", ""),
    ],
)
def test_split_names(word: str, split: str) -> None:
    assert split_of(word) == split


# conversions


def seen(table: BoxTable) -> dict[str, tuple[str, Boxes, list[str]]]:
    """By the name of the image: its split, its boxes and their class names."""
    result = {}
    for row, path in enumerate(table.paths):
        boxes = table.answers.read(row)
        result[Path(path).stem] = (table.splits[row], boxes, [table.classes[i] for i in boxes.labels.tolist()])
    return result


def same(first: BoxTable, second: BoxTable) -> None:
    assert (first.classes, first.declared) == (second.classes, second.declared)
    one, two = seen(first), seen(second)
    assert one.keys() == two.keys()
    for name, (split, boxes, labels) in one.items():
        other_split, other, other_labels = two[name]
        assert (split, labels, boxes.size) == (other_split, other_labels, other.size)
        np.testing.assert_allclose(other.corners, boxes.corners, atol=1e-3)
        np.testing.assert_allclose(other.area, boxes.area, rtol=1e-4)
        assert other.crowd.tolist() == boxes.crowd.tolist()
        assert other.difficult.tolist() == boxes.difficult.tolist()


def full(root: Path, kind: str) -> Path:
    """A folder with all that a format can say."""
    if kind == "voc":
        kept = "<pose>Left &amp; up</pose><truncated>1</truncated><difficult>1</difficult>"
        images = {
            "a": xml(("zebra", 1.5, 2.25, 30, 31), ("ant", 3, 4, 5, 6), more=kept),
            "b": xml(("ant", -3, 4, 55, 6), ("ant", 5, 5, 1, 9)),
            "c": xml(),
        }
        return voc(root, images, train=["a"], val=["b"], test=["c"], trainval=["a", "b"])
    if kind == "coco":
        for split, images in (("train", 2), ("val", 1)):
            entries = [
                {"bbox": [0.1, 0.2, 10.3, 10.4], "category_id": 9, "area": 55.5, "segmentation": [[1, 2, 3, 4, 5, 6]]},
                {"bbox": [40, 2, 30, 4], "iscrowd": 1, "id": 77},
                {"bbox": [40, 2, 0, 4]},
            ]
            value = coco_value(entries, images)
            for image in value["images"]:
                image.update(file_name=f"{split}{image['id']}.png", license=3)
                picture(root / "images" / split / image["file_name"])
            put(root / "annotations" / f"instances_{split}.json", json.dumps(value))
        return root
    lines = "1 0.1234567 0.5 0.2 0.3\n0 0.25 0.25 0.75 0.25 0.5 1\n"
    return yolo(root, {"a": lines, "b": "1 0.9 0.9 0.5 0.5\n", "c": ""})


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
    for record in read_draft(tmp_path / "back").records:  # also what boxes are not made of
        assert record.extra.get(start) == records[record.name].extra.get(start)
        assert [b.extra.get(start) for b in record.boxes] == [b.extra.get(start) for b in records[record.name].boxes]
    for row, path in enumerate(last.paths):
        first_row = [Path(p).stem for p in first.paths].index(Path(path).stem)
        assert last.store.read(row) == first.store.read(first_row)


def test_what_a_format_has_no_place_for_is_told(tmp_path: Path) -> None:
    lost = convert(full(tmp_path / "c", "coco"), tmp_path / "y", "yolo").lost
    assert lost[:2] == ("YOLO has no place for crowds: 2 boxes", "YOLO has no place for areas: 2 boxes")
    lost = convert(full(tmp_path / "v", "voc"), tmp_path / "vc", "coco").lost
    assert lost[0] == "COCO has no place for difficult: 2 boxes"
    assert json.loads((tmp_path / "vc" / SIDECAR).read_text())["lost"] == list(lost)


def test_a_box_that_was_moved_since_is_read_from_its_file(tmp_path: Path) -> None:
    convert(full(tmp_path / "v", "voc"), tmp_path / "y", "yolo")
    label = tmp_path / "y" / "labels" / "train" / "a.txt"
    put(label, "1 .5 .5 .5 .5\n" + label.read_text().splitlines()[1])
    table = read_boxes(tmp_path / "y")
    boxes = seen(table)["a"][1]
    assert boxes.corners[0].tolist() == [12, 8, 36, 24] and boxes.difficult.tolist() == [False, False]
    assert [note for note in table.notes if "1 images were added or changed since" in note]


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=6)
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
            drawn.append(Drawn(tuple(draw(edge) for _ in range(4)), draw(st.sampled_from(classes)), *flags, area))  # type: ignore[arg-type]
        records.append(Record(f"{i}.png", f"{i}/{stem}.png", split, size, drawn))
    return Draft("coco", Path(), classes, draw(st.booleans()), records)


@settings(max_examples=30)
@given(drafts(), st.permutations(KINDS))
def test_any_boxes_come_back_through_any_formats(draft: Draft, kinds: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        draft.root = top / "images"
        for record in draft.records:
            picture(draft.root / record.path, record.size[1], record.size[0])
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
            found = read_boxes(top / str(step))
            assert found.kind == kind
            unchanged(draft, expected, found, top / str(step))


def unchanged(draft: Draft, expected: BoxTable, found: BoxTable, root: Path) -> None:
    assert (found.classes, found.declared) == (draft.classes, draft.declared)
    original = {record.name: row for row, record in enumerate(draft.records)}
    restored = read_draft(root).records
    assert sorted(record.name for record in restored) == sorted(original)
    for row, record in enumerate(restored):
        at = original[record.name]
        ours, theirs = found.answers.read(row), expected.answers.read(at)
        assert (found.splits[row], ours.size) == (expected.splits[at], theirs.size)
        assert decode(found.store.read(row)).size == ours.size[::-1]
        assert len(record.boxes) == len(draft.records[at].boxes)
        for box, true in zip(record.boxes, draft.records[at].boxes, strict=True):
            np.testing.assert_allclose(box.box, true.box, atol=1e-3)
            assert (box.name, box.crowd, box.difficult) == (true.name, true.crowd, true.difficult)
            area = (true.box[2] - true.box[0]) * (true.box[3] - true.box[1])
            assert math.isnan(box.area) == math.isnan(true.area) or math.isclose(true.area, area)
            assert math.isnan(box.area) or box.area == true.area


def test_a_conversion_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = full(tmp_path / "v", "voc")

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert_module, "sidecar_text", full_disk)
    with pytest.raises(StorageError, match="disk is full"):
        convert(root, tmp_path / "out", "coco")
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_unreadable_images_stay_behind(tmp_path: Path) -> None:
    root = full(tmp_path / "v", "voc")
    put(root / "JPEGImages" / "b.png", b"no picture")
    result = convert(root, tmp_path / "y", "yolo")
    assert result.images == 2 and any("b.png: is not a picture" in note for note in result.notes)


@pytest.mark.parametrize("to", KINDS)
def test_names_that_would_meet_are_told_apart(tmp_path: Path, to: str) -> None:
    value = coco_value([{"bbox": [1, 1, 5, 5]}, {"bbox": [2, 2, 5, 5], "image_id": 1}], 3)
    for entry, name in zip(value["images"], ("train/a.png", "train_a.png", "TRAIN_A.jpg"), strict=True):
        entry["file_name"] = name
        picture(tmp_path / "c" / "images" / name)
    put(tmp_path / "c" / "annotations" / "all.json", json.dumps(value))
    convert(tmp_path / "c", tmp_path / "out", to)
    records = read_draft(tmp_path / "out").records
    assert {r.name: [round(b.box[0], 6) for b in r.boxes] for r in records} == {
        "train/a.png": [1],
        "train_a.png": [2],
        "TRAIN_A.jpg": [],
    }
    assert len({Path(r.path).with_suffix("").as_posix().casefold() for r in records}) == 3
    assert {r.split for r in records} == {""}


# what is refused


def broken_sidecar(root: Path, **changed: Any) -> None:
    convert(full(root.parent / "whole", "voc"), root, "yolo")
    value = json.loads((root / SIDECAR).read_text())
    put(root / SIDECAR, json.dumps({**value, **changed}))


def many_of(entry: dict[str, Any]) -> Callable[[Path], object]:
    return lambda root: coco(root, coco_value([entry]))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing there": (lambda root: None, "does not exist"),
    "a file": (lambda root: put(root, "x"), "is another kind of file"),
    "an empty folder": (lambda root: root.mkdir(), "holds no boxes"),
    "two kinds": (lambda root: (voc(root, {"a": xml()}), coco(root)), "PASCAL VOC boxes, COCO boxes"),
    "voc: no images": (lambda root: put(root / "Annotations" / "a.xml", xml()), "no images in JPEGImages"),
    "voc: all broken": (lambda root: voc(root, {"a": "<", "b": "<"}), "none of the 2 images"),
    "voc: no boxes": (lambda root: voc(root, {"a": xml()}), "has no boxes"),
    "voc: two splits": (lambda root: voc(root, {"a": xml()}, train=["a"], val=["a"]), "a is in train and in val"),
    "voc: test in trainval": (
        lambda root: voc(root, {"a": xml()}, trainval=["a"], test=["a"]),
        "a is in trainval and in test",
    ),
    "voc: empty lists": (lambda root: voc(root, {"a": xml()}, train=[]), "lists no images"),
    "voc: leads outside": (lambda root: voc(root, {"a": xml()}, train=["../a"]), "path '../a'"),
    "voc: no training image": (lambda root: voc(root, {"a": xml(("a", 1, 1, 5, 5))}, val=["a"]), "no training images"),
    "voc: one image": (lambda root: voc(root, {"a": xml(("a", 1, 1, 5, 5))}), "none can be held out"),
    "voc: unknown class": (
        lambda root: voc(root, {s: xml((s, 1, 1, 5, 5)) for s in "ab"}, train=["a"], val=["b"]),
        "JPEGImages/b.png: class b has no training box",
    ),
    "coco: no JSON": (lambda root: coco(root, "{"), "is no JSON"),
    "coco: a list": (lambda root: coco(root, []), "holds a list"),
    "coco: no annotations": (lambda root: coco(root, {"images": []}), "categories is missing"),
    "coco: list of numbers": (lambda root: coco(root, coco_value([], annotations=[3])), "is no list of objects"),
    "coco: unknown category": (many_of({"bbox": [1, 1, 2, 2], "category_id": 4}), "has category 4"),
    "coco: unknown image": (many_of({"bbox": [1, 1, 2, 2], "image_id": 4}), "is of image 4"),
    "coco: three numbers": (many_of({"bbox": [1, 1, 2]}), "a bbox is [1, 1, 2]"),
    "coco: bbox of text": (many_of({"bbox": ["1", "1", "2", "2"]}), "a bbox is"),
    "coco: crowd": (many_of({"bbox": [1, 1, 2, 2], "iscrowd": "no"}), "iscrowd is 'no'"),
    "coco: image twice": (
        lambda root: coco(root, coco_value([], images=[{"id": 1, "file_name": f"{i}.png"} for i in range(2)])),
        "image id 1 is given twice",
    ),
    "coco: file twice": (
        lambda root: coco(root, coco_value([], images=[{"id": i, "file_name": "0.png"} for i in range(2)])),
        "0.png is listed twice",
    ),
    "coco: category twice": (
        lambda root: coco(root, coco_value([], categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}])),
        "category id 1 is given twice",
    ),
    "coco: one name": (
        lambda root: coco(root, coco_value([], categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}])),
        "two categories are called a",
    ),
    "coco: names differ": (
        lambda root: (
            coco(root, None, "instances_train.json"),
            coco(root, coco_value([], categories=[{"id": 3, "name": "horse"}]), "instances_val.json"),
        ),
        "category 3 is horse, and zebra in another file",
    ),
    "coco: no image there": (lambda root: coco(root, coco_value([]), images=0), "none of the 1 images"),
    "yolo: class beyond": (lambda root: yolo(root, {"a": "2 .5 .5 .1 .1"}), "class '2'"),
    "yolo: negative class": (lambda root: yolo(root, {"a": "-1 .5 .5 .1 .1"}), "class '-1'"),
    "yolo: four numbers": (lambda root: yolo(root, {"a": "0 .5 .5 .1"}), "a.txt: line 1: '0 .5 .5 .1'"),
    "yolo: six numbers": (lambda root: yolo(root, {"a": "0 .5 .5 .1 .1 .9"}), "line 1"),
    "yolo: a name for a class": (lambda root: yolo(root, {"a": "zebra .5 .5 .1 .1"}), "line 1"),
    "yolo: no labels": (lambda root: yolo(root, {"a": None}), "none of the 1 images has a label file"),
    "yolo: no images": (
        lambda root: (yolo(root, {"a": ""}), (root / "images" / "a.png").unlink()),
        "holds labels but no images",
    ),
    "yolo: no names": (
        lambda root: (yolo(root, {"a": ""}), (root / "data.yaml").unlink()),
        "has no class names",
    ),
    "yolo: names twice": (lambda root: yolo(root, {"a": ""}, "names: [a, a]"), "given twice"),
    "yolo: no key": (lambda root: yolo(root, {"a": ""}, "nc: 2"), "has no names"),
    "yolo: key points": (lambda root: yolo(root, {"a": ""}, "names: [a]\nkpt_shape: [17, 3]"), "key points"),
    "yolo: two images, one label": (
        lambda root: (yolo(root, {"a": ""}), picture(root / "images" / "a.bmp")),
        "two images are called a",
    ),
    "sidecar: other version": (lambda root: broken_sidecar(root, gossamer_boxes=2), "gossamer_boxes is 2"),
    "sidecar: no images": (lambda root: broken_sidecar(root, images=[]), "images is []"),
    "sidecar: lines in lines": (
        lambda root: broken_sidecar(root, extra={"yolo": ["1\n0 .5 .5 1 1"]}),
        "extra is",
    ),
    "sidecar: leads outside": (
        lambda root: broken_sidecar(
            root, images={"images/train/a.png": {"name": "../../x.png", "size": [32, 48], "count": 2}}
        ),
        "path '../../x.png'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_end_in_one_clear_line(tmp_path: Path, name: str) -> None:
    make, expected = BAD[name]
    make(tmp_path / "data")
    with pytest.raises(DataError) as caught:
        open_boxes(tmp_path / "data")
    message = str(caught.value)
    assert expected in message and "\n" not in message and len(message) < 600
    assert caught.value.allowed and caught.value.do


def as_folder(root: Path, file: Path) -> Path:
    """A folder in which a hostile file is the annotation."""
    if file.suffix == ".xml":
        picture(root / "JPEGImages" / "a.png")
        put(root / "Annotations" / "a.xml", file.read_bytes())
        return root
    if file.suffix == ".json":
        picture(root / "images" / "a.png")
        put(root / "annotations" / "all.json", file.read_bytes())
        return root
    yolo(root, {"a": f"0 {12 / 48} {19 / 32} {16 / 48} {22 / 32}"})
    put(root / "data.yaml", file.read_bytes())
    return root


@pytest.mark.parametrize("file", sorted(HOSTILE.iterdir()), ids=lambda file: file.name)
def test_hostile_files(tmp_path: Path, file: Path) -> None:
    root = as_folder(tmp_path, file)
    if file.name.startswith("bad-"):
        with pytest.raises(DataError) as caught:
            read_boxes(root)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
        assert "root:" not in str(caught.value)  # nothing of the file that an entity names
    else:
        table = read_boxes(root)
        assert table.classes == ("caf\xe9",)
        np.testing.assert_allclose(table.answers.read(0).corners, [[4, 8, 20, 30]], atol=1e-5)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=25)
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as name:
            root = full(Path(name) / "x", kind)
            files = {"voc": "Annotations/a.xml", "coco": "annotations/instances_val.json", "yolo": "labels/a.txt"}
            put(root / files[kind], content)
            try:
                read_boxes(root)
            except GossamerError as error:
                assert isinstance(error, DataError)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**30) | st.floats() | st.sampled_from(["0.png", "a", "", "zebra"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "name", "bbox", "size", "boxes", "0", "box", "voc"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.data())
def test_json_of_any_shape_is_read_or_refused(data: st.DataObject) -> None:
    """One value anywhere in a whole file is replaced by anything."""
    with tempfile.TemporaryDirectory() as name:
        root = full(Path(name) / "x", "coco")
        path = root / "annotations" / "instances_train.json"
        if data.draw(st.booleans()):
            convert(root, Path(name) / "y", "voc")
            root, path = Path(name) / "y", Path(name) / "y" / SIDECAR
        value = json.loads(path.read_text())
        spot: Any = value
        while True:
            key = data.draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot))))
            if not isinstance(spot[key], dict | list) or not spot[key] or data.draw(st.booleans()):
                break
            spot = spot[key]
        spot[key] = data.draw(values)
        put(path, json.dumps(value))
        try:
            convert(root, Path(name) / "z", data.draw(st.sampled_from(KINDS)))
            read_boxes(Path(name) / "z")
        except GossamerError as error:
            assert isinstance(error, DataError), error


def test_odd_fields_of_coco_are_kept(tmp_path: Path) -> None:
    entry = {"bbox": [1, 1, 5, 5], "area": math.inf, "note": "\ud800 é", "deep": {"a": [None, {"b": 1}]}}
    convert(coco(tmp_path / "c", coco_value([entry])), tmp_path / "v", "voc")
    convert(tmp_path / "v", tmp_path / "back", "coco")
    found = json.loads((tmp_path / "back" / "annotations" / "instances_all.json").read_text())["annotations"][0]
    assert found == {**entry, "id": 0, "image_id": 0, "category_id": 3, "area": 25, "iscrowd": 0}
    nested = json.dumps(coco_value([{**entry, "deep": 5}])).replace('"deep": 5', f'"deep": {"[" * 980}{"]" * 980}')
    try:
        convert(coco(tmp_path / "d", nested), tmp_path / "e", "voc")
    except DataError:
        assert not (tmp_path / "e").exists()


def test_class_numbers_that_are_none_stay_none(tmp_path: Path) -> None:
    answers = read_boxes(many(tmp_path)).answers
    narrow = answers.numbered(("rare",))
    assert set(narrow.labels.tolist()) == {0, -1}
    assert set(narrow.numbered(("often", "rare")).labels.tolist()) == {1, -1}


def test_conversions_that_cannot_be(tmp_path: Path) -> None:
    root = full(tmp_path / "v", "voc")
    with pytest.raises(UnknownNameError, match="did you mean coco"):
        convert(root, tmp_path / "out", "cocoa")
    for out in (root, root / "inside"):
        with pytest.raises(DataError):
            convert(root, out, "coco")
    assert not (root / "inside").exists()
    (tmp_path / "empty").mkdir()
    assert convert(root, tmp_path / "empty", "coco").images == 3
    assert set(WRITERS) == set(KINDS)


# real data


def test_real_blood_cells(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "bccd"
    data = open_boxes(root)
    assert [len(source) for source in data.splits().values()] == [205, 87, 72]
    assert data.classes == ("Platelets", "RBC", "WBC")
    table = read_boxes(root)
    assert len(table.answers.labels) == 4888
    assert size_differences(table) == []
    boxes = boxes_at(data.train, data.train.names.index("JPEGImages/BloodImage_00001.jpg"))
    assert boxes.corners[0].tolist() == [67, 314, 286, 480]  # xmin 68, ymin 315, xmax 286, ymax 480 in the file
    convert(root, tmp_path / "yolo", "yolo")
    convert(tmp_path / "yolo", tmp_path / "coco", "coco")
    same(table, read_boxes(tmp_path / "coco"))

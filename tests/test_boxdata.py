"""Boxes of PASCAL VOC, COCO and YOLO: what is read, and how it is split."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.data.boxes.annotation import BoxTarget
from gossamer.data.boxes.convert import convert
from gossamer.data.boxes.open import open_boxes, read_boxes
from gossamer.data.boxes.records import BoxRecord, Draft, ImageRecord, split_of
from gossamer.data.boxes.table import size_differences, table_of
from gossamer.data.open import apply_split, open_source
from gossamer.data.source import Source
from gossamer.data.split import split_rows
from gossamer.errors import DataError
from tests.annotations import coco, coco_value, same, two_classes, voc, write_file, write_image, xml, yolo


def boxes_at(source: Source, index: int) -> BoxTarget:
    assert source.targets is not None
    target: BoxTarget = source.targets.read(int(source.rows[index]))
    return target


# what is read


def test_voc_counts_pixels_from_one_and_coco_from_zero(tmp_path: Path) -> None:
    one = read_boxes(voc(tmp_path / "v", {"a": xml(("zebra", 5, 9, 20, 30))})).targets.read(0)
    two = read_boxes(coco(tmp_path / "c")).targets.read(0)
    line = f"0 {12 / 48} {19 / 32} {16 / 48} {22 / 32}"
    three = read_boxes(yolo(tmp_path / "y", {"a": line})).targets.read(0)
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
    left_out, reason = data.notes  # of image 9
    assert "1 of 10 images are left out" in left_out and "passed over" in reason


def test_coco_ids_with_gaps_crowds_and_areas(tmp_path: Path) -> None:
    entries = [
        {"bbox": [0, 0, 10, 10], "category_id": 9, "area": 55.5},
        {"bbox": [1.5, 2, 3, 4], "iscrowd": 1, "segmentation": {"counts": [1], "size": [32, 48]}},
    ]
    table = read_boxes(coco(tmp_path, coco_value(entries, 2), images=2))
    boxes = table.targets.read(0)
    assert table.classes == ("zebra", "ant")
    assert boxes.labels.tolist() == [1, 0]
    assert boxes.crowd.tolist() == [False, True]
    assert boxes.area.tolist() == [55.5, 12]
    assert boxes.corners[1].tolist() == [1.5, 2, 4.5, 6]
    assert len(table.targets.read(1)) == 0  # a negative stays
    assert table.strata().tolist() == [0, -1]


@pytest.mark.parametrize("where", ["images/train2017", "train2017", "images", ".", "annotations", "images/train"])
def test_coco_images_are_read_from_the_usual_folders(tmp_path: Path, where: str) -> None:
    root = coco(tmp_path, coco_value([{"bbox": [1, 1, 5, 5]}]), "instances_train2017.json", images=0)
    write_image(root / where / "0.png")
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
        write_file(tmp_path / split / "_annotations.coco.json", json.dumps(value))
        write_image(tmp_path / split / "0.png")
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
            write_image(tmp_path / images.format(split) / "deep" / f"{name}.png")
        write_file(tmp_path / labels.format(split) / "deep" / "a.txt", "1 0.25 0.25 0.75 0.25 0.5 1\n\n0 .5 .5 1 1\n")
    write_file(tmp_path / labels.format("train") / "gone.txt", "0 .5 .5 1 1\n")
    write_file(tmp_path / "data.yaml", "names:\n  0: no\n  1: '1'\ntrain: ../train/images\n")
    data = open_boxes(tmp_path)
    assert data.classes == ("no", "1")
    assert boxes_at(data.train, 0).corners.tolist() == [[12, 8, 36, 32], [0, 0, 48, 32]]
    assert len(boxes_at(data.val, 1)) == 0
    assert [note.split(": ", 1)[1] for note in data.notes] == [
        "2 images have no label file and count as showing nothing",
        "1 label file has no image and is passed over",
    ]


def test_cvat_keeps_the_order_of_its_labels_and_the_boxes_of_masks(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("zebra", "ant", "unused"))
    mask = '<mask label="ant" left="3" top="4" width="20" height="10" rle="200"/>'
    image = f'<image id="0" name="a.png" width="48" height="32">{mask}</image>'
    text = f"<annotations><version>1.1</version><meta><job><labels>{labels}</labels></job></meta>{image}</annotations>"
    write_file(tmp_path / "annotations.xml", text)
    table = read_boxes(tmp_path)
    assert table.classes == ("zebra", "ant", "unused")
    assert table.targets.read(0).corners.tolist() == [[3, 4, 23, 14]]


@pytest.mark.parametrize("turn, box", [("", [14, 6, 34, 14]), (' rotation="90"', [20, 0, 28, 20])])
def test_the_box_of_an_ellipse_of_cvat_touches_it_on_four_sides(turn: str, box: list[int], tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    shape = f'<ellipse label="ball" cx="24" cy="10" rx="10" ry="4"{turn}/>'
    image = f'<image id="0" name="a.png" width="48" height="32">{shape}</image>'
    write_file(tmp_path / "annotations.xml", f"<annotations><version>1.1</version>{image}</annotations>")
    np.testing.assert_allclose(read_boxes(tmp_path).targets.read(0).corners, [box], atol=0.05)


def test_the_box_of_a_circle_of_labelme_touches_it_on_four_sides(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    circle = {"label": "ball", "shape_type": "circle", "points": [[20, 15], [28, 15]]}
    value = {"version": "5.0", "shapes": [circle], "imagePath": "a.png", "imageHeight": 32, "imageWidth": 48}
    write_file(tmp_path / "a.json", json.dumps(value))
    np.testing.assert_allclose(read_boxes(tmp_path).targets.read(0).corners, [[12, 7, 28, 23]], atol=1e-4)


def test_yolo_names_in_a_text_file(tmp_path: Path) -> None:
    root = yolo(tmp_path, {"a": "1 .5 .5 .5 .5"})
    (root / "data.yaml").unlink()
    write_file(root / "labels" / "classes.txt", "zebra\nant\n")
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
        ("a", 1, 1, 48, 32),  # all of the image
    ]
    table = read_boxes(voc(tmp_path, {"a": xml(*objects)}))  # type: ignore[arg-type]
    assert table.targets.read(0).corners.tolist() == [[0, 4, 20, 32], [0, 0, 48, 32]]
    assert table.targets.read(0).area.tolist() == [560, 1536]
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
    drawn = [BoxRecord(box, "a") for box in corners]
    draft = Draft("coco", Path("x"), ("a",), True, [ImageRecord("a", "a", "", (32, 48), drawn)])
    try:
        boxes = table_of(draft).targets.read(0)
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


def test_one_broken_xml_is_skipped_and_listed_ones_without_annotation(tmp_path: Path) -> None:
    root = voc(tmp_path, {s: xml(("a", 1, 1, 5, 5)) for s in "abc"}, train=["a", "b", "c", "d"])
    write_file(root / "Annotations" / "b.xml", "<annotation>")
    (root / "JPEGImages" / "c.png").unlink()
    table = read_boxes(root)
    assert table.names == ["JPEGImages/a.png"]
    assert len(table.notes) == 1 and "3 of 4 images" in table.notes[0]
    for part in ("b.xml: is no XML", "c.xml: there is no JPEGImages/c", "d is listed but has no"):
        assert part in table.notes[0]


def test_missing_coco_images_are_set_aside(tmp_path: Path) -> None:
    table = read_boxes(coco(tmp_path, coco_value([{"bbox": [1, 1, 5, 5]}], 3)))
    assert len(table.names) == 1
    assert table.notes == ["2 images are listed but missing, and skipped: 1.png, 2.png"]


def test_sizes_are_checked_on_request(tmp_path: Path) -> None:
    box = ("a", 1, 1, 5, 5)
    images = {"a": xml(box), "b": xml(box, size=(32, 48)), "c": xml(box, size=(480, 320)), "d": xml(box, size=(0, 0))}
    table = read_boxes(voc(tmp_path, images))
    notes = size_differences(table)
    assert len(notes) == 2
    assert notes[0].startswith("1 image lies on its side") and "b.png (32 x 48, the image 48 x 32)" in notes[0]
    assert notes[1].startswith("1 image has another size") and "c.png (480 x 320" in notes[1]


# splits


def test_without_splits_each_class_is_held_out(tmp_path: Path) -> None:
    data = open_boxes(two_classes(tmp_path), val_share=0.25)
    assert (len(data.train), len(data.val)) == (15, 5)
    assert data.val.labels.tolist().count(1) == 1  # of 4 images with the rare class
    again = open_boxes(tmp_path, val_share=0.25, seed=1)
    assert again.val.names != data.val.names


def test_a_saved_split_is_restored(tmp_path: Path) -> None:
    data = open_boxes(two_classes(tmp_path))
    rows = split_rows(data)
    voc(tmp_path, {"new": xml(("rare", 1, 1, 5, 5))})
    (tmp_path / "Annotations" / "03.xml").unlink()
    again = apply_split(tmp_path, rows, read=read_boxes)
    gone = {"JPEGImages/03.png"}
    for old, new in zip(data.splits().values(), again.splits().values(), strict=True):
        kept = [i for i, name in enumerate(old.names) if name not in gone]
        assert new.names == [old.names[i] for i in kept]
        assert new.labels.tolist() == [old.labels[i] for i in kept]
        np.testing.assert_array_equal(boxes_at(new, 0).corners, boxes_at(old, kept[0]).corners)
    assert "1 image has no annotation and is passed over: 03" in again.notes[1]
    assert [re.split(" images? ", note)[1].split(":")[0] for note in again.notes] == [
        "are left out",
        "has no annotation and is passed over",
        "is gone",
        "was added and is not used",
    ]


def test_validation_data_elsewhere_and_their_class_numbers(tmp_path: Path) -> None:
    two_classes(tmp_path / "a")
    voc(tmp_path / "b", {"x": xml(("rare", 1, 1, 5, 5))})
    data = open_boxes(tmp_path / "a", val=tmp_path / "b")
    assert (len(data.train), len(data.val)) == (20, 1)
    assert boxes_at(data.val, 0).labels.tolist() == [1]  # the only class there, and the second here
    again = apply_split(tmp_path / "a", split_rows(data), val=tmp_path / "b", read=read_boxes)
    assert again.fingerprint == data.fingerprint
    source = open_source(tmp_path / "b", ("x", "y", "rare"), read=read_boxes)
    assert (boxes_at(source, 0).labels.tolist(), source.labels.tolist()) == ([2], [2])
    with pytest.raises(DataError, match="class rare has no training box"):
        open_source(tmp_path / "b", ("often",), read=read_boxes)


def test_a_moved_box_changes_the_fingerprint_and_a_selection_keeps_its_boxes(tmp_path: Path) -> None:
    root = two_classes(tmp_path)
    before = open_boxes(root)
    assert open_boxes(root).fingerprint == before.fingerprint
    part = before.train.select(np.array([3, 1]))
    np.testing.assert_array_equal(boxes_at(part, 0).corners, boxes_at(before.train, 3).corners)
    write_file(root / "Annotations" / "01.xml", xml(("often", 1, 1, 9, 10), ("often", 4, 4, 8, 8)))
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


# real data


def test_real_blood_cells(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "bccd"
    data = open_boxes(root)
    assert [len(source) for source in data.splits().values()] == [205, 87, 72]
    assert data.classes == ("Platelets", "RBC", "WBC")
    table = read_boxes(root)
    assert len(table.targets.labels) == 4888
    assert size_differences(table) == []
    boxes = boxes_at(data.train, data.train.names.index("JPEGImages/BloodImage_00001.jpg"))
    assert boxes.corners[0].tolist() == [67, 314, 286, 480]  # xmin 68, ymin 315, xmax 286, ymax 480 in the file
    convert(root, tmp_path / "yolo", "yolo")
    convert(tmp_path / "yolo", tmp_path / "coco", "coco")
    same(table, read_boxes(tmp_path / "coco"))

"""Annotations that are broken, hostile or odd."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.data.boxes.convert import WRITERS, convert
from gossamer.data.boxes.open import open_boxes, read_boxes
from gossamer.data.boxes.records import SIDECAR, contents
from gossamer.errors import DataError, GossamerError, UnknownNameError
from tests.annotations import KINDS, coco, coco_value, full, two_classes, voc, write_file, write_image, xml, yolo

HOSTILE = Path(__file__).parent / "hostile" / "boxes"


def broken_sidecar(root: Path, **changed: Any) -> None:
    convert(full(root.parent / "good", "voc"), root, "yolo")
    value = json.loads((root / SIDECAR).read_text())
    write_file(root / SIDECAR, json.dumps({**value, **changed}))


def each_annotation(entry: dict[str, Any]) -> Callable[[Path], object]:
    return lambda root: coco(root, coco_value([entry]))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing there": (lambda root: None, "does not exist"),
    "a file": (lambda root: write_file(root, "x"), "is another kind of file"),
    "an empty folder": (lambda root: root.mkdir(), "holds no boxes"),
    "two kinds": (lambda root: (voc(root, {"a": xml()}), coco(root)), "PASCAL VOC boxes, COCO boxes"),
    "voc: no images": (lambda root: write_file(root / "Annotations" / "a.xml", xml()), "no images in JPEGImages"),
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
    "coco: unknown category": (each_annotation({"bbox": [1, 1, 2, 2], "category_id": 4}), "has category 4"),
    "coco: unknown image": (each_annotation({"bbox": [1, 1, 2, 2], "image_id": 4}), "is of image 4"),
    "coco: three numbers": (each_annotation({"bbox": [1, 1, 2]}), "a bbox is [1, 1, 2]"),
    "coco: bbox of text": (each_annotation({"bbox": ["1", "1", "2", "2"]}), "a bbox is"),
    "coco: crowd": (each_annotation({"bbox": [1, 1, 2, 2], "iscrowd": "no"}), "iscrowd is 'no'"),
    "coco: image twice": (
        lambda root: coco(root, coco_value([], images=[{"id": 1, "file_name": f"{i}.png"} for i in range(2)])),
        "image id 1 is given twice",
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
    "coco: no image there": (lambda root: coco(root, coco_value([]), images=0), "none of 1 image"),
    "yolo: class beyond": (lambda root: yolo(root, {"a": "2 .5 .5 .1 .1"}), "class '2'"),
    "yolo: negative class": (lambda root: yolo(root, {"a": "-1 .5 .5 .1 .1"}), "class '-1'"),
    "yolo: four numbers": (lambda root: yolo(root, {"a": "0 .5 .5 .1"}), "a.txt: line 1: '0 .5 .5 .1'"),
    "yolo: six numbers": (lambda root: yolo(root, {"a": "0 .5 .5 .1 .1 .9"}), "line 1"),
    "yolo: a name for a class": (lambda root: yolo(root, {"a": "zebra .5 .5 .1 .1"}), "line 1"),
    "yolo: no labels": (lambda root: yolo(root, {"a": None}), "none of 1 image has a label file"),
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
    "yolo: key points": (lambda root: yolo(root, {"a": ""}, "names: [a]\nkpt_shape: [17]"), "kpt_shape is"),
    "yolo: two images, one label": (
        lambda root: (yolo(root, {"a": ""}), write_image(root / "images" / "a.bmp")),
        "two images are called a",
    ),
    "yolo: two images, one label, another between": (
        lambda root: (yolo(root, {"a": ""}), [write_image(root / "images" / name) for name in ("a.bmp", "a.k.png")]),
        "two images are called a",
    ),
    **{
        f"yolo: ids of notes.json: {ids}": (
            lambda root, ids=ids: (
                yolo(root, {"a": ""}),
                (root / "data.yaml").unlink(),
                write_file(root / "notes.json", json.dumps({"categories": [{"id": i, "name": "a"} for i in ids]})),
            ),
            "the ids of its categories are",
        )
        for ids in ([[1]], [{}], [None], ["0"], [True, False], [1], [0, 0], [0, None])
    },
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
        write_image(root / "JPEGImages" / "a.png")
        write_file(root / "Annotations" / "a.xml", file.read_bytes())
        return root
    if file.suffix == ".json":
        write_image(root / "images" / "a.png")
        write_file(root / "annotations" / "all.json", file.read_bytes())
        return root
    yolo(root, {"a": f"0 {12 / 48} {19 / 32} {16 / 48} {22 / 32}"})
    write_file(root / "data.yaml", file.read_bytes())
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
        np.testing.assert_allclose(table.targets.read(0).corners, [[4, 8, 20, 30]], atol=1e-5)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=25)
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as name:
            root = full(Path(name) / "x", kind)
            files = {"voc": "Annotations/a.xml", "coco": "annotations/instances_val.json", "yolo": "labels/a.txt"}
            write_file(root / files[kind], content)
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
    """One value anywhere in a good file is replaced by anything."""
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
        write_file(path, json.dumps(value))
        try:
            convert(root, Path(name) / "z", data.draw(st.sampled_from(KINDS)))
            read_boxes(Path(name) / "z")
        except GossamerError as error:
            assert isinstance(error, DataError), error


def test_a_file_may_have_as_many_bytes_as_the_limit_and_no_more(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.txt", b"12345")
    assert contents(path, 5) == b"12345"
    with pytest.raises(DataError, match="has 5 bytes; allowed: at most 4"):
        contents(path, 4)


def test_odd_fields_of_coco_are_kept(tmp_path: Path) -> None:
    entry = {"bbox": [1, 1, 5, 5], "area": math.inf, "note": "\ud800 é", "deep": {"a": [None, {"b": 1}]}}
    convert(coco(tmp_path / "c", coco_value([entry])), tmp_path / "v", "voc")
    convert(tmp_path / "v", tmp_path / "back", "coco")
    annotation = json.loads((tmp_path / "back" / "annotations" / "instances_all.json").read_text())["annotations"][0]
    assert annotation == {**entry, "id": 0, "image_id": 0, "category_id": 3, "area": 25, "iscrowd": 0}
    nested = json.dumps(coco_value([{**entry, "deep": 5}])).replace('"deep": 5', f'"deep": {"[" * 980}{"]" * 980}')
    try:
        convert(coco(tmp_path / "d", nested), tmp_path / "e", "voc")
    except DataError:
        assert not (tmp_path / "e").exists()


def test_class_numbers_that_are_none_stay_none(tmp_path: Path) -> None:
    targets = read_boxes(two_classes(tmp_path)).targets
    fewer = targets.numbered(("rare",))
    assert set(fewer.labels.tolist()) == {0, -1}
    assert set(fewer.numbered(("often", "rare")).labels.tolist()) == {1, -1}


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


POLYGON = {"bbox": None, "segmentation": [[4, 4, 28, 4, 28, 24, 4, 24], [30, 1, 31, 1, 31, 2]]}
ODD: dict[str, tuple[dict[str, Any], list[float] | None]] = {
    "polygons": (POLYGON, [4, 1, 31, 24]),
    "no bbox, no polygon": ({"bbox": None}, None),
    "empty bbox": ({"bbox": []}, None),
    "empty bbox, crooked polygon": ({"bbox": [], "segmentation": [[1, 2, 3, 4, 5]]}, None),
    "polygon of text": ({"bbox": [], "segmentation": [["1", 2, 3, 4, 5, 6]]}, None),
    "run lengths": ({"bbox": None, "segmentation": {"counts": [1], "size": [32, 48]}}, None),
    "three numbers": ({"bbox": [1, 2, 3]}, None),
    "bbox of text": ({"bbox": ["1", "1", "2", "2"]}, None),
    "bbox of null": ({"bbox": [1, 1, None, 2]}, None),
    "category 3.0": ({"category_id": 3.0}, [4, 8, 20, 30]),
    "category 3.5": ({"category_id": 3.5}, None),
    "no category": ({"category_id": None}, None),
    "unknown category": ({"category_id": 77}, None),
    "image 1.0": ({"image_id": 1.0}, [4, 8, 20, 30]),
    "unknown image": ({"image_id": 999}, None),
    "image of a list": ({"image_id": [1]}, None),
    "iscrowd null": ({"iscrowd": None}, [4, 8, 20, 30]),
    "iscrowd text": ({"iscrowd": "no"}, None),
}


@pytest.mark.parametrize("name", ODD)
def test_one_odd_annotation_costs_no_image(tmp_path: Path, name: str) -> None:
    change, expected = ODD[name]
    good = [{"image_id": i, "bbox": [1, 1, 5, 5]} for i in range(4)]
    value = coco_value([*good, {"image_id": 1, "bbox": [4, 8, 16, 22], **change}], 4)
    if value["annotations"][-1]["bbox"] is None:
        del value["annotations"][-1]["bbox"]
    root = coco(tmp_path / "c", value, images=4)
    table = read_boxes(root)
    assert len(table.names) == 4
    assert table.targets.read(1).corners.tolist() == [[1, 1, 6, 6], *([expected] if expected else [])]
    skipped = [note for note in table.notes if "1 of 5 annotations cannot be used and are skipped" in note]
    assert len(skipped) == (expected is None)
    back = read_boxes(convert(root, tmp_path / "voc", "voc").folder)
    assert len(back.names) == 4 and len(back.targets.read(1)) == 1 + (expected is not None)


def test_odd_images_and_entries_of_other_types_are_set_aside(tmp_path: Path) -> None:
    value = coco_value([{"bbox": [1, 1, 5, 5]}, {"image_id": 2, "bbox": [1, 1, 5, 5]}], 4)
    value["images"][1]["file_name"] = "../1.png"
    del value["images"][2]["id"]
    value["images"][3]["id"] = 3.0
    value["images"] += [7, None]
    value["annotations"] += ["x", {"image_id": 3, "id": 9, "category_id": 3.0, "bbox": [1, 1, 5, 5]}]
    value["categories"][0]["id"] = 3.0
    table = read_boxes(coco(tmp_path, value, images=4))
    assert table.names == ["images/0.png", "images/3.png"]
    assert [len(table.targets.read(row)) for row in range(2)] == [1, 1]
    assert [note for note in table.notes if "4 of 6 images cannot be used and are skipped" in note]
    assert [note for note in table.notes if "2 of 4 annotations cannot be used" in note and "image 2" in note]
    with pytest.raises(DataError, match=r"path '\.\./0\.png'"):
        read_boxes(coco(tmp_path / "b", coco_value([], images=[{"id": 0, "file_name": "../0.png"}])))

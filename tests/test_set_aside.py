"""One bad line, cell or label costs its image and is said; many refuse the data; a tar that may be cut off is said too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gossamer.data import csvfile
from gossamer.data.boxes.open import open_boxes
from gossamer.data.csvfile import read_csv
from gossamer.data.heads.open import read_heads
from gossamer.data.heads.spec import HeadSpec
from gossamer.data.masks.open import open_masks
from gossamer.data.open import open_data
from gossamer.data.source import Data
from gossamer.data.tar import members
from gossamer.errors import DataError
from gossamer.images.decode import describe
from tests import toollayouts
from tests.annotations import write_file
from tests.test_shards import Files, samples, write_tar
from tests.toollayouts import COUNT, NAMES, each, image, images, mask, name_of, yolo_line


def count(data: Data) -> int:
    return len(data.train) + len(data.val)


def has_note(data: Data, *words: str) -> bool:
    return any(all(word in note for word in words) for note in data.notes)


# lines of a table

BAD_LINES = {
    "too few cells": ("a.jpg", "line 5 has 1 cell"),
    "too many cells": ("a.jpg,car,train,x", "line 5 has 4 cells"),
    "no label": ("a.jpg,,train", "line 5 has no label"),
    "no path": (",car,train", "line 5 has no path"),
    "a split that is none": ("a.jpg,car,dev2", "split 'dev2'"),
    "a label that cannot be shown": ("a.jpg,c\x1bar,train", "line 5 has the label"),
    "a path with a NUL": ("a\0.jpg,car,train", "line 5 has no path"),
    "a quotation mark that is not closed": ('"a.jpg,car,train', "line 5: "),
    "a quotation mark too many": ('"a.jpg"x,car,train', "line 5: "),
}


def table(root: Path, *extra: str) -> Path:
    """COUNT images in lines 2 to 9, with `extra` lines behind line 4."""
    for number in range(COUNT):
        image(root / f"images/a{number}.jpg", number)
    lines = [f"images/a{n}.jpg,{name_of(n)},{'val' if n > 5 else 'train'}" for n in range(COUNT)]
    return write_file(root / "d.csv", "\n".join(["path,label,split", *lines[:3], *extra, *lines[3:]]) + "\n")


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_of_a_table_is_skipped_and_said(tmp_path: Path, name: str) -> None:
    line, words = BAD_LINES[name]
    data = open_data(table(tmp_path, line))
    assert data.classes == NAMES and count(data) == COUNT
    assert has_note(data, "1 of 9 lines cannot be used and are skipped", words)


def test_a_quotation_mark_that_takes_lines_with_it_is_counted_by_lines(tmp_path: Path) -> None:
    path = table(tmp_path)
    lines = path.read_text().splitlines()
    lines[3], lines[4] = lines[3].replace(",car", ',"car'), lines[4] + '"'
    write_file(path, "\n".join(lines) + "\n")
    data = open_data(path)
    assert count(data) == COUNT - 2 and has_note(data, "2 of 8 lines")


@pytest.mark.parametrize("line", ["images/a1.jpg,car,train", "./images/a1.jpg,dog,val"])
def test_an_image_with_two_labels_or_splits_is_skipped(tmp_path: Path, line: str) -> None:
    data = open_data(table(tmp_path, line, line))
    assert count(data) == COUNT - 1 and "images/a1.jpg" not in data.train.names
    assert has_note(data, "3 of 10 lines", "images/a1.jpg is")


def test_many_bad_lines_refuse_the_table(tmp_path: Path) -> None:
    assert count(open_data(table(tmp_path, *["x,"] * 4))) == COUNT
    with pytest.raises(DataError, match="line 5 has 2 cells, the header 3"):
        open_data(table(tmp_path, *["x,"] * 5))


def test_quotation_marks_that_are_not_closed_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvfile, "_MOST_BROKEN", 3)
    lines = "".join(f'"{i},car\n' for i in range(7))
    with pytest.raises(DataError, match="line "):
        read_csv(write_file(tmp_path / "d.csv", "path,label\n" + lines))
    with pytest.raises(DataError, match=r"line 1: "):
        read_csv(write_file(tmp_path / "d.csv", '"path,label\na.jpg,car\n'))


# cells of a table of several heads

CELLS = {
    "a class that is none of the head's": (HeadSpec("kind", "classify", ("kind",), classes=NAMES), "cow", "no class"),
    "a class that cannot be shown": (HeadSpec("kind", "classify", ("kind",)), "c\x1bow", "kind"),
    "a number": (HeadSpec("size", "regress", ("size",)), "1,5 m", "'1,5 m'"),
    "an infinite number": (HeadSpec("size", "regress", ("size",)), "inf", "'inf'"),
    "a label of several": (HeadSpec("tags", "multilabel", ("tags",), classes=NAMES), "car|cow", "'cow' is no class"),
    "a path in a tree": (
        HeadSpec("tree", "classify", ("tree",), classes=("x/car", "x/dog"), hierarchy=True),
        "x/cow",
        "no class",
    ),
}
GOOD = {"kind": "{}", "size": "1.5", "tags": "{}", "tree": "x/{}"}


def heads_table(root: Path, column: str, cells: dict[int, str], *extra: str) -> Path:
    lines = []
    for number in range(COUNT):
        image(root / f"a{number}.jpg", number)
        lines.append(f'a{number}.jpg,"{cells.get(number, GOOD[column].format(name_of(number)))}"')
    return write_file(root / "labels.csv", "\n".join([f"path,{column}", *lines, *extra]) + "\n")


@pytest.mark.parametrize("name", CELLS)
def test_a_bad_cell_is_no_label_and_said(tmp_path: Path, name: str) -> None:
    spec, cell, words = CELLS[name]
    read = read_heads(heads_table(tmp_path, spec.columns[0], {3: cell}), [spec])
    column = read.targets.columns[spec.name]
    assert (column.at >= 0).tolist() == [n != 3 for n in range(COUNT)]
    assert any(f"1 of 8 cells of {spec.columns[0]} cannot be used" in note and words in note for note in read.notes)
    with pytest.raises(DataError, match="line 2"):
        read_heads(heads_table(tmp_path, spec.columns[0], dict.fromkeys(range(3), cell)), [spec])


@pytest.mark.parametrize("line", ["a9.jpg", ",car", '"a9.jpg,car', "a1.jpg,car"])
def test_a_bad_line_of_a_table_of_heads_is_skipped(tmp_path: Path, line: str) -> None:
    spec = HeadSpec("kind", "classify", ("kind",))
    read = read_heads(heads_table(tmp_path, "kind", {}, line), [spec])
    assert len(read.names) == COUNT - (line == "a1.jpg,car")
    assert any("lines cannot be used and are skipped: line" in note for note in read.notes)


# labels of shards

BAD_LABELS: dict[str, tuple[Files, str]] = {
    "a name among numbers in .cls": ([("x.cls", b"one")], "label 'one', and numbers elsewhere"),
    "a number of 5000 digits": ([("x.cls", b"9" * 5000)], "x.cls holds"),
    "below zero": ([("x.cls", b"-1")], "label -1"),
    "far too large": ([("x.cls", b"99999999")], "label 99999999"),
    "JSON that is cut off": ([("x.json", b'{"label":')], "x.json holds"),
    "JSON of another kind": ([("x.json", b'{"label": [1]}')], "x.json holds"),
    "an empty text": ([("x.txt", b"")], "x.txt holds"),
    "a name among numbers": ([("x.txt", b"cat")], "label 'cat'"),
    "bytes that are no text": ([("x.txt", b"\xff\xfe")], "x.txt holds"),
    "a name that cannot be shown": ([("x.txt", b"c\x1bat")], "x.txt holds"),
    "a large file": ([("x.cls", b"0" * (1 << 21))], "x.cls has 2097152 bytes"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_a_bad_label_of_a_shard_costs_its_image(tmp_path: Path, name: str) -> None:
    files, words = BAD_LABELS[name]
    path = write_tar(tmp_path / "a.tar", [*samples(9), ("x.jpg", b"image x"), *files, *samples(2, 9)])
    data = open_data(path)
    assert data.classes == ("0", "1", "2") and count(data) == 11
    assert all(data.train.read(i) != b"image x" for i in range(len(data.train)))
    by_row = {data.train.read(i): int(data.train.labels[i]) for i in range(len(data.train))}
    assert all(label == int(content.split()[1]) % 3 for content, label in by_row.items())
    assert has_note(data, "1 of 12 labels cannot be used and are skipped", words)


def test_a_number_among_names_and_one_beyond_classes_txt(tmp_path: Path) -> None:
    files: Files = [(f"{n}.jpg", b"1") for n in range(8)] + [(f"{n}.txt", name_of(n).encode()) for n in range(7)]
    data = open_data(write_tar(tmp_path / "a/a.tar", [*files, ("7.cls", b"5")]))
    assert (
        data.classes == NAMES and count(data) == 7 and has_note(data, "1 of 8 labels", "label 5, and 'car' elsewhere")
    )
    write_tar(tmp_path / "b/b.tar", [*samples(6), ("x.jpg", b"1"), ("x.cls", b"3")])
    write_file(tmp_path / "b/classes.txt", "ant\nbee\ncat\n")
    data = open_data(tmp_path / "b")
    assert data.classes == ("ant", "bee", "cat") and count(data) == 6 and has_note(data, "1 of 7 labels", "label 3")


def test_a_bad_label_beside_a_good_one_of_more_weight(tmp_path: Path) -> None:
    data = open_data(write_tar(tmp_path / "a.tar", [("00000.json", b"{"), *samples(6)]))
    assert count(data) == 6 and not has_note(data, "cannot be used")


def test_many_bad_labels_refuse_the_shards(tmp_path: Path) -> None:
    bad: Files = [file for n in range(4) for file in ((f"x{n}.jpg", b"1"), (f"x{n}.cls", b"one"))]
    with pytest.raises(DataError, match=r"x0\.jpg: label 'one', and numbers elsewhere"):
        open_data(write_tar(tmp_path / "a.tar", [*samples(6), *bad]))


# a tar without its end


@pytest.mark.parametrize("end", [8 * 1024, 8 * 1024 - 512 + 7])
def test_a_tar_that_ends_behind_a_file_says_how_many_it_read(tmp_path: Path, end: int) -> None:
    """Cut off between two files, and within the zeros that fill up the last one: nothing that was read is incomplete."""
    path = write_tar(tmp_path / "a.tar", samples(6))
    path.write_bytes(path.read_bytes()[:end])
    data = open_data(path)
    assert count(data) == 4 and has_note(data, "a.tar: ends without the closing zeros", "behind its 8 files")


def test_a_complete_tar_has_no_such_note(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", samples(6))
    for content in (path.read_bytes(), path.read_bytes().rstrip(b"\0") + bytes(1024)):
        path.write_bytes(content + bytes(-len(content) % 512))
        assert not open_data(path).notes


def test_what_follows_the_end_of_a_tar_is_said(tmp_path: Path) -> None:
    one, two = (write_tar(tmp_path / name, samples(6, 10 * i)) for i, name in enumerate(("a.tar", "b.tar")))
    content = one.read_bytes()
    one.write_bytes(content + two.read_bytes())
    assert has_note(open_data(one), "its closing zeros are at byte", "more from byte 20480 on", "12 files were")
    one.write_bytes(content + bytes(1 << 21))  # a download that had its place reserved
    assert has_note(open_data(one), "mostly or all zeros", "12 files were")
    notes: list[str] = []
    assert len(list(members(one, notes))) == len(list(members(one))) == 12 and len(notes) == 1


# files of tools


def fiftyone(root: Path, change: dict[str, object]) -> None:
    images(root, "data/a{}.jpg")
    labels = {f"a{n}": n % 2 for n in range(COUNT)} | change
    write_file(root / "labels.json", json.dumps({"classes": NAMES, "labels": labels}))


def studio(root: Path, change: dict[str, object]) -> None:
    images(root)
    tasks = [
        {
            "data": {"image": f"images/a{n}.jpg"},
            "annotations": [{"result": [{"type": "choices", "value": {"choices": [name_of(n)]}}]}],
        }
        for n in range(COUNT)
    ]
    tasks[3] |= change
    write_file(root / "export.json", json.dumps(tasks))


def roboflow(root: Path, change: dict[str, object]) -> None:
    images(root, "train/a{}.jpg")
    lines = [f"a{n}.jpg, {int(n % 2 == 0)}, {n % 2}" for n in range(COUNT)]
    lines[3] = str(change["line"])
    write_file(root / "train/_classes.csv", "\n".join(["filename, car, dog", *lines]) + "\n")


@pytest.mark.parametrize(
    ("build", "change", "words"),
    [
        (fiftyone, {"a3": 7}, "'a3': class 7"),
        (fiftyone, {"a3": []}, "'a3': its label is no class"),
        (fiftyone, {"a3": "c\x1bar"}, "class name"),
        (studio, {"data": {"text": "no image"}}, "1 task names no image"),
        (studio, {"annotations": [{"result": [{"value": {"choices": [5]}}]}]}, "class name 5"),
        (studio, {"annotations": [{"result": [{"value": {"choices": 5}}]}]}, "class name 5"),
        (studio, {"annotations": [{"result": [{"value": "dog"}]}]}, "1 task has no choice"),
        (roboflow, {"line": "a3.jpg, 0, 2"}, "a cell is not 0 or 1"),
        (roboflow, {"line": "a3.jpg, 0"}, "line 5 has 2 cells"),
        (roboflow, {"line": '"a3.jpg, 0, 1'}, "line 5: "),
    ],
)
def test_a_bad_label_of_a_tool_costs_its_image(
    tmp_path: Path, build: Callable[[Path, dict[str, object]], None], change: dict[str, object], words: str
) -> None:
    build(tmp_path, change)
    data = open_data(tmp_path)
    assert data.classes == NAMES and count(data) == COUNT - 1 and has_note(data, words)
    assert [line.names for line in data.left_out] == [(line.names[0],) for line in data.left_out]


@pytest.mark.parametrize("turn", ["inf", "-1e999", "nan", "none"])
@pytest.mark.parametrize("tool", ["cvat", "label studio"])
def test_a_turn_that_is_no_angle_costs_its_box(tmp_path: Path, tool: str, turn: str) -> None:
    images(tmp_path)
    if tool == "cvat":
        toollayouts.cvat(tmp_path)
        path, old, new = tmp_path / "annotations.xml", 'occluded="0"', f'rotation="{turn}"'
    else:
        toollayouts.label_studio(tmp_path)
        path, old, new = tmp_path / "project-3.json", '"rotation": 0', f'"rotation": "{turn}"'
    path.write_text(path.read_text().replace(old, new, 1))
    assert has_note(open_boxes(tmp_path), f"1 of {COUNT} boxes have corners that are no numbers")


def test_two_tasks_of_one_image_cost_that_image(tmp_path: Path) -> None:
    images(tmp_path)
    region = {"type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 9, "height": 9, "rectanglelabels": ["car"]}}
    tasks = [{"data": {"image": f"a{n}.jpg"}, "annotations": [{"result": [region]}]} for n in (*range(COUNT), 3)]
    write_file(tmp_path / "export.json", json.dumps(tasks))
    data = open_boxes(tmp_path)
    assert count(data) == COUNT - 1 and has_note(data, "1 image has two tasks or more", "a3.jpg")


@pytest.mark.parametrize("odd", [None, "x", True, [[1]]])
def test_an_entry_that_is_no_object_costs_its_image(tmp_path: Path, odd: object) -> None:
    images(tmp_path)
    toollayouts.label_studio(tmp_path)
    file = tmp_path / "project-3.json"
    tasks = json.loads(file.read_text())
    file.write_text(json.dumps([*tasks[:3], odd, *tasks[4:]]))
    data = open_boxes(tmp_path)
    assert count(data) == COUNT - 1 and has_note(data, "1 task is no object and is left out")
    file.write_text(json.dumps([odd] * COUNT))
    with pytest.raises(DataError):
        open_boxes(tmp_path)


@pytest.mark.parametrize("odd", [True, None, {}])
def test_an_id_of_coco_that_is_none_costs_one_image(tmp_path: Path, odd: object) -> None:
    images(tmp_path)
    value = toollayouts.coco_value("a{}.jpg".format)
    value["images"][3]["id"] = odd  # true is no other image's 1
    write_file(tmp_path / "annotations.json", json.dumps(value))
    data = open_boxes(tmp_path)
    assert count(data) == COUNT - 1 and has_note(data, "is no number or text")


# class names of masks

CLASS_FILES = {
    "codes.txt": "background\ncar\n",
    "labels.txt": "__ignore__\nbackground\ncar\n",
    "labels/codes.txt": "background\r\ncar",
}
FORMS = ("0 background\n1 car\n", "0: background\n1: car\n", "1,car\n0,background\n", "1 car\n")


@pytest.mark.parametrize("name", CLASS_FILES)
@pytest.mark.parametrize("top", ["", "camvid/"])
def test_class_names_of_masks_by_codes_and_labels(tmp_path: Path, name: str, top: str) -> None:
    for number in range(COUNT):
        image(tmp_path / f"{top}images/a{number}.png", number)
        mask(tmp_path / f"{top}labels/a{number}_P.png".replace("_P", "_L"), number)
    write_file(tmp_path / f"{top}{name}", CLASS_FILES[name])
    data = open_masks(tmp_path)
    assert data.classes == ("background", "car") and count(data) == COUNT


def test_other_forms_of_such_lists(tmp_path: Path) -> None:
    for number in range(COUNT):
        image(tmp_path / f"images/a{number}.png", number)
        mask(tmp_path / f"masks/a{number}.png", number)
    for content in FORMS:
        write_file(tmp_path / "labels.txt", content)
        assert open_masks(tmp_path).classes == ("background", "car")
    for content, words in (
        ("a\na\n", "twice"),
        ("0 a\n0 b\n", "value 0 twice"),
        ("0 a\n2 b\n", "no class of the value 1"),
    ):
        write_file(tmp_path / "labels.txt", content)
        with pytest.raises(DataError, match=words):
            open_masks(tmp_path)
    write_file(tmp_path / "labels.txt", "images/a0.png 1\nimages/a1.png 0\n")  # a list of images, and no classes
    assert open_masks(tmp_path).classes == ("0", "1")
    for number in range(COUNT):
        mask(tmp_path / f"masks/a{number}.png", number, values=((0, 0, 0), (128, 0, 0)))
    for content in ("background 0 0 0\ncar 128 0 0\n", "0 0 0 background\n128 0 0 car\n"):
        write_file(tmp_path / "labels.txt", content)
        assert open_masks(tmp_path).classes == ("background", "car")


# folders below CVAT's, and other nested labels


@pytest.mark.parametrize(
    ("folder", "config"),
    [
        ("obj_train_data/x", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n"),
        ("obj_train_data/x/y", ""),
        ("train/x", ""),
        ("x", ""),
        ("data/x", ""),
        ("images/x", ""),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_labels_beside_images_in_nested_folders(tmp_path: Path, folder: str, config: str, listed: bool) -> None:
    for number, path in enumerate(images(tmp_path, f"{folder}/a{{}}.jpg")):
        assert describe(path).width and number < COUNT
    each(tmp_path, f"{folder}/a{{}}.txt", yolo_line)
    write_file(tmp_path / "obj.names", "car\ndog\n")
    if config:
        write_file(tmp_path / "obj.data", config)
    if listed:
        write_file(tmp_path / "train.txt", "".join(f"data/{folder}/a{i}.jpg\n" for i in range(COUNT)))
    data = open_boxes(tmp_path)
    assert data.classes == NAMES and count(data) == COUNT and not data.left_out
    assert all(len(data.train.target(i).labels) for i in range(len(data.train)))


def test_folders_of_images_without_labels_are_no_yolo(tmp_path: Path) -> None:
    images(tmp_path, "obj_train_data/x/a{}.jpg")
    write_file(tmp_path / "obj.names", "car\ndog\n")
    write_file(tmp_path / "obj_train_data/x/a0.txt", "a note on the image\n")
    with pytest.raises(DataError, match="holds no boxes"):
        open_boxes(tmp_path)

"""Labels of several heads: what heads.yaml and the table may say, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gossamer import Settings
from gossamer.data.heads.columns import Grid, read_column
from gossamer.data.heads.open import merge_classes, read_heads, split_classes
from gossamer.data.heads.spec import HeadSpec, dump_heads, parse_heads, parse_only
from gossamer.data.heads.tasks import heads_of
from gossamer.data.open import apply_split, open_data, open_source
from gossamer.data.split import split_rows
from gossamer.errors import DataError, GossamerError, ImageError, SettingsError
from gossamer.tasks.registry import task_of
from tests.shop import EVERY, write_shop


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str], Path]:
    """A CSV file of this text beside two images, a.png and b.png of 4 x 3 pixels."""

    def write(content: str) -> Path:
        for name in ("a", "b"):
            Image.new("RGB", (4, 3)).save(tmp_path / f"{name}.png")
        (tmp_path / "labels.csv").write_text(content)
        return tmp_path / "labels.csv"

    return write


# the table


@pytest.mark.parametrize("header", ["path,x,", ",path,x", "path,x, "])
@pytest.mark.parametrize("task", ["regress", "multilabel"])
def test_a_column_without_a_name_is_nothing_to_learn(table: Callable[[str], Path], task: str, header: str) -> None:
    """As spreadsheets leave at the ends of lines, and pandas writes its index; beside a column that is named it is no matter."""
    row = dict(zip(header.split(","), ["a.png", "1", ""] if header[0] == "p" else ["0", "a.png", "1"]))
    root = table(f"{header}\n{','.join(row.values())}\n")
    with pytest.raises(DataError, match="a column has no name"):
        heads_of(task, Settings(), root)
    if task == "multilabel":
        (spec,) = heads_of(task, Settings(), table(f"{header}\n{','.join(row.values())}\n".replace("x", "label")))
        assert spec.columns == ("label",)


@pytest.mark.parametrize("kind, hierarchy", [("classify", False), ("classify", True), ("multilabel", False)])
def test_as_many_classes_as_rows(kind: str, hierarchy: bool) -> None:
    """Each cell is looked up among the classes, not compared with all of them."""
    count = 300 if kind == "multilabel" else 30_000  # which are a number for each row and class
    names = tuple(f"a{number % 170}/{number}" for number in range(count))
    rows = list(range(count))
    grid = Grid(Path("labels.csv"), Path(), rows, list(map(str, rows)), [""] * count, {"c": list(names)})
    column = read_column(HeadSpec("c", kind, ("c",), hierarchy=hierarchy), grid, names)
    assert column.classes == names and column.at.tolist() == rows and not grid.notes
    grid.cells["c"][7] = "a3/none"
    column = read_column(HeadSpec("c", kind, ("c",), hierarchy=hierarchy), grid, names)
    assert column.at[7] == -1 and "'a3/none' is no class" in grid.notes[0]


def test_the_path_of_a_mask_that_no_file_can_have_is_a_mask_that_is_missing(table: Callable[[str], Path]) -> None:
    root = table("path,x\na.png,m\0.png\nb.png,none.png\n")
    targets = read_heads(root, [HeadSpec("x", "segment", ("x",), classes=("car", "dog"))]).targets
    for row in range(2):
        assert targets.line(row).endswith("\0-1")
        with pytest.raises((OSError, ImageError)):
            targets.read(row)


# heads.yaml


def test_heads_are_read_in_their_order_with_their_defaults() -> None:
    specs = parse_heads(EVERY)
    assert [(spec.name, spec.kind) for spec in specs][:3] == [
        ("colour", "classify"),
        ("tags", "multilabel"),
        ("size", "regress"),
    ]
    assert specs[0] == HeadSpec("colour", "classify", ("colour",))
    assert specs[2] == HeadSpec("size", "regress", ("across", "down"), loss="mse")
    assert specs[4].classes == ("ground", "block")
    assert parse_heads(dump_heads(specs)) == specs


def test_a_path_is_as_good_as_its_text(tmp_path: Path) -> None:
    (tmp_path / "h.yaml").write_text(EVERY)
    assert parse_heads(str(tmp_path / "h.yaml")) == parse_heads(EVERY)


def test_the_head_of_a_task_of_one_has_no_name() -> None:
    assert parse_only("", "regress") is None
    spec = parse_only("columns: [a, b]", "regress")
    assert spec == HeadSpec("", "regress", ("a", "b"))
    assert parse_only(dump_heads([spec]), "regress") == spec
    with pytest.raises(SettingsError, match="task regress"):
        parse_only("kind: multilabel", "regress")


BAD_HEADS = {
    "nothing": ("", "no heads"),
    "no such file": ("nowhere.yaml", "nowhere.yaml"),
    "a list": ("- a\n- b", "heads"),
    "no YAML": ("a: [\n", "no YAML"),
    "a name twice": ("a: classify\na: detect\n", "a is given twice"),
    "brackets without end": ("a: " + "[" * 100_000, "no YAML"),
    "names without end": ("a: " + "{b: " * 100_000, "no YAML"),
    "a flag that is none": ("a: !!bool maybe\n", "no YAML"),
    "a number that is empty": ("a: {kind: classify, weight: !!int ''}\n", "no YAML"),
    "a time that is none": ("a: !!timestamp x\n", "no YAML"),
    "a list said to be names": ("a: !!map [b]\n", "no YAML"),
    "a list for a name": ("? [a]\n: classify\n", "no YAML"),
    "aliases": ("a: &x classify\nb: *x\n", "aliases"),
    "a name with a blank": ("a b: classify\n", "'a b'"),
    "a number for a name": ("1: classify\n", "head 1"),
    "an unknown kind": ("a: clasify\n", "kind 'clasify'"),
    "no kind": ("a: {column: b}\n", "kind None"),
    "a kind that is a list": ("a: {kind: [classify]}\n", "kind"),
    "a list for a head": ("a: [classify]\n", "head a"),
    "a field of another kind": ("a: {kind: classify, dim: 3}\n", "classify has no 'dim'"),
    "column and columns": ("a: {kind: regress, column: b, columns: [c]}\n", "column and columns"),
    "several columns for one class": ("a: {kind: classify, columns: [b, c]}\n", "2 columns for classify"),
    "a column twice": ("a: {kind: regress, columns: [b, b]}\n", "columns"),
    "the column path": ("a: {kind: classify, column: path}\n", "columns path"),
    "a weight below 0": ("a: {kind: classify, weight: -1}\n", "weight -1"),
    "a weight that is nan": ("a: {kind: classify, weight: .nan}\n", "weight nan"),
    "a dim of text": ("a: {kind: embed, dim: big}\n", "dim 'big'"),
    "a threshold above 1": ("a: {kind: multilabel, threshold: 2}\n", "threshold 2"),
    "classes twice": ("a: {kind: segment, classes: [x, x]}\n", "classes"),
    "hierarchy of text": ("a: {kind: classify, hierarchy: deep}\n", "hierarchy 'deep'"),
    "a loss that is no name": ("a: {kind: classify, loss: 3}\n", "loss 3"),
    "too few means": ("a: {kind: regress, columns: [b, c], mean: [1], std: [1]}\n", "1 mean, 1 standard deviation"),
    "a deviation of 0": ("a: {kind: regress, mean: [1], std: [0]}\n", "std"),
    "too many heads": ("".join(f"h{i}: classify\n" for i in range(17)), "17 heads"),
}


@pytest.mark.parametrize("case", BAD_HEADS)
def test_heads_that_make_no_sense(case: str) -> None:
    content, match = BAD_HEADS[case]
    with pytest.raises(GossamerError, match=match) as error:
        parse_heads(content)
    assert "\n" not in str(error.value)


PLAIN = st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=6)
NESTED = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner))
FIELDS = ("kind", "column", "columns", "weight", "loss", "dim", "classes", "mean", "std", "head", "threshold")
KINDS = st.sampled_from(["classify", "multilabel", "regress", "detect", "segment", "embed"])


@given(st.dictionaries(st.sampled_from(["a", "b", "c d"]), st.dictionaries(st.sampled_from(FIELDS), NESTED | KINDS)))
def test_any_heads_are_read_or_refused_in_one_line(value: dict[str, Any]) -> None:
    try:
        specs = parse_heads(json.dumps(value))
    except GossamerError as error:
        assert "\n" not in str(error)
        return
    assert parse_heads(dump_heads(specs)) == specs


# the table


def test_cells_become_labels(table: Callable[[str], Path]) -> None:
    path = table("path,colour,tags,n,m\nb.png,red,|,2.5,\na.png,blue,x| y,,-1\n")
    specs = parse_heads("colour: classify\ntags: multilabel\nsize: {kind: regress, columns: [n, m]}\n")
    source = open_source(path, (), read=partial(read_heads, specs=specs))
    assert source.names == ["a.png", "b.png"]
    first, second = source.target(0), source.target(1)
    assert (first["colour"], second["colour"]) == (0, 1)
    assert (first["tags"].tolist(), second["tags"].tolist()) == ([1, 1], [0, 0])
    np.testing.assert_array_equal(first["size"], [np.nan, -1])
    np.testing.assert_array_equal(second["size"], [2.5, np.nan])
    assert source.classes == ("colour/blue", "colour/red", "tags/x", "tags/y", "size/n", "size/m")


def test_labels_may_be_columns_of_0_and_1(table: Callable[[str], Path]) -> None:
    path = table("path,round,shiny\na.png,1,0\nb.png,,1\n")
    source = task_of("multilabel").open_data(Settings(data=str(path), task="multilabel", val_share=0.5))
    targets = {name: one.target(0) for one in (source.train, source.val) for name in one.names}
    np.testing.assert_array_equal(targets["a.png"], [1, 0])
    np.testing.assert_array_equal(targets["b.png"], [np.nan, 1])
    assert source.classes == ("round", "shiny")


def test_boxes_of_yolo_and_what_cannot_be_read(table: Callable[[str], Path]) -> None:
    path = table("path,parts\na.png,a.txt\nb.png,b.txt\n")
    (path.parent / "a.txt").write_text("1 0.5 0.5 0.5 1\n")
    specs = parse_heads("parts: {kind: detect, classes: [x, y]}\n")
    source = open_source(path, (), read=partial(read_heads, specs=specs))
    assert source.target(0)["parts"].corners.tolist() == [[1, 0, 3, 3]]
    assert source.target(0)["parts"].labels.tolist() == [1]
    assert source.target(1)["parts"] is None  # b.txt is not there


def test_a_class_may_be_known_down_to_a_level_only(table: Callable[[str], Path]) -> None:
    path = table("path,kind\na.png,animal\nb.png,animal/dog\nc.png,plant\n")
    source = open_source(
        path, (), read=partial(read_heads, specs=parse_heads("kind: {kind: classify, hierarchy: true}"))
    )
    assert source.classes == ("kind/animal/dog", "kind/plant")
    assert [source.target(i)["kind"] for i in range(3)] == [("animal",), ("animal", "dog"), ("plant",)]


BAD_TABLES = {
    "no header": ("", "no column 'path'"),
    "no column of a head": ("path,colour\na.png,red\n", "no column 'n'"),
    "a column twice": ("path,colour,n,n\na.png,red,1,2\n", "more than one column 'n'"),
    "no line": ("path,colour,n\n", "no images"),
    "a cell too many": ("path,colour,n\na.png,red,1,2\n", "line 2 has 4 cells"),
    "no path": ("path,colour,n\n,red,1\n", "line 2: no path"),
    "an unknown split": ("path,split,colour,n\na.png,dev,red,1\n", "split 'dev'"),
    "an image with two labels": ("path,colour,n\na.png,red,1\n./a.png,red,2\n", "a.png is in line 2"),
    "a number with a comma": ('path,colour,n\na.png,red,"1,5"\nb.png,blue,1\n', "line 2: n '1,5'"),
    "infinity": ("path,colour,n\na.png,red,inf\nb.png,blue,1\n", "line 2: n 'inf'"),
    "one class": ("path,colour,n\na.png,red,1\nb.png,red,1\n", "one class, red"),
    "no label at all": ("path,colour,n\na.png,red,\nb.png,blue,\n", "n: no image has a label"),
    "no files": ("path,colour,n\nc.png,red,1\nd.png,blue,1\n", "none of the 2 files exists"),
    "a control character": ("path,colour,n\na.png,r\x07d,1\nb.png,blue,1\n", "line 2: colour"),
    "no UTF-8": ("path,colour,n\na.png,\udcff,1\n", "not UTF-8"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_tables_that_make_no_sense(case: str, table: Callable[[str], Path]) -> None:
    content, match = BAD_TABLES[case]
    path = table("")
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=match) as error:
        open_data(path, read=partial(read_heads, specs=parse_heads("colour: classify\nn: regress\n")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("heads", "cell", "match"),
    [
        ("x: {kind: detect, classes: [a]}", "a.gif", "a PASCAL VOC .xml or a YOLO .txt"),
        ("x: detect", "a.txt", "YOLO numbers its classes"),
        ("x: {kind: detect, classes: [a]}", "nothing.xml", "is not a file"),
        ("x: {kind: multilabel, columns: [x, y]}", "2", "0, 1 or nothing"),
        ("x: {kind: classify, classes: [a, b]}", "c", "'c' is no class"),
        ("x: {kind: classify, hierarchy: true}", "a//b", "names with / between"),
    ],
)
def test_cells_that_make_no_sense(heads: str, cell: str, match: str, table: Callable[[str], Path]) -> None:
    path = table(f"path,x,y\na.png,{cell},\nb.png,{cell},1\n")
    with pytest.raises(DataError, match=match):
        open_source(path, (), read=partial(read_heads, specs=parse_heads(heads)))


def test_classes_are_joined_and_split() -> None:
    specs = parse_heads("a: classify\nb: classify\n")
    classes = {"a": ("x", "y/z"), "b": ("x",)}
    assert merge_classes(classes) == ("a/x", "a/y/z", "b/x")
    assert split_classes(merge_classes(classes), specs) == classes


def test_a_saved_split_and_a_fingerprint_that_sees_a_label_change(tmp_path: Path) -> None:
    own = write_shop(tmp_path / "shop")
    read = partial(read_heads, specs=parse_heads(EVERY))
    data = open_data(own, seed=3, read=read)
    again = apply_split(own, split_rows(data), classes=data.classes, read=read)
    assert (again.fingerprint, again.train.names) == (data.fingerprint, data.train.names)
    assert {data.val.target(i)["colour"] for i in range(len(data.val))} == {0, 1, 2, None}  # each class and none
    for file, change in (("labels.csv", ("green", "blue")), ("boxes/00.xml", ("block", "brick"))):
        content = (own / file).read_text()
        (own / file).write_text(content.replace(change[0], change[1], 1))
        assert open_data(own, seed=3, read=read).fingerprint != data.fingerprint
        (own / file).write_text(content)

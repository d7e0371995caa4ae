"""Folders, CSV files, splits and orders: what is recognised, and the message where it is not."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.data.csvfile import read_csv
from gossamer.data.open import apply_split, open_data, open_source, split_rows
from gossamer.data.split import stratified
from gossamer.data.streams import stream
from gossamer.data.table import Table
from gossamer.errors import DataError, ImageError


def touch(root: Path, *names: str) -> Path:
    """Files whose content is their own name; nothing here decodes them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def flat(root: Path, cat: int = 5, dog: int = 10) -> Path:
    return touch(root, *(f"cat/{i}.jpg" for i in range(cat)), *(f"dog/{i}.png" for i in range(dog)))


# folders


def test_train_and_val_folders_stay_as_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "train/b/2.jpg", "train/b/1.jpg", "train/a/x.png", "valid/a/1.jpg", "valid/b/1.jpg", "test/b/9.jpg")
    data = open_data(tmp_path)
    assert data.classes == ("a", "b")
    assert data.train.names == ["train/a/x.png", "train/b/1.jpg", "train/b/2.jpg"]
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.val.names == ["valid/a/1.jpg", "valid/b/1.jpg"]
    assert data.test is not None and data.test.labels.tolist() == [1]
    assert data.train.read(1) == b"train/b/1.jpg"
    assert not data.notes and "2 classes, 3 training and 2 validation images, 1 for testing" in data.how


def test_one_folder_is_split_by_class_and_seed(tmp_path: Path) -> None:
    flat(tmp_path)
    data, again, other = open_data(tmp_path), open_data(tmp_path), open_data(tmp_path, seed=1)
    assert np.bincount(data.val.labels).tolist() == [1, 2]
    assert np.bincount(data.train.labels).tolist() == [4, 8]
    assert not set(data.train.names) & set(data.val.names)
    assert data.val.names == again.val.names != other.val.names
    assert data.fingerprint == again.fingerprint != other.fingerprint


def test_a_class_without_training_images_is_none_unless_it_may_be_unseen() -> None:
    labels = np.array([0, 1, 2])
    values: Any = ("image folder", ("a", "b", "c"), ["1", "2", "3"], labels, ["train", "", "val"], None)
    other: Any = SimpleNamespace(classes=("c", "d"))
    assert Table(*values).training_classes("x") == Table(*values).training_classes("x", other) == ("a", "b")
    assert Table(*values, unseen=True).training_classes("x") == ("a", "b", "c")
    assert Table(*values, unseen=True).training_classes("x", other) == ("a", "b", "c", "d")
    assert Table(*values, fixed=True).training_classes("x", other) == ("a", "b", "c")


def test_train_alone_is_split_and_test_stays(tmp_path: Path) -> None:
    flat(tmp_path / "train")
    touch(tmp_path, "test/cat/a.jpg")
    data = open_data(tmp_path)
    assert len(data.train) + len(data.val) == 15 and data.test is not None and data.test.names == ["test/cat/a.jpg"]


def test_hidden_files_are_skipped_and_nested_ones_read(tmp_path: Path) -> None:
    flat(tmp_path)
    touch(tmp_path, "cat/.hidden.jpg", ".git/x/1.jpg", "cat/deep/er/z.JPEG", "cat/.thumbs/t.jpg", "cat/readme.txt")
    data = open_data(tmp_path)
    names = data.train.names + data.val.names
    assert "cat/deep/er/z.JPEG" in names and len(names) == 16
    assert any("1 file that is no image" in note for note in data.notes)


def test_a_loop_of_links_ends_and_is_noted(tmp_path: Path) -> None:
    flat(tmp_path)
    (tmp_path / "cat" / "loop").symlink_to(tmp_path / "cat")
    (tmp_path / "cat" / "self").symlink_to("self")
    (tmp_path / "cat" / "gone.jpg").symlink_to("nowhere")
    data = open_data(tmp_path)
    names = data.train.names + data.val.names
    assert len(names) == 16 and "cat/gone.jpg" in names
    assert any("link" in note for note in data.notes)


def test_an_empty_class_folder_is_no_class_and_is_noted(tmp_path: Path) -> None:
    flat(tmp_path)
    (tmp_path / "empty").mkdir()
    data = open_data(tmp_path)
    assert data.classes == ("cat", "dog") and any("empty" in note for note in data.notes)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "train/2.jpg", "car/1.jpg", "car/2.jpg")
    assert open_data(tmp_path).classes == ("car", "train")


def test_a_validation_class_without_training_images_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/zebra/1.jpg")
    with pytest.raises(DataError, match="zebra has no training image"):
        open_data(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="file names are text elsewhere")
def test_a_name_that_is_not_utf8_is_shown_escaped_and_still_read(tmp_path: Path) -> None:
    flat(tmp_path)
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/cat/\xff.jpg")).write_text("odd")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    source = open_source(tmp_path, ("cat", "dog"))
    at = next(i for i, name in enumerate(source.names) if "\\" in name)
    source.names[at].encode()
    assert source.read(at) == b"odd"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "holds no images"),
        (("1.jpg", "2.jpg"), "holds 2 images but no class folders"),
        (("cat/1.jpg", "cat/2.jpg"), "one class only, cat"),
        (("cat/1.jpg", "dog/2.jpg"), "one image per class"),
        (("train/a/1.jpg", "training/a/1.jpg"), "both train/ and training/"),
        (("val/a/1.jpg", "val/b/1.jpg"), "no training images"),
    ],
)
def test_folders_that_cannot_be_used_get_one_line(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        open_data(touch(tmp_path, *files))
    assert "\n" not in str(caught.value)


def test_a_missing_path_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match="another kind of file"):
        open_data(touch(tmp_path, "notes.txt") / "notes.txt")
    with pytest.raises(DataError):
        open_data("a\0b")


def test_validation_data_may_lie_elsewhere(tmp_path: Path) -> None:
    flat(tmp_path / "a")
    touch(tmp_path / "b", "dog/0.png", "dog/1.png")
    data = open_data(tmp_path / "a", val=tmp_path / "b")
    assert len(data.train) == 15 and data.val.labels.tolist() == [1, 1]
    assert not set(data.train.names) & set(data.val.names)
    again = apply_split(tmp_path / "a", split_rows(data), val=tmp_path / "b")
    assert again.val.names == data.val.names and again.val.read(0) == b"dog/0.png"


def test_a_source_to_evaluate_takes_test_then_val_then_all(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/b/2.jpg")
    assert open_source(tmp_path, ("a", "b")).names == ["val/b/2.jpg"]
    touch(tmp_path, "test/a/3.jpg")
    assert open_source(tmp_path, ("b", "a")).labels.tolist() == [1]
    assert len(open_source(tmp_path / "train", ("a", "b"))) == 2
    with pytest.raises(DataError, match="class a has no training image"):
        open_source(tmp_path / "train", ("b", "c"))


def test_reading_a_file_that_is_gone_is_an_image_error(tmp_path: Path) -> None:
    data = open_data(flat(tmp_path))
    for name in data.train.names:
        (tmp_path / name).unlink()
    with pytest.raises(ImageError, match="No such file"):
        data.train.read(0)


# splits


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.floats(0.01, 0.9), st.integers(0, 9))
def test_a_split_keeps_every_class_on_both_sides(labels: list[int], fraction: float, seed: int) -> None:
    array = np.array(labels)
    kept, held = stratified(array, fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for label in set(labels):
        count, out = labels.count(label), int((array[held] == label).sum())
        assert out == 0 if count == 1 else 1 <= out <= count - 1
        assert abs(out - fraction * count) <= 1


def test_a_saved_split_comes_back_though_files_were_added_and_removed(tmp_path: Path) -> None:
    data = open_data(flat(tmp_path))
    rows = split_rows(data)
    touch(tmp_path, "cat/new.jpg", "aardvark/1.jpg")
    gone = data.train.names[0]
    (tmp_path / gone).unlink()
    again = apply_split(tmp_path, rows, classes=data.classes)
    assert again.val.names == data.val.names and again.train.names == data.train.names[1:]
    assert again.classes == data.classes and again.train.labels.tolist() == data.train.labels.tolist()[1:]
    assert any("1 image is gone" in note and gone in note for note in again.notes)
    assert any("2 images were added" in note for note in again.notes)


def test_the_saved_class_holds_where_an_image_was_relabelled(tmp_path: Path) -> None:
    def table(label: str) -> Path:
        touch(tmp_path, *(f"{i}.jpg" for i in range(6)))
        lines = [f"{i}.jpg,{label if i == 0 else 'ab'[i % 2]}" for i in range(6)]
        (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
        return tmp_path / "list.csv"

    data = open_data(table("a"))
    again = apply_split(table("b"), split_rows(data))
    assert split_rows(again) == split_rows(data)
    assert any("1 image has another class now" in note for note in again.notes)


def test_a_split_whose_images_are_all_gone_stops(tmp_path: Path) -> None:
    rows = split_rows(open_data(flat(tmp_path / "a")))
    with pytest.raises(DataError, match="none of the 12 train images"):
        apply_split(touch(tmp_path / "b", "x/1.jpg", "y/1.jpg"), rows)
    with pytest.raises(DataError, match="saved split"):
        apply_split(tmp_path / "a", [("cat/0.jpg", 7, "train")])


# orders


def test_a_shuffle_has_each_image_once_and_follows_seed_and_epoch(tmp_path: Path) -> None:
    source = open_data(flat(tmp_path, 40, 40)).train
    order = source.order(0, 0)
    assert sorted(order.tolist()) == list(range(len(source))) and order.dtype == np.int64
    assert order.tolist() == source.order(0, 0, "shuffle").tolist()
    assert order.tolist() != source.order(1, 0).tolist() and order.tolist() != source.order(0, 1).tolist()
    assert source.order(3, 3, "none").tolist() == list(range(len(source)))


def test_a_balanced_order_has_each_class_equally_often(tmp_path: Path) -> None:
    source = open_source(flat(tmp_path, 3, 20), ("absent", "cat", "dog"))
    order = source.order(0, 0, "balanced")
    counts = np.bincount(source.labels[order], minlength=3)
    assert len(order) == 23 and counts[0] == 0 and sorted(counts[1:]) == [11, 12]
    repeats = np.bincount(order, minlength=23)[:3]
    assert repeats.max() - repeats.min() <= 1
    assert np.bincount(order, minlength=23)[3:].max() == 1


def test_streams_of_different_kinds_differ_and_sample_streams_are_numpys_own() -> None:
    draws = {(e, p, k): stream(5, e, p, k).random() for e in range(3) for p in range(3) for k in range(4)}
    assert len(set(draws.values())) == len(draws)
    assert stream(5, 2, 7).random() == np.random.default_rng((5, 2, 7)).random()


def test_a_selection_and_a_pickled_source_read_the_same(tmp_path: Path) -> None:
    source = open_data(flat(tmp_path)).train
    part = source.select(np.array([4, 1]))
    assert part.names == [source.names[4], source.names[1]] and part.read(0) == source.read(4)
    assert pickle.loads(pickle.dumps(part)).read(1) == source.read(1)


# CSV


def write_csv(root: Path, text: str | bytes, files: int = 6) -> Path:
    touch(root, *(f"img/{i}.jpg" for i in range(files)))
    path = root / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_csv_file_lists_images_relative_to_its_folder(tmp_path: Path) -> None:
    text = 'path,label\nimg/1.jpg,"cat, wild"\nimg/0.jpg,dog\nimg/2.jpg,dog\nimg/3.jpg,"cat, wild"\n'
    data = open_data(write_csv(tmp_path, text))
    assert data.classes == ("cat, wild", "dog") and len(data.train) == 2 and len(data.val) == 2
    assert data.train.read(0).startswith(b"img/")


def test_byte_order_mark_crlf_spaces_and_semicolons_are_understood(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfLabel ; PATH\r\n10; img/0.jpg\r\n9;img/1.jpg\r\n\r\n10;./img/2.jpg\r\n"
    table = read_csv(write_csv(tmp_path, text))
    assert table.classes == ("9", "10")
    assert table.names == ["img/0.jpg", "img/1.jpg", "img/2.jpg"] and table.labels.tolist() == [1, 0, 1]


def test_a_split_column_is_followed(tmp_path: Path) -> None:
    text = "path,label,split\nimg/0.jpg,a,train\nimg/1.jpg,b,\nimg/2.jpg,a,Validation\nimg/3.jpg,b,test\n"
    data = open_data(write_csv(tmp_path, text))
    assert data.train.names == ["img/0.jpg", "img/1.jpg"] and data.val.names == ["img/2.jpg"]
    assert data.test is not None and data.test.names == ["img/3.jpg"]
    assert any("1 line without a split" in note for note in data.notes)


def test_missing_files_and_repeated_lines_are_noted(tmp_path: Path) -> None:
    text = "path,label\nimg/0.jpg,a\nimg/0.jpg,a\nimg/1.jpg,b\nimg/nope.jpg,b\n/no/such.jpg,a\n"
    data = open_data(write_csv(tmp_path, text))
    assert len(data.train) + len(data.val) == 4
    assert any("2 of 4 files are missing" in note for note in data.notes)
    assert any("1 repeated line" in note for note in data.notes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column 'path'"),
        ("path;name\nimg/0.jpg;a\n", "no column 'label'"),
        ("path,label,path\na,b,c\n", "more than one column 'path'"),
        ("path,label\n", "lists no images"),
        ("path,label\nimg/0.jpg\n", "line 2 has 1 cell"),
        ("path,label\nimg/0.jpg,\n", "line 2 has no label"),
        ("path,label\n,cat\n", "line 2 has no path"),
        ("path,label\nimg/0.jpg,a\nimg/0.jpg,b\n", "line 3: img/0.jpg is 'b', and 'a' above"),
        ("path,label,split\nimg/0.jpg,a,train\nimg/0.jpg,a,val\n", "in val, and 'a' in train above"),
        ("path,label,split\nimg/0.jpg,a,dev2\n", "split 'dev2'"),
        ("path,label\nx/0.jpg,a\nx/1.jpg,b\n", "none of the 2 files exists"),
        ('path,label\n"img/0.jpg,a\n', "unexpected end of data"),
        (b"path,label\nimg/0.jpg,\xff\xfe\n", "is not UTF-8"),
        ("path,label\nimg/0.jpg,a\nimg/1.jpg,a\n", "one class only"),
    ],
)
def test_csv_files_that_cannot_be_used_get_one_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        open_data(write_csv(tmp_path, text))
    assert "\n" not in str(caught.value)


@given(st.one_of(st.binary(max_size=200), st.text(alphabet='path,lbes\n\r";\t 01\0é', max_size=120).map(str.encode)))
def test_whatever_a_csv_file_holds_only_a_data_error_is_raised(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    for header in (b"", b"path,label\n", b"path,label,split\n"):
        path.write_bytes(header + content)
        try:
            read_csv(path)
        except DataError as error:
            assert "\n" not in str(error)

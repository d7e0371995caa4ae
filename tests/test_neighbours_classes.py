"""Class folders, tables and shards next to those that other tests have: of another tool, system or fault."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from gossamer.data.csvfile import read_csv
from gossamer.data.heads.open import read_heads
from gossamer.data.heads.spec import HeadSpec
from gossamer.data.open import open_data
from gossamer.data.table import Table
from gossamer.errors import DataError
from tests.annotations import write_file
from tests.toollayouts import (
    image,
)

Files = list[tuple[str, bytes]]


def classes_of(root: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(4):
            image(root / name / f"p{i}.jpg", i + len(name))


ROWS = [(f"{name}/p{i}.jpg", name) for name in ("cat", "dog") for i in range(4)]


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("sep=;\npath;label", "{};{}"),
        ("path|label", "{}|{}"),
        ("image_id,breed", "{},{}"),
        ("path,label", "/mnt/set/{},{}"),
        ("path,label", "C:/data/{},{}"),
        ("path,label", "file://{},{}"),
        ("path,label", "https://host/set/{},{}"),
        ("path,label", "~/set/{},{}"),
        ("id,path,label", "7,{},{}"),
    ],
)
def test_forms_of_csv(tmp_path: Path, header: str, line: str) -> None:
    classes_of(tmp_path)
    lines = [line.format(path.replace("/", "\\") if "C:" in line else path, label) for path, label in ROWS]
    write_file(tmp_path / "d.csv", "\n".join([header, *lines]) + "\n")
    data = open_data(tmp_path / "d.csv")
    assert data.classes == ("cat", "dog") and len(data.train) + len(data.val) == 8


def test_names_without_their_ending_in_a_table(tmp_path: Path) -> None:
    classes_of(tmp_path)
    lines = [f"{path.removesuffix('.jpg')},{label}" for path, label in ROWS]
    data = open_data(write_file(tmp_path / "d.csv", "\n".join(["image_id,breed", *lines]) + "\n"))
    assert sorted(data.train.names + data.val.names) == [path for path, _ in ROWS]


SPLIT_COLUMNS = {
    "set": ("train", "val"),
    "Subset": ("TRAIN", "Validation"),
    "data set": ("training", "valid"),
    "phase": ("train", "test"),
    "is_valid": ("False", "True"),
    "is_val": ("0", "1"),
    "is_validation": ("0.0", "1.0"),
}


@pytest.mark.parametrize("name", SPLIT_COLUMNS)
def test_the_split_of_a_table_is_read_whatever_its_column_is_called(tmp_path: Path, name: str) -> None:
    """It would be drawn at random, and what the table keeps apart trained on."""
    classes_of(tmp_path)
    train, held = SPLIT_COLUMNS[name]
    lines = [f"{path},{label},{held if '3' in path else train}" for path, label in ROWS]
    path = write_file(tmp_path / "d.csv", "\n".join([f"path,label,{name}", *lines]) + "\n")
    tables: tuple[Table, ...] = (read_csv(path), read_heads(path, [HeadSpec("label", "classify", ("label",))]))
    for table in tables:
        split = "test" if held == "test" else "val"
        assert {n: s for n, s in zip(table.names, table.splits) if s != "train"} == {
            "cat/p3.jpg": split,
            "dog/p3.jpg": split,
        }
        assert any(f"the column {name.lower()} is read as split" in note.lower() for note in table.notes)


@pytest.mark.parametrize(
    ("name", "words"),
    [("set", ("train", "train")), ("colour", ("red", "val")), ("is_new", ("0", "1")), ("valid", ("yes", "perhaps"))],
)
def test_other_columns_of_a_table_are_no_split(tmp_path: Path, name: str, words: tuple[str, str]) -> None:
    classes_of(tmp_path)
    lines = [f"{path},{label},{words['3' in path]}" for path, label in ROWS]
    table = read_csv(write_file(tmp_path / "d.csv", "\n".join([f"path,label,{name}", *lines]) + "\n"))
    assert set(table.splits) == {""} and table.notes == []


def test_two_columns_that_could_be_the_split_are_refused(tmp_path: Path) -> None:
    classes_of(tmp_path)
    lines = [f"{path},{label},{'val' if '3' in path else 'train'},{int('2' in path)}" for path, label in ROWS]
    path = write_file(tmp_path / "d.csv", "\n".join(["path,label,set,is_valid", *lines]) + "\n")
    with pytest.raises(DataError, match="the columns set, is_valid both say what trains"):
        read_csv(path)


def test_classes_that_are_spelt_alike_are_said(tmp_path: Path) -> None:
    classes_of(tmp_path)
    labels = ("Cat", "cat", "caf\u00e9", "cafe\u0301")
    lines = [f"{path},{labels[i % 4]}" for i, (path, _) in enumerate(ROWS)]
    data = open_data(write_file(tmp_path / "d.csv", "\n".join(["path,label", *lines]) + "\n"))
    (note,) = data.notes
    assert len(data.classes) == 4 and "'Cat' and 'cat'" in note and "classes of their own" in note
    assert open_data(tmp_path).notes == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("cat/p0.jpg,cat\ndog/p0.jpg,dog\n", "begins without a header"),
        ("path,label\ncat/p0.jpg,c\0t\n", "printable text"),
    ],
)
def test_csv_files_that_say_less(tmp_path: Path, content: str, words: str) -> None:
    classes_of(tmp_path)
    write_file(tmp_path / "d.csv", content)
    with pytest.raises(DataError, match=words):
        open_data(tmp_path / "d.csv")


@pytest.mark.parametrize(
    "name",
    [
        "#sharesnap",
        "@appstore",
        "@database",
        "__pycache__",
        "@SynoResource",
        "_gsdata_",
        "LOST.DIR",
        "PaxHeaders.12",
        "PaxHeader",
        "$WinREAgent",
        "TheVolumeSettingsFolder",
        "@eaDir@tmp",
    ],
)
def test_folders_of_systems_are_no_classes(tmp_path: Path, name: str) -> None:
    classes_of(tmp_path)
    image(tmp_path / name / "x.jpg", 1)
    data = open_data(tmp_path)
    assert data.classes == ("cat", "dog") and any(name in note for note in data.notes)


def test_files_that_are_no_images_are_told_by_their_endings(tmp_path: Path) -> None:
    """Photos that a telephone wrote as HEIC are missed otherwise."""
    classes_of(tmp_path)
    for name in ("a.HEIC", "b.heic", "c.json", "README", f"x.{'y' * 40}", "e.a\x1b[31m"):
        write_file(tmp_path / "cat" / name, "x")
    (note,) = open_data(tmp_path).notes
    said = ".heic (2), no ending (1), .a\\x1b[31m (1), .json (1), .yyyyyyyyyy… (1)"
    assert note == f"{tmp_path}: 6 files that are no images by their name are passed over: {said}", note


@pytest.mark.parametrize("link", ["loop", "cat/loop"])
def test_a_link_to_a_folder_above_brings_no_images(tmp_path: Path, link: str) -> None:
    classes_of(tmp_path)
    (tmp_path / link).symlink_to(tmp_path)
    data = open_data(tmp_path)
    assert data.classes == ("cat", "dog") and len(data.train) + len(data.val) == 8
    assert any("link" in note for note in data.notes)


def test_accents_of_two_systems_are_one_class(tmp_path: Path) -> None:
    for split, name in (("train", "caf\u00e9"), ("val", "cafe\u0301")):
        for i in range(3):
            image(tmp_path / split / name / f"{i}.png", i)
            image(tmp_path / split / "dog" / f"{i}.png", i + 9)
    data = open_data(tmp_path)
    assert len(data.classes) == 2 and (len(data.train), len(data.val)) == (6, 6)
    assert any("accents" in note for note in data.notes)


def picture(number: int, ending: str) -> bytes:
    path = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (16, 16), (number * 20, 0, 0)).save(path, {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending))
    return path.getvalue()


def shard(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending", ["bmp", "gif", "ppm", "tif"])
def test_shards_of_every_format(tmp_path: Path, ending: str) -> None:
    files: Files = []
    for i in range(8):
        files += [(f"{i}.{ending}", picture(i, ending)), (f"{i}.cls", b"%d" % (i % 2))]
    data = open_data(shard(tmp_path / "a.tar", files))
    assert len(data.train) + len(data.val) == 8


@pytest.mark.parametrize(
    ("ending", "contents"),
    [
        ("cls", ("\ufeff0\r\n", "\ufeff1\r\n")),
        ("json", ('{"label": 0.0}', '{"label": 1.0}')),
        ("json", ('{"class": "cat"}', '{"class": "dog"}')),
    ],
)
def test_forms_of_labels_in_shards(tmp_path: Path, ending: str, contents: tuple[str, str]) -> None:
    files: Files = [("lonely.cls", b"1"), ("__MACOSX/0.png", b"x"), ("__MACOSX/0.cls", b"x")]
    for i in range(8):
        files += [(f"{i}.png", picture(i, "png")), (f"{i}.{ending}", contents[i % 2].encode())]
    if ending == "json":
        files = files[1:]
    data = open_data(shard(tmp_path / "a.tar", files))
    assert len(data.train) + len(data.val) == 8 and len(data.classes) == 2
    assert any("1 label without an image is" in note for note in data.notes) == (ending == "cls")


@pytest.mark.parametrize("name", ["ca\nt", "ca\x1b[31mt", "ca\u202et"])
def test_class_names_of_shards_are_printable(tmp_path: Path, name: str) -> None:
    files: Files = [
        ("0.png", picture(0, "png")),
        ("0.txt", name.encode()),
        ("1.png", picture(1, "png")),
        ("1.txt", b"dog"),
    ]
    with pytest.raises(DataError, match="class name"):
        open_data(shard(tmp_path / "a.tar", files))

"""Text files of data sets as Windows' tools write them: UTF-16 of PowerShell and Excel, byte order marks; what has none is UTF-8."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gossamer.data.boxes.open import open_boxes
from gossamer.data.masks.open import open_masks
from gossamer.data.open import open_data
from gossamer.errors import DataError
from gossamer.host.encoding import decode_text, peeked
from tests.toollayouts import (
    COUNT,
    coco_value,
    cvat,
    each,
    fiftyone,
    image,
    images,
    label_studio,
    labelme,
    mask,
    voc_xml,
    yolo_line,
)

NAMES = ("böse", "犬")
ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16, high byte first": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-32": lambda text: codecs.BOM_UTF32_LE + text.encode("utf-32-le"),
}
Write = Callable[[Path, str], None]


def yolo(root: Path) -> None:
    images(root)
    each(root, "labels/a{}.txt", yolo_line)


def classes_txt(root: Path, write: Write) -> None:
    yolo(root)
    write(root / "classes.txt", "\r\n".join(NAMES))


def data_yaml(root: Path, write: Write) -> None:
    yolo(root)
    write(root / "data.yaml", f"names: [{', '.join(NAMES)}]\ntrain: images\nval: images\n")


def yaml_of_another_name(root: Path, write: Write) -> None:
    yolo(root)
    write(root / "cars.yaml", f"names: [{', '.join(NAMES)}]\ntrain: images\nval: images\n")


def lists(root: Path, write: Write) -> None:
    yolo(root)
    for split, numbers in (("train", range(6)), ("val", range(6, COUNT))):
        write(root / f"{split}.txt", "".join(f"images/a{i}.jpg\r\n" for i in numbers))
    (root / "data.yaml").write_text(f"names: {json.dumps(NAMES)}\ntrain: train.txt\nval: val.txt\n")


def labels(root: Path, write: Write) -> None:
    images(root, "a{}.jpg")
    for i in range(COUNT):
        write(root / f"a{i}.txt", yolo_line(i))
    (root / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")


def coco(root: Path, write: Write) -> None:
    images(root)
    value = coco_value("a{}.jpg".format)
    for entry, name in zip(value["categories"], NAMES, strict=True):
        entry["name"] = name
    write(root / "annotations.json", json.dumps(value, ensure_ascii=False))


def renamed(text: str) -> str:
    return text.replace("car", NAMES[0]).replace("dog", NAMES[1])


def again(write: Write, path: Path) -> None:
    """What a tool wrote in UTF-8, in another encoding and with the names that it cannot hold."""
    text = renamed(path.read_text(encoding="utf-8"))
    write(path, text.replace("utf-8", "utf-16"))


def voc(root: Path, write: Write) -> None:
    images(root, "JPEGImages/a{}.jpg")
    (root / "Annotations").mkdir()
    for i in range(COUNT):
        write(root / f"Annotations/a{i}.xml", renamed(voc_xml(i)))


def label_studio_json(root: Path, write: Write) -> None:
    images(root)
    label_studio(root)
    again(write, root / "project-3.json")


def fiftyone_json(root: Path, write: Write) -> None:
    images(root, "data/a{}.jpg")
    fiftyone(root)
    again(write, root / "labels.json")


def labelme_json(root: Path, write: Write) -> None:
    images(root, "a{}.jpg")
    for i in range(COUNT):
        write(root / f"a{i}.json", renamed(labelme(i)))


BOXES = (
    classes_txt,
    data_yaml,
    yaml_of_another_name,
    lists,
    labels,
    coco,
    label_studio_json,
    fiftyone_json,
    labelme_json,
)


def writer(encoding: str) -> Write:
    return lambda path, text: (path.write_bytes(ENCODINGS[encoding](text)), None)[1]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("build", BOXES, ids=lambda build: build.__name__)
def test_files_of_boxes(tmp_path: Path, build: Callable[[Path, Write], None], encoding: str) -> None:
    build(tmp_path, writer(encoding))
    data = open_boxes(tmp_path)
    assert set(data.classes) == set(NAMES) and len(data.train) + len(data.val) == COUNT
    assert all(len(data.train.target(i)) == 1 for i in range(len(data.train)))


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name != "UTF-32"])  # which XML does not have
def test_xml_of_boxes(tmp_path: Path, encoding: str) -> None:
    voc(tmp_path / "voc", writer(encoding))
    images(tmp_path / "cvat")
    cvat(tmp_path / "cvat")
    text = renamed((tmp_path / "cvat/annotations.xml").read_text(encoding="utf-8"))
    writer(encoding)(tmp_path / "cvat/annotations.xml", text.partition("\n")[2])
    for kind in ("voc", "cvat"):
        data = open_boxes(tmp_path / kind)
        assert set(data.classes) == set(NAMES) and len(data.train) + len(data.val) == COUNT


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_tables(tmp_path: Path, separator: str, encoding: str) -> None:
    """Excel writes its "Unicode text" with tabs."""
    lines = ["path,label"]
    for number, name in enumerate(NAMES):
        for i in range(4):
            image(tmp_path / f"p{number}{i}.png", i)
            lines.append(f"p{number}{i}.png,{name}")
    writer(encoding)(tmp_path / "d.csv", "\r\n".join(lines).replace(",", separator))
    data = open_data(tmp_path / "d.csv")
    assert set(data.classes) == set(NAMES) and len(data.train) + len(data.val) == 8


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_class_names_of_masks(tmp_path: Path, encoding: str) -> None:
    for number, path in enumerate(images(tmp_path)):
        mask(tmp_path / f"masks/{path.stem}.png", number)
    writer(encoding)(tmp_path / "classes.txt", "\n".join(NAMES))
    assert open_masks(tmp_path).classes == NAMES


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "shift-jis"])
def test_an_encoding_that_nothing_says_is_not_guessed(tmp_path: Path, encoding: str) -> None:
    yolo(tmp_path)
    (tmp_path / "classes.txt").write_bytes(("böse\nhund" if encoding == "cp1252" else "犬\n猫ü"[:3]).encode(encoding))
    with pytest.raises(DataError, match=r"is not UTF-8|printable text"):
        open_boxes(tmp_path)


def test_half_a_character_is_named_by_its_encoding(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "classes.txt").write_bytes(codecs.BOM_UTF16_LE + "car\ndog\n".encode("utf-16-le")[:-1])
    with pytest.raises(DataError, match="byte 16 is not UTF-16"):
        open_boxes(tmp_path)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE, b""])
def test_a_mark_alone_is_no_text(mark: bytes) -> None:
    assert decode_text(mark) == "" and peeked(mark) == b""

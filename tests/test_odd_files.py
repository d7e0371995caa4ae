"""Odd files, names and numbers over the commands: none ends in a traceback, a hang, an escape sequence or a wrong answer.

The files are those of tests/compat, so that nothing is trained.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gossamer.cli.main import main

OLD = Path(__file__).parent / "compat" / "0.1"
RUN, ONNX, IMAGE = "runs/classify", "classify.onnx", "classes/val/class0/000.png"
MANY = "a: &a [x, x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghi", "bcdefghij"))

Words = list[str]


def written(name: str, content: str | bytes) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def picture(name: str, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    if mode == "I;16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(name)
    else:
        Image.fromarray(pixels).convert(mode).save(name)
    return name


def frames(name: str) -> str:
    """Red, then green, then blue."""
    first, *others = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    first.save(name, save_all=True, append_images=others)
    return name


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, extra: bytes = b"") -> str:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(width * 3 + 1) * min(height, 50)))
    return written("big.png", b"\x89PNG\r\n\x1a\n" + header + extra + pixels + chunk(b"IEND", b""))


def shard(*entries: tuple[str, bytes], end: int | None = None) -> str:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return written("s.tar", file.getvalue()[:end])


def pixels() -> bytes:
    return Path(IMAGE).read_bytes()


def coco(**changed: object) -> str:
    picture("c/images/0.png")
    value = {
        "images": [{"id": 0, "file_name": "0.png", "width": 40, "height": 30}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 3, "bbox": [1, 1, 5, 5]}],
        "categories": [{"id": 3, "name": "z"}],
        **changed,
    }
    written("c/annotations/instances_train.json", json.dumps(value))
    return "c"


def yolo(label: str | bytes = "0 .5 .5 .2 .2", names: str = "names: [a]\n") -> str:
    picture("y/images/a.png")
    written("y/labels/a.txt", label)
    written("y/data.yaml", names)
    return "y"


def voc(xml: str | bytes) -> str:
    picture("v/JPEGImages/a.png")
    written("v/Annotations/a.xml", xml)
    return "v"


def config(text: str) -> Words:
    return ["train", "--config", written("x.yaml", text), "--out", "new"]


def table(text: str | bytes) -> Words:
    return ["eval", ONNX, written("l.csv", text)]


def boxes(root: str) -> Words:
    return ["convert-boxes", root, "new", "--to", "voc"]


def check(root: str, task: str = "detect") -> Words:
    return ["doctor", "--task", task, "--data", root]


def to_pipe(*words: str) -> Words:
    os.mkfifo(words[-1])
    return list(words)


def linked(*words: str) -> Words:
    Path(words[-1]).symlink_to("/dev/null")
    return list(words)


def entities() -> str:
    rows = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij"))
    return f'<!DOCTYPE x [<!ENTITY a "x">{rows}]><annotation><object><name>&j;</name></object></annotation>'


# what is done -> the command, its exit code, a part of what is said
CASES: dict[str, tuple[Callable[[], Words], int, str]] = {
    # images that are rare, and right
    "one pixel": (lambda: ["predict", ONNX, picture("a.png", size=(1, 1))], 0, "a.png: class"),
    "a line of pixels": (lambda: ["predict", ONNX, picture("a.png", size=(1, 5000))], 0, "a.png: class"),
    "16 bits": (lambda: ["predict", ONNX, picture("a.png", "I;16")], 0, "a.png: class"),
    "CMYK": (lambda: ["predict", ONNX, picture("a.jpg", "CMYK")], 0, "a.jpg: class"),
    "one bit": (lambda: ["predict", ONNX, picture("a.png", "1")], 0, "a.png: class"),
    "grey and alpha": (lambda: ["predict", ONNX, picture("a.png", "LA")], 0, "a.png: class"),
    "an animated GIF": (lambda: ["predict", ONNX, frames("a.gif")], 0, "a.gif: class"),
    "an animated WebP": (lambda: ["predict", ONNX, frames("a.webp")], 0, "a.webp: class"),
    "an animated PNG": (lambda: ["predict", ONNX, frames("a.png")], 0, "a.png: class"),
    "pages of TIFF": (lambda: ["predict", ONNX, frames("a.tiff")], 0, "a.tiff: class"),
    "a colour profile of nothing": (lambda: ["predict", ONNX, png(40, 30, chunk(b"iCCP", b"k\0\0x"))], 0, "big.png: "),
    "EXIF of nothing": (
        lambda: ["predict", ONNX, png(40, 30, chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"))],
        0,
        "big.png: ",
    ),
    # images that cannot be read
    "no bytes": (lambda: ["predict", ONNX, written("a.png", "")], 2, "a.png: is empty"),
    "a cut JPEG": (
        lambda: ["predict", ONNX, written("a.jpg", Path(picture("b.jpg")).read_bytes()[:300])],
        2,
        "a.jpg: ",
    ),
    "ten billion pixels": (lambda: ["predict", ONNX, png(100_000, 100_000)], 2, "pixels"),
    "text that grows": (
        lambda: ["predict", ONNX, png(40, 30, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000))))],
        2,
        "big.png: ",
    ),
    # shards
    "a cut shard": (lambda: ["eval", ONNX, shard(("a.png", pixels()), ("a.cls", b"0"), end=600)], 2, "cut off"),
    "an empty shard": (lambda: ["eval", ONNX, written("s.tar", "")], 2, "no labelled images"),
    "a key twice": (
        lambda: ["eval", ONNX, shard(*[("a.png", pixels()), ("a.cls", b"0")] * 2)],
        0,
        "1 image has the key of another one",
    ),
    "a class of digits": (lambda: ["eval", ONNX, shard(("a.png", pixels()), ("a.cls", b"9" * 5000))], 2, "a.cls"),
    "a class below 0": (lambda: ["eval", ONNX, shard(("a.png", pixels()), ("a.cls", b"-1"))], 2, "label -1"),
    "a deep label": (lambda: ["eval", ONNX, shard(("a.png", pixels()), ("a.json", b"[" * 100_000))], 2, "a.json"),
    # settings
    "a rate that is NaN": (lambda: config("data: classes\nlr: .nan\n"), 2, "lr: nan"),
    "epochs without end": (lambda: config("data: classes\nepochs: .inf\n"), 2, "epochs: inf"),
    "epochs that are true": (lambda: config("data: classes\nepochs: true\n"), 2, "epochs: True"),
    "a seed beyond all": (lambda: config(f"data: classes\nseed: {2**70}\n"), 2, "seed: "),
    "a batch below 0": (lambda: config("data: classes\nbatch: -5\n"), 2, "batch: -5"),
    "lists without end": (lambda: config("data: " + "[" * 100_000), 2, "over 500 brackets"),
    "a flag that is none": (lambda: config("data: classes\nema: !!bool maybe\n"), 2, "not YAML"),
    "a number that is empty": (lambda: config("data: classes\nlr: !!float ''\n"), 2, "not YAML"),
    "a time that is none": (lambda: config("data: !!timestamp x\n"), 2, "not YAML"),
    "a setting twice": (lambda: config("lr: 1\ndata: classes\nlr: 0.1\n"), 2, "x.yaml: lr is given twice"),
    "aliases that grow": (lambda: config(MANY), 2, "no setting is called 'a'"),
    "a call in YAML": (lambda: config("data: !!python/object/apply:os.system ['exit 1']\n"), 2, "not YAML"),
    "heads of aliases": (
        lambda: ["train", "classes", "--task", "multi", "--heads", written("h.yaml", MANY), "--out", "new"],
        2,
        "aliases",
    ),
    # boxes
    "names of aliases": (lambda: check(yolo(names=MANY.replace("j: &j", "names: &j"))), 2, "aliases"),
    "names that are deep": (lambda: check(yolo(names="names: " + "{a: " * 500 + "}" * 500)), 2, "data.yaml"),
    "labels of bytes": (lambda: check(yolo(b"\0\0\xff\n")), 2, "a.txt: byte 2"),
    "a class beyond numbers": (lambda: check(yolo(f"{'9' * 40} .5 .5 .1 .1")), 2, "class"),
    "entities that grow": (lambda: check(voc(entities())), 2, "entity"),
    "XML in UTF-16": (lambda: check(voc("<annotation/>".encode("utf-16"))), 2, "no boxes"),
    "a size below 0": (
        lambda: boxes(coco(images=[{"id": 0, "file_name": "0.png", "width": -40, "height": 10**30}])),
        0,
        "1 image with 1 box",
    ),
    "an id of an object": (lambda: boxes(coco(images=[{"id": {}, "file_name": "0.png"}])), 2, "image id {}"),
    "a name of an object": (lambda: boxes(coco(categories=[{"id": 3, "name": {"a": 1}}])), 2, "class name {'a': 1}"),
    "a name of two lines": (lambda: boxes(coco(categories=[{"id": 3, "name": "a\nb\x1b[31m"}])), 2, "class name"),
    "run lengths beyond all": (
        lambda: check(
            coco(
                annotations=[
                    {"image_id": 0, "category_id": 3, "segmentation": {"size": [10**9] * 2, "counts": [9**20]}}
                ]
            ),
            "segment",
        ),
        2,
        "no image has a mask",
    ),
    # tables
    "a null in a table": (lambda: table("path,label\n\0\0,class0\n"), 2, "line 2"),
    "a long cell": (lambda: table(f"path,label\n{'x' * 200_000},class0\n"), 2, "field larger"),
    "a table in UTF-16": (lambda: table(f"path,label\n{IMAGE},class0\n".encode("utf-16")), 0, "1 image, "),
    "a table in Windows' Latin": (lambda: table(f"path,label\n{IMAGE},cl\xe4ss0\n".encode("cp1252")), 2, "not UTF-8"),
    "a table of 100,000 columns": (lambda: table(f"path,label{',x' * 100_000}\n"), 2, "lists no images"),
    "a table with an open quote": (lambda: table(f'path,label\n"{IMAGE},class0\n'), 2, "unexpected end"),
    "a table of an old Mac": (lambda: table(f"path,label\r{IMAGE},class0\r"), 0, "1 image, "),
    # where a result cannot go: a file would replace the pipe or device
    "compile to a pipe": (lambda: to_pipe("compile", ONNX, "--out", "p"), 2, "p: is a pipe"),
    "index to a pipe": (lambda: to_pipe("index", "embed.onnx", "classes", "--out", "p"), 2, "p: is a pipe"),
    "report to a device": (lambda: linked("report", RUN, "--out", "p"), 2, "p: is a pipe, socket or device"),
    "export to a device": (lambda: linked("export", RUN, "--out", "p.onnx"), 2, "p.onnx: "),
    # numbers
    "boxes below 0": (lambda: ["predict", ONNX, IMAGE, "--max-boxes", "-3"], 2, "not a number from 1"),
    "a threshold that is NaN": (lambda: ["predict", ONNX, IMAGE, "--threshold", "nan"], 2, "from 0 to 1"),
    "a limit that is NaN": (lambda: ["probe", "classes", "--limit", "nan"], 2, "seconds above 0"),
    "minutes below 0": (lambda: ["train", "classes", "--minutes", "-1", "--out", "new"], 2, "minutes: -1.0"),
    "an input of other digits": (lambda: ["inspect", "lenet5", "--input", "3x0x0"], 2, "8 to 4096"),
    "a drop that is NaN": (
        lambda: ["quantize", ONNX, "--out", "new", "--images", "classes", "--max-drop", "nan"],
        2,
        "nan",
    ),
    # model files
    "a header of zeros": (lambda: ["verify", written("x.goss", b"GOSSAMER" + bytes(200))], 2, "x.goss"),
    "a number without an end": (lambda: ["verify", written("x.onnx", b"\x08" + b"\xff" * 20)], 2, "64 bits"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in OLD.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", CASES)
def test_odd_files(kind: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected, said = CASES[kind]
    code = main(make())
    out, error = capsys.readouterr()
    assert code == expected, (out, error)
    assert said in error + out, (out, error)
    assert "Traceback" not in error and "\x1b" not in error + out and len(error) < 6000
    if code:
        assert not list(place.glob("new*"))
    for left in ("p", "p.onnx"):
        assert not Path(left).is_file()  # the pipe or device is there as before


def test_an_animation_is_its_first_frame(place: Path) -> None:
    from gossamer.images.decode import decode

    for name in ("a.gif", "a.png", "a.tiff"):
        assert decode(Path(frames(name)).read_bytes()).getpixel((5, 5)) == (255, 0, 0), name


def test_a_file_name_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = picture("a.png: class0 1.000\nb\t\x1b[31m.png")
    assert main(["predict", ONNX, name]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("a.png: class0 1.000\\nb\\t\\x1b[31m.png: class")
    assert main(["search", "embed.index", name, "--model", "embed.onnx", "--top", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("line", ['{"epoch": 1, "loss": Infinity, "x": 1e999}', '{"epoch": ' + "9" * 5000 + "}"])
@pytest.mark.full
def test_a_report_of_odd_metrics_is_written(line: str, place: Path) -> None:
    shutil.copytree(RUN, "run")
    written("run/metrics.jsonl", line + "\n")
    assert main(["report", "run", "--out", "new.html"]) == 0
    assert "Infinity" not in Path("new.html").read_text()

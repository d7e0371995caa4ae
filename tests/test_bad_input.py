"""What a person can give that cannot be used: each kind ends in one clear line and exit code 2, and nothing is lost.

Every row is a real command, run through the CLI as from a shell.
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

import gossamer
from gossamer.cli.main import main
from gossamer.export.formats import export
from gossamer.settings import Settings
from tests.conftest import write_image_folder
from tests.trained import SHORT


@dataclass
class Place:
    """A folder of its own for each row: good images, a finished run and a model file to spoil."""

    root: Path

    @property
    def photos(self) -> Path:
        return self.root / "photos"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def model(self) -> Path:
        return self.root / "model.onnx"

    def file(self, name: str, content: bytes | str = b"") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def train(self, data: str | Path | None = None, *more: str | Path) -> list[str]:
        return list(map(str, ["train", data or self.photos, *SHORT, "--out", self.root / "new", *more]))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a run of one epoch and its model file."""
    root = tmp_path_factory.mktemp("good")
    write_image_folder(root / "photos", classes=2, each=8)
    values = {
        "net": "mobilenet_v2",
        "width": 0.25,
        "input": "32",
        "epochs": 1.0,
        "batch": 8,
        "threads": 1,
        "workers": 0,
    }
    settings = Settings(
        data=str(root / "photos"), out=str(root / "run"), precision="float32", memory_format="channels_last", **values
    )  # type: ignore[arg-type]
    gossamer.train(settings)
    export(root / "run", root / "model.onnx")
    return root


@pytest.fixture
def place(good: Path, tmp_path: Path) -> Place:
    """A copy of `good` that a test may spoil; the run's data stay where they were."""
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    return Place(tmp_path)


def half(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def flipped(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return path


def one_class(place: Place) -> list[str]:
    shutil.rmtree(place.photos / "train" / "class1")
    return place.train()


def stranger(place: Place) -> list[str]:
    (place.photos / "val" / "class1").rename(place.photos / "val" / "classX")
    return place.train()


def all_broken(place: Place) -> list[str]:
    for path in place.photos.rglob("*.png"):
        path.write_bytes(b"no image")
    return place.train()


def some_broken(place: Place) -> list[str]:
    for path in sorted((place.photos / "train").rglob("*.png"))[::2]:
        path.write_bytes(path.read_bytes()[:40])
    return place.train()


def bomb(place: Place) -> list[str]:
    from PIL import Image

    path = place.root / "bomb.png"
    Image.new("1", (20000, 20000)).save(path)
    return ["predict", str(place.model), str(path)]


def shard_without_labels(place: Place) -> list[str]:
    (place.root / "shards").mkdir()
    with tarfile.open(place.root / "shards" / "train-0.tar", "w") as tar:
        data = next(place.photos.rglob("*.png")).read_bytes()
        info = tarfile.TarInfo("a.png")
        info.size = len(data)
        tar.addfile(info, BytesIO(data))
    return place.train(place.root / "shards")


def malicious_pickle(place: Place) -> list[str]:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.system, (f"touch {place.root}/owned",))

    place.file("evil.pth", pickle.dumps({"stem.conv.weight": Evil()}))
    return place.train(None, "--weights", place.root / "evil.pth")


def other_shapes(place: Place) -> list[str]:
    torch.save({"some.weight": torch.zeros(3)}, place.root / "other.pth")
    return place.train(None, "--weights", place.root / "other.pth")


def run_folder_is_a_file(place: Place) -> list[str]:
    place.file("new", "I am a file")
    return place.train()


def other_width(place: Place) -> list[str]:
    path = place.run / "settings.yaml"
    path.write_text(path.read_text().replace("width: 0.25", "width: 0.5"))
    return ["eval", str(place.run)]


def plain_onnx(place: Place) -> list[str]:
    import onnx

    model = onnx.load(place.model)
    del model.metadata_props[:]
    onnx.save(model, place.root / "plain.onnx")
    return ["predict", str(place.root / "plain.onnx"), str(next(place.photos.rglob("*.png")))]


Make = Callable[[Place], list[str]]
# the input -> (the command, a word that its line must have)
KINDS: dict[str, tuple[Make, str]] = {
    # the command
    "no such command": (lambda p: ["trane"], "did you mean gossamer train?"),
    "no such flag": (lambda p: p.train(None, "--epoch", "3"), "--epoch"),
    "a flag without its value": (lambda p: p.train(None, "--lr"), "--lr"),
    "a word for a number": (lambda p: p.train(None, "--lr", "fast"), "fast"),
    "no data": (lambda p: ["train"], "no data"),
    "settings beside --resume": (lambda p: ["train", "--resume", str(p.run), "--lr", "1"], "--resume alone"),
    # settings
    "a number out of range": (lambda p: p.train(None, "--epochs", "-3"), "epochs"),
    "a misspelt network": (lambda p: p.train(None, "--net", "mobilnet_v2"), "mobilenet_v2"),
    "a misspelt loss": (lambda p: p.train(None, "--loss", "crossentropy"), "cross_entropy"),
    "an impossible input size": (lambda p: p.train(None, "--input", "224x"), "224 or 240x320"),
    "an input too small for the network": (
        lambda p: p.train(None, "--net", "inception_v3", "--input", "16"),
        "pixels a side",
    ),
    "a network that has no width": (lambda p: p.train(None, "--net", "shufflenet_v2_x1_0", "--width", "0.7"), "width"),
    "a device that is not there": (lambda p: p.train(None, "--device", "cuda:7"), "cuda:7"),
    "parts that do not divide the batch": (lambda p: p.train(None, "--accumulate", "3"), "divides"),
    "smoothing that takes everything": (
        lambda p: p.train(None, "--label-smoothing", "0.9", "--smoothing-over", "others"),
        "label_smoothing",
    ),
    "a settings file that is no YAML": (lambda p: ["train", "--config", str(p.file("s.yaml", "a: ["))], "YAML"),
    "a settings file with an unknown key": (
        lambda p: ["train", "--config", str(p.file("s.yaml", "epohcs: 3"))],
        "epochs",
    ),
    "a settings file that is not there": (lambda p: ["train", "--config", str(p.root / "none.yaml")], "none.yaml"),
    # data
    "a data folder that is not there": (lambda p: p.train(p.root / "none"), "does not exist"),
    "an empty data folder": (lambda p: p.train((p.root / "empty").mkdir() or p.root / "empty"), "empty"),
    "one class only": (one_class, "one class"),
    "a validation class that training lacks": (stranger, "classX"),
    "a CSV without a label column": (lambda p: p.train(p.file("d.csv", "path,colour\na.jpg,red\n")), "label"),
    "a CSV whose files are gone": (lambda p: p.train(p.file("d.csv", "path,label\na.jpg,x\nb.jpg,y\n")), "d.csv"),
    "a CSV that is not text": (lambda p: p.train(p.file("d.csv", b"\xff\xfe\x00\x81")), "d.csv"),
    "a truncated shard": (lambda p: p.train(p.file("s/train-0.tar", b"\0" * 700)), "train-0.tar"),
    "a compressed shard": (
        lambda p: p.train(p.file("s/train-0.tar", b"\x1f\x8b\x08\0\0\0\0\0\0\3" + b"x" * 600)),
        "train-0.tar",
    ),
    "a shard without labels": (shard_without_labels, "shards"),
    "images of which none can be read": (all_broken, "can be read"),
    "more unreadable images than allowed": (some_broken, "unreadable"),
    "a cache larger than nothing": (lambda p: p.train(None, "--cache", "much"), "'much'"),
    # images
    "an image that is not there": (lambda p: ["predict", str(p.model), str(p.root / "none.jpg")], "none.jpg"),
    "an image of zero bytes": (lambda p: ["predict", str(p.model), str(p.file("a.jpg"))], "a.jpg"),
    "text called .jpg": (lambda p: ["predict", str(p.model), str(p.file("a.jpg", "hello"))], "a.jpg"),
    "a decompression bomb": (bomb, "pixels"),
    # weights
    "weights that are not there": (lambda p: p.train(None, "--weights", p.root / "none.pth"), "none.pth"),
    "a malicious pickle": (malicious_pickle, "evil.pth"),
    "weights of something else": (other_shapes, "other.pth"),
    "truncated weights": (lambda p: p.train(None, "--weights", half(p.run / "best.safetensors")), "best.safetensors"),
    "a URL without its digest": (lambda p: p.train(None, "--weights", "https://example.com/w.pth"), "sha256"),
    # runs
    "a run folder that exists": (lambda p: p.train(None, "--out", p.run), "holds a run already"),
    "a run folder that is a file": (run_folder_is_a_file, "is a file"),
    "no run to resume": (lambda p: ["train", "--resume", str(p.photos)], "settings.yaml"),
    "a run without weights": (
        lambda p: (p.run / "best.safetensors").unlink() or ["eval", str(p.run)],
        "best.safetensors",
    ),
    "a damaged state": (
        lambda p: half(p.run / "best.safetensors") and ["export", str(p.run), "--out", str(p.root / "x.onnx")],
        "damaged",
    ),
    "settings that do not fit the weights": (other_width, "does not fit"),
    "a run whose class list is gone": (
        lambda p: (p.run / "classes.json").unlink() or ["eval", str(p.run)],
        "classes.json",
    ),
    "other classes than the run's": (
        lambda p: ["eval", str(p.run), str(write_image_folder(p.root / "five", classes=5, each=2))],
        "class",
    ),
    # model files
    "a model file that is not there": (lambda p: ["verify", str(p.root / "none.onnx")], "none.onnx"),
    "a model file of zero bytes": (lambda p: ["verify", str(p.file("e.onnx"))], "e.onnx"),
    "a truncated model file": (lambda p: ["verify", str(half(p.model))], "model.onnx"),
    "a model file with a flipped byte": (lambda p: ["verify", str(flipped(p.model))], "model.onnx"),
    "an image as a model file": (lambda p: ["bench", str(next(p.photos.rglob("*.png")))], ".png"),
    "a model without classes": (plain_onnx, "plain.onnx"),
    "a runtime that nobody knows": (lambda p: ["verify", str(p.model), "--runtime", "tensorrt"], "tensorrt"),
    "a place that cannot be written": (lambda p: ["export", str(p.run), "--out", str(p.model / "x.onnx")], "x.onnx"),
    "a round without end": (lambda p: ["bench", str(p.model), "--seconds", "inf"], "seconds"),
    "seconds that are no number": (lambda p: ["bench", str(p.model), "--seconds", "nan"], "seconds"),
    "threads that are no number": (lambda p: ["bench", str(p.model), "--threads", "all"], "threads"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    kind: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    make, word = KINDS[kind]
    arguments = make(place)
    kept = {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()}
    capsys.readouterr()
    code = main(arguments)
    out, error = capsys.readouterr()
    assert code == 2, (out, error)
    last = (error.strip() or out.strip()).splitlines()[-1]
    assert word in last or word in out, last
    assert "Traceback" not in error
    assert not (place.root / "owned").exists()
    assert not list(place.root.rglob("*.part"))
    for path, content in kept.items():
        assert path.read_bytes() == content, f"{path} was changed"


def test_there_are_at_least_thirty_kinds() -> None:
    assert len(KINDS) >= 30


@pytest.mark.parametrize("kind", ["a misspelt network", "a truncated model file"])
def test_json_says_the_same_in_json(kind: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert main([*KINDS[kind][0](place), "--json"]) == 2
    out, error = capsys.readouterr()
    assert json.loads(out)["error"] in error


def test_debug_shows_the_traceback(place: Place) -> None:
    with pytest.raises(gossamer.GossamerError):
        main(["verify", str(place.root / "none.onnx"), "--debug"])


@pytest.mark.parametrize("at", [0, 15, *(pytest.param(at, marks=pytest.mark.full) for at in (3, 6, 9, 12, 18, 21))])
def test_a_disk_that_fills_up_is_one_line_and_the_last_state_stays(
    place: Place, at: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk is full from the `at`-th file on; with room again, the run resumes to the weights it would have had."""
    from tests.runs import same, weights

    settings = [*SHORT, "--epochs", "2", "--deterministic", "--save-steps", "1"]
    assert main(["train", str(place.photos), *settings, "--out", str(place.root / "uninterrupted")]) == 0
    real, count = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count > at:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    capsys.readouterr()
    code = main(["train", str(place.photos), *settings, "--out", str(place.root / "cut")])
    monkeypatch.undo()
    error = capsys.readouterr().err
    assert code == 2
    assert "the disk is full" in error.strip().splitlines()[-1]
    assert not list(place.root.rglob("*.part"))
    begun = (place.root / "cut" / "settings.yaml").exists()
    again = (
        ["--resume", str(place.root / "cut")]
        if begun
        else [str(place.photos), *settings, "--out", str(place.root / "cut")]
    )
    assert main(["train", *again]) == 0
    assert same(weights(place.root / "uninterrupted"), weights(place.root / "cut"))

"""Odd arguments and damaged files over all commands: one line, exit code 2, nothing written; a case that never ends runs into the time limit of
the tests.

The files are those of tests/compat, so that nothing is trained.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gossamer.cli.main import main
from gossamer.runtime.native import LIBRARY

OLD = Path(__file__).parent / "compat" / "0.1"
RUN, ONNX, GOSS, INDEX, EMBED = "runs/classify", "classify.onnx", "classify.goss", "embed.index", "embed.onnx"
IMAGE = "classes/val/class0/000.png"
DEEP_YAML, DEEP_JSON, DIGITS = "[" * 20_000, "[" * 100_000, "9" * 5000

Words = list[str]
Make = Callable[[], Words]


def written(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def fifo(name: str = "fifo") -> str:
    os.mkfifo(name)
    return name


def folder(name: str = "empty") -> str:
    Path(name).mkdir()
    return name


def damaged(command: Words, file: str, content: str | bytes) -> Words:
    """The command on a run with one file replaced."""
    shutil.copytree(RUN, "damaged")
    written(f"damaged/{file}", content)
    return [word.replace("RUN", "damaged") for word in command]


def config(content: str | bytes) -> Words:
    return ["train", "--config", written("x.yaml", content), "--out", "new"]


def train(*more: str) -> Words:
    return ["train", "classes", "--out", "new", *more]


# what is done -> the command, and a word of its message
CASES: dict[str, tuple[Make, str]] = {
    # one kind of thing where another is wanted
    "verify a run": (lambda: ["verify", RUN], f"gossamer export {RUN} --out"),
    "verify a network": (lambda: ["verify", "mobilenet_v2"], "the name of a network"),
    "predict with a network": (lambda: ["predict", "mobilenet_v2", IMAGE], "train it"),
    "predict with an image first": (lambda: ["predict", IMAGE, ONNX], "check the order"),
    "export a model file": (lambda: ["export", ONNX, "--out", "new"], "no export format has this suffix"),
    "export a model file as ONNX": (lambda: ["export", ONNX, "--out", "new.onnx"], "formats of model files"),
    "export a network": (lambda: ["export", "mobilenet_v2", "--out", "new.onnx"], "train it"),
    "report on a model file": (lambda: ["report", ONNX], "the run folder that it was exported from"),
    "report on a network": (lambda: ["report", "resnet18"], "train it"),
    "report with a network as the file": (lambda: ["report", RUN, "--model", "resnet18"], "a model file"),
    "eval an index": (lambda: ["eval", INDEX], "gossamer search takes an index"),
    "eval a network": (lambda: ["eval", "mobilenet_v2"], "train it"),
    "index with a run": (lambda: ["index", RUN, "classes", "--out", "new"], "gossamer export"),
    "search a model file": (lambda: ["search", EMBED, IMAGE], f"gossamer index {EMBED} FOLDER"),
    "search a folder": (lambda: ["search", "classes", IMAGE], "an index"),
    "search with a run": (lambda: ["search", INDEX, IMAGE, "--model", RUN], "gossamer export"),
    "compile a compiled file": (lambda: ["compile", GOSS, "--out", "new"], "a model file"),
    "compile a run": (lambda: ["compile", RUN, "--out", "new"], "gossamer export"),
    "swap a model file": (lambda: ["swap", ONNX, "--net", "lenet5", "--out", "new"], "a run folder"),
    "swap to an image": (lambda: ["swap", RUN, "--net", IMAGE, "--out", "new"], "the name of a network"),
    "swap to a mistyped network": (lambda: ["swap", RUN, "--net", "lenet", "--out", "new"], "did you mean lenet5?"),
    "resume a model file": (lambda: ["train", "--resume", ONNX], "a run folder"),
    "probe a model file": (lambda: ["probe", "--run", ONNX], "a run folder"),
    "bench an image": (lambda: ["bench", IMAGE], "an image"),
    "inspect a folder": (lambda: ["inspect", folder()], "a folder without settings.yaml"),
    "train on an image": (lambda: ["train", IMAGE, "--out", "new"], "a folder of images"),
    # settings files
    "config is a run": (lambda: ["train", "--config", RUN, "--out", "new"], "give the settings.yaml in it"),
    "config is a model": (lambda: ["train", "--config", ONNX, "--out", "new"], "not YAML"),
    "config of megabytes": (lambda: config("a: " + "x" * 3_000_000), "more than 1048576 bytes"),
    "config nested deep": (lambda: config(DEEP_YAML), "nested too deep"),
    "config with no such date": (lambda: config("data: 2020-13-45"), "month"),
    "config of aliases": (lambda: config("epochs: &a [1, 1]\nlr: [*a, *a]"), "epochs"),
    "config in UTF-16": (lambda: config("epochs: 3".encode("utf-16")), "not YAML"),
    "config with a number as name": (lambda: config("1: 2"), "no setting is called '1'"),
    "config of a list": (lambda: config("- 1"), "holds list"),
    "config with nothing": (lambda: config(""), "holds NoneType"),
    "config with a tab": (lambda: config("\tepochs: 3"), "not YAML"),
    "config with digits": (lambda: config(f"batch: {DIGITS}"), "not YAML"),
    "config with yes": (lambda: config("batch: yes"), "a whole number"),
    "config with a mistyped name": (lambda: config("epocs: 3"), "did you mean epochs?"),
    "config is a pipe": (lambda: ["train", "--config", fifo(), "--out", "new"], "is a pipe"),
    "config without an end": (lambda: ["train", "--config", "/dev/zero", "--out", "new"], "device"),
    # run folders
    "settings nested deep": (lambda: damaged(["eval", "RUN"], "settings.yaml", DEEP_YAML), "nested too deep"),
    "classes nested deep": (lambda: damaged(["eval", "RUN"], "classes.json", DEEP_JSON), "classes.json"),
    "classes are a number": (lambda: damaged(["eval", "RUN"], "classes.json", "5"), "a list of names"),
    "classes are an object": (lambda: damaged(["eval", "RUN"], "classes.json", '{"a": 1}'), "a list of names"),
    "classes are numbers": (lambda: damaged(["eval", "RUN"], "classes.json", "[1, 2, 3]"), "a list of names"),
    "a split that is no text": (lambda: damaged(["eval", "RUN"], "split.csv", b"\xff\xfe\0"), "split.csv"),
    "a split of two columns": (lambda: damaged(["eval", "RUN"], "split.csv", "name,label\na,b"), "split.csv"),
    "a split of large numbers": (
        lambda: damaged(["eval", "RUN"], "split.csv", f"name,label,split\na,{'9' * 20},val"),
        "split",
    ),
    "changes nested deep": (lambda: damaged(["eval", "RUN"], "changes.json", DEEP_JSON), "changes.json"),
    "changes are a number": (lambda: damaged(["eval", "RUN"], "changes.json", "5"), "changes.json"),
    "environment is a text": (lambda: damaged(["report", "RUN"], "environment.json", '"x"'), "a list of objects"),
    "environment of numbers": (lambda: damaged(["report", "RUN"], "environment.json", "[5]"), "a list of objects"),
    "data is a list": (lambda: damaged(["report", "RUN"], "data.json", "[]"), "data.json"),
    "latencies nested deep": (lambda: damaged(["report", "RUN"], "bench.json", DEEP_JSON), "bench.json"),
    # paths
    "an empty image": (lambda: ["predict", ONNX, ""], "an empty argument"),
    "an empty model": (lambda: ["verify", ""], "an empty argument"),
    "an empty data set": (lambda: ["eval", RUN, ""], "an empty argument"),
    "an image with a null": (lambda: ["predict", ONNX, "a\0b.jpg"], "null"),
    "a model with a null": (lambda: ["predict", "a\0b", IMAGE], "no path"),
    "data with a null": (lambda: ["train", "a\0b", "--out", "new"], "null"),
    "a run folder with a null": (lambda: ["train", "classes", "--out", "a\0b"], "null"),
    "an image of a long name": (lambda: ["predict", ONNX, "x" * 5000], "File name too long"),
    "a model of a long name": (lambda: ["predict", "x" * 5000, IMAGE], "characters)"),
    "data of a long name": (lambda: ["train", "x" * 5000, "--out", "new"], "characters)"),
    "an image of no encoding": (lambda: ["predict", ONNX, "a\udcff.jpg"], "No such file"),
    "an image of escapes": (lambda: ["predict", ONNX, "a\x1b[31m\n.jpg"], "No such file"),
    "an image that is a pipe": (lambda: ["predict", ONNX, fifo("fifo.png")], "pipe"),
    "an image without an end": (lambda: ["predict", ONNX, "/dev/zero"], "device"),
    "a model that is a pipe": (lambda: ["predict", fifo(), IMAGE], "pipe"),
    "a model without an end": (lambda: ["verify", "/dev/zero"], "device"),
    "a model to compile that is a pipe": (lambda: ["compile", fifo(), "--out", "new"], "pipe"),
    "an index that is a pipe": (lambda: ["search", fifo(), IMAGE], "pipe"),
    "an index without an end": (lambda: ["search", "/dev/zero", IMAGE], "device"),
    "data that are a pipe": (lambda: ["train", fifo(), "--out", "new"], "another kind of file"),
    "heads that are a pipe": (lambda: train("--task", "multi", "--heads", fifo()), "not a file"),
    "a folder without images": (lambda: ["predict", ONNX, folder()], "holds no images"),
    # what is written
    "export to a folder": (lambda: ["export", RUN, "--out", folder("a.onnx")], "is a folder"),
    "export to nowhere": (lambda: ["export", RUN, "--out", ""], "suffix"),
    "export to a mistyped format": (lambda: ["export", RUN, "--out", "x", "--to", "onx"], "did you mean onnx?"),
    "compile over the model": (lambda: ["compile", ONNX, "--out", ONNX], "would replace"),
    "compile to a folder": (lambda: ["compile", ONNX, "--out", folder()], "is a folder"),
    "index over the model": (lambda: ["index", EMBED, "classes", "--out", EMBED], "would replace"),
    "index to a folder": (lambda: ["index", EMBED, "classes", "--out", folder()], "is a folder"),
    "report to a folder": (lambda: ["report", RUN, "--out", folder()], "is a folder"),
    "inspect into the model": (lambda: ["inspect", ONNX, "--html", ONNX], "would replace"),
    "compare to another suffix": (lambda: ["compare", "lenet5", "resnet18", "--plot", "x.txt"], ".svg"),
    "draw into an image": (lambda: ["predict", ONNX, IMAGE, "--draw", IMAGE], "could not be written"),
    "boxes into themselves": (lambda: ["convert-boxes", "boxes", "boxes/new", "--to", "yolo"], "inside"),
    # values
    "threads below nothing": (lambda: ["predict", RUN, IMAGE, "--threads", "-1"], "0 (the runtime decides)"),
    "threads beyond all": (lambda: ["predict", ONNX, IMAGE, "--threads", "99999"], "4096"),
    "threads of digits": (lambda: ["bench", ONNX, "--threads", DIGITS], "1 to 4096"),
    "a batch in science": (lambda: ["predict", ONNX, IMAGE, "--batch", "1e3"], "not a number from 1"),
    "a runtime of nothing": (lambda: ["predict", ONNX, IMAGE, "--runtime", ""], "choose one"),
    "runtimes of commas": (lambda: ["bench", ONNX, "--runtimes", ",,"], "choose one"),
    "an input of digits": (lambda: ["inspect", "lenet5", "--input", DIGITS], "8 to 4096"),
    "an input without channels": (lambda: ["inspect", "lenet5", "--input", "0x32x32"], "as 3x224x224"),
    "a count beyond all": (lambda: ["list", "--max-params", "1e400"], "as 3M"),
    "a pattern that is open": (lambda: ["list", "["], "no network is called"),
    "an ignored value beyond bytes": (lambda: ["eval", "segment.onnx", "masks", "--ignore-index", "999"], "0 to 255"),
    "one fold": (lambda: ["probe", "classes", "--folds", "1"], "2 to 20"),
    "heads without their task": (lambda: train("--heads", "a: classify"), "--task multi"),
    "epochs that are nan": (lambda: train("--epochs", "nan"), "a finite number"),
    "options of digits": (lambda: train("--net-options", f"repeats={DIGITS},{DIGITS}"), "repeats"),
    "a pattern of parameters that is open": (lambda: train("--freeze", "("), "regular expression"),
    "a cache of digits": (lambda: train("--cache", DIGITS), "as 500M"),
    "one half of an anchor": (lambda: train("--anchor-sizes", "1"), "pairs"),
    "a device that nobody has": (lambda: train("--device", "gpu"), "auto, cpu"),
    "boxes for masks": (lambda: ["train", "masks", "--task", "detect", "--out", "new"], "holds no boxes"),
    "images of classes for boxes": (lambda: ["eval", "detect.goss", "classes"], "holds no boxes"),
    "a search with one of two folders": (lambda: ["search", INDEX, IMAGE, "--draw", "new"], "--gallery"),
    "an index of another model": (lambda: ["search", INDEX, IMAGE, "--model", ONNX], "another model file"),
    "an index that is cut off": (lambda: ["search", written("x", Path(INDEX).read_bytes()[:99]), IMAGE], "cut off"),
    "a compiled file that is cut off": (lambda: ["verify", written("x", Path(GOSS).read_bytes()[:999])], "shorter"),
    "a model that is cut off": (lambda: ["verify", written("x.onnx", Path(ONNX).read_bytes()[:999])], "protobuf"),
}


@pytest.mark.parametrize("kind", CASES)
def test_odd_input_is_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in OLD.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    make, message = CASES[kind]
    words = make()
    if any(word.endswith(".goss") for word in words) and not LIBRARY.is_file():
        pytest.skip("the native engine is not built")
    before = files()
    code = main(words)
    out, error = capsys.readouterr()
    assert code == 2, (out, error)
    assert message in error + out, (out, error)
    assert not error or error.splitlines()[-1].startswith(("gossamer: ", "native: ", "torch: ")), error
    assert "Traceback" not in error and "\x1b" not in error + out and len(error) < 6000
    assert files() == before and not Path("new").exists()


def files() -> dict[str, int]:
    """Every file below the current folder with its size."""
    return {str(path): path.stat().st_size for path in Path.cwd().rglob("*") if path.is_file()}


def test_there_are_at_least_a_hundred() -> None:
    assert len(CASES) >= 100

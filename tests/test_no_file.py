"""A pipe, a device, a folder, a socket or a circle of links where a command wants a file: one line, exit code 2, at once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from gossamer.cli.main import main

OLD = Path(__file__).parent / "compat" / "0.1"
IMAGE = "classes/val/class0/000.png"
SECONDS = 60  # of a machine at work


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # relative: the length of a socket's path is limited


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def terminal(path: Path) -> None:
    path.symlink_to("/dev/ptmx")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": fifo,
    "socket": unix_socket,
    "device": device,
    "terminal": terminal,
    "folder": Path.mkdir,
    "loop": loop,
}
QUICK = ("pipe", "loop")
# command -> the words, X being what is no file, and its suffix
COMMANDS: dict[str, tuple[str, str]] = {
    "verify": ("verify X", ".onnx"),
    "verify compiled": ("verify X", ".goss"),
    "verify native": ("verify X --runtime native", ".goss"),
    "predict": (f"predict X {IMAGE}", ".onnx"),
    "predict compiled": (f"predict X {IMAGE}", ".goss"),
    "predict an image": ("predict classify.onnx X", ".png"),
    "eval": ("eval X classes", ".onnx"),
    "eval data": ("eval classify.onnx X", ".tar"),
    "eval a table": ("eval classify.onnx X", ".csv"),
    "export": ("export X --out new.onnx", ".onnx"),
    "compile": ("compile X --out new.goss", ".onnx"),
    "compile metadata": ("compile classify.onnx --out new.goss --metadata X", ".onnx"),
    "compile images": ("compile classify.onnx --out new.goss --images X", ".png"),
    "quantize": ("quantize X --out new.onnx", ".onnx"),
    "quantize images": ("quantize classify.onnx --out new.onnx --images X", ".png"),
    "bench": ("bench X", ".goss"),
    "bench a plain file": ("bench X", ""),
    "inspect": ("inspect X", ".onnx"),
    "review": ("review X", ".onnx"),
    "compare": ("compare lenet5 X", ".onnx"),
    "compare runs": ("compare lenet5 --runs X", ""),
    "report": ("report X", ""),
    "report a model": ("report runs/classify --model X", ".onnx"),
    "swap": ("swap X --net lenet5 --out new", ""),
    "index": ("index X classes --out new.index", ".onnx"),
    "search": (f"search X {IMAGE}", ".index"),
    "search a model": (f"search embed.index {IMAGE} --model X", ".onnx"),
    "search an image": ("search embed.index X", ".png"),
    "train": ("train X --out new", ".csv"),
    "train a shard": ("train X --out new", ".tar"),
    "train weights": ("train classes --out new --net lenet5 --weights X", ".safetensors"),
    "train pickled weights": ("train classes --out new --net lenet5 --weights X", ".pth"),
    "train config": ("train --config X --out new", ".yaml"),
    "train heads": ("train classes --out new --task multi --heads X", ".yaml"),
    "train validation": ("train classes --out new --val X", ".csv"),
    "train boxes": ("train X --task detect --out new", ".json"),
    "train resume": ("train --resume X", ""),
    "probe": ("probe X", ".csv"),
    "probe a run": ("probe --run X", ""),
    "doctor": ("doctor --data X", ".csv"),
    "convert-boxes": ("convert-boxes X new --to yolo", ""),
}


class LateError(BaseException):
    """No Exception: nothing that is at work may take it for an error of a file."""


@contextmanager
def at_once() -> Iterator[None]:
    """Fails what is still at work after SECONDS, also where it waits in a call of the system."""

    def late(number: int, frame: FrameType | None) -> None:
        raise LateError(f"no answer within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in OLD.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.full) for kind in KINDS]
)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_file_is_one_line_at_once(
    command: str, kind: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, suffix = COMMANDS[command]
    name = f"odd{suffix}"
    KINDS[kind](place / name)
    with at_once():
        code = main([name if word == "X" else word for word in text.split()])
    out, error = capsys.readouterr()
    lines = error.strip().splitlines()
    assert code == 2, (out, error)
    assert name in error + out and len([line for line in lines if "rror" in line or name in line]) <= 2, (out, error)
    assert not list(place.glob("new*"))


@pytest.mark.full
def test_a_run_folder_whose_files_are_pipes_does_not_block(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in sorted(path.name for path in (OLD / "runs" / "classify").iterdir() if path.is_file()):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("runs/classify", "run")
        Path("run", name).unlink()
        os.mkfifo(Path("run", name))
        for words in (
            ["eval", "run", "classes"],
            ["report", "run", "--out", "report.html"],
            ["train", "--resume", "run"],
        ):
            with at_once():
                code = main(words)
            out, error = capsys.readouterr()
            assert code in (0, 1, 2), (name, words, out, error)
            assert "Traceback" not in error


def test_the_cases_are_files() -> None:
    assert np.prod([len(KINDS), len(COMMANDS)]) > 200

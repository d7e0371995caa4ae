"""The line that says that PyTorch is being loaded: before the import, once, and only where it is imported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from gossamer.cli.loading import LOADING, loading_said, say_loading
from gossamer.host.progress import Progress


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_the_first_import_of_torch_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    finders, said = list(sys.meta_path), Lines()
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with loading_said(said):
        assert importlib.util.find_spec("json.tool") is not None and said.lines == []
        assert importlib.util.find_spec("torch") is not None and said.lines == [LOADING]
        importlib.util.find_spec("torch")
    assert said.lines == [LOADING] and sys.meta_path == finders
    with loading_said(said):
        say_loading(said)  # a command that has more to do before its first line
        importlib.util.find_spec("torch")
    assert said.lines == [LOADING] * 2 and sys.meta_path == finders
    with pytest.raises(KeyError), loading_said(said):
        raise KeyError
    assert sys.meta_path == finders
    importlib.util.find_spec("torch")
    assert said.lines == [LOADING] * 2


def test_torch_that_is_loaded_or_not_installed_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Lines()
    monkeypatch.setitem(sys.modules, "torch", pytest)  # any module
    with loading_said(said):
        __import__("torch")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "path", [])
    with loading_said(said), pytest.raises(ModuleNotFoundError):
        __import__("torch")
    assert said.lines == []


@pytest.mark.full
@pytest.mark.parametrize(("words", "loads"), [(["inspect", "lenet5"], True), (["list", "lenet5"], False)])
def test_commands_begin_with_the_line(words: list[str], loads: bool) -> None:
    done = subprocess.run([sys.executable, "-m", "gossamer", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr.splitlines() == ([LOADING] if loads else []), done.stderr
    assert LOADING not in done.stdout


WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        assert name != "torch", sys.argv

sys.meta_path.insert(0, Refuse())
from gossamer.cli.main import main
for words in %r:
    sys.argv[:] = words
    print(main(words))
"""


def test_targets_that_are_not_there_are_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    commands = [
        ["eval", "nope"],
        ["inspect", "nope.onnx"],
        ["inspect", "mobilnet_v2"],
        ["review", "mobilnet_v2"],
        ["compare", "resnet18", "mobilnet_v2"],
        ["compare", "resnet18", "--runs", "runs/nope"],
        ["probe", "photos", "--net", "mobilnet_v2"],
        ["probe", "--run", "nope"],
        ["train", "nope"],
        ["train", "nope", "--task", "segment"],
        ["train", ".", "--net", "mobilnet_v2"],
        ["swap", "nope", "--net", "resnet18", "--out", "x"],
    ]
    script = WITHOUT_TORCH % (commands,)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["2"] * len(commands), done.stderr
    assert len(done.stderr.splitlines()) == len(commands) and LOADING not in done.stderr, done.stderr

"""`export --to c` and `fit` on input that cannot be used: one line each, exit 2, nothing written; and names as they come."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.cli.main import main
from gossamer.csource import compiler
from gossamer.csource.limits import parse_bytes
from gossamer.csource.text import comment
from gossamer.errors import SettingsError
from gossamer.export.c import limits_of
from gossamer.modelfile.metadata import read_model_file

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.csources import built
from tests.onnxcases import node, save
from tests.test_litert import one
from tests.test_native_rounding import CHANNELS, Graph

OLD = Path(__file__).parent / "compat" / "0.1"
CLASSIFY = str(OLD / "classify.onnx")
Case = Callable[[Path], tuple[list[str], str]]


def network(folder: Path, nodes: list[Any], constants: dict[str, Any] | None = None) -> str:
    return str(save(folder / "m.onnx", nodes, constants))


def with_something(folder: Path) -> str:
    (folder / "full").mkdir()
    (folder / "full" / "kept").write_text("x")
    return str(folder / "full")


def file_at(folder: Path) -> str:
    (folder / "there").write_text("kept")
    return str(folder / "there")


def truncated(folder: Path) -> str:
    (folder / "cut.onnx").write_bytes((OLD / "classify.onnx").read_bytes()[:5000])
    return str(folder / "cut.onnx")


def half_quantised(folder: Path) -> str:
    """A QDQ file with a softmax between its layers."""
    g = Graph()
    out = g.add("Softmax", g.add("Relu", g.conv("x", CHANNELS, 12)), axis=1)
    (folder / "half.onnx").write_bytes(g.quantised(out, 12))
    return str(folder / "half.onnx")


CASES: dict[str, Case] = {
    "units": lambda at: ([CLASSIFY, "--ram", "256X"], "--ram '256X'"),
    "a negative size": lambda at: ([CLASSIFY, "--flash=-1K"], "--flash '-1K'"),
    "a size of nothing": lambda at: ([CLASSIFY, "--ram", "0"], "not a whole number of bytes"),
    "a size that is no number": lambda at: ([CLASSIFY, "--ram", "nan"], "--ram 'nan'"),
    "a size of other digits": lambda at: ([CLASSIFY, "--ram", "\u0662\u0665K"], "--ram"),
    "an enormous size": lambda at: ([CLASSIFY, "--flash", "9" * 15 + "G"], "not a whole number of bytes"),
    "outputs that are not numbers": lambda at: ([network(at, one("Log"))], "of check input 1 is nan"),
    "a compiled file": lambda at: ([str(OLD / "classify.goss")], "a compiled file (.goss)"),
    "no file": lambda at: ([str(at / "none.onnx")], "no such file"),
    "a truncated file": lambda at: ([truncated(at)], "rule"),
    "an operator without a handler": lambda at: ([network(at, one("Sin"))], "operator Sin"),
    "weights that are not finite": lambda at: (
        [network(at, one("Mul", "v"), {"v": np.full((8, 1, 1), np.nan, np.float32)})],
        "not finite",
    ),
    "a slope that is not finite": lambda at: ([network(at, one("LeakyRelu", alpha=float("inf")))], "not finite"),
    "an operation that int8 has no kernel for": lambda at: ([half_quantised(at)], "softmax in int8"),
    "a limit of another format": lambda at: ([CLASSIFY, "--to", "litert", "--ram", "1K"], "--to c with them"),
    "a licence for a file": lambda at: ([CLASSIFY, "--licence", "MIT"], "a run folder with it"),
    "a folder with something in it": lambda at: ([CLASSIFY, "--out", with_something(at)], "not empty"),
    "a file in its place": lambda at: ([CLASSIFY, "--out", file_at(at)], "exists"),
    "a place below a file": lambda at: (
        [network(at, one("Relu")), "--out", file_at(at) + "/d"],
        "could not be written",
    ),
    "a place that cannot be": lambda at: ([network(at, one("Relu")), "--out", "/proc/none/d"], "could not be written"),
    "no place": lambda at: ([CLASSIFY, "--out", ""], "empty path"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_used_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, named = CASES[name](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    if "--out" not in given:
        given = [*given, "--out", str(tmp_path / "device")]
    if "--to" not in given:
        given = [*given, "--to", "c"]
    assert main(["export", *given]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gossamer: ")]
    assert len(error) == 1 and named in error[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "given, named",
    [
        ([CLASSIFY, "--ram", "1 TB"], "--ram"),
        ([CLASSIFY, "--which", "last"], "--which with a model file"),
        ([str(OLD / "classify.goss")], ".goss"),
        (["mobilenet_v2"], "network"),
    ],
)
def test_fit_of_what_cannot_be_used(given: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *given]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("command", ["cc 'unclosed", "no-such-compiler -O2", "/dev/null", "true"])
def test_a_compiler_that_is_none(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", command)
    assert main(["fit", CLASSIFY]) == 2
    assert "the command of a C compiler" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, count", [("256K", 2**18), ("1M", 2**20), ("1.5MB", 3 * 2**19), ("4096", 4096), ("2 kib", 2048)]
)
def test_sizes(text: str, count: int) -> None:
    assert parse_bytes(text, "--ram") == count


def test_no_limit_is_none_and_no_empty_text() -> None:
    assert limits_of(None, "1K") == (None, 1024)
    for given in (("", None), (None, ""), ("1K", "")):
        with pytest.raises(SettingsError, match="''"):
            limits_of(*given)


@pytest.mark.parametrize("text", ["", "K", "1.0000001", "1e3", "1K K", "0x10", "1_000", "+1K", "١K", "1K\n1"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_bytes(text, "--ram")


HOSTILE = '*/ #error "\\\n??/\n" $(touch x) int main; //'


def test_names_of_a_file_stay_within_comments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names with ends of comments, quotes, line breaks, continued lines and trigraphs."""
    if compiler.compiler() is None:
        pytest.skip("no C compiler")
    nodes = [
        node("Conv", ["x", "w"], [HOSTILE[:40]], name=HOSTILE),
        node("Relu", [HOSTILE[:40]], [HOSTILE[:30]], name="\n"),
    ]
    file = save(tmp_path / "m.onnx", nodes, outputs=(HOSTILE[:30],))
    assert main(["export", str(file), "--to", "c", "--out", str(tmp_path / "d")]) == 0
    written = capsys.readouterr().out
    assert "\n??/" not in written
    for name in ("net.c", "net.h"):
        text = (tmp_path / "d" / name).read_text()
        assert "error" not in [line.split()[0].strip("#") for line in text.splitlines() if line.strip()]
    assert built(read_model_file(file), tmp_path / "other", "-O0").output_count == 288


@pytest.mark.parametrize("text", [HOSTILE, "\\", "?" * 9, "é漢字", "a\0b", "\r\n", "*" * 4 + "/" * 4])
def test_a_comment_holds_nothing_that_ends_it(text: str) -> None:
    shown = comment(text)
    assert not set(shown) & set("*/\\?\"'\n\r\0") and shown.isascii() and len(shown) == len(text)


@pytest.mark.full
def test_a_run_is_written_with_its_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if compiler.compiler() is None:
        pytest.skip("no C compiler")
    monkeypatch.chdir(OLD)
    assert main(["export", "runs/classify", "--to", "c", "--ram", "256K", "--out", str(tmp_path / "d"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["format"] == "c" and values["type"] == "float32" and values["compiler"] and values["checks"] == 4
    assert values["comparison"]["images"] > 0 and values["needs"]["ram"] <= 256 * 1024
    assert (tmp_path / "d" / "net.json").is_file()


@pytest.mark.full
def test_a_quantised_file_with_its_preprocessing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pixels become bytes by a table, and the outputs are ONNX Runtime's to the last bit."""
    if compiler.compiler() is None:
        pytest.skip("no C compiler")
    file, out = str(tmp_path / "int8.onnx"), tmp_path / "d"
    assert main(["quantize", CLASSIFY, "--images", str(OLD / "classes"), str(OLD / "masks"), "--out", file]) == 0
    capsys.readouterr()
    assert main(["export", file, "--to", "c", "--ram", "16K", "--flash", "32K", "--out", str(out), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["type"] == "int8" and values["loss"]["largest"] == 0 and values["loss"]["inputs"] == 4
    assert "net_pixels(given[k])" in (out / "net_check.c").read_text()
    assert "uint8_t net_pixel_bytes[768]" in (out / "net.c").read_text()

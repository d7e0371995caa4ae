"""benchmarks/converters.py and csource.py: our files beside those of other converters, which these tests do without."""

from __future__ import annotations

import importlib
import json
import stat
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.bench.process import Failed

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
PARAM = """7767517
4 5
Input l0 0 1 image 0=8 1=8 2=3
Convolution l1 1 1 image a 0=4 1=1
Split s1 1 2 a a_1 a_2
BinaryOp l2 2 1 a_1 a_2 logits 0=0
"""


@pytest.fixture
def converters(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The files of benchmarks/ import each other as scripts do."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("converters")


def row(by: str, **more: Any) -> dict[str, Any]:
    """A row of a file that is as good as ours."""
    same = {"difference": 1e-6, "error": 1e-6, "mean_error": 1e-7, "bytes": 1000, "seconds": 9.0}
    return {"network": "net", "format": "litert", "by": by, **same, "processor_seconds": 1.0, **more}


def test_what_ours_is_behind_in_is_named_and_what_is_within_the_margin_is_not(converters: Any) -> None:
    rounds = {"gossamer": [[9.0, 2.0], [1.0, 4.0], [1.0, 2.0]], "onnx2tf": [[1.0, 1.9], [9.0, 3.8], [9.0, 3.0]]}
    rows = [
        row("gossamer"),
        row("onnx2tf", bytes=970, mean_error=0.8e-7, processor_seconds=0.5),
        row("litert-torch", bytes=981, mean_error=0.9e-7, processor_seconds=0.99),
        {"network": "net", "format": "litert", "rounds": rounds},
    ]
    table = converters.table(rows)
    line = next(line for line in table.splitlines() if line.startswith("| net | onnx2tf |"))
    assert line.endswith("| 3.00 (1.90 to 3.80) | 0.95 (0.95 to 1.50) |"), "of the processor, within a round"
    assert table.splitlines()[-4:] == [
        "* net: ours is 1.031 times as large as onnx2tf's",
        "* net: ours is 1.25 times as far from float64 as onnx2tf's",
        "* net: ours takes 2.00 times as long to write as onnx2tf's",
        "* net: onnx2tf's takes 0.950 of our time",
    ]
    assert "as litert-torch's" not in table
    tiny = [row("gossamer", mean_error=0.9 * 2.0**-24), row("onnx2tf", mean_error=1e-9)]
    assert "as far" not in converters.table(tiny), "both are below the rounding of float32"


def test_a_file_of_other_numbers_is_shown_and_not_compared(converters: Any) -> None:
    rows = [row(by, format="ncnn") for by in ("gossamer", "pnnx-float16")]
    rows[1] |= {"bytes": 500, "mean_error": 1e-3}
    rows.append({"network": "net", "format": "ncnn", "by": "pnnx", "problem": "exit code 1: no such layer"})
    table = converters.table(rows)
    assert "| net | pnnx-float16 |" in table and "ours is" not in table
    assert table.endswith("\n\n* net, pnnx: exit code 1: no such layer")


def test_the_ends_of_a_network_are_its_input_and_what_no_layer_reads(converters: Any) -> None:
    assert converters.ends(PARAM) == ("image", "logits")


def test_differences_are_of_the_largest_output_and_of_the_same_shape(converters: Any) -> None:
    exact = np.array([[1.0, -4.0]])
    found = converters.differences(np.array([[1.0, -3.0]], np.float32), np.array([[1.5, -4.0]], np.float32), exact)
    assert found == {"difference": 0.25, "error": 0.25, "mean_error": pytest.approx(0.25 / 2**0.5)}
    with pytest.raises(Failed, match=r"outputs of \(1, 1\), not \(1, 2\)"):
        converters.differences(exact[:, :1], exact, exact)


def test_a_converter_that_fails_is_a_row_with_its_last_words(converters: Any, tmp_path: Path) -> None:
    def command(python: str, network: str) -> list[str]:
        return [python, "-c", f"print('at work'); raise SystemExit('{network}: no such layer')"]

    broken = converters.Converter("broken", "litert", "", command, ("net.tflite",))
    (tmp_path / "net.tflite").write_bytes(b"of an earlier run")
    assert converters.converted(broken, sys.executable, tmp_path, "resnet18") == {
        "network": "resnet18",
        "format": "litert",
        "by": "broken",
        "problem": "exit code 1: resnet18: no such layer",
    }
    assert not (tmp_path / "net.tflite").exists(), "an old file would be taken for what the converter made"


@pytest.mark.full
@pytest.mark.timeout(300)
def test_our_files_are_made_compared_and_timed_once(
    converters: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("torch", "onnx", "onnxruntime", "ncnn", "ai_edge_litert"):
        pytest.importorskip(package)
    rows = tmp_path / "rows.jsonl"
    words = ["converters.py", "lenet5", "--rows", str(rows), "--models", str(tmp_path / "models")]
    for more in ([], ["--time", "--rounds", "2", "--seconds", "0"], [], ["--time"]):
        monkeypatch.setattr(sys, "argv", [*words, *more])
        converters.main()
    kept = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [one["format"] for one in kept] == ["litert", "ncnn", "litert", "ncnn"], "what is there is not made again"
    for one in kept[:2]:
        assert one["difference"] < 1e-5 and one["error"] < 1e-5 and one["seconds"] > 0, one
        assert 200_000 < one["bytes"] < 1_000_000
    assert all(len(one["rounds"]["gossamer"]) == 2 for one in kept[2:])
    assert "| lenet5 | gossamer |" in capsys.readouterr().out


@pytest.mark.parametrize(("form", "package"), [("litert", "ai_edge_litert"), ("ncnn", "ncnn")])
def test_the_mean_of_a_large_map_loses_less_than_one_sum_of_all_its_places(
    form: str, package: str, tmp_path: Path
) -> None:
    for name in ("onnx", package):
        pytest.importorskip(name)
    from gossamer import runtime
    from tests.onnxcases import node, save

    mean = save(tmp_path / "mean.onnx", [node("GlobalAveragePool", ["x"], ["y"])], {}, ("N", 16, 64, 64))
    images = np.random.default_rng(0).uniform(1, 2, (2, 16, 64, 64)).astype(np.float32)
    exact = images.astype(np.float64).mean((2, 3), keepdims=True)
    outputs = np.asarray(runtime.load(mean, runtime=form, threads=1).run(images), np.float64)
    assert np.abs(outputs / exact - 1).max() < 16 * 2.0**-24  # one sum: 39


def test_a_hard_sigmoid_behind_a_layer_adds_nothing_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("flatbuffers")
    from gossamer.compile.lower import lower
    from gossamer.litert.write import ProgramWriter
    from gossamer.modelfile.metadata import read_model_file
    from tests.onnxcases import CONV, node, save

    gate = node("HardSigmoid", ["a"], ["y"], alpha=1 / 6, beta=0.5)
    file = read_model_file(save(tmp_path / "gate.onnx", [*CONV, gate]))
    assert [name for name, _ in ProgramWriter(lower(file.graph)).graph.codes] == ["CONV_2D", "MUL"]


def fake_onnx2c(place: Path, factor: int) -> Path:
    """A program that writes the source of a network which multiplies its input."""
    lines = f"for (i = 0; i < 32; i++) ((float *)to)[i] = {factor} * ((const float *)from)[i];"
    source = f"void entry(const float from[1][2][4][4], float to[1][2][4][4])\\n{{ int i; {lines} }}"
    place.write_text(f"#!/bin/sh\nprintf '%b' '{source}'\n")
    place.chmod(place.stat().st_mode | stat.S_IXUSR)
    return place


def test_another_c_source_is_timed_only_where_it_gives_the_same_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gossamer.csource import compiler

    pytest.importorskip("onnx")
    command = compiler.compiler()
    if command is None:
        pytest.skip("no C compiler")
    from tests.onnxcases import node, save

    monkeypatch.syspath_prepend(str(FOLDER))
    csource = importlib.import_module("csource")
    file = str(save(tmp_path / "relu.onnx", [node("Relu", ["x"], ["y"])], {}, ("N", 2, 4, 4)))
    options = Namespace(rounds=1, runs=1, flags="-O1", onnx2c=str(fake_onnx2c(tmp_path / "same", 1)))
    cells = csource.row(file, command, options)
    assert cells[:2] == ["relu.onnx", "float32"] and len(cells) == 9 and cells[-1] == "0.0e+00"
    options.onnx2c = str(fake_onnx2c(tmp_path / "other", 2))
    with pytest.raises(SystemExit, match="other outputs than ours"):
        csource.row(file, command, options)
    options.onnx2c = ""
    assert len(csource.row(file, command, options)) == 6

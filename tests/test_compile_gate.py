"""A compiled file is written only where its outputs are those of the ONNX file, as far as its precision lets them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.cli.main import main
from gossamer.errors import InputError, VerificationError
from gossamer.runtime.compilation import compile_model, difference
from gossamer.runtime.model import Model

onnx = pytest.importorskip("onnx")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 8, 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "network.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def altered(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let the ONNX file's runtime compute something else."""
    run = Model.run
    monkeypatch.setattr(Model, "run", lambda self, batch: change(run(self, batch)))


def with_one_nan(outputs: np.ndarray) -> np.ndarray:
    outputs = outputs.copy()
    outputs.flat[5] = math.nan
    return outputs


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_outputs_that_agree_are_written(network: Path, tmp_path: Path, precision: str) -> None:
    compile_model(network, tmp_path / "out.goss", precision)
    assert (tmp_path / "out.goss").is_file()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "change", [np.negative, np.zeros_like, lambda y: y * 100, with_one_nan, lambda y: y * math.inf]
)
def test_outputs_that_differ_leave_no_file(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, change: Any
) -> None:
    altered(monkeypatch, change)
    with pytest.raises(VerificationError, match="does not compute what"):
        compile_model(network, tmp_path / "out.goss", precision)
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


def test_a_small_error_is_too_much_for_float32_alone(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered(monkeypatch, lambda y: y * 1.02)
    with pytest.raises(VerificationError):
        compile_model(network, tmp_path / "out.goss")
    compile_model(network, tmp_path / "out.goss", "bfloat16")


def test_an_output_of_another_shape_is_one_line(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    altered(monkeypatch, lambda y: y[:, :, 1:])
    with pytest.raises(InputError, match="224 numbers per image, the compiled network 256"):
        compile_model(network, tmp_path / "out.goss")


def test_force_keeps_the_file_under_a_name_that_says_so(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    altered(monkeypatch, np.negative)
    out = str(tmp_path / "out.goss")
    assert main(["compile", str(network), "--out", out]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["compile", str(network), "--out", out, "--force"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["network.onnx", "out.unverified.goss"]


def test_numbers_that_are_not_finite_agree_with_themselves_only() -> None:
    nan, inf = math.nan, math.inf

    def largest(expected: list[float], actual: list[float]) -> float:
        return difference([(np.float32(expected), np.float32(actual))], False).largest

    assert largest([nan, inf, -inf, 1], [nan, inf, -inf, 1.5]) == 0.5
    assert largest([nan], [1]) == largest([1], [nan]) == largest([inf], [-inf]) == largest([1], [inf]) == inf

"""A program as a torch module, which ExecuTorch and Core ML files are made of: each kind of operation beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gossamer.errors import InputError
from gossamer.modelfile.metadata import read_model_file
from gossamer.torch_program.module import module_of

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.onnxcases import CONV, INPUT, expected, node, noise, save
from tests.test_litert import CASES, RELU, one

OLD = Path(__file__).parent / "compat" / "0.1"


def check(file: Path, x: np.ndarray) -> None:
    """The module's outputs of each image are those of ONNX Runtime, of the same names and shapes."""
    model = read_model_file(file)
    module, computed = module_of(model), expected(file, x)
    wanted = {name: computed[name] for name in model.outputs}
    assert [one.name for one in module.program.outputs] == list(wanted)
    assert module.input_shape == x.shape[1:]
    for place in range(len(x)):
        with torch.no_grad():
            made = module(torch.from_numpy(x[place : place + 1]))
        for values, all_wanted in zip(made, wanted.values(), strict=True):
            row = all_wanted[place : place + 1]
            assert values.shape == row.shape
            atol = 1e-5 * max(1.0, float(np.abs(row).max()))
            np.testing.assert_allclose(values.numpy(), row, rtol=0, atol=atol)


@pytest.mark.parametrize("name", CASES)
def test_an_operation_agrees_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    nodes, constants = CASES[name]
    check(save(tmp_path / "m.onnx", nodes, constants), noise(INPUT))


def test_outputs_and_inputs_of_other_shapes(tmp_path: Path) -> None:
    """Outputs of which another operator reads, the same twice; an input that is no image."""
    nodes = [*CONV, *RELU, node("Identity", ["r"], ["the same"]), node("GlobalAveragePool", ["r"], ["mean"])]
    check(save(tmp_path / "m.onnx", nodes, outputs=("r", "mean", "the same")), noise(INPUT))


@pytest.mark.parametrize("name", ["classify", "segment", "multi", "embed"])
def test_whole_networks(name: str) -> None:
    file = read_model_file(OLD / f"{name}.onnx")
    assert file.metadata is not None
    check(OLD / f"{name}.onnx", file.metadata.preprocess.normalise(np.stack([file.metadata.checks[0].pixels])))


def test_what_has_no_form_is_named(tmp_path: Path) -> None:
    dilated = one("AveragePool", kernel_shape=[2, 2], dilations=[2, 2], name="pool7")
    int8 = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("Conv", ["d", "w"], ["y"]),
    ]
    for nodes, constants, named in (
        (dilated, {}, "pool7"),
        (one("Sin"), {}, "operator Sin"),
        (int8, {"s": np.float32(0.05), "z": np.uint8(128)}, r"int8 \(QDQ\)"),
    ):
        with pytest.raises(InputError, match=named):
            module_of(read_model_file(save(tmp_path / "m.onnx", nodes, constants)))

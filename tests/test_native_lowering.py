"""Operators that become others which the engine has, against ONNX Runtime: the modules of the zoo that need them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gossamer.blocks.attention import Cbam, SelectiveKernel
from gossamer.blocks.pool import AverageTo
from gossamer.compile.lower import lower
from gossamer.compile.write import compile_file
from gossamer.errors import InputError
from gossamer.export.convert import to_onnx
from gossamer.modelfile.metadata import parse_model_file
from gossamer.networks import create_model
from gossamer.networks.lenet import Codes
from gossamer.runtime import native
from tests.exports import randomised

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)


class Greatest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = nn.functional.adaptive_max_pool2d(x, 1)
        return out


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean(1, keepdim=True)


class Rows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :, :2].mean(2, keepdim=True), x[:, :, 2:].mean(2, keepdim=True)], 2)


MODULES: dict[str, tuple[nn.Module, tuple[int, int], list[str]]] = {
    # with the kinds of operations that it becomes, in any order, where that is the point
    "up: 5 to 7": (AverageTo(7), (5, 6), ["resize", "resize"]),
    "down: 13 to 6, evenly": (AverageTo(6), (13, 13), ["average_pool", "average_pool"]),
    "down: 7 and 8 to 6": (AverageTo(6), (7, 8), ["average_pool", "resize"]),
    "all positions": (Greatest(), (11, 14), ["max_pool"]),
    "a mean a position": (Mean(), (6, 5), ["conv", "conv", "multiply"]),
    "distances": (nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), Codes(6, 9)), (4, 4), []),
    "spatial attention": (nn.Sequential(nn.Conv2d(6, 36, 1), Cbam(36, 4)), (9, 14), []),
    "selective kernels": (nn.Sequential(SelectiveKernel(6, 12, reduced=4, groups=2, stride=2), nn.ReLU()), (9, 8), []),
    "three kernels": (nn.Sequential(SelectiveKernel(6, 8, reduced=4, paths=3), nn.Conv2d(8, 5, 1)), (6, 6), []),
    "of many channels": (nn.Sequential(nn.Conv2d(6, 640, 1), nn.ReLU(), Cbam(640, 4)), (7, 7), []),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_agrees_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, size, kinds = MODULES[name]
    data = to_onnx(randomised(module).eval(), size, 6)
    (tmp_path / "net.onnx").write_bytes(data)
    lowered_kinds = sorted(one.kind for one in lower(parse_model_file(data).onnx).operations)
    assert not kinds or lowered_kinds == sorted(kinds)
    compile_file(tmp_path / "net.onnx", tmp_path / "net.goss")
    x = np.random.default_rng(1).standard_normal((2, 6, *size)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    outputs = np.asarray(native.Native(tmp_path / "net.goss", 2)(x))
    assert outputs.shape == expected.shape
    assert np.abs(outputs - expected).max() < 1e-5 * np.abs(expected).max()


def test_parts_of_different_sizes_over_two_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="three or more rows or columns"):
        lower(parse_model_file(to_onnx(Rows().eval(), (5, 4))).onnx)


def test_channels_of_a_large_prime_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="prime factor over 16"):
        lower(parse_model_file(to_onnx(nn.Sequential(nn.Conv2d(3, 34, 1), Cbam(34, 4)).eval(), (5, 4))).onnx)


def test_lenet_with_its_codes_compiles() -> None:
    onnx = parse_model_file(to_onnx(create_model("lenet5_original").eval(), (32, 32))).onnx
    assert [one.kind for one in lower(onnx).operations][-4:] == ["multiply", "conv", "conv", "affine"]

"""bfloat16 and int8 on every ISA of this machine, beside plain loops over the same file, and for any threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from gossamer.compile.write import compile_file
from gossamer.export.traced import onnx_to_time
from gossamer.runtime import native
from tests.isas import ISAS, outputs, quantise, same_bits, too_far

pytest.importorskip("onnxruntime.quantization")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

SIZE = 37, 41
STEPS = {"bfloat16": 0.02, "uint8": 3 / 255}  # of the spread of the outputs: a few roundings fall otherwise


class Network(nn.Module):
    """Panels of one to four registers, full and partial, with a sum, pools over negative numbers, and a block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 20, 3, 2, 1), nn.ReLU(), nn.Conv2d(20, 48, 1), nn.ReLU())
        self.body = nn.Conv2d(48, 48, 3, padding=1)
        self.neck = nn.Sequential(nn.Conv2d(48, 64, 1), nn.ReLU6(), nn.Conv2d(64, 32, 3, padding=1), nn.Hardswish())
        self.block = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU(), nn.Conv2d(32, 16, 1))
        self.average = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = nn.functional.max_pool2d(x + self.body(x), 3, 2, 1)
        x = nn.functional.max_pool2d(self.block(self.neck(x)), 3, 2)
        out: torch.Tensor = (x * self.average(x)).flatten(1)
        return out


def images(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal((count, 3, *SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The network in each precision, compiled."""
    folder = tmp_path_factory.mktemp("bytes")
    torch.manual_seed(0)
    plain, few = folder / "plain.onnx", folder / "few.onnx"
    plain.write_bytes(onnx_to_time(Network().eval(), SIZE, 3))
    quantise(plain, images(4), few)
    compiled = {name: folder / f"{name}.goss" for name in STEPS}
    compile_file(plain, compiled["bfloat16"], "bfloat16")
    compile_file(few, compiled["uint8"])
    for path in compiled.values():
        np.save(f"{path}.images.npy", images(2))
    return compiled


@pytest.fixture(scope="module")
def expected(files: dict[str, Path]) -> dict[str, NDArray[np.float32]]:
    """The outputs of plain loops."""
    return outputs(files, "reference")


@pytest.mark.parametrize("isa", ISAS)
def test_every_isa_agrees_with_plain_loops(
    isa: str, files: dict[str, Path], expected: dict[str, NDArray[np.float32]]
) -> None:
    assert not too_far(outputs(files, isa), expected, STEPS)


@pytest.mark.parametrize("name", STEPS)
def test_outputs_are_the_same_bits_for_any_threads(name: str, files: dict[str, Path]) -> None:
    same_bits(files[name], images(3), name)

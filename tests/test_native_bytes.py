"""bfloat16 and int8 on every level of this machine, beside plain loops over the same file, and for any threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from gossamer.compile.write import compile_file
from gossamer.export.convert import to_onnx
from gossamer.runtime import native
from tests.runs import BLOCKS, at_level

quantization = pytest.importorskip("onnxruntime.quantization")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

SIZE = 37, 41
LEVELS = ("portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx", BLOCKS)
STEPS = {"bfloat16": 0.02, "uint8": 3 / 255}  # of the spread of the answers: a few roundings fall otherwise


class Network(nn.Module):
    """Panels of one to four registers, whole and in part, with a sum, pools over negative numbers, and a block."""

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


class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined, misc]
    def __init__(self) -> None:
        self.left = iter([{"input": image[None]} for image in images(4)])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self.left, None)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The network in each precision, compiled."""
    folder = tmp_path_factory.mktemp("bytes")
    torch.manual_seed(0)
    plain, few = folder / "plain.onnx", folder / "few.onnx"
    plain.write_bytes(to_onnx(Network().eval(), SIZE, 3))
    quantization.quantize_static(plain, few, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True)
    made = {name: folder / f"{name}.goss" for name in STEPS}
    compile_file(plain, made["bfloat16"], "bfloat16")
    compile_file(few, made["uint8"])
    return made


def answers(files: dict[str, Path], level: str) -> dict[str, NDArray[np.float32]]:
    """What a process forced to the level answers to two images; skips where the machine lacks it."""
    folder = next(iter(files.values())).parent
    np.save(folder / "images.npy", images(2))
    code = (
        "import sys, numpy as np\nfrom gossamer.runtime.native import Native\n"
        "images = np.load(sys.argv[1])\n"
        "for path in sys.argv[2:]:\n"
        "    found = Native(path, 1)(images)\n"
        "    np.save(path + '.npy', found)\n"
    )
    if level in ("amx", BLOCKS):  # which the tests of threads need not have
        code += "    assert np.array_equal(Native(path, 3)(images[:1]), found[:1]), path\n"
    at_level(level, code, folder / "images.npy", *files.values())
    return {name: np.load(f"{path}.npy") for name, path in files.items()}


@pytest.fixture(scope="module")
def expected(files: dict[str, Path]) -> dict[str, NDArray[np.float32]]:
    """The answers of plain loops."""
    return answers(files, "reference")


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_answers_as_plain_loops(
    level: str, files: dict[str, Path], expected: dict[str, NDArray[np.float32]]
) -> None:
    for name, found in answers(files, level).items():
        wanted = expected[name]
        assert np.abs(found - wanted).max() < STEPS[name] * (wanted.max() - wanted.min()), name


@pytest.mark.parametrize("name", STEPS)
def test_answers_are_the_same_bits_for_any_threads(name: str, files: dict[str, Path]) -> None:
    wanted = np.asarray(native.Native(files[name], 1)(images(3)))
    for threads in (2, 3, 5):
        for count in (1, 3):
            np.testing.assert_array_equal(native.Native(files[name], threads)(images(3)[:count]), wanted[:count])

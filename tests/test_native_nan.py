"""NaN in the input: NaN wherever PyTorch and ONNX Runtime give NaN, in each operator, precision and ISA; refused where uint8 computes.

Images hold one NaN, of either sign and with any payload, and one image holds none.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from gossamer.compile.write import compile_file
from gossamer.errors import GossamerError, InputError, VerificationError
from gossamer.export.convert import to_onnx
from gossamer.runtime import native
from gossamer.runtime.compilation import compile_model
from tests.isas import ISAS, Files, compile_each, outputs, quantise

onnxruntime = pytest.importorskip("onnxruntime")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

SIZE = 26, 22
PRECISIONS = ("float32", "bfloat16")
FAST = (
    "conv",
    "clip",
    "sigmoid",
    "winograd",
    "block",
    "max pool 3x3 /2",
    "softmax of the input",
    "bilinear",
)  # the others: full
NANS = (0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFF8000)


class Gated(nn.Module):
    """A map times numbers of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


class Summed(nn.Module):
    """A map and its convolution, added, then bounded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(24, 24, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.conv(x))


class Joined(nn.Module):
    """Two maps of another size, concatenated."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([nn.functional.max_pool2d(x, 2), nn.functional.avg_pool2d(x, 2)], 1)


def behind(*layers: nn.Module, channels: int = 24) -> nn.Module:
    """A convolution of few positions around each, and these."""
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), *layers)


def resized(**settings: Any) -> nn.Module:
    return behind(nn.Upsample(**settings))


NETWORKS: dict[str, nn.Module] = {
    "conv": behind(),
    "relu": behind(nn.ReLU()),
    "relu6": behind(nn.ReLU6()),
    "clip": behind(nn.Hardtanh(-0.5, 0.7)),
    "hard swish": behind(nn.Hardswish()),
    "hard sigmoid": behind(nn.Hardsigmoid()),
    "sigmoid": behind(nn.Sigmoid()),
    "silu": behind(nn.SiLU()),
    "tanh": behind(nn.Tanh()),
    "leaky relu": behind(nn.LeakyReLU(0.1)),
    "prelu": behind(nn.PReLU(24)),
    "activation alone": nn.Sequential(nn.ReLU(), nn.Hardtanh(-1.5, 1.5)),
    "batch norm": nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()),
    "winograd": behind(nn.Conv2d(32, 40, 3, padding=1), nn.ReLU(), channels=32),
    "winograd, hard swish": behind(nn.Conv2d(32, 40, 3, padding=1), nn.Hardswish(), channels=32),
    "grouped": behind(nn.Conv2d(24, 12, 3, padding=1, groups=3), nn.ReLU()),
    "odd channels": behind(nn.Conv2d(25, 13, 1), nn.ReLU(), channels=25),
    "depthwise": behind(nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.ReLU6()),
    "depthwise 5x5 /2": behind(nn.Conv2d(24, 24, 5, 2, 2, groups=24), nn.Hardswish()),
    "block": behind(
        nn.Conv2d(24, 72, 1), nn.ReLU6(), nn.Conv2d(72, 72, 3, 1, 1, groups=72), nn.ReLU6(), nn.Conv2d(72, 16, 1)
    ),
    "separable": behind(nn.Conv2d(24, 24, 3, 1, 1, groups=24), nn.SiLU(), nn.Conv2d(24, 40, 1), nn.ReLU()),
    "max pool 2x2": behind(nn.MaxPool2d(2)),
    "max pool 3x3 /2": behind(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    "max pool of the input": nn.MaxPool2d(3, 1, 1),
    "max pool, 5 channels": behind(nn.MaxPool2d(3, 2), channels=5),
    "max pool of all": behind(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
    "average pool": behind(nn.AvgPool2d(3, 2, 1)),
    "global average": behind(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "gated": behind(Gated()),
    "summed": behind(Summed()),
    "concatenated": behind(Joined()),
    "softmax": behind(nn.Softmax(1)),
    "softmax of the input": nn.Softmax(1),
    "nearest": resized(scale_factor=2, mode="nearest"),
    "bilinear": resized(scale_factor=2, mode="bilinear"),
    "bilinear, aligned": resized(size=(51, 43), mode="bilinear", align_corners=True),
    "bilinear, every second": resized(size=(13, 11), mode="bilinear", align_corners=False),
    "pixel shuffle": behind(nn.PixelShuffle(2)),
    "channel shuffle": behind(nn.ChannelShuffle(4)),
    "classifier": behind(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 11), nn.ReLU()),
    "large classifier": behind(nn.MaxPool2d(3), nn.Flatten(), nn.Linear(24 * 8 * 7, 200), nn.ReLU()),
}


def images() -> NDArray[np.float32]:
    """One image for each kind of NaN, which one pixel of one channel holds; then one that holds none."""
    batch = np.random.default_rng(0).standard_normal((len(NANS) + 1, 3, *SIZE)).astype(np.float32)
    pixels = np.frombuffer(struct.pack(f"<{len(NANS)}I", *NANS), np.float32)
    for number in range(len(NANS)):
        batch[number, number % 3, 11, 9 + number % 2] = pixels[number]
    return batch


def disagreement(actual: NDArray[np.float32], name: str, precision: str, onnx: Path) -> str:
    """What is wrong with the outputs, "" where nothing is: NaN where PyTorch or ONNX Runtime, which loses some, has NaN.

    It may spread to more outputs, of Winograd tiles, but never to another image.
    """
    with torch.inference_mode():
        exact = NETWORKS[name](torch.from_numpy(images())).numpy()
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    wanted = np.asarray(session.run(None, {"input": images()})[0])
    nan = np.isnan(exact) | np.isnan(wanted)
    assert all(image.any() for image in nan[:-1]) and not nan[-1].any()
    lost, numbers = int((nan & ~np.isnan(actual)).sum()), ~nan & ~np.isnan(actual)
    difference = float(np.abs(wanted[numbers] - actual[numbers]).max(initial=0)) / float(np.ptp(wanted[-1]))
    if np.isnan(actual[-1]).any():
        return "NaN in the image that has none"
    close = difference < (1e-4 if precision == "float32" else 0.05)
    return "" if close and not lost else f"{lost} of {int(nan.sum())} NaN are numbers, others {difference} off"


@pytest.mark.parametrize("name", FAST)
def test_nan_stays_nan_as_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    files = compile_each({name: (NETWORKS[name], images())}, PRECISIONS, tmp_path, to_onnx)
    for (_, precision), file in files.items():
        one, two = (np.asarray(native.Native(file, threads)(images())) for threads in (1, 2))
        assert not disagreement(one, name, precision, tmp_path / "0.onnx")
        np.testing.assert_array_equal(one, two)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    networks = {name: (module, images()) for name, module in NETWORKS.items()}
    return compile_each(networks, PRECISIONS, tmp_path_factory.mktemp("nan"), to_onnx)


@pytest.mark.full
@pytest.mark.parametrize("isa", ["reference", *ISAS])
def test_nan_stays_nan_on_every_isa(isa: str, files: Files) -> None:
    wrong = {}
    for (name, precision), actual in outputs(files, isa).items():
        onnx = files[name, precision].with_name(files[name, precision].name.split("-")[0] + ".onnx")
        if text := disagreement(actual, name, precision, onnx):
            wrong[name, precision] = text
    assert not wrong


@pytest.mark.parametrize("where", ["the input", "the middle"])
def test_a_network_that_computes_in_uint8_refuses_nan_in_one_line(where: str, tmp_path: Path) -> None:
    onnx, quantised, batch = tmp_path / "net.onnx", tmp_path / "quantised.onnx", images()
    module = behind(nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 1))
    if where == "the middle":  # of floats before, and of a block's layers
        module = behind(nn.Softmax(1), nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.ReLU(), nn.Conv2d(24, 8, 1))
    onnx.write_bytes(to_onnx(module.eval(), SIZE, 3))
    quantise(onnx, np.nan_to_num(batch), quantised)
    engine = native.Native(compile_file(quantised, tmp_path / "net.goss"), 2)
    expected = np.asarray(engine(batch[-1:]))
    for number in range(len(NANS)):
        for inputs in (batch[number : number + 1], batch):
            with pytest.raises(
                InputError, match=r"net\.goss: the input holds NaN.* uint8.*; allowed: numbers"
            ) as caught:
                engine(inputs)
            assert "\n" not in str(caught.value)
    infinite = batch[-1:].copy()
    infinite[0, 0, 0, :2] = np.inf, -np.inf  # saturate, as in ONNX Runtime
    assert np.isfinite(engine(infinite)).all()
    np.testing.assert_array_equal(engine(batch[-1:]), expected)


def test_weights_of_int8_behind_floats_keep_nan(tmp_path: Path) -> None:
    onnx = tmp_path / "net.onnx"
    onnx.write_bytes(to_onnx(NETWORKS["classifier"].eval(), SIZE, 3))
    for precision in ("float32", "bfloat16"):
        actual = native.Native(compile_file(onnx, tmp_path / "net.goss", precision, "int8"), 1)(images())
        assert np.isnan(actual[:-1]).all() and not np.isnan(actual[-1]).any()


def without_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine give numbers for NaN."""
    call = native.Native.__call__
    monkeypatch.setattr(native.Native, "__call__", lambda self, batch: np.nan_to_num(call(self, batch)))


def test_compiling_compares_an_input_with_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx, out = tmp_path / "net.onnx", tmp_path / "net.goss"
    onnx.write_bytes(to_onnx(behind(nn.ReLU()).eval(), SIZE, 3))
    compile_model(onnx, out)
    assert out.is_file()
    out.unlink()
    without_nan(monkeypatch)
    with pytest.raises(
        VerificationError, match="for an input with NaN 216 of 216 outputs that are NaN are numbers"
    ) as e:
        compile_model(onnx, out)
    assert isinstance(e.value, GossamerError) and not out.exists()
    assert compile_model(onnx, out, force=True).path.endswith("net.unverified.goss")


def test_compiling_takes_a_refusal_of_nan(tmp_path: Path) -> None:
    onnx, quantised, out = tmp_path / "net.onnx", tmp_path / "quantised.onnx", tmp_path / "net.goss"
    onnx.write_bytes(to_onnx(behind(nn.ReLU(), nn.Conv2d(24, 8, 1)).eval(), SIZE, 3))
    quantise(onnx, np.nan_to_num(images()), quantised)
    compile_model(quantised, out)
    assert out.is_file()

"""Every kernel of the engine's table: a network that the planner gives to it, whose outputs agree with plain loops.

The engine names its kernels itself, so one that is added without a network here fails.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from gossamer.runtime import native
from tests.isas import Files, compile_each, outputs, too_far

pytest.importorskip("onnxruntime.quantization")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

# of the spread of the outputs: float32 in another order, two steps of a byte
STEPS = {"float32": 1e-5, "uint8": 2.01 / 255}


class Gated(nn.Module):
    """A map times one number a channel, and times another map."""

    def __init__(self, c: int, per_channel: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(c, c, 1), nn.Conv2d(c, c, 1)
        self.pool = nn.AdaptiveAvgPool2d(1) if per_channel else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.first(x) * torch.sigmoid(self.pool(self.second(x)))
        return out


class Sum(nn.Module):
    """Two pools of a map, added: no layer before it takes the sum into its epilogue."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.max_pool2d(x, 3, 1, 1) + nn.functional.avg_pool2d(x, 3, 1, 1)


class Joined(nn.Module):
    """The map itself beside its pool: one of the two is copied."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, nn.functional.max_pool2d(x, 3, 1, 1), x], 1)


class Resized(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def conv(c: int, kernel: int | tuple[int, int], stride: int = 1, out: int = 0) -> nn.Module:
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    return nn.Conv2d(c, out or c, sides, stride, (sides[0] // 2, sides[1] // 2))


def depthwise(c: int, kernel: int, stride: int, padding: int = -1) -> nn.Module:
    sides = kernel // 2 if padding < 0 else padding
    return nn.Sequential(nn.Conv2d(c, c, kernel, stride, sides, groups=c), nn.ReLU())


def expanded(kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(20, 56, 1), nn.ReLU(), depthwise(56, kernel, stride), nn.Conv2d(56, 24, 1))


Case = tuple[str, tuple[int, int, int], nn.Module]
# by the kernel's name: the precision of its network, channels, height and width of the input, the module
CASES: dict[str, Case] = {
    "gemv": ("float32", (512, 1, 1), nn.Sequential(nn.Flatten(), nn.Linear(512, 600))),
    "micro-kernels": ("float32", (24, 9, 11), conv(24, 1, out=40)),
    "Winograd, 6x6 of 3x3": ("float32", (32, 20, 28), conv(32, 3)),
    "Winograd, 6x6 of 5x5": ("float32", (48, 18, 21), conv(48, 5)),
    "Winograd, 1x6 of 1x3": ("float32", (64, 17, 18), conv(64, (1, 3))),
    "Winograd, 6x1 of 3x1": ("float32", (64, 18, 17), conv(64, (3, 1))),
    "Winograd, 1x10 of 1x7": ("float32", (72, 17, 17), conv(72, (1, 7))),
    "Winograd, 10x1 of 7x1": ("float32", (72, 17, 17), conv(72, (7, 1))),
    "Winograd, 4x4 of 3x3": ("float32", (128, 64, 2), conv(128, 3)),
    "Winograd, 1x8 of 1x7": ("uint8", (72, 17, 17), conv(72, (1, 7))),
    "Winograd, 8x1 of 7x1": ("uint8", (72, 17, 17), conv(72, (7, 1))),
    "Winograd, 1x4 of 1x3": ("float32", (128, 40, 2), conv(128, (1, 3))),
    "Winograd, 4x1 of 3x1": ("float32", (128, 2, 40), conv(128, (3, 1))),
    "depthwise, expanded, any kernel": ("float32", (20, 15, 17), expanded(7, 1)),
    "depthwise, in place, any kernel": ("float32", (20, 15, 17), depthwise(20, 7, 2)),
    "max pool": ("float32", (24, 15, 17), nn.Sequential(conv(24, 1), nn.MaxPool2d(3, 2, 1))),
    "average pool": ("float32", (24, 15, 17), nn.Sequential(conv(24, 1), nn.AvgPool2d(3, 2, 1))),
    "global average": ("float32", (24, 15, 17), nn.Sequential(conv(24, 1), nn.AdaptiveAvgPool2d(1))),
    "add": ("float32", (24, 15, 17), Sum()),
    "scale": ("float32", (24, 15, 17), Gated(24, True)),
    "multiply": ("float32", (24, 15, 17), Gated(24, False)),
    "affine": ("float32", (9, 15, 17), nn.Sequential(nn.BatchNorm2d(9), nn.ReLU(), conv(9, 1))),
    "activation": ("float32", (24, 15, 17), nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Sigmoid())),
    "copy": ("float32", (24, 15, 17), Joined()),
    "shuffle": ("float32", (24, 15, 17), nn.Sequential(conv(24, 1), nn.ChannelShuffle(3), nn.MaxPool2d(3, 2, 1))),
    "resize": ("float32", (24, 15, 17), nn.Sequential(conv(24, 1), Resized())),
    "softmax": ("float32", (24, 15, 17), nn.Sequential(conv(24, 1), nn.Softmax(1))),
    "depth to space": ("float32", (24, 15, 17), nn.Sequential(nn.ReLU(), nn.PixelShuffle(2))),
}
for side, step in ((3, 1), (3, 2), (5, 1), (5, 2)):
    shape = 20, 15, 17
    CASES[f"depthwise, expanded, {side}x{side}/{step}"] = "float32", shape, expanded(side, step)
    CASES[f"depthwise, in place, {side}x{side}/{step}"] = "float32", shape, depthwise(20, side, step)
    # words are for the usual padding
    CASES[f"depthwise, bytes, {side}x{side}/{step}"] = "uint8", shape, depthwise(20, side, step, side - 1)
    CASES[f"depthwise, words, {side}x{side}/{step}"] = "uint8", shape, expanded(side, step)
WITH_VNNI = {name for name in CASES if "depthwise, words" in name}  # where an ISA multiplies words of bytes


def images(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """float32 (2, *shape), positive as they are behind a ReLU."""
    return np.abs(np.random.default_rng(shape[0]).standard_normal((2, *shape))).astype(np.float32)


def compiled(names: list[str], folder: Path) -> Files:
    files: Files = {}
    for precision in STEPS:
        networks = {name: (CASES[name][2], images(CASES[name][1])) for name in names if CASES[name][0] == precision}
        (folder / precision).mkdir()
        files.update(compile_each(networks, [precision], folder / precision))
    return files


def test_every_kernel_has_a_network(tmp_path: Path) -> None:
    (path,) = compiled(["micro-kernels"], tmp_path).values()
    engine = native.Native(path, 1)
    assert engine.kernels(0) == ["micro-kernels"]
    # AMX tiles have tests of their own, which emulate them elsewhere (test_native_microkernels.py)
    assert {*engine.kernels()} - {"AMX tiles"} <= {*CASES}
    assert engine.isa != "avx2" or {*engine.kernels()} == {*CASES} - WITH_VNNI
    assert engine.isa not in ("avx512_vnni", "avx512_bf16") or {*engine.kernels()} >= WITH_VNNI


@pytest.mark.full
def test_every_kernel_runs_its_network_and_agrees_with_plain_loops(tmp_path: Path) -> None:
    files = compiled([*CASES], tmp_path)
    actual = {}
    for (name, precision), path in files.items():
        engine = native.Native(path, 1)
        actual[name, precision] = np.asarray(engine(images(CASES[name][1])))
        names = [kernel for number in range(len(engine.steps())) for kernel in engine.kernels(number)]
        # registers of other widths choose other Winograd tiles, or none; the ISA may lack the kernel
        if (engine.isa == "avx2" and name not in WITH_VNNI) or (
            name in engine.kernels() and not name.startswith("Winograd")
        ):
            assert name in names, f"{name}: {names}"
    assert not too_far(actual, outputs(files, "reference"), {key: STEPS[key[1]] for key in files})

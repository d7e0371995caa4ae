"""Micro-kernels of evenly spaced positions, full registers written into the padding behind channels, and bytes widened in several blocks.

Maps are wider than two micro-kernels of every ISA, channels fill registers in part, and maps are too large to widen at once;
each network agrees with plain loops on every ISA of this machine, and with the same bits for any threads.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from gossamer.runtime import native
from tests.isas import ISAS, Files, Outputs, compile_each, outputs, same_bits, too_far

pytest.importorskip("onnxruntime.quantization")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

SIZE = 58, 61
# of the spread of the outputs: float32 in another order, bfloat16 rounded elsewhere, two steps of a byte
STEPS = {"float32": 1e-5, "bfloat16": 0.015, "uint8": 2.01 / 255}


def block(c: int, mid: int, out: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Module:
    """Expansion, depthwise convolution, projection."""
    reach = kernel // 2 * dilation
    depthwise = nn.Conv2d(mid, mid, kernel, stride, reach, dilation, groups=mid)
    return nn.Sequential(nn.Conv2d(c, mid, 1), nn.ReLU(), depthwise, nn.ReLU(), nn.Conv2d(mid, out, 1))


class Squeezed(nn.Module):
    """A map times numbers of its own: layers over one position, whose weights stay in the file."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, 37, 1), nn.ReLU(), nn.Conv2d(37, c, 1), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x * self.gate(x)
        return out


class Added(nn.Module):
    """Two convolutions of a map, added."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.first(x) + self.second(x)
        return out


def separable(c: int, out: int, kernel: int | tuple[int, int] = 3, stride: int = 1, dilation: int = 1) -> nn.Module:
    """Depthwise convolution and projection, without expansion; the depthwise layer alone where `out` is 0."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = tuple(side // 2 * dilation for side in sides)
    depthwise = nn.Sequential(nn.Conv2d(c, c, sides, stride, padding, dilation, groups=c), nn.Hardswish())
    return nn.Sequential(*depthwise, nn.Conv2d(c, out, 1)) if out else depthwise


NETWORKS: dict[str, tuple[int, nn.Module]] = {
    "8 channels": (3, nn.Conv2d(3, 8, 3, padding=1)),
    "8 to 20": (8, nn.Sequential(nn.Conv2d(8, 20, 1), nn.ReLU())),
    "20 to 24": (20, nn.Conv2d(20, 24, 3, padding=1)),
    "24 to 40": (24, nn.Sequential(nn.Conv2d(24, 40, (1, 3), padding=(0, 1)), nn.ReLU())),
    "40 to 72": (40, nn.Conv2d(40, 72, 1)),
    "64, 3x3": (64, nn.Conv2d(64, 40, 3, padding=1)),
    "64, 3x3 /2": (64, nn.Conv2d(64, 20, 3, 2, 1)),
    "64, dilated": (64, nn.Conv2d(64, 24, 3, padding=3, dilation=3)),
    "two groups": (48, nn.Conv2d(48, 40, 3, padding=1, groups=2)),
    "block": (24, block(24, 40, 20)),
    "block 5x5 /2": (24, block(24, 72, 40, 5, 2)),
    "block, dilated": (20, block(20, 40, 8, 3, 1, 2)),
    "separable": (37, separable(37, 24)),
    "separable /2": (130, separable(130, 20, 3, 2)),
    "separable 5x5 /2": (72, separable(72, 40, 5, 2)),
    "separable, dilated": (20, separable(20, 8, 3, 1, 3)),
    "separable 1x5 /2": (40, separable(40, 24, (1, 5), 2)),
    "depthwise 5x5": (130, separable(130, 0, 5)),
    "depthwise 2x2 of zeros beside": (20, nn.Sequential(nn.ZeroPad2d((2, 0, 2, 0)), nn.Conv2d(20, 20, 2, groups=20))),
    "squeezed": (40, Squeezed(40)),
    "added, few positions": (
        20,
        nn.Sequential(nn.Conv2d(20, 40, 3, 8), Added(nn.Conv2d(40, 40, 1, groups=2), nn.Conv2d(40, 40, 1))),
    ),
    "added": (20, Added(nn.Conv2d(20, 24, 1), nn.Conv2d(20, 24, 3, padding=1))),
}


def images(channels: int, count: int) -> NDArray[np.float32]:
    """float32 (count, channels, *SIZE)."""
    return np.random.default_rng(channels).standard_normal((count, channels, *SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Each network in each precision, compiled, beside its images."""
    networks = {name: (module, images(channels, 2)) for name, (channels, module) in NETWORKS.items()}
    return compile_each(networks, list(STEPS), tmp_path_factory.mktemp("microkernels"))


@pytest.fixture(scope="module")
def expected(files: Files) -> Outputs[tuple[str, str]]:
    """The outputs of plain loops."""
    return outputs(files, "reference")


@pytest.mark.full
@pytest.mark.parametrize("isa", ISAS)
def test_every_isa_agrees_with_plain_loops(isa: str, files: Files, expected: Outputs[tuple[str, str]]) -> None:
    most = {key: STEPS[key[1]] for key in files}
    assert not too_far(outputs(files, isa), expected, most)


@pytest.mark.parametrize("precision", STEPS)
def test_outputs_are_the_same_bits_for_any_threads(precision: str, files: Files) -> None:
    for name, (channels, _) in NETWORKS.items():
        same_bits(files[name, precision], images(channels, 3), name)

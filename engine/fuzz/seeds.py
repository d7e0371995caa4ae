"""Small compiled networks of every kind of operation and type, for the fuzzer to begin with: seeds.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from torch import nn

from gossamer.compile.program import FeatureMap, Operation, Program, ProgramInput, ProgramOutput
from gossamer.compile.write import PRECISIONS, compile_file, program_bytes
from gossamer.export.convert import to_onnx


class Paths(nn.Module):
    """Concatenation, addition and a gate, around a body."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body = body
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Hardsigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, 2 C, H, W)."""
        features = self.body(x)
        return torch.cat((x * self.gate(x), x + features), 1)


class Heads(nn.Module):
    """Two outputs of different sides: an enlarged map, and numbers beside places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.map, self.boxes = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(8, 6, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) -> (N, 2, H + 1, W + 1), (N, places, 3)."""
        x = torch.relu(self.first(x))
        large = nn.functional.interpolate(self.map(x), scale_factor=2, mode="bilinear", align_corners=False)
        return large, self.boxes(x).permute(0, 2, 3, 1).reshape(len(x), -1, 3).softmax(2)


def separable(c: int, mid: int, kernel: int, stride: int) -> nn.Module:
    """An inverted block of c channels."""
    depthwise = nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid)
    return nn.Sequential(nn.Conv2d(c, mid, 1), nn.ReLU6(), depthwise, nn.Hardswish(), nn.Conv2d(mid, c, 1))


NETWORKS: dict[str, nn.Module] = {
    "heads": Heads(),
    "block": nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), Paths(separable(6, 20, 3, 1), 6), nn.Conv2d(12, 4, 1)),
    "stride": nn.Sequential(separable(3, 9, 5, 2), nn.SiLU(), nn.Flatten(), nn.Linear(75, 3)),
    "pools": nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.BatchNorm2d(3), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(3, 5, 2)),
    "groups": nn.Sequential(
        nn.Conv2d(3, 12, 1),
        nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=4),
        nn.ChannelShuffle(4),
        nn.LeakyReLU(0.1),
        nn.Conv2d(12, 12, 3, 2, 1, groups=12),
        nn.ReLU(),
        nn.Conv2d(12, 2, 1),
    ),
    "winograd": nn.Sequential(nn.Conv2d(3, 24, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.Conv2d(24, 2, 1)),
    "resizes": nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1),
        nn.Conv2d(6, 6, 3, padding=3, dilation=3, groups=6),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.ConvTranspose2d(6, 4, 3, 2, 1, groups=2, bias=False),  # whose bias onnxruntime cannot quantise
        nn.PixelShuffle(2),
        nn.Softmax(1),
    ),
}


class Noise(CalibrationDataReader):  # type: ignore[misc]
    """One image, for the ranges of maps."""

    def __init__(self) -> None:
        self.images = iter([{"input": np.random.default_rng(0).standard_normal((1, 3, 9, 9)).astype(np.float32)}])

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[type-arg]
        """The next image by the input's name."""
        return next(self.images, None)


def two_inputs() -> bytes:
    """A map times one number per channel."""
    maps = [FeatureMap(5, 4, 3), FeatureMap(1, 1, 3), FeatureMap(5, 4, 3)]
    inputs = (ProgramInput("image", (3, 5, 4), 0), ProgramInput("gate", (3,), 1))
    output = ProgramOutput("y", (3, 5, 4), [(2, False)])
    return program_bytes(Program(maps, [Operation("scale", 0, 2, other=1)], 0, [output], inputs=inputs))


def main() -> None:
    """Write NAME.goss, NAME-bfloat16.goss and NAME-int8.goss for each network, last layers in bytes, and two inputs."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "inputs.goss").write_bytes(two_inputs())
    torch.manual_seed(0)
    for name, network in NETWORKS.items():
        onnx = folder / f"{name}.onnx"
        names = ("map", "boxes") if isinstance(network, Heads) else ("output",)
        onnx.write_bytes(to_onnx(network.eval(), (9, 9), outputs=names))
        compile_file(onnx, folder / f"{name}.goss")
        compile_file(onnx, folder / f"{name}-bfloat16.goss", "bfloat16")
        if name == "stride":
            for precision in PRECISIONS:
                compile_file(onnx, folder / f"{name}-{precision}-classifier.goss", precision, "int8")
        quantised = folder / f"{name}-int8.onnx"
        quantize_static(onnx, quantised, Noise(), per_channel=True)
        compile_file(quantised, folder / f"{name}-int8.goss")
        onnx.unlink()
        quantised.unlink()


if __name__ == "__main__":
    main()

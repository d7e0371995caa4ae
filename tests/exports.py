"""Small forms of the networks, exported once for all processes of a session of tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from gossamer.export.convert import to_onnx
from gossamer.networks import create_model
from tests.conftest import once

SIZE = (32, 40)  # two sides, so that a transposed axis cannot pass
LARGE = (107, 115)
LARGER = ("alexnet", "inception_resnet", "inception_v3", "inception_v4")  # nothing would be left of a small image

WHOLE = ("mobilenet_v2",)  # with all its blocks: limits of what int8 may lose were measured on it


class Exported(NamedTuple):
    """A network with 7 classes, its weights and statistics by a fixed seed."""

    name: str
    options: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its images."""
        return LARGE if self.name.startswith(LARGER) else SIZE

    @property
    def channels(self) -> int:
        return int(self.options.get("in_chans", 3))

    def model(self) -> nn.Module:
        """The module, ready for inference."""
        torch.manual_seed(0)
        model = create_model(self.name, num_classes=7, **self.options)
        return randomised(model if self.name in WHOLE else shortened(model)).eval()

    def images(self, count: int) -> NDArray[np.float32]:
        """float32 (count, channels, *size)."""
        return np.random.default_rng(1).normal(size=(count, self.channels, *self.size)).astype(np.float32)

    def file(self, factory: pytest.TempPathFactory) -> Path:
        """Its ONNX file; not to be changed."""

        def write(folder: Path) -> None:
            (folder / "net.onnx").write_bytes(to_onnx(self.model(), self.size, self.channels))

        return once(factory, f"export of {self.name}", write) / "net.onnx"


def shortened(model: nn.Module) -> nn.Module:
    """The model with at most two of equal blocks that follow one another: a third shows nothing that the second does not,
    and an export takes its time by the operator."""
    for part in model.modules():
        if isinstance(part, nn.Sequential):
            texts = [repr(block) for block in part]
            for place in reversed(range(2, len(texts))):
                if len(list(part[place].children())) and texts[place - 2] == texts[place - 1] == texts[place]:
                    del part[place]
    return model


def randomised(model: nn.Module) -> nn.Module:
    """The model with batch-norm statistics as after training: folding them wrongly would show."""
    torch.manual_seed(3)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.1)
    return model


# five seconds and less each; `make test-full` takes all
QUICK = (
    "lenet5",
    "lenet5_original",
    "squeezenet1_1",
    "vgg11_bn",
    "mobilenet_v2",
    "mobilenetv3_small_050",
)
EXPORTED = {
    name: Exported(name, options)
    for name, options in [
        ("mobilenet_v1", {"width": 0.25}),
        ("mobilenet_v2", {"width": 0.25, "small_input": True}),
        ("shufflenet_v2_x0_5", {"small_input": True}),
        ("squeezenet1_1", {"in_chans": 1}),
        ("resnet18", {"small_input": True, "drop_rate": 0.5}),
        ("alexnet", {"width": 0.25}),
        ("cbam_resnet50", {"width": 0.25, "small_input": True}),
        ("densenet121", {"small_input": True, "repeats": (2, 2, 3, 2)}),
        ("efficientnet_b0", {"width": 0.25, "small_input": True}),
        ("ghostnet_050", {"small_input": True}),
        ("googlenet", {"small_input": True, "aux": True}),
        ("inception_resnet_v1", {}),
        ("inception_v2", {"small_input": True}),
        ("inception_v3", {}),
        ("inception_v4", {}),
        ("lenet5", {}),
        ("lenet5_original", {"in_chans": 1}),
        ("mnasnet_small", {"small_input": True}),
        ("mobilenetv3_small_050", {"small_input": True}),
        ("mobilenetv4_conv_small", {"width": 0.5, "small_input": True}),
        ("preresnet20", {}),
        ("resnet50", {"width": 0.25, "small_input": True, "output_stride": 4}),
        ("rir18", {"width": 0.25}),
        ("shufflenet_v1_g3_x0_25", {"small_input": True}),
        ("skresnext50_32x4d", {"small_input": True}),
        ("sqnxt23_w1", {"repeats": (2, 2, 2, 1)}),
        ("vgg11_bn", {"width": 0.25}),
    ]
}
# names as parameters of a test
NETWORKS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.full) for name in EXPORTED]

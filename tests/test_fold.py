"""Batch norms folded ahead of the export: the same outputs, and none that something else depends on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gossamer.export.fold import fold_norms
from gossamer.networks import create_model
from tests.exports import randomised


class Line(nn.Module):
    """conv, norm, ReLU; `how` says what stands in the way of folding."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(3, 4, 3)
        self.shared = nn.Conv2d(3, 4, 3)
        if how == "shared weights":
            self.shared.weight = self.conv.weight
        self.norm = nn.BatchNorm2d(4, track_running_stats=how != "no statistics")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.how == "scaled between":
            y = y * 2
        z: Tensor = self.norm(y).relu()
        if self.how == "read again":
            z = z + y
        if self.how == "norm twice":
            z = z + self.norm(y)
        if self.how == "convolution twice":
            z = z + self.conv(x)
        if self.how == "shared weights":
            z = z + self.shared(x)
        return z


HOWS = (
    ("nothing", 1),
    *((how, 0) for how in ("scaled between", "read again", "norm twice", "convolution twice", "shared weights")),
    ("no statistics", 0),
)


@pytest.mark.parametrize(("how", "folds"), HOWS)
def test_only_a_norm_with_a_convolution_of_its_own_is_folded(how: str, folds: int) -> None:
    torch.manual_seed(0)
    model = (Line(how) if how == "no statistics" else randomised(Line(how))).eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = model(images)
        assert fold_norms(model, (2, 3, 8, 8)) == folds
        assert torch.allclose(model(images), before, atol=1e-5)
    assert isinstance(model.norm, nn.Identity) == bool(folds)


@pytest.mark.parametrize(
    ("net", "folds"), [("mobilenetv2_035", 52), ("densenet121", 59), ("preresnet20", 9), ("shufflenet_v2_x0_5", 56)]
)
def test_networks_compute_the_same(net: str, folds: int) -> None:
    torch.manual_seed(0)
    model = randomised(create_model(net, num_classes=3)).eval()
    images = torch.randn(2, 3, 64, 64)
    plain = copy.deepcopy(model)
    assert fold_norms(model, (2, 3, 64, 64)) == folds
    with torch.no_grad():
        got, wanted = model(images), plain(images)
    assert float((got - wanted).abs().max() / wanted.abs().max()) < 1e-5


def test_folded_weights_are_rounded_once() -> None:
    torch.manual_seed(0)
    model = randomised(Line("nothing")).eval()
    conv, norm = copy.deepcopy(model.conv).double(), copy.deepcopy(model.norm).double()
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    fold_norms(model, (1, 3, 8, 8))
    assert torch.equal(model.conv.weight, (conv.weight * factor[:, None, None, None]).float())
    assert torch.equal(model.conv.bias, ((conv.bias - norm.running_mean) * factor + norm.bias).float())

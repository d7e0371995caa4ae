"""The numbers of a report by hand, and Grad-CAM."""

from __future__ import annotations

import io
import math
from base64 import b64decode
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from gossamer.charts.svg import ticks
from gossamer.host import text
from gossamer.report.contents import stages
from gossamer.report.gallery import heat, mistake
from gossamer.report.gradcam import grad_cam
from gossamer.report.scores import calibrate, confused_pairs, wilson, worst_mistakes
from tests.reportcases import LAYERS

# the numbers


def test_wilson_gives_the_published_interval() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (score): 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for correct, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(correct, total) == pytest.approx((low, high), abs=5e-5)
    assert all(math.isnan(end) for end in wilson(0, 0))


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_holds_the_proportion_and_stays_in_range(counts: tuple[int, int]) -> None:
    low, high = wilson(*counts)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1 and low < high


def test_calibration_by_hand() -> None:
    # confidences 0.9 (right), 0.8 (wrong), 0.6 (right), 0.6 (right): with 5 bins (0.4, 0.6], (0.6, 0.8], (0.8, 1]
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.6, 0.4], [np.nan, np.nan]])
    calibration = calibrate(probabilities, np.array([0, 1, 1, 0, 0]), bins=5)
    assert calibration is not None
    assert [(one.count, one.correct) for one in calibration.bins] == [(0, 0), (0, 0), (2, 2), (1, 0), (1, 1)]
    assert calibration.ece == pytest.approx((2 * 0.4 + 0.8 + 0.1) / 4)
    assert calibration.confidence == pytest.approx(0.725) and calibration.accuracy == 0.75 and calibration.left_out == 1


def test_confused_pairs_are_the_largest_off_the_diagonal() -> None:
    pairs = confused_pairs(np.array([[5, 2, 0], [7, 1, 0], [0, 3, 9]]))
    assert [(pair.true, pair.predicted, pair.count) for pair in pairs] == [(1, 0, 7), (2, 1, 3), (0, 1, 2)]
    assert pairs[0].fraction == 7 / 8
    assert confused_pairs(np.eye(3, dtype=np.int64)) == []


def test_the_worst_mistakes_gave_the_truth_least_chance() -> None:
    probabilities = np.array([[0.7, 0.3], [0.9, 0.1], [0.2, 0.8], [np.nan, np.nan]])
    assert worst_mistakes(probabilities, np.array([1, 1, 1, 0]), 5).tolist() == [1, 0]


def test_stages_sum_their_layers() -> None:
    assert [(one.name, one.params, one.macs) for one in stages(LAYERS)] == [
        ("stem", 216, 55_296),
        ("stages.0", 128, 32_768),
        ("head", 18, 16),
    ]


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        (text.percent, 0.9123, "91.2 %"),
        (text.percent, math.nan, "–"),
        (text.grouped, 1234, "1234"),
        (text.grouped, 1_234_567, "1 234 567"),
        (text.si_number, 2_237_000, "2.24 M"),
        (text.si_number, 999_600, "1.00 M"),
        (text.si_number, 0, "0"),
        (text.significant, 0.0123456, "0.0123"),
        (text.significant, 9.999, "10.0"),
        (text.significant, 12345, "12300"),
        (text.significant, 2e-7, "2.00e-07"),
        (text.decimal_bytes, 8_912_345, "8.91 MB"),
        (text.decimal_bytes, 12, "12 bytes"),
        (text.binary_bytes, 12, "12 B"),
        (text.binary_bytes, 65536, "64.0 KiB"),
        (text.binary_bytes, 1_015_982, "992 KiB"),
        (text.binary_bytes, 1_258_291, "1.20 MiB"),
        (text.binary_bytes, (1 << 20) - 1, "1.00 MiB"),
        (text.milliseconds, 2.1, "2.10 ms"),
        (text.duration, 3.21, "3.2 s"),
        (text.duration, 75, "1 min 15 s"),
        (text.duration, 3599.7, "1 h 00 min"),
        (text.duration, 4000, "1 h 07 min"),
        (text.tick, 12000, "12k"),
    ],
)
def test_numbers_are_written_for_readers(form: Callable[[float], str], value: float, expected: str) -> None:
    assert form(value) == expected.replace(" ", text.THIN) or form(value).replace(text.THIN, " ") == expected


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    high = low + span
    placed = ticks(low, high)
    assert 0 < len(placed) <= 8
    if high > low:
        assert all(low - span * 1e-6 <= value <= high + span * 1e-6 for value in placed)


# Grad-CAM


class Linear(nn.Module):
    """Features are the image itself; the head is a global average and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, -2.0, 0.5], [-1.0, 3.0, 0.0]]))

    def forward_features(self, x: Tensor) -> Tensor:
        return x

    def forward_head(self, features: Tensor) -> Tensor:
        return features.relu_().mean((2, 3)) @ self.weight.T  # in place, as real heads do


def test_grad_cam_of_a_linear_head_is_its_weights_times_the_features() -> None:
    # Selvaraju et al. 2017, section 3.1: with a global average and one linear layer Grad-CAM is the class activation
    # map, sum over k of w_k A_k, up to 1/(h w)
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) + 0.1
    before = images.clone()
    model = Linear().eval()
    maps = grad_cam(model, images, np.array([1, 0]))
    weights = model.weight.detach().numpy()
    for image, label in ((0, 1), (1, 0)):
        expected = np.einsum("k,khw->hw", weights[label], before[image].numpy()).clip(0) / 20
        np.testing.assert_allclose(maps[image], expected, rtol=1e-5, atol=1e-7)
    assert maps.max() > 0 and maps.shape == (2, 4, 5) and maps.dtype == np.float32
    assert torch.equal(images, before) and model.weight.grad is None


@pytest.mark.parametrize("net", ["mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x1_0", "resnet18", "mobilenet_v1"])
def test_grad_cam_works_on_every_network(net: str) -> None:
    from gossamer.networks import create_model

    torch.manual_seed(0)
    model = create_model(net, num_classes=3, small_input=True).eval()
    maps = grad_cam(model, torch.randn(2, 3, 32, 32), np.array([0, 2]))
    assert maps.ndim == 3 and len(maps) == 2 and np.isfinite(maps).all() and (maps >= 0).all()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("side, small, expected", [(32, True, 8), (32, False, 8), (224, False, 7), (16, True, 8)])
def test_the_map_is_the_last_one_that_shows_places(side: int, small: bool, expected: int) -> None:
    """The last map of MobileNetV2 is of 4x4 at 32x32 with the strides for small images, and of 1x1 without them."""
    from gossamer.networks import create_model

    torch.manual_seed(0)
    model = create_model("mobilenet_v2", num_classes=3, width=0.1, small_input=small).eval()
    images = torch.randn(2, 3, side, side)
    maps = grad_cam(model, images, np.array([0, 2]))
    assert maps.shape == (2, expected, expected)
    assert not any(layer._forward_hooks for layer in model.modules())
    if side == 224:  # as the paper has it, from the last feature map
        features = model.forward_features(images).detach().requires_grad_(True)
        scores = model.forward_head(features.clone()).gather(1, torch.tensor([[0], [2]])).sum()
        (gradient,) = torch.autograd.grad(scores, features)
        weighted = (gradient.mean((2, 3), keepdim=True) * features).sum(1).relu().detach().numpy()
        np.testing.assert_allclose(maps, weighted, rtol=1e-4, atol=1e-8)


def test_of_maps_that_are_all_small_the_last_of_the_largest_is_taken() -> None:
    from gossamer.report.gradcam import _with_resolution

    maps = [torch.zeros(1, 2, side, side) for side in (4, 4, 2, 1)]
    assert _with_resolution(maps) is maps[1]
    larger = [torch.zeros(1, 2, 14, 20), torch.zeros(1, 2, 7, 10), torch.zeros(1, 2, 4, 10)]
    assert _with_resolution(larger) is larger[1]


def test_the_heat_is_where_the_evidence_is() -> None:
    cam = np.zeros((4, 4), np.float32)
    cam[0, 3] = 2.0
    pixels = np.asarray(heat(Image.new("RGB", (64, 64), (90, 90, 90)), cam)).astype(int).sum(axis=2)
    assert pixels[4, 60] == pixels.max() > pixels[60, 4] + 100
    shown = mistake("x", np.zeros((32, 64, 1), np.uint8), cam, 0, 1, np.array([0.2, 0.8]))
    assert shown.peak == (0.875, 0.125) and shown.pixelated
    size = Image.open(io.BytesIO(b64decode(shown.overlay.split(",")[1]))).size
    assert size[0] == 2 * size[1], "the shape of the image is kept"


def test_a_map_without_evidence_or_without_numbers_is_shown_cold() -> None:
    for cam in (np.zeros((2, 2), np.float32), np.full((2, 2), np.nan, np.float32)):
        assert mistake("x", np.zeros((8, 8, 3), np.uint8), cam, 0, 1, np.array([0.2, 0.8])).peak is None

"""Attention to scale: the segmentation heads see the input at several scales and weigh them for each pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gossamer.analysis.cost import cost
from gossamer.blocks.attention import ScaleAttention
from gossamer.errors import SettingsError
from gossamer.settings import Settings
from gossamer.tasks.segment import Segment
from gossamer.tasks.segmentation.heads import HEADS, Segmenter

NET = {"width": 0.25, "small_input": False}


def segmenter(*scales: float, head: str = "lraspp") -> Segmenter:
    torch.manual_seed(0)
    return Segmenter("mobilenet_v2", 3, head=head, scale_attention=scales, channels=16, **NET)  # type: ignore[arg-type]


def test_weights_of_a_position_sum_to_1_and_see_every_map() -> None:
    torch.manual_seed(0)
    block = ScaleAttention(6, 3, reduced=8).eval()
    maps = [torch.randn(2, 6, side, side + 2) for side in (8, 6, 3)]
    weights = block(maps)
    assert weights.shape == (2, 3, 8, 10) and float(weights.detach().min()) > 0
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 8, 10))
    for index in range(3):
        others = [each + 1 if index == number else each for number, each in enumerate(maps)]
        assert not torch.equal(block(others), weights)
    same = nn.Identity()
    block.conv = same  # type: ignore[assignment]
    block.select = nn.Conv2d(18, 3, 1)
    enlarged = [F.interpolate(each, (8, 10), mode="bilinear", align_corners=False) for each in maps]
    torch.testing.assert_close(block(maps), block.select(torch.cat(enlarged, 1)).softmax(1))


@pytest.mark.parametrize("head", HEADS)
def test_the_result_is_the_weighed_sum_of_the_scales(head: str) -> None:
    network, x = segmenter(1.0, 0.5, head=head).eval().requires_grad_(False), torch.randn(2, 3, 64, 96)
    nn.init.normal_(network.attention.select.weight)
    got = network(x)
    assert set(got) == {"logits"}
    plain = segmenter(head=head).eval().requires_grad_(False)
    plain.load_state_dict(network.state_dict(), strict=False)
    large = plain(x)["logits"]
    small = plain(F.interpolate(x, (32, 48), mode="bilinear", align_corners=False))["logits"]
    small = F.interpolate(small, large.shape[-2:], mode="bilinear", align_corners=False)
    low, high = torch.minimum(large, small), torch.maximum(large, small)
    assert got["logits"].shape == large.shape
    assert bool(((got["logits"] >= low - 1e-5) & (got["logits"] <= high + 1e-5)).all())  # between the two, everywhere
    network.attention.select.bias.data.copy_(torch.tensor([100.0, 0.0]))  # type: ignore[union-attr]
    network.attention.select.weight.data.zero_()
    torch.testing.assert_close(network(x)["logits"], large)


def test_it_costs_a_network_a_scale_and_the_attention() -> None:
    plain, both = segmenter(), segmenter(1.0, 0.5)
    c = plain.backbone.feature_info[-1].channels
    more = sum(each.numel() for each in both.parameters()) - sum(each.numel() for each in plain.parameters())
    assert more == 9 * 2 * c * 64 + 2 * 64 + 64 * 2 + 2
    macs = [cost(plain, (1, 3, side, side)).macs for side in (64, 32)]
    positions = (64 // 16) ** 2
    assert cost(both, (1, 3, 64, 64)).macs == sum(macs) + (9 * 2 * c + 2) * 64 * positions


def test_each_scale_has_a_loss_and_every_parameter_learns() -> None:
    settings = Settings(
        task="segment", width=0.25, small_input=False, input="64", scale_attention=(1.0, 0.75), loss="cross_entropy"
    )
    task = Segment(("sky", "road"), settings)
    network, x = task.build(), torch.randn(2, 3, 64, 64)
    masks = [np.random.default_rng(seed).integers(0, 2, (64, 64)).astype(np.uint8) for seed in range(2)]
    outputs = network.train()(x)
    assert len(outputs["scale_logits"]) == 2
    loss = task.loss(outputs, masks, x)
    alone = task.criterion({"logits": outputs["logits"]}, torch.from_numpy(np.stack(masks)))
    each = [task.criterion({"logits": one}, torch.from_numpy(np.stack(masks))) for one in outputs["scale_logits"]]
    torch.testing.assert_close(loss, alone + settings.aux_weight * sum(each))
    loss.mean().backward()
    assert not [name for name, one in network.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0]


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.0), (1.0, 0.0), (1.0, 3.0)])
def test_scales_that_do_not_fit_are_named(scales: tuple[float, ...]) -> None:
    with pytest.raises(SettingsError, match=r"two or more different scales"):
        segmenter(*scales)


def test_only_masks_take_scales() -> None:
    with pytest.raises(SettingsError, match="--task segment"):
        Settings(scale_attention=(1.0, 0.5))


@pytest.mark.full
def test_a_segmenter_with_scales_is_exported() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from gossamer.export.convert import to_onnx

    network, x = segmenter(1.0, 0.5).eval(), torch.randn(2, 3, 64, 64)
    session = onnxruntime.InferenceSession(io.BytesIO(to_onnx(network, (64, 64))).read())
    with torch.no_grad():
        expected = network(x)["logits"].numpy()
    np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], expected, rtol=1e-3, atol=1e-4)

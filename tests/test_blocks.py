"""The bricks: shapes, costs by hand, and what each is known for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gossamer.blocks.activation import ACTIVATIONS, activation
from gossamer.blocks.conv import ConvNormAct, DepthwiseSeparable
from gossamer.blocks.fire import Fire
from gossamer.blocks.head import ConvHead, LinearHead
from gossamer.blocks.initialise import initialise
from gossamer.blocks.residual import BasicBlock, InvertedResidual
from gossamer.blocks.shuffle import ShuffleDownUnit, ShuffleUnit, channel_shuffle
from gossamer.blocks.width import make_divisible
from gossamer.errors import UnknownNameError

H, W = 10, 14  # of the input; distinct, so that swapped axes cannot pass

COSTS: list[tuple[str, Callable[[], nn.Module], int, tuple[int, ...], int]] = [
    # name, block, input channels, output shape, MACs by hand
    ("conv 3x3 /2", lambda: ConvNormAct(6, 4, 3, stride=2), 6, (4, 5, 7), 9 * 6 * 4 * 5 * 7),
    ("conv 3x3, 2 groups", lambda: ConvNormAct(6, 4, 3, groups=2), 6, (4, 10, 14), 9 * 3 * 4 * 10 * 14),
    ("conv unpadded", lambda: ConvNormAct(6, 4, 3, padding=0), 6, (4, 8, 12), 9 * 6 * 4 * 8 * 12),
    ("separable /2", lambda: DepthwiseSeparable(6, 4, stride=2), 6, (4, 5, 7), (9 * 6 + 6 * 4) * 5 * 7),
    ("basic", lambda: BasicBlock(6, 6), 6, (6, 10, 14), 9 * 6 * (6 + 6) * 10 * 14),
    ("basic /2", lambda: BasicBlock(6, 4, stride=2), 6, (4, 5, 7), (9 * 4 * (6 + 4) + 6 * 4) * 5 * 7),
    (
        "inverted /2",
        lambda: InvertedResidual(6, 4, c_mid=36, stride=2, shortcut=False),
        6,
        (4, 5, 7),
        6 * 36 * 10 * 14 + (9 * 36 + 36 * 4) * 5 * 7,
    ),
    (
        "inverted, unexpanded",
        lambda: InvertedResidual(6, 4, c_mid=None, stride=1, shortcut=False),
        6,
        (4, 10, 14),
        (9 * 6 + 6 * 4) * 10 * 14,
    ),
    ("fire", lambda: Fire(6, squeeze=2, expand1=3, expand3=5), 6, (8, 10, 14), 2 * (6 + 3 + 9 * 5) * 10 * 14),
    ("shuffle unit", lambda: ShuffleUnit(12), 12, (12, 10, 14), (2 * 6 * 6 + 9 * 6) * 10 * 14),
    (
        "shuffle /2",
        lambda: ShuffleDownUnit(6, 20, c_left=6),
        6,
        (20, 5, 7),
        10 * 6 * 10 * 14 + (9 * 10 + 10 * (20 - 6)) * 5 * 7 + (9 * 6 + 6 * 6) * 5 * 7,
    ),
    ("linear head", lambda: LinearHead(6, 4), 6, (4,), 6 * 4),
    ("conv head", lambda: ConvHead(6, 4, padding=1), 6, (4,), 6 * 4 * 12 * 16),
]


@pytest.mark.parametrize(("name", "build", "c_in", "shape", "cost"), COSTS, ids=[row[0] for row in COSTS])
def test_shape_and_cost_are_those_of_the_docstring(
    name: str, build: Callable[[], nn.Module], c_in: int, shape: tuple[int, ...], cost: int
) -> None:
    block = build().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = block(torch.randn(1, c_in, H, W))
    assert tuple(out.shape[1:]) == shape
    assert counter.get_total_flops() == 2 * cost


@given(st.floats(0.1, 5000), st.sampled_from([1, 4, 8, 16]))
def test_make_divisible_stays_a_multiple_and_near(channels: float, divisor: int) -> None:
    result = make_divisible(channels, divisor)
    assert result % divisor == 0 and result >= divisor
    assert result >= 0.9 * channels
    assert result == divisor or result <= channels + divisor


def test_make_divisible_rounds_as_the_published_widths_need() -> None:
    assert [make_divisible(c * 0.35) for c in (16, 24, 32, 64, 96, 160, 320)] == [8, 8, 16, 24, 32, 56, 112]
    assert make_divisible(32 * 0.35) == 16  # 8 would be more than 10 % below 11.2
    assert make_divisible(12) == 16  # halves go up


def test_channel_shuffle_interleaves_the_groups() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1, 1).expand(2, 6, 3, 4)
    assert channel_shuffle(x, 2)[1, :, 2, 3].tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(x, 3)[0, :, 0, 0].tolist() == [0, 2, 4, 1, 3, 5]


def test_channel_shuffle_keeps_positions() -> None:
    x = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(channel_shuffle(x, 2).sum(1), x.sum(1))


def test_a_shuffle_unit_passes_half_of_its_channels_on() -> None:
    unit = ShuffleUnit(8).eval()
    x = torch.randn(1, 8, 3, 3)
    assert torch.equal(unit(x)[:, 0::2], x[:, :4])


def test_the_inverted_residual_ends_linear_and_adds_its_input() -> None:
    block = InvertedResidual(4, 4, c_mid=8, stride=1, shortcut=True).eval()
    plain = InvertedResidual(4, 4, c_mid=8, stride=1, shortcut=False).eval()
    plain.load_state_dict(block.state_dict())
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(block(x), x + plain(x))
    assert bool((plain(x) < 0).any())


def test_a_block_leaves_its_input_as_it_was() -> None:
    for _, build, c_in, _, _ in COSTS:
        x = torch.randn(2, c_in, H, W)
        kept = x.clone()
        build()(x)
        assert torch.equal(x, kept)


def test_a_convolution_has_a_bias_where_no_norm_follows() -> None:
    assert [name for name, _ in ConvNormAct(3, 4, norm=False).named_parameters()] == ["conv.weight", "conv.bias"]
    assert [name for name, _ in ConvNormAct(3, 4, act=None).named_children()] == ["conv", "norm"]


def test_every_activation_has_its_name() -> None:
    x = torch.tensor([-1.0, 3.0, 7.0])
    assert activation("relu")(x.clone()).tolist() == [0, 3, 7]
    assert activation("relu6")(x.clone()).tolist() == [0, 3, 6]
    with pytest.raises(UnknownNameError, match="relu6"):
        activation("relu_6")
    for name in ACTIVATIONS:
        layer = activation(name).eval()
        y = layer(torch.linspace(-4, 4, 9))
        assert y.shape == (9,) and bool(torch.isfinite(y).all())
        assert bool((y[1:] >= y[:-1]).all()) or name in ("gelu", "silu", "mish", "hard_swish")  # the only ones that dip


def test_fresh_weights_have_the_spread_of_their_fan() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(ConvNormAct(64, 128, 3, groups=4), ConvNormAct(128, 32, 3, norm=False), nn.Linear(500, 100))
    initialise(block)
    grouped, biased, linear = block[0].conv.weight, block[1].conv.weight, block[2].weight
    assert float(grouped.detach().std()) == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.05)  # 128 / 4 outputs
    assert float(biased.detach().std()) == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.05)  # 128 inputs
    assert float(linear.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert float(block[1].conv.bias.detach().abs().max()) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu6_in_place_has_the_bits_and_the_gradient_of_torchs_own(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (torch.randn(2, 3, 5, 7) * 5).to(dtype)
    x.view(-1)[:4] = torch.tensor([0.0, 6.0, -0.0, float("inf")])
    gradient = torch.randn(2, 3, 5, 7).to(dtype)
    results = []
    for act in (activation("relu6"), torch.nn.ReLU6(inplace=True)):
        leaf = x.clone().requires_grad_()
        y = act(leaf * 1)
        y.backward(gradient)
        results.append((y.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])

"""The bricks: shapes, costs by hand, and what each is known for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gossamer.blocks.activation import ACTIVATIONS, activation
from gossamer.blocks.attention import (
    Cbam,
    ChannelAttention,
    SelectiveKernel,
    SelfAttention2d,
    SpatialAttention,
    SqueezeExcite,
)
from gossamer.blocks.conv import ConvNormAct, DepthwiseSeparable
from gossamer.blocks.deform import DeformableConv2d, deform_conv2d
from gossamer.blocks.factorised import AsymmetricPair, StackedConv
from gossamer.blocks.fire import Fire
from gossamer.blocks.ghost import Ghost, GhostBottleneck
from gossamer.blocks.head import ConvHead, LinearHead, conv_head_of
from gossamer.blocks.inception import (
    GridReduction,
    Inception,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionResidual,
)
from gossamer.blocks.initialise import initialise, initialise_classifier
from gossamer.blocks.pool import DilatedAvgPool2d, average_to
from gossamer.blocks.residual import (
    BasicBlock,
    InvertedResidual,
    PreActBlock,
    ResidualAndTransient,
    UniversalInvertedBottleneck,
)
from gossamer.blocks.shuffle import GroupShuffleUnit, ShuffleDownUnit, ShuffleUnit, channel_shuffle
from gossamer.blocks.upsample import Upsample
from gossamer.blocks.width import make_divisible
from gossamer.errors import SettingsError, UnknownNameError


def _cell(c1: int) -> int:
    """Positions of the map times c1."""
    return H * W * c1


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
    ("asymmetric pair", lambda: AsymmetricPair(6, 4, 7), 6, (4, 10, 14), 7 * (6 + 4) * 4 * 10 * 14),
    ("stacked 7x7", lambda: StackedConv(6, 4, 7), 6, (4, 10, 14), 9 * (6 + 2 * 4) * 4 * 10 * 14),
    ("nearest", lambda: Upsample(6, 2, mode="nearest"), 6, (6, 20, 28), 0),
    ("bilinear x3", lambda: Upsample(6, 3), 6, (6, 30, 42), 0),
    ("transposed", lambda: Upsample(6, 2, mode="transposed"), 6, (6, 20, 28), 16 * 6 * 10 * 14),
    ("deformable 1", lambda: DeformableConv2d(6, 4, modulated=False), 6, (4, 10, 14), 9 * 6 * (4 + 18) * 10 * 14),
    (
        "deformable 2 /2, 2 groups",
        lambda: DeformableConv2d(6, 4, stride=2, groups=2, offset_groups=3),
        6,
        (4, 5, 7),
        9 * (6 * 4 // 2 + 6 * 81) * 5 * 7,
    ),
    ("channel attention", lambda: ChannelAttention(6, 2), 6, (6, 10, 14), 4 * 6 * 2),
    ("spatial attention", lambda: SpatialAttention(7), 6, (6, 10, 14), 2 * 49 * 10 * 14),
    ("cbam", lambda: Cbam(6, 2), 6, (6, 10, 14), 4 * 6 * 2 + 2 * 49 * 10 * 14),
    (
        "selective kernel /2",
        lambda: SelectiveKernel(6, 4, reduced=3, stride=2, groups=2),
        6,
        (4, 5, 7),
        2 * 9 * 3 * 4 * 5 * 7 + 4 * 3 * 3,
    ),
    (
        "self-attention",
        lambda: SelfAttention2d(8, reduction=2),
        8,
        (8, 10, 14),
        8 * (2 * 4 + 2 * 8) * 140 + 140 * 140 * (4 + 8),
    ),
    (
        "inception",
        lambda: Inception(6, c1x1=2, c3x3=(3, 4), c5x5=(2, 3), pool=5),
        6,
        (14, 10, 14),
        _cell(6 * 2 + 6 * 3 + 9 * 3 * 4 + 6 * 2 + 25 * 2 * 3 + 6 * 5),
    ),
    (
        "inception A",
        lambda: InceptionA(6, c1x1=2, single=(3, 4), double=(2, 3, 5), pool=1),
        6,
        (12, 10, 14),
        _cell(6 * 2 + 6 * 3 + 9 * 3 * 4 + 6 * 2 + 9 * 2 * 3 + 9 * 3 * 5 + 6),
    ),
    (
        "inception B",
        lambda: InceptionB(6, c1x1=2, single=(2, 3, 4), double=(1, 2, 3, 4, 5), pool=1),
        6,
        (12, 10, 14),
        _cell(6 * 2 + 6 * 2 + 7 * 6 + 7 * 12 + 6 + 7 * 2 + 7 * 6 + 7 * 12 + 7 * 20 + 6),
    ),
    (
        "inception C",
        lambda: InceptionC(6, c1x1=2, single=3, double=((2, 1), (4, 3)), fork=5, pool=1),
        6,
        (23, 10, 14),
        _cell(6 * 2 + 6 * 3 + 2 * 3 * 3 * 5 + 6 * 2 + 9 * 2 * 4 + 2 * 3 * 4 * 5 + 6),
    ),
    (
        "grid reduction",
        lambda: GridReduction(6, ((4, 3),), ((2, 1), (3, 3))),
        6,
        (13, 4, 6),
        9 * 6 * 4 * 24 + _cell(6 * 2) + 9 * 2 * 3 * 24,
    ),
    (
        "inception residual",
        lambda: InceptionResidual(6, ((2, 1),), ((3, 1), (4, 3)), scale=0.1),
        6,
        (6, 10, 14),
        _cell(6 * 2 + 6 * 3 + 9 * 3 * 4 + 6 * 6),
    ),
    ("pre-activation /2", lambda: PreActBlock(6, 4, stride=2), 6, (4, 5, 7), (9 * 4 * (6 + 4) + 6 * 4) * 5 * 7),
    (
        "pre-activation bottleneck",
        lambda: PreActBlock(6, 6, c_mid=2),
        6,
        (6, 10, 14),
        _cell(6 * 2 + 9 * 2 * 2 + 2 * 6),
    ),
    ("rir /2", lambda: ResidualAndTransient(6, 4, stride=2), 12, (8, 5, 7), 37 * 6 * 4 * 5 * 7),
    (
        "universal /2",
        lambda: UniversalInvertedBottleneck(6, 4, c_mid=12, start=5, kernel=3, stride=2),
        6,
        (4, 5, 7),
        _cell(25 * 6 + 6 * 12) + (9 * 12 + 12 * 4) * 5 * 7,
    ),
    (
        "universal without the second depthwise",
        lambda: UniversalInvertedBottleneck(6, 4, c_mid=12, start=3, kernel=0, stride=2),
        6,
        (4, 5, 7),
        (9 * 6 + 6 * 12 + 12 * 4) * 5 * 7,
    ),
    ("ghost", lambda: Ghost(6, 5), 6, (5, 10, 14), _cell(6 * 3 + 9 * 3)),
    (
        "ghost bottleneck /2",
        lambda: GhostBottleneck(6, 4, c_mid=8, kernel=5, stride=2, strided=True),
        6,
        (4, 5, 7),
        _cell(6 * 4 + 9 * 4) + (25 * 8 + 8 * 2 + 9 * 2 + 25 * 6 + 6 * 4) * 5 * 7,
    ),
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


def test_a_classifier_starts_with_every_class_as_likely() -> None:
    torch.manual_seed(0)
    for layer in (nn.Linear(50, 40), nn.Conv2d(50, 40, 1)):
        nn.init.constant_(layer.bias, 3.0)
        initialise_classifier(layer)
        assert not layer.bias.detach().any()
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    initialise_classifier(nn.Linear(5, 4, bias=False))  # has nothing to set to 0
    norm = nn.BatchNorm1d(3)
    nn.init.constant_(norm.bias, 3.0)
    initialise(norm)
    assert not norm.bias.detach().any() and (norm.weight == 1).all()


def test_blocks_keep_the_size_of_a_map_unless_they_are_told_otherwise() -> None:
    x = torch.zeros(1, 8, 6, 10)
    for block in (
        ConvNormAct(8, 8, 3),
        DepthwiseSeparable(8, 8),
        BasicBlock(8, 8),
        PreActBlock(8, 8),
        ResidualAndTransient(4, 4),
        DeformableConv2d(8, 8),
    ):
        assert block(x).shape == x.shape, block


def test_what_a_block_is_without_options() -> None:
    """A bias as torch's convolution, a shortcut that is added, a pool without padding."""
    x = torch.rand(1, 8, 6, 10)
    assert {name for name, _ in DeformableConv2d(8, 6).named_parameters() if "." not in name} == {"weight", "bias"}
    assert DeformableConv2d(8, 6, bias=False).bias is None
    unit = GroupShuffleUnit(8, 8, groups=2, first_groups=2).eval()
    assert torch.equal(unit(x), unit.act(x + unit.conv2(unit.depthwise(channel_shuffle(unit.conv1(x), 2)))))
    torch.testing.assert_close(DilatedAvgPool2d(3)(x), F.avg_pool2d(x, 3, 1))
    torch.testing.assert_close(DilatedAvgPool2d(3, padding=1)(x), F.avg_pool2d(x, 3, 1, 1))
    dilated = F.avg_pool2d(x[..., ::2, ::2], 2, 1)
    torch.testing.assert_close(DilatedAvgPool2d(2, dilation=2)(x)[..., ::2, ::2], dilated)


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


# deformable convolution


def plain_deform(
    x: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    mask: torch.Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
) -> torch.Tensor:
    """The papers' equations, one product at a time."""
    n, c_in, height, width = x.shape
    c_out, c_group, k, _ = weight.shape
    h, w = offset.shape[2:]
    offset_groups = offset.shape[1] // (2 * k * k)
    out = x.new_zeros(n, c_out, h, w)

    def at(image: torch.Tensor, y: float, x_: float) -> torch.Tensor:
        total = image.new_zeros(())
        for row in (int(y // 1), int(y // 1) + 1):
            for column in (int(x_ // 1), int(x_ // 1) + 1):
                if 0 <= row < height and 0 <= column < width:
                    total = total + (1 - abs(y - row)) * (1 - abs(x_ - column)) * image[row, column]
        return total

    for i in range(n):
        for o in range(c_out):
            for c in range(c_group):
                channel = o // (c_out // (c_in // c_group)) * c_group + c
                g = channel // (c_in // offset_groups)
                for p in range(k * k):
                    for row in range(h):
                        for column in range(w):
                            place = g * k * k + p
                            y = row * stride - padding + p // k * dilation + float(offset[i, 2 * place, row, column])
                            z = (
                                column * stride
                                - padding
                                + p % k * dilation
                                + float(offset[i, 2 * place + 1, row, column])
                            )
                            factor = 1 if mask is None else mask[i, place, row, column]
                            out[i, o, row, column] += weight[o, c, p // k, p % k] * factor * at(x[i, channel], y, z)
    return out


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_convolution_is_the_papers_sum(stride: int, padding: int, dilation: int, modulated: bool) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 5, 6, dtype=torch.float64), torch.randn(2, 2, 3, 3, dtype=torch.float64)
    h, w = F.conv2d(x[:, :2], weight, stride=stride, padding=padding, dilation=dilation).shape[2:]
    offset = 2 * torch.randn(2, 2 * 2 * 9, h, w, dtype=torch.float64)
    mask = torch.rand(2, 2 * 9, h, w, dtype=torch.float64) if modulated else None
    got = deform_conv2d(x, offset, weight, stride=stride, padding=padding, dilation=dilation, mask=mask)
    torch.testing.assert_close(got, plain_deform(x, offset, weight, mask, stride, padding, dilation))


def test_deformable_convolution_has_the_right_gradients() -> None:
    torch.manual_seed(0)
    like = {"dtype": torch.float64, "requires_grad": True}
    x, weight, bias = torch.randn(1, 2, 4, 4, **like), torch.randn(2, 2, 3, 3, **like), torch.randn(2, **like)
    # away from integer positions, where interpolation has a corner
    offset = (torch.rand(1, 18, 4, 4, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    mask = torch.rand(1, 9, 4, 4, **like)

    def run(*tensors: torch.Tensor) -> torch.Tensor:
        return deform_conv2d(*tensors[:4], padding=1, mask=tensors[4])

    assert torch.autograd.gradcheck(run, (x, offset, weight, bias, mask))


def test_a_fresh_deformable_convolution_is_a_plain_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 7, 9)
    for modulated in (False, True):
        layer = DeformableConv2d(4, 6, stride=2, groups=2, modulated=modulated)
        plain = F.conv2d(x, layer.weight * (0.5 if modulated else 1), layer.bias, stride=2, padding=1, groups=2)
        torch.testing.assert_close(layer(x), plain)


def test_deformable_convolution_names_the_shape_it_wants() -> None:
    x, weight = torch.zeros(1, 2, 5, 5), torch.zeros(2, 2, 3, 3)
    with pytest.raises(SettingsError, match=r"\(N, 18 \* groups, 3, 3\)"):
        deform_conv2d(x, torch.zeros(1, 18, 5, 5), weight)
    with pytest.raises(SettingsError, match="mask of shape"):
        deform_conv2d(x, torch.zeros(1, 18, 3, 3), weight, mask=torch.zeros(1, 3, 3, 3))


# attention, heads, up-sampling


def test_self_attention_is_that_of_torch_and_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    block, x = SelfAttention2d(8, reduction=2), torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(block(x), x)
    block.scale.data.fill_(0.5)
    query, key, value = (layer(x).flatten(2).transpose(1, 2) for layer in (block.query, block.key, block.value))
    seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(block(x), x + 0.5 * block.project(seen))


def test_attention_weighs_between_0_and_1() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 8, 5, 5) + 0.1
    for block in (ChannelAttention(8, 2), SpatialAttention(3), SqueezeExcite(8, 2), Cbam(8, 2)):
        ratio = (block.eval()(x) / x).detach()
        assert float(ratio.min()) > 0 and float(ratio.max()) < 1
    spread = ChannelAttention(8, 2)(x) / x
    torch.testing.assert_close(spread, spread[:, :, :1, :1].expand_as(x))  # one weight a channel
    spread = SpatialAttention(3)(x) / x
    torch.testing.assert_close(spread, spread[:, :1].expand_as(x))  # one weight a position


def test_selective_kernels_weigh_their_paths_to_1() -> None:
    torch.manual_seed(0)
    block, x = SelectiveKernel(4, 4, reduced=3).eval(), torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        for path in block.paths:
            path.load_state_dict(block.paths[0].state_dict())
            path.conv.dilation, path.conv.padding = (1, 1), (1, 1)
        torch.testing.assert_close(block(x), block.paths[0](x))  # equal paths: whatever the weights


def test_a_linear_head_and_its_1x1_convolution_compute_the_same() -> None:
    torch.manual_seed(0)
    for bias in (True, False):
        head = LinearHead(6, 5, bias=bias, drop_rate=0.5).eval()
        conv_head, x = conv_head_of(head), torch.randn(3, 6, 4, 7)
        torch.testing.assert_close(conv_head(x), head(x))
        torch.testing.assert_close(conv_head(x, pre_logits=True), head(x, pre_logits=True))
        assert conv_head.drop.p == 0.5 and not conv_head.training
    assert conv_head_of(LinearHead(6, 0))(x).shape == (3, 6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_transposed_upsampling_starts_as_bilinear_interpolation(scale: int) -> None:
    x = torch.randn(1, 2, 6, 7)
    got, expected = Upsample(2, scale, mode="transposed")(x), Upsample(2, scale)(x)
    inside = slice(scale, -scale)  # at the border interpolation repeats the edge, and the convolution sees zeros
    torch.testing.assert_close(got[..., inside, inside], expected[..., inside, inside])
    fresh = Upsample(2, scale, mode="transposed")
    initialise(fresh)
    torch.testing.assert_close(fresh(x), got)
    with pytest.raises(UnknownNameError, match="nearest"):
        Upsample(2, mode="bicubic")


def test_factorised_kernels_see_as_far_as_the_large_one() -> None:
    x = torch.zeros(1, 1, 15, 15, requires_grad=True)
    for block in (StackedConv(1, 1, 7, act=None), AsymmetricPair(1, 1, 7, act=None), nn.Conv2d(1, 1, 7, padding=3)):
        nn.init.ones_(next(p for p in block.parameters() if p.dim() == 4))
        (seen,) = torch.autograd.grad(block.eval()(x)[0, 0, 7, 7], x)
        rows, columns = seen[0, 0].nonzero().unbind(1)
        assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (4, 10, 4, 10)


@given(st.integers(1, 8), st.integers(8, 30), st.integers(8, 30))
def test_average_to_is_adaptive_pooling(side: int, height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    torch.testing.assert_close(average_to(x, side), F.adaptive_avg_pool2d(x, side))
    small = x[..., :side, : side + 1]
    torch.testing.assert_close(average_to(small, side + 1), F.adaptive_avg_pool2d(small, side + 1))

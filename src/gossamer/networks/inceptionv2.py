"""BN-Inception, or Inception v2. Ioffe and Szegedy, Batch Normalization, 2015, arXiv 1502.03167, figures 4 and 5.

(The Inception-v2 of 1512.00567 is another network.) The paper's table contradicts itself: 4c and 4d print 576 channels,
while their columns sum to 608. `projection=128` takes the columns, 96 the printed widths, as TF-slim does. The 7x7 of
the stem is separable with 8 depthwise filters a channel; `stem="full"` has the plain convolution, as pytorchcv does.
small_input: stride 1 in the stem; the max pool after it is left out.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, NamedTuple

from torch import nn

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import LinearHead
from gossamer.blocks.inception import Branches, GridReduction, InceptionA, scale_channels
from gossamer.errors import UnknownNameError
from gossamer.networks.base import Network
from gossamer.networks.builder import Builder


class Row(NamedTuple):
    """One module: 1x1; 3x3 reduce, 3x3; double 3x3 reduce, double 3x3; pool projection and its pool."""

    c1x1: int
    single: tuple[int, int]
    double: tuple[int, int]
    pool: int
    max_pool: bool = False


class ReductionRow(NamedTuple):
    """A strided module: no 1x1, and the pool passes its input through."""

    single: tuple[int, int]
    double: tuple[int, int]


STEM, DEPTH_MULTIPLIER, CONV2 = 64, 8, (64, 192)
STAGES: tuple[tuple[Row | ReductionRow, ...], ...] = (
    (Row(64, (64, 64), (64, 96), 32), Row(64, (64, 96), (64, 96), 64)),  # 3a 3b
    (
        ReductionRow((128, 160), (64, 96)),  # 3c
        Row(224, (64, 96), (96, 128), 128),  # 4a
        Row(192, (96, 128), (96, 128), 128),  # 4b
        Row(160, (128, 160), (128, 160), 128),  # 4c
        Row(96, (128, 192), (160, 192), 128),  # 4d
    ),
    (
        ReductionRow((128, 192), (192, 256)),  # 4e
        Row(352, (192, 320), (160, 224), 128),  # 5a
        Row(352, (192, 320), (192, 224), 128, max_pool=True),  # 5b
    ),
)
DISPUTED = (STAGES[1][3], STAGES[1][4])  # 4c and 4d, whose pool projection is 128 or 96


def inception_v2(
    builder: Builder,
    *,
    stem: Literal["separable", "full"] = "separable",
    projection: int = 128,
    bias: bool = False,
    width: float = 1.0,
) -> Network:
    """BN-Inception; `width` scales every layer but the classifier. stem: the 7x7, separable or full. projection: channels after the pool of 4c and 4d.

    bias: of the convolutions before batch norms, where it has no effect; pytorchcv's weights have it.
    Raises UnknownNameError for another stem.
    """
    if stem not in ("separable", "full"):
        raise UnknownNameError("stem of BN-Inception", stem, ("separable", "full"))
    c_in, reduce, c = (scale_channels(channels, width) for channels in (STEM, *CONV2))
    builder.stem(_stem(builder, stem, c_in), c_in)
    conv2 = [ConvNormAct(c_in, reduce), ConvNormAct(reduce, c, 3)]
    builder.stage(conv2, c, pool=builder.max_pool(padding=0, ceil_mode=True))
    for index, rows in enumerate(STAGES):
        blocks: list[nn.Module] = []
        for row in rows:
            block: Branches
            wide = row.double[1]
            if isinstance(row, ReductionRow):
                single, double = tuple(zip(row.single, (1, 3))), ((row.double[0], 1), (wide, 3), (wide, 3))
                block = GridReduction(c, single, double, stride=builder.stride(2), padding=1, width=width)
            else:
                block = InceptionA(
                    c,
                    c1x1=row.c1x1,
                    single=row.single,
                    double=(row.double[0], wide, wide),
                    pool=projection if row in DISPUTED else row.pool,
                    pooling=nn.MaxPool2d(3, 1, padding=1) if row.max_pool else None,
                    width=width,
                )
            blocks.append(block)
            c = block.channels
        builder.stage(blocks, c, pool=builder.max_pool(padding=0, ceil_mode=True) if index == 0 else None)
    network = builder.network(LinearHead(c, builder.num_classes, drop_rate=builder.drop_rate))
    return _with_bias(network) if bias else network


def _stem(builder: Builder, kind: str, c_out: int) -> nn.Module:
    """7x7 to c_out channels, by way of 8 depthwise filters a channel where it is separable."""
    stride = builder.stride(2)
    if kind == "full":
        return ConvNormAct(builder.in_chans, c_out, 7, stride=stride)
    c = builder.in_chans * DEPTH_MULTIPLIER
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["depthwise"] = ConvNormAct(
        builder.in_chans, c, 7, stride=stride, groups=builder.in_chans, bias=False, norm=False, act=None
    )
    parts["pointwise"] = ConvNormAct(c, c_out)
    return nn.Sequential(parts)


def _with_bias(network: Network) -> Network:
    """A bias of zeros for every convolution that has none."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is None:
            layer.bias = nn.Parameter(layer.weight.new_zeros(layer.out_channels))
    return network

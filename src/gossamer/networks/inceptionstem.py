"""The stem that Inception v3, v4 and Inception-ResNet share (1512.00567, table 1; 1602.07261, figures 3 and 14)."""

from __future__ import annotations

from torch import nn

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.inception import scale_channels
from gossamer.networks.builder import Builder

STEM, CONV = (32, 32, 64), (80, 192)


def add_stem(builder: Builder, width: float) -> int:
    """Three 3x3 convolutions, the first strided and the first two without padding; the channels they make."""
    first, second, third = (scale_channels(c, width) for c in STEM)
    layers = (
        ConvNormAct(builder.in_chans, first, 3, stride=builder.stride(2), padding=0),
        ConvNormAct(first, second, 3, padding=0),
        ConvNormAct(second, third, 3),
    )
    builder.stem(nn.Sequential(*layers), third)
    return third


def add_conv(builder: Builder, width: float) -> int:
    """The stage of a max pool, 1x1 and 3x3, without padding, which v4 has no part of; the channels it makes."""
    reduce, c = (scale_channels(c, width) for c in CONV)
    layers = [ConvNormAct(builder.channels, reduce), ConvNormAct(reduce, c, 3, padding=0)]
    builder.stage(layers, c, pool=builder.max_pool(padding=0))
    return c

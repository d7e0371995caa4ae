"""MobileNetV1. Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications, 2017, arXiv 1704.04861, table 1.

The table prints stride 2 for the last depthwise layer; its output size and its cost say 1. ReLU6 as in the
authors' code (tensorflow/models, slim); the paper writes ReLU.
small_input: stride 1 in the stem and in the first block of the second row.
"""

from __future__ import annotations

from typing import NamedTuple

from gossamer.blocks.conv import ConvNormAct, DepthwiseSeparable
from gossamer.blocks.head import LinearHead
from gossamer.blocks.width import make_divisible
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder


class Row(NamedTuple):
    """n depthwise separable blocks of c output channels, the first with stride s."""

    c: int
    n: int
    s: int


STEM = 32
BODY = (
    #   c     n  s
    Row(64, 1, 1),
    Row(128, 2, 2),
    Row(256, 2, 2),
    Row(512, 6, 2),
    Row(1024, 2, 2),
)

TIMM = KeyMapping(
    "timm",
    (
        (r"^conv_stem\.", "stem.conv."),
        (r"^bn1\.", "stem.norm."),
        (r"^blocks\.", "stages."),
        (r"\.conv_dw\.", ".depthwise.conv."),
        (r"\.bn1\.", ".depthwise.norm."),
        (r"\.conv_pw\.", ".pointwise.conv."),
        (r"\.bn2\.", ".pointwise.norm."),
        (r"^classifier\.", "head.classifier."),
    ),
)


def mobilenet_v1(builder: Builder, *, width: float = 1.0) -> Network:
    """MobileNetV1; `width` is the paper's alpha (section 3.3)."""
    c_in = make_divisible(STEM * width)
    builder.stem(ConvNormAct(builder.in_chans, c_in, 3, stride=builder.stride(2), act="relu6"), c_in)
    for row in BODY:
        c = make_divisible(row.c * width)
        strides = [builder.stride(row.s)] + [1] * (row.n - 1)
        inputs = [builder.channels] + [c] * (row.n - 1)
        builder.stage([DepthwiseSeparable(c_in, c, stride=s) for c_in, s in zip(inputs, strides)], c)
    head = LinearHead(builder.channels, builder.num_classes, drop_rate=builder.drop_rate)
    return builder.network(head, key_mappings=(TIMM,))

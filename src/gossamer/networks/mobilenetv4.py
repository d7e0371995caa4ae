"""MobileNetV4 of convolutions. Qin et al., MobileNetV4: Universal Models for the Mobile Ecosystem, 2024,
arXiv 2404.10518, tables 11 (small), 12 (medium) and 13 (large).

small_input: stride 1 in the stem and in the next strided block.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from torch import nn

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import BodyHead
from gossamer.blocks.residual import UniversalInvertedBottleneck
from gossamer.blocks.width import make_divisible
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder


class Conv(NamedTuple):
    """A k x k convolution to exp channels, then 1x1 to c; a fused inverted bottleneck, where `linear`, has no ReLU there."""

    k: int
    exp: int
    c: int
    s: int
    linear: bool = False


class Uib(NamedTuple):
    """n universal inverted bottlenecks: kernels before and after the expansion t, channels c, stride s."""

    start: int
    k: int
    t: int
    c: int
    s: int = 1
    n: int = 1


Stage = tuple[Conv | Uib, ...]


class Size(NamedTuple):
    """Channels of the stem, and the stages."""

    stem: int
    stages: tuple[Stage, ...]


LAST, HIDDEN = 960, 1280
SIZES = {
    "small": Size(
        32,
        (
            (Conv(3, 32, 32, 2),),
            (Conv(3, 96, 64, 2),),
            (Uib(5, 5, 3, 96, 2), Uib(0, 3, 2, 96, n=4), Uib(3, 0, 4, 96)),
            (
                Uib(3, 3, 6, 128, 2),
                Uib(5, 5, 4, 128),
                Uib(0, 5, 4, 128),
                Uib(0, 5, 3, 128),
                Uib(0, 3, 4, 128, n=2),
            ),
        ),
    ),
    "medium": Size(
        32,
        (
            (Conv(3, 128, 48, 2, linear=True),),
            (Uib(3, 5, 4, 80, 2), Uib(3, 3, 2, 80)),
            (
                Uib(3, 5, 6, 160, 2),
                Uib(3, 3, 4, 160, n=2),
                Uib(3, 5, 4, 160),
                Uib(3, 3, 4, 160),
                Uib(3, 0, 4, 160),
                Uib(0, 0, 2, 160),
                Uib(3, 0, 4, 160),
            ),
            (
                Uib(5, 5, 6, 256, 2),
                Uib(5, 5, 4, 256),
                Uib(3, 5, 4, 256, n=2),
                Uib(0, 0, 4, 256),
                Uib(3, 0, 4, 256),
                Uib(3, 5, 2, 256),
                Uib(5, 5, 4, 256),
                Uib(0, 0, 4, 256, n=2),
                Uib(5, 0, 2, 256),
            ),
        ),
    ),
    "large": Size(
        24,
        (
            (Conv(3, 96, 48, 2, linear=True),),
            (Uib(3, 5, 4, 96, 2), Uib(3, 3, 4, 96)),
            (
                Uib(3, 5, 4, 192, 2),
                Uib(3, 3, 4, 192, n=3),
                Uib(3, 5, 4, 192),
                Uib(5, 3, 4, 192, n=5),
                Uib(3, 0, 4, 192),
            ),
            (
                Uib(5, 5, 4, 512, 2),
                Uib(5, 5, 4, 512, n=3),
                Uib(5, 0, 4, 512),
                Uib(5, 3, 4, 512),
                Uib(5, 0, 4, 512, n=2),
                Uib(5, 3, 4, 512),
                Uib(5, 5, 4, 512),
                Uib(5, 0, 4, 512, n=3),
            ),
        ),
    ),
}

TIMM = KeyMapping(
    "timm",
    (
        (r"^conv_stem\.", "stem.conv."),
        (r"^bn1\.", "stem.norm."),
        (r"^blocks\.4\.0\.conv\.", "conv_head.conv."),
        (r"^blocks\.4\.0\.bn1\.", "conv_head.norm."),
        (r"^blocks\.0\.0\.conv_exp\.", "stages.0.0.0.conv."),
        (r"^blocks\.0\.0\.conv_pwl\.", "stages.0.0.1.conv."),
        (r"^blocks\.0\.0\.bn2\.", "stages.0.0.1.norm."),
        (r"^blocks\.([01])\.(\d)\.conv\.", r"stages.\1.0.\2.conv."),
        (r"^blocks\.0\.0\.bn1\.", "stages.0.0.0.norm."),
        (r"^blocks\.([01])\.(\d)\.bn1\.", r"stages.\1.0.\2.norm."),
        (r"^blocks\.", "stages."),
        (r"\.dw_start\.", ".start."),
        (r"\.pw_exp\.", ".expand."),
        (r"\.dw_mid\.", ".depthwise."),
        (r"\.pw_proj\.", ".project."),
        (r"\.bn\.", ".norm."),
        (r"^conv_head\.weight", "head.body.hidden.conv.weight"),
        (r"^norm_head\.", "head.body.hidden.norm."),
        (r"^classifier\.", "head.classifier."),
    ),
)


def mobilenet_v4(builder: Builder, *, size: str, width: float = 1.0) -> Network:
    """MobileNetV4-Conv "small", "medium" or "large"; `width` is the width multiplier."""
    stem, stages = SIZES[size]
    c_in = make_divisible(stem * width)
    builder.stem(ConvNormAct(builder.in_chans, c_in, 3, stride=builder.stride(2)), c_in)
    for rows in stages:
        blocks: list[nn.Module] = []
        for row in rows:
            c = make_divisible(row.c * width)
            if isinstance(row, Conv):
                wide = make_divisible(row.exp * width)
                first = ConvNormAct(c_in, wide, row.k, stride=builder.stride(row.s))
                blocks.append(nn.Sequential(first, ConvNormAct(wide, c, act=None if row.linear else "relu")))
                c_in = c
                continue
            for index in range(row.n):
                s = row.s if index == 0 else 1
                blocks.append(
                    UniversalInvertedBottleneck(
                        c_in,
                        c,
                        c_mid=make_divisible(c_in * row.t),
                        start=row.start,
                        kernel=row.k,
                        stride=builder.stride(s),
                        strided=s > 1,
                    )
                )
                c_in = c
        builder.stage(blocks, c_in)
    c = make_divisible(LAST * width)
    body = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), hidden=ConvNormAct(c, HIDDEN), flatten=nn.Flatten())
    head = BodyHead(nn.Sequential(body), HIDDEN, builder.num_classes, drop_rate=builder.drop_rate)
    return builder.network(head, conv_head=ConvNormAct(c_in, c), key_mappings=(TIMM,))

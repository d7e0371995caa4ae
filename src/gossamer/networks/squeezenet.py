"""SqueezeNet. Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and < 0.5MB model size,
2016, arXiv 1602.07360, table 1 (1.0); the authors' repository, forresti/SqueezeNet (1.1).

No norm anywhere; pools round up; the strides end at 16.
small_input: stride 1 in the stem; the max pool after it is left out: 4 in all.
"""

from __future__ import annotations

from typing import NamedTuple

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.fire import Fire
from gossamer.blocks.head import ConvHead
from gossamer.blocks.width import make_divisible
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder


class Row(NamedTuple):
    """One fire module: squeeze 1x1, expand 1x1 and expand 3x3 filters."""

    s1x1: int
    e1x1: int
    e3x3: int


class SqueezeNetVersion(NamedTuple):
    """Filters and kernel of conv1; the fire modules by stage, a max pool before each; torchvision's numbers of them."""

    conv1: int
    kernel: int
    stages: tuple[tuple[Row, ...], ...]
    torchvision: tuple[int, ...]


FIRE2, FIRE4, FIRE6, FIRE8 = Row(16, 64, 64), Row(32, 128, 128), Row(48, 192, 192), Row(64, 256, 256)
VERSIONS = {
    "1.0": SqueezeNetVersion(
        96,
        7,
        ((FIRE2, FIRE2, FIRE4), (FIRE4, FIRE6, FIRE6, FIRE8), (FIRE8,)),
        (3, 4, 5, 7, 8, 9, 10, 12),
    ),
    "1.1": SqueezeNetVersion(
        64,
        3,
        ((FIRE2, FIRE2), (FIRE4, FIRE4), (FIRE6, FIRE6, FIRE8, FIRE8)),
        (3, 4, 6, 7, 9, 10, 11, 12),
    ),
}

TORCHVISION = (
    (r"^features\.0\.", "stem.conv."),
    (r"\.(squeeze|expand1x1|expand3x3)\.", r".\1.conv."),
    (r"^classifier\.1\.", "head.classifier."),
)


def squeezenet(builder: Builder, *, version: str, width: float = 1.0, head_padding: int = 0) -> Network:
    """SqueezeNet "1.0" or "1.1"; `width` scales every layer but the classifier.

    head_padding: of the final 1x1 convolution; the authors' Caffe file of 1.0 has 1, which costs 3 % more.
    """
    conv1, kernel, stages, numbers = VERSIONS[version]
    c = make_divisible(conv1 * width)
    builder.stem(ConvNormAct(builder.in_chans, c, kernel, stride=builder.stride(2), padding=0, norm=False), c)
    for rows in stages:
        pool = builder.max_pool(padding=0, ceil_mode=True)
        fires = []
        for row in rows:
            squeeze, expand1, expand3 = (make_divisible(filters * width) for filters in row)
            fires.append(Fire(c, squeeze=squeeze, expand1=expand1, expand3=expand3))
            c = expand1 + expand3
        builder.stage(fires, c, pool=pool)
    head = ConvHead(c, builder.num_classes, drop_rate=builder.drop_rate, padding=head_padding)
    return builder.network(head, key_mappings=(KeyMapping("torchvision", TORCHVISION, blocks=numbers),))

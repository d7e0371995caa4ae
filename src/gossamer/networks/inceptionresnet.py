"""Inception-ResNet v1 and v2. Szegedy et al. 2016, arXiv 1602.07261, figures 10 to 15 (v1) and 16 to 20 (v2), table 1.

Input 299; the stem and the reductions have no padding. Counts of v2 follow the authors' code, whose weights are in use:
its stem is v1's up to 192 channels, then one module A of 320, and its blocks are 10, 20 and 10 with 1088 and 2080
channels, where the paper's figures have v4's stem, 5, 10 and 5 blocks. The last block adds without ReLU or scale.
small_input: stride 1 in the stem; the max pool after it is left out.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import LinearHead
from gossamer.blocks.inception import GridReduction, InceptionA, InceptionResidual, Step, average, scale_channels
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder
from gossamer.networks.inceptionstem import add_conv, add_stem

Chains = tuple[tuple[Step, ...], ...]


class ResidualGroup(NamedTuple):
    """n residual blocks: their branches and the scale of what they add."""

    n: int
    chains: Chains
    scale: float


class InceptionResNetVersion(NamedTuple):
    """Blocks A, B and C, the reductions before B and C, channels of the last 1x1 (0: none), whether the last
    block has scale and ReLU."""

    a: ResidualGroup
    b: ResidualGroup
    c: ResidualGroup
    reduction_a: Chains
    reduction_b: Chains
    last: int
    last_scaled: bool


ROW, COLUMN, SHORT_ROW, SHORT_COLUMN = (1, 7), (7, 1), (1, 3), (3, 1)
STRIDED = 256
VERSIONS = {
    1: InceptionResNetVersion(
        a=ResidualGroup(5, (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (32, 3), (32, 3))), 0.17),
        b=ResidualGroup(10, (((128, 1),), ((128, 1), (128, ROW), (128, COLUMN))), 0.10),
        c=ResidualGroup(5, (((192, 1),), ((192, 1), (192, SHORT_ROW), (192, SHORT_COLUMN))), 0.20),
        reduction_a=(((384, 3),), ((192, 1), (192, 3), (256, 3))),
        reduction_b=(((256, 1), (384, 3)), ((256, 1), (256, 3)), ((256, 1), (256, 3), (256, 3))),
        last=0,
        last_scaled=True,
    ),
    2: InceptionResNetVersion(
        a=ResidualGroup(10, (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3))), 0.17),
        b=ResidualGroup(20, (((192, 1),), ((128, 1), (160, ROW), (192, COLUMN))), 0.10),
        c=ResidualGroup(10, (((192, 1),), ((192, 1), (224, SHORT_ROW), (256, SHORT_COLUMN))), 0.20),
        reduction_a=(((384, 3),), ((256, 1), (256, 3), (384, 3))),
        reduction_b=(((256, 1), (384, 3)), ((256, 1), (288, 3)), ((256, 1), (288, 3), (320, 3))),
        last=1536,
        last_scaled=False,
    ),
}

TIMM = KeyMapping(
    "timm",
    (
        (r"^conv2d_1a\.", "stem.0."),
        (r"^conv2d_2a\.", "stem.1."),
        (r"^conv2d_2b\.", "stem.2."),
        (r"^conv2d_3b\.", "stages.0.0."),
        (r"^conv2d_4a\.", "stages.0.1."),
        (r"^mixed_5b\.", "stages.1.0."),
        (r"^mixed_6a\.", "stages.2.0."),
        (r"^mixed_7a\.", "stages.3.0."),
        (r"^conv2d_7b\.", "conv_head."),
        *((rf"^repeat\.{n}\.", f"stages.1.{1 + n}.") for n in range(10)),
        *((rf"^repeat_1\.{n}\.", f"stages.2.{1 + n}.") for n in range(20)),
        *((rf"^repeat_2\.{n}\.", f"stages.3.{1 + n}.") for n in range(9)),
        (r"^block8\.", "stages.3.10."),
        (r"^(stages\.\d\.[1-9]\d*)\.branch", r"\1.branches.branch"),
        (r"\.branch(\d)\.(conv|bn)\.", r".\1.0.\2."),
        (r"\.branch(\d)\.", r".\1."),
        (r"\.conv2d\.", ".join."),
        (r"\.bn\.", ".norm."),
        (r"^classif\.", "head.classifier."),
    ),
    norm_eps=1e-3,
)


def inception_resnet(builder: Builder, *, version: int, width: float = 1.0) -> Network:
    """Inception-ResNet v1 or v2; `width` scales every layer but the classifier."""
    row = VERSIONS[version]
    add_stem(builder, width)
    c = add_conv(builder, width)
    pool, before = None, list[nn.Module]()
    if version == 1:
        before.append(ConvNormAct(c, scale_channels(STRIDED, width), 3, stride=builder.stride(2), padding=0))
        c = scale_channels(STRIDED, width)
    else:
        pool = builder.max_pool(padding=0)
        five = InceptionA(
            c,
            c1x1=96,
            single=(48, 64),
            double=(64, 96, 96),
            pool=64,
            kernel=5,
            pooling=average(False),
            width=width,
        )
        before.append(five)
        c = five.channels
    builder.stage(before + _blocks(c, row.a, width), c, pool=pool)
    for group, chains in ((row.b, row.reduction_a), (row.c, row.reduction_b)):
        reduction = GridReduction(c, *chains, stride=builder.stride(2), width=width)
        c = reduction.channels
        builder.stage([reduction, *_blocks(c, group, width, group is not row.c or row.last_scaled)], c)
    last = scale_channels(row.last, width) if row.last else 0
    head = LinearHead(last or c, builder.num_classes, drop_rate=builder.drop_rate)
    conv_head = ConvNormAct(c, last) if last else None
    key_mappings = (TIMM,) if version == 2 else ()
    return builder.network(head, conv_head=conv_head, key_mappings=key_mappings, norm_eps=TIMM.norm_eps)


def _blocks(c: int, group: ResidualGroup, width: float, last_scaled: bool = True) -> list[nn.Module]:
    """The residual blocks of a group; the last one without scale and ReLU unless `last_scaled`."""
    blocks = [InceptionResidual(c, *group.chains, scale=group.scale, width=width) for _ in range(group.n)]
    if not last_scaled:
        blocks[-1] = InceptionResidual(c, *group.chains, scale=1.0, act=False, width=width)
    return list(blocks)

"""Inception v3. Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015, arXiv 1512.00567,
table 1 and figures 5, 6, 7, 8 and 10.

Input 299. The paper's auxiliary classifier, with batch norm and at weight 0.3 or 0.4, is `aux=True`; trained weights
in use have it, and it is left out of what is deployed. The stem has no padding.
small_input: stride 1 in the stem; the max pool after it is left out; 75 pixels and more otherwise.
"""

from __future__ import annotations

from torch import nn

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import BodyHead, LinearHead
from gossamer.blocks.inception import Branches, GridReduction, InceptionA, InceptionB, InceptionC, scale_channels
from gossamer.blocks.pool import PoolToFive
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder
from gossamer.networks.inceptionstem import add_conv, add_stem

A = (32, 64, 64)  # channels after the pool of each module A
B = (128, 160, 160, 192)  # channels of the 7x7 branches within each module B
AUX, AUX_HIDDEN = 128, 768

# where a branch of theirs lies among ours, which differs with the module
BRANCHES = (
    (r"^(stages\.1\.\d)\.branch5x5\b", r"\1.1"),
    (r"^(stages\.1\.\d)\.branch3x3dbl\b", r"\1.2"),
    (r"^(stages\.2\.0)\.branch3x3\.", r"\1.0.0."),
    (r"^(stages\.2\.0)\.branch3x3dbl\b", r"\1.1"),
    (r"\.branch7x7\b", ".1"),
    (r"\.branch7x7dbl\b", ".2"),
    (r"^(stages\.3\.0)\.branch3x3\b", r"\1.0"),
    (r"^(stages\.3\.0)\.branch7x7x3\b", r"\1.1"),
    (r"\.branch3x3\b", ".1"),
    (r"\.branch3x3dbl\b", ".2"),
    (r"\.branch1x1\.", ".0.0."),
    (r"\.branch_pool\.", ".3.1."),
)
# they count the steps of a branch from 1
STEPS = tuple((rf"^(\w+\.\d\.\d\.branch\w+)_{n}([ab]?)\.", rf"\1.{n - 1}\2.") for n in range(1, 6))
FORKS = ((r"^(stages\.3\.\d\.\d\.\d)a\.", r"\1.0."), (r"^(stages\.3\.\d\.\d\.\d)b\.", r"\1.1."))
PLACES = (
    (r"^Conv2d_1a_3x3\.", "stem.0."),
    (r"^Conv2d_2a_3x3\.", "stem.1."),
    (r"^Conv2d_2b_3x3\.", "stem.2."),
    (r"^Conv2d_3b_1x1\.", "stages.0.0."),
    (r"^Conv2d_4a_3x3\.", "stages.0.1."),
    (r"^Mixed_5b\.", "stages.1.0."),
    (r"^Mixed_5c\.", "stages.1.1."),
    (r"^Mixed_5d\.", "stages.1.2."),
    (r"^Mixed_6a\.", "stages.2.0."),
    (r"^Mixed_6b\.", "stages.2.1."),
    (r"^Mixed_6c\.", "stages.2.2."),
    (r"^Mixed_6d\.", "stages.2.3."),
    (r"^Mixed_6e\.", "stages.2.4."),
    (r"^Mixed_7a\.", "stages.3.0."),
    (r"^Mixed_7b\.", "stages.3.1."),
    (r"^Mixed_7c\.", "stages.3.2."),
    (r"^AuxLogits\.conv0\.", "aux.2.body.1."),
    (r"^AuxLogits\.conv1\.", "aux.2.body.2."),
    (r"^AuxLogits\.fc\.", "aux.2.classifier."),
    (r"^fc\.", "head.classifier."),
    (r"\.bn\.", ".norm."),
)
KEY_MAPPING = KeyMapping("torchvision and timm", (*PLACES, *STEPS, *BRANCHES, *FORKS), norm_eps=1e-3)


def inception_v3(builder: Builder, *, width: float = 1.0, aux: bool = False) -> Network:
    """Inception v3; `width` scales every layer but the classifiers. aux: the auxiliary classifier after the modules B."""
    add_stem(builder, width)
    c = add_conv(builder, width)
    pool, blocks = builder.max_pool(padding=0), list[Branches]()
    for c_pool in A:
        blocks.append(InceptionA(c, c1x1=64, single=(48, 64), double=(64, 96, 96), pool=c_pool, kernel=5, width=width))
        c = blocks[-1].channels
    builder.stage(blocks, c, pool=pool)

    blocks = [GridReduction(c, ((384, 3),), ((64, 1), (96, 3), (96, 3)), stride=builder.stride(2), width=width)]
    for c7 in B:
        c = blocks[-1].channels
        double = (c7, c7, c7, c7, 192)
        blocks.append(InceptionB(c, c1x1=192, single=(c7, c7, 192), double=double, pool=192, width=width))
    c = blocks[-1].channels
    builder.stage(blocks, c)
    if aux:
        reduce, hidden = scale_channels(AUX, width), scale_channels(AUX_HIDDEN, width)
        body = nn.Sequential(
            PoolToFive(),
            ConvNormAct(c, reduce),
            ConvNormAct(reduce, hidden, 5, padding=0),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        builder.aux(BodyHead(body, hidden, builder.num_classes))

    seven = ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3))
    blocks = [GridReduction(c, ((192, 1), (320, 3)), seven, stride=builder.stride(2), width=width)]
    steps = ((448, 1), (384, 3))
    for _ in range(2):
        c = blocks[-1].channels
        blocks.append(InceptionC(c, c1x1=320, single=384, double=steps, fork=384, pool=192, width=width))
    c = blocks[-1].channels
    builder.stage(blocks, c)
    head = LinearHead(c, builder.num_classes, drop_rate=builder.drop_rate)
    return builder.network(head, key_mappings=(KEY_MAPPING,), norm_eps=KEY_MAPPING.norm_eps)

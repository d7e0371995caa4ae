"""Inception v4. Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning, 2016,
arXiv 1602.07261, figures 3 to 9.

Input 299; the stem and the reductions have no padding. The paper's "dropout (keep 0.8)" is `drop_rate=0.2`.
small_input: stride 1 in the stem's first layer and first reduction.
"""

from __future__ import annotations

from torch import nn

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import LinearHead
from gossamer.blocks.inception import (
    Branches,
    GridReduction,
    InceptionA,
    InceptionB,
    InceptionC,
    Step,
    average,
    chain,
    scale_channels,
)
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder
from gossamer.networks.inceptionstem import add_stem

MODULES = (4, 7, 3)  # of A, B and C

# their number of each module, their names of its branches
PLACES = (
    (r"^features\.([012])\.", r"stem.\1."),
    (r"^features\.3\.conv\.", "stages.0.0.1."),
    (r"^features\.4\.branch(\d)\.", r"stages.0.1.\1."),
    (r"^features\.5\.conv\.", "stages.1.0.0.0."),
    *((rf"^features\.{6 + n}\.", f"stages.1.{1 + n}.") for n in range(4)),
    *((rf"^features\.{10 + n}\.", f"stages.2.{n}.") for n in range(8)),
    *((rf"^features\.{18 + n}\.", f"stages.3.{n}.") for n in range(4)),
)
BRANCHES = (
    (r"\.branch0\.(conv|bn)\.", r".0.0.\1."),
    (r"\.branch(\d)_(\d)\.", r".\1.\2."),
    (r"\.branch1_1([ab])\.", r".1.1\1."),
    (r"\.branch2_3([ab])\.", r".2.3\1."),
    (r"^(stages\.3\.\d\.\d\.\d)a\.", r"\1.0."),
    (r"^(stages\.3\.\d\.\d\.\d)b\.", r"\1.1."),
    (r"\.branch(\d)\.", r".\1."),
    (r"\.bn\.", ".norm."),
    (r"^last_linear\.", "head.classifier."),
)
TIMM = KeyMapping("timm", (*PLACES, *BRANCHES), norm_eps=1e-3)


def inception_v4(builder: Builder, *, width: float = 1.0) -> Network:
    """Inception v4; `width` scales every layer but the classifier."""
    c = add_stem(builder, width)
    stride, to = builder.stride(2), scale_channels(96, width)
    first = Branches([nn.MaxPool2d(3, stride), ConvNormAct(c, to, 3, stride=stride, padding=0)], c)
    seven: tuple[Step, ...] = ((64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3))
    chains: tuple[tuple[Step, ...], ...] = (((64, 1), (96, 3)), seven)
    second = Branches([chain(first.channels, *steps, stride=1, width=width) for steps in chains])
    builder.stage([first, second], second.channels)

    blocks: list[Branches] = [GridReduction(second.channels, ((192, 3),), stride=builder.stride(2), width=width)]
    for _ in range(MODULES[0]):
        c, pool = blocks[-1].channels, average(False)
        blocks.append(InceptionA(c, c1x1=96, single=(64, 96), double=(64, 96, 96), pool=96, pooling=pool, width=width))
    c = blocks[-1].channels
    builder.stage(blocks, c)

    single, double = (192, 224, 256), (192, 192, 224, 224, 256)
    blocks = [GridReduction(c, ((384, 3),), tuple(zip(single, (1, 3, 3))), stride=builder.stride(2), width=width)]
    for _ in range(MODULES[1]):
        c, pool = blocks[-1].channels, average(False)
        blocks.append(InceptionB(c, c1x1=384, single=single, double=double, pool=128, pooling=pool, width=width))
    c = blocks[-1].channels
    builder.stage(blocks, c)

    seven = ((256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3))
    steps: tuple[Step, ...] = ((384, 1), (448, (3, 1)), (512, (1, 3)))
    blocks = [GridReduction(c, ((192, 1), (192, 3)), seven, stride=builder.stride(2), width=width)]
    for _ in range(MODULES[2]):
        c, pool = blocks[-1].channels, average(False)
        blocks.append(InceptionC(c, c1x1=256, single=384, double=steps, fork=256, pool=256, pooling=pool, width=width))
    c = blocks[-1].channels
    builder.stage(blocks, c)
    head = LinearHead(c, builder.num_classes, drop_rate=builder.drop_rate)
    return builder.network(head, key_mappings=(TIMM,), norm_eps=TIMM.norm_eps)

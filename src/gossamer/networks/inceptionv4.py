"""Inception v4. Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning, 2016,
arXiv 1602.07261, figures 3 to 9.

Input 299; the stem and the reductions have no padding. The paper's "dropout (keep 0.8)" is `drop_rate=0.2`.
small_input: stride 1 in the stem's first layer and first reduction.
"""

from __future__ import annotations

from torch import nn

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import LinearHead
from gossamer.blocks.inception import Branches, GridReduction, InceptionA, InceptionB, InceptionC, average, chain
from gossamer.networks.base import Naming, Network
from gossamer.networks.inceptionstem import add_stem
from gossamer.networks.plan import Plan

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
TIMM = Naming("timm", (*PLACES, *BRANCHES), norm_eps=1e-3)


def inception_v4(plan: Plan) -> Network:
    """Inception v4."""
    c = add_stem(plan)
    stride = plan.stride(2)
    mixed = [
        Branches([nn.MaxPool2d(3, stride), ConvNormAct(c, 96, 3, stride=stride, padding=0)]),
        Branches(
            [
                chain(160, (64, 1), (96, 3), stride=1),
                chain(160, (64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3), stride=1),
            ]
        ),
    ]
    plan.stage(mixed, 192)

    blocks: list[nn.Module] = [GridReduction(192, ((192, 3),), stride=plan.stride(2))]
    for _ in range(MODULES[0]):
        blocks.append(InceptionA(384, c1x1=96, single=(64, 96), double=(64, 96, 96), pool=96, pooling=average(False)))
    plan.stage(blocks, 384)

    blocks = [GridReduction(384, ((384, 3),), ((192, 1), (224, 3), (256, 3)), stride=plan.stride(2))]
    for _ in range(MODULES[1]):
        blocks.append(
            InceptionB(
                1024,
                c1x1=384,
                single=(192, 224, 256),
                double=(192, 192, 224, 224, 256),
                pool=128,
                pooling=average(False),
            )
        )
    plan.stage(blocks, 1024)

    seven = ((256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3))
    blocks = [GridReduction(1024, ((192, 1), (192, 3)), seven, stride=plan.stride(2))]
    double = ((384, 1), (448, (3, 1)), (512, (1, 3)))
    for _ in range(MODULES[2]):
        blocks.append(
            InceptionC(1536, c1x1=256, single=384, double=double, forked=256, pool=256, pooling=average(False))
        )
    plan.stage(blocks, 1536)
    head = LinearHead(1536, plan.num_classes, drop_rate=plan.drop_rate)
    return plan.network(head, namings=(TIMM,), norm_eps=TIMM.norm_eps)

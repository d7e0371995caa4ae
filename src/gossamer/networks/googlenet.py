"""GoogLeNet, or Inception v1. Szegedy et al., Going Deeper with Convolutions, 2014, arXiv 1409.4842, table 1.

Three networks have this name. "torchvision": batch norm, and 3x3 where the paper has 5x5; its weights are in use: the
default. "paper": 5x5, biases and no norm. "bn": the paper's kernels with batch norm. The local response norm of the
paper's figure, without effect in later work, is left out. The paper trains with two auxiliary classifiers, each at
weight 0.3: `aux=True`. Its dropout is `drop_rate=0.4`.
small_input: stride 1 in the stem; the max pool after it is left out.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, NamedTuple

from torch import nn

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import BodyHead, LinearHead
from gossamer.blocks.inception import Inception
from gossamer.blocks.pool import AverageTo
from gossamer.blocks.width import make_divisible
from gossamer.errors import UnknownNameError
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder


class Row(NamedTuple):
    """One module: 1x1; 3x3 reduce and 3x3; 5x5 reduce and 5x5; pool projection."""

    c1x1: int
    c3x3_reduce: int
    c3x3: int
    c5x5_reduce: int
    c5x5: int
    pool_proj: int


class GoogLeNetVariant(NamedTuple):
    """Norm or bias, kernel of the third branch, side of the last pool."""

    norm: bool
    kernel: int
    last_pool: int


VARIANTS = {
    "torchvision": GoogLeNetVariant(norm=True, kernel=3, last_pool=2),
    "paper": GoogLeNetVariant(norm=False, kernel=5, last_pool=3),
    "bn": GoogLeNetVariant(norm=True, kernel=5, last_pool=3),
}
STEM, CONV2 = 64, (64, 192)
# a max pool before 3a, 4a and 5a; the stages end where an auxiliary classifier sits
STAGES = (
    (Row(64, 96, 128, 16, 32, 32), Row(128, 128, 192, 32, 96, 64)),  # 3a 3b
    (Row(192, 96, 208, 16, 48, 64),),  # 4a
    (Row(160, 112, 224, 24, 64, 64), Row(128, 128, 256, 24, 64, 64), Row(112, 144, 288, 32, 64, 64)),  # 4b 4c 4d
    (Row(256, 160, 320, 32, 128, 128),),  # 4e
    (Row(256, 160, 320, 32, 128, 128), Row(384, 192, 384, 48, 128, 128)),  # 5a 5b
)
POOLED, AUX = (0, 1, 4), (1, 2)  # which of them
AUX_SIDE, AUX_CONV, AUX_HIDDEN, AUX_DROP = 4, 128, 1024, 0.7

TORCHVISION = KeyMapping(
    "torchvision",
    (
        (r"^conv1\.", "stem."),
        (r"^conv2\.", "stages.0.0."),
        (r"^conv3\.", "stages.0.1."),
        (r"^inception3a\.", "stages.1.0."),
        (r"^inception3b\.", "stages.1.1."),
        (r"^inception4a\.", "stages.2.0."),
        (r"^inception4b\.", "stages.3.0."),
        (r"^inception4c\.", "stages.3.1."),
        (r"^inception4d\.", "stages.3.2."),
        (r"^inception4e\.", "stages.4.0."),
        (r"^inception5a\.", "stages.5.0."),
        (r"^inception5b\.", "stages.5.1."),
        (r"\.branch1\.", ".0.0."),
        (r"\.branch2\.", ".1."),
        (r"\.branch3\.", ".2."),
        (r"\.branch4\.", ".3."),
        (r"^aux1\.", "aux.2."),
        (r"^aux2\.", "aux.3."),
        (r"^(aux\.\d)\.fc1\.", r"\1.body.hidden."),
        (r"^(aux\.\d)\.fc2\.", r"\1.classifier."),
        (r"^(aux\.\d)\.conv\.", r"\1.body.conv."),
        (r"^fc\.", "head.classifier."),
        (r"\.bn\.", ".norm."),
    ),
    norm_eps=1e-3,
)


def googlenet(
    builder: Builder,
    *,
    variant: Literal["torchvision", "paper", "bn"] = "torchvision",
    aux: bool = False,
    width: float = 1.0,
) -> Network:
    """GoogLeNet; `width` scales every layer but the classifiers. aux: the two auxiliary classifiers.

    Raises UnknownNameError for another variant.
    """
    if variant not in VARIANTS:
        raise UnknownNameError("variant of GoogLeNet", variant, VARIANTS)
    norm, kernel, last_pool = VARIANTS[variant]
    stem, reduce, c_in = (make_divisible(c * width) for c in (STEM, *CONV2))
    builder.stem(ConvNormAct(builder.in_chans, stem, 7, stride=builder.stride(2), norm=norm), stem)
    pool = builder.max_pool(padding=0, ceil_mode=True)
    builder.stage([ConvNormAct(stem, reduce, norm=norm), ConvNormAct(reduce, c_in, 3, norm=norm)], c_in, pool=pool)
    for index, rows in enumerate(STAGES):
        side = last_pool if index == POOLED[-1] else 3
        step = builder.max_pool(kernel=side, padding=0, ceil_mode=True) if index in POOLED else None
        blocks = []
        for row in rows:
            c1, r3, c3, r5, c5, proj = row
            blocks.append(
                Inception(c_in, c1x1=c1, c3x3=(r3, c3), c5x5=(r5, c5), pool=proj, kernel=kernel, width=width, norm=norm)
            )
            c_in = blocks[-1].channels
        builder.stage(blocks, c_in, pool=step)
        if aux and index in AUX:
            builder.aux(_aux(c_in, builder.num_classes, norm))
    head = LinearHead(c_in, builder.num_classes, drop_rate=builder.drop_rate)
    return builder.network(
        head,
        key_mappings=(TORCHVISION,) if variant == "torchvision" else (),
        norm_eps=TORCHVISION.norm_eps if variant == "torchvision" else None,
    )


def _aux(c_in: int, num_classes: int, norm: bool) -> BodyHead:
    """Average to 4x4 (5x5 of stride 3 on the paper's 14x14), 1x1, a hidden layer, dropout, classifier."""
    body = nn.Sequential(
        OrderedDict(
            pool=AverageTo(AUX_SIDE),
            conv=ConvNormAct(c_in, AUX_CONV, norm=norm),
            flatten=nn.Flatten(),
            hidden=nn.Linear(AUX_CONV * AUX_SIDE**2, AUX_HIDDEN),
            act=nn.ReLU(),
        )
    )
    return BodyHead(body, AUX_HIDDEN, num_classes, drop_rate=AUX_DROP)

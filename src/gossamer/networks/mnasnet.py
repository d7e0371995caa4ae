"""MnasNet. Tan et al., MnasNet: Platform-Aware Neural Architecture Search for Mobile, 2018, arXiv 1807.11626, figure 7;
the authors' code (tensorflow/tpu) for B1 and small.

A1 has squeeze-and-excitation and is the net of the abstract; torchvision's "mnasnet1_0" is B1, without.
small_input: stride 1 in the stem and in the first block of the second row.
"""

from __future__ import annotations

from typing import Literal

from gossamer.blocks.attention import SqueezeExcite
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import LinearHead
from gossamer.blocks.width import make_divisible
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder
from gossamer.networks.inverted import BlockGroup, add_stages, expanded, last_conv, timm_rules

LAST = 1280
STEM = {"a1": 32, "b1": 32, "small": 8}
BODY = {
    "a1": (
        #     k  t   c   n  s
        BlockGroup(3, 1, 16, 1, 1),
        BlockGroup(3, 6, 24, 2, 2),
        BlockGroup(5, 3, 40, 3, 2, se=True),
        BlockGroup(3, 6, 80, 4, 2),
        BlockGroup(3, 6, 112, 2, 1, se=True),
        BlockGroup(5, 6, 160, 3, 2, se=True),
        BlockGroup(3, 6, 320, 1, 1),
    ),
    "b1": (
        BlockGroup(3, 1, 16, 1, 1),
        BlockGroup(3, 3, 24, 3, 2),
        BlockGroup(5, 3, 40, 3, 2),
        BlockGroup(5, 6, 80, 3, 2),
        BlockGroup(3, 6, 96, 2, 1),
        BlockGroup(5, 6, 192, 4, 2),
        BlockGroup(3, 6, 320, 1, 1),
    ),
    "small": (
        BlockGroup(3, 1, 8, 1, 1),
        BlockGroup(3, 3, 16, 1, 2),
        BlockGroup(3, 6, 16, 2, 2),
        BlockGroup(5, 6, 32, 4, 2, se=True),
        BlockGroup(3, 6, 32, 3, 1, se=True),
        BlockGroup(5, 6, 88, 3, 2, se=True),
        BlockGroup(3, 6, 144, 1, 1),
    ),
}

TIMM = KeyMapping(
    "timm",
    (
        (r"^conv_head\.", "conv_head.conv."),
        (r"^bn2\.", "conv_head.norm."),
        *timm_rules(("stages.0.0",)),
    ),
)
TORCHVISION = KeyMapping(
    "torchvision",
    (
        (r"^layers\.0\.", "stem.conv."),
        (r"^layers\.1\.", "stem.norm."),
        (r"^layers\.3\.", "stages.0.0.depthwise.conv."),
        (r"^layers\.4\.", "stages.0.0.depthwise.norm."),
        (r"^layers\.6\.", "stages.0.0.project.conv."),
        (r"^layers\.7\.", "stages.0.0.project.norm."),
        *((rf"^layers\.{index + 7}\.", f"stages.{index}.") for index in range(1, 7)),
        (r"^layers\.14\.", "conv_head.conv."),
        (r"^layers\.15\.", "conv_head.norm."),
        (r"^classifier\.1\.", "head.classifier."),
        (r"\.layers\.0\.", ".expand.conv."),
        (r"\.layers\.1\.", ".expand.norm."),
        (r"\.layers\.3\.", ".depthwise.conv."),
        (r"\.layers\.4\.", ".depthwise.norm."),
        (r"\.layers\.6\.", ".project.conv."),
        (r"\.layers\.7\.", ".project.norm."),
    ),
)


def mnasnet(builder: Builder, *, variant: Literal["a1", "b1", "small"], width: float = 1.0) -> Network:
    """MnasNet; `width` is the width multiplier, which leaves the last 1x1 convolution alone."""
    stem = make_divisible(STEM[variant] * width)
    builder.stem(ConvNormAct(builder.in_chans, stem, 3, stride=builder.stride(2)), stem)
    stages = expanded(stem, BODY[variant], "relu", width)
    add_stages(builder, stages, lambda c_in, exp: SqueezeExcite(exp, max(1, c_in // 4)))
    head = LinearHead(LAST, builder.num_classes, drop_rate=builder.drop_rate)
    return builder.network(head, conv_head=last_conv(builder, LAST, "relu"), key_mappings=(TORCHVISION, TIMM))

"""EfficientNet. Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019,
arXiv 1905.11946, table 1 (B0) and section 3.3 (compound scaling).

small_input: stride 1 in the stem and in the first block of the second row.
"""

from __future__ import annotations

from gossamer.blocks.attention import SqueezeExcite
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import LinearHead
from gossamer.blocks.width import make_divisible
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder
from gossamer.networks.inverted import BlockGroup, add_stages, expanded, last_conv, timm_rules, torchvision_rules

STEM, LAST = 32, 1280
BODY = (
    #     k  t   c   n  s
    BlockGroup(3, 1, 16, 1, 1, se=True),
    BlockGroup(3, 6, 24, 2, 2, se=True),
    BlockGroup(5, 6, 40, 2, 2, se=True),
    BlockGroup(3, 6, 80, 3, 2, se=True),
    BlockGroup(5, 6, 112, 3, 1, se=True),
    BlockGroup(5, 6, 192, 4, 2, se=True),
    BlockGroup(3, 6, 320, 1, 1, se=True),
)


def _timm(bare: int) -> KeyMapping:
    ends = ((r"^conv_head\.", "conv_head.conv."), (r"^bn2\.", "conv_head.norm."))
    return KeyMapping("timm", (*ends, *timm_rules([f"stages.0.{index}" for index in range(bare)])))


def _torchvision(bare: int) -> KeyMapping:
    ends = (
        (r"^features\.0\.0\.", "stem.conv."),
        (r"^features\.0\.1\.", "stem.norm."),
        *((rf"^features\.{index + 1}\.", f"stages.{index}.") for index in range(len(BODY))),
        (r"^features\.8\.0\.", "conv_head.conv."),
        (r"^features\.8\.1\.", "conv_head.norm."),
        (r"^classifier\.1\.", "head.classifier."),
    )
    return KeyMapping("torchvision", (*ends, *torchvision_rules(bare)))


def efficientnet(builder: Builder, *, width: float = 1.0, depth: float = 1.0) -> Network:
    """EfficientNet-B0 with its channels scaled by `width` and its blocks by `depth`: B1 is 1.0 and 1.1, B2 1.1 and 1.2."""
    stem = make_divisible(STEM * width)
    builder.stem(ConvNormAct(builder.in_chans, stem, 3, stride=builder.stride(2), act="silu"), stem)
    stages = expanded(stem, BODY, "silu", width, depth)
    add_stages(builder, stages, lambda c_in, exp: SqueezeExcite(exp, max(1, c_in // 4), act="silu"))
    last = make_divisible(LAST * width)
    head = LinearHead(last, builder.num_classes, drop_rate=builder.drop_rate)
    key_mappings = (_torchvision(len(stages[0])), _timm(len(stages[0])))
    return builder.network(head, conv_head=last_conv(builder, last, "silu"), key_mappings=key_mappings)

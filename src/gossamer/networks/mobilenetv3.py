"""MobileNetV3. Howard et al., Searching for MobileNetV3, 2019, arXiv 1905.02244, tables 1 (large) and 2 (small).

Below width 1 the paper's counts need two things that torchvision reads otherwise: the last layer is not narrowed, and
the middle of a block is its scaled input times the table's ratio. `reading` chooses; at width 1 both are one network.
The minimalistic networks of the authors' code have no attention, 3x3 kernels and ReLU only. The paper's "dropout of
0.8" is the share that is kept: `drop_rate=0.2`.
small_input: stride 1 in the stem and in the next strided block.
"""

from __future__ import annotations

from typing import Literal

from gossamer.blocks.activation import Activation
from gossamer.blocks.attention import SqueezeExcite
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import HiddenHead
from gossamer.blocks.width import make_divisible
from gossamer.errors import UnknownNameError
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder
from gossamer.networks.inverted import Row, add_stages, last_conv, timm_rules, torchvision_rules

RE: Activation = "relu"
HS: Activation = "hard_swish"
STEM = 16
LAST = {"large": (960, 1280), "small": (576, 1024)}  # the 1x1 before the pool and the one after it
BODY = {
    "large": (
        #     k  exp   c   SE     NL  s
        (Row(3, 16, 16, False, RE, 1),),
        (Row(3, 64, 24, False, RE, 2), Row(3, 72, 24, False, RE, 1)),
        (Row(5, 72, 40, True, RE, 2), Row(5, 120, 40, True, RE, 1), Row(5, 120, 40, True, RE, 1)),
        (
            Row(3, 240, 80, False, HS, 2),
            Row(3, 200, 80, False, HS, 1),
            Row(3, 184, 80, False, HS, 1),
            Row(3, 184, 80, False, HS, 1),
        ),
        (Row(3, 480, 112, True, HS, 1), Row(3, 672, 112, True, HS, 1)),
        (Row(5, 672, 160, True, HS, 2), Row(5, 960, 160, True, HS, 1), Row(5, 960, 160, True, HS, 1)),
    ),
    "small": (
        (Row(3, 16, 16, True, RE, 2),),
        (Row(3, 72, 24, False, RE, 2), Row(3, 88, 24, False, RE, 1)),
        (Row(5, 96, 40, True, HS, 2), Row(5, 240, 40, True, HS, 1), Row(5, 240, 40, True, HS, 1)),
        (Row(5, 120, 48, True, HS, 1), Row(5, 144, 48, True, HS, 1)),
        (Row(5, 288, 96, True, HS, 2), Row(5, 576, 96, True, HS, 1), Row(5, 576, 96, True, HS, 1)),
    ),
}
FIRST = ("stages.0.0",)  # the block without expansion


def _torchvision(blocks: int) -> KeyMapping:
    last = blocks + 1
    ends = (
        (r"^features\.0\.0\.", "stem.conv."),
        (r"^features\.0\.1\.", "stem.norm."),
        (rf"^features\.{last}\.0\.", "conv_head.conv."),
        (rf"^features\.{last}\.1\.", "conv_head.norm."),
        (r"^classifier\.0\.", "head.hidden."),
        (r"^classifier\.3\.", "head.classifier."),
    )
    return KeyMapping("torchvision", (*ends, *torchvision_rules()), blocks=tuple(range(1, last)), norm_eps=1e-3)


def _timm(stages: int) -> KeyMapping:
    ends = (
        (rf"^blocks\.{stages}\.0\.conv\.", "conv_head.conv."),
        (rf"^blocks\.{stages}\.0\.bn1\.", "conv_head.norm."),
        (r"^conv_head\.(weight|bias)", r"head.hidden.\1"),
    )
    return KeyMapping("timm", (*ends, *timm_rules(FIRST)), norm_eps=1e-5)


def mobilenet_v3(
    builder: Builder,
    *,
    size: Literal["large", "small"],
    width: float = 1.0,
    minimalistic: bool = False,
    reading: Literal["paper", "torchvision"] = "paper",
) -> Network:
    """MobileNetV3 "large" or "small"; `width` is the width multiplier.

    minimalistic: no attention, no 5x5, no hard-swish. reading: of the widths below 1.
    Raises UnknownNameError for another reading.
    """
    if reading not in ("paper", "torchvision"):
        raise UnknownNameError("reading of MobileNetV3's widths", reading, ("paper", "torchvision"))
    by_ratio = reading == "paper"
    act = RE if minimalistic else HS
    # the authors keep the stem below width 0.75
    stem = STEM if by_ratio and width < 0.75 else make_divisible(STEM * width)
    stages, c_in, table_c_in = [], stem, STEM
    for rows in BODY[size]:
        scaled = []
        for row in rows:
            exp = c_in * row.exp / table_c_in if by_ratio else row.exp * width
            table_c_in, c_in = row.c, make_divisible(row.c * width)
            changed = row._replace(exp=make_divisible(exp), c=c_in)
            scaled.append(changed._replace(k=3, se=False, act=RE) if minimalistic else changed)
        stages.append(scaled)
    builder.stem(ConvNormAct(builder.in_chans, stem, 3, stride=builder.stride(2), act=act), stem)
    add_stages(builder, stages, lambda c_in, exp: SqueezeExcite(exp, make_divisible(exp / 4), gate="hard_sigmoid"))
    before, hidden = LAST[size]
    narrowed = max(1.0, width) if by_ratio else width
    c = make_divisible(before * width)
    conv_head = last_conv(builder, c, act)
    head = HiddenHead(
        c,
        builder.num_classes,
        hidden=make_divisible(hidden * narrowed),
        act=act,
        drop_rate=builder.drop_rate,
    )
    key_mappings = (_torchvision(sum(map(len, stages))), _timm(len(stages)))
    return builder.network(head, conv_head=conv_head, key_mappings=key_mappings, norm_eps=1e-3)

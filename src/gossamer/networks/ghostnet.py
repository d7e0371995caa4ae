"""GhostNet. Han et al., GhostNet: More Features from Cheap Operations, 2019, arXiv 1911.11907, table 7.

small_input: stride 1 in the stem and in the first strided block.
"""

from __future__ import annotations

from typing import NamedTuple

from gossamer.blocks.attention import SqueezeExcite
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.ghost import GhostBottleneck
from gossamer.blocks.head import HiddenHead
from gossamer.blocks.width import make_divisible
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder


class Row(NamedTuple):
    """One bottleneck of kernel k: exp channels in the middle, c out, squeeze-and-excitation or not, stride s."""

    k: int
    exp: int
    c: int
    se: bool
    s: int


STEM, LAST, HIDDEN = 16, 960, 1280
STAGES = (
    (Row(3, 16, 16, False, 1),),
    (Row(3, 48, 24, False, 2),),
    (Row(3, 72, 24, False, 1),),
    (Row(5, 72, 40, True, 2),),
    (Row(5, 120, 40, True, 1),),
    (Row(3, 240, 80, False, 2),),
    (
        Row(3, 200, 80, False, 1),
        Row(3, 184, 80, False, 1),
        Row(3, 184, 80, False, 1),
        Row(3, 480, 112, True, 1),
        Row(3, 672, 112, True, 1),
    ),
    (Row(5, 672, 160, True, 2),),
    (
        Row(5, 960, 160, False, 1),
        Row(5, 960, 160, True, 1),
        Row(5, 960, 160, False, 1),
        Row(5, 960, 160, True, 1),
    ),
)

TIMM = KeyMapping(
    "timm",
    (
        (r"^conv_stem\.", "stem.conv."),
        (r"^bn1\.", "stem.norm."),
        (r"^blocks\.9\.0\.bn1\.", "conv_head.norm."),
        (r"^blocks\.9\.0\.", "conv_head."),
        (r"^blocks\.", "stages."),
        (r"\.ghost1\.", ".expand."),
        (r"\.ghost2\.", ".project."),
        (r"\.primary_conv\.0\.", ".primary.conv."),
        (r"\.primary_conv\.1\.", ".primary.norm."),
        (r"\.cheap_operation\.0\.", ".cheap.conv."),
        (r"\.cheap_operation\.1\.", ".cheap.norm."),
        (r"\.conv_dw\.", ".depthwise.conv."),
        (r"\.bn_dw\.", ".depthwise.norm."),
        (r"\.se\.conv_reduce\.", ".attention.fc1."),
        (r"\.se\.conv_expand\.", ".attention.fc2."),
        (r"\.shortcut\.0\.", ".shortcut.0.conv."),
        (r"\.shortcut\.1\.", ".shortcut.0.norm."),
        (r"\.shortcut\.2\.", ".shortcut.1.conv."),
        (r"\.shortcut\.3\.", ".shortcut.1.norm."),
        (r"^conv_head\.(weight|bias)", r"head.hidden.\1"),
        (r"^classifier\.", "head.classifier."),
    ),
)


def ghostnet(builder: Builder, *, width: float = 1.0) -> Network:
    """GhostNet; `width` is the width multiplier."""
    c_in = make_divisible(STEM * width, 4)
    builder.stem(ConvNormAct(builder.in_chans, c_in, 3, stride=builder.stride(2)), c_in)
    for rows in STAGES:
        blocks = []
        for row in rows:
            c, c_mid = make_divisible(row.c * width, 4), make_divisible(row.exp * width, 4)
            gate = SqueezeExcite(c_mid, make_divisible(c_mid / 4, 4), gate="hard_sigmoid") if row.se else None
            blocks.append(
                GhostBottleneck(
                    c_in, c, c_mid=c_mid, kernel=row.k, stride=builder.stride(row.s), strided=row.s > 1, attention=gate
                )
            )
            c_in = c
        builder.stage(blocks, c_in)
    c = make_divisible(LAST * width, 4)
    head = HiddenHead(c, builder.num_classes, hidden=HIDDEN, act="relu", drop_rate=builder.drop_rate)
    return builder.network(head, conv_head=ConvNormAct(c_in, c), key_mappings=(TIMM,))

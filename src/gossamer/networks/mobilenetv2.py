"""MobileNetV2. Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, arXiv 1801.04381,
table 2.

The table has 17 bottlenecks, the text says 19. Below width 1 the last 1x1 convolution is not narrowed.
small_input: stride 1 in the stem and in the first block of the second row.
"""

from __future__ import annotations

from typing import NamedTuple

from gossamer.blocks.activation import Activation
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import LinearHead
from gossamer.blocks.residual import InvertedResidual
from gossamer.blocks.width import make_divisible
from gossamer.errors import SettingsError
from gossamer.host.text import counted
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder


class Row(NamedTuple):
    """n bottlenecks of c output channels, expanded t times, the first with stride s."""

    t: int
    c: int
    n: int
    s: int


STEM, LAST = 32, 1280
BODY = (
    #   t  c   n  s
    Row(1, 16, 1, 1),
    Row(6, 24, 2, 2),
    Row(6, 32, 3, 2),
    Row(6, 64, 4, 2),
    Row(6, 96, 3, 1),
    Row(6, 160, 3, 2),
    Row(6, 320, 1, 1),
)
STRIDES = tuple(row.s for row in BODY)

TORCHVISION = KeyMapping(
    "torchvision",
    (
        (r"^features\.0\.0\.", "stem.conv."),
        (r"^features\.0\.1\.", "stem.norm."),
        (r"^features\.18\.0\.", "conv_head.conv."),
        (r"^features\.18\.1\.", "conv_head.norm."),
        (r"^classifier\.1\.", "head.classifier."),
        (r"^(stages\.0\.0)\.conv\.0\.0\.", r"\1.depthwise.conv."),
        (r"^(stages\.0\.0)\.conv\.0\.1\.", r"\1.depthwise.norm."),
        (r"^(stages\.0\.0)\.conv\.1\.", r"\1.project.conv."),
        (r"^(stages\.0\.0)\.conv\.2\.", r"\1.project.norm."),
        (r"\.conv\.0\.0\.", ".expand.conv."),
        (r"\.conv\.0\.1\.", ".expand.norm."),
        (r"\.conv\.1\.0\.", ".depthwise.conv."),
        (r"\.conv\.1\.1\.", ".depthwise.norm."),
        (r"\.conv\.2\.", ".project.conv."),
        (r"\.conv\.3\.", ".project.norm."),
    ),
    blocks=tuple(range(1, 18)),
)
TIMM = KeyMapping(
    "timm",
    (
        (r"^conv_stem\.", "stem.conv."),
        (r"^bn1\.", "stem.norm."),
        (r"^conv_head\.", "conv_head.conv."),
        (r"^bn2\.", "conv_head.norm."),
        (r"^classifier\.", "head.classifier."),
        (r"^blocks\.", "stages."),
        (r"^(stages\.0\.0)\.conv_dw\.", r"\1.depthwise.conv."),
        (r"^(stages\.0\.0)\.bn1\.", r"\1.depthwise.norm."),
        (r"^(stages\.0\.0)\.conv_pw\.", r"\1.project.conv."),
        (r"^(stages\.0\.0)\.bn2\.", r"\1.project.norm."),
        (r"\.conv_pw\.", ".expand.conv."),
        (r"\.bn1\.", ".expand.norm."),
        (r"\.conv_dw\.", ".depthwise.conv."),
        (r"\.bn2\.", ".depthwise.norm."),
        (r"\.conv_pwl\.", ".project.conv."),
        (r"\.bn3\.", ".project.norm."),
    ),
)


def mobilenet_v2(
    builder: Builder,
    *,
    width: float = 1.0,
    strides: tuple[int, ...] = STRIDES,
    expand_first: bool = False,
    classifier_bias: bool = True,
    last_act: Activation | None = None,
    shortcut: bool = True,
    repeats: tuple[int, ...] | None = None,
) -> Network:
    """MobileNetV2; `width` is the width multiplier (section 6.1).

    Some counts in use are of other networks of this name; these arguments build them.
    strides: of the seven rows; the paper's first version had (1, 2, 2, 1, 2, 2, 1).
    expand_first: an expansion convolution of 1x also in the first bottleneck.
    classifier_bias: False where the classifier is a 1x1 convolution without bias.
    last_act: an activation after the bottlenecks, which the paper leaves linear; shortcut: False for a network without
    any. Both are the ablations of section 6.4.
    repeats: blocks of the seven rows in place of the table's. Raises SettingsError where either are not seven.
    """
    for name, values in (("strides", strides), ("repeats", repeats)):
        if values is not None and len(values) != len(BODY):
            raise SettingsError(f"{name} of {counted(len(values), 'row')} for MobileNetV2", "seven", "give one per row")
    c_in = make_divisible(STEM * width)
    builder.stem(ConvNormAct(builder.in_chans, c_in, 3, stride=builder.stride(2), act="relu6"), c_in)
    for row, first_stride, n in zip(BODY, strides, repeats or [row.n for row in BODY]):
        c = make_divisible(row.c * width)
        blocks = []
        for index in range(n):
            s = first_stride if index == 0 else 1
            c_mid = c_in * row.t if row.t > 1 or expand_first else None
            added = shortcut and s == 1 and c_in == c
            blocks.append(
                InvertedResidual(c_in, c, c_mid=c_mid, stride=builder.stride(s), shortcut=added, last_act=last_act)
            )
            c_in = c
        builder.stage(blocks, c)
    last = make_divisible(LAST * max(1.0, width))
    head = LinearHead(last, builder.num_classes, drop_rate=builder.drop_rate, bias=classifier_bias)
    return builder.network(head, conv_head=ConvNormAct(c_in, last, act="relu6"), key_mappings=(TORCHVISION, TIMM))

"""What the searched mobile networks share: rows of inverted residuals, and timm's names of their layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gossamer.blocks.activation import Activation
from gossamer.blocks.attention import SqueezeExcite
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.residual import InvertedResidual
from gossamer.blocks.width import make_divisible
from gossamer.networks.builder import Builder


class Row(NamedTuple):
    """One block of kernel k: exp channels in the middle, c out, squeeze-and-excitation or not, activation, stride s."""

    k: int
    exp: int
    c: int
    se: bool
    act: Activation
    s: int


class BlockGroup(NamedTuple):
    """n blocks of kernel k and c outputs, expanded t times, with squeeze-and-excitation or not, the first of stride s."""

    k: int
    t: int
    c: int
    n: int
    s: int
    se: bool = False


GateFactory = Callable[[int, int], SqueezeExcite]  # from the block's input and middle channels


def add_stages(builder: Builder, stages: Sequence[Sequence[Row]], gate: GateFactory) -> None:
    """Add one stage for each group of rows. A middle as wide as the input needs no expansion."""
    c_in = builder.channels
    for rows in stages:
        blocks = []
        for row in rows:
            blocks.append(
                InvertedResidual(
                    c_in,
                    row.c,
                    c_mid=row.exp if row.exp != c_in else None,
                    stride=builder.stride(row.s),
                    shortcut=row.s == 1 and c_in == row.c,
                    kernel=row.k,
                    act=row.act,
                    attention=gate(c_in, row.exp) if row.se else None,
                )
            )
            c_in = row.c
        builder.stage(blocks, c_in)


def expanded(
    stem: int, groups: Sequence[BlockGroup], act: Activation, width: float, depth: float = 1.0
) -> list[list[Row]]:
    """The rows of groups, scaled: channels by `width`, blocks by `depth`, rounded up. `stem`: channels before them."""
    stages: list[list[Row]] = []
    c_in = stem
    for group in groups:
        c = make_divisible(group.c * width)
        rows = []
        for index in range(math.ceil(group.n * depth)):
            rows.append(Row(group.k, c_in * group.t, c, group.se, act, group.s if index == 0 else 1))
            c_in = c
        stages.append(rows)
    return stages


def last_conv(builder: Builder, channels: int, act: Activation) -> ConvNormAct:
    """The 1x1 convolution after the stages."""
    return ConvNormAct(builder.channels, channels, act=act)


def timm_rules(bare: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """timm's names to ours; `bare`: our paths of the blocks without expansion, whose layers timm numbers otherwise."""
    rules: list[tuple[str, str]] = [
        (r"^conv_stem\.", "stem.conv."),
        (r"^bn1\.", "stem.norm."),
        (r"^blocks\.", "stages."),
        (r"\.se\.conv_reduce\.", ".attention.fc1."),
        (r"\.se\.conv_expand\.", ".attention.fc2."),
        (r"^classifier\.", "head.classifier."),
    ]
    for path in bare:
        here = path.replace(".", r"\.")
        rules += [
            (rf"^{here}\.conv_dw\.", f"{path}.depthwise.conv."),
            (rf"^{here}\.bn1\.", f"{path}.depthwise.norm."),
            (rf"^{here}\.conv_pw\.", f"{path}.project.conv."),
            (rf"^{here}\.bn2\.", f"{path}.project.norm."),
        ]
    return (
        *rules,
        (r"^(stages\..*)\.conv_pw\.", r"\1.expand.conv."),
        (r"^(stages\..*)\.bn1\.", r"\1.expand.norm."),
        (r"^(stages\..*)\.conv_dw\.", r"\1.depthwise.conv."),
        (r"^(stages\..*)\.bn2\.", r"\1.depthwise.norm."),
        (r"^(stages\..*)\.conv_pwl\.", r"\1.project.conv."),
        (r"^(stages\..*)\.bn3\.", r"\1.project.norm."),
    )


def torchvision_rules(bare: int = 1) -> tuple[tuple[str, str], ...]:
    """torchvision's names of the layers to ours, once the block's path is ours; the first `bare` have no expansion.

    They number the layers of a block through; a block with attention has one more before its projection.
    """
    rules: list[tuple[str, str]] = []
    for path, names in (
        (rf"(stages\.0\.[0-{bare - 1}])", ("depthwise", "project")),
        (r"(stages\.\d+\.\d+)", ("expand", "depthwise", "project")),
    ):
        last = len(names)
        rules.append((rf"^{path}\.block\.{last - 1}\.(fc\d)\.", r"\1.attention.\2."))
        for index, name in enumerate((*names, "project")):
            rules += [
                (rf"^{path}\.block\.{index}\.0\.", rf"\1.{name}.conv."),
                (rf"^{path}\.block\.{index}\.1\.", rf"\1.{name}.norm."),
            ]
    return tuple(rules)

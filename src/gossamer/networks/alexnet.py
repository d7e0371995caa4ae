"""AlexNet. Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012, section 3.5.

Three networks have this name. "torchvision": one tower of 64-192-384-256-256 (Krizhevsky 2014, 1404.5997), whose
weights are in use: the default. "paper": two towers as grouped convolutions, 96-256-384-384-256; its input is 227
though the paper says 224. "ungrouped": the paper's widths without groups, the 1.13 GMAC of many tables. The paper's
local response norm, which later work does not use, is left out. Its dropout is `drop_rate=0.5`.
small_input: stride 1 in the stem, and the max pool after it is left out.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import MlpHead
from gossamer.blocks.width import make_divisible
from gossamer.errors import UnknownNameError
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder


class AlexNetVariant(NamedTuple):
    """Channels of the five convolutions, groups of the second, fourth and fifth, padding of the first, and whether pools
    round up."""

    channels: tuple[int, int, int, int, int]
    groups: int
    padding: int
    ceil_mode: bool


SIDE, HIDDEN = 6, 4096
VARIANTS = {
    "torchvision": AlexNetVariant((64, 192, 384, 256, 256), 1, 2, False),
    "paper": AlexNetVariant((96, 256, 384, 384, 256), 2, 0, False),
    "ungrouped": AlexNetVariant((96, 256, 384, 384, 256), 1, 0, True),
}

TORCHVISION = KeyMapping(
    "torchvision",
    (
        (r"^features\.0\.", "stem.conv."),
        (r"^features\.3\.", "stages.0.0.conv."),
        (r"^features\.6\.", "stages.1.0.conv."),
        (r"^features\.8\.", "stages.1.1.conv."),
        (r"^features\.10\.", "stages.1.2.conv."),
        (r"^classifier\.1\.", "head.hidden.0.linear."),
        (r"^classifier\.4\.", "head.hidden.1.linear."),
        (r"^classifier\.6\.", "head.classifier."),
    ),
)


def alexnet(
    builder: Builder, *, variant: Literal["torchvision", "paper", "ungrouped"] = "torchvision", width: float = 1.0
) -> Network:
    """AlexNet; `width` scales every layer but the classifier. Raises UnknownNameError for another variant."""
    if variant not in VARIANTS:
        raise UnknownNameError("variant of AlexNet", variant, VARIANTS)
    row = VARIANTS[variant]
    c1, c2, c3, c4, c5 = (make_divisible(c * width) for c in row.channels)
    g = row.groups
    builder.stem(ConvNormAct(builder.in_chans, c1, 11, stride=builder.stride(4), padding=row.padding, norm=False), c1)
    builder.stage(
        [ConvNormAct(c1, c2, 5, groups=g, norm=False)], c2, pool=builder.max_pool(padding=0, ceil_mode=row.ceil_mode)
    )
    last = [
        ConvNormAct(c2, c3, 3, norm=False),
        ConvNormAct(c3, c4, 3, groups=g, norm=False),
        ConvNormAct(c4, c5, 3, groups=g, norm=False),
    ]
    builder.stage(last, c5, pool=builder.max_pool(padding=0, ceil_mode=row.ceil_mode))
    builder.stage([], c5, pool=builder.max_pool(padding=0, ceil_mode=row.ceil_mode))
    hidden = make_divisible(HIDDEN * width)
    head = MlpHead(c5, builder.num_classes, side=SIDE, hidden=(hidden, hidden), drop_rate=builder.drop_rate)
    return builder.network(head, key_mappings=(TORCHVISION,) if variant == "torchvision" else ())

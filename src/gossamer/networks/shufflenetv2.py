"""ShuffleNetV2. Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, 2018,
arXiv 1807.11164, table 5.

The stride-2 unit exists twice. In the authors' (megvii-model/ShuffleNet-Series), which gives the paper's cost,
the left branch keeps its input channels, and the classifier has no bias. In torchvision's, both branches make
half of the output, and the classifier has a bias. Torchvision's is the default: its trained weights fit.
small_input: stride 1 in the stem; the max pool after it is left out.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import nn

from gossamer.blocks.attention import SqueezeExcite
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import LinearHead
from gossamer.blocks.shuffle import ShuffleDownUnit, ShuffleUnit
from gossamer.errors import SettingsError, UnknownNameError
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder


class Width(NamedTuple):
    """Output channels of stages 2, 3, 4 and of conv5."""

    stage2: int
    stage3: int
    stage4: int
    conv5: int


STEM = 24
REPEATS = (4, 8, 4)  # units of stages 2, 3, 4; the first is strided
WIDTHS = {
    0.5: Width(48, 96, 192, 1024),
    1.0: Width(116, 232, 464, 1024),
    1.5: Width(176, 352, 704, 1024),
    2.0: Width(244, 488, 976, 2048),
}

TORCHVISION = KeyMapping(
    "torchvision",
    (
        (r"^conv1\.0\.", "stem.conv."),
        (r"^conv1\.1\.", "stem.norm."),
        (r"^conv5\.0\.", "conv_head.conv."),
        (r"^conv5\.1\.", "conv_head.norm."),
        (r"^fc\.", "head.classifier."),
        (r"^stage2\.", "stages.1."),
        (r"^stage3\.", "stages.2."),
        (r"^stage4\.", "stages.3."),
        (r"\.branch1\.0\.", ".left.0.conv."),
        (r"\.branch1\.1\.", ".left.0.norm."),
        (r"\.branch1\.2\.", ".left.1.conv."),
        (r"\.branch1\.3\.", ".left.1.norm."),
        (r"\.branch2\.0\.", ".right.0.conv."),
        (r"\.branch2\.1\.", ".right.0.norm."),
        (r"\.branch2\.3\.", ".right.1.conv."),
        (r"\.branch2\.4\.", ".right.1.norm."),
        (r"\.branch2\.5\.", ".right.2.conv."),
        (r"\.branch2\.6\.", ".right.2.norm."),
    ),
)


def shufflenet_v2(
    builder: Builder,
    *,
    width: float = 1.0,
    down_unit: Literal["torchvision", "authors"] = "torchvision",
    attention: Literal["none", "se"] = "none",
) -> Network:
    """ShuffleNetV2 of a published `width`: 0.5, 1, 1.5 or 2. `down_unit`: whose stride-2 unit and classifier.

    attention: "se" for squeeze-and-excitation at a sixteenth of the convolved channels (section 4, "SE").
    Raises SettingsError for another width, UnknownNameError for another unit or attention.
    """
    if width not in WIDTHS:
        raise SettingsError(
            f"width {width:g} for ShuffleNetV2", ", ".join(f"{known:g}" for known in WIDTHS), "choose one of them"
        )
    if down_unit not in ("torchvision", "authors"):
        raise UnknownNameError("stride-2 unit of ShuffleNetV2", down_unit, ("torchvision", "authors"))
    if attention not in ("none", "se"):
        raise UnknownNameError("attention of ShuffleNetV2", attention, ("none", "se"))

    def gate(channels: int) -> SqueezeExcite | None:
        return SqueezeExcite(channels, max(1, channels // 16)) if attention == "se" else None

    row = WIDTHS[width]
    builder.stem(ConvNormAct(builder.in_chans, STEM, 3, stride=builder.stride(2)), STEM)
    builder.stage([], STEM, pool=builder.max_pool())
    for c, repeats in zip(row[:3], REPEATS):
        c_left = c // 2 if down_unit == "torchvision" else builder.channels
        blocks: list[nn.Module] = [
            ShuffleDownUnit(builder.channels, c, c_left=c_left, stride=builder.stride(2), attention=gate(c - c_left))
        ]
        builder.stage(blocks + [ShuffleUnit(c, attention=gate(c // 2)) for _ in range(repeats - 1)], c)
    bias = down_unit == "torchvision"
    head = LinearHead(row.conv5, builder.num_classes, drop_rate=builder.drop_rate, bias=bias)
    return builder.network(head, conv_head=ConvNormAct(builder.channels, row.conv5), key_mappings=(TORCHVISION,))

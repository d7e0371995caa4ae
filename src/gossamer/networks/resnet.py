"""ResNet. He et al., Deep Residual Learning for Image Recognition, 2015, arXiv 1512.03385, table 1.

Projection shortcuts where the shape changes (option B of the paper).
small_input: stride 1 in the stem; the max pool after it is left out.
"""

from __future__ import annotations

from typing import NamedTuple

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import LinearHead
from gossamer.blocks.residual import BasicBlock
from gossamer.blocks.width import make_divisible
from gossamer.networks.base import Naming, Network
from gossamer.networks.plan import Plan


class Depth(NamedTuple):
    """Blocks of conv2_x, conv3_x, conv4_x and conv5_x."""

    conv2_x: int
    conv3_x: int
    conv4_x: int
    conv5_x: int


STEM = 64
CHANNELS = (64, 128, 256, 512)
DEPTHS = {
    18: Depth(2, 2, 2, 2),
    34: Depth(3, 4, 6, 3),
}

NAMING = Naming(
    "torchvision and timm",
    (
        (r"^conv1\.", "stem.conv."),
        (r"^bn1\.", "stem.norm."),
        (r"^fc\.", "head.classifier."),
        (r"^layer1\.", "stages.0."),
        (r"^layer2\.", "stages.1."),
        (r"^layer3\.", "stages.2."),
        (r"^layer4\.", "stages.3."),
        (r"^(stages\.\d+\.\d+\.conv\d)\.", r"\1.conv."),
        (r"^(stages\.\d+\.\d+)\.bn(\d)\.", r"\1.conv\2.norm."),
        (r"\.downsample\.0\.", ".shortcut.conv."),
        (r"\.downsample\.1\.", ".shortcut.norm."),
    ),
)


def resnet(plan: Plan, *, depth: int, width: float = 1.0) -> Network:
    """ResNet of a `depth` in the paper's table; `width` scales every layer but the classifier."""
    stem = make_divisible(STEM * width)
    plan.stem(ConvNormAct(plan.in_chans, stem, 7, stride=plan.stride(2)), stem)
    for index, (channels, n) in enumerate(zip(CHANNELS, DEPTHS[depth])):
        c = make_divisible(channels * width)
        pool = plan.max_pool() if index == 0 else None
        strides = [1 if index == 0 else plan.stride(2)] + [1] * (n - 1)
        inputs = [plan.channels] + [c] * (n - 1)
        plan.stage([BasicBlock(c_in, c, stride=s) for c_in, s in zip(inputs, strides)], c, pool=pool)
    head = LinearHead(plan.channels, plan.num_classes, drop_rate=plan.drop_rate)
    return plan.network(head, namings=(NAMING,))

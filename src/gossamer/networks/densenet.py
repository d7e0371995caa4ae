"""DenseNet. Huang et al., Densely Connected Convolutional Networks, 2016, arXiv 1608.06993, table 1.

DenseNet-BC: bottlenecks of four times the growth, transitions that halve the channels.
small_input: stride 1 in the stem; the max pool after it is left out.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from torch import nn

from gossamer.blocks.activation import activation
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.dense import DenseLayer, NormActConv
from gossamer.blocks.head import LinearHead
from gossamer.blocks.width import make_divisible
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder


class DenseNetDepth(NamedTuple):
    """Growth rate k, channels of the stem, dense layers of the four blocks."""

    k: int
    stem: int
    blocks: tuple[int, int, int, int]


MIDDLE = 4  # bottleneck, in growth rates
DEPTHS = {
    121: DenseNetDepth(32, 64, (6, 12, 24, 16)),
    161: DenseNetDepth(48, 96, (6, 12, 36, 24)),
    169: DenseNetDepth(32, 64, (6, 12, 32, 32)),
    201: DenseNetDepth(32, 64, (6, 12, 48, 32)),
}


def _key_mapping(repeats: tuple[int, ...]) -> KeyMapping:
    """They count blocks and layers from 1."""
    rules = [
        (r"^features\.conv0\.", "stem.conv."),
        (r"^features\.norm0\.", "stem.norm."),
        (r"^features\.norm5\.", "conv_head.norm."),
        (r"^classifier\.", "head.classifier."),
    ]
    for stage, n in enumerate(repeats):
        place = rf"^features\.denseblock{stage + 1}\.denselayer"
        for index in range(n):
            rules.append((rf"{place}{index + 1}\.", f"stages.{stage}.{index}."))
        for part in ("norm", "conv"):
            rules.append((rf"^features\.transition{stage + 1}\.{part}\.", f"stages.{stage + 1}.pool.shrink.{part}."))
    rules += [
        (rf"\.{part}{n}\.", f".{ours}.{part}.") for part in ("norm", "conv") for n, ours in ((1, "reduce"), (2, "grow"))
    ]
    return KeyMapping("torchvision and timm", tuple(rules))


def densenet(builder: Builder, *, depth: int, width: float = 1.0, repeats: tuple[int, ...] | None = None) -> Network:
    """DenseNet of a `depth` in the table; `width` scales the growth rate and the stem.

    repeats: dense layers of each block in place of the table's; any number of blocks.
    """
    row = DEPTHS[depth]
    growth, c = make_divisible(row.k * width), make_divisible(row.stem * width)
    counts = tuple(repeats or row.blocks)
    builder.stem(ConvNormAct(builder.in_chans, c, 7, stride=builder.stride(2)), c)
    pool = builder.max_pool()
    for index, n in enumerate(counts):
        if index:
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            parts["shrink"] = NormActConv(c, c // 2)
            parts["pool"] = nn.AvgPool2d(2, builder.stride(2))
            pool, c = nn.Sequential(parts), c // 2
        layers = [DenseLayer(c + layer * growth, growth, c_mid=MIDDLE * growth) for layer in range(n)]
        c += n * growth
        builder.stage(layers, c, pool=pool)
    last: OrderedDict[str, nn.Module] = OrderedDict()
    last["norm"], last["act"] = nn.BatchNorm2d(c), activation("relu")
    head = LinearHead(c, builder.num_classes, drop_rate=builder.drop_rate)
    return builder.network(head, conv_head=nn.Sequential(last), key_mappings=(_key_mapping(counts),))

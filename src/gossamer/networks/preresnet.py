"""Pre-activation ResNet. He et al., Identity Mappings in Deep Residual Networks, 2016, arXiv 1603.05027, section 4.
Wide: Zagoruyko and Komodakis, Wide Residual Networks, 2016, arXiv 1605.07146, table 1.

The networks of CIFAR: 3x3 stem without norm, three stages of 16, 32 and 64 channels times `width`, norm and ReLU after
the last. A depth is 6n + 4 with wide or 6n + 2 with plain basic blocks, 9n + 2 with bottlenecks. The wide networks'
dropout of 0.3 within a block is `block_drop_rate`. Made for 32x32: `small_input` changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import LinearHead
from gossamer.blocks.residual import PreActBlock
from gossamer.blocks.width import make_divisible
from gossamer.networks.base import Network
from gossamer.networks.builder import Builder

STEM = 16
CHANNELS = (16, 32, 64)
EXPANSION = 4  # outputs of a bottleneck, in its stage's channels


def preresnet(
    builder: Builder, *, repeats: int, width: float = 1.0, bottleneck: bool = False, block_drop_rate: float = 0.0
) -> Network:
    """A network of three stages of `repeats` blocks; `width` scales the stages, not the stem."""
    builder.made_for_small_input()
    builder.stem(ConvNormAct(builder.in_chans, STEM, 3, norm=False, bias=False, act=None), STEM)
    for index, channels in enumerate(CHANNELS):
        c_mid = make_divisible(channels * width)
        c = c_mid * EXPANSION if bottleneck else c_mid
        blocks = [
            PreActBlock(
                builder.channels if block == 0 else c,
                c,
                stride=builder.stride(2) if block == 0 and index else 1,
                c_mid=c_mid if bottleneck else None,
                drop_rate=block_drop_rate,
            )
            for block in range(repeats)
        ]
        builder.stage(blocks, c)
    last = nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(builder.channels), act=nn.ReLU()))
    return builder.network(
        LinearHead(builder.channels, builder.num_classes, drop_rate=builder.drop_rate), conv_head=last
    )

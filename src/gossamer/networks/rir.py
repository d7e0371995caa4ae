"""ResNet in ResNet. Targ et al., Resnet in Resnet: Generalizing Residual Architectures, 2016, arXiv 1603.08029,
section 3: the 18-layer network with wide RiR blocks.

The paper gives no widths in a table; these are the ones whose counts later work agrees on. Made for 32x32:
`small_input` changes nothing.
"""

from __future__ import annotations

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import ConvHead
from gossamer.blocks.inception import Branches
from gossamer.blocks.residual import ResidualAndTransient
from gossamer.blocks.width import make_divisible
from gossamer.networks.base import Network
from gossamer.networks.builder import Builder

CHANNELS = (48, 96, 192)  # of each of the two streams
REPEATS = (4, 6, 6)


def rir(builder: Builder, *, width: float = 1.0) -> Network:
    """ResNet in ResNet; `width` scales every layer but the classifier."""
    builder.made_for_small_input()
    c_in = make_divisible(CHANNELS[0] * width)
    builder.stem(Branches([ConvNormAct(builder.in_chans, c_in, 3) for _ in range(2)]), 2 * c_in)
    for index, (channels, repeats) in enumerate(zip(CHANNELS, REPEATS)):
        c = make_divisible(channels * width)
        blocks = [ResidualAndTransient(c_in, c, stride=builder.stride(2) if index else 1)]
        blocks += [ResidualAndTransient(c, c) for _ in range(repeats - 1)]
        builder.stage(blocks, 2 * c)
        c_in = c
    head = ConvHead(2 * c_in, builder.num_classes, drop_rate=builder.drop_rate, act=False, norm=True)
    return builder.network(head)

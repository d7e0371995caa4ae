"""LeNet-5. LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998, figure 2 and table I.

"original": C3 sees only some maps of S2 (table I), sub-sampling has a learnt scale and shift per map, and the outputs are
distances to fixed codes. The paper drew a 7x12 bitmap for each character; the codes here are fixed signs of as many
places, so that there may be any classes. "modern": what most texts build: all of C3, plain pooling, a linear
classifier. "caffe": the wider example of Caffe, for 28x28.
C5 covers the whole 5x5 map that 32x32 gives; of larger inputs its outputs are averaged.
Made for 32x32: `small_input` changes nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.blocks.activation import Activation
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import HiddenHead, MlpHead
from gossamer.errors import UnknownNameError
from gossamer.networks.base import Network
from gossamer.networks.builder import Builder

C1, C3, C5, F6 = 6, 16, 120, 84
TABLE_I = (  # the maps of S2 that each map of C3 sees
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)
VARIANTS = ("modern", "original", "caffe")


class SubSample(nn.Module):
    """Mean of 2x2 times a scale plus a shift a map: (N, C, H, W) -> (N, C, H / 2, W / 2). No MACs by convention."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (F.avg_pool2d(x, 2) if self.stride == 2 else x) * self.scale + self.shift


class PartialConv(nn.Module):
    """5x5 convolutions that each see some of the maps: (N, 6, H, W) -> (N, 16, H - 4, W - 4), in the order of table I.

    MACs: 25 * 60 * h * w.
    """

    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.convs = nn.ModuleList(ConvNormAct(len(maps), 1, 5, padding=0, norm=False, act=act) for maps in TABLE_I)

    def forward(self, x: Tensor) -> Tensor:
        alone = x.chunk(6, dim=1)  # a list of indices would become an operation that few runtimes have
        seen = (torch.cat([alone[index] for index in maps], dim=1) for maps in TABLE_I)
        return torch.cat([conv(part) for conv, part in zip(self.convs, seen)], dim=1)


class Codes(nn.Module):
    """Minus the squared distance to a fixed code of signs for each class: (N, C) -> (N, classes). No parameters."""

    codes: Tensor

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        signs = torch.randint(0, 2, (num_classes, channels), generator=torch.Generator().manual_seed(5), device="cpu")
        self.register_buffer("codes", (signs * 2.0 - 1.0).to(torch.get_default_device()))

    def forward(self, x: Tensor) -> Tensor:
        return -((x[:, None] - self.codes) ** 2).sum(2)


class CodeHead(HiddenHead):
    """F6, then the distances to fixed codes; see `Codes`."""

    def _classifier(self, num_classes: int) -> nn.Module:
        return Codes(self.num_features, num_classes) if num_classes else nn.Identity()


def lenet(builder: Builder, *, variant: Literal["modern", "original", "caffe"] = "modern") -> Network:
    """LeNet-5 in one of three forms. Raises UnknownNameError for another."""
    if variant not in VARIANTS:
        raise UnknownNameError("variant of LeNet-5", variant, VARIANTS)
    builder.made_for_small_input()
    if variant == "caffe":
        builder.stem(ConvNormAct(builder.in_chans, 20, 5, padding=0, norm=False, act=None), 20)
        conv2 = ConvNormAct(20, 50, 5, padding=0, norm=False, act=None)
        builder.stage([conv2], 50, pool=builder.max_pool(kernel=2, padding=0))
        builder.stage([], 50, pool=builder.max_pool(kernel=2, padding=0))
        return builder.network(MlpHead(50, builder.num_classes, side=4, hidden=(500,), drop_rate=builder.drop_rate))
    original = variant == "original"
    act: Activation = "scaled_tanh" if original else "tanh"
    builder.stem(ConvNormAct(builder.in_chans, C1, 5, padding=0, norm=False, act=act), C1)
    for c_in, c in ((C1, C3), (C3, C5)):
        stride = builder.stride(2)
        pool = SubSample(c_in, stride) if original else nn.AvgPool2d(stride)
        conv = PartialConv(act) if original and c == C3 else ConvNormAct(c_in, c, 5, padding=0, norm=False, act=act)
        builder.stage([conv], c, pool=pool)
    head = CodeHead if original else HiddenHead
    return builder.network(head(C5, builder.num_classes, hidden=F6, act=act, drop_rate=builder.drop_rate))

"""Channel shuffle and the units of ShuffleNet V1 and V2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gossamer.blocks.activation import activation
from gossamer.blocks.conv import ConvNormAct


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave `groups` equal groups of channels: (N, C, H, W) -> the same shape.

    Channel i of group g comes to place i * groups + g. No MACs.
    Source: ShuffleNet (1707.01083), section 3.1.
    """
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def _branch(c_in: int, c_mid: int, c_out: int, stride: int, attention: nn.Module | None = None) -> nn.Sequential:
    """1x1, 3x3 depthwise without activation, 1x1, attention: (N, c_in, H, W) -> (N, c_out, h, w)."""
    layers: list[nn.Module] = [
        ConvNormAct(c_in, c_mid),
        ConvNormAct(c_mid, c_mid, 3, stride=stride, groups=c_mid, act=None),
        ConvNormAct(c_mid, c_out),
    ]
    return nn.Sequential(*layers, *([] if attention is None else [attention]))


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half are convolved, then all are shuffled: (N, c, H, W) -> the same shape.

    `attention` acts on the half that is convolved. MACs: (2 * (c/2)^2 + 9 * c/2) * h * w. Source: ShuffleNetV2 (1807.11164), figure 3c.
    """

    def __init__(self, channels: int, *, attention: nn.Module | None = None) -> None:
        super().__init__()
        half = channels // 2
        self.right = _branch(half, half, half, 1, attention)

    def forward(self, x: Tensor) -> Tensor:
        kept, convolved = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat((kept, self.right(convolved)), dim=1), 2)


class ShuffleDownUnit(nn.Module):
    """Both branches see all channels and are strided: (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride).

    `attention` acts on the right branch. `c_left` of the output channels come from the left branch (3x3 depthwise, 1x1), the others from the
    right one (1x1 to c_out / 2, 3x3 depthwise, 1x1). Right, with m = c_out / 2:
    m * c_in * H * W + (9 * m + m * (c_out - c_left)) * h * w MACs; left: (9 * c_in + c_in * c_left) * h * w.
    Source: ShuffleNetV2 (1807.11164), figure 3d.
    """

    def __init__(
        self, c_in: int, c_out: int, *, c_left: int, stride: int = 2, attention: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.left = nn.Sequential(
            ConvNormAct(c_in, c_in, 3, stride=stride, groups=c_in, act=None), ConvNormAct(c_in, c_left)
        )
        self.right = _branch(c_in, c_out // 2, c_out - c_left, stride, attention)

    def forward(self, x: Tensor) -> Tensor:
        return channel_shuffle(torch.cat((self.left(x), self.right(x)), dim=1), 2)


class GroupShuffleUnit(nn.Module):
    """Grouped 1x1 to c_out / 4, shuffle, 3x3 depthwise, grouped 1x1, and a shortcut.

    (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride). concat: the shortcut, averaged over 3x3 where it is
    strided, is concatenated with the branch, which then has c_out - c_in channels; else it is added. first_groups: of the
    first 1x1. shuffle: False for the ablation of table 3.
    MACs, with m = c_out / 4 and b channels of the branch: c_in * m / first_groups * H * W +
    (9 * m + m * b / groups) * h * w. Source: ShuffleNet (1707.01083), figure 2b and 2c.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        groups: int,
        first_groups: int,
        stride: int = 1,
        concat: bool = False,
        shuffle: bool = True,
    ) -> None:
        super().__init__()
        c_mid = c_out // 4
        self.groups = groups if shuffle else 1
        self.conv1 = ConvNormAct(c_in, c_mid, groups=first_groups)
        self.depthwise = ConvNormAct(c_mid, c_mid, 3, stride=stride, groups=c_mid, act=None)
        self.conv2 = ConvNormAct(c_mid, c_out - c_in if concat else c_out, groups=groups, act=None)
        self.concat = concat
        self.pool = nn.AvgPool2d(3, 2, padding=1) if stride == 2 else nn.Identity()
        self.act = activation("relu")

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv1(x)
        if self.groups > 1:
            branch = channel_shuffle(branch, self.groups)
        branch = self.conv2(self.depthwise(branch))
        out: Tensor = self.act(torch.cat((self.pool(x), branch), dim=1) if self.concat else x + branch)
        return out

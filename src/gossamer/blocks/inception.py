"""The Inception modules: branches side by side, concatenated along the channels.

A branch is written as its steps (channels, kernel), each a convolution with norm and activation. Beside what a module
says, its cost is the sum of its convolutions': k_h * k_w * c_in * c_out * h * w MACs each. `width` scales all channels that are named.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gossamer.blocks.activation import activation
from gossamer.blocks.conv import ConvNormAct, Pair
from gossamer.blocks.drop import DropPath
from gossamer.blocks.width import make_divisible

Step = tuple[int, Pair]


def scale_channels(channels: int, width: float) -> int:
    """Channels times a width multiplier."""
    return channels if width == 1 else make_divisible(channels * width)


class Branches(nn.ModuleList):
    """The outputs of several modules for the same map, concatenated: (N, c_in, H, W) -> (N, channels, h, w).

    c_in: what a branch without convolution, a pool, passes on. channels: the sum of what the branches make.
    """

    def __init__(self, branches: Sequence[nn.Module], c_in: int = 0) -> None:
        super().__init__(branches)
        self.channels = sum(_channels(branch, c_in) for branch in branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


def _channels(module: nn.Module, c_in: int) -> int:
    """What a branch makes: the channels of its last convolution, or `c_in` without one."""
    if isinstance(module, nn.Conv2d):
        return module.out_channels
    if isinstance(module, Branches):
        return module.channels
    return next((channels for child in reversed(list(module.children())) if (channels := _channels(child, 0))), c_in)


def chain(
    c_in: int, *steps: Step, width: float = 1.0, stride: int | None = None, padding: int = 0, norm: bool = True
) -> nn.Sequential:
    """Convolutions in a row, of `width` times the steps' channels.

    `stride`, where it is given, is the last one's, with `padding`.
    """
    layers = []
    for index, (channels, kernel) in enumerate(steps):
        c = scale_channels(channels, width)
        if stride is not None and index == len(steps) - 1:
            layers.append(ConvNormAct(c_in, c, kernel, stride=stride, padding=padding, norm=norm))
        else:
            layers.append(ConvNormAct(c_in, c, kernel, norm=norm))
        c_in = c
    return nn.Sequential(*layers)


def forked(c_in: int, *steps: Step, c: int, width: float = 1.0) -> nn.Sequential:
    """Steps, then 1 x 3 and 3 x 1 side by side of c channels each. Source: 1512.00567, figure 7."""
    before, c = scale_channels(steps[-1][0], width), scale_channels(c, width)
    pair = Branches([ConvNormAct(before, c, (1, 3)), ConvNormAct(before, c, (3, 1))])
    return chain(c_in, *steps, width=width).append(pair)


def pooled(c_in: int, c: int, pool: nn.Module, *, width: float = 1.0, norm: bool = True) -> nn.Sequential:
    """A pool that keeps the size, then 1x1 to c channels."""
    return nn.Sequential(pool, ConvNormAct(c_in, scale_channels(c, width), norm=norm))


def average(count_include_pad: bool = True) -> nn.Module:
    """3x3 average that keeps the size; the zeros of the padding count as positions, or not."""
    return nn.AvgPool2d(3, 1, padding=1, count_include_pad=count_include_pad)


class Inception(Branches):
    """1x1; 1x1 then 3x3; 1x1 then k x k; 3x3 max pool then 1x1: (N, c_in, H, W) -> (N, sum of the ends, H, W).

    c3x3, c5x5: channels of the 1x1 and of the larger one. kernel: of the third branch, 5 in the paper.
    Source: Szegedy et al. 2014 (1409.4842), figure 2b.
    """

    def __init__(
        self,
        c_in: int,
        *,
        c1x1: int,
        c3x3: tuple[int, int],
        c5x5: tuple[int, int],
        pool: int,
        kernel: int = 5,
        width: float = 1.0,
        norm: bool = True,
    ) -> None:
        super().__init__(
            [
                chain(c_in, (c1x1, 1), width=width, norm=norm),
                chain(c_in, (c3x3[0], 1), (c3x3[1], 3), width=width, norm=norm),
                chain(c_in, (c5x5[0], 1), (c5x5[1], kernel), width=width, norm=norm),
                pooled(c_in, pool, nn.MaxPool2d(3, 1, padding=1), width=width, norm=norm),
            ]
        )


class InceptionA(Branches):
    """1x1; 1x1 then k x k; 1x1 then 3x3 twice in the place of 5x5; a pool then 1x1.

    (N, c_in, H, W) -> (N, sum of the ends, H, W). single: channels of the second branch, `kernel` its larger one.
    pool: channels after the pool; `pooling`: the pool, by default a 3x3 average.
    Source: Inception v3 (1512.00567), figure 5; v4 (1602.07261), figure 4; v2 (1502.03167), figure 5.
    """

    def __init__(
        self,
        c_in: int,
        *,
        c1x1: int,
        single: tuple[int, int],
        double: tuple[int, int, int],
        pool: int,
        kernel: int = 3,
        pooling: nn.Module | None = None,
        width: float = 1.0,
    ) -> None:
        super().__init__(
            [
                chain(c_in, (c1x1, 1), width=width),
                chain(c_in, (single[0], 1), (single[1], kernel), width=width),
                chain(c_in, (double[0], 1), (double[1], 3), (double[2], 3), width=width),
                pooled(c_in, pool, pooling or average(), width=width),
            ]
        )


class InceptionB(Branches):
    """1x1; 1x1, 1x7, 7x1; 1x1, 7x1, 1x7, 7x1, 1x7; a pool then 1x1: n x n as 1 x n and n x 1, with n = 7.

    (N, c_in, H, W) -> (N, sum of the ends, H, W). single, double: channels of the steps of the middle branches.
    Source: Inception v3 (1512.00567), figure 6; v4 (1602.07261), figure 5.
    """

    def __init__(
        self,
        c_in: int,
        *,
        c1x1: int,
        single: tuple[int, int, int],
        double: tuple[int, int, int, int, int],
        pool: int,
        pooling: nn.Module | None = None,
        width: float = 1.0,
    ) -> None:
        row, column = (1, 7), (7, 1)
        first: tuple[Pair, ...] = (1, row, column)
        second: tuple[Pair, ...] = (1, column, row, column, row)
        super().__init__(
            [
                chain(c_in, (c1x1, 1), width=width),
                chain(c_in, *zip(single, first), width=width),
                chain(c_in, *zip(double, second), width=width),
                pooled(c_in, pool, pooling or average(), width=width),
            ]
        )


class InceptionC(Branches):
    """1x1; 1x1 then a fork; 1x1, further steps, then a fork; a pool then 1x1. A fork is 1x3 and 3x1 side by side.

    (N, c_in, H, W) -> (N, c1x1 + 4 * fork + pool, H, W). single: channels of the 1x1 before the first fork; double:
    the steps before the second. Source: Inception v3 (1512.00567), figure 7; v4 (1602.07261), figure 6.
    """

    def __init__(
        self,
        c_in: int,
        *,
        c1x1: int,
        single: int,
        double: tuple[Step, ...],
        fork: int,
        pool: int,
        pooling: nn.Module | None = None,
        width: float = 1.0,
    ) -> None:
        super().__init__(
            [
                chain(c_in, (c1x1, 1), width=width),
                forked(c_in, (single, 1), c=fork, width=width),
                forked(c_in, *double, c=fork, width=width),
                pooled(c_in, pool, pooling or average(), width=width),
            ]
        )


class GridReduction(Branches):
    """Strided branches beside a strided 3x3 max pool, so that no branch is a bottleneck of representation.

    (N, c_in, H, W) -> (N, c_in + sum of the ends, h, w). chains: the steps of each branch; the last is strided.
    padding: of the strided layers; without, h = (H - 3) // stride + 1, with 1 h = (H - 1) // stride + 1.
    Reduction A and B of Inception v4 are two settings of it.
    Source: Inception v3 (1512.00567), figure 10; v4 (1602.07261), figures 7 and 8.
    """

    def __init__(
        self, c_in: int, *chains: tuple[Step, ...], width: float = 1.0, stride: int = 2, padding: int = 0
    ) -> None:
        strided = [chain(c_in, *steps, width=width, stride=stride, padding=padding) for steps in chains]
        super().__init__([*strided, nn.MaxPool2d(3, stride, padding=padding)], c_in)


class InceptionResidual(nn.Module):
    """Branches, merged by a 1x1 convolution with bias and without norm, scaled, and added to the input.

    (N, c, H, W) -> the same shape. chains: the steps of each branch. scale: of the branch, against unstable training.
    act: after the addition; the last block of some weights has none. MACs of the 1x1: sum of the ends * c * H * W.
    Source: Inception-ResNet (1602.07261), figures 10 to 20 and section 3.3.
    """

    def __init__(self, c: int, *chains: tuple[Step, ...], scale: float, act: bool = True, width: float = 1.0) -> None:
        super().__init__()
        self.branches = Branches([chain(c, *steps, width=width) for steps in chains])
        self.join = nn.Conv2d(self.branches.channels, c, 1)
        self.scale = scale
        self.drop_path = DropPath()
        self.act = activation("relu") if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.drop_path(self.join(self.branches(x)) * self.scale)
        out: Tensor = self.act(x + branch)
        return out

    def without_branch(self) -> nn.Module:
        """What is left of the block without its branch."""
        return self.act

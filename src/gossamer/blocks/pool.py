"""Pools that torch lacks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DilatedAvgPool2d(nn.Module):
    """Average over kernel x kernel positions that lie `dilation` apart: (N, C, H, W) -> (N, C, h, w).

    h = (H + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1. `count_include_pad`: the zeros of the padding
    count as positions. No MACs by convention. What an average pool becomes where its network's strides are traded
    for dilation (DeepLab, 1606.00915, section 3.1).
    """

    def __init__(
        self, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1, count_include_pad: bool = True
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation
        self.count_include_pad = count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        counts_all = self.count_include_pad or not self.padding
        if counts_all and torch.compiler.is_compiling():
            return self._as_convolution(x)  # in a file one operator, which every runtime has
        total = self._sum(x)
        if counts_all:
            return total / self.kernel**2
        return total / self._sum(torch.ones_like(x[:1, :1]))

    def _sum(self, x: Tensor) -> Tensor:
        """As shifted additions: no weights, and no product that a counter would take for a convolution."""
        x = F.pad(x, (self.padding,) * 4)
        reach = self.dilation * (self.kernel - 1)
        h, w = x.shape[-2] - reach, x.shape[-1] - reach
        places = [self.dilation * index for index in range(self.kernel)]
        rows = [x[..., i : i + h : self.stride, :] for i in places]
        along = torch.stack(rows).sum(0)
        return torch.stack([along[..., j : j + w : self.stride] for j in places]).sum(0)

    def _as_convolution(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        weight = torch.full((channels, 1, self.kernel, self.kernel), 1 / self.kernel**2, dtype=x.dtype, device=x.device)
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, channels)


def average_to(x: Tensor, side: int) -> Tensor:
    """The average of side x side parts, as adaptive pooling has it: (N, C, H, W) -> (N, C, side, side).

    Written with plain pools and means, which every runtime has; exporters make something unwieldy of the adaptive pool.
    No MACs by convention.
    """
    height, width = x.shape[-2:]
    if height % side == 0 and width % side == 0:
        return F.avg_pool2d(x, (height // side, width // side)) if (height, width) != (side, side) else x
    for axis, size in ((2, height), (3, width)):
        parts = []
        for index in range(side):
            first, end = index * size // side, -((index + 1) * size // -side)
            parts.append(x.narrow(axis, first, end - first).mean(axis, keepdim=True))
        x = torch.cat(parts, dim=axis)
    return x


class AverageTo(nn.Module):
    """`average_to` as a layer: (N, C, H, W) -> (N, C, side, side)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        return average_to(x, self.side)


class PoolToFive(nn.Module):
    """5x5 average of stride 3 before an auxiliary classifier: (N, C, H, W) -> (N, C, h, w), h and w at least 5.

    Maps below 17x17, which that pool would leave too small for the 5x5 convolution after it, are averaged to 5x5.
    No MACs by convention. Source: Inception v3 (1512.00567), figure 8.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 5, 3) if min(x.shape[-2:]) >= 17 else average_to(x, 5)

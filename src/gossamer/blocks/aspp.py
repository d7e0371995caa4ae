"""A map seen at several scales side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.blocks.conv import ConvNormAct


class ImagePooling(nn.Module):
    """The mean over all positions, 1x1 convolution, norm, activation, at every position again.

    (N, c_in, H, W) -> (N, c_out, H, W). MACs: c_in * c_out. Source: ParseNet (1506.04579), section 3.1, as
    DeepLabv3 (1706.05587, section 3.3) uses it.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.project = ConvNormAct(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1)
        if self.training and len(x) == 1:  # batch norm refuses to train on a single value per channel
            pooled = pooled.expand(-1, -1, 1, 2)
        out: Tensor = self.project(pooled)[..., :1]
        return out.expand(-1, -1, *x.shape[-2:])


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, 3x3 of each rate and image pooling side by side, merged by a 1x1.

    (N, c_in, H, W) -> (N, c_out, H, W). rates: dilations of the 3x3 convolutions; without any, what is left is the
    light head of MobileNetV2 (1801.04381, section 6.3). separable: depthwise 3x3, then 1x1, each with norm and ReLU,
    in the place of the 3x3 (DeepLabv3+, 1802.02611, section 3.1). drop_rate: after the joining convolution.
    MACs with r rates, a position: (1 + 9 * r) * c_in * c_out + (2 + r) * c_out^2; image pooling adds c_in * c_out.
    Source: DeepLabv3 (1706.05587), section 3.3 and figure 5.
    """

    def __init__(
        self, c_in: int, c_out: int, rates: Sequence[int], *, separable: bool = False, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvNormAct(c_in, c_out)])
        for rate in rates:
            make = SeparableConv if separable else _dense
            self.branches.append(make(c_in, c_out, rate))
        self.pooling = ImagePooling(c_in, c_out)
        self.project = ConvNormAct((2 + len(rates)) * c_out, c_out)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        maps = [branch(x) for branch in self.branches]
        out: Tensor = self.drop(self.project(torch.cat([*maps, self.pooling(x)], dim=1)))
        return out


class SeparableConv(nn.Sequential):
    """3x3 depthwise convolution of dilation `rate`, then 1x1, each with norm and ReLU: (N, c_in, H, W) ->
    (N, c_out, H, W). MACs: (9 * c_in + c_in * c_out) * H * W. Source: DeepLabv3+ (1802.02611), section 3.1."""

    def __init__(self, c_in: int, c_out: int, rate: int = 1) -> None:
        super().__init__()
        self.add_module("depthwise", ConvNormAct(c_in, c_in, 3, dilation=rate, padding=rate, groups=c_in))
        self.add_module("pointwise", ConvNormAct(c_in, c_out))


def _dense(c_in: int, c_out: int, rate: int) -> nn.Module:
    return ConvNormAct(c_in, c_out, 3, dilation=rate, padding=rate)

"""The dense layer and the transition of DenseNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gossamer.blocks.activation import Activation, activation


class NormActConv(nn.Module):
    """Batch norm, activation, k x k convolution without bias: (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride).

    The order of pre-activation. MACs: k * k * c_in * c_out * h * w.
    Source: He et al. 2016, Identity Mappings in Deep Residual Networks (1603.05027), figure 4e.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, *, stride: int = 1, act: Activation = "relu") -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(c_in)
        self.act = activation(act)
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.act(self.norm(x)))
        return out


class DenseLayer(nn.Module):
    """1x1 to c_mid and 3x3 to `growth` new channels, concatenated to the input: (N, c_in, H, W) -> (N, c_in + growth, H, W).

    MACs: (c_in * c_mid + 9 * c_mid * growth) * H * W.
    Source: DenseNet (1608.06993), section 3 (DenseNet-B).
    """

    def __init__(self, c_in: int, growth: int, *, c_mid: int) -> None:
        super().__init__()
        self.reduce = NormActConv(c_in, c_mid)
        self.grow = NormActConv(c_mid, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.grow(self.reduce(x))), dim=1)

"""Attention: parts of a map weighted by what the map holds.

A gate's layers are called `gate`, so that changing a network's activation leaves them alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.blocks.activation import Activation, activation
from gossamer.blocks.conv import ConvNormAct


class SqueezeExcite(nn.Module):
    """Channel attention: global average, 1x1 to `reduced`, `act`, 1x1 back, `gate`, product with the input.

    (N, channels, H, W) -> the same shape. MACs: 2 * channels * reduced.
    Source: Hu et al. 2017, Squeeze-and-Excitation Networks (1709.01507), figure 2; the hard gate: MobileNetV3
    (1905.02244), section 5.3.
    """

    def __init__(
        self, channels: int, reduced: int, *, act: Activation = "relu", gate: Activation = "sigmoid", bias: bool = True
    ) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, reduced, 1, bias=bias)
        self.act = activation(act)
        self.fc2 = nn.Conv2d(reduced, channels, 1, bias=bias)
        self.gate = activation(gate)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.gate(self.fc2(self.act(self.fc1(F.adaptive_avg_pool2d(x, 1)))))
        return x * weights


class ChannelAttention(nn.Module):
    """Squeeze-and-excitation over the average and the maximum of each channel, with one set of weights for both.

    (N, channels, H, W) -> the same shape. MACs: 4 * channels * reduced.
    Source: Woo et al. 2018, CBAM (1807.06521), figure 2 and equation 2.
    """

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, reduced, 1)
        self.act = activation("relu")
        self.fc2 = nn.Conv2d(reduced, channels, 1)
        self.gate = activation("sigmoid")

    def forward(self, x: Tensor) -> Tensor:
        # amax, as not every exporter has an adaptive maximum
        pools = (F.adaptive_avg_pool2d(x, 1), x.amax((2, 3), keepdim=True))
        average, highest = (self.fc2(self.act(self.fc1(pooled))) for pooled in pools)
        weights: Tensor = self.gate(average + highest)
        return x * weights


class SpatialAttention(nn.Module):
    """A weight for each position, by a k x k convolution of the channels' maximum and mean there.

    (N, channels, H, W) -> the same shape. MACs: 2 * k * k * H * W. Source: CBAM (1807.06521), equation 3.
    """

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv = ConvNormAct(2, 1, kernel, act=None)
        self.gate = activation("sigmoid")

    def forward(self, x: Tensor) -> Tensor:
        described = torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), dim=1)
        weights: Tensor = self.gate(self.conv(described))
        return x * weights


class Cbam(nn.Sequential):
    """Channel attention, then spatial attention: (N, channels, H, W) -> the same shape.

    MACs: 4 * channels * reduced + 2 * k * k * H * W. Source: CBAM (1807.06521), figure 1.
    """

    def __init__(self, channels: int, reduced: int, *, kernel: int = 7) -> None:
        super().__init__(ChannelAttention(channels, reduced), SpatialAttention(kernel))


class SelectiveKernel(nn.Module):
    """3x3 convolutions of dilation 1, 2, ... side by side; a softmax over them weighs each channel.

    (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride). Dilation 2 stands for a 5x5 kernel.
    MACs: paths * 9 * c_in * c_out / groups * h * w + c_out * reduced * (1 + paths).
    Source: Li et al. 2019, Selective Kernel Networks (1903.06586), section 3.1 and figure 1.
    """

    def __init__(
        self, c_in: int, c_out: int, *, reduced: int, stride: int = 1, groups: int = 1, paths: int = 2
    ) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            ConvNormAct(c_in, c_out, 3, stride=stride, dilation=1 + index, groups=groups, padding=1 + index)
            for index in range(paths)
        )
        self.reduce = ConvNormAct(c_out, reduced)
        self.select = nn.Conv2d(reduced, c_out * paths, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack([path(x) for path in self.paths], dim=1)
        described = self.reduce(F.adaptive_avg_pool2d(maps.sum(1), 1))
        n, paths, c = maps.shape[:3]
        weights = self.select(described).reshape(n, paths, c, 1, 1).softmax(1)
        out: Tensor = (maps * weights).sum(1)
        return out


class SelfAttention2d(nn.Module):
    """Attention of each position to all others, added to the input at a learnt weight that starts at 0.

    (N, channels, H, W) -> the same shape, with L = H * W positions and d = channels // reduction:
    MACs: channels * (2 * d + 2 * channels) * L + L * L * (d + channels). Memory grows as L * L.
    Source: Zhang et al. 2018, SAGAN (1805.08318), figure 2; Wang et al. 2017, Non-local Neural Networks (1711.07971).
    """

    added = True  # no file of the plain network has its weights

    def __init__(self, channels: int, *, reduction: int = 8) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(1))

    def begin(self) -> None:
        """The identity."""
        nn.init.zeros_(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        query = self.query(x).flatten(2).transpose(1, 2)
        weights = torch.softmax(torch.bmm(query, self.key(x).flatten(2)) / query.shape[-1] ** 0.5, dim=-1)
        seen = torch.bmm(self.value(x).flatten(2), weights.transpose(1, 2)).reshape(n, c, h, w)
        out: Tensor = x + self.scale * self.project(seen)
        return out


class ScaleAttention(nn.Module):
    """Weights over `scales` feature maps, for each position: list of (N, channels, h, w), any sizes -> (N, scales, h, w).

    The maps are brought to the size of the first, concatenated, and seen by a 3x3 convolution to `reduced` channels and
    a 1x1; the weights of a position sum to 1. MACs: (9 * scales * channels + scales) * reduced * h * w.
    Source: Chen et al. 2015, Attention to Scale (1511.03339), section 3.2 and figure 3.
    """

    def __init__(self, channels: int, scales: int, *, reduced: int = 64) -> None:
        super().__init__()
        self.conv = ConvNormAct(scales * channels, reduced, 3)
        self.select = nn.Conv2d(reduced, scales, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        size = maps[0].shape[-2:]
        same = [maps[0], *(F.interpolate(each, size=size, mode="bilinear", align_corners=False) for each in maps[1:])]
        weights: Tensor = self.select(self.conv(torch.cat(same, dim=1))).softmax(1)
        return weights


class AttentionPooling(nn.Module):
    """The mean of several features, weighed by what they hold: (N, T, width) -> (N, width).

    The weights of the T moments are a softmax over w (tanh(V h) * sigmoid(U h)); a fresh one gives the plain mean.
    MACs, each sample: T * (2 * width + 1) * inner. Source: Ilse et al. 2018, attention-based deep multiple instance
    learning (1802.04712), equations 8 and 9.
    """

    def __init__(self, width: int, inner: int = 64) -> None:
        super().__init__()
        self.value = nn.Linear(width, inner)
        self.gate = nn.Linear(width, inner)
        self.select = nn.Linear(inner, 1)
        self.begin()

    def begin(self) -> None:
        """Equal weights."""
        for layer in (self.value, self.gate):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.select.weight)
        nn.init.zeros_(self.select.bias)

    def weights(self, x: Tensor) -> Tensor:
        """The weight of each moment: (N, T, width) -> (N, T, 1)."""
        scores: Tensor = self.select(torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x)))
        return scores.softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weights(x)).sum(1)

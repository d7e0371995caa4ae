"""Attention: parts of a map weighted by what the map holds.

A gate's layers are called `gate`, so that changing a network's activation leaves them alone.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.blocks.activation import Activation, activation


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

"""The fire module of SqueezeNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gossamer.blocks.conv import ConvNormAct


class Fire(nn.Module):
    """1x1 squeeze, then 1x1 and 3x3 expansions side by side, all with bias and ReLU, no norm.

    (N, c_in, H, W) -> (N, expand1 + expand3, H, W).
    MACs: squeeze * (c_in + expand1 + 9 * expand3) * h * w.
    Source: SqueezeNet (1602.07360), section 3.2 and figure 1.
    """

    def __init__(self, c_in: int, *, squeeze: int, expand1: int, expand3: int) -> None:
        super().__init__()
        self.squeeze = ConvNormAct(c_in, squeeze, norm=False)
        self.expand1x1 = ConvNormAct(squeeze, expand1, norm=False)
        self.expand3x3 = ConvNormAct(squeeze, expand3, 3, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat((self.expand1x1(x), self.expand3x3(x)), dim=1)

"""Large kernels as several small ones."""

from __future__ import annotations

from torch import nn

from gossamer.blocks.activation import Activation
from gossamer.blocks.conv import ConvNormAct


class AsymmetricPair(nn.Sequential):
    """n x n as 1 x n and n x 1: (N, c_in, H, W) -> (N, c_out, H, W).

    MACs: n * (c_in + c_out) * c_mid * H * W, against n * n * c_in * c_out * H * W; c_mid is c_out unless it is given.
    Source: Inception v3 (1512.00567), section 3.2 and figure 3.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, *, c_mid: int | None = None, act: Activation | None = "relu"
    ) -> None:
        c_mid = c_out if c_mid is None else c_mid
        super().__init__(
            ConvNormAct(c_in, c_mid, (1, kernel), act=act), ConvNormAct(c_mid, c_out, (kernel, 1), act=act)
        )


class StackedConv(nn.Sequential):
    """k x k as (k - 1) / 2 convolutions of 3x3, which see as far: (N, c_in, H, W) -> (N, c_out, H, W).

    MACs: 9 * (c_in + (n - 1) * c_out) * c_out * H * W with n = (k - 1) / 2, against k * k * c_in * c_out * H * W.
    Source: VGG (1409.1556), section 2.3; Inception v3 (1512.00567), section 3.1 and figure 1.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, *, act: Activation | None = "relu") -> None:
        count = (kernel - 1) // 2
        super().__init__(*(ConvNormAct(c_in if n == 0 else c_out, c_out, 3, act=act) for n in range(count)))

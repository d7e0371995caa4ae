"""Upsampling of maps."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.errors import UnknownNameError

Mode = Literal["nearest", "bilinear", "transposed"]
MODES = ("nearest", "bilinear", "transposed")


class Upsample(nn.Module):
    """(N, channels, H, W) -> (N, channels, scale * H, scale * W).

    mode: "nearest" and "bilinear" (corners not aligned) have no weights and no MACs by convention; "transposed" is a
    convolution of kernel 2 * scale for each channel by itself, which starts as bilinear interpolation:
    4 * scale^2 * channels * H * W MACs. Source: Long et al. 2014, Fully Convolutional Networks (1411.4038), section 3.3.
    Raises UnknownNameError.
    """

    def __init__(self, channels: int, scale: int = 2, *, mode: Mode = "bilinear") -> None:
        super().__init__()
        if mode not in MODES:
            raise UnknownNameError("way of up-sampling", mode, MODES)
        self.scale, self.mode = scale, mode
        if mode == "transposed":
            self.conv = nn.ConvTranspose2d(
                channels,
                channels,
                2 * scale - scale % 2,
                stride=scale,
                padding=scale // 2,
                groups=channels,
                bias=False,
            )
            self.begin()

    def begin(self) -> None:
        """Bilinear interpolation, where it has weights."""
        if self.mode == "transposed":
            side = self.conv.kernel_size[0]
            # the triangle of linear interpolation, whose copies `scale` apart sum to 1
            line = 1 - (self.conv.weight.new_tensor(range(side)) - (side - 1) / 2).abs() / self.scale
            self.conv.weight.data.copy_((line[:, None] * line).expand_as(self.conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "transposed":
            out: Tensor = self.conv(x)
            return out
        return F.interpolate(
            x, scale_factor=self.scale, mode=self.mode, align_corners=False if self.mode == "bilinear" else None
        )

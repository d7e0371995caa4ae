"""The Ghost module and bottleneck: half of the channels computed by cheap depthwise layers from the other half."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gossamer.blocks.activation import Activation
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.drop import DropPath


class Ghost(nn.Module):
    """1x1 to half of the channels, and 3x3 depthwise of these as the other half: (N, c_in, H, W) -> (N, c_out, H, W).

    MACs, with m = ceil(c_out / 2): (c_in * m + 9 * m) * H * W. Source: GhostNet (1911.11907), equation 3 and figure 1b.
    """

    def __init__(self, c_in: int, c_out: int, *, act: Activation | None = "relu") -> None:
        super().__init__()
        half = math.ceil(c_out / 2)
        self.primary = ConvNormAct(c_in, half, act=act)
        self.cheap = ConvNormAct(half, half, 3, groups=half, act=act)
        self.surplus = 2 * half - c_out

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary(x)
        out = torch.cat((primary, self.cheap(primary)), dim=1)
        return out[:, : -self.surplus] if self.surplus else out


class GhostBottleneck(nn.Module):
    """Ghost to c_mid, depthwise k x k where it is strided, attention, ghost to c_out without activation, and a shortcut.

    (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride). The shortcut is depthwise and 1x1 where the shape changes.
    MACs: those of its layers. Source: GhostNet (1911.11907), figure 3.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        c_mid: int,
        kernel: int,
        stride: int = 1,
        strided: bool = False,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.expand = Ghost(c_in, c_mid)
        self.depthwise = (
            ConvNormAct(c_mid, c_mid, kernel, stride=stride, groups=c_mid, act=None) if strided else nn.Identity()
        )
        self.attention = attention or nn.Identity()
        self.project = Ghost(c_mid, c_out, act=None)
        self.drop_path = DropPath()
        self.shortcut: nn.Module = nn.Identity()
        if strided or c_in != c_out:
            self.shortcut = nn.Sequential(
                ConvNormAct(c_in, c_in, kernel, stride=stride, groups=c_in, act=None),
                ConvNormAct(c_in, c_out, act=None),
            )

    def forward(self, x: Tensor) -> Tensor:
        branch = self.drop_path(self.project(self.attention(self.depthwise(self.expand(x)))))
        out: Tensor = branch + self.shortcut(x)
        return out

    def without_branch(self) -> nn.Module | None:
        """What is left of the block without its branch; None where the shortcut is no identity."""
        return nn.Identity() if isinstance(self.shortcut, nn.Identity) else None

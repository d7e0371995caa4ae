"""Blocks with a shortcut: the basic and the bottleneck residual block, and the inverted residual."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from gossamer.blocks.activation import Activation, activation
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.drop import DropPath


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride).

    The shortcut is a 1x1 convolution where the shape changes (option B of the paper), else the identity.
    `attention` acts on the branch before the addition.
    MACs: 9 * c_out * (c_in + c_out) * h * w, and c_in * c_out * h * w more for a shortcut convolution.
    Source: He et al. 2015 (1512.03385), figure 2 and section 3.3.
    """

    def __init__(
        self, c_in: int, c_out: int, *, stride: int = 1, act: Activation = "relu", attention: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(c_in, c_out, 3, stride=stride, act=act)
        self.conv2 = ConvNormAct(c_out, c_out, 3, act=None)
        self.attention = attention or nn.Identity()
        self.drop_path = DropPath()
        self.shortcut = _projection(c_in, c_out, stride)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.drop_path(self.attention(self.conv2(self.conv1(x))))
        out: Tensor = self.act(branch + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1x1 to c_mid, 3x3, 1x1 to c_out, and a shortcut: (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride).

    stride_in: the layer that is strided, "3x3" as in most weights in use, or "1x1" as the paper has it. groups: of
    the 3x3 (ResNeXt). spatial: a layer in the place of the 3x3. attention: acts on the branch before the addition.
    MACs, strided in the 3x3: c_in * c_mid * H * W + (9 * c_mid^2 / groups + c_mid * c_out) * h * w, and
    c_in * c_out * h * w more for a shortcut convolution.
    Source: He et al. 2015 (1512.03385), figure 5; Xie et al. 2016 (1611.05431), figure 3c.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        c_mid: int,
        stride: int = 1,
        stride_in: Literal["1x1", "3x3"] = "3x3",
        groups: int = 1,
        act: Activation = "relu",
        spatial: nn.Module | None = None,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.conv1 = ConvNormAct(c_in, c_mid, stride=first, act=act)
        self.conv2 = spatial or ConvNormAct(c_mid, c_mid, 3, stride=second, groups=groups, act=act)
        self.conv3 = ConvNormAct(c_mid, c_out, act=None)
        self.attention = attention or nn.Identity()
        self.drop_path = DropPath()
        self.shortcut = _projection(c_in, c_out, stride)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.drop_path(self.attention(self.conv3(self.conv2(self.conv1(x)))))
        out: Tensor = self.act(branch + self.shortcut(x))
        return out


def _projection(c_in: int, c_out: int, stride: int) -> nn.Module:
    """The identity where the shape stays, else a 1x1 convolution with norm."""
    return nn.Identity() if stride == 1 and c_in == c_out else ConvNormAct(c_in, c_out, stride=stride, act=None)


class InvertedResidual(nn.Module):
    """1x1 expansion, k x k depthwise, 1x1 projection without activation (the linear bottleneck).

    (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride). `c_mid` is the expanded width; None leaves
    the expansion out. `shortcut` adds the input; it needs stride 1 and c_in == c_out. `attention` acts on the
    depthwise layer's map. `last_act`: an activation behind the projection, for the ablation of section 6.4.
    MACs: c_in * c_mid * H * W + (k * k * c_mid + c_mid * c_out) * h * w, and the attention's.
    Source: MobileNetV2 (1801.04381), table 1 and figure 4; with attention: MobileNetV3 (1905.02244), figure 4.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        c_mid: int | None,
        stride: int,
        shortcut: bool,
        kernel: int = 3,
        act: Activation = "relu6",
        last_act: Activation | None = None,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        wide = c_in if c_mid is None else c_mid
        self.expand = nn.Identity() if c_mid is None else ConvNormAct(c_in, wide, act=act)
        self.depthwise = ConvNormAct(wide, wide, kernel, stride=stride, groups=wide, act=act)
        self.attention = attention or nn.Identity()
        self.project = ConvNormAct(wide, c_out, act=last_act)
        self.drop_path = DropPath()
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.attention(self.depthwise(self.expand(x))))
        return x + self.drop_path(out) if self.shortcut else out

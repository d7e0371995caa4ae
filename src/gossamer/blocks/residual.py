"""Blocks with a shortcut: the basic residual block and the inverted residual."""

from __future__ import annotations

from torch import Tensor, nn

from gossamer.blocks.activation import Activation, activation
from gossamer.blocks.conv import ConvNormAct


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride).

    The shortcut is a 1x1 convolution where the shape changes (option B of the paper), else the identity.
    MACs: 9 * c_out * (c_in + c_out) * h * w, and c_in * c_out * h * w more for a shortcut convolution.
    Source: He et al. 2015 (1512.03385), figure 2 and section 3.3.
    """

    def __init__(self, c_in: int, c_out: int, *, stride: int = 1, act: Activation = "relu") -> None:
        super().__init__()
        self.conv1 = ConvNormAct(c_in, c_out, 3, stride=stride, act=act)
        self.conv2 = ConvNormAct(c_out, c_out, 3, act=None)
        same = stride == 1 and c_in == c_out
        self.shortcut = nn.Identity() if same else ConvNormAct(c_in, c_out, stride=stride, act=None)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.conv2(self.conv1(x)) + self.shortcut(x))
        return out


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without activation (the linear bottleneck).

    (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride). `c_mid` is the expanded width; None leaves
    the expansion out. `shortcut` adds the input; it needs stride 1 and c_in == c_out.
    MACs: c_in * c_mid * H * W + (9 * c_mid + c_mid * c_out) * h * w.
    Source: MobileNetV2 (1801.04381), table 1 and figure 4.
    """

    def __init__(
        self, c_in: int, c_out: int, *, c_mid: int | None, stride: int, shortcut: bool, act: Activation = "relu6"
    ) -> None:
        super().__init__()
        wide = c_in if c_mid is None else c_mid
        self.expand = nn.Identity() if c_mid is None else ConvNormAct(c_in, wide, act=act)
        self.depthwise = ConvNormAct(wide, wide, 3, stride=stride, groups=wide, act=act)
        self.project = ConvNormAct(wide, c_out, act=None)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.shortcut else out

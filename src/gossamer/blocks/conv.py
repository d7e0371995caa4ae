"""Convolution with norm and activation, and the depthwise separable pair of them."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from gossamer.blocks.activation import Activation, activation

Pair = int | tuple[int, int]  # of rows and columns, or one number for both


class ConvNormAct(nn.Sequential):
    """k x k convolution, batch norm, activation: (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride).

    The parts are called `conv`, `norm` and `act`; one that is left out (`norm=False`, `act=None`) has no
    name. The convolution has a bias where no norm follows, unless `bias` says otherwise. `kernel` may be
    (rows, columns). Padding keeps the size (dilation * (kernel - 1) // 2) unless it is given.
    MACs: k * k * c_in / groups * c_out * h * w. Source: Ioffe and Szegedy 2015 (1502.03167), section 3.2.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: Pair = 1,
        *,
        stride: int = 1,
        padding: Pair | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool | None = None,
        norm: bool = True,
        act: Activation | None = "relu",
    ) -> None:
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        same = (dilation * (rows - 1) // 2, dilation * (columns - 1) // 2)
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv"] = nn.Conv2d(
            c_in,
            c_out,
            kernel,
            stride=stride,
            padding=same if padding is None else padding,
            dilation=dilation,
            groups=groups,
            bias=not norm if bias is None else bias,
        )
        if norm:
            parts["norm"] = nn.BatchNorm2d(c_out)
        if act is not None:
            parts["act"] = activation(act)
        super().__init__(parts)


class DepthwiseSeparable(nn.Sequential):
    """3x3 depthwise, then 1x1 pointwise convolution, each with norm and activation.

    (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride).
    MACs: (9 * c_in + c_in * c_out) * h * w. Source: MobileNets (1704.04861), section 3.1.
    """

    def __init__(self, c_in: int, c_out: int, *, stride: int = 1, act: Activation = "relu6") -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["depthwise"] = ConvNormAct(c_in, c_in, 3, stride=stride, groups=c_in, act=act)
        parts["pointwise"] = ConvNormAct(c_in, c_out, act=act)
        super().__init__(parts)

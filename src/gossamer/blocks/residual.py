"""Blocks with a shortcut: the basic and the bottleneck residual block, and the inverted residual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gossamer.blocks.activation import Activation, activation
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.deform import DeformableConv2d
from gossamer.blocks.dense import NormActConv
from gossamer.blocks.drop import DropPath
from gossamer.blocks.gates import ChannelGate, Gate, can_skip, macs_of, open_fraction, open_part, positions_around


class _Residual(nn.Module):
    """What ResNet's blocks share: a branch with attention and a gate, a shortcut, and the activation of their sum."""

    gate: Gate | None

    def _add_shortcut(self, c_in: int, c_out: int, stride: int, act: Activation, attention: nn.Module | None) -> None:
        """All modules but the layers of the branch; called behind those, so that the order of the weights stays."""
        self.attention = attention or nn.Identity()
        self.drop_path = DropPath()
        self.shortcut = _projection(c_in, c_out, stride)
        self.act = activation(act)
        self.gate = None

    def _sum(self, x: Tensor, layers: Sequence[nn.Module]) -> Tensor:
        """The block's output for x (N, c_in, H, W). layers: those of the branch, in order."""
        branch = x
        if self.gate is None:
            for layer in layers:
                branch = layer(branch)
        else:
            branch = gated(self.gate, x, layers)
        out: Tensor = self.act(self.drop_path(self.attention(branch)) + self.shortcut(x))
        return out

    def without_branch(self) -> nn.Module | None:
        """What is left of the block without its branch; None where the shortcut is no identity, or a gate counts the branch."""
        return self.act if isinstance(self.shortcut, nn.Identity) and self.gate is None else None


class BasicBlock(_Residual):
    """Two 3x3 convolutions and a shortcut: (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride).

    The shortcut is a 1x1 convolution where the shape changes (option B of the paper), else the identity.
    `attention` acts on the branch before the addition. `gate`, where one is set, opens channels between the two
    convolutions, or positions of the branch.
    MACs: 9 * c_out * (c_in + c_out) * h * w, and c_in * c_out * h * w more for a shortcut convolution.
    Source: He et al. 2015 (1512.03385), figure 2 and section 3.3.
    """

    def __init__(
        self, c_in: int, c_out: int, *, stride: int = 1, act: Activation = "relu", attention: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(c_in, c_out, 3, stride=stride, act=act)
        self.conv2 = ConvNormAct(c_out, c_out, 3, act=None)
        self._add_shortcut(c_in, c_out, stride, act, attention)

    def forward(self, x: Tensor) -> Tensor:
        return self._sum(x, (self.conv1, self.conv2))


class Bottleneck(_Residual):
    """1x1 to c_mid, 3x3, 1x1 to c_out, and a shortcut: (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride).

    stride_in: the layer that is strided, "3x3" as in most weights in use, or "1x1" as the paper has it. groups: of
    the 3x3 (ResNeXt). spatial: a layer in the place of the 3x3. attention: acts on the branch before the addition.
    `gate`, where one is set, opens channels of the middle, or positions of the branch.
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
        self._add_shortcut(c_in, c_out, stride, act, attention)

    def forward(self, x: Tensor) -> Tensor:
        return self._sum(x, (self.conv1, self.conv2, self.conv3))


def _projection(c_in: int, c_out: int, stride: int) -> nn.Module:
    """The identity where the shape stays, else a 1x1 convolution with norm."""
    return nn.Identity() if stride == 1 and c_in == c_out else ConvNormAct(c_in, c_out, stride=stride, act=None)


class InvertedResidual(nn.Module):
    """1x1 expansion, k x k depthwise, 1x1 projection without activation (the linear bottleneck).

    (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride). `c_mid` is the expanded width; None leaves
    the expansion out. `shortcut` adds the input; it needs stride 1 and c_in == c_out. `attention` acts on the
    depthwise layer's map. `last_act`: an activation after the projection, for the ablation of section 6.4.
    `gate`, where one is set, opens channels of the expansion, or positions of the branch.
    MACs: c_in * c_mid * H * W + (k * k * c_mid + c_mid * c_out) * h * w, and the attention's.
    Source: MobileNetV2 (1801.04381), table 1 and figure 4; with attention: MobileNetV3 (1905.02244), figure 4.
    """

    gate: Gate | None

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
        self.gate = None

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.gate, ChannelGate) and isinstance(self.attention, nn.Identity):
            layers = (self.expand, self.depthwise, self.project)
            if can_skip(self.gate, x, layers):
                out = open_channels(self.gate, x, layers)
                return x + out if self.shortcut else out
        return self.contract(self.expand(x), x)

    def contract(self, wide: Tensor, x: Tensor) -> Tensor:
        """What follows the expansion `wide` (N, c_mid, H, W) of the input x: a detector reads both."""
        deep = self.depthwise(wide)
        opened = None if self.gate is None else self.gate(x)
        channels = isinstance(self.gate, ChannelGate)
        out: Tensor = self.project(self.attention(deep if opened is None or not channels else deep * opened))
        if self.gate is not None and opened is not None:
            if not channels:
                out = out * opened
            macs = [
                macs_of(layer, y) for layer, y in ((self.expand, wide), (self.depthwise, deep), (self.project, out))
            ]
            gate, reaches = self.gate, (1, _reach(self.depthwise), 1)
            gate.note(lambda: _parts(gate, opened, macs, reaches, depthwise=True))
        return x + self.drop_path(out) if self.shortcut else out

    def without_branch(self) -> nn.Module | None:
        """What is left of the block without its branch; None where the shortcut is no identity, or a gate counts the branch."""
        return nn.Identity() if self.shortcut and self.gate is None else None


def gated(gate: Gate, x: Tensor, layers: Sequence[nn.Module]) -> Tensor:
    """The layers of a branch one after the other, with what `gate` closes for x (N, c_in, H, W) taken out.

    A channel gate opens the outputs of all layers but the last, which have the same width.
    """
    channels = isinstance(gate, ChannelGate)
    if isinstance(gate, ChannelGate) and can_skip(gate, x, layers):
        return open_channels(gate, x, layers)
    opened = gate(x)
    y, macs = x, []
    for layer in layers:
        y = layer(y)
        macs.append(macs_of(layer, y))
        if channels and layer is not layers[-1]:
            y = y * opened
    gate.note(lambda: _parts(gate, opened, macs, [_reach(layer) for layer in layers]))
    return y if channels else y * opened


def open_channels(gate: ChannelGate, x: Tensor, layers: Sequence[nn.Module]) -> Tensor:
    """The same for one image by computing the open channels alone: (1, c_in, H, W) -> (1, c_out, h, w)."""
    opened = gate(x)
    at = opened.flatten().nonzero().flatten()
    if not len(at):  # one closed channel, at weight 0, as a convolution takes no empty input
        at = at.new_zeros(1)
    weights = opened[:, at]
    y, reads, macs = x, None, []
    for layer in layers:
        last = layer is layers[-1]
        y = open_part(layer, y, None if last else at, reads)
        macs.append(macs_of(layer, y))
        if not last and not (isinstance(layer, nn.Identity) or _depthwise_next(layers, layer)):
            y = y * weights
        reads = at
    gate.note(lambda: _parts(gate, opened, macs, [1] * len(layers), depthwise=any(map(_is_depthwise, layers))))
    return y


def _parts(
    gate: Gate, opened: Tensor, macs: Sequence[int], reaches: Sequence[int], *, depthwise: bool = False
) -> list[tuple[int, Tensor]]:
    """The multiply-adds of each layer with all open, and the fraction that is computed, (N,).

    A closed channel is left out of the outputs of one layer and of the inputs of the next: a dense layer between two
    gated ones keeps the square. A position needs, of each layer but the last, all that the windows behind it read.
    """
    if isinstance(gate, ChannelGate):
        fraction = open_fraction(opened)
        inner = len(macs) == 3 and not depthwise
        return [(count, fraction**2 if inner and index == 1 else fraction) for index, count in enumerate(macs)]
    parts = []
    for index, count in enumerate(macs):
        behind = 1 + sum(reach - 1 for reach in reaches[index + 1 :])
        parts.append((count, open_fraction(positions_around(opened, behind))))
    return parts


def _reach(layer: nn.Module) -> int:
    """Positions a side that a layer reads for one of its own."""
    if isinstance(layer, nn.Identity):
        return 1
    conv = layer.get_submodule("conv")
    if isinstance(conv, DeformableConv2d):  # what its offsets reach beyond the kernel is not counted
        return conv.dilation * (conv.kernel_size[0] - 1) + 1
    assert isinstance(conv, nn.Conv2d)
    return conv.dilation[0] * (conv.kernel_size[0] - 1) + 1


def _is_depthwise(layer: nn.Module) -> bool:
    conv = getattr(layer, "conv", None)
    return isinstance(conv, nn.Conv2d) and conv.groups > 1


def _depthwise_next(layers: Sequence[nn.Module], layer: nn.Module) -> bool:
    """Whether a depthwise layer follows, whose channels are weighed behind it."""
    index = next(number for number, each in enumerate(layers) if each is layer)
    return _is_depthwise(layers[index + 1])


class UniversalInvertedBottleneck(nn.Module):
    """Depthwise (linear), 1x1 expansion, depthwise, 1x1 linear projection; either depthwise layer may be absent.

    (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride). start, kernel: of the two depthwise layers; 0 leaves one
    out. Both: "extra depthwise"; the second alone: the inverted residual; the first alone: ConvNeXt's block; none: a
    feed-forward pair. The second is strided, or the first where it is alone. The input is added where shapes agree.
    MACs, with H' x W' after `start`: start^2 * c_in * H' * W' + c_in * c_mid * H' * W' +
    (kernel^2 * c_mid + c_mid * c_out) * h * w. Source: MobileNetV4 (2404.10518), figure 4.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        c_mid: int,
        start: int,
        kernel: int,
        stride: int = 1,
        strided: bool | None = None,
        act: Activation = "relu",
    ) -> None:
        super().__init__()
        first, second = (1, stride) if kernel else (stride, 1)
        self.start = ConvNormAct(c_in, c_in, start, stride=first, groups=c_in, act=None) if start else nn.Identity()
        self.expand = ConvNormAct(c_in, c_mid, act=act)
        self.depthwise = (
            ConvNormAct(c_mid, c_mid, kernel, stride=second, groups=c_mid, act=act) if kernel else nn.Identity()
        )
        self.project = ConvNormAct(c_mid, c_out, act=None)
        self.drop_path = DropPath()
        self.shortcut = c_in == c_out and not (stride > 1 if strided is None else strided)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(self.start(x))))
        return x + self.drop_path(out) if self.shortcut else out

    def without_branch(self) -> nn.Module | None:
        """What is left of the block without its branch; None where the shortcut is no identity."""
        return nn.Identity() if self.shortcut else None


class PreActBlock(nn.Module):
    """Norm and activation before each convolution: two 3x3, or with c_mid a bottleneck; nothing after the addition.

    (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride). Where the shape changes, the shortcut is a 1x1 convolution
    of the activated input. drop_rate: dropout before the last convolution, for wide networks.
    MACs: those of its convolutions. Source: He et al. 2016 (1603.05027), figure 4e; wide: 1605.07146, figure 1d.
    """

    def __init__(
        self, c_in: int, c_out: int, *, stride: int = 1, c_mid: int | None = None, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(c_in)
        self.act = activation("relu")
        if c_mid is None:
            self.conv1 = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
            rest: list[nn.Module] = [NormActConv(c_out, c_out, 3)]
        else:
            self.conv1 = nn.Conv2d(c_in, c_mid, 1, bias=False)
            rest = [NormActConv(c_mid, c_mid, 3, stride=stride), NormActConv(c_mid, c_out)]
        self.drop = nn.Dropout(drop_rate)
        self.rest = nn.Sequential(*rest)
        self.drop_path = DropPath()
        changes = stride != 1 or c_in != c_out
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.act(self.norm(x))
        branch: Tensor = self.drop_path(self.rest(self.drop(self.conv1(activated))))
        return branch + (x if self.shortcut is None else self.shortcut(activated))

    def without_branch(self) -> nn.Module | None:
        """What is left of the block without its branch; None where the shortcut is no identity."""
        return nn.Identity() if self.shortcut is None else None


class ResidualAndTransient(nn.Module):
    """Two streams, one with shortcut and one without, each fed by both: (N, 2 * c_in, H, W) -> (N, 2 * c_out, h, w).

    The first half of the channels is the residual stream, h = ceil(H / stride). Where the shape changes, the shortcut
    is a 1x1 convolution. MACs: 36 * c_in * c_out * h * w, and c_in * c_out * h * w more for a shortcut convolution.
    Source: Targ et al. 2016, Resnet in Resnet (1603.08029), figure 1.
    """

    def __init__(self, c_in: int, c_out: int, *, stride: int = 1) -> None:
        super().__init__()

        def convolution(kernel: int = 3) -> nn.Conv2d:
            return nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False)

        self.residual = convolution()
        self.residual_to_transient = convolution()
        self.transient = convolution()
        self.transient_to_residual = convolution()
        self.shortcut = nn.Identity() if stride == 1 and c_in == c_out else convolution(1)
        self.residual_norm = nn.BatchNorm2d(c_out)
        self.transient_norm = nn.BatchNorm2d(c_out)
        self.drop_path = DropPath()
        self.act = activation("relu")

    def forward(self, x: Tensor) -> Tensor:
        r, t = x.chunk(2, dim=1)
        residual = self.shortcut(r) + self.drop_path(self.residual(r) + self.transient_to_residual(t))
        transient = self.transient(t) + self.residual_to_transient(r)
        streams = (self.residual_norm(residual), self.transient_norm(transient))
        return torch.cat([self.act(stream) for stream in streams], dim=1)

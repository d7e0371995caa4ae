"""Hard attention: channels or positions of a residual branch that a gate opens or closes for each image.

A closed channel or position adds nothing to the result, so what leads to it need not be computed. A gate is part of a
block (`gossamer.blocks.residual`); with it the block tells how many of its multiply-adds the open part takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.blocks.conv import ConvNormAct
from gossamer.errors import UnknownNameError

Draw = Literal["gumbel", "topk"]
DRAWS = ("gumbel", "topk")
STEEP = 2.0**100  # turns a logit into 0 or 1 by a product and a clamp, operators that every runtime has
START = 2.0  # logit of a fresh gate, that is open with a probability of 0.88


class Computed:
    """The multiply-adds behind a gate in the last training step: of each image, (N,), and of one with all open."""

    def __init__(self) -> None:
        self.macs: Tensor | None = None
        self.total = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Computed:
        return Computed()  # a step's tensors belong to the network that took it


@dataclass
class Tally:
    """The multiply-adds behind gates over many images: `computed` of `total`. images: how many passed each gate."""

    computed: float = 0.0
    total: float = 0.0
    images: float = 0.0
    gates: int = 1

    @property
    def per_image(self) -> float:
        """Those of one image with all open."""
        return self.total / self.images if self.images else 0.0

    @property
    def fraction(self) -> float:
        """The fraction that was computed; 1 where no gate was passed."""
        return self.computed / self.total if self.total else 1.0


class Gate(nn.Module):
    """What opens and closes. saliency: gives a logit for each entry. target: the fraction that "topk" opens.

    draw: "gumbel": each entry by itself, by the sign of a logit, to which training adds logistic noise (the difference
    of two Gumbel draws); backward passes the gradient of the sigmoid (straight-through). "topk": those of the highest
    saliency, a fixed number of them, by which the open ones are multiplied. Raises UnknownNameError.
    """

    added = True  # no file of the plain network has its weights

    def __init__(self, saliency: nn.Conv2d, draw: Draw, target: float) -> None:
        super().__init__()
        if draw not in DRAWS:
            raise UnknownNameError("draw of the gates", draw, DRAWS)
        self.draw, self.target = draw, target
        self.last = Computed()
        self.tally: Tally | None = None
        self.skips = False
        self.saliency = saliency
        self.begin()

    def begin(self) -> None:
        """Fresh weights: nearly all open."""
        nn.init.normal_(self.saliency.weight, 0.0, 0.01)
        assert self.saliency.bias is not None
        nn.init.constant_(self.saliency.bias, START if self.draw == "gumbel" else 0.0)

    def note(self, of_layers: Callable[[], Sequence[tuple[int, Tensor]]]) -> None:
        """What the block computed: multiply-adds of each of its layers with all open, and the open fraction, (N,).

        Called for where training or a count needs it.
        """
        if not self.training and self.tally is None:
            return
        parts = of_layers()
        total, macs = sum(count for count, _ in parts), sum(count * part for count, part in parts)
        assert isinstance(macs, Tensor)
        if self.training:
            self.last.macs, self.last.total = macs, total
        if self.tally is not None:
            self.tally.computed += float(macs.detach().double().sum())
            self.tally.total += float(total * len(macs))
            self.tally.images += len(macs) / self.tally.gates

    def _gumbel(self, logits: Tensor) -> Tensor:
        if not self.training:
            return (logits * STEEP).clamp(0, 1)
        noise = torch.rand_like(logits, dtype=torch.float32).clamp(1e-6, 1 - 1e-6)
        soft = torch.sigmoid(logits + torch.log(noise / (1 - noise)))
        return ((soft > 0.5).to(soft.dtype) - soft.detach() + soft).to(logits.dtype)

    def _top(self, values: Tensor) -> Tensor:
        """1 for the `target` highest entries of each image, and for those equal to the last of them; 0 for the others."""
        entries = values.flatten(1)
        least = entries.topk(max(1, round(self.target * entries.shape[1])), dim=1).values[:, -1:]
        return (entries >= least).to(values.dtype).reshape(values.shape)

    def extra_repr(self) -> str:
        return f"draw={self.draw}, target={self.target:g}"


class ChannelGate(Gate):
    """A gate for each of `channels` in the middle of a branch, from the mean of each input channel.

    (N, c_in, H, W) -> (N, channels, 1, 1), 0 where closed. MACs: c_in * channels.
    Source: gumbel: Bejnordi et al. 2019, channel gated networks (1907.06627), section 3.1; topk: Gao et al. 2018,
    feature boosting and suppression (1810.05331), equations 6 to 9, with the mean in the place of the L1 norm, and twice
    the sigmoid in that of ReLU.
    """

    def __init__(self, c_in: int, channels: int, *, draw: Draw = "gumbel", target: float = 0.5) -> None:
        super().__init__(nn.Conv2d(c_in, channels, 1), draw, target)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.saliency(F.adaptive_avg_pool2d(x, 1))
        if self.draw == "gumbel":
            return self._gumbel(logits)
        strength = 2 * torch.sigmoid(logits)  # bounded, or products over many blocks overflow; 1 at first
        return strength * self._top(strength)


class PositionGate(Gate):
    """A gate for each position of a branch, by a 3x3 convolution of its input: (N, c_in, H, W) -> (N, 1, H, W).

    0 where closed. MACs: 9 * c_in * H * W. Source: Verelst and Tuytelaars 2020, dynamic convolutions (1912.03203),
    sections 3.1 and 3.2.
    """

    def __init__(self, c_in: int, *, draw: Draw = "gumbel", target: float = 0.5) -> None:
        super().__init__(nn.Conv2d(c_in, 1, 3, padding=1), draw, target)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.saliency(x)
        if self.draw == "gumbel":
            return self._gumbel(logits)
        return torch.sigmoid(logits) * self._top(logits)


def open_fraction(weights: Tensor) -> Tensor:
    """The fraction of a gate's entries that are open: (N, ...) -> (N,); the gradient of the straight-through draw stays."""
    opened = (weights > 0).to(weights.dtype)
    return (
        (opened - weights.detach() + weights).flatten(1).mean(1) if weights.requires_grad else opened.flatten(1).mean(1)
    )


def positions_around(weights: Tensor, reach: int) -> Tensor:
    """The positions that a window of `reach` around an open one reads: (N, 1, H, W) -> the same shape, 0 or more."""
    return weights if reach == 1 else F.max_pool2d(weights, reach, 1, reach // 2)


def macs_of(layer: nn.Module, y: Tensor) -> int:
    """The multiply-adds of a convolution with norm and activation, whose result is y (N, c, h, w), for one image."""
    if isinstance(layer, nn.Identity):
        return 0
    weight = layer.get_submodule("conv").weight
    assert isinstance(weight, Tensor)
    return weight.numel() * y.shape[2] * y.shape[3]


# the network's side


def gates_of(model: nn.Module) -> list[Gate]:
    """The gates of a network, in order."""
    return [module for module in model.modules() if isinstance(module, Gate)]


LAYERS = ("conv1", "conv2", "conv3", "expand", "depthwise", "project")  # of blocks with a gate, that it acts on


def gated_layers(model: nn.Module) -> tuple[str, ...]:
    """What the names of the modules begin with whose work a gate can leave out."""
    names = [name.removesuffix("gate") for name, module in model.named_modules() if isinstance(module, Gate)]
    return tuple(f"{name}{layer}." for name in names for layer in LAYERS)


def gate_cost(model: nn.Module, target: float) -> Tensor | None:
    """(fraction of the multiply-adds behind gates that the last training step computed, less `target`)^2.

    None where the network has no gates, or gates that open a fixed number. Source: 1912.03203, equation 6.
    """
    steps = [(gate.last.macs, gate.last.total) for gate in gates_of(model) if gate.draw == "gumbel"]
    macs = [computed.float().mean() for computed, _ in steps if computed is not None]
    if not macs:
        return None
    for gate in gates_of(model):
        gate.last = Computed()
    return (torch.stack(macs).sum() / sum(total for _, total in steps) - target) ** 2


@contextmanager
def counted(model: nn.Module) -> Iterator[Tally]:
    """Count the multiply-adds behind the gates of a network over all that it is given inside."""
    gates = gates_of(model)
    tally = Tally(gates=max(1, len(gates)))
    for gate in gates:
        gate.tally = tally
    try:
        yield tally
    finally:
        for gate in gates:
            gate.tally = None


def skip_closed(model: nn.Module) -> int:
    """Let closed channels really be left out for single images in evaluation mode; how many gates can."""
    gates = [gate for gate in gates_of(model) if isinstance(gate, ChannelGate)]
    for gate in gates:
        gate.skips = True
    return len(gates)


def can_skip(gate: ChannelGate, x: Tensor, layers: Sequence[nn.Module]) -> bool:
    """Whether the open channels alone are computed for x (N, c_in, H, W)."""
    plain = not gate.training and gate.skips and not torch.compiler.is_compiling() and not x.is_meta
    return plain and len(x) == 1 and all(_sliceable(layer) for layer in layers)


def open_part(layer: nn.Module, x: Tensor, gives: Tensor | None, reads: Tensor | None) -> Tensor:
    """A convolution with norm and activation of the channels `reads` of its input, for the channels `gives` alone.

    x: (1, c, H, W) that holds the channels `reads` only. None: all. A depthwise convolution has one kind of channels.
    """
    if isinstance(layer, nn.Identity):
        return x if gives is None else x[:, gives]
    assert isinstance(layer, ConvNormAct)
    conv, norm, act = (layer.get_submodule(name) if hasattr(layer, name) else None for name in ("conv", "norm", "act"))
    assert isinstance(conv, nn.Conv2d)
    weight, bias = conv.weight, conv.bias
    depthwise = conv.groups > 1
    if gives is not None:
        weight, bias = weight[gives], None if bias is None else bias[gives]
    if reads is not None and not depthwise:
        weight = weight[:, reads]
    groups = len(weight) if depthwise else 1
    y = F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, groups)
    if isinstance(norm, nn.BatchNorm2d):
        values = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        mean, variance, scale, shift = values if gives is None else (value[gives] for value in values)  # type: ignore[index]
        y = F.batch_norm(y, mean, variance, scale, shift, False, 0.0, norm.eps)
    return y if act is None else act(y)


def _sliceable(layer: nn.Module) -> bool:
    """Whether `open_part` can compute some of a layer's channels."""
    if isinstance(layer, nn.Identity):
        return True
    conv, norm = getattr(layer, "conv", None), getattr(layer, "norm", None)
    if not isinstance(conv, nn.Conv2d) or not (norm is None or isinstance(norm, nn.BatchNorm2d)):
        return False
    dense, depthwise = conv.groups == 1, conv.groups == conv.in_channels == conv.out_channels
    return (dense or depthwise) and conv.padding_mode == "zeros"

"""Activations by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gossamer.errors import UnknownNameError

Activation = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "prelu",
    "rrelu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "mish",
    "sigmoid",
    "tanh",
    "scaled_tanh",
    "hard_sigmoid",
    "hard_swish",
]


class _Clamp6(torch.autograd.Function):
    """min(max(x, 0), 6) over its input, with the gradient from the result.

    torch's own in-place relu6 clamps into a new tensor and copies that back: a tenth of a training step on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.clamp_(0, 6)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        gradient: Tensor = torch.ops.aten.hardtanh_backward(gradients[0], result, 0, 6)
        return gradient


class ReLU6(nn.ReLU6):
    """min(max(x, 0), 6), which keeps its precision in low-bit arithmetic (1704.04861): any shape, same shape."""

    def forward(self, input: Tensor) -> Tensor:
        if self.inplace and input.is_cpu and input.requires_grad and not torch.compiler.is_compiling():
            clamped: Tensor = _Clamp6.apply(input)  # type: ignore[no-untyped-call]
            return clamped
        return super().forward(input)


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x / 3), which keeps a variance of 1: any shape, same shape. Source: LeCun et al. 1998, appendix A."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,  # max(x, 0)
    "relu6": ReLU6,
    "leaky_relu": nn.LeakyReLU,  # x where positive, else 0.01 x; Maas et al. 2013
    "prelu": nn.PReLU,  # its slope, one per layer, is learned; He et al. 2015 (1502.01852)
    "rrelu": nn.RReLU,  # the slope is drawn from 1/8 to 1/3 in training, its mean after; Xu et al. 2015 (1505.00853)
    "elu": nn.ELU,  # x where positive, else exp(x) - 1; Clevert et al. 2015 (1511.07289)
    "selu": nn.SELU,  # ELU scaled to keep mean and variance; Klambauer et al. 2017 (1706.02515)
    "celu": nn.CELU,  # Barron 2017 (1704.07483)
    "gelu": nn.GELU,  # x times the normal distribution function; Hendrycks and Gimpel 2016 (1606.08415)
    "silu": nn.SiLU,  # x sigmoid(x), also called swish; Ramachandran et al. 2017 (1710.05941)
    "mish": nn.Mish,  # x tanh(softplus(x)); Misra 2019 (1908.08681)
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "scaled_tanh": ScaledTanh,
    "hard_sigmoid": nn.Hardsigmoid,  # relu6(x + 3) / 6; MobileNetV3 (1905.02244), section 5.2
    "hard_swish": nn.Hardswish,  # x relu6(x + 3) / 6; MobileNetV3 (1905.02244), section 5.2
}
WITHOUT_INPLACE = {"prelu", "gelu", "sigmoid", "tanh", "scaled_tanh"}


def activation(name: str) -> nn.Module:
    """The activation of that name, overwriting its input where it can: no shape changes, no parameters but PReLU's.

    Raises UnknownNameError.
    """
    if name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    if name in WITHOUT_INPLACE:
        return ACTIVATIONS[name]()
    return ACTIVATIONS[name](inplace=True)  # half the memory traffic; nothing else reads a norm's output


def replace_activations(module: nn.Module, name: str) -> None:
    """Put the activation `name` in the place of every layer called `act`; gates of attention are called `gate`.

    Raises UnknownNameError.
    """
    for parent in list(module.modules()):
        if isinstance(getattr(parent, "act", None), nn.Module):
            parent.act = activation(name)

"""Activations by name."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from gossamer.errors import UnknownNameError

Activation = Literal["relu", "relu6"]


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


ACTIVATIONS: dict[str, type[nn.ReLU] | type[ReLU6]] = {
    "relu": nn.ReLU,  # max(x, 0)
    "relu6": ReLU6,
}


def activation(name: str) -> nn.Module:
    """The activation of that name, overwriting its input: no shape changes, no parameters.

    Raises UnknownNameError.
    """
    if name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name](inplace=True)  # half the memory traffic; nothing else reads a norm's output

"""Activations by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

from gossamer.errors import UnknownNameError

Activation = Literal["relu", "relu6"]

ACTIVATIONS: dict[str, type[nn.ReLU] | type[nn.ReLU6]] = {
    "relu": nn.ReLU,  # max(x, 0)
    "relu6": nn.ReLU6,  # min(max(x, 0), 6): keeps its precision in low-bit arithmetic (1704.04861)
}


def activation(name: str) -> nn.Module:
    """The activation of that name, overwriting its input: no shape changes, no parameters.

    Raises UnknownNameError.
    """
    if name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name](inplace=True)  # half the memory traffic; nothing else reads a norm's output

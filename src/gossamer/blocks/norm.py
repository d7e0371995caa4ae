"""Normalisation by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.errors import UnknownNameError

GROUPS = 32


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of each position: (N, C, H, W) -> the same shape.

    Source: Ba et al. 2016 (1607.06450), as ConvNeXt (2201.03545) applies it.
    """

    def forward(self, input: Tensor) -> Tensor:
        x = input.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,  # Ioffe and Szegedy 2015 (1502.03167)
    "group": lambda channels: nn.GroupNorm(math.gcd(GROUPS, channels), channels),  # Wu and He 2018 (1803.08494)
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),  # Ulyanov et al. 2016 (1607.08022)
    "layer": LayerNorm2d,
}


def norm(name: str, channels: int) -> nn.Module:
    """The norm of that name over (N, channels, H, W). No MACs by convention; 2 * channels parameters.

    Raises UnknownNameError.
    """
    if name not in NORMS:
        raise UnknownNameError("norm", name, NORMS)
    return NORMS[name](channels)


def replace_norms(module: nn.Module, name: str) -> None:
    """Put the norm `name` in the place of every batch norm. Raises UnknownNameError."""
    for parent in list(module.modules()):
        for key, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, key, norm(name, child.num_features))


def set_norm_eps(module: nn.Module, eps: float) -> None:
    """Let every batch norm add `eps` to the variance: networks from elsewhere differ in it, and their weights with it."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = eps

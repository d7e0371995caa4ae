"""Dropping whole branches while training."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """Drops a branch for whole images with probability `rate` while training, else scales it by 1 / (1 - rate).

    (N, ...) -> the same shape. Stands before the addition to a shortcut. `Builder` sets the rates: linear in depth.
    Source: Huang et al. 2016, Deep Networks with Stochastic Depth (1603.09382).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1.0 - self.rate)
        return x * kept / (1.0 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def set_drop_path(module: nn.Module, rate: float) -> None:
    """Let the drop paths of `module` have rates that grow from 0 at the first to `rate` at the last."""
    layers = [layer for layer in module.modules() if isinstance(layer, DropPath)]
    for index, layer in enumerate(layers):
        layer.rate = rate * index / max(1, len(layers) - 1)

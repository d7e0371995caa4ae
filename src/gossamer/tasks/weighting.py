"""One loss of the losses of several heads: weights that are fixed, learnt as uncertainties, or balanced by gradients.

Each weighting takes the losses of the heads by name, (N,) each, and gives (N,): one value a sample. known: for the
heads for which part of the images has no label, which have it, (N,) bool; a head that is not there is known everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from gossamer.errors import SettingsError

Losses = Mapping[str, Tensor]
GRADNORM_LR = 0.025  # of the weights, for a whole batch


class Fixed(nn.Module):
    """The sum of the losses at `weights`. Raises SettingsError for a weight that is negative or not finite."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise SettingsError(f"weight of {name}: {weight}", "a finite number from 0", "check the weight")
        self.weights = dict(weights)

    def forward(self, losses: Losses, known: Losses | None = None) -> Tensor:
        return torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum(0)


class Uncertainty(nn.Module):
    """Each loss divided by a learnt variance, and half the logarithm of the variance added.

    Kendall, Gal and Cipolla 2017 (arXiv 1705.07115, equations 7 and 10), with s = log variance as the parameter, as
    section 3.2 says: exp(-s) L + s / 2, and half of the first term for the heads in `regression`, whose loss is a
    squared error. `log_variance` starts at 0 and wants no weight decay. A loss L that stays the same brings s to
    log 2L, or log L for regression. An image that lacks a label adds nothing to that head's s.
    """

    def __init__(self, names: Iterable[str], regression: Collection[str] = ()) -> None:
        super().__init__()
        self.names = tuple(names)
        self.log_variance = nn.Parameter(torch.zeros(len(self.names)))
        self.factors = [0.5 if name in regression else 1.0 for name in self.names]

    def forward(self, losses: Losses, known: Losses | None = None) -> Tensor:
        terms = []
        for name, factor, s in zip(self.names, self.factors, self.log_variance, strict=True):
            there = known[name].float() if known and name in known else 1.0
            terms.append(factor * torch.exp(-s) * losses[name] + there * s / 2)
        return torch.stack(terms).sum(0)


class GradNorm(nn.Module):
    """Weights that let every head train at a like pace: Chen et al. 2018 (arXiv 1711.02257), section 3.

    `update` before the backward pass of each step: the norm G_i = w_i g_i of the gradient of head i at the shared
    parameters is drawn to mean(G) r_i^alpha, where r_i is the head's L / L(0) over the mean of these ratios
    (equations 1 and 2), by a step of `lr` down |G_i - target|. That gradient is g_i times a sign, so no second
    backward pass is needed. The weights then sum to the number of heads again. L(0) is the first loss that is not 0.
    weights, initial: (T,) buffers, saved with the network; initial is NaN where L(0) is not known yet.
    """

    LEAST = 1e-3  # a weight; the paper has no such bound, but below 0 a head would learn to be wrong
    weights: Tensor
    initial: Tensor

    def __init__(self, names: Iterable[str], alpha: float = 1.5, lr: float = GRADNORM_LR) -> None:
        super().__init__()
        self.names, self.alpha, self.lr = tuple(names), alpha, lr
        self.register_buffer("weights", torch.ones(len(self.names)))
        self.register_buffer("initial", torch.full((len(self.names),), torch.nan))

    def forward(self, losses: Losses, known: Losses | None = None) -> Tensor:
        return torch.stack([w * losses[name] for name, w in zip(self.names, self.weights, strict=True)]).sum(0)

    def update(self, losses: Losses, shared: Iterable[Tensor], known: Losses | None = None) -> None:
        """One step of the weights. shared: the parameters where gradients are compared, such as the last shared layer.

        The graph of `losses` is kept for the backward pass. A head that has no label in a batch keeps its weight,
        but for the common scale.
        """
        means = [_mean(losses[name], known.get(name) if known else None) for name in self.names]
        values = torch.stack([mean.detach() for mean in means])
        self.initial.copy_(torch.where(self.initial.isnan() & (values > 0), values, self.initial))
        there = (values > 0) & self.initial.isfinite()
        if not bool(there.any()):
            return
        slopes = self._slopes(means, tuple(shared))[there]
        norms = self.weights[there] * slopes
        pace = values[there] / self.initial[there]
        target = norms.mean() * (pace / pace.mean()).pow(self.alpha)
        weights = self.weights.clone()  # the old ones may be part of a graph that is still to go backward
        weights[there] -= self.lr * torch.sign(norms - target) * slopes
        weights.clamp_(min=self.LEAST)
        self.weights = weights * (len(self.names) / weights.sum())

    def _slopes(self, means: list[Tensor], shared: tuple[Tensor, ...]) -> Tensor:
        """The norm of the gradient of each mean loss, unweighted, over all shared parameters: (T,)."""
        norms = []
        for mean in means:
            gradients = torch.autograd.grad(mean, shared, retain_graph=True, allow_unused=True)
            squared_norms = [gradient.square().sum() for gradient in gradients if gradient is not None]
            norms.append(torch.stack(squared_norms).sum().sqrt() if squared_norms else self.weights.new_zeros(()))
        return torch.stack(norms)


def _mean(loss: Tensor, known: Tensor | None) -> Tensor:
    """The mean over the samples that have the label; 0 where none has."""
    if known is None:
        return loss.mean()
    return torch.where(known, loss, 0.0).sum() / known.sum().clamp_min(1)

"""Losses, one value a sample, so that weights, mixing and several processes stay exact.

A mean over samples is left to the caller: the mean over equal slices is the mean over all. In the losses for heads
that stand beside others, a target that an image lacks is NaN, or -1 where targets are class numbers: it adds 0 to the
value and 0 to every gradient, whatever the network outputs there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gossamer.errors import SettingsError


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0, over: str = "all") -> Tensor:
    """Cross-entropy with label smoothing: (N, K) float, (N,) int64 -> (N,) float32.

    over="all": the target is 1 - a + a/K, the others a/K (Szegedy et al. 2015, arXiv 1512.00567, section 7).
    over="others": the target is 1 - a, the others a/(K-1) (Goodfellow et al., Deep Learning, section 7.5.1).
    Raises SettingsError where a over the others leaves the target less than nothing: a > (K-1)/K.
    """
    classes = logits.shape[1]
    if over == "others" and classes > 1:
        # a over the others is a * K/(K-1) over all: both give each wrong class a/(K-1)
        smoothing = smoothing * classes / (classes - 1)
        if smoothing > 1:
            raise SettingsError(
                f"label_smoothing over the others of {classes} classes takes all of the target",
                f"at most {(classes - 1) / classes:g}",
                "lower label_smoothing",
            )
    return F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=smoothing)


def binary_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0, over: str = "all") -> Tensor:
    """One sigmoid per class, summed over the classes: (N, K), (N,) -> (N,).

    Wightman et al. 2021 (arXiv 2110.00476, section 2.2). The sum over classes, not their mean, keeps the gradient
    of the true class as large as cross-entropy's whatever the number of classes.
    """
    classes = logits.shape[1]
    spread = smoothing / classes if over == "all" else smoothing / max(classes - 1, 1)
    hit = 1 - smoothing + spread if over == "all" else 1 - smoothing
    aims = torch.full_like(logits, spread, dtype=torch.float32).scatter_(1, targets[:, None], hit)
    return F.binary_cross_entropy_with_logits(logits.float(), aims, reduction="none").sum(1)


def focal(logits: Tensor, targets: Tensor, gamma: float, smoothing: float = 0.0, over: str = "all") -> Tensor:
    """Softmax focal loss (1 - p)^gamma * cross-entropy: (N, K), (N,) -> (N,).

    Lin et al. 2017 (arXiv 1708.02002, equation 4), p the probability of the true class; gamma 0 is cross-entropy.
    """
    plain = cross_entropy(logits, targets, smoothing, over)
    log_p = F.log_softmax(logits.float(), 1).gather(1, targets[:, None]).squeeze(1)
    # 1 - p from log p without cancellation; the lower bound keeps gamma < 1 differentiable at p = 1
    return (-torch.expm1(log_p)).clamp_min(1e-12).pow(gamma) * plain


def class_weights(kind: str, counts: list[int]) -> Tensor | None:
    """Weights of the classes by how often each is seen: (K,) float32, mean 1 over the samples; 0 for an absent class.

    "balanced" is the inverse frequency, n / (K * n_k); "log" is 1 / ln(1.02 + n_k / n), which favours rare classes less:
    ENet (1606.02147), section 5.2. None for "none".
    """
    if kind == "none":
        return None
    total = torch.tensor(counts, dtype=torch.float64)
    every = total.sum().clamp_min(1)  # data of which nothing is labelled weigh nothing
    frequency = total / every
    weights = 1 / frequency.clamp_min(1 / every) if kind == "balanced" else 1 / (1.02 + frequency).log()
    weights = torch.where(total > 0, weights, torch.zeros_like(weights))
    return (weights / (weights * frequency).sum().clamp_min(1e-12)).float()


def multi_label(
    logits: Tensor, targets: Tensor, gamma_pos: float = 0.0, gamma_neg: float = 0.0, margin: float = 0.0
) -> Tensor:
    """One sigmoid a label, any number of them true, summed over the labels known: (N, K), (N, K) in 0..1 -> (N,).

    Ridnik et al. 2020 (arXiv 2009.14119, section 2): a true label of probability p costs
    -(1 - p)^gamma_pos log p; a false one -q^gamma_neg log(1 - q) with q = max(p - margin, 0), so that what is easily
    false costs nothing. All 0 is binary cross-entropy; gamma_pos = gamma_neg and margin 0 is the focal loss of
    Lin et al. 2017 (arXiv 1708.02002, equation 4). A target between 0 and 1 is a mixture of the two.
    """
    known = ~targets.isnan()
    aims = torch.where(known, targets, 0.0).float()
    x = torch.where(known, logits.float(), 0.0)
    true, false = F.logsigmoid(x), F.logsigmoid(-x)
    wrong = torch.sigmoid(x)
    if margin:
        wrong = (wrong - margin).clamp_min(0)
        false = torch.log1p(-wrong)
    # the lower bound keeps gamma < 1 differentiable at 0
    if gamma_pos:
        true = torch.sigmoid(-x).clamp_min(1e-12).pow(gamma_pos) * true
    if gamma_neg:
        false = wrong.clamp_min(1e-12).pow(gamma_neg) * false
    return torch.where(known, -(aims * true + (1 - aims) * false), 0.0).sum(1)


def regression(outputs: Tensor, targets: Tensor, kind: str = "smooth_l1", beta: float = 1.0) -> Tensor:
    """The mean over the quantities known of what their errors e cost: (N, D), (N, D) -> (N,).

    kind: "l1" |e|; "mse" e^2; "smooth_l1" e^2 / (2 beta) below beta and |e| - beta / 2 from there on, which is
    Girshick 2015 (arXiv 1504.08083, equation 3) for beta 1. Raises SettingsError for another kind.
    """
    known = ~targets.isnan()
    error = torch.where(known, outputs.float(), 0.0) - torch.where(known, targets, 0.0).float()
    if kind == "l1":
        values = error.abs()
    elif kind == "mse":
        values = error.square()
    elif kind == "smooth_l1":
        values = F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=beta)
    else:
        raise SettingsError(f"regression loss {kind!r}", "l1, mse, smooth_l1", "choose one of them")
    return values.sum(1) / known.sum(1).clamp_min(1)


def hierarchical(
    logits: Tensor, targets: Tensor, groups: Sequence[Tensor], weights: Sequence[float] | None = None
) -> Tensor:
    """Cross-entropy of each level of a class tree, summed over the levels known: (N, K), (N, L) int64 -> (N,).

    The probability of a class above the leaves is the sum of those of its leaves (Redmon and Farhadi 2016, arXiv
    1612.08242, section 4, has it as a product down the tree; with one softmax over the leaves the two are the same).
    targets: the class at each level, coarsest first. groups: for each level the class of each leaf, (K,) int64, as
    `ClassTree.groups` has them. weights: of the levels, default 1 each.
    """
    log_p = F.log_softmax(torch.where((targets >= 0).any(1, keepdim=True), logits.float(), 0.0), 1)
    total = log_p.new_zeros(len(logits))
    for level, group in enumerate(groups):
        known = targets[:, level] >= 0
        # an image that lacks this level takes class 0, which has leaves, so that nothing infinite is met
        aims = targets[:, level].clamp_min(0)
        inside = group.to(logits.device)[None] == aims[:, None]
        values = -torch.where(inside, log_p, -torch.inf).logsumexp(1)
        total = total + (1.0 if weights is None else weights[level]) * torch.where(known, values, 0.0)
    return total

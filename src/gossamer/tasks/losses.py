"""Classification losses, one value a sample, so that weights, mixing and several processes stay exact.

A mean over samples is left to the caller: the mean of equal slices is the mean of the whole.
"""

from __future__ import annotations

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
    """One sigmoid a class, summed over the classes: (N, K), (N,) -> (N,).

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
    # 1 - p from log p without cancellation; the floor keeps gamma < 1 differentiable at p = 1
    return (-torch.expm1(log_p)).clamp_min(1e-12).pow(gamma) * plain


def balanced_weights(counts: list[int]) -> Tensor:
    """Weights by inverse frequency, n / (K * n_k): (K,) float32, mean 1 over the samples; 0 for an absent class."""
    total = torch.tensor(counts, dtype=torch.float64)
    present = (total > 0).sum()
    weights = total.sum() / (present * total.clamp_min(1))
    return torch.where(total > 0, weights, torch.zeros_like(weights)).float()

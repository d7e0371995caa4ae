"""Numbers that the report derives from an evaluation: intervals, confused pairs, calibration, worst mistakes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054  # 0.975 quantile of the normal distribution
BINS = 15  # as in Guo et al. 2017, section 2


def wilson(correct: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Interval of a proportion, `correct` of `total`, both ends in 0..1; (nan, nan) for a total of 0.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22:209. It holds for
    small samples and for proportions near 0 and 1, where the normal interval does not.
    """
    if total == 0:
        return math.nan, math.nan
    proportion = correct / total
    scale = 1 + z * z / total
    centre = (proportion + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(proportion * (1 - proportion) / total + z * z / (4 * total * total))
    # at a proportion of 0 or 1 that end is exact; rounding must not push it past the proportion
    return (0.0 if correct == 0 else centre - half), (1.0 if correct == total else centre + half)


@dataclass(frozen=True)
class ConfusedPair:
    """`count` images of class `true` were predicted as class `predicted`: `fraction` of the true class, 0..1."""

    true: int
    predicted: int
    count: int
    fraction: float


def confused_pairs(confusion: NDArray[np.int64], top: int = 20) -> list[ConfusedPair]:
    """The most frequent mistakes of a (K, K) matrix of counts [true, predicted], most frequent first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    support = confusion.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:top]
    pairs = []
    for true, predicted in zip(*np.unravel_index(order, wrong.shape)):
        count = int(wrong[true, predicted])
        if count:
            pairs.append(ConfusedPair(int(true), int(predicted), count, count / int(support[true])))
    return pairs


def worst_mistakes(probabilities: NDArray[np.float64], targets: NDArray[np.int64], top: int) -> NDArray[np.int64]:
    """Indices of the mistakes with the smallest probability of the true class, the worst first: at most `top`.

    probabilities: (n, K). Images whose outputs are not numbers are left out: they have no order.
    """
    wrong = np.flatnonzero((probabilities.argmax(axis=1) != targets) & np.isfinite(probabilities).all(axis=1))
    order = np.argsort(probabilities[wrong, targets[wrong]], kind="stable")[:top]
    return wrong[order].astype(np.int64)


@dataclass(frozen=True)
class Bin:
    """The `count` images whose confidence is in (low, high]; means are nan where there are none."""

    low: float
    high: float
    count: int
    correct: int
    confidence: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.count if self.count else math.nan


@dataclass(frozen=True)
class Calibration:
    """How far confidence, the largest probability, agrees with accuracy.

    ece: expected calibration error, the mean of |accuracy - confidence| over bins weighted by their counts, 0..1.
    left_out: images whose outputs are not numbers.
    """

    bins: tuple[Bin, ...]
    ece: float
    confidence: float
    accuracy: float
    left_out: int


def calibrate(probabilities: NDArray[np.float64], targets: NDArray[np.int64], bins: int = BINS) -> Calibration | None:
    """Calibration over `bins` bins of equal width; None where no output is a number.

    probabilities: (n, K); targets: (n,). Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2.
    """
    usable = np.isfinite(probabilities).all(axis=1)
    if not usable.any():
        return None
    confidence = probabilities[usable].max(axis=1)
    correct = probabilities[usable].argmax(axis=1) == targets[usable]
    # bin m holds (m/bins, (m+1)/bins]
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    hits = np.bincount(index, weights=correct, minlength=bins)
    sums = np.bincount(index, weights=confidence, minlength=bins)
    rows = tuple(
        Bin(
            m / bins,
            (m + 1) / bins,
            int(counts[m]),
            int(hits[m]),
            float(sums[m] / counts[m]) if counts[m] else math.nan,
        )
        for m in range(bins)
    )
    ece = float(np.abs(hits - sums).sum() / len(confidence))
    return Calibration(rows, ece, float(confidence.mean()), float(correct.mean()), int((~usable).sum()))

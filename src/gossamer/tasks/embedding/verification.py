"""Whether two images are of one identity, decided by a threshold of their similarity. Needs numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gossamer.predictions.neighbours import unit
from gossamer.tasks.embedding.similarity import STEPS, chunks, steps

PairCounts = NDArray[np.int64]


@dataclass(frozen=True)
class PairVerification:
    """All pairs of n images by their similarity. same, other: int64 (2 * STEPS + 1,), how many pairs of one identity,
    and of two, have each similarity from -1 to 1. Rates are 0..1; nan where there is no pair of one kind."""

    same: PairCounts
    other: PairCounts

    @property
    def auc(self) -> float:
        """The chance that a pair of one identity is the more similar; equal ones count half."""
        total = int(self.same.sum()) * int(self.other.sum())
        if not total:
            return float("nan")
        below = np.cumsum(self.other) - self.other
        return float((self.same * (below + 0.5 * self.other)).sum() / total)

    def threshold(self, far: float) -> float:
        """The lowest cosine similarity at which at most the fraction `far` of the pairs of two identities is accepted.

        Just above 1, so that nothing is accepted, where even equal vectors are too often of two identities.
        """
        if not self.other.sum():
            return float("nan")
        accepted = np.cumsum(self.other[::-1])[::-1] / self.other.sum()
        return float((int((accepted > far).sum()) - STEPS) / STEPS)

    def accepted(self, threshold: float) -> tuple[float, float]:
        """(TAR, FAR): of the pairs of one identity, and of two, the fraction that is as similar as `threshold`."""
        start = round(threshold * STEPS) + STEPS if threshold == threshold else 0
        return _fraction(self.same, start), _fraction(self.other, start)

    def curve(self, points: int = 200) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The ROC curve as (FAR, TAR), both rising from 0 to 1: at most `points` steps, evenly spread over the FAR."""
        tar, far = (
            np.concatenate([[0.0], np.cumsum(kind[::-1]) / max(1, kind.sum())]) for kind in (self.same, self.other)
        )
        keep = np.unique(np.searchsorted(far, np.linspace(0, 1, points), side="right") - 1)
        return far[keep], tar[keep]


def verify_pairs(embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> PairVerification:
    """The similarities of all pairs of embeddings (n, D) with labels (n,), each pair once."""
    vectors = unit(embeddings)
    same, other = np.zeros(2 * STEPS + 1, np.int64), np.zeros(2 * STEPS + 1, np.int64)
    for part in chunks(len(vectors), len(vectors)):
        place = steps(vectors[part], vectors[part.start :]).astype(np.int64) + STEPS
        later = np.arange(place.shape[1]) > np.arange(place.shape[0])[:, None]
        equal = labels[part][:, None] == labels[part.start :]
        same += np.bincount(place[later & equal], minlength=len(same))
        other += np.bincount(place[later & ~equal], minlength=len(other))
    return PairVerification(same, other)


def _fraction(kind: PairCounts, start: int) -> float:
    return float(kind[start:].sum() / kind.sum()) if kind.sum() else float("nan")

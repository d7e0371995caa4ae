"""An alarm for embeddings that have become one point or one line, where every metric loss can get stuck."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gossamer.predictions.neighbours import unit

LEAST_DISTANCE = 0.05  # of vectors of length 1; random ones have a distance of sqrt(2)
LEAST_RANK = 1.2  # the means of K identities span K - 1 directions when all is well, at least 2 from 3 on


def spread(embeddings: NDArray[np.float32]) -> tuple[float, float]:
    """(distance, rank) of embeddings (n, D), n >= 2, after division by their lengths.

    distance: the root of the mean squared distance of two of them, 0..2. rank: the effective rank, exp of the entropy
    of the normalised singular values around the mean: Roy and Vetterli 2007, The effective rank; 1 for a point.
    """
    vectors = unit(embeddings).astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    distance = float(np.sqrt(2 * np.square(centred).sum() / (len(vectors) - 1)))
    values = np.linalg.svd(centred, compute_uv=False)
    normalised = values[values > 1e-12 * max(float(values[0]), 1e-12)] / max(float(values.sum()), 1e-12)
    return distance, float(np.exp(-(normalised * np.log(normalised)).sum()))


def alarm(embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> str:
    """One line where the embeddings (n, D) of a batch have collapsed, else "".

    The rank is judged from 3 identities and 2 dimensions on: two identities lie on a line when all is well.
    """
    identities = len(np.unique(labels))
    if identities < 2:
        return ""
    if not np.isfinite(embeddings).all():
        return "the embeddings are not finite: lower the learning rate"
    distance, rank = spread(embeddings)
    advice = "lower the learning rate, mine all or semi-hard in place of the hardest, or take a larger batch"
    if distance < LEAST_DISTANCE:
        return f"the embeddings have collapsed to a point: two are {distance:.2g} apart on average; {advice}"
    if identities > 2 and embeddings.shape[1] > 1 and rank < LEAST_RANK:
        return f"the embeddings have collapsed to a line: their effective rank is {rank:.2f}; {advice}"
    return ""

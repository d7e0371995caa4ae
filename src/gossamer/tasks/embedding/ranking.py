"""How well the neighbours of an embedding are of its identity: recall@k, R-precision, MAP@R. Needs numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gossamer.predictions.neighbours import unit
from gossamer.tasks.embedding.similarity import chunks, steps

RECALLS = (1, 5, 10)


def ranking_scores(embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """recall1, recall5, recall10, r_precision and map_r of embeddings (n, D) and labels (n,), each 0..1.

    Each image is searched among all the others by cosine similarity; of equal ones, those of another identity come
    first, so that embeddings that are all the same score nothing. An identity of one image is found among but not
    searched for. r_precision: of the R others of the identity, the fraction among the R nearest. map_r: the mean over
    these R of the precision at each hit, Musgrave et al. 2020, A Metric Learning Reality Check (arXiv 2003.08505),
    section 3.2. All are nan where no identity has two images.
    """
    _, number, counts = np.unique(labels, return_inverse=True, return_counts=True)
    others = counts[number] - 1
    queries = np.flatnonzero(others)
    queries = queries[np.argsort(others[queries], kind="stable")]  # rows of a chunk are sorted to about the same depth
    vectors = unit(embeddings)
    metrics = [
        _scores(_hits(vectors, labels, queries[part], int(others[queries[part]].max())), others[queries[part]])
        for part in chunks(len(queries), len(labels))
    ]
    names = (*(f"recall{k}" for k in RECALLS), "r_precision", "map_r")
    if not metrics:
        return dict.fromkeys(names, float("nan"))
    return dict(zip(names, np.concatenate(metrics, axis=1).mean(axis=1).tolist()))


def _hits(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], queries: NDArray[np.int64], deepest: int
) -> NDArray[np.bool_]:
    """Whether each of the nearest of each query is of its identity, nearest first: (q, depth)."""
    near = steps(vectors[queries], vectors)
    near[labels[queries][:, None] == labels] -= 0.5  # half a step: behind equals of another identity, and a mark
    near[np.arange(len(queries)), queries] = -np.inf
    depth = min(len(labels) - 1, max(deepest, *RECALLS))
    best = np.sort(np.partition(-near, depth - 1, axis=1)[:, :depth], axis=1)  # negated, so largest first
    return np.asarray(best != np.rint(best))


def _scores(hits: NDArray[np.bool_], others: NDArray[np.int64]) -> NDArray[np.float64]:
    """The scores of each query, in the order of `ranking_scores`: (5, q)."""
    place = np.arange(1, hits.shape[1] + 1)
    within = hits & (place <= others[:, None])
    precision = hits.cumsum(axis=1) / place
    return np.stack(
        [
            *(hits[:, :k].any(axis=1).astype(np.float64) for k in RECALLS),
            within.sum(axis=1) / others,
            (precision * within).sum(axis=1) / others,
        ]
    )

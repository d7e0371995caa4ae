"""A map of embeddings in two dimensions, to look at. Needs numpy; t-SNE needs scikit-learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import MissingPackageError, UnknownNameError
from gossamer.predictions.neighbours import unit

METHODS = ("pca", "tsne")
PERPLEXITY = 30.0  # van der Maaten and Hinton 2008, Visualizing Data using t-SNE, section 2: 5 to 50


def plane(embeddings: NDArray[np.float32], method: str = "pca", seed: int = 0) -> NDArray[np.float32]:
    """A point in the plane for each of the embeddings (n, D), after division by their lengths: (n, 2).

    "pca": along the two directions of the largest variance, each turned so that its largest part is positive; a
    direction that there is not gives zeros. "tsne": neighbours stay neighbours, distances mean little; the time grows
    with n. Raises UnknownNameError, MissingPackageError.
    """
    if method not in METHODS:
        raise UnknownNameError("map of embeddings", method, METHODS)
    points = _principal(unit(embeddings))
    if method == "pca" or len(points) < 4:
        return points
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise MissingPackageError("scikit-learn", "embed", "t-SNE") from error
    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    # a start along the principal directions: the same map every time, and its large distances mean more
    start = 1e-4 * points / max(float(points[:, 0].std()), 1e-12)
    positions = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(unit(embeddings))
    return np.asarray(positions, np.float32)


def _principal(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coordinates along the first two principal directions: (n, D) -> (n, 2)."""
    result = np.zeros((len(vectors), 2), np.float32)
    if not len(vectors):
        return result
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)  # (D, D), by rising variance
    for axis in range(min(2, directions.shape[1])):
        direction = directions[:, -1 - axis]
        result[:, axis] = centred @ (direction * np.sign(direction[np.abs(direction).argmax()]))
    return result

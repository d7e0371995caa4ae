"""The nearest of many vectors, exactly: by numpy, or by faiss where it is installed."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import MissingPackageError

BACKENDS = ("auto", "numpy", "faiss")
CHUNK = 2**24  # similarities held at a time: 64 MiB


def unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings (n, D) divided by their lengths; a row of zeros stays."""
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(embeddings / np.where(lengths == 0, 1, lengths), np.float32)


def nearest(
    gallery: NDArray[np.float32], queries: NDArray[np.float32], top: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(places, similarities), both (m, top): the largest products of each query (m, D) with the gallery (n, D).

    Largest first, of equal ones the first in the gallery; 1 <= top <= n.
    """
    places, values = np.zeros((len(queries), top), np.int64), np.zeros((len(queries), top), np.float32)
    step = max(1, CHUNK // len(gallery))
    for start in range(0, len(queries), step):
        for row, products in enumerate(queries[start : start + step] @ gallery.T, start):
            places[row] = _largest(products, top)
            values[row] = products[places[row]]
    return places, values


def _largest(products: NDArray[np.float32], top: int) -> NDArray[np.int64]:
    """The places of the `top` largest of (n,), largest first, of equal ones the first."""
    least = np.partition(products, len(products) - top)[len(products) - top]
    candidates = np.flatnonzero(products >= least)
    order = np.argsort(-products[candidates], kind="stable")
    return np.asarray(candidates[order[:top]], np.int64)


class Index(Protocol):
    """The part of a faiss index that is used."""

    def search(self, queries: NDArray[np.float32], top: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(similarities, places) of the nearest, both (m, top)."""

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Take up vectors (n, D)."""


def faiss_index(gallery: NDArray[np.float32]) -> Index:
    """faiss's exact index of inner products over the gallery (n, D). Raises MissingPackageError."""
    try:
        import faiss
    except ImportError as error:
        raise MissingPackageError("faiss-cpu", "faiss", "the search backend faiss") from error
    index: Index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(np.ascontiguousarray(gallery))
    return index

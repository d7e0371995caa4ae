"""The nearest of many vectors, exactly: by numpy, or by faiss where it is installed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import InputError, MissingPackageError, UnknownNameError

BACKENDS = ("auto", "numpy", "faiss")
CHUNK = 2**24  # similarities held at a time: 64 MiB


def unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings (n, D) divided by their lengths; a row of zeros stays."""
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(embeddings / np.where(lengths == 0, 1, lengths), np.float32)


def nearest(
    gallery: NDArray[np.float32], queries: NDArray[np.float32], top: int, backend: str = "auto"
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(places, similarities), both (m, min(top, n)): the largest products of each query (m, D) with the gallery (n, D).

    Largest first, of equal ones the first in the gallery. backend: "numpy"; "faiss", which searches on all cores but
    may order equal ones otherwise; "auto", faiss where it is installed.
    Raises InputError, UnknownNameError, MissingPackageError.
    """
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise InputError(f"top {top!r}", "a whole number from 1", "give such a number")
    if backend not in BACKENDS:
        raise UnknownNameError("search backend", backend, BACKENDS)
    top = min(top, len(gallery))
    if backend != "numpy":
        try:
            return _by_faiss(gallery, queries, top)
        except MissingPackageError:
            if backend == "faiss":
                raise
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


def _by_faiss(
    gallery: NDArray[np.float32], queries: NDArray[np.float32], top: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """faiss's exact index of inner products. Raises MissingPackageError."""
    try:
        import faiss
    except ImportError as error:
        raise MissingPackageError("faiss-cpu", "faiss", "the search backend faiss") from error
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(np.ascontiguousarray(gallery))
    values, places = index.search(np.ascontiguousarray(queries), top)
    return places, values

"""Similarities of embeddings in integer steps, so that scores know which are equal. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

STEPS = 1_000_000  # of similarity 1; float32 products of equal vectors differ by less, so they count as equal
CHUNK = 2**22  # similarities held at a time


def chunks(count: int, width: int) -> Iterator[slice]:
    """Slices of `count` rows, of about CHUNK values, where each row has `width`."""
    step = max(1, CHUNK // max(width, 1))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def steps(rows: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine similarities of unit vectors (m, D) and (n, D) in steps, integers -STEPS..STEPS: (m, n)."""
    products = rows @ columns.T
    return np.asarray(np.clip(np.rint(products * np.float32(STEPS)), -STEPS, STEPS), np.float32)

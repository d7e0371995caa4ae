"""Images and masks to write, for the tests of segmentation."""

from __future__ import annotations

import numpy as np

RNG = np.random.default_rng(3)


def mask(*values: int, height: int = 6, width: int = 8) -> np.ndarray:
    """A mask in which each of `values` has some pixels."""
    return np.resize(np.array(values, np.uint8), height * width).reshape(height, width)

"""Random arrays, the same at every run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

RNG = np.random.default_rng(11)
Array = NDArray[Any]


def f32(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)

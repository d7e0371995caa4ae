"""Transforms that move the target with the image: boxes, masks."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gossamer.images.preprocess import Placement, Preprocess


@runtime_checkable
class JointTransform(Protocol):
    """From one image and its target to uint8 (H, W, C) and the target that fits them."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every result."""

    def joint(self, encoded: bytes, target: Any, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Any]:
        """The pixels and their target. Raises ImageError."""


class EvalJoint:
    """The deployment preprocessing; the target becomes (the target as it is, the placement of the image in the input)."""

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.preprocess.size, self.preprocess.channels)

    def joint(
        self, encoded: bytes, target: Any, rng: np.random.Generator | None = None
    ) -> tuple[NDArray[np.uint8], tuple[Any, Placement]]:
        pixels, place = self.preprocess.read(encoded)
        return pixels, (target, place)

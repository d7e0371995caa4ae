"""Pictures of the data as the report shows them, small, and which of them: the best and the worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gossamer.images.preprocess import decode
from gossamer.report.gallery import data_uri

SIDE = 400  # pixels of the longer side
NEAREST, SMOOTH = Image.Resampling.NEAREST, Image.Resampling.LANCZOS


@dataclass(frozen=True)
class Photo:
    """An image as a data URI. height, width: of the image itself. pixelated: shown larger than it is."""

    uri: str
    height: int
    width: int
    pixelated: bool


def photo(encoded: bytes, side: int = SIDE) -> Photo:
    """The image, its longer side at most `side` pixels; a small one keeps its pixels. Raises ImageError."""
    return photo_of(decode(encoded), side)


def photo_of(image: Image.Image, side: int = SIDE) -> Photo:
    """The same of an image that is decoded already."""
    width, height = image.size
    small = max(width, height) * 2 <= side
    shown = image if small else image.resize(fitted(width, height, side), SMOOTH)
    return Photo(data_uri(shown, "PNG" if small else "JPEG"), height, width, small)


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) of an image whose longer side is at most `side`."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def ends(values: NDArray[np.float64], mistakes: NDArray[np.int64], most: int) -> tuple[list[int], list[int]]:
    """(worst, best): where the lowest and the highest of `values` (n,) are, none in both, those that are nan in neither.

    At most `most` of each; of equal ones, the one with more mistakes (n,) is the worse.
    """
    order = np.lexsort((-mistakes, values))
    order = order[np.isfinite(values[order])]
    worst = order[: min(most, -(-len(order) // 2))]
    best = order[::-1][: min(most, len(order) - len(worst))]
    return worst.tolist(), best.tolist()


def missed_last(worst: list[int], best: list[int], detected: Sequence[bool]) -> tuple[list[int], list[int]]:
    """(worst, best) of `ends` with the images without any detection moved to the worst: nothing in them is good."""
    return [*worst, *(index for index in reversed(best) if not detected[index])], [
        index for index in best if detected[index]
    ]

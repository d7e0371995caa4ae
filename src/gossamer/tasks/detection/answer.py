"""What detection asks of an image's annotation; `gossamer.data` reads it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Boxes(Protocol):
    """The n objects of a picture.

    corners: (n, 4) float32 x0, y0, x1, y1 in its pixels. labels: (n,) 0..K-1. crowd: (n,) regions of many objects.
    difficult: (n,) objects that PASCAL VOC does not score. area: (n,) square pixels, as COCO counts them.
    """

    @property
    def corners(self) -> NDArray[np.float32]: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def crowd(self) -> NDArray[np.bool_]: ...
    @property
    def difficult(self) -> NDArray[np.bool_]: ...
    @property
    def area(self) -> NDArray[Any]: ...

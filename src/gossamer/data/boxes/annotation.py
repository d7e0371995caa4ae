"""The boxes of one image, and those of many in flat arrays that worker processes share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class BoxTarget:
    """The boxes of one image, in pixels of the upright image.

    corners: float32 (n, 4) x0, y0, x1, y1, continuous edges: a full image is 0, 0, width, height. labels: int64 (n,).
    crowd: bool (n,), a region of many objects; neither matched nor scored. difficult: bool (n,), not scored where
    PASCAL VOC's rules hold. area: float64 (n,), square pixels as COCO counts them (of the mask, where there is one).
    size: (height, width) of the image.
    """

    corners: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: Flags
    difficult: Flags
    area: NDArray[np.float64]
    size: tuple[int, int]

    @classmethod
    def plain(cls, corners: Any, labels: Any, size: tuple[int, int]) -> BoxTarget:
        """Boxes that are neither crowds nor difficult, with the area of their corners."""
        edges = np.asarray(corners, np.float32).reshape(-1, 4)
        none = np.zeros(len(edges), np.bool_)
        area = np.prod(edges[:, 2:].astype(np.float64) - edges[:, :2], axis=1)
        return cls(edges, np.asarray(labels, np.int64).reshape(-1), none, none.copy(), area, size)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, which: Any) -> BoxTarget:
        """These boxes: a mask (n,) or indices."""
        return BoxTarget(
            self.corners[which],
            self.labels[which],
            self.crowd[which],
            self.difficult[which],
            self.area[which],
            self.size,
        )


@dataclass(frozen=True)
class Annotations:
    """The boxes of all images of a table, m of them.

    starts: int64 (images + 1,), the boxes of a row are starts[row] to starts[row + 1]. sizes: int64 (images, 2),
    height and width. The rest as in `BoxTarget`, with m for n; labels are indices into `classes`, -1 for none of them.
    """

    classes: tuple[str, ...]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    corners: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: Flags
    difficult: Flags
    area: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, row: int) -> BoxTarget:
        """The boxes of an image."""
        part = slice(int(self.starts[row]), int(self.starts[row + 1]))
        height, width = self.sizes[row].tolist()
        return BoxTarget(
            self.corners[part],
            self.labels[part],
            self.crowd[part],
            self.difficult[part],
            self.area[part],
            (height, width),
        )

    def line(self, row: int) -> str:
        """A digest of an image's boxes and their class names, for a fingerprint; class numbers do not enter."""
        boxes = self.read(row)
        state = hashlib.sha256("\0".join(self.classes[i] for i in boxes.labels.tolist()).encode("utf-8", "replace"))
        for values in (boxes.corners, boxes.crowd, boxes.difficult, boxes.area, self.sizes[row]):
            state.update(values.tobytes())
        return state.hexdigest()

    def images_of(self) -> NDArray[np.int64]:
        """(m,) the row of the image that each box is in."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.starts))

    def numbered(self, classes: tuple[str, ...]) -> Annotations:
        """The same boxes with the class numbers of `classes`; -1 where a class is not among them."""
        number = {name: i for i, name in enumerate(classes)}
        to = np.array([*(number.get(name, -1) for name in self.classes), -1], np.int64)  # to[-1]: none stays none
        return replace(self, classes=classes, labels=to[self.labels])

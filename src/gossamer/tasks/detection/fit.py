"""Anchors fitted to the boxes of a training set, by clusters."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gossamer.data.boxes.annotation import BoxTarget

FITTED = 9  # anchors: YOLOv3 (1804.02767), section 2.1
ROUNDS = 100
LEAST = 4.0  # pixels of a side: smaller boxes count as that large


def anchor_sizes_of(annotations: Iterable[BoxTarget], size: tuple[int, int], seed: int) -> list[float]:
    """Width and height of each anchor in input pixels, concatenated, for the boxes of images that are scaled
    to `size` (height, width)."""
    sides = []
    for boxes in annotations:
        across, down = size[1] / boxes.size[1], size[0] / boxes.size[0]
        sides.append((boxes.corners[:, 2:] - boxes.corners[:, :2])[~boxes.crowd] * [across, down])
    return [side for shape in shapes_of(np.concatenate(sides), FITTED, seed) for side in shape]


def shapes_of(sides: NDArray[np.floating], count: int, seed: int = 0) -> list[tuple[float, float]]:
    """`count` (width, height) that fit boxes of `sides` (n, 2) in input pixels, smallest first; fewer where n is less.

    k-means with 1 - IoU of boxes that share a corner as the distance, from a start of k-means++:
    Redmon and Farhadi 2016, YOLO9000 (1612.08242), section 2; Arthur and Vassilvitskii 2007.
    """
    boxes = np.maximum(np.asarray(sides, np.float64).reshape(-1, 2), LEAST)
    count = min(count, len(np.unique(boxes, axis=0)))
    if not count:
        return []
    rng = np.random.default_rng(seed)
    centres = boxes[rng.integers(len(boxes))][None]
    while len(centres) < count:
        away = (1 - _iou(boxes, centres).max(axis=1)) ** 2
        centres = np.concatenate([centres, boxes[rng.choice(len(boxes), p=away / away.sum())][None]])
    for _ in range(ROUNDS):
        nearest = _iou(boxes, centres).argmax(axis=1)
        moved = np.stack(
            [np.median(boxes[nearest == i], axis=0) if (nearest == i).any() else centres[i] for i in range(count)]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    order = np.argsort(centres.prod(axis=1), kind="stable")
    return [(round(float(w), 1), round(float(h), 1)) for w, h in centres[order]]


def _iou(boxes: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of boxes (n, 2) and (k, 2), by their sides alone: (n, k)."""
    shared = np.minimum(boxes[:, None], centres[None]).prod(axis=2)
    result: NDArray[np.float64] = shared / (boxes.prod(axis=1)[:, None] + centres.prod(axis=1)[None] - shared)
    return result

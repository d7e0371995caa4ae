"""What several tests of detection draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


def random_boxes(rng: np.random.Generator, count: int, side: float = 100) -> np.ndarray[Any, np.dtype[np.float32]]:
    corner = rng.uniform(0, side * 0.7, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(side * 0.02, side * 0.5, (count, 2))], 1).astype(np.float32)


@dataclass(frozen=True)
class Prediction:
    corners: np.ndarray[Any, np.dtype[np.float32]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    crowd: np.ndarray[Any, np.dtype[np.bool_]]
    difficult: np.ndarray[Any, np.dtype[np.bool_]]
    area: np.ndarray[Any, np.dtype[np.float32]]


def annotated_boxes(corners: Any, labels: Any, crowd: Any = None, difficult: Any = None) -> Prediction:
    boxes = np.array(corners, np.float32).reshape(-1, 4)
    none = np.zeros(len(boxes), bool)
    sides = boxes[:, 2:] - boxes[:, :2]
    return Prediction(
        boxes,
        np.array(labels, np.int64),
        none if crowd is None else np.array(crowd, bool),
        none if difficult is None else np.array(difficult, bool),
        sides.prod(1),
    )


CORNERS = [(40, 60, 190, 140), (200, 100, 300, 220)]

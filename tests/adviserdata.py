"""For every rule of the adviser on data two small networks with data: one that it names, one that it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import nn

from gossamer.adviser.data_facts import DataFacts
from tests.adviserpairs import conv


class DataPair(NamedTuple):
    """Builders of a network and its data with the fault, and of both without; the networks are convolutions alone."""

    fault: Callable[[], tuple[nn.Module, DataFacts]]
    partner: Callable[[], tuple[nn.Module, DataFacts]]


def maps(count: int, stride: int = 2) -> nn.Module:
    """Convolutions that predict at every position: a field of 3 pixels and 4 more for each of `count` strided ones behind it."""
    return nn.Sequential(conv(3, 32, stride=stride), *(conv(32, 32) for _ in range(count)), nn.Conv2d(32, 8, 1))


def facts(
    *boxes: tuple[float, float],
    steps: tuple[float, ...] = (8, 16),
    anchors: list[tuple[float, float, float]] | None = None,
) -> DataFacts:
    """Data of an input of 96 x 96, whose images have that size, with so many boxes of (width, height) each."""
    known = anchors or [(16, 16, 144), (32, 32, 36)]
    images = np.full((20, 2), 96.0)
    sides = np.repeat(np.asarray(boxes or [(20, 20)], float), 10, axis=0)
    return DataFacts((96, 96), images=images, boxes=sides, steps=steps, anchors=np.asarray(known, float))


def images(rows: int, columns: int, resize: str = "squash") -> DataFacts:
    """Data of an input of 96 x 96 without boxes."""
    return DataFacts((96, 96), resize, images=np.full((20, 2), (rows, columns), float))


DATA_PAIRS: dict[str, DataPair] = {
    "receptive-field": DataPair(
        lambda: (maps(3), facts((20, 20), (60, 30))),  # a field of 15 pixels
        lambda: (maps(20), facts((20, 20), (60, 30))),  # of 83
    ),
    "output-stride": DataPair(
        lambda: (maps(20), facts((5, 20), (20, 20))),
        lambda: (maps(20), facts((5, 20), (20, 20), steps=(4, 8), anchors=[(16, 16, 144), (32, 16, 36)])),
    ),
    "unmatched-anchors": DataPair(
        lambda: (maps(20), facts((20, 20), anchors=[(16, 16, 10), (80, 80, 50)])),
        lambda: (maps(20), facts((20, 20), anchors=[(16, 16, 90), (80, 80, 10)])),
    ),
    "upsampled-images": DataPair(
        lambda: (maps(3), images(32, 32)),
        lambda: (maps(3), images(80, 80)),
    ),
    "squashed-images": DataPair(
        lambda: (maps(3), images(100, 300)),
        lambda: (maps(3), images(100, 120)),
    ),
}

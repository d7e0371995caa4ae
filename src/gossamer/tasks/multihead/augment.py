"""Transforms of an image with the labels of several heads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gossamer.data.augment import TrainTransform, jittered
from gossamer.images.preprocess import Placement, Preprocess
from gossamer.predictions.masks import IGNORED, Mask
from gossamer.settings import Settings
from gossamer.tasks.detection.augment import seen_boxes
from gossamer.tasks.detection.match import Target

Pixels = NDArray[np.uint8]


class PlainLabels:
    """The transform of a classifier; the labels say nothing of places, and stay."""

    def __init__(self, preprocess: Preprocess, settings: Settings) -> None:
        self.transform = TrainTransform(preprocess, settings)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        return self.transform.shape

    def joint(self, encoded: bytes, targets: Any, rng: np.random.Generator) -> tuple[Pixels, Any]:
        """uint8 (H, W, C), and the targets as they are. Raises ImageError."""
        return self.transform(encoded, rng), targets


class PlacedLabels:
    """The deployment geometry with random flips and colours; boxes and masks move with the image.

    boxes, masks: the names of the heads with such labels. Each is in the image's own pixels, and becomes a `Target`
    in input pixels, and a mask of the input's size, IGNORED where the image does not reach.
    """

    def __init__(self, preprocess: Preprocess, settings: Settings, boxes: list[str], masks: list[str]) -> None:
        self.preprocess, self.settings, self.boxes, self.masks = preprocess, settings, boxes, masks

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image; masks are (H, W)."""
        return (*self.preprocess.size, self.preprocess.channels)

    def joint(self, encoded: bytes, targets: dict[str, Any], rng: np.random.Generator) -> tuple[Pixels, dict[str, Any]]:
        """uint8 (H, W, C), and the labels of each head: a function of the arguments alone. Raises ImageError."""
        settings = self.settings
        pixels, place = self.preprocess.read(encoded)
        if settings.color_jitter:
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            pixels = np.asarray(jittered(image, settings.color_jitter, rng)).reshape(self.shape)
        mirror, upside_down = rng.random() < settings.flip, rng.random() < settings.vertical_flip
        down, across = -1 if upside_down else 1, -1 if mirror else 1
        moved = dict(targets)
        for name in self.boxes:
            if targets[name] is not None:
                moved[name] = flipped(
                    _seen(targets[name], place, self.preprocess.size), self.preprocess.size, mirror, upside_down
                )
        for name in self.masks:
            if targets[name] is not None:
                moved[name] = placed(targets[name], place, self.preprocess.size)[::down, ::across]
        return np.ascontiguousarray(pixels[::down, ::across]), moved


def _seen(boxes: Any, place: Placement, size: tuple[int, int]) -> Target:
    """The boxes in input pixels, clipped to the input."""
    left, top = -place.shift_x / place.scale_x, -place.shift_y / place.scale_y
    window = (left, top, left + size[1] / place.scale_x, top + size[0] / place.scale_y)
    return seen_boxes(boxes, window, size)


def flipped(target: Target, size: tuple[int, int], mirror: bool, upside_down: bool) -> Target:
    """The boxes on the mirrored image of `size` (height, width)."""
    boxes = target.boxes.copy()
    if mirror:
        boxes[:, [0, 2]] = size[1] - boxes[:, [2, 0]]
    if upside_down:
        boxes[:, [1, 3]] = size[0] - boxes[:, [3, 1]]
    return Target(boxes, target.labels)


def placed(mask: Mask, place: Placement, size: tuple[int, int]) -> Mask:
    """The mask at the input's size (H, W): each pixel takes the class at its centre, IGNORED outside the image."""
    rows = (np.arange(size[0]) + 0.5 - place.shift_y) / place.scale_y
    columns = (np.arange(size[1]) + 0.5 - place.shift_x) / place.scale_x
    inside = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & ((columns >= 0) & (columns < mask.shape[1]))
    y = np.clip(rows.astype(np.int64), 0, mask.shape[0] - 1)
    x = np.clip(columns.astype(np.int64), 0, mask.shape[1] - 1)
    return np.where(inside, mask[y[:, None], x], np.uint8(IGNORED))

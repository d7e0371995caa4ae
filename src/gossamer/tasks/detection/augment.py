"""From an encoded image and its boxes to the network's pixels and the boxes on them, at random, for training."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from gossamer.data.boxes.annotation import BoxTarget
from gossamer.errors import ImageError, SettingsError
from gossamer.images.decode import decode_to
from gossamer.images.preprocess import RESAMPLING, Preprocess
from gossamer.predictions.boxes import pairwise_iou
from gossamer.tasks.detection.match import IGNORED, Target

Pixels = NDArray[np.uint8]
Size = tuple[int, int]  # (height, width)
CropWindow = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the image; may reach beyond it

# Liu et al. 2016, SSD (1512.02325), section 2.2: a crop overlaps some object by one of these, by anything, or is all
OVERLAPS = (None, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
CROP_SIDE = (0.3, 1.0)  # of the authors' code; the paper has 0.1 to 1 of the area
CROP_RATIO = 2.0  # there: at most so much longer than wide, or wider than long
CROP_ATTEMPTS = 50  # there
EXPANSION = 4.0  # there, section 3.6: at most so many times each side ("zoom out")
HUE = 18 / 360  # of the circle; the authors' code
# where the four images meet, as a fraction of each side: Bochkovskiy et al. 2020, YOLOv4 (2004.10934)
MOSAIC = (0.3, 0.7)
LEAST_SIDE = 1.0  # input pixels of a box that is kept


Others = Callable[[np.random.Generator], tuple[bytes, BoxTarget]]
"""Draws another image of the training set with its boxes, for mosaics."""


class TrainBoxes:
    """Zoom-out, crop, flips and colours at random, as SSD has them, each with its probability.

    Zoom-out and crop choose a window, which may reach beyond the image; it alone is decoded and scaled, and what is
    outside the image has the mean colour. Boxes whose centre is in the window are clipped to it. jitter: colours
    change by up to this factor; 0 leaves them. mosaic: four images in one, three of them from `others`.
    Raises SettingsError for a mosaic without others.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        *,
        crop: float = 1.0,
        expand: float = 0.5,
        flip: float = 0.5,
        vertical_flip: float = 0.0,
        jitter: float = 0.5,
        mosaic: float = 0.0,
        others: Others | None = None,
    ) -> None:
        if mosaic and others is None:
            raise SettingsError("mosaic without other images", "a function that draws them", "give others")
        self.preprocess, self.crop, self.expand, self.jitter = preprocess, crop, expand, jitter
        self.flip, self.vertical_flip = flip, vertical_flip
        self.mosaic, self.others = mosaic, others
        self.fill = tuple(min(255, max(0, round(255 * value))) for value in preprocess.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.preprocess.size, self.preprocess.channels)

    def joint(self, encoded: bytes, annotation: BoxTarget, rng: np.random.Generator) -> tuple[Pixels, Target]:
        """uint8 (H, W, C) and the boxes in its pixels: a function of the arguments alone. Raises ImageError."""
        if self.others is not None and self.mosaic > 0 and rng.random() < self.mosaic:
            image, target = self._four(encoded, annotation, rng, self.others)
        else:
            image, target = self._one(encoded, annotation, self.preprocess.size, rng)
        if self.jitter:
            image = recoloured(image, self.jitter, rng)
        pixels: Pixels = np.asarray(image).reshape(self.shape)
        boxes = target.boxes.copy()
        if rng.random() < self.flip:
            pixels = pixels[:, ::-1]
            boxes[:, [0, 2]] = self.shape[1] - boxes[:, [2, 0]]
        if rng.random() < self.vertical_flip:
            pixels = pixels[::-1]
            boxes[:, [1, 3]] = self.shape[0] - boxes[:, [3, 1]]
        return np.ascontiguousarray(pixels), Target(boxes, target.labels)

    def _four(
        self, encoded: bytes, annotation: BoxTarget, rng: np.random.Generator, others: Others
    ) -> tuple[Image.Image, Target]:
        """Four images around a point; one that cannot be read is replaced by the first."""
        height, width = self.preprocess.size
        y, x = (round(side * rng.uniform(*MOSAIC)) for side in (height, width))
        page, targets = self._page((height, width)), []
        for index, (top, bottom) in enumerate(((0, y), (0, y), (y, height), (y, height))):
            left, right = (0, x) if index % 2 == 0 else (x, width)
            source = (encoded, annotation) if index == 0 else others(rng)
            try:
                image, target = self._one(*source, (bottom - top, right - left), rng)
            except ImageError:
                if index == 0:
                    raise
                image, target = self._one(encoded, annotation, (bottom - top, right - left), rng)
            page.paste(image, (left, top))
            targets.append(Target(target.boxes + np.array([left, top] * 2, np.float32), target.labels))
        boxes, labels = (np.concatenate(parts) for parts in zip(*targets))
        return page, Target(boxes, labels)

    def _one(
        self, encoded: bytes, annotation: BoxTarget, target: Size, rng: np.random.Generator
    ) -> tuple[Image.Image, Target]:
        """A window of one image at the size `target`."""
        p, chosen = self.preprocess, dict[Size, CropWindow]()

        def needed(size: Size) -> Size:  # called with the size in the header, before anything is decoded
            window = chosen[size] = self._window(size, annotation, rng)
            down, across = target[0] / (window[3] - window[1]), target[1] / (window[2] - window[0])
            return math.ceil(size[0] * down), math.ceil(size[1] * across)

        image, filled = decode_to(encoded, p.channels, needed, p.pixel_limit, "")
        if not chosen:  # no JPEG: decoded as it is
            needed((image.height, image.width))
        size, window = chosen.popitem()
        return self._seen(image, filled, size, window, target), seen_boxes(annotation, window, target)

    def _window(self, size: Size, annotation: BoxTarget, rng: np.random.Generator) -> CropWindow:
        height, width = size
        left, top, right, bottom = 0.0, 0.0, float(width), float(height)
        if rng.random() < self.expand:
            larger = rng.uniform(1, EXPANSION) - 1
            left, top = -rng.uniform(0, width * larger), -rng.uniform(0, height * larger)
            right, bottom = left + width * (1 + larger), top + height * (1 + larger)
        full = (left, top, right, bottom)
        return crop_window(full, annotation, rng) if rng.random() < self.crop else full

    def _seen(
        self, image: Image.Image, filled: CropWindow, size: Size, window: CropWindow, target: Size
    ) -> Image.Image:
        """The window of an image of `size`, which fills the box `filled` of `image`, at the size `target`."""
        (height, width), (down, across) = size, target
        per_x, per_y = (window[2] - window[0]) / across, (window[3] - window[1]) / down
        x0, x1 = (round(min(max(-window[0] + edge, 0), across * per_x) / per_x) for edge in (0, width))
        y0, y1 = (round(min(max(-window[1] + edge, 0), down * per_y) / per_y) for edge in (0, height))
        page = self._page(target)
        if x1 > x0 and y1 > y0:
            scale_x, scale_y = (filled[2] - filled[0]) / width, (filled[3] - filled[1]) / height
            box = (
                filled[0] + min(max(window[0] + x0 * per_x, 0), width) * scale_x,
                filled[1] + min(max(window[1] + y0 * per_y, 0), height) * scale_y,
                filled[0] + min(max(window[0] + x1 * per_x, 0), width) * scale_x,
                filled[1] + min(max(window[1] + y1 * per_y, 0), height) * scale_y,
            )
            page.paste(image.resize((x1 - x0, y1 - y0), RESAMPLING[self.preprocess.interpolation], box), (x0, y0))
        return page

    def _page(self, size: Size) -> Image.Image:
        """An empty image in the mean colour, which is zero for the network."""
        if self.preprocess.channels == 1:
            return Image.new("L", size[::-1], self.fill[0])
        return Image.new("RGB", size[::-1], self.fill)


def crop_window(full: CropWindow, annotation: BoxTarget, rng: np.random.Generator) -> CropWindow:
    """A part of `full` that overlaps an object by a random fraction at least, and holds its centre; else the `full` window."""
    overlap = OVERLAPS[int(rng.integers(len(OVERLAPS)))]
    if overlap is None:
        return full
    objects = annotation.corners[~annotation.crowd].astype(np.float64)
    width, height = full[2] - full[0], full[3] - full[1]
    for _ in range(CROP_ATTEMPTS):
        across, down = width * rng.uniform(*CROP_SIDE), height * rng.uniform(*CROP_SIDE)
        left, top = full[0] + rng.uniform(0, width - across), full[1] + rng.uniform(0, height - down)
        if not 1 / CROP_RATIO <= across / down <= CROP_RATIO:
            continue
        window = (left, top, left + across, top + down)
        held = objects[_centred(objects, window)]
        if not len(objects) or (len(held) and pairwise_iou(held, np.array([window])).max() >= overlap):
            return window
    return full


def seen_boxes(annotation: BoxTarget, window: CropWindow, target: Size) -> Target:
    """The boxes in pixels of the window at the size `target`, clipped to it.

    Objects stay where their centre is in the window and a pixel a side is left; crowds where anything is.
    """
    left, top, right, bottom = window
    scale = np.array([target[1] / (right - left), target[0] / (bottom - top)] * 2)
    moved = (annotation.corners - np.array([left, top] * 2)) * scale
    boxes = np.clip(moved, 0, np.array([target[1], target[0]] * 2)).astype(np.float32)
    large = (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(axis=1)
    stay = large & (annotation.crowd | _centred(annotation.corners, window))
    return Target(boxes[stay], _labels(annotation)[stay])


def recoloured(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast, saturation and hue, each changed in half of the cases: SSD's photometric distortion.

    The first three by a factor of 1 - strength to 1 + strength, in a random order; the hue turns by up to HUE.
    """
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for index in rng.permutation(len(kinds)).tolist():
        if rng.random() < 0.5:
            image = kinds[index](image).enhance(rng.uniform(1 - strength, 1 + strength))
    if rng.random() < 0.5 and image.mode == "RGB":
        turn = round(256 * rng.uniform(-HUE, HUE))
        hue, saturation, value = image.convert("HSV").split()
        hue = hue.point([(old + turn) % 256 for old in range(256)])
        image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    return image


def _centred(corners: NDArray[np.floating], window: CropWindow) -> NDArray[np.bool_]:
    """Which boxes (n, 4) have their centre in the window: (n,)."""
    centres = (corners[:, :2] + corners[:, 2:]) / 2
    inside = (centres >= window[:2]) & (centres <= window[2:])
    return np.asarray(inside.all(axis=1), np.bool_)


def _labels(annotation: BoxTarget) -> NDArray[np.int64]:
    return np.where(annotation.crowd, IGNORED, annotation.labels).astype(np.int64)

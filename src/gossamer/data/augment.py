"""From an encoded image to uint8 pixels for the network: random for training, as in deployment for evaluation.

A transform has two halves: `prepare` is the same every time, so a cache may keep its result; `vary` draws from the
sample's own generator. What follows, `Preprocess.normalise`, is the trainer's.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from gossamer.data import randaugment
from gossamer.images.decode import decode_to
from gossamer.images.preprocess import RESAMPLING, Preprocess
from gossamer.settings import Settings

Pixels = NDArray[np.uint8]
ImageLike = bytes | Image.Image | Pixels
Size = tuple[int, int]  # (height, width)
Box = tuple[float, float, float, float]  # left, top, right, bottom, as Pillow has them

PADDING = 4 / 32  # of each side, on either side: He et al. 2016 (arXiv:1512.03385), section 4.2
CROP_ATTEMPTS = 10  # Szegedy et al. 2015 (arXiv:1409.4842) name none; torchvision draws ten times
SHRUNK = 8 / 7  # shorter side of what is kept for random crops, over the input's: 256 for 224
ERASED_AREA = (0.02, 0.4)  # Zhong et al. 2017 (arXiv:1708.04896), section 4.1: s_l, s_h
ERASED_RATIO = (0.3, 1 / 0.3)  # there: r_1, r_2


class Transform(Protocol):
    """From one image to uint8 (H, W, C)."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every result."""

    def __call__(self, source: ImageLike, rng: np.random.Generator) -> Pixels:
        """The result for an image without a cache. Raises ImageError."""

    def prepare(self, source: ImageLike) -> Pixels:
        """uint8 (h, w, C): what a cache may keep. Raises ImageError."""

    def vary(self, prepared: Pixels, rng: np.random.Generator) -> Pixels:
        """The result for a prepared image."""

    def key(self) -> dict[str, Any]:
        """Everything that decides what `prepare` gives."""


class EvalTransform:
    """Exactly the deployment preprocessing. The final pixels are what a cache keeps, so they are the same bit by bit."""

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.preprocess.size, self.preprocess.channels)

    def __call__(self, source: ImageLike, rng: np.random.Generator | None = None) -> Pixels:
        return self.preprocess.pixels(source)

    def prepare(self, source: ImageLike) -> Pixels:
        return self.preprocess.pixels(source)

    def vary(self, prepared: Pixels, rng: np.random.Generator | None = None) -> Pixels:
        return prepared

    def key(self) -> dict[str, Any]:
        p = self.preprocess
        return {
            "kind": "final",
            **{name: getattr(p, name) for name in ("size", "resize", "crop_pct", "interpolation", "channels")},
            "fill": p.mean if p.resize == "pad" else (),
            "pixel_limit": p.pixel_limit,
        }


class TrainTransform:
    """Crop, flips, RandAugment, colour jitter and random erasing, in this order, as `settings` say.

    settings.crop: "random_resized" takes a box of a random area and shape (Szegedy et al. 2015, arXiv:1409.4842,
    section 6) and scales it; a JPEG is decoded at the smallest DCT scale at which the box still covers the input.
    "padded" takes the deployment geometry, puts PADDING of the mean colour around it and crops at random. "center" is
    the deployment geometry. Draws depend on `rng` and the image's size alone.
    """

    def __init__(self, preprocess: Preprocess, settings: Settings) -> None:
        self.preprocess, self.settings = preprocess, settings
        self.crop = "random_resized" if settings.crop == "auto" else settings.crop
        self.fill = tuple(min(255, max(0, round(255 * value))) for value in preprocess.mean)
        self.method = RESAMPLING[preprocess.interpolation]

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.preprocess.size, self.preprocess.channels)

    def __call__(self, source: ImageLike, rng: np.random.Generator) -> Pixels:
        if self.crop != "random_resized" or not isinstance(source, bytes):
            return self.vary(self.prepare(source), rng)
        p, chosen = self.preprocess, dict[Size, Box]()

        def needed(size: Size) -> Size:  # called with the size in the header, before anything is decoded
            box = chosen[size] = self._box(size, rng)
            return _covering(size, box, p.size)

        image, filled = decode_to(source, p.channels, needed, p.pixel_limit, "")
        if not chosen:  # no JPEG: decoded as it is
            needed((image.height, image.width))
        size, box = chosen.popitem()
        across, down = (filled[2] - filled[0]) / size[1], (filled[3] - filled[1]) / size[0]
        left, top = filled[:2]
        scaled = (left + box[0] * across, top + box[1] * down, left + box[2] * across, top + box[3] * down)
        return self._finish(image.resize((p.size[1], p.size[0]), self.method, scaled), rng)

    def prepare(self, source: ImageLike) -> Pixels:
        """For random crops the image shrunk to a shorter side of SHRUNK times the input's longer one, or as it is
        where it is smaller already; else the deployment geometry."""
        p = self.preprocess
        if self.crop != "random_resized":
            return p.pixels(source)
        side = self._side()
        if isinstance(source, bytes):
            image, filled = decode_to(source, p.channels, lambda size: (side, side), p.pixel_limit, "")
        else:
            image = source if isinstance(source, Image.Image) else _image(source)
            filled = (0, 0, image.width, image.height)
        shorter = min(image.size)
        if shorter > side:
            width, height = (max(side, round(length * side / shorter)) for length in image.size)
            image = image.resize((width, height), self.method, filled)
        return np.asarray(image).reshape(image.height, image.width, p.channels)

    def vary(self, prepared: Pixels, rng: np.random.Generator) -> Pixels:
        p, crop = self.preprocess, self.crop
        if crop == "random_resized":
            box = self._box((prepared.shape[0], prepared.shape[1]), rng)
            return self._finish(_image(prepared).resize((p.size[1], p.size[0]), self.method, box), rng)
        return self._finish(self._shifted(prepared, rng) if crop == "padded" else prepared, rng)

    def key(self) -> dict[str, Any]:
        if self.crop != "random_resized":
            return EvalTransform(self.preprocess).key()
        p = self.preprocess
        return {
            "kind": "shrunk",
            "side": self._side(),
            "interpolation": p.interpolation,
            "channels": p.channels,
            "pixel_limit": p.pixel_limit,
        }

    def _side(self) -> int:
        return math.ceil(max(self.preprocess.size) * SHRUNK)

    def _box(self, size: Size, rng: np.random.Generator) -> Box:
        """A box of a random fraction of the area and a random shape; the largest centred one where ten do not fit."""
        height, width = size
        least, most = self.settings.crop_scale
        low, high = (math.log(ratio) for ratio in self.settings.crop_ratio)
        for _ in range(CROP_ATTEMPTS):
            area = height * width * rng.uniform(least, most)
            ratio = math.exp(rng.uniform(low, high))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                left, top = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
                return left, top, left + across, top + down
        ratio = min(max(width / height, math.exp(low)), math.exp(high))
        across, down = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
        left, top = (width - across) // 2, (height - down) // 2
        return left, top, left + across, top + down

    def _shifted(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """The crop of the padded image, without making the padded image."""
        height, width = pixels.shape[:2]
        most = round(height * PADDING), round(width * PADDING)
        down, right = int(rng.integers(-most[0], most[0] + 1)), int(rng.integers(-most[1], most[1] + 1))
        if not down and not right:
            return pixels
        result = np.empty_like(pixels)
        result[:] = self.fill
        result[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)] = pixels[
            max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)
        ]
        return result

    def _finish(self, source: Image.Image | Pixels, rng: np.random.Generator) -> Pixels:
        """The augmentation of the pixels, after resize and crop."""
        settings = self.settings
        mirror = settings.flip > 0 and rng.random() < settings.flip
        upside_down = settings.vertical_flip > 0 and rng.random() < settings.vertical_flip
        if settings.randaugment or settings.color_jitter:
            image = source if isinstance(source, Image.Image) else _image(source)
            if settings.randaugment:
                image = randaugment.apply(image, settings.randaugment, settings.randaugment_magnitude, self.fill, rng)
            source = jittered(image, settings.color_jitter, rng) if settings.color_jitter else image
        pixels: Pixels = np.asarray(source).reshape(self.shape)
        pixels = pixels[:: -1 if upside_down else 1, :: -1 if mirror else 1]
        if settings.random_erasing and rng.random() < settings.random_erasing:
            pixels = self._erased(pixels, rng)
        return pixels

    def _erased(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """A random rectangle in the mean colour, which is zero for the network."""
        height, width = pixels.shape[:2]
        low, high = (math.log(ratio) for ratio in ERASED_RATIO)
        for _ in range(CROP_ATTEMPTS):
            area = height * width * rng.uniform(*ERASED_AREA)
            ratio = math.exp(rng.uniform(low, high))
            down, across = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < down < height and 0 < across < width:
                top, left = int(rng.integers(height - down + 1)), int(rng.integers(width - across + 1))
                pixels = pixels.copy()
                pixels[top : top + down, left : left + across] = self.fill
                break
        return pixels


def _covering(size: Size, box: Box, target: Size) -> Size:
    """The smallest image (height, width) whose `box` still has `target` pixels."""
    height, width = size
    return math.ceil(height * target[0] / (box[3] - box[1])), math.ceil(width * target[1] / (box[2] - box[0]))


def _image(pixels: Pixels) -> Image.Image:
    """Pixels (H, W), (H, W, 1) or (H, W, 3) as an image."""
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def jittered(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation each times 1 - strength to 1 + strength, in a random order."""
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for index in rng.permutation(len(kinds)).tolist():
        image = kinds[index](image).enhance(rng.uniform(1 - strength, 1 + strength))
    return image

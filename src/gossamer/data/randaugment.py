"""RandAugment: N operations drawn from a list, all at one magnitude (Cubuk et al. 2019, arXiv:1909.13719, section 3).

The list is the paper's (figure 2). The ranges are AutoAugment's (Cubuk et al. 2018, arXiv:1805.09501, table 6) with
magnitude 0..30 mapped onto them, as in torchvision; an operation that has a direction takes either at random.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Colour = tuple[int, ...]
Op = Callable[[Image.Image, float, Colour], Image.Image]
MAGNITUDES = 30


def apply(image: Image.Image, count: int, magnitude: float, fill: Colour, rng: np.random.Generator) -> Image.Image:
    """`count` random operations on an RGB or L image. magnitude: 0..30. fill: colour of what moves into the image."""
    for _ in range(count):
        operation, most, signed = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
        sign = -1 if signed and rng.random() < 0.5 else 1
        image = operation(image, sign * most * magnitude / MAGNITUDES, fill)
    return image


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Colour) -> Image.Image:
    colour = fill if image.mode == "RGB" else fill[0]
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=colour)


def _rotate(image: Image.Image, degrees: float, fill: Colour) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=fill if image.mode == "RGB" else fill[0])


def _enhanced(kind: type) -> Op:
    def enhance(image: Image.Image, value: float, fill: Colour) -> Image.Image:
        result: Image.Image = kind(image).enhance(1 + value)
        return result

    return enhance


# name: (operation, its value at the full magnitude, whether the value takes either sign)
_ROWS: dict[str, tuple[Op, float, bool]] = {
    "identity": (lambda image, value, fill: image, 0, False),
    "autocontrast": (lambda image, value, fill: ImageOps.autocontrast(image), 0, False),
    "equalize": (lambda image, value, fill: ImageOps.equalize(image), 0, False),
    "rotate": (_rotate, 30, True),  # degrees
    "solarize": (lambda image, value, fill: ImageOps.solarize(image, round(256 - value)), 256, False),
    "color": (_enhanced(ImageEnhance.Color), 0.9, True),
    "posterize": (lambda image, value, fill: ImageOps.posterize(image, 8 - round(value)), 4, False),  # bits
    "contrast": (_enhanced(ImageEnhance.Contrast), 0.9, True),
    "brightness": (_enhanced(ImageEnhance.Brightness), 0.9, True),
    "sharpness": (_enhanced(ImageEnhance.Sharpness), 0.9, True),
    "shear_x": (
        lambda image, value, fill: _affine(image, (1, value, -value * image.height / 2, 0, 1, 0), fill),
        0.3,
        True,
    ),
    "shear_y": (
        lambda image, value, fill: _affine(image, (1, 0, 0, value, 1, -value * image.width / 2), fill),
        0.3,
        True,
    ),
    # 150 of AutoAugment's 331 pixels
    "translate_x": (
        lambda image, value, fill: _affine(image, (1, 0, value * image.width, 0, 1, 0), fill),
        150 / 331,
        True,
    ),
    "translate_y": (
        lambda image, value, fill: _affine(image, (1, 0, 0, 0, 1, value * image.height), fill),
        150 / 331,
        True,
    ),
}
NAMES = tuple(_ROWS)
OPERATIONS = tuple(_ROWS.values())

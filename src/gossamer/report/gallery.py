"""Photographs and heat maps as small data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 176  # pixels of the longer side: twice the size on the page, for fine screens
QUALITY = 82
# Dark violet through red to pale yellow: lightness rises all the way, so it reads in grey and to the colour-blind.
RAMP = np.array([(13, 8, 60), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)


@dataclass(frozen=True)
class Mistake:
    """One image the network got wrong; `photo` and `overlay` are data URIs, `peak` is (left, top) in 0..1.

    peak is where the Grad-CAM map is largest, None where the map is zero throughout.
    confidence: probability of `predicted`; truth: probability of `true`.
    """

    name: str
    true: int
    predicted: int
    confidence: float
    truth: float
    photo: str
    overlay: str
    peak: tuple[float, float] | None
    pixelated: bool


def mistake(
    name: str,
    pixels: NDArray[np.uint8],
    cam: NDArray[np.float32],
    true: int,
    predicted: int,
    chances: NDArray[np.float64],
) -> Mistake:
    """The gallery entry of one image. pixels: (H, W, C) as the network saw them; cam: (h, w); chances: (K,)."""
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    photo = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    # tiny images keep their pixels: smoothing would show detail that the network never saw
    filter = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    large = photo.resize((max(1, round(width * scale)), max(1, round(height * scale))), filter)
    peak = None
    if cam.size and np.isfinite(cam).all() and cam.max() > 0:
        row, column = np.unravel_index(int(cam.argmax()), cam.shape)
        peak = ((float(column) + 0.5) / cam.shape[1], (float(row) + 0.5) / cam.shape[0])
    shown = photo if scale > 1 else large
    return Mistake(
        name=name,
        true=true,
        predicted=predicted,
        confidence=float(chances[predicted]),
        truth=float(chances[true]),
        photo=data_uri(shown, "PNG" if scale > 1 else "JPEG"),
        overlay=data_uri(heat(large, cam), "JPEG"),
        peak=peak,
        pixelated=scale > 1,
    )


def heat(photo: Image.Image, cam: NDArray[np.float32]) -> Image.Image:
    """`photo`, greyed, under the map `cam` (h, w) scaled to its own largest value."""
    largest = float(cam.max()) if cam.size and np.isfinite(cam).all() else 0.0
    level = np.zeros((photo.height, photo.width), np.float32)
    if largest > 0:
        small = Image.fromarray((cam / largest).astype(np.float32))
        level = np.asarray(small.resize(photo.size, Image.Resampling.BICUBIC), np.float32).clip(0, 1)
    grey = np.asarray(photo.convert("L"), np.float32)[:, :, None].repeat(3, axis=2)
    opacity = 0.25 + 0.5 * level[:, :, None]
    mixed = (1 - opacity) * grey + opacity * colours(level)
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def colours(level: NDArray[np.float32]) -> NDArray[np.float32]:
    """RGB in 0..255 of levels in 0..1: (...,) -> (..., 3)."""
    stops = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(level, stops, RAMP[:, channel]) for channel in range(3)], axis=-1).astype(np.float32)


def data_uri(image: Image.Image, format: str) -> str:
    """The image inside a `data:` address."""
    file = io.BytesIO()
    if format == "JPEG":
        image.save(file, format, quality=QUALITY, optimize=True)
    else:
        image.save(file, format, optimize=True)
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"

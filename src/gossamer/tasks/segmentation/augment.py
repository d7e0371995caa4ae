"""One random geometry for an image and its mask: scale, crop, flip; then colours of the image alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gossamer.data.augment import jittered
from gossamer.errors import SettingsError
from gossamer.images.decode import decode_to
from gossamer.images.preprocess import REDUCE, RESAMPLING, Preprocess
from gossamer.predictions.masks import IGNORED, Mask

SCALE = (0.5, 2.0)  # DeepLabv3 (1706.05587), section 4.1


class SegmentTransform:
    """Random scale, crop to the input's size, flip and colour jitter, in this order.

    scale: range of the random factor, uniform, on top of the deployment geometry's own scale. An image that comes
    out smaller than the input is at a random place on a page of the mean colour, which no pixel of the mask counts.
    flip, vertical_flip: probability of a mirrored image, and of one that is upside down. color_jitter: see `gossamer.data.augment`. Raises SettingsError.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        *,
        scale: tuple[float, float] = SCALE,
        flip: float = 0.5,
        vertical_flip: float = 0.0,
        color_jitter: float = 0.0,
    ) -> None:
        if not 0.05 <= scale[0] <= scale[1] <= 20:
            raise SettingsError(f"scale {scale}", "two numbers from 0.05 to 20, the smaller first", "check the setting")
        self.preprocess, self.scale, self.color_jitter = preprocess, scale, color_jitter
        self.flip, self.vertical_flip = flip, vertical_flip
        self.fill = tuple(min(255, max(0, round(255 * value))) for value in preprocess.mean)
        self.method = RESAMPLING[preprocess.interpolation]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image; masks are (H, W)."""
        return (*self.preprocess.size, self.preprocess.channels)

    def joint(self, encoded: bytes, target: Mask, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Mask]:
        """uint8 (H, W, C), and the mask that belongs to it, uint8 (H, W). `target`: the mask of the full image.

        The mask keeps its values: each pixel takes the nearest one. Raises ImageError.
        """
        p = self.preprocess
        place = p.place(*target.shape)
        factor = rng.uniform(*self.scale)
        down = max(1, round(target.shape[0] * place.scale_y * factor))
        across = max(1, round(target.shape[1] * place.scale_x * factor))
        top, left = _offset(down, p.size[0], rng), _offset(across, p.size[1], rng)
        image, filled = decode_to(encoded, p.channels, lambda size: (REDUCE * down, REDUCE * across), p.pixel_limit, "")
        # the part of the scaled image that is seen, and where it is on the page
        rows = slice(max(0, -top), min(p.size[0], down - top))
        columns = slice(max(0, -left), min(p.size[1], across - left))
        seen = (columns.stop - columns.start, rows.stop - rows.start)
        box = np.array([left + columns.start, top + rows.start, left + columns.stop, top + rows.stop], float)
        page = Image.new(image.mode, p.size[::-1], self.fill if p.channels == 3 else self.fill[0])
        within = _inside(box, (across, down), filled)
        part = image.resize(seen, self.method, within)
        part = jittered(part, self.color_jitter, rng) if self.color_jitter else part  # the page stays the mean colour
        page.paste(part, (columns.start, rows.start))
        cropped = np.full(p.size, IGNORED, np.uint8)
        mask = Image.fromarray(target)
        within = _inside(box, (across, down), (0, 0, *mask.size))
        cropped[rows, columns] = np.asarray(mask.resize(seen, Image.Resampling.NEAREST, within))
        mirror = self.flip > 0 and rng.random() < self.flip
        turn = self.vertical_flip > 0 and rng.random() < self.vertical_flip
        pixels, order = np.asarray(page).reshape(self.shape), (-1 if turn else 1, -1 if mirror else 1)
        return pixels[:: order[0], :: order[1]], cropped[:: order[0], :: order[1]]


def _offset(length: int, side: int, rng: np.random.Generator) -> int:
    """Where the input begins in the scaled image; below 0 where that is smaller."""
    low, high = min(0, length - side), max(0, length - side)
    return int(rng.integers(low, high + 1))


def _inside(
    box: NDArray[np.float64], size: tuple[int, int], filled: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """`box` of an image of `size` (width, height) as a box of the image that fills the box `filled`."""
    per_x, per_y = (filled[2] - filled[0]) / size[0], (filled[3] - filled[1]) / size[1]
    left, top = max(filled[0], filled[0] + box[0] * per_x), max(filled[1], filled[1] + box[1] * per_y)
    return left, top, min(filled[2], filled[0] + box[2] * per_x), min(filled[3], filled[1] + box[3] * per_y)

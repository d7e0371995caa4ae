"""From a segmentation network's logits to a mask of the image's own size, and to an image of it.

Up-sampling is bilinear with half-pixel centres, as torch's `interpolate(align_corners=False)` and ONNX's
`half_pixel`, straight from the head's resolution to the image's. It is done along one axis after the other, a few
rows at a time, so that there is no array of all classes at full size.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import ImageError, SettingsError
from gossamer.images.preprocess import Placement

Size = tuple[int, int]  # (height, width)
Mask = NDArray[np.uint8]
Logits = NDArray[np.float32]

IGNORED = 255
"""The value of pixels that have no class."""
CHUNK = 1 << 16  # values of one plane worked on at a time: 256 KiB, which stays in a core's cache


def mask_of_logits(logits: Logits, size: Size, input_size: Size, placement: Placement | None = None) -> Mask:
    """The likeliest class of each pixel of the image; the first of equals: (K, h, w) -> uint8 (H, W), size (H, W).

    input_size: (height, width) of the network's input, which the map of h x w covers. placement: where the image
    is in the input; by default it fills it. Raises SettingsError for more than 255 classes.
    """
    check_classes(len(logits))
    mask = np.zeros(size, np.uint8)
    for rows, planes in _planes(logits, size, input_size, placement):
        best = next(planes)
        part = mask[rows]
        for number, plane in enumerate(planes, start=1):
            np.copyto(part, np.uint8(number), where=plane > best)
            np.maximum(best, plane, out=best)
    return mask


def upsample(logits: Logits, size: Size, input_size: Size, placement: Placement | None = None) -> Logits:
    """The logits at the image's size: (K, h, w) -> float32 (K, H, W), the reference of `mask_of_logits`, whose arguments it
    has."""
    result = np.empty((len(logits), *size), np.float32)
    for rows, planes in _planes(logits, size, input_size, placement):
        for number, plane in enumerate(planes):
            result[number, rows] = plane
    return result


def _planes(
    logits: Logits, size: Size, input_size: Size, placement: Placement | None
) -> Iterator[tuple[slice, Iterator[NDArray[np.float32]]]]:
    """A few rows at a time: which, and for each class its plane of them, (rows, W), computed on demand."""
    height, width = size
    place = placement or Placement(height, width, input_size[0] / height, input_size[1] / width)
    above, below, down = _neighbours(height, logits.shape[1], input_size[0], place.scale_y, place.shift_y)
    left, right, along = _neighbours(width, logits.shape[2], input_size[1], place.scale_x, place.shift_x)
    values = np.asarray(logits, np.float32)
    wide = values[:, :, left]  # (K, h, W): few rows, so this is the cheap axis to go first
    wide += (values[:, :, right] - wide) * along
    count = max(1, CHUNK // width)
    for start in range(0, height, count):
        rows = slice(start, min(start + count, height))
        yield rows, _between(wide, above[rows], below[rows], down[rows, None])


def _between(
    wide: Logits, above: NDArray[np.int64], below: NDArray[np.int64], weight: NDArray[np.float32]
) -> Iterator[NDArray[np.float32]]:
    for plane in wide:
        upper = plane[above]
        lower = plane[below]
        lower -= upper
        lower *= weight
        upper += lower
        yield upper


def _neighbours(
    count: int, cells: int, input_side: int, scale: float, shift: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of `count` pixels the cells of the map before and behind its centre, and the weight of the latter."""
    centres = (np.arange(count) + 0.5) * scale + shift
    places = np.clip(centres * (cells / input_side) - 0.5, 0, cells - 1)
    first = places.astype(np.int64)
    return first, np.minimum(first + 1, cells - 1), (places - first).astype(np.float32)


def check_classes(count: int) -> None:
    """Raises SettingsError where `count` classes do not fit into a mask of bytes."""
    if not 1 <= count <= IGNORED:
        raise SettingsError(f"{count} classes", f"1 to {IGNORED} classes in a mask of bytes", "merge some classes")


def palette(count: int) -> NDArray[np.uint8]:
    """Distinct colours of `count` classes, uint8 (count, 3); that of a class is the same whatever the count.

    The bits of the class number, lowest first, are dealt to red, green and blue from their highest bit down, as
    PASCAL VOC's development kit colours its masks; one number further on, so that no class is black.
    """
    check_classes(count)
    numbers = np.arange(1, count + 1)
    colours = np.zeros((count, 3), np.int64)
    for bit in range(8):
        channel, place = bit % 3, 7 - bit // 3
        colours[:, channel] |= (numbers >> bit & 1) << place
    return colours.astype(np.uint8)


def overlay(
    image: NDArray[np.uint8], mask: Mask, alpha: float = 0.5, colours: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The image with each class laid over it in its colour with the opacity `alpha`: uint8 (H, W, 3).

    image: (H, W, 3), (H, W, 1) or (H, W). mask: (H, W); ignored pixels stay as they are. colours: (K, 3), default
    `palette`. Raises ImageError where the sizes differ.
    """
    grey = image[..., None] if image.ndim == 2 else image
    if grey.shape[:2] != mask.shape:
        raise ImageError(f"a mask of {mask.shape} on an image of {grey.shape[:2]}", "equal sizes", "use its own mask")
    base = np.broadcast_to(grey, (*mask.shape, 3)).astype(np.float32)
    table = np.zeros((256, 3), np.float32)
    table_of_classes = palette(IGNORED) if colours is None else colours
    table[: len(table_of_classes)] = table_of_classes
    opacity = np.where(mask == IGNORED, 0, alpha).astype(np.float32)[..., None]
    return np.asarray(np.rint(base * (1 - opacity) + table[mask] * opacity), np.uint8)

"""From a segmentation network's logits to a mask of the picture's own size, and to a picture of it.

Up-sampling is bilinear with half-pixel centres, as torch's `interpolate(align_corners=False)` and ONNX's
`half_pixel`, straight from the head's resolution to the picture's. It is done along one axis after the other, a few
rows at a time, so that no array of all classes at full size is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import ImageError, SettingsError
from gossamer.images.preprocess import Placement

Size = tuple[int, int]  # (height, width)
Mask = NDArray[np.uint8]
Logits = NDArray[np.float32]
Run = Callable[[NDArray[np.uint8]], Logits]

IGNORED = 255
"""The value of pixels that have no class."""
CHUNK = 1 << 16  # values of one plane worked on at a time: 256 KiB, which stays in a core's cache


def mask_of_logits(logits: Logits, size: Size, input_size: Size, placement: Placement | None = None) -> Mask:
    """The likeliest class of each pixel of the picture; the first of equals: (K, h, w) -> uint8 (H, W), size (H, W).

    input_size: (height, width) of the network's input, which the map of h x w covers. placement: where the picture
    lies in the input; by default it fills it. Raises SettingsError for more than 255 classes.
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
    """The logits at the picture's size: (K, h, w) -> float32 (K, H, W). Arguments as in `mask_of_logits`."""
    result = np.empty((len(logits), *size), np.float32)
    for rows, planes in _planes(logits, size, input_size, placement):
        for number, plane in enumerate(planes):
            result[number, rows] = plane
    return result


def _planes(
    logits: Logits, size: Size, input_size: Size, placement: Placement | None
) -> Iterator[tuple[slice, Iterator[NDArray[np.float32]]]]:
    """A few rows at a time: which, and for each class its plane of them, (rows, W), made on demand."""
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
    wide: Logits, above: NDArray[np.int64], below: NDArray[np.int64], share: NDArray[np.float32]
) -> Iterator[NDArray[np.float32]]:
    for plane in wide:
        upper = plane[above]
        lower = plane[below]
        lower -= upper
        lower *= share
        upper += lower
        yield upper


def _neighbours(
    count: int, cells: int, input_side: int, scale: float, shift: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of `count` pixels the cells of the map before and behind its centre, and the share of the latter."""
    centres = (np.arange(count) + 0.5) * scale + shift
    places = np.clip(centres * (cells / input_side) - 0.5, 0, cells - 1)
    first = places.astype(np.int64)
    return first, np.minimum(first + 1, cells - 1), (places - first).astype(np.float32)


def sliding_window(
    run: Run, picture: NDArray[np.uint8], size: Size, overlap: float = 0.5, fill: tuple[int, ...] = (0, 0, 0)
) -> Mask:
    """The mask of a picture larger than the network's input, from windows of `size` at the picture's own scale.

    run: uint8 (height, width, C) of `size` -> logits (K, h, w). picture: uint8 (H, W, C). overlap: the least share of
    a window that the next one sees again, 0 to 0.9; where windows overlap, the mean of their logits counts. fill: a
    colour for what a smaller picture leaves empty. Memory grows with the picture's width, not with its height.
    Raises SettingsError, ImageError for an empty picture.
    """
    if not 0 <= overlap <= 0.9:
        raise SettingsError(f"overlap: {overlap!r}", "0 to 0.9", "fix the argument")
    if picture.ndim != 3 or not picture.size:
        raise ImageError(f"a picture of shape {picture.shape}", "(H, W, C), none of them 0", "give one picture")
    height, width = picture.shape[:2]
    tops, lefts = _starts(height, size[0], overlap), _starts(width, size[1], overlap)
    mask = np.empty((height, width), np.uint8)
    band: Logits | None = None
    for top, following in zip(tops, [*tops[1:], height]):
        for left in lefts:
            window = picture[top : top + size[0], left : left + size[1]]
            h, w = window.shape[:2]
            logits = upsample(run(_filled(window, size, fill)), size, size)[:, :h, :w]
            if band is None:
                check_classes(len(logits))
                band = np.zeros((len(logits), min(size[0], height), width), np.float32)
                seen = np.zeros((min(size[0], height), width), np.float32)
            band[:, :h, left : left + w] += logits
            seen[:h, left : left + w] += 1
        assert band is not None
        done = min(following - top, len(seen))  # no later window sees these rows
        mask[top : top + done] = (band[:, :done] / seen[:done]).argmax(axis=0)
        band = np.concatenate([band[:, done:], np.zeros_like(band[:, :done])], axis=1)
        seen = np.concatenate([seen[done:], np.zeros_like(seen[:done])])
    return mask


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows start, evenly spread from one end to the other."""
    if length <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // step) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def _filled(window: NDArray[np.uint8], size: Size, fill: tuple[int, ...]) -> NDArray[np.uint8]:
    """`window` at the upper left of a page of `size`."""
    if window.shape[:2] == size:
        return window
    page = np.empty((*size, window.shape[2]), np.uint8)
    page[:] = fill[: window.shape[2]]
    page[: window.shape[0], : window.shape[1]] = window
    return page


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
    picture: NDArray[np.uint8], mask: Mask, alpha: float = 0.5, colours: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The picture with each class laid over it in its colour at the share `alpha`: uint8 (H, W, 3).

    picture: (H, W, 3), (H, W, 1) or (H, W). mask: (H, W); ignored pixels stay as they are. colours: (K, 3), default
    `palette`. Raises ImageError where the sizes differ.
    """
    grey = picture[..., None] if picture.ndim == 2 else picture
    if grey.shape[:2] != mask.shape:
        raise ImageError(f"a mask of {mask.shape} on a picture of {grey.shape[:2]}", "equal sizes", "use its own mask")
    base = np.broadcast_to(grey, (*mask.shape, 3)).astype(np.float32)
    table = np.zeros((256, 3), np.float32)
    table_of_classes = palette(IGNORED) if colours is None else colours
    table[: len(table_of_classes)] = table_of_classes
    share = np.where(mask == IGNORED, 0, alpha).astype(np.float32)[..., None]
    return np.asarray(np.rint(base * (1 - share) + table[mask] * share), np.uint8)

"""COCO's run lengths of a mask: counts of 0 and 1 in turn, down the columns, as a list or as text.

pycocotools, common/maskApi.c: rleFrString (six bits a character, from 48, the sixth says that more follow; from the
fourth count on, the difference to the count before the last).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.images.preprocess import PIXEL_LIMIT, SIDE_LIMIT


def rle_mask(value: Any) -> NDArray[np.bool_] | None:
    """The mask (height, width) of {"size": [height, width], "counts": ...}; None where it is none."""
    if not isinstance(value, dict):
        return None
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int for side in size):
        return None
    height, width = size
    if not (1 <= height <= SIDE_LIMIT and 1 <= width <= SIDE_LIMIT and height * width <= PIXEL_LIMIT):
        return None
    runs = _from_text(counts, height * width) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and 0 <= run <= height * width for run in runs):
        return None
    if sum(runs) != height * width:
        return None
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, np.array(runs, np.int64))
    return bits.reshape(width, height).T


def rle_box(value: Any) -> list[float] | None:
    """x, y, width, height around the ones of a mask; None where there are none."""
    mask = rle_mask(value)
    if mask is None or not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = float(columns[0]), float(rows[0])
    return [x, y, float(columns[-1]) + 1 - x, float(rows[-1]) + 1 - y]


def _from_text(text: str, pixels: int) -> list[int] | None:
    runs: list[int] = []
    at = 0
    while at < len(text):
        run, shift, more = 0, 0, True
        while more:
            if at >= len(text) or shift > 60:
                return None
            code = ord(text[at]) - 48
            if not 0 <= code < 64:
                return None
            run |= (code & 31) << shift
            more = bool(code & 32)
            at, shift = at + 1, shift + 5
            if not more and code & 16:
                run |= -1 << shift
        run += runs[-2] if len(runs) > 2 else 0
        if not 0 <= run <= pixels:
            return None
        runs.append(run)
    return runs

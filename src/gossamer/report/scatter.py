"""What was said against what is true, a dot an image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.report.figures import WIDTH
from gossamer.report.formats import significant, tick
from gossamer.report.svg import Scale, drawing, tag, text, ticks

DOTS = 1000  # at most, evenly of all: more are a blot, and megabytes
LEFT, RIGHT, TOP, HEIGHT = 50, WIDTH - 12, 10, 300


def scatter(name: str, truth: NDArray[np.floating[Any]], said: NDArray[np.floating[Any]]) -> str:
    """Said (n,) over true (n,) on equal axes, with the line where they are the same; what is not finite is left out."""
    fine = np.isfinite(truth) & np.isfinite(said)
    truth, said = truth[fine].astype(float), said[fine].astype(float)
    if not len(truth):
        return drawing(WIDTH, 60, f"{name}: no numbers to draw.", text("no numbers to draw", 46, 34, class_="soft"))
    low, high = float(min(truth.min(), said.min())), float(max(truth.max(), said.max()))
    pad = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    x, y = Scale(low - pad, high + pad, LEFT, RIGHT), Scale(low - pad, high + pad, HEIGHT - 40, TOP)
    parts = []
    for value in ticks(x.low, x.high):
        parts.append(tag("line", x1=LEFT, x2=RIGHT, y1=y(value), y2=y(value), class_="grid"))
        parts.append(text(tick(value), LEFT - 6, y(value) + 4, text_anchor="end"))
        parts.append(text(tick(value), x(value), HEIGHT - 24, text_anchor="middle"))
    parts.append(tag("line", x1=x(x.low), y1=y(y.low), x2=x(x.high), y2=y(y.high), class_="rule dashed"))
    for index in range(0, len(truth), math.ceil(len(truth) / DOTS)):
        a, b = x(float(truth[index])), y(float(said[index]))
        parts.append(tag("circle", cx=a, cy=b, r=3, class_="fill a", fill_opacity=0.5))
    parts.append(text("said", LEFT + 6, TOP + 12, class_="soft halo"))
    parts.append(text("true", RIGHT, HEIGHT - 6, class_="soft", text_anchor="end"))
    error = float(np.abs(said - truth).mean())
    label = f"{name}: what was said of {len(truth)} images against what is true, {significant(error)} apart on average"
    return drawing(WIDTH, HEIGHT, f"{label}.", *parts)

"""Confusion matrices: boxes with counts for few classes, one image for many."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gossamer.charts.svg import WIDTH, Markup, Scale, chart, element, label, ticks, tooltip
from gossamer.host import text

COUNTED = 12  # up to so many classes the cells of the matrix carry their counts
NAMED = 32  # up to so many classes its rows and columns carry names
MARKED = 20  # about so many of its classes are named
PIXELS = 250  # cells along a side, at most, of a matrix drawn as pixels


def confusion_chart(
    confusion: NDArray[np.int64], classes: Sequence[str], counted: str = "images", *, percent: bool = False
) -> Markup:
    """The confusion matrix: rows are true classes, columns predicted ones, opacity grows with the fraction of the row.

    counted: what the numbers count. percent: the cells carry the percentage of their row in place of the count.
    """
    size = len(classes)
    support = confusion.sum(axis=1, keepdims=True)
    fractions = confusion / np.maximum(support, 1)
    right, total = int(np.trace(confusion)), int(confusion.sum())
    description = f"Confusion matrix of {text.counted(size, 'class')}: {right} of {total} {counted} on the diagonal."
    if size <= COUNTED:
        rows = (
            f"{name}: {int(row[k])} of {int(row.sum())} right" for k, (name, row) in enumerate(zip(classes, confusion))
        )
        description += " " + "; ".join(rows) + "."
    if size > NAMED:
        return _pixel_matrix(fractions, classes, description)
    longest = max(len(text.truncated(name, 12)) for name in classes)
    level = size <= 3 and 7 * longest <= 56  # few short names: the columns are named without turning the text
    left, top = max(7.0 * longest + 10, 34), 38.0 if level else 7.0 * longest + 24
    cell = 56.0 if size <= 3 else (WIDTH - left - 4) / size if size <= COUNTED else 20.0
    parts = [
        label("predicted", left, 11, class_="soft"),
        label("true", left - 6, 11, class_="soft", text_anchor="end"),
    ]
    for k, name in enumerate(classes):
        shown = text.truncated(name, 12)
        middle = (k + 0.5) * cell
        parts.append(label(shown, left - 6, top + middle + 4, text_anchor="end"))
        if level:
            parts.append(label(shown, left + middle, top - 6, text_anchor="middle"))
        else:
            parts.append(label(shown, 0, 0, transform=f"translate({left + middle + 4:.1f} {top - 6:.1f}) rotate(-90)"))
    for i in range(size):
        for j in range(size):
            parts.append(_cell(confusion, fractions, i, j, left + j * cell, top + i * cell, cell, classes, percent))
    return chart(max(WIDTH, left + size * cell + 4), top + size * cell + 4, description, *parts)


def _cell(
    confusion: NDArray[np.int64],
    fractions: NDArray[np.float64],
    i: int,
    j: int,
    x: float,
    y: float,
    cell: float,
    classes: Sequence[str],
    percent: bool,
) -> Markup:
    cell_count, fraction = int(confusion[i, j]), float(fractions[i, j])
    box = element("rect", x=x, y=y, width=cell - 1.5, height=cell - 1.5, class_="empty")
    if not cell_count:
        return box
    strength = _strength(fraction)
    note = tooltip(f"{classes[i]} predicted as {classes[j]}: {cell_count} ({text.percent(fraction)})")
    colour = "a" if i == j else "b"
    parts = [
        note,
        box,
        element("rect", x=x, y=y, width=cell - 1.5, height=cell - 1.5, class_=f"fill {colour}", fill_opacity=strength),
    ]
    if len(confusion) <= COUNTED:
        shown = text.grouped(cell_count) if cell_count < 10_000 else text.si_number(cell_count, 2)
        if percent:
            shown = text.points(fraction, 0 if 0.095 <= fraction < 0.995 or fraction == 1 else 1)
        over = "on" if strength > 0.6 else ""
        small = " small" if len(shown) * 7 > cell - 4 else ""
        parts.append(
            label(
                shown,
                x + cell / 2 - 0.75,
                y + cell / 2 + 3.5,
                text_anchor="middle",
                class_=(over + small).strip() or None,
            )
        )
    return element("g", *parts)


def _strength(fraction: float) -> float:
    """Opacity by the square root of the fraction: a mistake of 1 % is still seen."""
    return 0.0 if fraction <= 0 else 0.1 + 0.9 * math.sqrt(fraction)


def _pixel_matrix(fractions: NDArray[np.float64], classes: Sequence[str], description: str) -> Markup:
    """A matrix too fine for boxes: one image for the diagonal's colour, one for that of the mistakes; some classes are named."""
    size = len(fractions)
    marked = [int(value) for value in ticks(0, size, MARKED) if value < size and value == round(value)]
    longest = max(len(text.truncated(classes[index], 12)) for index in marked)
    left, top, side = max(7.0 * longest + 10, 40), 7.0 * longest + 24, 560.0
    diagonal = np.diag(np.diag(fractions))
    # the page colours the two masks, so the matrix follows its dark and its print colours
    scale = Scale(0, size, 0, side)
    parts = [
        label("predicted", left, 11, class_="soft"),
        label("true", left - 6, 11, class_="soft", text_anchor="end"),
        element("rect", x=left, y=top, width=side, height=side, class_="empty"),
    ]
    place = {"x": left, "y": top, "width": side, "height": side}
    for values, colour in ((diagonal, "a"), (fractions - diagonal, "b")):
        uri = _mask(values)
        name = f"matrix-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"  # a page may hold several matrices
        image = element("image", href=uri, **place, style="image-rendering:pixelated")
        parts.append(element("mask", image, id=name, maskUnits="userSpaceOnUse", **place))
        parts.append(element("rect", **place, class_=f"fill {colour}", mask=f"url(#{name})"))
    for index in marked:
        middle, shown = scale(index + 0.5), text.truncated(classes[index], 12)
        turned = f"translate({left + middle + 4:.1f} {top - 6:.1f}) rotate(-90)"
        parts.append(label(shown, 0, 0, transform=turned))
        parts.append(label(shown, left - 6, top + middle + 4, text_anchor="end"))
    return chart(left + side + 8, top + side + 4, description, *parts)


def _mask(fractions: NDArray[np.float64]) -> str:
    """A luminance mask: white where the fraction is 1. Above PIXELS cells a side, each pixel is the largest of a block."""
    block = -(-len(fractions) // PIXELS)
    if block > 1:
        padded = np.pad(fractions, (0, -len(fractions) % block))
        cells = len(padded) // block
        fractions = padded.reshape(cells, block, cells, block).max(axis=(1, 3))
    strength = np.where(fractions > 0, 0.1 + 0.9 * np.sqrt(fractions), 0)
    file = io.BytesIO()
    Image.fromarray((strength * 255).round().astype(np.uint8)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()

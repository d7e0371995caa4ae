"""The figures, drawn as SVG whose colours come from the page: crisp at any size, dark where the page is dark.

Classes set the colours: a, b, c are the first, second and third series, `on` is text on a filled cell.
Panels are 360 units wide, the width of a phone, so that their 12-unit text is read there as it is written here.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gossamer.report import formats
from gossamer.report.scores import Bin, Calibration, wilson
from gossamer.report.svg import Scale, drawing, tag, text, ticks, title

WIDTH = 360
NUMBERED = 12  # up to so many classes the cells of the matrix carry their counts
NAMED = 32  # up to so many classes its rows and columns carry names
PIXELS = 250  # cells along a side, at most, of a matrix drawn as pixels


@dataclass(frozen=True)
class Series:
    """One line of a chart: `name`, its points, and the class that colours it. Points that are not numbers are gaps."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: str

    def runs(self) -> list[list[tuple[float, float]]]:
        """The points, split at the gaps."""
        runs: list[list[tuple[float, float]]] = [[]]
        for x, y in zip(self.xs, self.ys):
            if math.isfinite(x) and math.isfinite(y):
                runs[-1].append((x, y))
            elif runs[-1]:
                runs.append([])
        return [run for run in runs if run]

    @property
    def last(self) -> float:
        """The last value that is a number, or nan."""
        runs = self.runs()
        return runs[-1][-1][1] if runs else math.nan


def curves(
    what: str,
    series: Sequence[Series],
    *,
    form: Callable[[float], str] = formats.tick,
    from_zero: bool = False,
    mark: tuple[float, float] | None = None,
) -> str:
    """Lines over epochs. form: the numbers on the y axis. mark: a point to be ringed."""
    points = [point for one in series for run in one.runs() for point in run]
    if not points:
        return drawing(WIDTH, 60, f"{what}: no numbers to draw.", text("no numbers to draw", 46, 34, class_="soft"))
    height = 200
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = (min(0.0, *ys) if from_zero else min(ys)), max(ys)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    across = (
        Scale(min(xs), max(xs), 50, WIDTH - 12) if max(xs) > min(xs) else Scale(xs[0] - 1, xs[0] + 1, 50, WIDTH - 12)
    )
    up = Scale(low if from_zero and low == 0 else low - pad, high + pad, height - 26, 8)
    parts = []
    for value in ticks(up.low, up.high):
        y = up(value)
        parts.append(tag("line", x1=50, x2=WIDTH - 12, y1=y, y2=y, class_="grid"))
        parts.append(text(form(value), 44, y + 4, text_anchor="end"))
    for value in ticks(min(xs), max(xs), 5):
        if value == round(value) or max(xs) - min(xs) < 1:
            parts.append(text(formats.tick(value), across(value), height - 8, text_anchor="middle"))
    for one in series:
        for run in one.runs():
            if len(run) > 1:
                path = "M" + "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in run)
                parts.append(tag("path", d=path, class_=f"line {one.colour}"))
            else:
                parts.append(tag("circle", cx=across(run[0][0]), cy=up(run[0][1]), r=3, class_=f"fill {one.colour}"))
    if mark and math.isfinite(mark[1]):
        parts.append(tag("circle", cx=across(mark[0]), cy=up(mark[1]), r=4.5, class_="ring"))
    said = "; ".join(_course(one, form) for one in series)
    return drawing(WIDTH, height, f"{what} by epoch. {said}.", *parts)


def _course(one: Series, form: Callable[[float], str]) -> str:
    ys = [y for run in one.runs() for _, y in run]
    if not ys:
        return f"{one.name}: no numbers"
    value = form if form is not formats.tick else formats.significant
    gaps = len(one.ys) - len(ys)
    gap = f", {gaps} epochs without a number" if gaps else ""
    return f"{one.name}: first {value(ys[0])}, last {value(ys[-1])}, from {value(min(ys))} to {value(max(ys))}{gap}"


def matrix(confusion: NDArray[np.int64], classes: Sequence[str], what: str = "images", cents: bool = False) -> str:
    """The confusion matrix: rows are true classes, columns predicted ones, strength is the share of the row.

    what: is counted. cents: the cells carry the share of their row, in per cent, in place of the count.
    """
    size = len(classes)
    support = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(support, 1)
    right, total = int(np.trace(confusion)), int(confusion.sum())
    label = f"Confusion matrix of {size} classes: {right} of {total} {what} on the diagonal."
    if size <= NUMBERED:
        rows = (
            f"{name}: {int(row[k])} of {int(row.sum())} right" for k, (name, row) in enumerate(zip(classes, confusion))
        )
        label += " " + "; ".join(rows) + "."
    if size > NAMED:
        return _pixel_matrix(shares, label)
    longest = max(len(formats.crop(name, 12)) for name in classes)
    lying = size <= 3 and 7 * longest <= 56  # few short names: the columns are named without turning the text
    left, top = max(7.0 * longest + 10, 34), 38.0 if lying else 7.0 * longest + 24
    cell = 56.0 if size <= 3 else (WIDTH - left - 4) / size if size <= NUMBERED else 20.0
    parts = [
        text("predicted", left, 11, class_="soft"),
        text("true", left - 6, 11, class_="soft", text_anchor="end"),
    ]
    for k, name in enumerate(classes):
        shown = formats.crop(name, 12)
        middle = (k + 0.5) * cell
        parts.append(text(shown, left - 6, top + middle + 4, text_anchor="end"))
        if lying:
            parts.append(text(shown, left + middle, top - 6, text_anchor="middle"))
        else:
            parts.append(text(shown, 0, 0, transform=f"translate({left + middle + 4:.1f} {top - 6:.1f}) rotate(-90)"))
    for i in range(size):
        for j in range(size):
            parts.append(_cell(confusion, shares, i, j, left + j * cell, top + i * cell, cell, classes, cents))
    return drawing(max(WIDTH, left + size * cell + 4), top + size * cell + 4, label, *parts)


def _cell(
    confusion: NDArray[np.int64],
    shares: NDArray[np.float64],
    i: int,
    j: int,
    x: float,
    y: float,
    cell: float,
    classes: Sequence[str],
    cents: bool,
) -> str:
    here, share = int(confusion[i, j]), float(shares[i, j])
    box = tag("rect", x=x, y=y, width=cell - 1.5, height=cell - 1.5, class_="empty")
    if not here:
        return box
    strength = _strength(share)
    note = title(f"{classes[i]} taken for {classes[j]}: {here} ({formats.percent(share)})")
    colour = "a" if i == j else "b"
    parts = [
        note,
        box,
        tag("rect", x=x, y=y, width=cell - 1.5, height=cell - 1.5, class_=f"fill {colour}", fill_opacity=strength),
    ]
    if len(confusion) <= NUMBERED:
        shown = formats.count(here) if here < 10_000 else formats.short(here, 2)
        if cents:
            shown = formats.points(share, 0 if 0.095 <= share < 0.995 or share == 1 else 1)
        over = "on" if strength > 0.6 else ""
        small = " small" if len(shown) * 7 > cell - 4 else ""
        parts.append(
            text(
                shown,
                x + cell / 2 - 0.75,
                y + cell / 2 + 3.5,
                text_anchor="middle",
                class_=(over + small).strip() or None,
            )
        )
    return tag("g", *parts)


def _strength(share: float) -> float:
    """Opacity by the square root of the share: a mistake of 1 % is still seen."""
    return 0.0 if share <= 0 else 0.1 + 0.9 * math.sqrt(share)


def _pixel_matrix(shares: NDArray[np.float64], label: str) -> str:
    """A matrix too fine for boxes: one image for the diagonal's colour, one for that of the mistakes."""
    size = len(shares)
    left, top, side = 40.0, 34.0, 560.0
    diagonal = np.diag(np.diag(shares))
    # the page colours the two masks, so the matrix follows its dark and its print colours
    scale = Scale(0, size, 0, side)
    parts = [
        text("predicted class, by its number in the table of classes", left, 11, class_="soft"),
        tag("rect", x=left, y=top, width=side, height=side, class_="empty"),
    ]
    for name, values, colour in (("right", diagonal, "a"), ("wrong", shares - diagonal, "b")):
        image = tag(
            "image", href=_mask(values), x=left, y=top, width=side, height=side, style="image-rendering:pixelated"
        )
        parts.append(
            tag("mask", image, id=f"matrix-{name}", maskUnits="userSpaceOnUse", x=left, y=top, width=side, height=side)
        )
        parts.append(
            tag("rect", x=left, y=top, width=side, height=side, class_=f"fill {colour}", mask=f"url(#matrix-{name})")
        )
    for value in ticks(0, size, 6):
        if value < size and value == round(value):
            middle = scale(value + 0.5)
            parts.append(text(f"{value:.0f}", left + middle, top - 6, text_anchor="middle"))
            parts.append(text(f"{value:.0f}", left - 6, top + middle + 4, text_anchor="end"))
    return drawing(left + side + 8, top + side + 4, label, *parts)


def _mask(shares: NDArray[np.float64]) -> str:
    """A luminance mask: white where the share is 1. Above PIXELS cells a side, each pixel is the largest of a block."""
    block = -(-len(shares) // PIXELS)
    if block > 1:
        padded = np.pad(shares, (0, -len(shares) % block))
        cells = len(padded) // block
        shares = padded.reshape(cells, block, cells, block).max(axis=(1, 3))
    strength = np.where(shares > 0, 0.1 + 0.9 * np.sqrt(shares), 0)
    file = io.BytesIO()
    Image.fromarray((strength * 255).round().astype(np.uint8)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def reliability(calibration: Calibration) -> str:
    """Accuracy against confidence, bin by bin, with 95 % intervals; below it how the images spread over the bins."""
    across, up = Scale(0, 1, 50, WIDTH - 12), Scale(0, 1, 262, 10)
    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(tag("line", x1=50, x2=WIDTH - 12, y1=up(value), y2=up(value), class_="grid"))
        parts.append(text(f"{value * 100:.0f}", 44, up(value) + 4, text_anchor="end"))
        parts.append(text(f"{value * 100:.0f}", across(value), 350, text_anchor="middle"))
    parts.append(tag("line", x1=across(0), y1=up(0), x2=across(1), y2=up(1), class_="rule dashed"))
    largest = max(one.count for one in calibration.bins)
    for one in calibration.bins:
        if one.count:
            parts.append(_bin(one, largest, across, up))
    parts.append(text("accuracy, %", 56, 22, class_="soft"))
    parts.append(text("images", 44, 334, class_="soft", text_anchor="end"))
    parts.append(text("confidence, %", WIDTH - 12, 366, class_="soft", text_anchor="end"))
    bins = "; ".join(
        f"{one.low * 100:.0f} to {one.high * 100:.0f} %: {one.count} images, {one.accuracy * 100:.0f} % right"
        for one in calibration.bins
        if one.count
    )
    return drawing(
        WIDTH, 370, f"Reliability diagram: expected calibration error {calibration.ece:.3f}. {bins}.", *parts
    )


def _bin(one: Bin, largest: int, across: Scale, up: Scale) -> str:
    low, high = wilson(one.correct, one.count)
    x, y = across(one.confidence), up(one.accuracy)
    tall = 48 * one.count / largest
    left, wide = across(one.low) + 0.75, across(one.high) - across(one.low) - 1.5
    return tag(
        "g",
        title(f"{one.count} images, {formats.percent(one.confidence)} sure, {formats.percent(one.accuracy)} right"),
        tag("line", x1=x, x2=x, y1=up(low), y2=up(high), class_="line a"),
        tag("circle", cx=x, cy=y, r=4, class_="fill a"),
        tag("rect", x=left, y=334 - tall, width=wide, height=tall, class_="fill c"),
    )


@dataclass(frozen=True)
class Bar:
    """A label with two amounts, each a share 0..1 and how it is written."""

    name: str
    first: float
    first_text: str
    second: float
    second_text: str


def pairs_of_bars(what: str, names: tuple[str, str], bars: Sequence[Bar]) -> str:
    """Two bars a row: how two amounts are spread over the same parts."""
    largest = max((value for bar in bars for value in (bar.first, bar.second)), default=1.0) or 1.0
    across = Scale(0, largest, 0, 150)
    parts = []
    for index, bar in enumerate(bars):
        y = index * 34.0
        parts.append(text(formats.crop(bar.name, 14), 92, y + 18, text_anchor="end"))
        for offset, share, shown, colour in (
            (4, bar.first, bar.first_text, "a"),
            (17, bar.second, bar.second_text, "b"),
        ):
            wide = across(share)
            parts.append(tag("rect", x=100, y=y + offset, width=max(wide, 0.75), height=10, class_=f"fill {colour}"))
            parts.append(text(shown, 106 + wide, y + offset + 9.5, class_="small"))
    said = "; ".join(f"{bar.name}: {names[0]} {bar.first_text}, {names[1]} {bar.second_text}" for bar in bars)
    return drawing(WIDTH, max(len(bars) * 34.0, 1), f"{what}. {said}.", *parts)


@dataclass(frozen=True)
class Range:
    """One measured time with its spread, in milliseconds."""

    name: str
    low: float
    middle: float
    high: float


def ranges(what: str, rows: Sequence[Range]) -> str:
    """A dot at the median on a line from p10 to p90, one row each, on a scale from 0."""
    largest = max(row.high if math.isfinite(row.high) else row.middle for row in rows)
    across = Scale(0, largest * 1.12 or 1.0, 8, WIDTH - 12)
    height = len(rows) * 38.0 + 30
    parts = []
    for value in ticks(0, across.high, 5):
        parts.append(tag("line", x1=across(value), x2=across(value), y1=4, y2=height - 24, class_="grid"))
        parts.append(text(formats.tick(value), across(value), height - 8, text_anchor="middle"))
    for index, row in enumerate(rows):
        y = index * 38.0 + 14
        parts.append(text(formats.crop(row.name, 44), 8, y + 2, class_="over"))
        if math.isfinite(row.low) and math.isfinite(row.high):
            parts.append(
                tag("line", x1=across(row.low), x2=across(row.high), y1=y + 14, y2=y + 14, class_="line thick a")
            )
        parts.append(tag("circle", cx=across(row.middle), cy=y + 14, r=4.5, class_="fill a"))
    said = "; ".join(
        f"{row.name}: median {formats.milliseconds(row.middle)}, p10 {formats.milliseconds(row.low)}, p90 {formats.milliseconds(row.high)}"
        for row in rows
    )
    return drawing(WIDTH, height, f"{what}. {said}.", *parts)

"""Lines over epochs.

The colours of all charts are classes of chart.css: a, b, c are the first, second and third series.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gossamer.charts.svg import WIDTH, Markup, Scale, chart, element, empty_chart, label, path, ticks, tooltip
from gossamer.host import text

LEFT, RIGHT, TOP, HEIGHT = 50, WIDTH - 12, 22, 228
FOOT = 42  # height of the numbers and the name of the x axis
FEWEST = 4  # points of a series, from which single values may be left outside the axis
FLATTENS = 5.0  # times as far from the median as the next value is one that may lie outside
OUTLIERS = 0.05  # fraction of the points of a series that may lie outside


@dataclass(frozen=True)
class Series:
    """One line of a chart: `name`, its points, and the class that colours it. Points that are not numbers are gaps."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: str

    def segments(self) -> list[list[tuple[float, float]]]:
        """The points, split at the gaps."""
        segments: list[list[tuple[float, float]]] = [[]]
        for x, y in zip(self.xs, self.ys):
            if math.isfinite(x) and math.isfinite(y):
                segments[-1].append((x, y))
            elif segments[-1]:
                segments.append([])
        return [segment for segment in segments if segment]

    @property
    def last(self) -> float:
        """The last value that is a number, or nan."""
        segments = self.segments()
        return segments[-1][-1][1] if segments else math.nan


def line_chart(
    name: str,
    series: Sequence[Series],
    *,
    form: Callable[[float], str] = text.tick,
    from_zero: bool = False,
    ring: tuple[float, float] | None = None,
    axis: str = "",
    across: str = "epoch",
) -> Markup:
    """Lines over epochs. form: writes the numbers on the y axis. ring: a point to be marked. axis, across: what the y and
    the x axis show, with the unit.

    A few values far from all others would flatten the lines: they are left outside the y axis, marked with a triangle at
    its end, with a note (see `robust_range`).
    """
    points = [point for line in series for segment in line.segments() for point in segment]
    if not points:
        return empty_chart(name)
    xs = [x for x, _ in points]
    ranges = [
        robust_range([y for segment in line.segments() for _, y in segment]) for line in series if line.segments()
    ]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    outside = [(x, y) for x, y in points if not low <= y <= high]
    low = min(0.0, low) if from_zero else low
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    first, last = (min(xs), max(xs)) if max(xs) > min(xs) else (xs[0] - 1, xs[0] + 1)
    x_of = Scale(first, last, LEFT, RIGHT)
    bottom = HEIGHT - FOOT
    lowest = low if from_zero and low == 0 else low - pad if low < 0 else max(0.0, low - pad)
    up = Scale(lowest, high + pad, bottom, TOP)

    def y_of(value: float) -> float:
        return min(max(up(value), TOP), bottom)

    parts = [label(axis, LEFT, 12, class_="soft")] if axis else []
    values = ticks(up.low, up.high)
    for value in values if len(values) > 2 else ticks(up.low, up.high, 8):
        y = up(value)
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(label(form(value), LEFT - 6, y + 4, text_anchor="end"))
    for value in ticks(min(xs), max(xs), 5):
        if value == round(value) or max(xs) - min(xs) < 1:
            parts.append(label(text.tick(value), x_of(value), bottom + 18, text_anchor="middle"))
    parts.append(label(across, RIGHT, HEIGHT - 6, class_="soft", text_anchor="end"))
    for line in series:
        for segment in line.segments():
            if len(segment) > 1:
                places = [(x_of(x), y_of(y)) for x, y in segment]
                parts.append(element("path", d=path(places), class_=f"line {line.colour}"))
            else:
                (x, y), *_ = segment
                parts.append(element("circle", cx=x_of(x), cy=y_of(y), r=3, class_=f"fill {line.colour}"))
    if ring and math.isfinite(ring[1]):
        parts.append(element("circle", cx=x_of(ring[0]), cy=y_of(ring[1]), r=4.5, class_="ring"))
    parts += [_outlier(x_of(x), TOP if y > high else bottom, y > high, _in_words(form)(y)) for x, y in outside]
    if outside:
        parts.append(label(outside_axis(outside, form), LEFT, HEIGHT - 6, class_="soft small"))
    summary = "; ".join(_summary(line, form) for line in series)
    beyond = f" {outside_axis(outside, form)}." if outside else ""
    return chart(WIDTH, HEIGHT, f"{name} by {across}. {summary}.{beyond}", *parts)


def robust_range(values: Sequence[float]) -> tuple[float, float]:
    """(lowest, highest) of `values` without the few that are so far from all others that they would flatten a chart.

    Left out are at most OUTLIERS of them (one of few), the farthest from the median, and only those FLATTENS times as far
    from it as the next: a curve that falls steeply has no such gap. values: finite, one or more.
    """
    low, high = min(values), max(values)
    if len(values) < FEWEST:
        return low, high
    middle = statistics.median(values)
    near = sorted(values, key=lambda value: abs(value - middle))
    for count in range(1, max(1, int(OUTLIERS * len(values))) + 1):
        kept = near[: len(near) - count]
        if 0 < abs(kept[-1] - middle) * FLATTENS <= abs(near[len(kept)] - middle):
            return min(kept), max(kept)
    return low, high


def outside_axis(points: Sequence[tuple[float, float]], form: Callable[[float], str]) -> str:
    """The note on the points outside the axis."""
    written = _in_words(form)
    if len(points) == 1:
        return f"outside the axis: {written(points[0][1])} at {text.tick(points[0][0])}"
    ys = [y for _, y in points]
    return f"outside the axis: {len(points)} values, {written(min(ys))} to {written(max(ys))}"


def _outlier(x: float, y: float, above: bool, written: str) -> Markup:
    """A triangle at the end of the axis that points to where the value lies."""
    tip = y - 6 if above else y + 6
    d = f"M{x - 5:.1f} {y:.1f}L{x + 5:.1f} {y:.1f}L{x:.1f} {tip:.1f}Z"
    return element("path", tooltip(written), d=d, class_="fill b")


def _in_words(form: Callable[[float], str]) -> Callable[[float], str]:
    """How a value is written in a sentence: `tick` is for round numbers beside an axis."""
    return text.significant if form is text.tick else form


def _summary(line: Series, form: Callable[[float], str]) -> str:
    """A line in words."""
    ys = [y for segment in line.segments() for _, y in segment]
    if not ys:
        return f"{line.name}: no numbers"
    value = _in_words(form)
    gaps = len(line.ys) - len(ys)
    gap = f", {text.counted(gaps, 'epoch')} without a number" if gaps else ""
    return f"{line.name}: first {value(ys[0])}, last {value(ys[-1])}, from {value(min(ys))} to {value(max(ys))}{gap}"

"""Lines over epochs.

The colours of all charts are classes of chart.css: a, b, c are the first, second and third series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gossamer.charts.svg import WIDTH, Markup, Scale, chart, element, empty_chart, label, path, ticks
from gossamer.host import text

LEFT, RIGHT, TOP, HEIGHT = 50, WIDTH - 12, 8, 200


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
) -> Markup:
    """Lines over epochs. form: writes the numbers on the y axis. ring: a point to be marked."""
    points = [point for line in series for segment in line.segments() for point in segment]
    if not points:
        return empty_chart(name)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = (min(0.0, *ys) if from_zero else min(ys)), max(ys)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    first, last = (min(xs), max(xs)) if max(xs) > min(xs) else (xs[0] - 1, xs[0] + 1)
    across = Scale(first, last, LEFT, RIGHT)
    up = Scale(low if from_zero and low == 0 else low - pad, high + pad, HEIGHT - 26, TOP)
    parts = []
    for value in ticks(up.low, up.high):
        y = up(value)
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(label(form(value), LEFT - 6, y + 4, text_anchor="end"))
    for value in ticks(min(xs), max(xs), 5):
        if value == round(value) or max(xs) - min(xs) < 1:
            parts.append(label(text.tick(value), across(value), HEIGHT - 8, text_anchor="middle"))
    for line in series:
        for segment in line.segments():
            if len(segment) > 1:
                places = [(across(x), up(y)) for x, y in segment]
                parts.append(element("path", d=path(places), class_=f"line {line.colour}"))
            else:
                (x, y), *_ = segment
                parts.append(element("circle", cx=across(x), cy=up(y), r=3, class_=f"fill {line.colour}"))
    if ring and math.isfinite(ring[1]):
        parts.append(element("circle", cx=across(ring[0]), cy=up(ring[1]), r=4.5, class_="ring"))
    summary = "; ".join(_summary(line, form) for line in series)
    return chart(WIDTH, HEIGHT, f"{name} by epoch. {summary}.", *parts)


def _summary(line: Series, form: Callable[[float], str]) -> str:
    """A line in words."""
    ys = [y for segment in line.segments() for _, y in segment]
    if not ys:
        return f"{line.name}: no numbers"
    value = form if form is not text.tick else text.significant
    gaps = len(line.ys) - len(ys)
    gap = f", {gaps} epochs without a number" if gaps else ""
    return f"{line.name}: first {value(ys[0])}, last {value(ys[-1])}, from {value(min(ys))} to {value(max(ys))}{gap}"

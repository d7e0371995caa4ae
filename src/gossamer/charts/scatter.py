"""Scatter charts: predicted against true values, and labelled points with the line of the best of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.charts.svg import WIDTH, Markup, Scale, chart, element, empty_chart, label, path, ticks, tooltip
from gossamer.host import text

DOTS = 1000  # at most, evenly of all: more are a blot, and megabytes
LEFT, RIGHT, TOP, HEIGHT = 50, WIDTH - 12, 10, 300
COLOURS = ("a", "b", "c")  # classes of chart.css
CHARACTER = 6.5  # units: width of a character of a label, on average
LINE = 14.0  # units: height of a line of text
FAR = 3.0  # times the largest x that the end of a spread is, from which it is left outside the axis


def predicted_against_true(name: str, true: NDArray[np.floating[Any]], predicted: NDArray[np.floating[Any]]) -> Markup:
    """Predicted (n,) over true (n,) values on equal axes, with the line where they agree; only finite pairs are drawn."""
    finite = np.isfinite(true) & np.isfinite(predicted)
    true, predicted = true[finite].astype(float), predicted[finite].astype(float)
    if not len(true):
        return empty_chart(name)
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    pad = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    x, y = Scale(low - pad, high + pad, LEFT, RIGHT), Scale(low - pad, high + pad, HEIGHT - 40, TOP)
    parts = _grid(x, y)
    parts.append(element("line", x1=x(x.low), y1=y(y.low), x2=x(x.high), y2=y(y.high), class_="rule dashed"))
    for index in range(0, len(true), math.ceil(len(true) / DOTS)):
        a, b = x(float(true[index])), y(float(predicted[index]))
        parts.append(element("circle", cx=a, cy=b, r=3, class_="fill a", fill_opacity=0.5))
    parts.append(label("predicted", LEFT + 6, TOP + 12, class_="soft halo"))
    parts.append(label("true", RIGHT, HEIGHT - 6, class_="soft", text_anchor="end"))
    error = text.significant(float(np.abs(predicted - true).mean()))
    description = (
        f"{name}: predicted against true values of {text.counted(len(true), 'image')}, mean absolute error {error}."
    )
    return chart(WIDTH, HEIGHT, description, *parts)


class LabelledPoint(NamedTuple):
    """A point with its name; front: whether it is on the Pareto front; low, high: the spread along x, nan for none."""

    name: str
    x: float
    y: float
    front: bool = False
    low: float = math.nan
    high: float = math.nan


class TargetBox(NamedTuple):
    """What is allowed: x at most, y at least; and what it is called."""

    x: float
    y: float
    name: str


def pareto_chart(
    name: str,
    points: Sequence[LabelledPoint],
    across: str,
    up: str,
    spread: str = "",
    box: TargetBox | None = None,
) -> Markup:
    """Points with their names and the spread of x; those of the front are connected.

    across, up: what the axes show, with the unit. spread: what the lines through the points show. A spread that ends FAR
    beyond all points is cut off at the edge, with an arrow. box: the points that are allowed, shaded.
    """
    limit = FAR * max(point.x for point in points)
    ends = [end for point in points for end in (point.low, point.high) if math.isfinite(end) and end <= limit]
    x = _padded([*(point.x for point in points), *ends, *([box.x] if box else [])], LEFT, RIGHT)
    y = _padded([*(point.y for point in points), *([box.y] if box else [])], HEIGHT - 40, 30)
    parts = [_box(box, x, y)] if box else []
    parts += _grid(x, y)
    drawn = [point for point in points if math.isfinite(point.low) and math.isfinite(point.high)]
    parts += [part for point in drawn for part in _spread(point, x, y(point.y))]
    front = sorted((point.x, point.y) for point in points if point.front)
    if len(front) > 1:
        parts.append(element("path", d=path([(x(a), y(b)) for a, b in front]), class_="line b"))
    occupied: list[tuple[float, float, float]] = []
    for point in points:
        colour = "b" if point.front else "a"
        place = x(point.x), y(point.y)
        parts.append(
            element(
                "circle",
                tooltip(_in_words(point)),
                cx=place[0],
                cy=place[1],
                r=4.5,
                class_=f"fill {colour}",
            )
        )
        parts.append(_name(point.name, place, occupied))
    parts.append(label(up, LEFT - 6, 14, class_="soft halo"))
    parts.append(label(across, RIGHT, HEIGHT - 6, class_="soft", text_anchor="end"))
    height = HEIGHT
    if front:
        height += 18
        parts.append(element("circle", cx=LEFT, cy=height - 8, r=4.5, class_="fill b"))
        parts.append(label("Pareto front", LEFT + 12, height - 4, class_="soft"))
    if box:
        height += 18
        parts.append(
            element("rect", x=LEFT - 6, y=height - 14, width=12, height=12, class_="fill a", fill_opacity=0.14)
        )
        parts.append(label(box.name, LEFT + 12, height - 4, class_="soft"))
    if drawn and spread:
        height += 18
        ends_of_key = {"x1": LEFT - 8, "x2": LEFT + 8, "y1": height - 8, "y2": height - 8}
        parts.append(element("line", **ends_of_key, class_="line thick a"))
        parts.append(label(spread, LEFT + 12, height - 4, class_="soft"))
    listed = "; ".join(f"{_in_words(point)}{', on the front' * point.front}" for point in points)
    return chart(WIDTH, height, f"{name}: {up} by {across}. {listed}.", *parts)


def curves_chart(name: str, curves: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str) -> Markup:
    """Curves through points (x, y), three at most, with their names below. across, up: what the axes show, with the unit."""
    assert len(curves) <= len(COLOURS), "a colour each"
    points = [point for some in curves.values() for point in some]
    if not points:
        return empty_chart(name)
    x = _padded([point[0] for point in points], LEFT, RIGHT)
    y = _padded([point[1] for point in points], HEIGHT - 40, 30)
    parts = _grid(x, y)
    height = HEIGHT
    for (called, some), colour in zip(curves.items(), COLOURS):
        ordered = sorted(some)
        if len(ordered) > 1:
            parts.append(element("path", d=path([(x(a), y(b)) for a, b in ordered]), class_=f"line {colour}"))
        for a, b in ordered:
            note = tooltip(f"{called}: {text.significant(a)}, {text.significant(b)}")
            parts.append(element("circle", note, cx=x(a), cy=y(b), r=4.5, class_=f"fill {colour}"))
        height += 18
        parts.append(element("circle", cx=LEFT, cy=height - 8, r=4.5, class_=f"fill {colour}"))
        parts.append(label(called, LEFT + 12, height - 4, class_="soft"))
    parts.append(label(up, LEFT - 6, 14, class_="soft halo"))
    parts.append(label(across, RIGHT, HEIGHT - 6, class_="soft", text_anchor="end"))
    listed = "; ".join(
        f"{called}: " + ", ".join(f"{text.significant(b)} at {text.significant(a)}" for a, b in sorted(some))
        for called, some in curves.items()
    )
    return chart(WIDTH, height, f"{name}: {up} by {across}. {listed}.", *parts)


def _box(box: TargetBox, x: Scale, y: Scale) -> Markup:
    """The shaded part of the plane that is allowed, from the left edge and the top."""
    note = tooltip(f"{box.name}: up to {text.significant(box.x)}, from {text.significant(box.y)}")
    sides = {"x": LEFT, "y": 30, "width": max(0.0, x(box.x) - LEFT), "height": max(0.0, y(box.y) - 30)}
    return element("rect", note, **sides, class_="fill a", fill_opacity=0.14)


def _in_words(point: LabelledPoint) -> str:
    spread = ""
    if math.isfinite(point.low) and math.isfinite(point.high):
        spread = f" (from {text.significant(point.low)} to {text.significant(point.high)})"
    return f"{point.name}: {text.significant(point.x)}{spread}, {text.significant(point.y)}"


def _spread(point: LabelledPoint, x: Scale, y: float) -> list[Markup]:
    """The line from the low to the high end of a point, with an arrow where it ends outside."""
    colour, end = "b" if point.front else "a", x(point.high)
    parts = [element("line", x1=max(x(point.low), LEFT), x2=min(end, RIGHT), y1=y, y2=y, class_=f"line thick {colour}")]
    if end > RIGHT:
        arrow = f"M{RIGHT - 2:.1f} {y - 5:.1f}L{RIGHT + 6:.1f} {y:.1f}L{RIGHT - 2:.1f} {y + 5:.1f}Z"
        parts.append(element("path", d=arrow, class_=f"fill {colour}"))
    return parts


def _name(name: str, place: tuple[float, float], occupied: list[tuple[float, float, float]]) -> Markup:
    """The label of a point: above it, to the side that has room; lower where it would overlap another label."""
    shown = text.truncated(name, 28)
    width = CHARACTER * len(shown)
    x, y = place
    late = x + 8 + width > WIDTH
    left = max(2.0, x - 8 - width) if late else x + 8
    line = y - 6
    while any(abs(line - other) < LINE and left < end and start < left + width for start, end, other in occupied):
        line += LINE
    occupied.append((left, left + width, line))
    return label(shown, left + width if late else left, line, class_="halo", text_anchor="end" if late else None)


def _padded(values: Sequence[float], start: float, end: float) -> Scale:
    low, high = min(values), max(values)
    pad = (high - low) * 0.15 or abs(high) * 0.1 or 1.0
    return Scale(low - pad, high + pad, start, end)


def _grid(x: Scale, y: Scale) -> list[Markup]:
    """Horizontal lines, and the numbers of both axes."""
    parts = []
    for value in ticks(y.low, y.high):
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=y(value), y2=y(value), class_="grid"))
        parts.append(label(text.tick(value), LEFT - 6, y(value) + 4, text_anchor="end"))
    for value in ticks(x.low, x.high):
        parts.append(label(text.tick(value), x(value), HEIGHT - 24, text_anchor="middle"))
    return parts

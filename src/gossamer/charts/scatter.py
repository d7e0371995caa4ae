"""Scatter charts: predicted against true values, and labelled points with the line of the best of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.charts.intervals import LOGARITHMIC_FROM, LogScale
from gossamer.charts.svg import WIDTH, Markup, Scale, chart, element, empty_chart, label, path, ticks, tooltip
from gossamer.host import text

DOTS = 1000  # at most, evenly of all: more are a blot, and megabytes
LEFT, RIGHT, TOP, HEIGHT = 50, WIDTH - 12, 10, 300
COLOURS = ("a", "b", "c")  # classes of chart.css
CHARACTER = 6.5  # units: width of a character of a label, on average
LINE = 14.0  # units: height of a line of text
SIDE = 8.0  # units: from a point to its name
DOT = 4.5  # units: radius of a point
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
    counted_up: bool = False,
) -> Markup:
    """Points with their names and the spread of x; those of the front are connected.

    across, up: what the axes show, with the unit. spread: what the lines through the points show. A spread that ends FAR
    beyond all points is cut off at the edge, with an arrow. box: the points that are allowed, shaded. counted_up: y is a
    count and no score. Costs and counts that differ LOGARITHMIC_FROM times stand on a logarithmic axis, which says so: one
    large network would push all others into a corner.
    """
    limit = FAR * max(point.x for point in points)
    ends = [end for point in points for end in (point.low, point.high) if math.isfinite(end) and end <= limit]
    xs, ys = ([getattr(part, axis) for part in (*points, *([box] if box else []))] for axis in ("x", "y"))
    x = _fitting([point.x for point in points], [*xs, *ends], LEFT, RIGHT)
    y = _fitting([point.y for point in points] if counted_up else [], ys, HEIGHT - 40, 30)
    across += ", logarithmic" * isinstance(x, LogScale)
    up += ", logarithmic" * isinstance(y, LogScale)
    parts = [_box(box, x, y)] if box else []
    parts += _grid(x, y)
    drawn = [point for point in points if math.isfinite(point.low) and math.isfinite(point.high)]
    parts += [part for point in drawn for part in _spread(point, x, y(point.y))]
    front = sorted((point.x, point.y) for point in points if point.front)
    if len(front) > 1:
        parts.append(element("path", d=path([(x(a), y(b)) for a, b in front]), class_="line b"))
    places = [(x(point.x), y(point.y)) for point in points]
    occupied: list[tuple[float, float, float]] = []
    for point, place in zip(points, places):
        colour = "b" if point.front else "a"
        parts.append(
            element(
                "circle",
                tooltip(_in_words(point)),
                cx=place[0],
                cy=place[1],
                r=DOT,
                class_=f"fill {colour}",
            )
        )
    for point, place in zip(points, places):
        parts += _name(point.name, place, occupied, places)
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


def _box(box: TargetBox, x: Scale | LogScale, y: Scale | LogScale) -> Markup:
    """The shaded part of the plane that is allowed, from the left edge and the top."""
    note = tooltip(f"{box.name}: up to {text.significant(box.x)}, from {text.significant(box.y)}")
    sides = {"x": LEFT, "y": 30, "width": max(0.0, x(box.x) - LEFT), "height": max(0.0, y(box.y) - 30)}
    return element("rect", note, **sides, class_="fill a", fill_opacity=0.14)


def _in_words(point: LabelledPoint) -> str:
    spread = ""
    if math.isfinite(point.low) and math.isfinite(point.high):
        spread = f" (from {text.significant(point.low)} to {text.significant(point.high)})"
    return f"{point.name}: {text.significant(point.x)}{spread}, {text.significant(point.y)}"


def _spread(point: LabelledPoint, x: Scale | LogScale, y: float) -> list[Markup]:
    """The line from the low to the high end of a point, with an arrow where it ends outside."""
    colour, end = "b" if point.front else "a", x(point.high)
    parts = [element("line", x1=max(x(point.low), LEFT), x2=min(end, RIGHT), y1=y, y2=y, class_=f"line thick {colour}")]
    if end > RIGHT:
        arrow = f"M{RIGHT - 2:.1f} {y - 5:.1f}L{RIGHT + 6:.1f} {y:.1f}L{RIGHT - 2:.1f} {y + 5:.1f}Z"
        parts.append(element("path", d=arrow, class_=f"fill {colour}"))
    return parts


def _name(
    name: str,
    place: tuple[float, float],
    occupied: list[tuple[float, float, float]],
    points: Sequence[tuple[float, float]],
) -> list[Markup]:
    """The label of a point: beside it where it covers no other label, no point and no number of the axis, as near as that is; from further away a
    line leads to it. occupied: (start, end, baseline) of the labels so far, to which this one is added."""
    shown = text.truncated(name, 28)
    width = CHARACTER * len(shown)
    x, y = place

    def covers(left: float, line: float) -> int:
        others = [
            1 for start, end, other in occupied if abs(line - other) < LINE and left < end and start < left + width
        ]
        dots = [
            1
            for a, b in points
            if left - DOT < a < left + width + DOT and line - LINE + 2 - DOT < b < line + 2 + DOT and (a, b) != place
        ]
        return 2 * len(others) + len(dots) + (left < LEFT)  # left of it are the numbers of the axis

    lines = sorted((y - 6 + step * LINE / 2 for step in range(-12, 15)), key=lambda line: (abs(line - (y - 6)), line))
    choices = [
        (left, line)
        for line in lines
        for left in (x + SIDE, x - SIDE - width)
        if left >= 2 and left + width <= WIDTH and LINE < line < HEIGHT - 44
    ]
    if not choices:  # a name as long as the chart is wide
        choices = [(max(2.0, min(x + SIDE, WIDTH - width)), y - 6)]
    left, line = next((choice for choice in choices if not covers(*choice)), None) or min(
        choices, key=lambda choice: covers(*choice)
    )
    occupied.append((left, left + width, line))
    late = left < x
    edge = left + width if late else left
    parts = [label(shown, edge, line, class_="halo", text_anchor="end" if late else None)]
    if abs(line + 6 - y) > LINE:
        parts.insert(0, element("line", x1=x, y1=y, x2=edge, y2=line - 4, class_="line faint"))
    return parts


def _fitting(counts: Sequence[float], values: Sequence[float], start: float, end: float) -> Scale | LogScale:
    """The scale of `values`; logarithmic where `counts`, costs or other numbers from 0, differ much."""
    if counts and min(values) > 0 and max(counts) >= LOGARITHMIC_FROM * min(counts):
        room = (max(values) / min(values)) ** 0.08
        return LogScale(min(values) / room, max(values) * room, start, end)
    scale = _padded(values, start, end)
    return Scale(max(0.0, scale.low), scale.high, start, end) if counts and min(values) >= 0 else scale


def _ticks(scale: Scale | LogScale) -> list[float]:
    return scale.ticks() if isinstance(scale, LogScale) else ticks(scale.low, scale.high)


def _padded(values: Sequence[float], start: float, end: float) -> Scale:
    low, high = min(values), max(values)
    pad = (high - low) * 0.15 or abs(high) * 0.1 or 1.0
    return Scale(low - pad, high + pad, start, end)


def _grid(x: Scale | LogScale, y: Scale | LogScale) -> list[Markup]:
    """Horizontal lines, and the numbers of both axes."""
    parts = []
    for value in _ticks(y):
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=y(value), y2=y(value), class_="grid"))
        parts.append(label(text.tick(value), LEFT - 6, y(value) + 4, text_anchor="end"))
    for value in _ticks(x):
        parts.append(label(text.tick(value), x(value), HEIGHT - 24, text_anchor="middle"))
    return parts

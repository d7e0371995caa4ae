"""A bar a row under its name: single amounts, steps from one amount to the next, and ranges before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from gossamer.charts.intervals import LogScale
from gossamer.charts.svg import WIDTH, Markup, Scale, chart, element, empty_chart, label, tooltip
from gossamer.host import text

LEFT, RIGHT, ROW, TOP = 8, WIDTH - 12, 34.0, 12.0
THICK = 9.0
NAME = 34  # characters of a name that stand beside what is written at the right


class Amount(NamedTuple):
    """A bar: its name, length, how that is written, the class that colours it. An infinite one fills the row."""

    name: str
    value: float
    written: str
    colour: str = "a"


def amount_bars(name: str, rows: Sequence[Amount], axis: str = "", longest: float = 0.0) -> Markup:
    """A bar a row from 0. longest: the value that fills a row, where it is not the largest of these rows."""
    finite = [longest, *(row.value for row in rows if math.isfinite(row.value))]
    if not rows:
        return empty_chart(name)
    across = Scale(min(0.0, *finite, 0.0), max([*finite, 0.0]) or 1.0, LEFT, RIGHT)
    parts = []
    for number, row in enumerate(rows):
        end = RIGHT if not math.isfinite(row.value) else across(row.value)
        parts += _named(row.name, row.written, TOP + number * ROW)
        parts.append(_bar(across(0.0), end, TOP + number * ROW + 6, row.colour, f"{row.name}: {row.written}"))
    height = TOP + len(rows) * ROW
    if axis:
        parts.append(label(axis, RIGHT, height + 6, class_="soft", text_anchor="end"))
    words = "; ".join(f"{row.name}: {row.written}" for row in rows)
    return chart(WIDTH, height + (14 if axis else 0), f"{name}. {words}.", *parts)


def waterfall(name: str, rows: Sequence[Amount]) -> Markup:
    """What each step leaves: a full bar for the first, then the part by which a step changes it. value: what is left after it."""
    if not rows:
        return empty_chart(name)
    values = [row.value for row in rows]
    across = Scale(min(0.0, *values, 0.0), max(*values, 0.0) or 1.0, LEFT, RIGHT)
    parts, before = [], 0.0
    for number, row in enumerate(rows):
        y = TOP + number * ROW
        parts += _named(row.name, row.written, y)
        parts.append(_bar(across(before), across(row.value), y + 6, row.colour, f"{row.name}: {row.written}"))
        if number + 1 < len(rows):
            place = across(row.value)
            parts.append(element("line", x1=place, x2=place, y1=y + 6, y2=y + ROW + 6 + THICK, class_="rule dashed"))
        before = row.value
    words = "; ".join(f"{row.name}: {row.written}" for row in rows)
    return chart(WIDTH, TOP + len(rows) * ROW, f"{name}. {words}.", *parts)


class SpanPair(NamedTuple):
    """Two ranges above 0 of one thing, each (low, middle, high)."""

    name: str
    first: tuple[float, float, float]
    second: tuple[float, float, float]


def paired_spans(name: str, series: tuple[str, str], rows: Sequence[SpanPair], axis: str = "") -> Markup:
    """Two lines a row on one logarithmic axis, with a mark at their middles."""
    ends = [value for row in rows for value in (*row.first, *row.second)]
    if not ends:
        return empty_chart(name)
    across = LogScale(min(ends) / 1.1, max(ends) * 1.1, LEFT, RIGHT)
    bottom = TOP + len(rows) * ROW
    parts = []
    for value in across.ticks():
        parts.append(element("line", x1=across(value), x2=across(value), y1=TOP, y2=bottom, class_="grid"))
        parts.append(label(text.tick(value), across(value), bottom + 14, text_anchor="middle"))
    for number, row in enumerate(rows):
        y = TOP + number * ROW
        spread = f"{row.first[2] / row.first[0]:.3g}x -> {row.second[2] / row.second[0]:.3g}x"
        parts += _named(row.name, spread, y)
        for offset, (low, middle, high), colour in ((9, row.first, "c"), (16, row.second, "a")):
            places = {"x1": across(low), "x2": max(across(high), across(low) + 1), "y1": y + offset, "y2": y + offset}
            parts.append(element("line", **places, class_=f"line thick {colour}"))
            parts.append(element("circle", cx=across(middle), cy=y + offset, r=2.5, class_=f"fill {colour}"))
    if axis:
        parts.append(label(axis, RIGHT, bottom + 30, class_="soft", text_anchor="end"))
    words = "; ".join(
        f"{row.name}: {series[0]} {text.significant(row.first[0])} to {text.significant(row.first[2])}, "
        f"{series[1]} {text.significant(row.second[0])} to {text.significant(row.second[2])}"
        for row in rows
    )
    return chart(WIDTH, bottom + (36 if axis else 20), f"{name}. {words}.", *parts)


def _named(name: str, written: str, y: float) -> list[Markup]:
    return [
        label(text.truncated(name, NAME), LEFT, y + 2, class_="halo small"),
        label(written, RIGHT, y + 2, class_="halo small", text_anchor="end"),
    ]


def _bar(start: float, end: float, y: float, colour: str, words: str) -> Markup:
    left, width = min(start, end), max(abs(end - start), 0.75)
    return element("rect", tooltip(words), x=left, y=y, width=width, height=THICK, class_=f"fill {colour}")

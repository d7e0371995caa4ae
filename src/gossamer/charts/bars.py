"""Bars: two amounts a row, and counts over ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gossamer.charts.svg import WIDTH, Markup, Scale, chart, element, label
from gossamer.host import text

LEFT, RIGHT, TOP = 50, WIDTH - 12, 10


@dataclass(frozen=True)
class BarPair:
    """A label with two amounts, each a fraction 0..1 and how it is written."""

    name: str
    first: float
    first_text: str
    second: float
    second_text: str


def paired_bars(name: str, series: tuple[str, str], pairs: Sequence[BarPair]) -> Markup:
    """Two bars a row: how two amounts, called `series`, are spread over the same parts."""
    largest = max((value for pair in pairs for value in (pair.first, pair.second)), default=1.0) or 1.0
    across = Scale(0, largest, 0, 150)
    parts = []
    for index, pair in enumerate(pairs):
        y = index * 34.0
        parts.append(label(text.truncated(pair.name, 14), 92, y + 18, text_anchor="end"))
        for offset, fraction, written, colour in (
            (4, pair.first, pair.first_text, "a"),
            (17, pair.second, pair.second_text, "b"),
        ):
            width = across(fraction)
            bar = {"x": 100, "y": y + offset, "width": max(width, 0.75), "height": 10}
            parts.append(element("rect", **bar, class_=f"fill {colour}"))
            parts.append(label(written, 106 + width, y + offset + 9.5, class_="small"))
    rows = (f"{pair.name}: {series[0]} {pair.first_text}, {series[1]} {pair.second_text}" for pair in pairs)
    return chart(WIDTH, max(len(pairs) * 34.0, 1), f"{name}. {'; '.join(rows)}.", *parts)


class HistogramBar(NamedTuple):
    """A bar of a histogram: the range it counts, and how many."""

    low: float
    high: float
    amount: int


def histogram(
    name: str, bars: Sequence[HistogramBar], unit: str, marks: Sequence[float] = (), counted: str = ""
) -> Markup:
    """Bars over ranges on a logarithmic axis, powers of two written below. unit, counted: what the axes show. marks:
    values with a dashed line."""
    height, bottom = 228, 188
    low, high = bars[0].low, bars[-1].high
    x = Scale(math.log2(low), math.log2(high), LEFT, RIGHT)
    largest = max(bar.amount for bar in bars) or 1
    y = Scale(0, largest, bottom, TOP + 20)
    parts = [element("line", x1=LEFT, x2=RIGHT, y1=bottom, y2=bottom, class_="rule")]
    parts += [label(counted, LEFT, 12, class_="soft")] if counted else []
    for bar in bars:
        left, right = x(math.log2(bar.low)), x(math.log2(bar.high))
        top = y(bar.amount)
        box = {"x": left + 0.75, "y": top, "width": right - left - 1.5, "height": bottom - top}
        parts.append(element("rect", **box, class_="fill a"))
    for value in (2.0**power for power in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)):
        parts.append(label(f"{value:g}", x(math.log2(value)), bottom + 16, text_anchor="middle"))
    for value in marks:
        if low < value < high:
            place = x(math.log2(value))
            parts.append(element("line", x1=place, x2=place, y1=TOP, y2=bottom, class_="rule dashed"))
    parts.append(label(f"{largest}", LEFT - 6, y(largest) + 4, text_anchor="end"))
    parts.append(label("0", LEFT - 6, bottom + 4, text_anchor="end"))
    parts.append(label(unit, RIGHT, height - 6, class_="soft", text_anchor="end"))
    counts = "; ".join(f"{bar.low:.3g} to {bar.high:.3g}: {bar.amount}" for bar in bars if bar.amount)
    return chart(WIDTH, height, f"{name}. {counts}.", *parts)

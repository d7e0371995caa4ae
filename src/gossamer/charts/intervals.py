"""A dot with its spread a row: times from p10 to p90, accuracies with the deviation of their folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gossamer.charts.svg import WIDTH, Markup, Scale, chart, element, label, ticks, tooltip
from gossamer.host import text

LEFT, RIGHT, ROW, TOP = 8, WIDTH - 12, 38.0, 14.0
LEGEND = 16.0  # height of a line of the key
SYMBOL = 6.0  # width of the symbol of a key
LOGARITHMIC_FROM = (
    20.0  # ratio of the largest value to the smallest: on a linear axis from 0 the small ones cannot be seen
)
FAR = 3.0  # times the largest value that the end of a spread is, from which it is left outside the axis


@dataclass(frozen=True)
class Interval:
    """A row: its value between `low` and `high`, nan for none; written: the value in words.

    colour: the class that colours it. second: another value, drawn as a diamond.
    """

    name: str
    low: float
    value: float
    high: float
    written: str = ""
    colour: str = "a"
    second: float = math.nan


@dataclass(frozen=True)
class KeyEntry:
    """A line of the key: the symbol ("dot", "diamond", "dashed"), the class that colours it, what it stands for."""

    symbol: str
    colour: str
    name: str


def interval_chart(
    name: str,
    rows: Sequence[Interval],
    *,
    axis: str = "",
    title: str = "",
    from_zero: bool = True,
    reference: float = math.nan,
    key: Sequence[KeyEntry] = (),
) -> Markup:
    """A dot a row on a line from low to high.

    axis: written below the scale. title: above the rows. from_zero: else the scale begins near the smallest value.
    reference: a value with a dashed line. key: what the symbols and colours stand for. Where values that begin at 0 differ
    LOGARITHMIC_FROM times, the axis is logarithmic; the end of a spread FAR beyond all values is cut off. Notes report both.
    """
    middles = [value for row in rows for value in (row.value, row.second, reference) if math.isfinite(value)]
    ends = [value for row in rows for value in (row.low, row.high) if math.isfinite(value)]
    limit = FAR * max(middles, default=0.0) if from_zero else math.inf
    beyond = sum(1 for row in rows if math.isfinite(row.high) and row.high > limit > 0)
    values = [*middles, *(value for value in ends if not value > limit > 0)]
    logarithmic = from_zero and min(values) > 0 and max(middles) >= LOGARITHMIC_FROM * min(middles)
    across = LogScale(min(values) / 1.2, max(values) * 1.2, LEFT, RIGHT) if logarithmic else _scale(values, from_zero)
    notes = ["logarithmic"] * logarithmic
    if beyond:
        notes.append(f"{beyond} {'spread ends' if beyond == 1 else 'spreads end'} outside")
    axis = ", ".join(part for part in (axis, *notes) if part)
    top = TOP + (22 if title else 0)
    bottom = top + len(rows) * ROW - 10
    parts = [label(text.truncated(title, 54), LEFT, 14, class_="strong")] if title else []
    for value in across.ticks() if isinstance(across, LogScale) else ticks(across.low, across.high, 5):
        parts.append(element("line", x1=across(value), x2=across(value), y1=top - 10, y2=bottom, class_="grid"))
        parts.append(label(text.tick(value), across(value), bottom + 16, text_anchor="middle"))
    if math.isfinite(reference):
        place = across(reference)
        parts.append(element("line", x1=place, x2=place, y1=top - 10, y2=bottom, class_="rule dashed"))
    for index, row in enumerate(rows):
        parts += _row(row, across, top + index * ROW)
    height = bottom + 24
    if axis:
        height += 14
        parts.append(label(axis, RIGHT, height - 6, class_="soft", text_anchor="end"))
    for entry in key:
        height += LEGEND
        parts += [_symbol(entry, LEFT + SYMBOL, height - 8), label(entry.name, LEFT + 20, height - 4, class_="soft")]
    summary = "; ".join(f"{row.name}: {_in_words(row)}" for row in rows)
    return chart(WIDTH, height + 2, f"{name}. {summary}.", *parts)


@dataclass(frozen=True)
class LogScale:
    """Maps low..high, above 0, onto start..end by their logarithms."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        place = Scale(math.log10(self.low), math.log10(self.high), self.start, self.end)
        return place(math.log10(max(value, self.low))) if value > 0 else self.start

    def ticks(self) -> list[float]:
        """Powers of ten, and twice and five times these where there are few."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        few = math.log10(self.high / self.low) < 3
        values = [step * 10.0**power for power in powers for step in ((1, 2, 5) if few else (1,))]
        return [round(value, 12) for value in values if self.low <= value <= self.high]


def _scale(values: Sequence[float], from_zero: bool) -> Scale:
    low, high = min(values), max(values)
    if from_zero:
        return Scale(0, high * 1.12 or 1.0, LEFT, RIGHT)
    pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return Scale(low - pad, high + pad, LEFT, RIGHT)


def _row(row: Interval, across: Scale | LogScale, y: float) -> list[Markup]:
    parts = [label(text.truncated(row.name, 44), LEFT, y + 2, class_="halo")]
    if row.written:
        parts.append(label(row.written, RIGHT, y + 2, class_="halo", text_anchor="end"))
    if math.isfinite(row.low) and math.isfinite(row.high):
        end = across(row.high)
        ends = {"x1": across(row.low), "x2": min(end, RIGHT), "y1": y + 14, "y2": y + 14}
        parts.append(element("line", **ends, class_=f"line thick {row.colour}"))
        if end > RIGHT:
            arrow = f"M{RIGHT - 2:.1f} {y + 9:.1f}L{RIGHT + 6:.1f} {y + 14:.1f}L{RIGHT - 2:.1f} {y + 19:.1f}Z"
            parts.append(
                element("path", tooltip(f"to {text.significant(row.high)}"), d=arrow, class_=f"fill {row.colour}")
            )
    parts.append(element("circle", cx=across(row.value), cy=y + 14, r=4.5, class_=f"fill {row.colour}"))
    if math.isfinite(row.second):
        parts.append(_diamond(across(row.second), y + 14))
    return parts


def _diamond(x: float, y: float) -> Markup:
    corners = f"M{x:.1f} {y - 6:.1f}L{x + 6:.1f} {y:.1f}L{x:.1f} {y + 6:.1f}L{x - 6:.1f} {y:.1f}Z"
    return element("path", d=corners, class_="ring")


def _symbol(entry: KeyEntry, x: float, y: float) -> Markup:
    if entry.symbol == "diamond":
        return _diamond(x, y)
    if entry.symbol == "dashed":
        return element("line", x1=x - SYMBOL, x2=x + SYMBOL, y1=y, y2=y, class_="rule dashed")
    return element("circle", cx=x, cy=y, r=4.5, class_=f"fill {entry.colour}")


def _in_words(row: Interval) -> str:
    second = f", {text.significant(row.second)}" if math.isfinite(row.second) else ""
    return f"{text.significant(row.value)}, from {text.significant(row.low)} to {text.significant(row.high)}{second}"

"""Charts whose sides are shares from 0 to 1: precision by recall, accepted pairs by false accepts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from gossamer.report.figures import WIDTH
from gossamer.report.svg import Scale, drawing, tag, text

LEFT, RIGHT, TOP = 50, WIDTH - 12, 10
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Line(NamedTuple):
    """Points of a line, shares 0..1, and its classes of style."""

    xs: Sequence[float]
    ys: Sequence[float]
    style: str


class Axis(NamedTuple):
    """What an axis shows. decades: powers of ten below 1 that a logarithmic one spans; 0 for an even one."""

    name: str
    decades: int = 0

    def place(self, share: float) -> float:
        """Where a share lies, 0..1; what a logarithmic axis does not reach lies at its end."""
        if not self.decades:
            return share
        return 1 + math.log10(max(share, 10.0**-self.decades)) / self.decades

    def marks(self) -> list[float]:
        """The shares that are written beside it."""
        return [10.0**-power for power in range(self.decades, -1, -1)] if self.decades else list(QUARTERS)


def chart(
    label: str,
    lines: Sequence[Line],
    across: Axis,
    up: str,
    *,
    height: int = 200,
    ring: tuple[float, float] | None = None,
    rule: float | None = None,
) -> str:
    """Lines over shares. up: what the y axis shows. ring: a point to be marked. rule: a share with a vertical line."""
    bottom = height - 40
    x, y = Scale(0, 1, LEFT, RIGHT), Scale(0, 1, bottom, TOP)
    parts = []
    for value in QUARTERS:
        parts.append(tag("line", x1=LEFT, x2=RIGHT, y1=y(value), y2=y(value), class_="grid"))
        parts.append(text(f"{value * 100:.0f}", LEFT - 6, y(value) + 4, text_anchor="end"))
    for value in across.marks():
        place = x(across.place(value))
        anchor = "end" if across.decades and value == 1 else "middle"
        parts.append(text(f"{value * 100:g}", place, bottom + 16, text_anchor=anchor))
    if rule is not None:
        place = x(across.place(rule))
        parts.append(tag("line", x1=place, x2=place, y1=TOP, y2=bottom, class_="rule dashed"))
    for one in lines:
        points = [(x(across.place(a)), y(b)) for a, b in zip(one.xs, one.ys) if math.isfinite(a) and math.isfinite(b)]
        if points:
            path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
            parts.append(tag("path", d=path, class_=f"line {one.style}"))
    if ring and all(map(math.isfinite, ring)):
        parts.append(tag("circle", cx=x(across.place(ring[0])), cy=y(ring[1]), r=4.5, class_="ring"))
    parts.append(text(f"{up}, %", LEFT + 6, TOP + 12, class_="soft halo"))
    parts.append(text(f"{across.name}, %", RIGHT, height - 6, class_="soft", text_anchor="end"))
    return drawing(WIDTH, height, label, *parts)


class Column(NamedTuple):
    """A bar of a histogram: the range it counts, and how many."""

    low: float
    high: float
    amount: int


def histogram(what: str, columns: Sequence[Column], unit: str, marks: Sequence[float] = ()) -> str:
    """Bars over ranges on a logarithmic axis, powers of two written below. marks: values with a dashed line."""
    height, bottom = 220, 180
    low, high = columns[0].low, columns[-1].high
    x = Scale(math.log2(low), math.log2(high), LEFT, RIGHT)
    largest = max(column.amount for column in columns) or 1
    y = Scale(0, largest, bottom, TOP + 12)
    parts = [tag("line", x1=LEFT, x2=RIGHT, y1=bottom, y2=bottom, class_="rule")]
    for column in columns:
        left, right = x(math.log2(column.low)), x(math.log2(column.high))
        top = y(column.amount)
        parts.append(tag("rect", x=left + 0.75, y=top, width=right - left - 1.5, height=bottom - top, class_="fill a"))
    for value in (2.0**power for power in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)):
        parts.append(text(f"{value:g}", x(math.log2(value)), bottom + 16, text_anchor="middle"))
    for value in marks:
        if low < value < high:
            place = x(math.log2(value))
            parts.append(tag("line", x1=place, x2=place, y1=TOP, y2=bottom, class_="rule dashed"))
    parts.append(text(f"{largest}", LEFT - 6, y(largest) + 4, text_anchor="end"))
    parts.append(text("0", LEFT - 6, bottom + 4, text_anchor="end"))
    parts.append(text(unit, RIGHT, height - 6, class_="soft", text_anchor="end"))
    said = "; ".join(f"{c.low:.3g} to {c.high:.3g}: {c.amount}" for c in columns if c.amount)
    return drawing(WIDTH, height, f"{what}. {said}.", *parts)

"""ROC and precision-recall charts, whose axes are rates from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from gossamer.charts.svg import WIDTH, Markup, Scale, chart, element, label, path

LEFT, RIGHT, TOP = 50, WIDTH - 12, 24
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


class RateCurve(NamedTuple):
    """Points of a line, rates 0..1, and its classes of style."""

    xs: Sequence[float]
    ys: Sequence[float]
    style: str


class RateAxis(NamedTuple):
    """What an axis shows. decades: powers of ten below 1 that a logarithmic one spans; 0 for a linear one."""

    name: str
    decades: int = 0

    def place(self, rate: float) -> float:
        """The position of a rate, 0..1; a value beyond a logarithmic axis is at its end."""
        if not self.decades:
            return rate
        return 1 + math.log10(max(rate, 10.0**-self.decades)) / self.decades

    def marks(self) -> list[float]:
        """The rates that are written beside it."""
        return [10.0**-power for power in range(self.decades, -1, -1)] if self.decades else list(QUARTERS)


def rate_chart(
    description: str,
    curves: Sequence[RateCurve],
    across: RateAxis,
    up: str,
    *,
    height: int = 214,
    ring: tuple[float, float] | None = None,
    rule: float | None = None,
) -> Markup:
    """Curves over rates. up: what the y axis shows. ring: a point to be marked. rule: a rate with a vertical line."""
    bottom = height - 40
    x, y = Scale(0, 1, LEFT, RIGHT), Scale(0, 1, bottom, TOP)
    parts = []
    for value in QUARTERS:
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=y(value), y2=y(value), class_="grid"))
        parts.append(label(f"{value * 100:.0f}", LEFT - 6, y(value) + 4, text_anchor="end"))
    for value in across.marks():
        place = x(across.place(value))
        anchor = "end" if across.decades and value == 1 else "middle"
        parts.append(label(f"{value * 100:g}", place, bottom + 16, text_anchor=anchor))
    if rule is not None:
        place = x(across.place(rule))
        parts.append(element("line", x1=place, x2=place, y1=TOP, y2=bottom, class_="rule dashed"))
    for curve in curves:
        finite = [(a, b) for a, b in zip(curve.xs, curve.ys) if math.isfinite(a) and math.isfinite(b)]
        if finite:
            places = [(x(across.place(a)), y(b)) for a, b in finite]
            parts.append(element("path", d=path(places), class_=f"line {curve.style}"))
    if ring and all(map(math.isfinite, ring)):
        parts.append(element("circle", cx=x(across.place(ring[0])), cy=y(ring[1]), r=4.5, class_="ring"))
    parts.append(label(f"{up}, %", LEFT, 13, class_="soft"))
    parts.append(label(f"{across.name}, %", RIGHT, height - 6, class_="soft", text_anchor="end"))
    return chart(WIDTH, height, description, *parts)

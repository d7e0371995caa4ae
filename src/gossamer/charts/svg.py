"""SVG elements whose text and attributes are escaped, in one place; scales and round ticks."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

WIDTH = 360  # units: the width of a phone, so that the 12-unit text of a chart is read there as it is written here


class Markup(str):
    """Finished markup: a template of jinja2 inserts it as it is, and escapes every other text."""

    def __html__(self) -> str:
        return self


def element(name: str, *children: Markup, **attributes: object) -> Markup:
    """One element. Attribute values are escaped, None is left out; `class_` is class, `text_anchor` text-anchor."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_written(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{''.join(children)}</{name}>" if children else f"<{name}{written}/>")


def label(content: str, x: float, y: float, **attributes: object) -> Markup:
    """Text with its baseline at (x, y)."""
    return element("text", Markup(html.escape(content)), x=x, y=y, **attributes)


def tooltip(content: str) -> Markup:
    """The note shown when the pointer rests on the element around it."""
    return element("title", Markup(html.escape(content)))


def chart(width: float, height: float, description: str, *children: Markup, **attributes: object) -> Markup:
    """A drawing of width x height units that scales with its box; `description` says in words what it shows."""
    box = f"0 0 {_written(width)} {_written(height)}"
    return element("svg", *children, viewBox=box, role="img", aria_label=description, **attributes)


def empty_chart(name: str) -> Markup:
    """What stands in place of a chart without a number to draw."""
    return chart(WIDTH, 60, f"{name}: no numbers to draw.", label("no numbers to draw", 46, 34, class_="soft"))


def path(points: list[tuple[float, float]]) -> str:
    """The `d` of a path of straight lines through `points`."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _written(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".") if math.isfinite(value) else "0"
    return str(value)


@dataclass(frozen=True)
class Scale:
    """Maps low..high onto start..end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (in steps of 1, 2 or 5 times a power of ten), about `count` of them, inside low..high."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]

"""A few lines of SVG: elements that escape whatever they are given, scales and round ticks."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass


def tag(name: str, *children: str, **attributes: object) -> str:
    """One element. `children` is markup; attribute values are escaped; `class_` is class, `text_anchor` text-anchor."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{''.join(children)}</{name}>" if children else f"<{name}{given}/>"


def text(content: str, x: float, y: float, **attributes: object) -> str:
    """Text with its baseline at (x, y); `content` is escaped."""
    return tag("text", html.escape(content), x=x, y=y, **attributes)


def title(content: str) -> str:
    """The note shown when the pointer rests on the element around it; `content` is escaped."""
    return tag("title", html.escape(content))


def drawing(width: float, height: float, label: str, *children: str) -> str:
    """A picture of width x height units that scales with its box; `label` says in words what it shows."""
    return tag("svg", *children, viewBox=f"0 0 {_value(width)} {_value(height)}", role="img", aria_label=label)


def _value(value: object) -> str:
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
    """Round numbers (1, 2 or 5 times a power of ten apart), about `count` of them, inside low..high."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]

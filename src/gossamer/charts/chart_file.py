"""A chart as a file of its own: SVG that carries its style."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gossamer.charts.svg import Markup
from gossamer.errors import InputError
from gossamer.host.storage import write_text

CHART_STYLE = Path(__file__).parent / "chart.css"
FONT = 'svg text { font-family: system-ui, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }'
ENLARGED = 2  # pixels of the file's own size a unit of the chart
# what HTML and XML forbid in text, and a lone surrogate, which a file name that is not UTF-8 brings and UTF-8 cannot carry
UNPRINTABLE = dict.fromkeys(
    (*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF), "\ufffd"
)


def valid_markup(text: str) -> str:
    """`text` with every character that neither HTML nor XML may hold replaced."""
    return text.translate(UNPRINTABLE)


def check_chart_path(path: str | os.PathLike[str]) -> None:
    """Raises InputError where the name of a chart's file does not end in .svg."""
    kind = Path(path).suffix.lower()
    if kind != ".svg":
        raise InputError(f"{path}: a chart of type {kind or 'none'!r}", ".svg", "give a name that ends in .svg")


def write_chart(path: str | os.PathLike[str], chart: Markup) -> None:
    """Write `chart` (of `svg.chart`) as an SVG file in the light colours. Raises InputError, StorageError."""
    check_chart_path(path)
    write_text(path, svg_file(chart))


def svg_file(chart: Markup) -> str:
    """The text of an SVG file that looks the same in every viewer: no variables, no media queries, a background."""
    size = re.match(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)"', chart)
    assert size, "a chart of svg.chart"
    width, height = (ENLARGED * float(side) for side in size.groups())
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    body = chart.removeprefix("<svg")
    opening, rest = body.split(">", 1)
    return valid_markup(f"{head}{opening}>\n<style>\n{_light_style()}\n</style>\n{background}{rest}\n")


def _light_style() -> str:
    """The rules of chart.css with the light colours in place of its variables."""
    style = re.sub(r"/\*.*?\*/", "", CHART_STYLE.read_text(encoding="utf-8"), flags=re.S)
    style = re.sub(r"@media[^{]*\{\s*:root \{.*?\}\s*\}", "", style, flags=re.S)
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", style))
    style = re.sub(r":root \{.*?\}", "", style, flags=re.S)
    rules = re.sub(r"var\(--([\w-]+)\)", lambda match: colours[match[1]], style)
    return "\n".join(line.strip() for line in (FONT, *rules.splitlines()) if line.strip())

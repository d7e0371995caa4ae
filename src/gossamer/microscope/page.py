"""An inspection as one HTML file: the network drawn as a graph coloured by cost, and the table below it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from gossamer.host.storage import write_text
from gossamer.microscope.inspection import Inspection, Row
from gossamer.microscope.table import count, size

WIDTH, HEIGHT, GAP_X, GAP_Y = 275, 44, 26, 22  # of a box and between boxes, in pixels
MARGIN = 20
FIT = 36  # characters that fit into a box

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5f6b76; --line: #c9d1d9; --paper: #ffffff; --hot: #d9480f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #9aa5b1; --line: #3d4752; --paper: #14181c; --hot: #ff8c42; }
}
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.soft { color: var(--soft); margin-top: 0; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; overflow-wrap: anywhere; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.scroll { overflow: auto; border: 1px solid var(--line); border-radius: 8px; max-height: 85vh; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); } svg text.soft { fill: var(--soft); font-size: 11px; }
svg rect.box { fill: var(--paper); stroke: var(--line); } svg rect.heat { fill: var(--hot); }
svg rect.dear { stroke: var(--hot); stroke-width: 2; }
svg path { fill: none; stroke: var(--soft); stroke-opacity: .55; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: var(--paper); color: var(--soft); font-weight: 600; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; } tr.dear td { color: var(--hot); }
"""


class Box(NamedTuple):
    """Where a row is drawn: the left upper corner."""

    x: int
    y: int


def write(found: Inspection, path: str | os.PathLike[str]) -> None:
    """Write the page; nothing in it is fetched from elsewhere. Raises StorageError."""
    write_text(path, render(found))


def render(found: Inspection) -> str:
    """The page as HTML text."""
    whole, timing = found.cost, found.timing
    figures = [
        ("parameters", f"{whole.params:,}"),
        ("MACs (multiply-adds)", f"{whole.macs:,}"),
        ("FLOPs (2 a MAC)", f"{2 * whole.macs:,}"),
        ("weights", size(whole.weight_bytes)),
        ("peak activation memory", size(whole.peak_bytes)),
        ("it peaks at", whole.peak_layer),
    ]
    if timing:
        figures.append(("one call, median (quartiles)", "{:.2f} ms ({:.2f}-{:.2f})".format(*timing.whole)))
        figures.append(("timed in", f"{timing.runtime}, {timing.threads} thread(s), {timing.rounds} rounds"))
    if whole.unknown:
        figures.append(("not counted", ", ".join(f"{name} ({number})" for name, number in whole.unknown.items())))
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in figures)
    by = "time" if timing else "multiply-adds"
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(found.target)}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style></head><body>"
        f"<h1>{escape(found.target)}</h1>"
        f'<p class="soft">input {"x".join(map(str, whole.input_shape))}</p><dl>{cells}</dl>'
        f'<h2>Layers, coloured by {by}</h2><p class="soft">The bar is the share of the costliest layer; '
        f"point at a box for its figures.</p>"
        f'<div class="scroll">{_drawing(found)}</div>'
        f'<h2>Table</h2><div class="scroll">{_table(found)}</div></body></html>\n'
    )


def layout(rows: Sequence[Row]) -> list[Box]:
    """A box for each row: below all that it reads, beside others of the same depth, none upon another.

    A row takes the column of the first row it reads where that is free, so that a chain runs straight down.
    """
    depth: list[int] = []
    column: list[int] = []
    taken: set[tuple[int, int]] = set()
    for row in rows:
        above = [index for index in row.inputs if index >= 0]
        level = 1 + max((depth[index] for index in above), default=-1)
        wanted = column[above[0]] if above else 0
        if len(above) > 1:  # where branches meet, the path goes on in the leftmost
            wanted = min(column[index] for index in above)
        place = wanted
        while (level, place) in taken:
            place += 1
        taken.add((level, place))
        depth.append(level)
        column.append(place)
    return [
        Box(MARGIN + place * (WIDTH + GAP_X), MARGIN + level * (HEIGHT + GAP_Y)) for level, place in zip(depth, column)
    ]


def _drawing(found: Inspection) -> str:
    boxes = layout(found.rows)
    wide = max((box.x for box in boxes), default=0) + WIDTH + MARGIN
    high = max((box.y for box in boxes), default=0) + HEIGHT + MARGIN
    parts = [f'<svg width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" role="img" aria-label="the network">']
    for row, box in zip(found.rows, boxes):
        parts += [_edge(boxes[index], box) for index in row.inputs if index >= 0]
    costs = [row.ms if found.timing else row.macs for row in found.rows]
    most = max((cost for cost in costs if cost), default=1)
    for row, box, cost in zip(found.rows, boxes, costs):
        parts.append(_box(found, row, box, (cost or 0) / most))
    return "".join(parts) + "</svg>"


def _edge(above: Box, below: Box) -> str:
    """From the bottom of one box to the top of another; past the boxes between, on the left."""
    x0, y0 = above.x + WIDTH // 2, above.y + HEIGHT
    x1, y1 = below.x + WIDTH // 2, below.y
    if below.y - above.y > HEIGHT + GAP_Y and above.x == below.x:
        side = above.x - MARGIN // 2
        return f'<path d="M{above.x} {y0 - HEIGHT // 2} C{side} {y0} {side} {y1} {below.x} {y1 + HEIGHT // 2}"/>'
    middle = (y0 + y1) // 2
    return f'<path d="M{x0} {y0} C{x0} {middle} {x1} {middle} {x1} {y1}"/>'


def _box(found: Inspection, row: Row, box: Box, heat: float) -> str:
    figures = [
        f"{row.name}: {row.what}",
        f"output {'x'.join(map(str, row.output_shape))}",
        f"{row.params:,} parameters",
        "MACs unknown" if row.macs is None else f"{row.macs:,} MACs",
        f"reads {size(row.read_bytes)}, writes {size(row.write_bytes)}, weights {size(row.weight_bytes)}",
        f"sees {row.field} pixels of the input",
        f"{size(row.live_bytes)} of activations alive",
    ]
    if row.ms is not None:
        figures.append(f"{row.ms:.3f} ms ({row.ms_low:.3f}-{row.ms_high:.3f})")
    shown = "x".join(map(str, row.output_shape[1:]))
    cost = count(row.macs) + " MACs" if row.ms is None else f"{row.ms:.3f} ms"
    return (
        f'<g><title>{escape(chr(10).join(figures))}</title><rect class="box{" dear" if found.dear(row) else ""}" '
        f'x="{box.x}" y="{box.y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<rect class="heat" x="{box.x + 1}" y="{box.y + HEIGHT - 5}" width="{round((WIDTH - 2) * heat, 1)}" height="4"/>'
        f'<text x="{box.x + 8}" y="{box.y + 16}">{escape(_short(row.what))}</text>'
        f'<text class="soft" x="{box.x + 8}" y="{box.y + 32}">{escape(_short(f"{row.name}  {shown}  {cost}", 42))}</text></g>'
    )


def _short(text: str, length: int = FIT) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _table(found: Inspection) -> str:
    header = ["layer", "what", "output", "parameters", "MACs", "read", "written", "MACs a byte", "field", "alive"]
    if found.timing:
        header += ["ms", "quartiles"]
    head = "".join(f"<th>{name}</th>" for name in header)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(_lines(found))}</tbody></table>"


def _lines(found: Inspection) -> Iterator[str]:
    for row in found.rows:
        cells = [
            row.name,
            row.what,
            "x".join(map(str, row.output_shape[1:])),
            f"{row.params:,}",
            "?" if row.macs is None else f"{row.macs:,}",
            size(row.read_bytes),
            size(row.write_bytes),
            "?" if row.intensity is None else f"{row.intensity:.1f}",
            row.field,
            size(row.live_bytes),
        ]
        if found.timing:
            times = ("", "") if row.ms is None else (f"{row.ms:.3f}", f"{row.ms_low:.3f}-{row.ms_high:.3f}")
            cells += times
        marked = ' class="dear"' if found.dear(row) else ""
        yield f"<tr{marked}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"

"""A network drawn as a graph: a box a row with bars of its cost, below all that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from gossamer.charts.svg import Markup, chart, element, label, tooltip
from gossamer.host.text import binary_bytes, dimensions, si_number, truncated
from gossamer.microscope.inspection import Inspection, Row

WIDTH, HEIGHT, GAP_X, GAP_Y = 275, 46, 26, 20  # of a box and between boxes, in pixels
MARGIN = 12
LEVELS = 10  # rows of boxes in a column of the page
FIT = 38  # characters that fit into a line of a box, what stands at its right end among them


class LayerBox(NamedTuple):
    """Where a row is drawn: the left upper corner."""

    x: int
    y: int


class Largest(NamedTuple):
    """The cost of the most expensive rows: multiply-adds, milliseconds; 0 where nothing is measured."""

    macs: int
    ms: float

    def bars(self, row: Row) -> list[tuple[str, float]]:
        """(colour, fraction of the largest) of a row's multiply-adds and, where measured, of its time."""
        bars = [("a", (row.macs or 0) / max(1, self.macs))]
        return [*bars, ("b", (row.ms or 0.0) / self.ms)] if self.ms else bars


def layout(rows: Sequence[Row]) -> list[LayerBox]:
    """A box for each row: below all that it reads, beside others of the same depth, none upon another.

    A row takes the column of the first row it reads where that is free, so that a chain runs straight down.
    """
    depth: list[int] = []
    column: list[int] = []
    occupied: set[tuple[int, int]] = set()
    for row in rows:
        above = [index for index in row.inputs if index >= 0]
        level = 1 + max((depth[index] for index in above), default=-1)
        wanted = column[above[0]] if above else 0
        if len(above) > 1:  # where branches meet, the path continues in the leftmost
            wanted = min(column[index] for index in above)
        place = wanted
        while (level, place) in occupied:
            place += 1
        occupied.add((level, place))
        depth.append(level)
        column.append(place)
    return [
        LayerBox(MARGIN + place * (WIDTH + GAP_X), MARGIN + level * (HEIGHT + GAP_Y))
        for level, place in zip(depth, column)
    ]


def network_charts(inspection: Inspection, marks: Mapping[int, tuple[str, str]] = MappingProxyType({})) -> list[Markup]:
    """The boxes and the lines between them, cut into pieces of LEVELS rows that stand side by side, or below each other.

    marks: of rows by their number, a short text that stands above the box, and a longer one for its tooltip.
    A line that leaves a piece at its lower edge enters the next one at its upper edge, at the same place.
    """
    boxes = layout(inspection.rows)
    width = max((box.x for box in boxes), default=0) + WIDTH + MARGIN
    edges = [(boxes[index], box) for row, box in zip(inspection.rows, boxes) for index in row.inputs if index >= 0]
    macs, times = [row.macs or 0 for row in inspection.rows], [row.ms or 0.0 for row in inspection.rows]
    largest = Largest(max(macs, default=0), max(times, default=0.0))
    pieces = []
    for first in range(0, max((_level(box) for box in boxes), default=0) + 1, LEVELS):
        inside = [index for index, box in enumerate(boxes) if first <= _level(box) < first + LEVELS]
        rows = max(_level(boxes[index]) for index in inside) + 1 - first
        top, height = first * (HEIGHT + GAP_Y) + MARGIN - GAP_Y // 2, rows * (HEIGHT + GAP_Y)
        parts = [_edge(above, below) for above, below in edges if above.y + HEIGHT <= top + height and below.y >= top]
        parts += [_box(inspection, inspection.rows[index], boxes[index], largest, marks.get(index)) for index in inside]
        description = f"{inspection.target}: layers {inside[0] + 1} to {inside[-1] + 1} of {len(boxes)}, each below those that it reads"
        # the drawing is moved up instead of its view down, so that every piece begins at 0
        moved = element("g", *parts, transform=f"translate(0 {-top})")
        pieces.append(chart(width, height, description, moved, class_="piece", style=f"--w:{width}px"))
    return pieces


def _level(box: LayerBox) -> int:
    return (box.y - MARGIN) // (HEIGHT + GAP_Y)


def _edge(above: LayerBox, below: LayerBox) -> Markup:
    """From the bottom of one box to the top of another; past the boxes between, on the left."""
    x0, y0 = above.x + WIDTH // 2, above.y + HEIGHT
    x1, y1 = below.x + WIDTH // 2, below.y
    if below.y - above.y > HEIGHT + GAP_Y and above.x == below.x:
        side = above.x - MARGIN // 2
        curve = f"M{above.x} {y0 - HEIGHT // 2} C{side} {y0} {side} {y1} {below.x} {y1 + HEIGHT // 2}"
    else:
        middle = (y0 + y1) // 2
        curve = f"M{x0} {y0} C{x0} {middle} {x1} {middle} {x1} {y1}"
    return element("path", d=curve, class_="edge")


def _box(
    inspection: Inspection, row: Row, box: LayerBox, largest: Largest, mark: tuple[str, str] | None = None
) -> Markup:
    """A box with its figures as tooltip, its bars below: the cost of the layer over that of the most expensive one."""
    figures = [
        f"{row.name}: {row.what}",
        f"output {dimensions(row.output_shape)}",
        f"{row.params:,} parameters",
        "MACs unknown" if row.macs is None else f"{row.macs:,} MACs",
        f"reads {binary_bytes(row.read_bytes)}, writes {binary_bytes(row.write_bytes)}, "
        f"weights {binary_bytes(row.weight_bytes)}",
        f"receptive field {row.field} pixels of the input",
        f"{binary_bytes(row.live_bytes)} of live activations",
    ]
    if row.ms is not None:
        figures.append(f"{row.ms:.3f} ms ({row.ms_low:.3f}-{row.ms_high:.3f})")
    if inspection.is_bottleneck(row):
        figures.append("takes far more of the time than of the multiply-adds")
    if mark:
        figures.append(mark[1])
    counted = "?" if row.macs is None else si_number(row.macs)
    cost = counted if inspection.timing is None else "" if row.ms is None else f"{row.ms:.3f}"
    cost = "" if cost == "0" else cost
    shape = dimensions(row.output_shape[1:])
    frame = "layer bottleneck" if mark or inspection.is_bottleneck(row) else "layer"
    parts = [
        tooltip("\n".join(figures)),
        element("rect", x=box.x, y=box.y, width=WIDTH, height=HEIGHT, rx=6, class_=frame),
        label(truncated(row.what, FIT - len(cost)), box.x + 8, box.y + 16),
        label(truncated(row.name, FIT + 2 - len(shape)), box.x + 8, box.y + 31, class_="soft small"),
        label(shape, box.x + WIDTH - 8, box.y + 31, class_="soft small", text_anchor="end"),
    ]
    if mark:
        parts.append(label(mark[0], box.x + WIDTH - 8, box.y - 2, class_="small mark", text_anchor="end"))
    if cost:
        parts.append(label(cost, box.x + WIDTH - 8, box.y + 16, text_anchor="end"))
    for place, (colour, fraction) in enumerate(largest.bars(row)):
        bar = {"x": box.x + 8, "y": box.y + HEIGHT - 9 + 4 * place, "width": (WIDTH - 16) * fraction, "height": 3}
        parts.append(element("rect", **bar, class_=f"fill {colour}"))
    return element("g", *parts)

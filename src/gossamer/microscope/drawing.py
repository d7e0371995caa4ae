"""A network drawn as a graph: a box a row, coloured by cost, below all that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gossamer.charts.svg import Markup, chart, element, label, tooltip
from gossamer.host.text import binary_bytes, compact_count, dimensions, truncated
from gossamer.microscope.inspection import Inspection, Row

WIDTH, HEIGHT, GAP_X, GAP_Y = 275, 44, 26, 22  # of a box and between boxes, in pixels
MARGIN = 20
FIT, FIT_SMALL = 36, 42  # characters that fit into a box, in the first and in the second line


class Box(NamedTuple):
    """Where a row is drawn: the left upper corner."""

    x: int
    y: int


def layout(rows: Sequence[Row]) -> list[Box]:
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
        Box(MARGIN + place * (WIDTH + GAP_X), MARGIN + level * (HEIGHT + GAP_Y)) for level, place in zip(depth, column)
    ]


def network_chart(inspection: Inspection) -> Markup:
    """The boxes and the lines between them, in pixels."""
    boxes = layout(inspection.rows)
    width = max((box.x for box in boxes), default=0) + WIDTH + MARGIN
    height = max((box.y for box in boxes), default=0) + HEIGHT + MARGIN
    parts = [_edge(boxes[index], box) for row, box in zip(inspection.rows, boxes) for index in row.inputs if index >= 0]
    costs = [(row.ms if inspection.timing else row.macs) or 0 for row in inspection.rows]
    largest = max(costs, default=0) or 1
    parts += [_box(inspection, row, box, cost / largest) for row, box, cost in zip(inspection.rows, boxes, costs)]
    description = f"{inspection.target}: {len(boxes)} layers, each below those that it reads"
    return chart(width, height, description, *parts, style=f"width:{width}px")


def _edge(above: Box, below: Box) -> Markup:
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


def _box(inspection: Inspection, row: Row, box: Box, heat: float) -> Markup:
    """A box with its figures as tooltip; heat: 0..1, its cost over the largest."""
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
    cost = compact_count(row.macs) + " MACs" if row.ms is None else f"{row.ms:.3f} ms"
    second = f"{row.name}  {dimensions(row.output_shape[1:])}  {cost}"
    frame = "layer bottleneck" if inspection.is_bottleneck(row) else "layer"
    bar = {"x": box.x + 1, "y": box.y + HEIGHT - 5, "width": (WIDTH - 2) * heat, "height": 4}
    return element(
        "g",
        tooltip("\n".join(figures)),
        element("rect", x=box.x, y=box.y, width=WIDTH, height=HEIGHT, rx=6, class_=frame),
        element("rect", **bar, class_="fill b"),
        label(truncated(row.what, FIT), box.x + 8, box.y + 16),
        label(truncated(second, FIT_SMALL), box.x + 8, box.y + 32, class_="soft small"),
    )

"""An inspection as one HTML file: the network drawn as a graph coloured by cost, and the table below it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import gossamer
from gossamer.charts import page
from gossamer.host.storage import write_text
from gossamer.host.text import binary_bytes, dimensions, fixed, grouped, operator_name, si_number, thread_count
from gossamer.microscope.drawing import network_chart
from gossamer.microscope.inspection import Inspection, Row

FOLDER = Path(__file__).parent
HEADER = ("output", "parameters", "MACs", "read", "written", "MACs per byte", "receptive field", "live activations")


class Figure(NamedTuple):
    """A number of the headline."""

    name: str
    value: str
    note: str


def write_inspection(inspection: Inspection, path: str | os.PathLike[str]) -> None:
    """Write the page; nothing in it is fetched from elsewhere. Raises StorageError, MissingPackageError."""
    write_text(path, inspection_html(inspection))


def inspection_html(inspection: Inspection) -> str:
    """The page as HTML text. Raises MissingPackageError."""
    values = {
        "version": gossamer.__version__,
        "title": f"{inspection.target} – layers",
        "target": inspection.target,
        "input": dimensions(inspection.cost.input_shape),
        "figures": _figures(inspection),
        "by": "time" if inspection.timing else "multiply-adds",
        "chart": network_chart(inspection),
        "header": (*HEADER, "ms", "quartiles") if inspection.timing else HEADER,
        "rows": [
            (row.name, row.what, inspection.is_bottleneck(row), _cells(row, inspection.timing is not None))
            for row in inspection.rows
        ],
    }
    templates = page.environment(FOLDER, "the page of an inspection")
    return page.render_page(templates, "inspection.html", values, [FOLDER / "inspection.css"])


def _figures(inspection: Inspection) -> list[Figure]:
    cost, timing = inspection.cost, inspection.timing
    figures = [
        Figure("Parameters", si_number(cost.params), f"{grouped(cost.params)} in all"),
        Figure("MACs", si_number(cost.macs), f"{cost.macs:,} multiply-adds, {2 * cost.macs:,} FLOPs"),
        Figure("Weights", binary_bytes(cost.weight_bytes), "as the network holds them"),
        Figure("Peak activation memory", binary_bytes(cost.peak_bytes), f"at {cost.peak_layer}"),
    ]
    if timing:
        median, low, high = timing.network
        runtime = f"{timing.runtime}, {thread_count(timing.threads)}, {timing.rounds} rounds"
        figures.append(Figure("Latency", f"{median:.2f} ms", f"quartiles {low:.2f}-{high:.2f} ms; {runtime}"))
    if cost.unknown:
        names = ", ".join(f"{operator_name(name)} ({times})" for name, times in cost.unknown.items())
        figures.append(Figure("Not counted", str(sum(cost.unknown.values())), f"operators without a formula: {names}"))
    return figures


def _cells(row: Row, timed: bool) -> list[str]:
    cells = [
        dimensions(row.output_shape[1:]),
        f"{row.params:,}",
        "?" if row.macs is None else f"{row.macs:,}",
        binary_bytes(row.read_bytes),
        binary_bytes(row.write_bytes),
        fixed(row.intensity, 1),
        row.field,
        binary_bytes(row.live_bytes),
    ]
    if timed:
        cells += ["", ""] if row.ms is None else [f"{row.ms:.3f}", f"{row.ms_low:.3f}-{row.ms_high:.3f}"]
    return cells

"""An inspection as one HTML file: its stages, the network drawn as a graph with bars of cost, the table of its layers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import gossamer
from gossamer.analysis.names import layer_path, operator_name
from gossamer.charts import page
from gossamer.charts.stages import stage_chart, stage_series, stage_table
from gossamer.host.storage import write_text
from gossamer.host.text import (
    binary_bytes,
    counted,
    dimensions,
    fixed,
    grouped,
    milliseconds,
    percent,
    si_number,
    thread_count,
)
from gossamer.microscope.drawing import network_charts
from gossamer.microscope.inspection import BOTTLENECK, NOTICED, Inspection, Row
from gossamer.microscope.timing import Timing

FOLDER = Path(__file__).parent
HEADER = ("output", "parameters", "MACs", "read", "written", "MACs per byte", "receptive field", "live")


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
    timing = inspection.timing
    stages = inspection.stage_rows()
    heads, stage_rows = stage_table(stages)
    values = {
        "version": gossamer.__version__,
        "title": f"{inspection.target} – layers",
        "target": inspection.target,
        "input": dimensions(inspection.cost.input_shape),
        "figures": _figures(inspection),
        "stage_chart": stage_chart(stages),
        "stage_series": stage_series(stages),
        "stage_heads": heads,
        "stages": stage_rows,
        "timed_by": _timed_by(timing) if timing else "",
        "own": milliseconds(sum(timing.own.values())) if timing and timing.own else "",
        "largest": _largest(inspection),
        "bottleneck": f"over {BOTTLENECK:g} times its fraction of the multiply-adds, and {percent(NOTICED, 0)} of the time or more",
        "pieces": network_charts(inspection),
        "header": (*HEADER, "ms", "quartiles, ms") if timing else HEADER,
        "rows": [
            (row.name, row.what, inspection.is_bottleneck(row), _cells(row, timing is not None))
            for row in inspection.rows
        ],
    }
    templates = page.environment(FOLDER, "the page of an inspection")
    return page.render_page(templates, "inspection.html", values, [FOLDER / "inspection.css"])


def _figures(inspection: Inspection) -> list[Figure]:
    cost, timing = inspection.cost, inspection.timing
    figures = [
        Figure("Parameters", si_number(cost.params), f"{grouped(cost.params)} in all"),
        Figure("MACs", si_number(cost.macs), f"{grouped(cost.macs)} multiply-adds, {grouped(2 * cost.macs)} FLOPs"),
        Figure("Weights", binary_bytes(cost.weight_bytes), "as the network holds them"),
        Figure("Peak activation memory", binary_bytes(cost.peak_bytes), f"at {layer_path(cost.peak_layer)}"),
    ]
    if inspection.latency:
        figures.append(Figure("Latency", milliseconds(inspection.latency.ms), inspection.latency.note))
    if timing:
        median, low, high = timing.network
        note = (
            f"median of one call, quartiles {low:.2f} to {high:.2f}; {_timed_by(timing)}; not the latency in deployment"
        )
        figures.append(Figure("Time here", milliseconds(median), note))
    if cost.unknown:
        names = ", ".join(f"{operator_name(name)} ({times})" for name, times in cost.unknown.items())
        figures.append(Figure("Not counted", str(sum(cost.unknown.values())), f"operators without a formula: {names}"))
    return figures


def _timed_by(timing: Timing) -> str:
    """What the times of the layers are."""
    return f"{timing.runtime}, {thread_count(timing.threads)}, float32, {counted(timing.rounds, 'round')}" + (
        f", {timing.cpu}" if timing.cpu else ""
    )


def _largest(inspection: Inspection) -> str:
    """The cost of the most expensive layer, for the key of the bars."""
    macs = f"{si_number(max((row.macs or 0 for row in inspection.rows), default=0))} MACs"
    times = [row.ms for row in inspection.rows if row.ms is not None]
    return f"{macs}, {milliseconds(max(times))}" if times else macs


def _cells(row: Row, timed: bool) -> list[str]:
    cells = [
        dimensions(row.output_shape[1:]),
        grouped(row.params) if row.params else "",
        "?" if row.macs is None else grouped(row.macs) if row.macs else "",
        binary_bytes(row.read_bytes),
        binary_bytes(row.write_bytes),
        fixed(row.intensity, 1),
        row.field,
        binary_bytes(row.live_bytes),
    ]
    if timed:
        cells += ["", ""] if row.ms is None else [f"{row.ms:.3f}", f"{row.ms_low:.3f} to {row.ms_high:.3f}"]
    return cells

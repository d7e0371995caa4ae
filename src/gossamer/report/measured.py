"""What was measured of the network and its file: checks, the cost by stage, latencies."""

from __future__ import annotations

import math
from typing import NamedTuple

from gossamer.report import figures, formats
from gossamer.report.contents import ExportedFile, ReportData, stages
from gossamer.report.figures import Bar, Range

PLOTTED_LATENCIES = 16
PLOTTED_STAGES = 16


class Check(NamedTuple):
    """One row of what verifying the model file found."""

    what: str
    result: str
    ok: bool


def checks(exported: ExportedFile) -> list[Check]:
    """The checks of the model file."""
    found = exported.verification
    if found is None:
        return [Check("format", exported.problem, False)]
    many = f"{len(found.outputs)} check input{'s' if len(found.outputs) != 1 else ''}"
    same = sum(check.same for check in found.pixels)
    return [
        Check("format and SHA-256", found.sha256, True),
        Check(
            "outputs",
            f"{many}: differ by at most {found.largest_difference:.2g}, "
            f"allowed {found.tolerance:.2g}, with {found.runtime} ({found.why})",
            found.ok,
        ),
        Check(
            "preprocessing",
            f"pixels of {same} of {len(found.pixels)} check images are the same",
            same == len(found.pixels),
        ),
    ]


def stage_plot(data: ReportData) -> str:
    """Multiply-adds and parameters of each stage; "" where there are too few or too many."""
    parts = [one for one in stages(data.cost.layers) if one.macs or one.params]
    if not 1 < len(parts) <= PLOTTED_STAGES:
        return ""  # of a network without stages the table of layers says it all

    def bar(name: str, macs: int, params: int) -> Bar:
        shares = macs / max(data.cost.macs, 1), params / max(data.cost.params, 1)
        return Bar(
            name,
            shares[0],
            f"{formats.percent(shares[0])} · {formats.short(macs)}",
            shares[1],
            f"{formats.percent(shares[1])} · {formats.short(params)}",
        )

    bars = [bar(one.name, one.macs, one.params) for one in parts]
    return figures.pairs_of_bars("Cost by stage", ("multiply-adds", "parameters"), bars)


def latency_plot(data: ReportData) -> str:
    """The latencies with their spread; "" where there are none or too many."""
    rows = [
        Range(
            f"{row.runtime}, {row.threads} thread{'s' if row.threads != 1 else ''}, batch {row.batch}",
            row.p10,
            row.median,
            row.p90,
        )
        for row in data.latencies
        if math.isfinite(row.median)
    ]
    return figures.ranges("Milliseconds a call", rows) if 0 < len(rows) <= PLOTTED_LATENCIES else ""

"""What was measured of the network and its file: checks, the cost by stage, latencies."""

from __future__ import annotations

import math
from typing import NamedTuple

from gossamer.charts.intervals import Interval, interval_chart
from gossamer.charts.svg import Markup
from gossamer.host import text
from gossamer.report.contents import ExportedFile, ReportData

PLOTTED_LATENCIES = 16


class FileCheck(NamedTuple):
    """One row of verifying the model file."""

    what: str
    result: str
    ok: bool


def file_checks(exported: ExportedFile) -> list[FileCheck]:
    """The checks of the model file."""
    verification = exported.verification
    if verification is None:
        return [FileCheck("format", exported.problem, False)]
    many = f"{len(verification.outputs)} check input{'s' if len(verification.outputs) != 1 else ''}"
    same = sum(check.same for check in verification.pixels)
    return [
        FileCheck("format and SHA-256", verification.sha256, True),
        FileCheck(
            "outputs",
            f"{many}: differ by at most {verification.largest_difference:.2g}, "
            f"allowed {verification.tolerance:.2g}, with {verification.runtime} ({verification.why})",
            verification.ok,
        ),
        FileCheck(
            "preprocessing",
            f"pixels of {same} of {len(verification.pixels)} check images are the same",
            same == len(verification.pixels),
        ),
    ]


def latency_chart(data: ReportData) -> Markup | None:
    """The latencies with their spread; None where there are none or too many."""
    several = len({row.target for row in data.latencies}) > 1
    rows = [
        Interval(
            f"{row.runtime}, {text.thread_count(row.threads)}"
            + (f", batch {row.batch}" if row.batch != 1 else "")
            + (f", {row.target}" if several else ""),
            row.p10,
            row.median,
            row.p90,
            text.milliseconds(row.median),
        )
        for row in data.latencies
        if math.isfinite(row.median)
    ]
    if not 0 < len(rows) <= PLOTTED_LATENCIES:
        return None
    return interval_chart("Latency: median, p10 to p90", rows, axis="milliseconds per call")

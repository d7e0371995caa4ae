"""The report of a task without a part of its own: its scores in a table."""

from __future__ import annotations

from gossamer.report.contents import ReportData
from gossamer.report.formats import count, significant
from gossamer.report.view import SPLITS, KeyFigure, View


def view(data: ReportData) -> View:
    """The part of any other task."""
    metrics = data.evaluation.metrics
    images = f"{count(len(data.evaluation.names))} {data.split} images"
    return View(
        template="other.html",
        sections=(("scores", "Scores"),),
        subject=f"task {data.task}",
        headline=KeyFigure(data.score.replace("_", " "), significant(metrics[data.score]), images),
        findings=[],
        values={"scores": [(name.replace("_", " "), value) for name, value in metrics.items()], "said": images},
        extent_heads=("images",),
        extents=[(SPLITS.get(name, name), (images,)) for name, images in data.images.items()],
    )

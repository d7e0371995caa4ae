"""The report of a segmenter: classes, confusion, the best and the worst images."""

from __future__ import annotations

import math

from gossamer.predictions.masks import palette
from gossamer.report import figures
from gossamer.report.areas import AreaDetails
from gossamer.report.contents import ReportData
from gossamer.report.formats import count, percent, points
from gossamer.report.scores import confused_pairs
from gossamer.report.view import SPLITS, Finding, KeyFigure, View, bdi, confused, never, weakest_first

PAIRS = 20
RARE = 0.01  # share of the pixels, below which a class is mentioned
LEGEND = 32  # classes that the key to the colours names at most
SECTIONS = (("classes", "Classes"), ("confusion", "Confusion"), ("examples", "Examples"))


def view(data: ReportData) -> View:
    """The part of a segmenter."""
    found = data.evaluation
    details: AreaDetails = data.details or AreaDetails((), ())
    rows = [{**row, "number": index} for index, row in enumerate(found.per_class)]
    pixels = max(1, int(found.confusion.sum()))
    return View(
        template="segment.html",
        sections=SECTIONS,
        subject=f"{len(data.classes)} classes",
        headline=_headline(data),
        findings=_findings(data),
        values={
            "rows": [{**row, "share": row["support"] / pixels} for row in weakest_first(rows, "iou")],
            "matrix": figures.matrix(found.confusion, data.classes, "pixels", cents=True),
            "pairs": confused_pairs(found.confusion, PAIRS),
            "pixels": pixels,
            "worst_images": details.worst,
            "best_images": details.best,
            "legend": _legend(data, details),
        },
        extent_heads=("images",),
        extents=[(SPLITS.get(name, name), (images,)) for name, images in data.images.items()],
        styles=("tasks.css",),
    )


def _headline(data: ReportData) -> KeyFigure:
    metrics, images = data.evaluation.metrics, len(data.evaluation.names)
    note = f"{percent(metrics['pixel_accuracy'])} of the pixels right; {count(images)} {data.split} images"
    return KeyFigure("Mean IoU", percent(metrics["miou"]), note)


def _findings(data: ReportData) -> list[Finding]:
    scores = data.evaluation
    rows = [row for row in scores.per_class if row["support"]]
    found: list[Finding] = []
    if len(rows) > 1:
        weakest = min(rows, key=lambda row: row["iou"])
        said = f"IoU {points(weakest['iou'])}, {percent(weakest['accuracy'])} of its pixels found"
        found.append(Finding("Weakest class", f"{bdi(weakest['class'])}: {said}."))
    found += never([row["class"] for row in rows if math.isnan(row["precision"])])
    pixels = sum(row["support"] for row in rows)
    found += never([row["class"] for row in rows if row["support"] < RARE * pixels], "Under 1 % of pixels")
    for pair in confused_pairs(scores.confusion, 1):
        found.append(confused(data, pair.true, pair.predicted, f"{count(pair.count)} pixels", pair.share))
    return found


def _legend(data: ReportData, details: AreaDetails) -> list[tuple[str, str]]:
    """(class, colour) of the classes in the examples."""
    shown = sorted({label for one in (*details.worst, *details.best) for label in one.classes})
    colours = palette(len(data.classes))
    return [(data.classes[i], "#{:02x}{:02x}{:02x}".format(*colours[i].tolist())) for i in shown[:LEGEND]]

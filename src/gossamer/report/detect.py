"""The report of a detector: precision and recall, classes, confusion, examples, the sizes of the boxes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.report import figures
from gossamer.report.boxes import BoxDetails, Example, Mark
from gossamer.report.contents import ReportData
from gossamer.report.formats import count, crop, percent, points
from gossamer.report.scores import Pair, confused_pairs
from gossamer.report.shares import Axis, Column, Line, chart, histogram
from gossamer.report.svg import drawing, tag, text, title
from gossamer.report.view import (
    SPLITS,
    Finding,
    KeyFigure,
    View,
    bdi,
    confused,
    imbalance,
    never,
    weakest_first,
    with_training,
)
from gossamer.tasks.detection.average_precision import AREAS, RECALLS
from gossamer.tasks.detection.scores import CONFIDENCE

CURVES = 12  # classes with a chart of their own
PAIRS = 20
BACKGROUND = "(background)"
SECTIONS = (
    ("curves", "Precision and recall"),
    ("classes", "Classes"),
    ("confusion", "Confusion"),
    ("examples", "Examples"),
    ("sizes", "Sizes"),
)
KINDS = {"found": "found", "missed": "missed", "invented": "wrong"}


def view(data: ReportData) -> View:
    """The part of a detector."""
    found, details = data.evaluation, data.details
    sections = [one for one in SECTIONS if one[0] != "sizes" or (details and len(details.sides))]
    rows = weakest_first(with_training(found.per_class, data.counts.get("train", ())), "map50")
    names = (*data.classes, BACKGROUND)
    return View(
        template="detect.html",
        sections=tuple(sections),
        subject=f"{len(data.classes)} classes",
        headline=_headline(data),
        findings=_findings(data),
        values={
            "charts": _charts(found.curves, rows),
            "charted": CURVES,
            "rows": rows,
            "matrix": figures.matrix(found.confusion, names, "objects"),
            "pairs": pairs(found.confusion),
            "operating": operating(found.confusion),
            "confidence": CONFIDENCE,
            "worst_images": [_shown(one, data.classes) for one in details.worst] if details else [],
            "best_images": [_shown(one, data.classes) for one in details.best] if details else [],
            "sizes": _sizes(details) if details and len(details.sides) else "",
            "smaller": _smaller(data, details),
        },
        extent_heads=("images", "objects"),
        extents=[(SPLITS.get(n, n), (data.images.get(n, 0), sum(c))) for n, c in data.counts.items()],
        counted="Objects",
        styles=("tasks.css",),
    )


class Operating(NamedTuple):
    """Objects, of them found with their class, found as another; boxes that were said, of them on the background."""

    objects: int
    right: int
    mistaken: int
    said: int
    invented: int


def operating(confusion: NDArray[np.int64]) -> Operating:
    """What a detector does at CONFIDENCE, from the confusion with the background last."""
    classes = confusion[:-1, :-1]
    return Operating(
        int(confusion[:-1].sum()),
        int(classes.trace()),
        int(classes.sum() - classes.trace()),
        int(confusion[:, :-1].sum()),
        int(confusion[-1, :-1].sum()),
    )


def pairs(confusion: NDArray[np.int64]) -> list[Pair]:
    """The classes that are confused most, the background not among them; shares of all objects of the true class."""
    support = confusion.sum(axis=1)
    found = confused_pairs(confusion[:-1, :-1], PAIRS)
    return [dataclasses.replace(pair, share=pair.count / int(support[pair.true])) for pair in found]


def _headline(data: ReportData) -> KeyFigure:
    metrics = data.evaluation.metrics
    objects = sum(row["support"] for row in data.evaluation.per_class)
    note = (
        f"{points(metrics['map'])} over IoU 0.5 to 0.95; {count(objects)} objects in "
        f"{count(len(data.evaluation.names))} {data.split} images"
    )
    return KeyFigure("mAP at IoU 0.5", percent(metrics["map50"]), note)


def _findings(data: ReportData) -> list[Finding]:
    scores = data.evaluation
    rows = [row for row in scores.per_class if row["support"]]
    found: list[Finding] = []
    if len(rows) > 1:
        weakest = min(rows, key=lambda row: row["map50"])
        said = f"AP {points(weakest['map50'])} at IoU 0.5, {count(weakest['support'])} objects"
        found.append(Finding("Weakest class", f"{bdi(weakest['class'])}: {said}."))
    found += never([row["class"] for row in rows if not row["recall"]], "Never found")
    for pair in pairs(scores.confusion)[:1]:
        found.append(confused(data, pair.true, pair.predicted, f"{count(pair.count)} times", pair.share))
    return [*found, *_sizes_matter(scores.metrics), *imbalance(data, "objects")]


def _sizes_matter(metrics: dict[str, float]) -> list[Finding]:
    known = {name: metrics[f"map_{name}"] for name in list(AREAS)[1:] if math.isfinite(metrics[f"map_{name}"])}
    if len(known) < 2 or min(known.values()) >= max(known.values()) / 2:
        return []
    said = ", ".join(f"{points(value)} of {name} objects" for name, value in known.items())
    return [Finding("Size matters", f"mAP {said}; 32 and 96 pixels squared divide them.")]


class Curve(NamedTuple):
    """The chart of a class, or of all."""

    name: str
    said: str
    svg: str


def _charts(curves: NDArray[np.float64], rows: Sequence[dict[str, Any]]) -> list[Curve]:
    """The mean over the classes with each behind it, then each of the weakest with the mean behind it."""
    known = [row for row in rows if row["support"]]
    if not known:
        return []
    recalls = RECALLS.tolist()
    mean = curves[[row["number"] for row in known]].mean(axis=0)
    behind = [Line(recalls, curves[row["number"]].tolist(), "faint") for row in known[: 4 * CURVES]]
    across = Axis("recall")

    def said(name: str, curve: NDArray[np.float64]) -> str:
        some = ", ".join(f"{points(float(curve[i]), 0)} at {i}" for i in (20, 50, 80))
        return f"{name}: precision by recall at IoU 0.5, in per cent: {some}; average {points(float(curve.mean()))}."

    whole = chart(said("All classes", mean), [*behind, Line(recalls, mean.tolist(), "a")], across, "precision")
    charts = [Curve("All classes", f"mAP {points(float(mean.mean()))}", whole)]
    for row in known[:CURVES] if len(known) > 1 else []:
        curve = curves[row["number"]]
        lines = [Line(recalls, mean.tolist(), "c"), Line(recalls, curve.tolist(), "a")]
        svg = chart(said(row["class"], curve), lines, across, "precision")
        charts.append(Curve(row["class"], f"AP {points(row['map50'])}", svg))
    return charts


class Shown(NamedTuple):
    """An example as the page shows it."""

    name: str
    said: str
    svg: str


def _shown(one: Example, classes: Sequence[str]) -> Shown:
    """The photograph with its boxes as a drawing: lines stay crisp, and their text is that of the page."""
    scale = figures.WIDTH / one.photo.width
    height = round(one.photo.height * scale, 1)
    parts = [
        tag(
            "image",
            href=one.photo.uri,
            width=figures.WIDTH,
            height=height,
            preserveAspectRatio="none",
            class_="pixelated" if one.photo.pixelated else None,
        ),
        *(_mark(mark, scale, classes[mark.label]) for mark in one.marks),
    ]
    said = f"{one.found} found, {one.missed} missed, {one.invented} wrong"
    return Shown(one.name, said, drawing(figures.WIDTH, height, f"{one.name}: {said}.", *parts))


def _mark(mark: Mark, scale: float, name: str) -> str:
    left, top, right, bottom = (side * scale for side in mark.box)
    box = {"x": left, "y": top, "width": max(right - left, 1.0), "height": max(bottom - top, 1.0)}
    sure = "" if math.isnan(mark.score) else f" {mark.score:.2f}"
    low = mark.kind == "invented"  # such boxes often lie on one that was found, whose name is at the top
    late = left > figures.WIDTH - 80  # no room to the right
    at = (min(right, figures.WIDTH) - 4 if late else left + 4), (max(bottom - 5, 13.0) if low else top + 13)
    return tag(
        "g",
        title(f"{name}{sure}: {KINDS[mark.kind]}"),
        tag("rect", **box, class_="halo"),
        tag("rect", **box, class_=mark.kind),
        text(f"{crop(name, 16)}{sure}", *at, text_anchor="end" if late else None),
        class_="box",
    )


def _sizes(details: BoxDetails) -> str:
    what = "Training boxes by the square root of their area in pixels of the network's input"
    return histogram(what, columns(details.sides), "pixels of the input", (32.0, 96.0))


def columns(sides: NDArray[np.float64]) -> list[Column]:
    """How many sides lie in each half octave, from the lowest power of two to the highest."""
    values = np.log2(np.maximum(sides, 1.0))
    low, high = math.floor(values.min()), math.floor(values.max()) + 1
    edges = np.linspace(low, high, 2 * (high - low) + 1)
    counts = np.histogram(values, edges)[0]
    return [Column(float(2**a), float(2**b), int(n)) for a, b, n in zip(edges[:-1], edges[1:], counts)]


def _smaller(data: ReportData, details: BoxDetails | None) -> list[tuple[str, str]]:
    """(name, value) of the sizes, and of what they cost."""
    if details is None or not len(details.sides):
        return []
    low, middle, high = np.quantile(details.sides, (0.1, 0.5, 0.9)).tolist()
    metrics = data.evaluation.metrics
    rows = [
        ("training boxes", count(len(details.sides))),
        ("median side", f"{middle:.0f} pixels"),
        ("eight in ten", f"{low:.0f} to {high:.0f} pixels"),
    ]
    sizes = {"small": "under 32 × 32", "medium": "up to 96 × 96", "large": "above"}
    known = [(name, metrics[f"map_{name}"]) for name in sizes if math.isfinite(metrics[f"map_{name}"])]
    return [*rows, *((f"mAP, {name} ({sizes[name]} pixels of the picture)", percent(value)) for name, value in known)]

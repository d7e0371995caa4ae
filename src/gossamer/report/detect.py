"""The report of a detector: precision and recall, classes, confusion, examples, the sizes of the boxes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.charts.bars import HistogramBar, histogram
from gossamer.charts.confusion import confusion_chart
from gossamer.charts.rates import RateAxis, RateCurve, rate_chart
from gossamer.charts.svg import WIDTH, Markup, chart, element, label, tooltip
from gossamer.host.text import counted, grouped, grouped_count, percent, points, significant, truncated
from gossamer.report.contents import ReportData
from gossamer.report.detection_examples import BoxMark, DetectionDetails, DetectionExample
from gossamer.report.scores import ConfusedPair, confused_pairs
from gossamer.report.view import (
    SPLITS,
    Highlight,
    KeyFigure,
    TaskView,
    all_missed,
    bdi,
    imbalance,
    most_confused,
    never_predicted,
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
MARK_KINDS = {"matched": "true positive", "missed": "false negative", "false": "false positive"}


def detection_view(data: ReportData) -> TaskView:
    """The part of a detector."""
    scores, details = data.evaluation, data.details
    has_sizes = details is not None and len(details.sides) > 0
    sections = [section for section in SECTIONS if section[0] != "sizes" or has_sizes]
    rows = weakest_first(with_training(scores.per_class, data.counts.get("train", ())), "map50")
    names = (*data.classes, BACKGROUND)
    return TaskView(
        template="detect.html",
        sections=tuple(sections),
        subject=counted(len(data.classes), "class"),
        headline=_headline(data),
        highlights=_highlights(data),
        values={
            "charts": _charts(scores.curves, rows),
            "charted": CURVES,
            "rows": rows,
            "matrix": confusion_chart(scores.confusion, names, "objects"),
            "pairs": class_confusions(scores.confusion),
            "operating": operating_point(scores.confusion),
            "confidence": CONFIDENCE,
            "worst_images": [_drawn(example, data.classes) for example in details.worst] if details else [],
            "best_images": [_drawn(example, data.classes) for example in details.best] if details else [],
            "sizes": _sizes(details) if details and has_sizes else "",
            "smaller": _smaller(data, details),
        },
        extent_heads=("images", "objects"),
        extents=[(SPLITS.get(n, n), (data.images.get(n, 0), sum(c))) for n, c in data.counts.items()],
        counted="Objects",
        styles=("tasks.css",),
    )


class OperatingPoint(NamedTuple):
    """Objects, of them detected as their class, as another; detections, of them on the background."""

    objects: int
    correct: int
    confused: int
    detections: int
    on_background: int


def operating_point(confusion: NDArray[np.int64]) -> OperatingPoint:
    """What a detector does at CONFIDENCE, from the confusion with the background last."""
    classes = confusion[:-1, :-1]
    return OperatingPoint(
        int(confusion[:-1].sum()),
        int(classes.trace()),
        int(classes.sum() - classes.trace()),
        int(confusion[:, :-1].sum()),
        int(confusion[-1, :-1].sum()),
    )


def class_confusions(confusion: NDArray[np.int64]) -> list[ConfusedPair]:
    """The classes that are confused most, without the background; fractions of all objects of the true class."""
    support = confusion.sum(axis=1)
    pairs = confused_pairs(confusion[:-1, :-1], PAIRS)
    return [dataclasses.replace(pair, fraction=pair.count / int(support[pair.true])) for pair in pairs]


def _headline(data: ReportData) -> KeyFigure:
    metrics = data.evaluation.metrics
    objects = sum(row["support"] for row in data.evaluation.per_class)
    note = (
        f"mAP@0.5:0.95 {points(metrics['map'])}; {grouped_count(objects, 'object')} in "
        f"{grouped_count(len(data.evaluation.names), f'{data.split} image')}"
    )
    return KeyFigure("mAP@0.5", percent(metrics["map50"]), note)


def _highlights(data: ReportData) -> list[Highlight]:
    scores = data.evaluation
    rows = [row for row in scores.per_class if row["support"]]
    highlights = _failures(data)
    if len(rows) > 1:
        weakest = min(rows, key=lambda row: row["map50"])
        figures = f"AP {points(weakest['map50'])} at IoU 0.5, {grouped_count(weakest['support'], 'object')}"
        highlights.append(Highlight("Weakest class", f"{bdi(weakest['class'])}: {figures}."))
    highlights += never_predicted([row["class"] for row in rows if not row["recall"]], "Never detected")
    for pair in class_confusions(scores.confusion)[:1]:
        times = grouped_count(pair.count, "time")
        highlights.append(most_confused(data, pair.true, pair.predicted, times, pair.fraction))
    return [*highlights, *_size_gap(scores.metrics), *imbalance(data, "objects")]


def _failures(data: ReportData) -> list[Highlight]:
    """The classes of which no object is found at CONFIDENCE; one sentence where that is all of them."""
    confusion = data.evaluation.confusion
    support, detected = confusion[:-1].sum(axis=1), confusion[:-1, :-1].diagonal()
    objects = int(support.sum())
    if objects and not detected.any():
        missed = f"{grouped(objects)} of {grouped_count(objects, 'object')} missed at a score of {CONFIDENCE} or more"
        highest = max(
            (float(boxes.scores.max()) for boxes in data.evaluation.detections if len(boxes.scores)), default=0
        )
        best = f"; the highest score of any box is {significant(highest, 2)}" if 0 < highest < CONFIDENCE else ""
        best = best or ("; there is no box of any score" if not highest else "")
        return [Highlight("Nothing found", f"{missed}{best}.", failure=True)]
    missed_classes = [
        (data.classes[index], int(support[index])) for index in np.flatnonzero((support > 0) & (detected == 0))
    ]
    return all_missed(missed_classes, "Never found", "objects", f", at a score of {CONFIDENCE} or more")


def _size_gap(metrics: dict[str, float]) -> list[Highlight]:
    known = {name: metrics[f"map_{name}"] for name in list(AREAS)[1:] if math.isfinite(metrics[f"map_{name}"])}
    if len(known) < 2 or min(known.values()) >= max(known.values()) / 2:
        return []
    by_size = ", ".join(f"{points(value)} of {name} objects" for name, value in known.items())
    return [Highlight("Size matters", f"mAP {by_size}; the limits are areas of 32² and 96² pixels.")]


class ClassCurve(NamedTuple):
    """The chart of a class, or of all."""

    name: str
    note: str
    svg: Markup


def _charts(curves: NDArray[np.float64], rows: Sequence[dict[str, Any]]) -> list[ClassCurve]:
    """The mean over the classes with each behind it, then each of the weakest with the mean behind it."""
    known = [row for row in rows if row["support"]]
    if not known:
        return []
    recalls = RECALLS.tolist()
    mean = curves[[row["number"] for row in known]].mean(axis=0)
    behind = [RateCurve(recalls, curves[row["number"]].tolist(), "faint") for row in known[: 4 * CURVES]]
    across = RateAxis("recall")

    def describe(name: str, curve: NDArray[np.float64]) -> str:
        samples = ", ".join(f"{points(float(curve[i]), 0)} at {i}" for i in (20, 50, 80))
        return f"{name}: precision by recall at IoU 0.5, in per cent: {samples}; average {points(float(curve.mean()))}."

    lines = [*behind, RateCurve(recalls, mean.tolist(), "a")]
    all_classes = rate_chart(describe("All classes", mean), lines, across, "precision")
    charts = [ClassCurve("All classes", f"mAP {points(float(mean.mean()))}", all_classes)]
    for row in known[:CURVES] if len(known) > 1 else []:
        curve = curves[row["number"]]
        lines = [RateCurve(recalls, mean.tolist(), "c"), RateCurve(recalls, curve.tolist(), "a")]
        svg = rate_chart(describe(row["class"], curve), lines, across, "precision")
        charts.append(ClassCurve(row["class"], f"AP {points(row['map50'])}", svg))
    return charts


class DrawnExample(NamedTuple):
    """An example as the page shows it."""

    name: str
    counts: str
    svg: Markup


def _drawn(example: DetectionExample, classes: Sequence[str]) -> DrawnExample:
    """The photograph with its boxes as a drawing: lines stay crisp, and their text is that of the page."""
    scale = WIDTH / example.photo.width
    height = round(example.photo.height * scale, 1)
    parts = [
        element(
            "image",
            href=example.photo.uri,
            width=WIDTH,
            height=height,
            preserveAspectRatio="none",
            class_="pixelated" if example.photo.pixelated else None,
        ),
        *(_mark(mark, scale, classes[mark.label]) for mark in example.marks),
    ]
    counts = f"TP {example.true_positives}, FN {example.false_negatives}, FP {example.false_positives}"
    in_words = f"{example.true_positives} true positives, {example.false_negatives} false negatives, {example.false_positives} false positives"
    return DrawnExample(example.name, counts, chart(WIDTH, height, f"{example.name}: {in_words}.", *parts))


def _mark(mark: BoxMark, scale: float, name: str) -> Markup:
    left, top, right, bottom = (side * scale for side in mark.box)
    box = {"x": left, "y": top, "width": max(right - left, 1.0), "height": max(bottom - top, 1.0)}
    score = "" if math.isnan(mark.score) else f" {mark.score:.2f}"
    low = mark.kind == "false"  # such boxes often overlap a true positive, whose name is at the top
    late = left > WIDTH - 80  # no room to the right
    at = (min(right, WIDTH) - 4 if late else left + 4), (max(bottom - 5, 13.0) if low else top + 13)
    return element(
        "g",
        tooltip(f"{name}{score}: {MARK_KINDS[mark.kind]}"),
        element("rect", **box, class_="halo"),
        element("rect", **box, class_=mark.kind),
        label(f"{truncated(name, 16)}{score}", *at, text_anchor="end" if late else None),
        class_="box",
    )


def _sizes(details: DetectionDetails) -> Markup:
    what = "Training boxes by the square root of their area in pixels of the network's input"
    return histogram(what, histogram_bars(details.sides), "side, pixels of the input", (32.0, 96.0), "training boxes")


def histogram_bars(sides: NDArray[np.float64]) -> list[HistogramBar]:
    """How many sides are in each half octave, from the lowest power of two to the highest."""
    values = np.log2(np.maximum(sides, 1.0))
    low, high = math.floor(values.min()), math.floor(values.max()) + 1
    edges = np.linspace(low, high, 2 * (high - low) + 1)
    counts = np.histogram(values, edges)[0]
    return [HistogramBar(float(2**a), float(2**b), int(n)) for a, b, n in zip(edges[:-1], edges[1:], counts)]


def _smaller(data: ReportData, details: DetectionDetails | None) -> list[tuple[str, str]]:
    """(name, value) of the sizes, and of what they cost."""
    if details is None or not len(details.sides):
        return []
    low, middle, high = np.quantile(details.sides, (0.1, 0.5, 0.9)).tolist()
    metrics = data.evaluation.metrics
    rows = [
        ("training boxes", grouped(len(details.sides))),
        ("median side", f"{middle:.0f} pixels"),
        ("eight in ten", f"{low:.0f} to {high:.0f} pixels"),
    ]
    sizes = {"small": "under 32 × 32", "medium": "up to 96 × 96", "large": "over 96 × 96"}
    known = [(name, metrics[f"map_{name}"]) for name in sizes if math.isfinite(metrics[f"map_{name}"])]
    return [*rows, *((f"mAP, {name} ({sizes[name]} pixels of the image)", percent(value)) for name, value in known)]

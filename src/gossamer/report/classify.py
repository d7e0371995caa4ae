"""The report of a classifier: confusion, classes, calibration, the worst mistakes."""

from __future__ import annotations

import math

from gossamer.report import figures, formats
from gossamer.report.contents import ReportData
from gossamer.report.formats import THIN, count, percent, points
from gossamer.report.scores import Calibration, calibrate, confused_pairs, wilson
from gossamer.report.view import (
    SPLITS,
    Finding,
    KeyFigure,
    SplitRow,
    View,
    bdi,
    confused,
    imbalance,
    never,
    weakest_first,
    with_training,
)

PAIRS = 20
DIFFERENCE = 0.02  # between confidence and accuracy
SECTIONS = (
    ("confusion", "Confusion"),
    ("classes", "Classes"),
    ("calibration", "Calibration"),
    ("mistakes", "Mistakes"),
)


def view(data: ReportData) -> View:
    """The part of a classifier."""
    found = data.evaluation
    calibration = calibrate(found.probabilities, found.targets)
    return View(
        template="classify.html",
        sections=SECTIONS,
        subject=f"{len(data.classes)} classes",
        headline=headline(data),
        findings=findings(data, calibration),
        values={
            "matrix": figures.matrix(found.confusion, data.classes),
            "pairs": confused_pairs(found.confusion, PAIRS),
            "mistakes_total": int(found.confusion.sum() - found.confusion.trace()),
            "rows": weakest_first(with_training(found.per_class, data.counts.get("train", ())), "f1"),
            "calibration": calibration,
            "reliability": figures.reliability(calibration) if calibration else "",
        },
        smallest=_splits(data),
        counted="Images",
    )


def headline(data: ReportData) -> KeyFigure:
    """The accuracy with its interval."""
    correct, total = int(data.evaluation.confusion.trace()), int(data.evaluation.confusion.sum())
    low, high = wilson(correct, total)
    return KeyFigure(
        "Accuracy",
        percent(correct / total if total else math.nan),
        f"95{THIN}% interval {points(low)} to {points(high)}; {count(correct)} of {count(total)} {data.split} images",
    )


def findings(data: ReportData, calibration: Calibration | None) -> list[Finding]:
    """What stands out in the classes and in the calibration."""
    return [*_classes(data), *_calibration(calibration), *imbalance(data, "images")]


def _classes(data: ReportData) -> list[Finding]:
    rows = [row for row in data.evaluation.per_class if row["support"]]
    found = []
    if len(rows) > 1:
        weakest = min(rows, key=lambda row: row["f1"])
        said = (
            f"{bdi(weakest['class'])}: F1 {points(weakest['f1'])}, precision {points(weakest['precision'])}, "
            f"recall {points(weakest['recall'])}, {count(weakest['support'])} images."
        )
        found.append(Finding("Weakest class", said))
    found += never([row["class"] for row in rows if math.isnan(row["precision"])])
    for pair in confused_pairs(data.evaluation.confusion, 1):
        found.append(confused(data, pair.true, pair.predicted, f"{formats.count(pair.count)} times", pair.share))
    return found


def _calibration(calibration: Calibration | None) -> list[Finding]:
    if calibration is None:
        return [Finding("Outputs", "None of the network's outputs is a number.")]
    gap = calibration.confidence - calibration.accuracy
    if abs(gap) < DIFFERENCE:
        return []
    what = "Over-confident" if gap > 0 else "Under-confident"
    said = f"{percent(calibration.confidence)} sure on average, {percent(calibration.accuracy)} right."
    return [Finding(what, said)]


def _splits(data: ReportData) -> list[SplitRow]:
    rows = []
    for split, counts in data.counts.items():
        name = SPLITS.get(split, split)
        small, large = min(range(len(counts)), key=counts.__getitem__), max(range(len(counts)), key=counts.__getitem__)
        rows.append(SplitRow(name, sum(counts), data.classes[small], counts[small], data.classes[large], counts[large]))
    return rows

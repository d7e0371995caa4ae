"""The report of a classifier: confusion, classes, calibration, the worst mistakes."""

from __future__ import annotations

import math

import numpy as np

from gossamer.charts.confusion import confusion_chart
from gossamer.host.text import THIN, counted, grouped, grouped_count, percent, points
from gossamer.report.contents import ReportData
from gossamer.report.reliability import reliability_chart
from gossamer.report.scores import Calibration, calibrate, confused_pairs, wilson
from gossamer.report.view import (
    SPLITS,
    Highlight,
    KeyFigure,
    SplitRow,
    TaskView,
    all_missed,
    bdi,
    imbalance,
    most_confused,
    never_predicted,
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


def classification_view(data: ReportData) -> TaskView:
    """The part of a classifier."""
    scores = data.evaluation
    calibration = calibrate(scores.probabilities, scores.targets)
    return TaskView(
        template="classify.html",
        sections=SECTIONS,
        subject=counted(len(data.classes), "class"),
        headline=_headline(data),
        highlights=classification_highlights(data, calibration),
        values={
            "matrix": confusion_chart(scores.confusion, data.classes),
            "pairs": confused_pairs(scores.confusion, PAIRS),
            "mistakes_total": int(scores.confusion.sum() - scores.confusion.trace()),
            "rows": weakest_first(with_training(scores.per_class, data.counts.get("train", ())), "f1"),
            "calibration": calibration,
            "reliability": reliability_chart(calibration) if calibration else "",
        },
        smallest=_splits(data),
        counted="Images",
    )


def _headline(data: ReportData) -> KeyFigure:
    """The accuracy with its interval."""
    correct, total = int(data.evaluation.confusion.trace()), int(data.evaluation.confusion.sum())
    low, high = wilson(correct, total)
    return KeyFigure(
        "Accuracy",
        percent(correct / total if total else math.nan),
        f"95{THIN}% interval {points(low)} to {points(high)}; {grouped(correct)} of {grouped_count(total, f'{data.split} image')}",
    )


def classification_highlights(data: ReportData, calibration: Calibration | None) -> list[Highlight]:
    """What stands out in the classes and in the calibration."""
    return [*_classes(data), *_calibration(calibration), *imbalance(data, "images")]


def _classes(data: ReportData) -> list[Highlight]:
    rows = [row for row in data.evaluation.per_class if row["support"]]
    highlights = _chance(data)
    partly = [row for row in rows if row["f1"] > 0]  # the others are among the failures
    if len(rows) > 1 and partly:
        weakest = min(partly, key=lambda row: row["f1"])
        sentence = (
            f"{bdi(weakest['class'])}: F1 {points(weakest['f1'])}, precision {points(weakest['precision'])}, "
            f"recall {points(weakest['recall'])}, {grouped_count(weakest['support'], 'image')}."
        )
        highlights.append(Highlight("Weakest class", sentence))
    missed = [row for row in rows if row["recall"] == 0]
    highlights += all_missed([(row["class"], row["support"]) for row in missed], "Never recognised", "images")
    highlights += never_predicted([row["class"] for row in rows if math.isnan(row["precision"])])
    for pair in confused_pairs(data.evaluation.confusion, 1):
        times = grouped_count(pair.count, "time")
        highlights.append(most_confused(data, pair.true, pair.predicted, times, pair.fraction))
    return highlights


def _chance(data: ReportData) -> list[Highlight]:
    """A failure where always naming the largest class would be right as often."""
    confusion = data.evaluation.confusion
    support = confusion.sum(axis=1)
    correct, total, largest = int(confusion.trace()), int(support.sum()), int(support.argmax()) if len(support) else 0
    if not total or np.count_nonzero(support) < 2 or correct > support[largest]:
        return []
    name, right = bdi(data.classes[largest]), percent(int(support[largest]) / total)
    sentence = f"Accuracy {percent(correct / total)}: predicting {name} for every image would be right in {right}."
    return [Highlight("No better than chance", sentence, failure=True)]


def _calibration(calibration: Calibration | None) -> list[Highlight]:
    if calibration is None:
        return [Highlight("Outputs", "None of the network's outputs is a number.", failure=True)]
    gap = calibration.confidence - calibration.accuracy
    if abs(gap) < DIFFERENCE:
        return []
    what = "Over-confident" if gap > 0 else "Under-confident"
    means = f"Mean confidence {percent(calibration.confidence)}, accuracy {percent(calibration.accuracy)}."
    return [Highlight(what, means)]


def _splits(data: ReportData) -> list[SplitRow]:
    rows = []
    for split, counts in data.counts.items():
        name = SPLITS.get(split, split)
        small, large = min(range(len(counts)), key=counts.__getitem__), max(range(len(counts)), key=counts.__getitem__)
        rows.append(SplitRow(name, sum(counts), data.classes[small], counts[small], data.classes[large], counts[large]))
    return rows

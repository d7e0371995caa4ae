"""What stands out in a run: a few sentences, each with its numbers, each only where it is true."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gossamer.report.contents import ReportData, number
from gossamer.report.formats import count, percent, points, significant
from gossamer.report.scores import Calibration, confused_pairs

IMBALANCE = 3.0  # largest class over smallest, from which it is mentioned
OVERFIT = 1.05  # last validation loss over the smallest
DIFFERENCE = 0.02  # between confidence and accuracy
WAITING = 0.1  # share of the training time


class Finding(NamedTuple):
    what: str
    said: str


def _name(text: str) -> str:
    """A class name kept apart from the sentence, whatever its direction of writing."""
    return f"\u2068{text}\u2069"


def findings(data: ReportData, calibration: Calibration | None) -> list[Finding]:
    """The sentences, in the order of the page."""
    rows = [*_course(data), *_classes(data), *_calibration(calibration), *_images(data)]
    return [row for row in rows if row is not None]


def _course(data: ReportData) -> list[Finding | None]:
    losses = [(number(row.get("epoch")), number(row.get("val_loss"))) for row in data.metrics]
    finite = [(epoch, loss) for epoch, loss in losses if math.isfinite(loss)]
    found: list[Finding | None] = []
    if len(finite) < len(losses):
        found.append(
            Finding(
                "Diverged",
                f"The validation loss was not a number in {len(losses) - len(finite)} of {len(losses)} epochs.",
            )
        )
    if len(finite) > 2:
        epoch, smallest = min(finite, key=lambda pair: pair[1])
        last = finite[-1][1]
        if smallest > 0 and last > OVERFIT * smallest:
            found.append(
                Finding(
                    "Overfitting",
                    f"The validation loss was smallest in epoch {epoch:g} ({significant(smallest)}) and ended at {significant(last)}.",
                )
            )
    waiting = data.waiting()
    if math.isfinite(waiting) and waiting > WAITING:
        found.append(
            Finding(
                "Waiting for data",
                f"{percent(waiting, 0)} of the training time; --cache or more --workers may shorten it.",
            )
        )
    return found


def _classes(data: ReportData) -> list[Finding | None]:
    rows = [row for row in data.evaluation.per_class if row["support"]]
    found: list[Finding | None] = []
    if len(rows) > 1:
        weakest = min(rows, key=lambda row: row["f1"])
        found.append(
            Finding(
                "Weakest class",
                f"{_name(weakest['class'])}: F1 {points(weakest['f1'])}, precision {points(weakest['precision'])}, "
                f"recall {points(weakest['recall'])}, {count(weakest['support'])} images.",
            )
        )
    never = [_name(row["class"]) for row in rows if math.isnan(row["precision"])]
    if never:
        more = f" and {len(never) - 5} more" if len(never) > 5 else ""
        found.append(Finding("Never predicted", ", ".join(never[:5]) + more + "."))
    pairs = confused_pairs(data.evaluation.confusion, 1)
    if pairs:
        pair = pairs[0]
        found.append(
            Finding(
                "Most confused",
                f"{_name(data.classes[pair.true])} taken for {_name(data.classes[pair.predicted])}: {count(pair.count)} times, "
                f"{percent(pair.share, 0)} of that class.",
            )
        )
    return found


def _calibration(calibration: Calibration | None) -> list[Finding | None]:
    if calibration is None:
        return [Finding("Outputs", "None of the network's outputs is a number.")]
    gap = calibration.confidence - calibration.accuracy
    if abs(gap) < DIFFERENCE:
        return []
    return [
        Finding(
            "Over-confident" if gap > 0 else "Under-confident",
            f"{percent(calibration.confidence)} sure on average, {percent(calibration.accuracy)} right.",
        )
    ]


def _images(data: ReportData) -> list[Finding | None]:
    found: list[Finding | None] = []
    counts = np.asarray(data.counts.get("train", ()))
    if counts.size and counts.max() >= IMBALANCE * max(counts.min(), 1):
        small, large = int(counts.argmin()), int(counts.argmax())
        found.append(
            Finding(
                "Imbalance",
                f"{count(counts[large])} training images of {_name(data.classes[large])}, {count(counts[small])} of {_name(data.classes[small])}.",
            )
        )
    if data.data_changed:
        found.append(
            Finding("Other data", "The images are not those of the training: files were added, removed or replaced.")
        )
    if data.unreadable:
        some = "1 image" if len(data.unreadable) == 1 else f"{count(len(data.unreadable))} images"
        found.append(Finding("Set aside", f"{some} could not be read."))
    return found

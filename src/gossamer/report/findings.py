"""What stands out in a run: a few sentences, each with its numbers, each only where it is true."""

from __future__ import annotations

import math

from gossamer.report.contents import ReportData, number
from gossamer.report.formats import count, percent, points, significant
from gossamer.report.view import Finding

OVERFIT = 1.05  # last validation loss over the smallest, and the largest score over the last
WAITING = 0.1  # share of the training time


def findings(data: ReportData, own: list[Finding]) -> list[Finding]:
    """The sentences in the order of the page; own: those of the task."""
    return [*_course(data), *own, *_images(data)]


def _course(data: ReportData) -> list[Finding]:
    name = "val_loss" if data.scores_loss else "loss"
    said = "validation" if data.scores_loss else "training"
    losses = [(number(row.get("epoch")), number(row.get(name))) for row in data.metrics]
    finite = [(epoch, loss) for epoch, loss in losses if math.isfinite(loss)]
    found = []
    if len(finite) < len(losses):
        many = f"{len(losses) - len(finite)} of {len(losses)} epochs"
        found.append(Finding("Diverged", f"The {said} loss was not a number in {many}."))
    found += _overfit_loss(finite) if data.scores_loss else _overfit_score(data)
    waiting = data.waiting()
    if math.isfinite(waiting) and waiting > WAITING:
        share = percent(waiting, 0)
        found.append(
            Finding("Waiting for data", f"{share} of the training time; --cache or more --workers may shorten it.")
        )
    return found


def _overfit_loss(finite: list[tuple[float, float]]) -> list[Finding]:
    if len(finite) < 3:
        return []
    epoch, smallest = min(finite, key=lambda pair: pair[1])
    last = finite[-1][1]
    if not smallest > 0 or last <= OVERFIT * smallest:
        return []
    course = f"was smallest in epoch {epoch:g} ({significant(smallest)}) and ended at {significant(last)}"
    return [Finding("Overfitting", f"The validation loss {course}.")]


def _overfit_score(data: ReportData) -> list[Finding]:
    best, values = data.best_row(), [v for v in data.column(f"val_{data.score}") if math.isfinite(v)]
    if best is None or len(values) < 3:
        return []
    largest, last = number(best[f"val_{data.score}"]), values[-1]
    if largest <= OVERFIT * last:
        return []
    course = f"was largest in epoch {number(best['epoch']):g} ({points(largest)}) and ended at {points(last)}"
    return [Finding("Past its best", f"The validation score {course}.")]


def _images(data: ReportData) -> list[Finding]:
    found = []
    if data.data_changed:
        found.append(
            Finding("Other data", "The images are not those of the training: files were added, removed or replaced.")
        )
    if data.unreadable:
        some = "1 image" if len(data.unreadable) == 1 else f"{count(len(data.unreadable))} images"
        found.append(Finding("Set aside", f"{some} could not be read."))
    return found

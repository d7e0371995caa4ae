"""What stands out in a run: a few sentences, each with its numbers, each only where it is true."""

from __future__ import annotations

import math

from gossamer.host.text import grouped_count, percent, points, significant
from gossamer.report.contents import ReportData, as_number
from gossamer.report.view import Highlight

OVERFIT = 1.05  # last validation loss over the smallest, and the largest score over the last
WAITING = 0.1  # fraction of the training time
# causes that the page tells of in a sentence of its own
TOLD = (
    "the loss is not finite",
    "it learns the training images by heart",
    "the training waits for images",
    "many images could not be read",
)


def highlights(data: ReportData, task_highlights: list[Highlight]) -> list[Highlight]:
    """The sentences in the order of the page, failures first; task_highlights: those of the task."""
    sentences = [*_training(data), *task_highlights, *_file(data), *_images(data), *_causes(data)]
    return sorted(sentences, key=lambda highlight: not highlight.failure)


def _file(data: ReportData) -> list[Highlight]:
    """A failure where the model file does not compute what was trained."""
    if data.exported is None or data.exported.ok:
        return []
    problem = data.exported.problem or "its outputs or its pixels differ"
    return [Highlight("Model file", f"The verification failed: {problem}.", failure=True)]


def _training(data: ReportData) -> list[Highlight]:
    name = "val_loss" if data.scores_loss else "loss"
    loss_name = "validation" if data.scores_loss else "training"
    losses = [(as_number(row.get("epoch")), as_number(row.get(name))) for row in data.metrics]
    finite = [(epoch, loss) for epoch, loss in losses if math.isfinite(loss)]
    stands_out = []
    if len(finite) < len(losses):
        epochs = f"{len(losses) - len(finite)} of {len(losses)} epochs"
        stands_out.append(Highlight("Diverged", f"The {loss_name} loss was not a number in {epochs}.", failure=True))
    stands_out += _overfit_loss(finite) if data.scores_loss else _overfit_score(data)
    waiting = data.waiting()
    if math.isfinite(waiting) and waiting > WAITING:
        stands_out.append(
            Highlight(
                "Waiting for data",
                f"{percent(waiting, 0)} of the training time; --cache or more --workers may shorten it.",
            )
        )
    return stands_out


def _overfit_loss(finite: list[tuple[float, float]]) -> list[Highlight]:
    if len(finite) < 3:
        return []
    epoch, smallest = min(finite, key=lambda pair: pair[1])
    last = finite[-1][1]
    if not smallest > 0 or last <= OVERFIT * smallest:
        return []
    change = f"was smallest in epoch {epoch:g} ({significant(smallest)}) and ended at {significant(last)}"
    return [Highlight("Overfitting", f"The validation loss {change}.")]


def _overfit_score(data: ReportData) -> list[Highlight]:
    best, values = data.best_row(), [v for v in data.column(f"val_{data.score}") if math.isfinite(v)]
    if best is None or len(values) < 3:
        return []
    largest, last = as_number(best[f"val_{data.score}"]), values[-1]
    if largest <= OVERFIT * last:
        return []
    change = f"was largest in epoch {as_number(best['epoch']):g} ({points(largest)}) and ended at {points(last)}"
    return [Highlight("Past its best", f"The validation score {change}.")]


def _causes(data: ReportData) -> list[Highlight]:
    """What `gossamer diagnose` is sure of or thinks likely, with the command to try next."""
    return [
        Highlight(
            finding.cause[0].upper() + finding.cause[1:],
            f"{finding.what[0].upper() + finding.what[1:]}. Next: {finding.command}",
            failure=finding.certainty == "certain",
        )
        for finding in data.causes
        if finding.certainty != "possible" and finding.cause not in TOLD
    ]


def _images(data: ReportData) -> list[Highlight]:
    stands_out = []
    if data.data_changed:
        stands_out.append(
            Highlight("Other data", "The images are not those of the training: files were added, removed or replaced.")
        )
    if data.unreadable:
        images = grouped_count(len(data.unreadable), "image")
        stands_out.append(Highlight("Skipped", f"{images} could not be read."))
    return stands_out

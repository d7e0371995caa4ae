"""The charts over the epochs, and what the weights that were kept score."""

from __future__ import annotations

import math
from typing import NamedTuple

from gossamer.report import figures
from gossamer.report.contents import ReportData, number
from gossamer.report.figures import Series
from gossamer.report.formats import percent, significant

# score -> title of its chart, (name, column of the metrics, colour); the first is the score itself
LINES: dict[str, tuple[str, tuple[tuple[str, str, str], ...]]] = {
    "accuracy": ("Accuracy", (("validation", "accuracy", "b"), ("top 5", "top5", "c"))),
    "map50": (
        "Mean average precision",
        (("IoU 0.5", "map50", "b"), ("0.5 to 0.95", "map", "a"), ("0.75", "map75", "c")),
    ),
    "miou": ("Mean IoU", (("validation", "miou", "b"), ("pixels right", "pixel_accuracy", "c"))),
    "recall1": ("Recall", (("at 1", "recall1", "b"), ("at 5", "recall5", "c"), ("MAP@R", "map_r", "a"))),
}
# score -> what is said of the weights that were kept: (column, name), shares
KEPT = {
    "accuracy": (("val_accuracy", "validation accuracy"), ("val_top5", "in the top 5"), ("val_macro_f1", "macro F1")),
    "map50": (("val_map50", "mAP at IoU 0.5"), ("val_map", "mAP, 0.5 to 0.95"), ("val_ar100", "recall of 100 boxes")),
    "miou": (("val_miou", "mean IoU"), ("val_pixel_accuracy", "pixels right"), ("val_mean_accuracy", "mean accuracy")),
    "recall1": (("val_recall1", "recall at 1"), ("val_map_r", "MAP@R"), ("val_auc", "AUC of pairs")),
}
LOSSES = (("val_loss", "validation loss"), ("loss", "training loss"))


class Panel(NamedTuple):
    """A chart with its title, its series (for the key) and a note."""

    title: str
    series: list[Series]
    form: str
    svg: str
    note: str = ""


def panels(data: ReportData) -> list[Panel]:
    """The charts, in the order of the page."""
    rate, speed = [_line(data, "", "lr", "a")], [_line(data, "", "images_per_second", "a")]
    times = [_line(data, "steps", "step_seconds", "a"), _line(data, "waiting", "data_seconds", "b")]
    every = data.settings.eval_every  # a row is written at each evaluation
    per = "Seconds an epoch" if every == 1 else f"Seconds of {every} epochs"
    return [
        _losses(data),
        _scores(data),
        Panel("Learning rate", rate, "significant", figures.curves("Learning rate", rate, from_zero=True)),
        Panel("Images per second", speed, "count", figures.curves("Training images per second", speed, from_zero=True)),
        Panel(
            per,
            times,
            "significant",
            figures.curves(per, times, from_zero=True),
            "Waiting: for data that were not yet decoded.",
        ),
    ]


def kept(data: ReportData) -> list[tuple[str, str]]:
    """(name, value) of what the row of the weights that were kept says."""
    best = data.best_row() or {}
    shares = KEPT.get(data.score, ((f"val_{data.score}", data.score.replace("_", " ")),))
    found = [(name, percent(best[column])) for column, name in shares if _is_number(best.get(column))]
    losses = [(name, significant(best[column])) for column, name in LOSSES if _is_number(best.get(column))]
    return [*found, *(losses if data.scores_loss else losses[-1:])]


def _losses(data: ReportData) -> Panel:
    series = [_line(data, "training", "loss", "a")]
    smoothed = data.settings.label_smoothing or data.settings.mixup or data.settings.cutmix
    note = ""
    if data.scores_loss:
        series.append(_line(data, "validation", "val_loss", "b"))
        if smoothed:
            note = "The training loss includes label smoothing or mixing; the validation loss does not."
    return Panel("Loss", series, "significant", figures.curves("Loss", series), note)


def _scores(data: ReportData) -> Panel:
    name = data.score.replace("_", " ")
    title, lines = LINES.get(data.score, (name, ((name, data.score, "b"),)))
    series = [_line(data, said, f"val_{column}", colour) for said, column, colour in lines]
    series = [series[0], *(one for one in series[1:] if math.isfinite(one.last))]
    best = data.best_row()
    mark = (number(best["epoch"]), number(best[f"val_{data.score}"])) if best else None
    note = "The ring marks the weights that were kept." if mark else ""
    return Panel(title, series, "percent", figures.curves(title, series, form=_share, mark=mark), note)


def _line(data: ReportData, name: str, column: str, colour: str) -> Series:
    return Series(name, data.column("epoch"), data.column(column), colour)


def _share(value: float) -> str:
    return f"{value * 100:g}%"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))

"""The training curves, and what the selected checkpoint scores."""

from __future__ import annotations

import math
from typing import NamedTuple

from gossamer.charts.lines import Series, line_chart
from gossamer.charts.svg import Markup
from gossamer.host.text import metric_name, metric_title, percent, significant
from gossamer.report.contents import ReportData, as_number

# score -> title of its chart, (name, column of the metrics, colour); the first is the score itself
LINES: dict[str, tuple[str, tuple[tuple[str, str, str], ...]]] = {
    "accuracy": ("Accuracy", (("validation", "accuracy", "b"), ("top 5", "top5", "c"))),
    "map50": (
        "Mean average precision",
        (("mAP@0.5", "map50", "b"), ("mAP@0.5:0.95", "map", "a"), ("mAP@0.75", "map75", "c")),
    ),
    "miou": ("Mean IoU", (("validation", "miou", "b"), ("pixel accuracy", "pixel_accuracy", "c"))),
    "recall1": ("Recall", (("Recall@1", "recall1", "b"), ("Recall@5", "recall5", "c"), ("MAP@R", "map_r", "a"))),
}
# score -> (column, name) of the fractions that the selected checkpoint reached
SELECTED = {
    "accuracy": (("val_accuracy", "validation accuracy"), ("val_top5", "top-5 accuracy"), ("val_macro_f1", "macro F1")),
    "map50": (("val_map50", "mAP@0.5"), ("val_map", "mAP@0.5:0.95"), ("val_ar100", "AR@100")),
    "miou": (("val_miou", "mIoU"), ("val_pixel_accuracy", "pixel accuracy"), ("val_mean_accuracy", "mean accuracy")),
    "recall1": (("val_recall1", "Recall@1"), ("val_map_r", "MAP@R"), ("val_auc", "AUC of pairs")),
}
LOSSES = (("val_loss", "validation loss"), ("loss", "training loss"))


class ChartPanel(NamedTuple):
    """A chart with its title, its series (for the key) and a note."""

    title: str
    series: list[Series]
    form: str
    svg: Markup
    note: str = ""


def training_charts(data: ReportData) -> list[ChartPanel]:
    """The charts, in the order of the page."""
    rate, speed = [_line(data, "", "lr", "a")], [_line(data, "", "images_per_second", "a")]
    times = [_line(data, "steps", "step_seconds", "a"), _line(data, "waiting", "data_seconds", "b")]
    every = data.settings.eval_every  # a row is written at each evaluation
    per = {1: "Seconds per epoch", None: "Seconds from one evaluation to the next"}.get(
        every, f"Seconds of {every} epochs"
    )
    return [
        _losses(data),
        _scores(data),
        ChartPanel(
            "Learning rate",
            rate,
            "significant",
            line_chart("Learning rate", rate, from_zero=True, axis="learning rate"),
        ),
        ChartPanel(
            "Images per second",
            speed,
            "count",
            line_chart("Training images per second", speed, from_zero=True, axis="images/s"),
        ),
        ChartPanel(
            per,
            times,
            "significant",
            line_chart(per, times, from_zero=True, axis="seconds"),
            "Waiting: for data that is not yet decoded.",
        ),
    ]


def selected_checkpoint(data: ReportData) -> list[tuple[str, str]]:
    """(name, value) of what the selected checkpoint scores."""
    best = data.best_row() or {}
    columns = SELECTED.get(data.score, ((f"val_{data.score}", metric_name(data.score)),))
    scores = [(name, percent(best[column])) for column, name in columns if _is_number(best.get(column))]
    losses = [(name, significant(best[column])) for column, name in LOSSES if _is_number(best.get(column))]
    return [*scores, *(losses if data.scores_loss else losses[-1:])]


def _losses(data: ReportData) -> ChartPanel:
    series = [_line(data, "training", "loss", "a")]
    smoothed = data.settings.label_smoothing or data.settings.mixup or data.settings.cutmix
    note = ""
    if data.scores_loss:
        series.append(_line(data, "validation", "val_loss", "b"))
        if smoothed:
            note = "The training loss includes label smoothing or mixing; the validation loss does not."
    return ChartPanel("Loss", series, "significant", line_chart("Loss", series, axis="loss"), note)


def _scores(data: ReportData) -> ChartPanel:
    name = metric_name(data.score)
    title, lines = LINES.get(data.score, (metric_title(data.score), ((name, data.score, "b"),)))
    series = [_line(data, shown, f"val_{column}", colour) for shown, column, colour in lines]
    series = [series[0], *(other for other in series[1:] if math.isfinite(other.last))]
    best = data.best_row()
    ring = (as_number(best["epoch"]), as_number(best[f"val_{data.score}"])) if best else None
    note = "The ring marks the selected checkpoint." if ring else ""
    return ChartPanel(
        title,
        series,
        "percent",
        line_chart(title, series, form=_percent, ring=ring, axis=f"{title if len(series) == 1 else 'score'}, %"),
        note,
    )


def _line(data: ReportData, name: str, column: str, colour: str) -> Series:
    return Series(name, data.column("epoch"), data.column(column), colour)


def _percent(value: float) -> str:
    return f"{value * 100:.4g}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))

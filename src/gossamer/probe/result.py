"""The result of a probe: rows and a verdict, as a table, JSON and a chart."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from gossamer.charts.chart_file import check_chart_path, write_chart
from gossamer.charts.intervals import Interval, KeyEntry, interval_chart
from gossamer.charts.svg import Markup
from gossamer.errors import InputError
from gossamer.host.shown import Report
from gossamer.host.text import DASH, counted, dimensions, format_table

MAJORITY = "majority class"


@dataclass(frozen=True)
class ClassifierScore:
    """One classifier. Accuracies are fractions, 0..1; None where it could not be fitted, and `error` says why.

    kind: "linear", "non-linear", or "baseline". fold_accuracies: one a fold of the training images. held_accuracy: on
    the held-out images, fitted to all training images in `fit_seconds`. predict_us: microseconds a held-out image,
    without the network. note: what scikit-learn warned of.
    """

    name: str
    kind: str
    fold_accuracies: tuple[float, ...] = ()
    held_accuracy: float | None = None
    fit_seconds: float | None = None
    predict_us: float | None = None
    note: str = ""
    error: str = ""

    def line(self) -> str:
        """One line for people, as it is measured."""
        if self.error or self.held_accuracy is None:
            return f"{self.name}: not fitted: {self.error}"
        note = f" ({self.note})" if self.note else ""
        return f"{self.name}: folds {100 * self.mean:.1f} %, held out {100 * self.held_accuracy:.1f} %{note}"

    @property
    def mean(self) -> float:
        """Mean accuracy over the folds; nan where it could not be fitted."""
        return fmean(self.fold_accuracies) if self.fold_accuracies else float("nan")

    @property
    def spread(self) -> float:
        """Standard deviation over the folds (n - 1); nan where it could not be fitted."""
        return stdev(self.fold_accuracies) if len(self.fold_accuracies) > 1 else float("nan")


@dataclass(frozen=True, repr=False)
class ProbeResult(Report):
    """Classifiers on the features of one network. rows: the majority class first, then the classifiers.

    weights: where the network's weights come from, "" for none. warning: how the scores must not be read.
    features: how many a network gives an image. feature_ms: milliseconds per image to decode it and run the network.
    """

    network: str
    weights: str
    trained: bool
    warning: str
    data: str
    input: tuple[int, int, int]
    features: int
    classes: tuple[str, ...]
    train_images: int
    held_images: int
    folds: int
    seed: int
    feature_ms: float
    rows: tuple[ClassifierScore, ...]
    notes: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()

    @property
    def ranked(self) -> list[ClassifierScore]:
        """The rows that could be fitted, the best mean over the folds first."""
        return sorted((row for row in self.rows if not row.error), key=lambda row: -row.mean)

    @property
    def winner(self) -> str | None:
        """The one classifier whose lead over the next row, the majority baseline included, exceeds the larger spread of the two."""
        best, second = [*self.ranked, None, None][:2]
        if best is None or second is None or best.name == MAJORITY:
            return None
        if math.isnan(best.spread) or math.isnan(second.spread):  # of one fold
            return None
        return best.name if best.mean - second.mean > max(best.spread, second.spread) else None

    @property
    def exit_code(self) -> int:
        """1 if no classifier could be fitted."""
        return int(all(row.error for row in self.rows if row.name != MAJORITY))

    def verdict(self) -> str:
        """One line: the winner, or why none is named."""
        ranked = self.ranked
        if len(ranked) < 2:
            return "no winner: no classifier could be fitted"
        best, second = ranked[:2]
        if best.name == MAJORITY:
            return "no winner: no classifier does better than always naming the largest class"
        lead, spread = 100 * (best.mean - second.mean), 100 * max(best.spread, second.spread)
        if math.isnan(best.spread) or math.isnan(second.spread):
            return f"no winner: {best.name} leads {second.name} by {lead:.1f} points, but one fold tells no spread"
        if self.winner:
            return f"winner: {best.name}, {lead:.1f} points before {second.name}; the folds spread by {spread:.1f}"
        return (
            f"no winner: {best.name} leads {second.name} by {lead:.1f} points, "
            f"no more than the folds' spread of {spread:.1f}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; nan becomes None."""
        values = dataclasses.asdict(self)
        for plain, row in zip(values["rows"], self.rows, strict=True):
            plain["mean"], plain["spread"] = (None if math.isnan(value) else value for value in (row.mean, row.spread))
        return {**values, "winner": self.winner, "verdict": self.verdict()}

    def text(self) -> str:
        """A table for people, at most 100 columns wide."""
        lines = _wrapped(self.warning) if self.warning else []
        lines += _wrapped(self.data)
        lines += [
            f"{self.network}, weights {self.weights or 'random'}, input {dimensions(self.input)}: "
            f"{self.features} features, {self.feature_ms:.1f} ms per image",
            "",
            *format_table(
                ("classifier", "kind", f"{self.folds} folds %", "held out %", "fit s", "predict us"),
                [_cells(row) for row in self.ranked],
                left=(0, 1),
                widths=WIDTHS,
                gap=" ",
            ),
            "",
        ]
        for row in self.rows:
            if row.error or row.note:
                lines += _wrapped(f"{row.name}: {'not fitted: ' + row.error if row.error else row.note}")
        for note in self.notes:
            lines += _wrapped(note)
        for name, reason in self.unreadable:
            lines += _wrapped(f"skipped: {name}: {reason}")
        return "\n".join([*lines, self.verdict()])

    def plot(self, path: str | Path) -> None:
        """Write the chart of the accuracies with their spread over the folds.

        path: ends in .svg. Raises InputError for another name or where no classifier was fitted, StorageError.
        """
        check_chart_path(path)
        if all(row.name == MAJORITY for row in self.ranked):
            raise InputError("no classifier was fitted", "at least one", "see the reasons in the table")
        write_chart(path, _chart(self))


# kind of classifier -> class of its colour in chart.css
COLOURS = {"linear": "p0", "non-linear": "p1"}


def _chart(probe: ProbeResult) -> Markup:
    """Accuracies in per cent, the best first, with the majority baseline."""
    rows = [row for row in probe.ranked if row.name != MAJORITY]
    baseline = next((row.mean for row in probe.ranked if row.name == MAJORITY), 0.0)
    intervals = [
        Interval(
            row.name,
            100 * (row.mean - row.spread),
            100 * row.mean,
            100 * (row.mean + row.spread),
            f"{_mean_and_spread(row)} %",
            COLOURS[row.kind],
            100 * (row.held_accuracy or 0.0),
        )
        for row in rows
    ]
    key = [
        *(
            KeyEntry("dot", COLOURS[kind], f"{kind}: mean of {probe.folds} folds, line: standard deviation")
            for kind in dict.fromkeys(row.kind for row in rows)
        ),
        KeyEntry("diamond", "", "accuracy on the held-out images"),
        KeyEntry("dashed", "", "majority baseline: always the largest class"),
    ]
    return interval_chart(
        "Accuracy of classifiers on the features",
        intervals,
        axis="accuracy, %",
        title=f"{probe.network}, weights {probe.weights or 'RANDOM'}: {counted(probe.train_images, 'training image')}",
        from_zero=False,
        reference=100 * baseline,
        key=key,
    )


WIDTHS = (15, 10, 13, 10, 9, 10)


def _mean_and_spread(row: ClassifierScore, width: int = 0) -> str:
    """In per cent, "70.0 ± 2.1"; one fold has no spread. width: of the spread."""
    spread = DASH.rjust(width) if math.isnan(row.spread) else f"{100 * row.spread:{width}.1f}"
    return f"{100 * row.mean:.1f} ± {spread}"


def _cells(row: ClassifierScore) -> tuple[str, ...]:
    assert row.held_accuracy is not None and row.fit_seconds is not None and row.predict_us is not None
    return (
        row.name,
        row.kind,
        _mean_and_spread(row, 4),
        f"{100 * row.held_accuracy:.1f}",
        f"{row.fit_seconds:.3f}",
        f"{row.predict_us:.1f}",
    )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 100, subsequent_indent="  ", break_on_hyphens=False)

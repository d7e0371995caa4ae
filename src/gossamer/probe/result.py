"""What a probe found: rows, the verdict, and the table, the JSON and the picture made of them."""

from __future__ import annotations

import dataclasses
import textwrap
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from gossamer.errors import InputError
from gossamer.host.storage import write_bytes
from gossamer.probe.figure import picture

MAJORITY = "majority class"


@dataclass(frozen=True)
class Row:
    """One classifier. Accuracies are shares, 0..1; None where it could not be fitted, and `error` says why.

    kind: "linear", "non-linear", or "floor". fold_accuracies: one a fold of the training images. held_accuracy: on
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

    @property
    def mean(self) -> float:
        """Mean accuracy over the folds; nan where it could not be fitted."""
        return fmean(self.fold_accuracies) if self.fold_accuracies else float("nan")

    @property
    def spread(self) -> float:
        """Standard deviation over the folds (n - 1); nan where it could not be fitted."""
        return stdev(self.fold_accuracies) if len(self.fold_accuracies) > 1 else float("nan")


@dataclass(frozen=True)
class Probe:
    """Classifiers on the features of one network. rows: the majority class first, then the classifiers.

    weights: what the network's weights were taken from, "" for none. warning: what the scores must not be taken for.
    features: how many a network gives an image. feature_ms: milliseconds an image to decode it and run the network.
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
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()

    @property
    def ranked(self) -> list[Row]:
        """The rows that could be fitted, the best mean over the folds first."""
        return sorted((row for row in self.rows if not row.error), key=lambda row: -row.mean)

    @property
    def winner(self) -> str | None:
        """The one classifier whose lead over the next row, the floor included, exceeds the larger spread of the two."""
        best, second = [*self.ranked, None, None][:2]
        if best is None or second is None or best.name == MAJORITY:
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
            plain["mean"], plain["spread"] = (None if row.error else value for value in (row.mean, row.spread))
        return {**values, "winner": self.winner, "verdict": self.verdict()}

    def text(self) -> str:
        """A table for people, at most 100 columns wide."""
        lines = _wrapped(self.warning) if self.warning else []
        lines += _wrapped(self.data)
        lines += [
            f"{self.network}, weights {self.weights or 'random'}, input {'x'.join(map(str, self.input))}: "
            f"{self.features} features, {self.feature_ms:.1f} ms an image",
            "",
            f"{'classifier':15} {'kind':10} {f'{self.folds} folds %':>13} {'held out %':>10} {'fit s':>9} "
            f"{'predict us':>10}",
            *(_line(row) for row in self.ranked),
            "",
        ]
        for row in self.rows:
            if row.error or row.note:
                lines += _wrapped(f"{row.name}: {'not fitted: ' + row.error if row.error else row.note}")
        for note in self.notes:
            lines += _wrapped(note)
        for name, reason in self.unreadable:
            lines += _wrapped(f"set aside: {name}: {reason}")
        return "\n".join([*lines, self.verdict()])

    def plot(self, path: str | Path) -> None:
        """Draw the accuracies with their spread over the folds into a .png, .svg or .pdf file.

        Raises InputError for another kind of file or where nothing was fitted, MissingPackageError, StorageError.
        """
        kind = Path(path).suffix.lower().removeprefix(".")
        if kind not in ("png", "svg", "pdf"):
            raise InputError(f"{path}: a picture of type {kind!r}", ".png, .svg or .pdf", "give such a name")
        bars = [
            (row.name, row.kind, row.mean, row.spread, row.held_accuracy or 0.0)
            for row in self.ranked
            if row.name != MAJORITY
        ]
        floor = next((row.mean for row in self.ranked if row.name == MAJORITY), 0.0)
        if not bars:
            raise InputError("no classifier was fitted", "at least one", "see the reasons in the table")
        title = f"{self.network}, weights {self.weights or 'RANDOM'}: {self.train_images} training images"
        write_bytes(path, picture(bars, floor, self.folds, title, kind))


def _line(row: Row) -> str:
    assert row.held_accuracy is not None and row.fit_seconds is not None and row.predict_us is not None
    folds = f"{100 * row.mean:.1f} ± {100 * row.spread:4.1f}"
    return (
        f"{row.name:15} {row.kind:10} {folds:>13} {100 * row.held_accuracy:10.1f} {row.fit_seconds:9.3f} "
        f"{row.predict_us:10.1f}"
    )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 100, subsequent_indent="  ", break_on_hyphens=False)

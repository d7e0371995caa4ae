"""What scores are, and those of classification, in numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gossamer.host.shown import Report
from gossamer.host.text import counted, format_table, metric_lines, ratio
from gossamer.images.preprocess import Placement
from gossamer.predictions.head import Raw


class Scores(Protocol):
    """Scores of the predictions for n images. `metrics` are larger where they are better."""

    @property
    def metrics(self) -> dict[str, float]: ...
    @property
    def loss(self) -> float: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def unreadable(self) -> list[tuple[str, str]]: ...
    def to_json(self) -> dict[str, Any]: ...
    def text(self) -> str: ...


class Scorer(Protocol):
    """Collects predictions batch by batch and computes their scores. Can be pickled to another process."""

    unreadable: list[tuple[str, str]]

    def add(self, names: Sequence[str], raw: Raw, targets: Sequence[Any], places: Sequence[Placement]) -> None:
        """The raw outputs for images, what they should have been, and where the images lie in the input."""

    def merge(self, other: Any) -> None:
        """Merge the results of another scorer of the same kind."""

    def scores(self) -> Scores:
        """The scores of all so far."""


class ClassScorer:
    """Scores of one classifier: logits (n, K) and class numbers."""

    def __init__(self, classes: tuple[str, ...], task: str = "classify") -> None:
        self.classes, self.task = classes, task
        self.names: list[str] = []
        self.logits: list[NDArray[np.float32]] = []
        self.targets: list[int] = []
        self.unreadable: list[tuple[str, str]] = []

    def add(self, names: Sequence[str], raw: Raw, targets: Sequence[Any], places: Sequence[Placement]) -> None:
        """Take in logits and class numbers."""
        self.names.extend(names)
        self.logits.append(raw["logits"] if isinstance(raw, dict) else raw)
        self.targets.extend(int(target) for target in targets)

    def merge(self, other: ClassScorer) -> None:
        """Merge the results of another scorer."""
        self.names += other.names
        self.logits += other.logits
        self.targets += other.targets
        self.unreadable += other.unreadable

    def scores(self) -> Evaluation:
        """The scores of all so far."""
        logits = np.concatenate(self.logits) if self.logits else np.zeros((0, len(self.classes)), np.float32)
        return Evaluation(
            self.classes, self.names, logits, np.asarray(self.targets, np.int64), self.unreadable, self.task
        )


@dataclass(frozen=True, repr=False)
class Evaluation(Report):
    """Scores of a classifier on n images. Ratios are 0..1.

    classes: K names. names: n image names. logits: (n, K) float32. targets: (n,) int64.
    unreadable: (name, reason) of the skipped images.
    """

    classes: tuple[str, ...]
    names: list[str]
    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    unreadable: list[tuple[str, str]]
    task: str = "classify"

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits: (n, K)."""
        powers = np.exp(self._shifted)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The class with the largest logit; the first of equals: (n,)."""
        return np.asarray(self.logits.argmax(axis=1), np.int64)

    @cached_property
    def _rank_of_target(self) -> NDArray[np.int64]:
        """How many classes come before the true one, in the order of `predictions.classes.rank`: of equal logits, as int8
        gives many, the class that stands first; all of them where its logit is no number: (n,)."""
        own = np.take_along_axis(self.logits, self.targets[:, None], axis=1)
        earlier = np.arange(len(self.classes)) < self.targets[:, None]
        before = ((self.logits > own) | ((self.logits == own) & earlier)).sum(axis=1)
        return np.where(np.isnan(own[:, 0]), len(self.classes), before).astype(np.int64)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Counts by [true class, predicted class]: (K, K)."""
        size = len(self.classes)
        flat = np.bincount(self.targets * size + self.predicted, minlength=size * size)
        return flat.reshape(size, size).astype(np.int64)

    @cached_property
    def loss(self) -> float:
        """Mean cross-entropy without smoothing or weights, in nats; nan where there are no images."""
        if not len(self.targets):
            return float("nan")
        log_sum = np.log(np.exp(self._shifted).sum(axis=1))
        return float((log_sum - self._shifted[np.arange(len(self.targets)), self.targets]).mean())

    @cached_property
    def _shifted(self) -> NDArray[np.float64]:
        """Logits less the largest of each row; nan where a network has diverged to infinity."""
        with np.errstate(invalid="ignore"):
            shifted: NDArray[np.float64] = self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        return shifted

    @property
    def metrics(self) -> dict[str, float]:
        """accuracy, top5 (where there are more than 5 classes), balanced_accuracy (mean recall), macro_f1."""
        if not len(self.targets):
            return {"accuracy": float("nan")}
        result = {"accuracy": float((self.predicted == self.targets).mean())}
        if len(self.classes) > 5:
            result["top5"] = float((self._rank_of_target < 5).mean())
        rows = [row for row in self.per_class if row["support"]]
        result["balanced_accuracy"] = float(np.mean([row["recall"] for row in rows]))
        result["macro_f1"] = float(np.mean([row["f1"] for row in rows]))
        return result

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """class, precision, recall, f1, support of each class; nan where nothing defines it."""
        hits = self.confusion.diagonal()
        predicted, support = self.confusion.sum(axis=0), self.confusion.sum(axis=1)
        rows = []
        for index, name in enumerate(self.classes):
            precision = hits[index] / predicted[index] if predicted[index] else float("nan")
            recall = hits[index] / support[index] if support[index] else float("nan")
            f1 = (
                2 * hits[index] / (predicted[index] + support[index])
                if predicted[index] + support[index]
                else float("nan")
            )
            rows.append(
                {
                    "class": name,
                    "precision": float(precision),
                    "recall": float(recall),
                    "f1": float(f1),
                    "support": int(support[index]),
                }
            )
        return rows

    def text(self) -> str:
        """A table for people."""
        loss = f", loss {self.loss:.4f}" if np.isfinite(self.loss) else ""
        lines = [f"{counted(len(self.targets), 'image')}{loss}", *metric_lines(self.metrics), ""]
        rows = [
            [row["class"], *(ratio(row[name]) for name in ("precision", "recall", "f1")), str(row["support"])]
            for row in self.per_class
        ]
        lines += format_table(("class", "precision", "recall", "F1", "images"), rows)
        return "\n".join([*lines, *(f"skipped: {name}: {reason}" for name, reason in self.unreadable)])

    def to_json(self) -> dict[str, Any]:
        """Everything but the logits, as plain values; nan becomes None."""
        return {
            "task": self.task,
            "images": len(self.targets),
            "loss": _plain(self.loss),
            **{name: _plain(value) for name, value in self.metrics.items()},
            "per_class": [{key: _plain(value) for key, value in row.items()} for row in self.per_class],
            "confusion": self.confusion.tolist(),
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
        }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value

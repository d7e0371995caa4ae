"""Scores of multi-label, regression and hierarchical heads, in numpy alone.

A target that an image lacks is NaN, or -1 where targets are class numbers; it counts nowhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gossamer.host.shown import Report
from gossamer.host.text import counted, metric_lines
from gossamer.tasks.hierarchy import ClassTree

Floats = NDArray[np.float64]
NAN = float("nan")


@dataclass(frozen=True, repr=False)
class _HeadOutputs(Report, ABC):
    """The outputs of a head for n images, and the targets; (name, reason) of the skipped images."""

    names: list[str]
    outputs: NDArray[np.float32]
    targets: NDArray[Any]
    unreadable: list[tuple[str, str]]

    @classmethod
    def merge(cls, parts: list[Self]) -> Self:
        """One of the images of all `parts`."""
        return replace(
            parts[0],
            names=[name for part in parts for name in part.names],
            outputs=np.concatenate([part.outputs for part in parts]),
            targets=np.concatenate([part.targets for part in parts]),
            unreadable=[row for part in parts for row in part.unreadable],
        )

    @property
    @abstractmethod
    def loss(self) -> float:
        """The mean loss of an image; nan where no image has a label."""

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """The scores of each label or quantity, under "class" its name, under "support" its images."""
        return []

    @property
    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """The scores by name; nan where nothing defines one."""

    def to_json(self) -> dict[str, Any]:
        """Everything but the outputs, as plain values; nan becomes None."""
        scores = {"loss": self.loss, **self.metrics}
        return {
            "images": len(self.names),
            **{name: _plain(value) for name, value in scores.items()},
            **(
                {"per_class": [{name: _plain(value) for name, value in row.items()} for row in self.per_class]}
                if self.per_class
                else {}
            ),
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
        }

    def text(self) -> str:
        """A line a score, for people."""
        loss = f", loss {self.loss:.4f}" if np.isfinite(self.loss) else ""
        return "\n".join(
            [
                f"{counted(len(self.names), 'image')}{loss}",
                *metric_lines(self.metrics),
                *(f"skipped: {name}: {reason}" for name, reason in self.unreadable),
            ]
        )


def _plain(value: Any) -> Any:
    """nan becomes None."""
    return None if isinstance(value, float) and np.isnan(value) else value


@dataclass(frozen=True, repr=False)
class MultiLabelEvaluation(_HeadOutputs):
    """outputs: (n, K) logits, one sigmoid per label. targets: (n, K) of 0, 1 or NaN. labels: K names."""

    labels: tuple[str, ...]

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        """True positives, false positives, false negatives at probability 0.5: (3, K)."""
        predicted, true, false = (
            self.outputs >= 0,
            self.targets == 1,
            self.targets == 0,
        )  # as `classes.labels` names them
        return np.stack([(predicted & true).sum(0), (predicted & false).sum(0), (~predicted & true).sum(0)])

    @property
    def loss(self) -> float:
        """Binary cross-entropy, summed over the labels known of an image."""
        known = ~np.isnan(self.targets)
        if not known.any():
            return NAN
        x = self.outputs.astype(np.float64)
        values = np.logaddexp(0, x) - x * np.where(known, self.targets, 0)
        return float(np.where(known, values, 0).sum() / known.any(1).sum())

    @property
    def metrics(self) -> dict[str, float]:
        """map: mean average precision over the labels that are true somewhere. macro_f1: mean of theirs, micro_f1: of
        all labels together, both at probability 0.5."""
        hits, wrong, missed = self._counts
        occurs = hits + missed > 0
        f1 = 2 * hits[occurs] / (2 * hits[occurs] + wrong[occurs] + missed[occurs])
        denominator = 2 * hits.sum() + wrong.sum() + missed.sum()
        precisions = [value for value in self.average_precisions if not np.isnan(value)]
        return {
            "map": float(np.mean(precisions)) if precisions else NAN,
            "macro_f1": float(f1.mean()) if len(f1) else NAN,
            "micro_f1": float(2 * hits.sum() / denominator) if denominator else NAN,
        }

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """ap, and precision, recall, f1 at probability 0.5; support: images with the label."""
        rows = []
        for name, ap, hits, wrong, missed in zip(
            self.labels, self.average_precisions, *self._counts.tolist(), strict=True
        ):
            rows.append(
                {
                    "class": name,
                    "ap": ap,
                    "precision": hits / (hits + wrong) if hits + wrong else NAN,
                    "recall": hits / (hits + missed) if hits + missed else NAN,
                    "f1": 2 * hits / (2 * hits + wrong + missed) if hits + wrong + missed else NAN,
                    "support": hits + missed,
                }
            )
        return rows

    @cached_property
    def average_precisions(self) -> list[float]:
        """Of each label, nan where it is true nowhere."""
        return [average_precision(x, y) for x, y in zip(self.outputs.T, self.targets.T, strict=True)]


def average_precision(scores: NDArray[np.floating[Any]], targets: NDArray[np.floating[Any]]) -> float:
    """The area below precision over recall, without interpolation: sum of (R_k - R_{k-1}) P_k over the thresholds k.

    scores: (n,). targets: (n,) of 0, 1 or NaN. Equal scores are one threshold. nan where no target is 1.
    """
    known = ~np.isnan(targets)
    scores, targets = scores[known], targets[known]
    if not (targets == 1).any():
        return NAN
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(targets[order] == 1)
    last = np.append(np.diff(scores[order]) != 0, True)  # the last of each run of equal scores
    precision, recall = (hits / np.arange(1, len(hits) + 1))[last], (hits / hits[-1])[last]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


@dataclass(frozen=True, repr=False)
class RegressionEvaluation(_HeadOutputs):
    """outputs: (n, D). targets: (n, D), NaN where not known. quantities: D names, with their units."""

    quantities: tuple[str, ...]

    @cached_property
    def _errors(self) -> Floats:
        return np.asarray(self.outputs.astype(np.float64) - self.targets)

    @property
    def loss(self) -> float:
        """The mean over images of the mean squared error of their known quantities."""
        known = ~np.isnan(self.targets)
        there = known.any(1)
        if not there.any():
            return NAN
        squared_errors = np.where(known, self._errors, 0)[there] ** 2
        return float((squared_errors.sum(1) / known[there].sum(1)).mean())

    @property
    def metrics(self) -> dict[str, float]:
        """r2: mean of the quantities that vary. mae:NAME and rmse:NAME: of each quantity, in its unit."""
        result: dict[str, float] = {"r2": NAN}
        for row in self.per_class:
            result[f"mae:{row['class']}"], result[f"rmse:{row['class']}"] = row["mae"], row["rmse"]
        explained = [row["r2"] for row in self.per_class if not np.isnan(row["r2"])]
        result["r2"] = float(np.mean(explained)) if explained else NAN
        return result

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """mae, rmse, bias (mean of predicted less true), low and high (of the true values), in the unit of each; r2,
        nan where all true values are the same; support: images whose value is known."""
        rows = []
        for name, errors, targets in zip(self.quantities, self._errors.T, self.targets.T, strict=True):
            known = ~np.isnan(targets)
            e, y = errors[known], targets[known].astype(np.float64)
            varied = float(((y - y.mean()) ** 2).sum()) if len(y) else 0.0
            rows.append(
                {
                    "class": name,
                    "mae": float(np.abs(e).mean()) if len(e) else NAN,
                    "rmse": float(np.sqrt((e**2).mean())) if len(e) else NAN,
                    "bias": float(e.mean()) if len(e) else NAN,
                    "r2": 1 - float((e**2).sum()) / varied if varied > 0 else NAN,
                    "low": float(y.min()) if len(y) else NAN,
                    "high": float(y.max()) if len(y) else NAN,
                    "support": len(y),
                }
            )
        return rows


@dataclass(frozen=True, repr=False)
class HierarchicalEvaluation(_HeadOutputs):
    """outputs: (n, K) logits of the leaves. targets: (n, L) the class at each level, coarsest first, -1 not known."""

    tree: ClassTree

    @cached_property
    def probabilities(self) -> list[Floats]:
        """Of the classes of each level: (n, K_level) per level."""
        powers = np.exp(self.outputs.astype(np.float64) - self.outputs.max(axis=1, keepdims=True))
        return self.tree.probabilities(powers / powers.sum(axis=1, keepdims=True))

    @property
    def loss(self) -> float:
        """Cross-entropy in nats, summed over the levels known of an image."""
        there = (self.targets >= 0).any(1)
        total = 0.0
        for level, probabilities in enumerate(self.probabilities):
            rows = np.flatnonzero(self.targets[:, level] >= 0)
            with np.errstate(divide="ignore"):
                total -= float(np.log(probabilities[rows, self.targets[rows, level]]).sum())
        return total / int(there.sum()) if there.any() else NAN

    @property
    def metrics(self) -> dict[str, float]:
        """accuracy: of the leaves. accuracy:1, accuracy:2, ...: of the level of that number, the coarsest first, by the
        most probable class there."""
        accuracies = []
        for level, probabilities in enumerate(self.probabilities):
            known = self.targets[:, level] >= 0
            hits = probabilities.argmax(axis=1)[known] == self.targets[known, level]
            accuracies.append(float(hits.mean()) if len(hits) else NAN)
        return {
            "accuracy": accuracies[-1],
            **{f"accuracy:{level}": accuracy for level, accuracy in enumerate(accuracies, 1)},
        }

"""Scores of classification, from logits and targets, in numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Evaluation:
    """What a classifier said of n images. Shares are 0..1.

    classes: K names. names: n image names. logits: (n, K) float32. targets: (n,) int64.
    unreadable: (name, reason) of the images set aside.
    """

    classes: tuple[str, ...]
    names: list[str]
    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    unreadable: list[tuple[str, str]]
    task: str = "classify"

    @classmethod
    def merge(cls, parts: list[Evaluation]) -> Evaluation:
        """One evaluation of the images of all `parts`."""
        return cls(
            parts[0].classes,
            [name for part in parts for name in part.names],
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.targets for part in parts]),
            [row for part in parts for row in part.unreadable],
        )

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
            best = np.argpartition(-self.logits, 5, axis=1)[:, :5]
            result["top5"] = float((best == self.targets[:, None]).any(axis=1).mean())
        rows = [row for row in self.per_class if row["support"]]
        result["balanced_accuracy"] = float(np.mean([row["recall"] for row in rows]))
        result["macro_f1"] = float(np.mean([row["f1"] for row in rows]))
        return result

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """class, precision, recall, f1, support of each class; nan where nothing defines it."""
        hits = self.confusion.diagonal()
        said, support = self.confusion.sum(axis=0), self.confusion.sum(axis=1)
        rows = []
        for index, name in enumerate(self.classes):
            precision = hits[index] / said[index] if said[index] else float("nan")
            recall = hits[index] / support[index] if support[index] else float("nan")
            f1 = 2 * hits[index] / (said[index] + support[index]) if said[index] + support[index] else float("nan")
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

"""Scores of metric learning, from embeddings and labels, in numpy alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.host.shown import Report
from gossamer.host.text import counted, metric_lines
from gossamer.images.preprocess import Placement
from gossamer.predictions.head import Raw
from gossamer.tasks.embedding.ranking import ranking_scores
from gossamer.tasks.embedding.verification import PairVerification, verify_pairs

FAR = 0.001  # the false-accept rate of `tar` and `threshold`


class EmbeddingScorer:
    """Takes in embeddings (n, D) and the identities they are of. `classes`: names of identities, for the record."""

    def __init__(self, classes: tuple[str, ...] = ()) -> None:
        self.classes = classes
        self.names: list[str] = []
        self.embeddings: list[NDArray[np.float32]] = []
        self.labels: list[int] = []
        self.unreadable: list[tuple[str, str]] = []

    def add(self, names: Sequence[str], raw: Raw, targets: Sequence[Any], places: Sequence[Placement]) -> None:
        """Take in embeddings and class numbers."""
        self.names.extend(names)
        self.embeddings.append(raw["embedding"] if isinstance(raw, dict) else raw)
        self.labels.extend(int(target) for target in targets)

    def merge(self, other: EmbeddingScorer) -> None:
        """Merge the results of another scorer."""
        self.names += other.names
        self.embeddings += other.embeddings
        self.labels += other.labels
        self.unreadable += other.unreadable

    def scores(self) -> EmbeddingScores:
        """The scores of all so far."""
        vectors = np.concatenate(self.embeddings) if self.embeddings else np.zeros((0, 1), np.float32)
        labels = np.asarray(self.labels, np.int64)
        return EmbeddingScores(self.classes, self.names, vectors, labels, self.unreadable)


@dataclass(frozen=True, repr=False)
class EmbeddingScores(Report):
    """The embeddings of n images. Rates are 0..1.

    classes: K names of identities. names: n image names. embeddings: (n, D) float32, not normalised.
    labels: (n,) int64, index into `classes`. unreadable: (name, reason) of the skipped images.
    far: the fraction of pairs of two identities that may be accepted as one.
    """

    classes: tuple[str, ...]
    names: list[str]
    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    unreadable: list[tuple[str, str]]
    far: float = FAR
    task: str = "embed"
    loss: float = float("nan")  # the losses are of batches, which evaluation has not

    @cached_property
    def finite(self) -> bool:
        """Whether all embeddings are numbers; no score is defined where a network has diverged."""
        return bool(np.isfinite(self.embeddings).all())

    @cached_property
    def verification(self) -> PairVerification:
        """All pairs of the images by their similarity; none where the embeddings are not finite."""
        chosen = slice(None) if self.finite else slice(0)
        return verify_pairs(self.embeddings[chosen], self.labels[chosen])

    @cached_property
    def threshold(self) -> float:
        """The cosine similarity from which two images count as one identity, for the false-accept rate `far`."""
        return self.verification.threshold(self.far)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """recall1, recall5, recall10, r_precision, map_r (see `ranking`); auc; tar, the fraction of the pairs of one
        identity that are accepted at `threshold`. nan where nothing defines them."""
        chosen = slice(None) if self.finite else slice(0)
        tar = self.verification.accepted(self.threshold)[0] if self.threshold == self.threshold else float("nan")
        return {
            **ranking_scores(self.embeddings[chosen], self.labels[chosen]),
            "auc": self.verification.auc,
            "tar": tar,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything but the embeddings, as plain values; nan becomes None."""
        return {
            "task": self.task,
            "images": len(self.labels),
            "identities": len(np.unique(self.labels)),
            "loss": _plain(self.loss),
            **{name: _plain(value) for name, value in self.metrics.items()},
            "far": self.far,
            "threshold": _plain(self.threshold),
            "pairs": {"same": int(self.verification.same.sum()), "other": int(self.verification.other.sum())},
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
        }

    def text(self) -> str:
        """A few lines for a terminal."""
        identities = f"{counted(len(self.labels), 'image')} of {counted(len(np.unique(self.labels)), 'identity')}"
        lines = [
            identities,
            *metric_lines(self.metrics, {"tar": f"true-accept rate at a false-accept rate of {self.far:g}"}),
        ]
        if math.isfinite(self.threshold):
            lines.append(f"one identity from a cosine similarity of {self.threshold:.4f}")
        if not self.finite:
            lines.append("the network's outputs are not finite")
        return "\n".join([*lines, *(f"skipped: {name}: {reason}" for name, reason in self.unreadable)])


def _plain(value: float) -> float | None:
    return None if value != value else value

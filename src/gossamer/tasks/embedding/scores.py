"""Scores of metric learning, from embeddings and labels, in numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.tasks.embedding.ranking import ranking_scores
from gossamer.tasks.embedding.verification import Verification, verify_pairs

FAR = 0.001  # the false-accept rate that `tar` and `threshold` are given for


@dataclass(frozen=True)
class EmbeddingScores:
    """What an embedder said of n images. Shares are 0..1.

    classes: K names of identities. names: n image names. embeddings: (n, D) float32, not normalised.
    labels: (n,) int64, index into `classes`. unreadable: (name, reason) of the images set aside.
    far: the share of pairs of two identities that may be taken for one.
    """

    classes: tuple[str, ...]
    names: list[str]
    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    unreadable: list[tuple[str, str]]
    far: float = FAR
    task: str = "embed"
    loss: float = float("nan")  # the losses are of batches, which evaluation has not

    @classmethod
    def merge(cls, parts: list[EmbeddingScores]) -> EmbeddingScores:
        """The scores of the images of all `parts`."""
        return cls(
            parts[0].classes,
            [name for part in parts for name in part.names],
            np.concatenate([part.embeddings for part in parts]),
            np.concatenate([part.labels for part in parts]),
            [row for part in parts for row in part.unreadable],
            parts[0].far,
        )

    @cached_property
    def finite(self) -> bool:
        """Whether all embeddings are numbers; no score is defined where a network has diverged."""
        return bool(np.isfinite(self.embeddings).all())

    @cached_property
    def verification(self) -> Verification:
        """All pairs of the images by their similarity; none where the embeddings are not finite."""
        chosen = slice(None) if self.finite else slice(0)
        return verify_pairs(self.embeddings[chosen], self.labels[chosen])

    @cached_property
    def threshold(self) -> float:
        """The cosine similarity from which two images count as one identity, for the false-accept rate `far`."""
        return self.verification.threshold(self.far)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """recall1, recall5, recall10, r_precision, map_r (see `ranking`); auc; tar, the share of the pairs of one
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
        shown = {name: f"{100 * value:.2f} %" for name, value in self.metrics.items()}
        lines = [
            f"{len(self.labels)} images of {len(np.unique(self.labels))} identities",
            f"recall@1 {shown['recall1']}, @5 {shown['recall5']}, @10 {shown['recall10']}; "
            f"R-precision {shown['r_precision']}; MAP@R {shown['map_r']}",
            f"one identity or two: AUC {shown['auc']}; {shown['tar']} accepted at a false-accept rate of "
            f"{100 * self.far:g} %, from a similarity of {self.threshold:.4f}",
        ]
        return "\n".join(lines)


def _plain(value: float) -> float | None:
    return None if value != value else value

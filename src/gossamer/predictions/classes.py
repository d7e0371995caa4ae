"""Outputs as named classes with scores, labels, or numbers."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import InputError
from gossamer.host.shown import Brief

NOT_FINITE = "the network's outputs are not finite"


@dataclass(frozen=True, repr=False)
class Classification(Brief):
    """The likeliest classes of an image with their scores (softmax), best first; or why there are none."""

    source: str
    classes: tuple[str, ...]
    scores: tuple[float, ...]
    error: str = ""

    def text(self) -> str:
        """The prediction on one line."""
        return ", ".join(f"{name} {score:.3f}" for name, score in zip(self.classes, self.scores, strict=True))

    def lines(self) -> list[str]:
        """What is written on the image: a line per class, the score first, which a long name leaves no room."""
        return [f"{score:.2f} {name}" for name, score in zip(self.classes, self.scores)]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        return {**values, "classes": list(self.classes), "scores": list(self.scores)}


@dataclass(frozen=True, repr=False)
class LabelScores(Brief):
    """The labels whose score (sigmoid) is at least the threshold, best first; `all_scores` are those of every label."""

    source: str
    classes: tuple[str, ...]
    scores: tuple[float, ...]
    all_scores: dict[str, float]
    error: str = ""

    def text(self) -> str:
        """The prediction on one line."""
        return ", ".join(f"{name} {score:.3f}" for name, score in zip(self.classes, self.scores)) or "none"

    def lines(self) -> list[str]:
        """What is written on the image: a line per label, the score first."""
        return [f"{score:.2f} {name}" for name, score in zip(self.classes, self.scores)] or ["no label"]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "classes": list(self.classes), "scores": list(self.scores)}


@dataclass(frozen=True, repr=False)
class Numbers(Brief):
    """The numbers that a regression gives, in the unit of its training data."""

    source: str
    values: dict[str, float]
    error: str = ""

    def text(self) -> str:
        """The prediction on one line."""
        return ", ".join(f"{name} {value:.6g}" for name, value in self.values.items())

    def lines(self) -> list[str]:
        """What is written on the image: a line per number."""
        return [f"{name} {value:.4g}" for name, value in self.values.items()]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def rank(source: str, outputs: NDArray[np.float32], classes: tuple[str, ...], top: int) -> Classification:
    """The `top` best of the outputs (K,); a tie goes to the class that stands first."""
    if not np.isfinite(outputs).all():
        return Classification(source, (), (), NOT_FINITE)
    scores = softmax(outputs)
    order = np.argsort(-scores, kind="stable")[:top]
    return Classification(source, tuple(classes[i] for i in order), tuple(float(scores[i]) for i in order))


def labels(source: str, outputs: NDArray[np.float32], classes: tuple[str, ...], threshold: float) -> LabelScores:
    """The labels of logits (K,) with a score of `threshold` or more."""
    if not np.isfinite(outputs).all():
        return LabelScores(source, (), (), {}, NOT_FINITE)
    scores = sigmoid(outputs)
    order = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= threshold]
    every = {name: float(score) for name, score in zip(classes, scores)}
    return LabelScores(source, tuple(classes[i] for i in order), tuple(float(scores[i]) for i in order), every)


def numbers(
    source: str, outputs: NDArray[np.float32], names: tuple[str, ...], mean: list[float], std: list[float]
) -> Numbers:
    """The numbers that standardised outputs (R,) stand for: output * std + mean."""
    if not np.isfinite(outputs).all():
        return Numbers(source, {}, NOT_FINITE)
    return Numbers(source, {n: float(v) * s + m for n, v, m, s in zip(names, outputs, mean, std)})


def sigmoid(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), computed in float64, returned as float32."""
    return np.asarray(0.5 + 0.5 * np.tanh(outputs.astype(np.float64) / 2), np.float32)


def softmax(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """exp(x) / sum(exp(x)) over the last axis: computed in float64 behind the maximum, returned as float32."""
    power = np.exp(outputs.astype(np.float64) - outputs.max(axis=-1, keepdims=True))
    return np.asarray(power / power.sum(axis=-1, keepdims=True), np.float32)


def check_top(top: int, batch: int) -> None:
    """Raises InputError where `top` or `batch` is no number from 1."""
    for name, value in (("top", top), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} {value!r}", "a whole number from 1", "give such a number")


def source_name(source: object) -> str:
    """What a prediction calls its image: the path, or the kind of thing it is."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source) if isinstance(os.fspath(source), str) else str(source)
    return f"<{type(source).__name__}>"

"""One image's outputs as named classes with scores."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import InputError


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image with their scores (softmax), best first; or why there are none."""

    source: str
    classes: tuple[str, ...]
    scores: tuple[float, ...]
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        return {**values, "classes": list(self.classes), "scores": list(self.scores)}


def rank(source: str, outputs: NDArray[np.float32], classes: tuple[str, ...], top: int) -> Prediction:
    """The `top` best of the outputs (K,); a tie goes to the class that stands first."""
    if not np.isfinite(outputs).all():
        return Prediction(source, (), (), "the network's outputs are not finite")
    scores = softmax(outputs)
    order = np.argsort(-scores, kind="stable")[:top]
    return Prediction(source, tuple(classes[i] for i in order), tuple(float(scores[i]) for i in order))


def softmax(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """exp(x) / sum(exp(x)) over the last axis: computed in float64 behind the maximum, given as float32."""
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

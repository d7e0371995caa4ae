"""From the raw outputs of one image to predictions for people, by the kind of head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import SettingsError
from gossamer.host.shown import Brief
from gossamer.images.preprocess import Placement
from gossamer.predictions import spatial
from gossamer.predictions.classes import NOT_FINITE, Numbers, labels, numbers, rank
from gossamer.predictions.head import OutputHead, Raw
from gossamer.predictions.limits import OWN, DecodingLimits


class Prediction(Protocol):
    """The prediction of a network for one image; `error` says why there is none."""

    @property
    def source(self) -> str: ...
    @property
    def error(self) -> str: ...
    def text(self) -> str: ...
    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, repr=False)
class Embedding(Brief):
    """An embedding of length 1: images that are alike have a large inner product."""

    source: str
    vector: NDArray[np.float32]
    error: str = ""

    def text(self) -> str:
        """The prediction on one line."""
        return " ".join(f"{value:.4f}" for value in self.vector[:8]) + (" ..." if len(self.vector) > 8 else "")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"source": self.source, "vector": self.vector.tolist(), "error": self.error}


@dataclass(frozen=True, repr=False)
class Several(Brief):
    """The predictions of several heads for one image, by their names."""

    source: str
    predictions: dict[str, Prediction]

    @property
    def error(self) -> str:
        """Those of its heads."""
        return "; ".join(
            f"{name}: {prediction.error}" for name, prediction in self.predictions.items() if prediction.error
        )

    def text(self) -> str:
        """The prediction on one line."""
        return "; ".join(
            under_head(name, prediction, prediction.text()) for name, prediction in self.predictions.items()
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"source": self.source, **{name: prediction.to_json() for name, prediction in self.predictions.items()}}


def under_head(name: str, prediction: Prediction, line: str) -> str:
    """A line of a head's prediction behind the head's name, which one number of the same name does not repeat."""
    if isinstance(prediction, Numbers) and [*prediction.values] == [name]:
        line = line.removeprefix(f"{name} ")
    return f"{name}: {line}"


def postprocess(
    heads: tuple[OutputHead, ...],
    raw: Raw,
    place: Placement,
    source: str,
    top: int = 1,
    limits: DecodingLimits = OWN,
) -> Prediction:
    """What the heads say of one image. raw: of a batch of one. top: classes to name. limits: in place of the heads' own."""
    predictions = {head.name: KINDS[head.kind](head, head.of(raw), place, source, top, limits) for head in heads}
    return predictions[heads[0].name] if len(heads) == 1 else Several(source, predictions)


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows (N, D) of length 1; a row of zeros stays."""
    lengths = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


Outputs = dict[str, NDArray[np.float32]]


def _classify(
    head: OutputHead, raw: Outputs, place: Placement, source: str, top: int, limits: DecodingLimits
) -> Prediction:
    return rank(source, raw["logits"][0], head.classes, top)


def _multilabel(
    head: OutputHead, raw: Outputs, place: Placement, source: str, top: int, limits: DecodingLimits
) -> Prediction:
    return labels(source, raw["logits"][0], head.classes, limits.label_threshold(head))


def _regress(
    head: OutputHead, raw: Outputs, place: Placement, source: str, top: int, limits: DecodingLimits
) -> Prediction:
    return numbers(source, raw["values"][0], head.classes, head.options["mean"], head.options["std"])


def _detect(
    head: OutputHead, raw: Outputs, place: Placement, source: str, top: int, limits: DecodingLimits
) -> Prediction:
    return spatial.detected(head, raw, place, source, limits)


def _segment(
    head: OutputHead, raw: Outputs, place: Placement, source: str, top: int, limits: DecodingLimits
) -> Prediction:
    return spatial.segmented(head, raw, place, source)


def _embed(
    head: OutputHead, raw: Outputs, place: Placement, source: str, top: int, limits: DecodingLimits
) -> Prediction:
    vector = raw["embedding"][0]
    if not np.isfinite(vector).all():
        return Embedding(source, np.zeros_like(vector), NOT_FINITE)
    return Embedding(source, unit_length(vector[None])[0])


KINDS: dict[str, Callable[[OutputHead, Outputs, Placement, str, int, DecodingLimits], Prediction]] = {
    "classify": _classify,
    "multilabel": _multilabel,
    "regress": _regress,
    "detect": _detect,
    "segment": _segment,
    "embed": _embed,
}


def check_options(head: OutputHead) -> None:
    """Raises SettingsError unless the options of a head, which may come from a hostile file, are those of its kind."""
    options = head.options
    if head.kind == "multilabel":
        _exactly(head, {"threshold"})
        if not _are_numbers([options["threshold"]]) or not 0 <= options["threshold"] <= 1:
            raise SettingsError(f"threshold {str(options['threshold'])[:20]}", "0 to 1", "fix it")
    elif head.kind == "regress":
        _exactly(head, {"mean", "std"})
        for name in ("mean", "std"):
            values = options[name]
            if not isinstance(values, list) or len(values) != len(head.classes) or not _are_numbers(values):
                raise SettingsError(f"{name} of a regression", f"{len(head.classes)} numbers", "fix it")
    elif head.kind == "detect":
        spatial.check_detect(head)
    elif head.kind == "segment":
        spatial.check_segment(head)
    elif head.options != {"hierarchy": True} or head.kind != "classify":
        _exactly(head, set())


def _exactly(head: OutputHead, names: set[str]) -> None:
    if set(head.options) != names:
        raise SettingsError(
            f"options {sorted(map(str, head.options))[:8]} of a {head.kind} head",
            ", ".join(sorted(names)) or "none",
            "fix them",
        )


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e30 for v in values)

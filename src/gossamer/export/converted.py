"""A run converted to the bytes of a file, and the comparison of the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Comparison:
    """The trained model against the file, over validation images, preprocessed as in deployment.

    score: the metric that counts. trained, file: metrics. images: how many of `available`. largest_difference: over all
    outputs. changed: images whose likeliest class differs; each of them had its two best outputs closer than twice the
    tolerance.
    """

    score: str
    images: int
    available: int
    trained: dict[str, float]
    file: dict[str, float]
    largest_difference: float
    changed: int


@dataclass(frozen=True)
class FileContents:
    """The bytes of a file, and by their suffixes those of the files beside it, whose names are otherwise the same."""

    data: bytes
    beside: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return len(self.data) + sum(len(other) for other in self.beside.values())


@dataclass(frozen=True)
class ConvertedModel:
    """The bytes of a file. opset: ONNX operator set. tolerance: of `verify`, absolute. notes: lines for people.

    beside: as of `FileContents`.
    """

    data: bytes
    opset: int
    tolerance: float
    comparison: Comparison
    notes: tuple[str, ...] = ()
    beside: Mapping[str, bytes] = field(default_factory=dict)

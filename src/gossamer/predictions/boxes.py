"""From a detector's raw outputs to boxes on the image: decoding, non-maximum suppression, and back to the input."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import SettingsError
from gossamer.images.preprocess import Placement
from gossamer.predictions.anchors import AnchorSpec, anchors

Floats = NDArray[np.float32]
LOG_LIMIT = 10.0  # exp of it, times an anchor, is larger than any image; more would overflow
CHUNK = 512  # boxes that are compared at once, at first
SCORES = ("softmax", "sigmoid")


class ScoredBoxes(NamedTuple):
    """m boxes, likeliest first: boxes (m, 4) float32 x0, y0, x1, y1 in pixels, labels (m,) int64, scores (m,) float32."""

    boxes: Floats
    labels: NDArray[np.int64]
    scores: Floats


@dataclass(frozen=True)
class Decoding:
    """How outputs become boxes; travels in the model file.

    score: "softmax" over K + 1 outputs, the first of which is the background, or "sigmoid" of K outputs. threshold:
    scores must be above it. candidates: number of the best boxes per class that are considered, with those that equal
    the last of them. iou: of two boxes of a class that overlap by more, the likelier stays. limit: boxes per image.
    Raises SettingsError on values that make no sense.
    """

    score: str = "softmax"
    threshold: float = 0.01
    candidates: int = 400
    iou: float = 0.5
    limit: int = 100

    def __post_init__(self) -> None:
        rules = (
            ("score", "softmax or sigmoid", isinstance(self.score, str) and self.score in SCORES),
            ("threshold", "0 to 1", _is_fraction(self.threshold)),
            ("candidates", "1 to 100000", type(self.candidates) is int and 1 <= self.candidates <= 100_000),
            ("iou", "0 to 1", _is_fraction(self.iou)),
            ("limit", "1 to 100000", type(self.limit) is int and 1 <= self.limit <= 100_000),
        )
        for name, allowed, good in rules:
            if not good:
                raise SettingsError(f"decoding: {name} {str(getattr(self, name))[:200]!r}", allowed, "fix it")

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads back to an equal object."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Decoding:
        """From `to_json`'s dictionary, which may come from a hostile file. Raises SettingsError."""
        names = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or set(values) != set(names):
            raise SettingsError(f"decoding: {str(values)[:200]!r}", f"exactly {names}", "fix it")
        return cls(**values)


def decode_boxes(deltas: Floats, anchors: Floats, variances: tuple[float, float]) -> Floats:
    """Boxes (..., A, 4) x0, y0, x1, y1 in input pixels, from deltas (..., A, 4) and anchors (A, 4) cx, cy, w, h.

    The inverse of SSD's equation 2: centre = anchor + variance * delta * side; side = anchor * exp(variance * delta).
    """
    centre = anchors[:, :2] + deltas[..., :2] * np.float32(variances[0]) * anchors[:, 2:]
    half = anchors[:, 2:] * np.exp(np.minimum(deltas[..., 2:] * np.float32(variances[1]), np.float32(LOG_LIMIT))) / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def probabilities(logits: Floats, score: str) -> Floats:
    """(..., K) float32 of the classes: softmax of (..., K + 1) without the background, or sigmoid of (..., K)."""
    if score == "sigmoid":
        return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)  # no overflow on either side
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers[..., 1:] / powers.sum(axis=-1, keepdims=True), np.float32)


def pairwise_iou(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Intersection over union of boxes (n, 4) and (m, 4): (n, m); 0 where a box has no area."""
    shared = pairwise_intersection(first, second)
    union = box_areas(first)[:, None] + box_areas(second)[None] - shared
    result: NDArray[Any] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result


def pairwise_intersection(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Area shared by boxes (n, 4) and (m, 4): (n, m)."""
    sides = []
    for low, high in ((0, 2), (1, 3)):  # an axis at a time: three times as fast as both in one array
        side = np.minimum(first[:, None, high], second[None, :, high])
        side -= np.maximum(first[:, None, low], second[None, :, low])
        sides.append(np.maximum(side, 0, out=side))
    across, down = sides
    result: NDArray[Any] = np.multiply(across, down, out=across)
    return result


def box_areas(boxes: NDArray[Any]) -> NDArray[Any]:
    """Area of boxes (n, 4): (n,); 0 where the sides are the wrong way round."""
    result: NDArray[Any] = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
    return result


def nms(
    boxes: Floats, scores: Floats, labels: NDArray[np.int64], iou: float, limit: int | None = None
) -> NDArray[np.int64]:
    """Positions of the boxes that stay, likeliest first, at most `limit`; of equal scores the first is kept.

    A box goes where one of its class that stays has a higher score and overlaps it by more than `iou`. Whether it does
    depends on likelier boxes alone, so that the likeliest CHUNK are tried first, and more only where these do not do.
    """
    order = np.argsort(-scores, kind="stable")
    count = len(order) if limit is None else CHUNK
    while True:
        stay = [group[_survivors(boxes[group], iou)] for group in _groups(order[:count], labels)]
        kept = np.concatenate(stay) if stay else order
        if limit is None or len(kept) >= limit or count >= len(order):
            return kept[np.lexsort((kept, -scores[kept]))][:limit]
        count *= 4


def detections(deltas: Floats, logits: Floats, spec: AnchorSpec, decoding: Decoding) -> ScoredBoxes:
    """The boxes of one image in input pixels: deltas (A, 4), logits (A, K + 1) or (A, K); see `Decoding`.

    Boxes are not clipped to the input. An image whose outputs are not finite has no boxes.
    """
    scores = probabilities(logits, decoding.score)
    able = scores > decoding.threshold
    if len(scores) > decoding.candidates:
        able &= scores >= np.partition(scores, -decoding.candidates, axis=0)[-decoding.candidates]
    places, labels = np.nonzero(able)
    likely, boxes = scores[places, labels], decode_boxes(deltas[places], anchors(spec)[places], spec.variances)
    finite = np.isfinite(boxes).all(axis=1)
    boxes, labels, likely = boxes[finite], labels[finite], likely[finite]
    kept = nms(boxes, likely, labels, decoding.iou, decoding.limit)
    return ScoredBoxes(boxes[kept], labels[kept].astype(np.int64), likely[kept])


def to_image(boxes: Floats, place: Placement) -> Floats:
    """Boxes (m, 4) in pixels of the image, clipped to it, from input pixels; `place`: where it is in the input."""
    moved = (boxes - _shift(place)) / _scale(place)
    return np.asarray(np.clip(moved, 0, [place.width, place.height] * 2), np.float32)


def to_input(boxes: Floats, place: Placement) -> Floats:
    """The inverse of `to_image`, but for the clipping."""
    return np.asarray(boxes * _scale(place) + _shift(place), np.float32)


def _scale(place: Placement) -> NDArray[np.float64]:
    return np.array([place.scale_x, place.scale_y] * 2)


def _shift(place: Placement) -> NDArray[np.float64]:
    return np.array([place.shift_x, place.shift_y] * 2)


def _groups(order: NDArray[np.int64], labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """`order` cut into one part per class, each in the order that it had."""
    if not len(order):
        return []
    by_class = order[np.argsort(labels[order], kind="stable")]
    return np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)


def _survivors(boxes: Floats, iou: float) -> NDArray[np.bool_]:
    """Which boxes (n, 4) of one class, likeliest first, stay: (n,).

    Whether a box stays is right once it is right for all before it, so passes over the whole matrix until nothing
    changes give what a loop over the boxes gives; a handful is enough where the loop has n steps.
    """
    over = np.triu(pairwise_iou(boxes, boxes) > iou, 1)
    stay: NDArray[np.bool_] = np.ones(len(boxes), np.bool_)
    while True:
        again: NDArray[np.bool_] = np.logical_not(over[stay].any(axis=0))
        if np.array_equal(again, stay):
            return stay
        stay = again


def _is_fraction(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1

"""Which boxes of an image are true positives, false negatives and false positives; the best and the worst images of a detector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.data.boxes.annotation import BoxTarget
from gossamer.data.source import Source
from gossamer.images.preprocess import Preprocess
from gossamer.predictions.boxes import ScoredBoxes, pairwise_intersection, pairwise_iou, to_input
from gossamer.report.photos import Photo, ends, missed_last, photo
from gossamer.tasks.detection.average_precision import VOC_OVERLAP
from gossamer.tasks.detection.scores import CONFIDENCE, DetectionScores

EXAMPLES = 6  # best, and as many worst
DRAWN = 60  # boxes of an example at most


class Outcome(NamedTuple):
    """Indices of the true positives among the detections, of the missed objects, of the false positives."""

    matched: list[int]
    missed: list[int]
    false: list[int]

    @property
    def f1(self) -> float:
        """Of this image: 2 TP / (2 TP + FN + FP); nan where there is no object and no detection."""
        total = 2 * len(self.matched) + len(self.missed) + len(self.false)
        return 2 * len(self.matched) / total if total else math.nan


def outcome(truth: BoxTarget, detections: ScoredBoxes) -> Outcome:
    """Match the detections of CONFIDENCE or more to the objects of their class, the highest score first.

    An overlap of 0.5 is enough; crowds are left out, with what reaches into them.
    """
    real, confident = np.flatnonzero(~truth.crowd), np.flatnonzero(detections.scores >= CONFIDENCE)
    overlap = pairwise_iou(detections.boxes[confident], truth.corners[real])
    overlap[detections.labels[confident][:, None] != truth.labels[real]] = 0
    shared = pairwise_intersection(detections.boxes[confident], truth.corners[truth.crowd])
    in_crowd: NDArray[np.bool_] = np.asarray((shared > 0).any(axis=1))
    matched, false = [], []
    free: NDArray[np.bool_] = np.ones(len(real), np.bool_)
    for row in np.argsort(-detections.scores[confident], kind="stable").tolist():
        candidates = np.where(free, overlap[row], 0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= VOC_OVERLAP:
            free[best] = False
            matched.append(int(confident[row]))
        elif not in_crowd[row]:
            false.append(int(confident[row]))
    return Outcome(matched, real[free].tolist(), false)


class BoxMark(NamedTuple):
    """A box on an image, in its pixels. kind: "matched", "missed" or "false"; score: nan of one that was missed."""

    kind: str
    box: tuple[float, float, float, float]
    label: int
    score: float


@dataclass(frozen=True)
class DetectionExample:
    """An image with its boxes; the counts are of all, the marks of the first DRAWN of each kind."""

    name: str
    photo: Photo
    marks: tuple[BoxMark, ...]
    true_positives: int
    false_negatives: int
    false_positives: int


@dataclass(frozen=True)
class DetectionDetails:
    """What only a detector's report shows. sides: (m,) square roots of the areas of the training boxes, in pixels of
    the network's input."""

    worst: tuple[DetectionExample, ...]
    best: tuple[DetectionExample, ...]
    sides: NDArray[np.float64]


def detection_details(
    training: Source, source: Source, scores: DetectionScores, preprocess: Preprocess
) -> DetectionDetails:
    """The examples of the scored images, and the sizes of the training boxes."""
    outcomes = [outcome(truth, detections) for truth, detections in zip(scores.truth, scores.detections)]
    f1 = np.array([result.f1 for result in outcomes])
    worst, best = ends(f1, np.array([len(result.missed) + len(result.false) for result in outcomes]), EXAMPLES)
    worst, best = missed_last(worst, best, [bool(result.matched) for result in outcomes])
    place = {name: index for index, name in enumerate(source.names)}

    def example(index: int) -> DetectionExample:
        return _example(scores, index, outcomes[index], photo(source.read(place[scores.names[index]])))

    return DetectionDetails(tuple(map(example, worst)), tuple(map(example, best)), sides(training, preprocess))


def sides(training: Source, preprocess: Preprocess) -> NDArray[np.float64]:
    """Square roots of the areas of all boxes but crowds, in pixels of the network's input: (m,)."""
    lengths = [np.zeros(0)]
    for index in range(len(training)):
        boxes: BoxTarget = training.target(index)
        corners = to_input(boxes.corners[~boxes.crowd], preprocess.place(*boxes.size))
        lengths.append(np.sqrt(np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), axis=1, dtype=np.float64)))
    return np.concatenate(lengths)


def object_counts(source: Source) -> tuple[int, ...]:
    """BoxTarget of each class."""
    labels: list[NDArray[Any]] = [source.target(index).labels for index in range(len(source))]
    counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(source.classes))
    return tuple(counts.tolist())


def _example(scores: DetectionScores, index: int, seen: Outcome, shown: Photo) -> DetectionExample:
    truth, detections = scores.truth[index], scores.detections[index]

    def marks(kind: str, chosen: list[int]) -> list[BoxMark]:
        if kind == "missed":
            rows = zip(truth.corners[chosen].tolist(), truth.labels[chosen].tolist(), [math.nan] * len(chosen))
        else:
            rows = zip(
                detections.boxes[chosen].tolist(),
                detections.labels[chosen].tolist(),
                detections.scores[chosen].tolist(),
            )
        return [BoxMark(kind, tuple(box), label, score) for box, label, score in list(rows)[:DRAWN]]

    drawn = (*marks("missed", seen.missed), *marks("false", seen.false), *marks("matched", seen.matched))
    return DetectionExample(scores.names[index], shown, drawn, len(seen.matched), len(seen.missed), len(seen.false))

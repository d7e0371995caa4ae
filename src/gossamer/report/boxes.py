"""Which boxes of an image were found, missed and invented; the best and the worst images of a detector as pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.data.boxes.annotation import BoxTarget
from gossamer.data.source import Source
from gossamer.images.preprocess import Preprocess
from gossamer.predictions.boxes import ScoredBoxes, on_input, pairwise_intersection, pairwise_iou
from gossamer.report.photos import Photo, ends, photo
from gossamer.tasks.detection.answer import Boxes as Objects
from gossamer.tasks.detection.average_precision import VOC_OVERLAP
from gossamer.tasks.detection.scores import CONFIDENCE, DetectionScores

EXAMPLES = 6  # best, and as many worst
DRAWN = 60  # boxes of an example at most


class Outcome(NamedTuple):
    """Indices of the detections that found an object, of the objects that were missed, of the detections of nothing."""

    found: list[int]
    missed: list[int]
    invented: list[int]

    @property
    def f1(self) -> float:
        """Of this image: 2 found / (2 found + missed + invented); nan where there is nothing and nothing was said."""
        whole = 2 * len(self.found) + len(self.missed) + len(self.invented)
        return 2 * len(self.found) / whole if whole else math.nan


def outcome(truth: Objects, said: ScoredBoxes) -> Outcome:
    """Match the detections of CONFIDENCE or more to the objects of their class, the likeliest first.

    An overlap of 0.5 is enough; crowds are left out, with what reaches into them.
    """
    real, sure = np.flatnonzero(~truth.crowd), np.flatnonzero(said.scores >= CONFIDENCE)
    overlap = pairwise_iou(said.boxes[sure], truth.corners[real])
    overlap[said.labels[sure][:, None] != truth.labels[real]] = 0
    shared = pairwise_intersection(said.boxes[sure], truth.corners[truth.crowd])
    in_crowd: NDArray[np.bool_] = np.asarray((shared > 0).any(axis=1))
    found, invented = [], []
    free: NDArray[np.bool_] = np.ones(len(real), np.bool_)
    for row in np.argsort(-said.scores[sure], kind="stable").tolist():
        able = np.where(free, overlap[row], 0)
        best = int(able.argmax()) if len(able) else -1
        if best >= 0 and able[best] >= VOC_OVERLAP:
            free[best] = False
            found.append(int(sure[row]))
        elif not in_crowd[row]:
            invented.append(int(sure[row]))
    return Outcome(found, real[free].tolist(), invented)


class Mark(NamedTuple):
    """A box on a picture, in its pixels. kind: "found", "missed" or "invented"; score: nan of one that was missed."""

    kind: str
    box: tuple[float, float, float, float]
    label: int
    score: float


@dataclass(frozen=True)
class Example:
    """An image with its boxes; the counts are of all, the marks of the first DRAWN of each kind."""

    name: str
    photo: Photo
    marks: tuple[Mark, ...]
    found: int
    missed: int
    invented: int


@dataclass(frozen=True)
class BoxDetails:
    """What only a detector's report shows. sides: (m,) square roots of the areas of the training boxes, in pixels of
    the network's input."""

    worst: tuple[Example, ...]
    best: tuple[Example, ...]
    sides: NDArray[np.float64]


def details(training: Source, source: Source, scores: DetectionScores, preprocess: Preprocess) -> BoxDetails:
    """The examples of the scored images, and the sizes of the training boxes."""
    outcomes = [outcome(truth, said) for truth, said in zip(scores.truth, scores.found)]
    f1 = np.array([one.f1 for one in outcomes])
    worst, best = ends(f1, np.array([len(one.missed) + len(one.invented) for one in outcomes]), EXAMPLES)
    place = {name: index for index, name in enumerate(source.names)}

    def example(index: int) -> Example:
        return _example(scores, index, outcomes[index], photo(source.read(place[scores.names[index]])))

    return BoxDetails(tuple(map(example, worst)), tuple(map(example, best)), sides(training, preprocess))


def sides(training: Source, preprocess: Preprocess) -> NDArray[np.float64]:
    """Square roots of the areas of all boxes but crowds, in pixels of the network's input: (m,)."""
    found = [np.zeros(0)]
    for index in range(len(training)):
        boxes: BoxTarget = training.target(index)
        corners = on_input(boxes.corners[~boxes.crowd], preprocess.place(*boxes.size))
        found.append(np.sqrt(np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), axis=1, dtype=np.float64)))
    return np.concatenate(found)


def object_counts(source: Source) -> tuple[int, ...]:
    """Objects of each class."""
    labels: list[NDArray[Any]] = [source.target(index).labels for index in range(len(source))]
    counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(source.classes))
    return tuple(counts.tolist())


def _example(scores: DetectionScores, index: int, seen: Outcome, shown: Photo) -> Example:
    truth, said = scores.truth[index], scores.found[index]

    def marks(kind: str, chosen: list[int]) -> list[Mark]:
        if kind == "missed":
            rows = zip(truth.corners[chosen].tolist(), truth.labels[chosen].tolist(), [math.nan] * len(chosen))
        else:
            rows = zip(said.boxes[chosen].tolist(), said.labels[chosen].tolist(), said.scores[chosen].tolist())
        return [Mark(kind, tuple(box), label, score) for box, label, score in list(rows)[:DRAWN]]

    drawn = (*marks("missed", seen.missed), *marks("invented", seen.invented), *marks("found", seen.found))
    return Example(scores.names[index], shown, drawn, len(seen.found), len(seen.missed), len(seen.invented))

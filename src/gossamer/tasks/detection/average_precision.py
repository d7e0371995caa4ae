"""Average precision as COCO and as PASCAL VOC count it, in numpy alone.

COCO: as its reference code, pycocotools: greedy matching by score at ten overlaps, crowds and objects outside the range
of areas ignored, precision read at 101 recalls. VOC: Everingham et al. 2010, section 4.2; difficult objects ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.data.boxes.annotation import BoxTarget
from gossamer.predictions.boxes import ScoredBoxes, box_areas, pairwise_intersection, pairwise_iou

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
OVERLAPS = np.linspace(0.5, 0.95, 10)  # T of them
RECALLS = np.linspace(0, 1, 101)
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # square pixels
MOST = (1, 10, 100)  # detections of a class per image
VOC_OVERLAP = 0.5


@dataclass(frozen=True)
class Matches:
    """The D detections of one class in all images, in falling order of score.

    rank: (D,) among those of its image. hit, ignored: (areas, T, D), whether it matches an object, and whether it counts.
    objects: (areas,), how many there are to find.
    """

    scores: Floats
    rank: NDArray[np.int64]
    hit: Flags
    ignored: Flags
    objects: NDArray[np.int64]

    def curve(self, areas: int = 0, most: int = MOST[-1]) -> tuple[Floats, Floats]:
        """Precision at RECALLS (T, 101), and recall of all (T,); nan where there is nothing to find."""
        count = int(self.objects[areas])
        if not count:
            return np.full((len(OVERLAPS), len(RECALLS)), np.nan), np.full(len(OVERLAPS), np.nan)
        kept = self.rank < most
        hit, counts = self.hit[areas][:, kept], ~self.ignored[areas][:, kept]
        right, wrong = (hit & counts).cumsum(axis=1), (~hit & counts).cumsum(axis=1)
        recall = right / count
        precision = right / np.maximum(right + wrong, 1)
        # precision at a recall is the best at any that is higher; none where the recall is never reached
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        best = np.concatenate([best, np.zeros((len(OVERLAPS), 1))], axis=1)
        read = np.stack([row[np.searchsorted(r, RECALLS)] for row, r in zip(best, recall)])
        return read, recall[:, -1] if recall.shape[1] else np.zeros(len(OVERLAPS))


def coco_matches(truth: Sequence[BoxTarget], detections: Sequence[ScoredBoxes], classes: int) -> list[Matches]:
    """The matches of each class. truth, detections: of the same images, in the same order, in the same pixels."""
    objects = np.zeros((len(AREAS), classes), np.int64)
    parts = [_nothing()]
    for boxes, image_detections in zip(truth, detections, strict=True):
        parts.append(_image_matches(boxes, image_detections))
        for row, outside in zip(objects, _outside(boxes.area) | boxes.crowd):
            row += np.bincount(boxes.labels[~outside], minlength=classes)
    labels, scores, rank, hit, ignored = (np.concatenate(each, axis=-1) for each in zip(*parts))
    result = []
    for label, chosen in enumerate(_by_class(labels, scores, classes)):
        result.append(Matches(scores[chosen], rank[chosen], hit[..., chosen], ignored[..., chosen], objects[:, label]))
    return result


def summary(matches: Sequence[Matches]) -> dict[str, float]:
    """COCO's numbers, 0..1: map is the mean over classes and OVERLAPS; ar10 the recall with 10 boxes per image, ...

    nan where there is nothing to find.
    """
    names = list(AREAS)
    curves = [each.curve() for each in matches]
    precision = np.array([read for read, _ in curves]).reshape(-1, len(OVERLAPS), len(RECALLS))
    result = {"map": _mean(precision), "map50": _mean(precision[:, 0]), "map75": _mean(precision[:, 5])}
    for index, name in enumerate(names[1:], 1):
        result[f"map_{name}"] = _mean([each.curve(index)[0] for each in matches])
    for most in MOST:
        result[f"ar{most}"] = _mean([each.curve(0, most)[1] for each in matches])
    for index, name in enumerate(names[1:], 1):
        result[f"ar_{name}"] = _mean([each.curve(index)[1] for each in matches])
    return result


def voc_average_precision(
    truth: Sequence[BoxTarget], detections: Sequence[ScoredBoxes], classes: int, *, points: int | None = None
) -> Floats:
    """AP of each class at an overlap of 0.5: (classes,); nan where there is nothing to find.

    points: 11 for the mean of the precision at so many recalls, as until 2009; None for the area under the curve.
    """
    objects = np.zeros(classes, np.int64)
    parts: list[tuple[Any, ...]] = [(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_))]
    for boxes, image_detections in zip(truth, detections, strict=True):
        parts.append(_voc_hits(boxes, image_detections))
        objects += np.bincount(boxes.labels[~(boxes.difficult | boxes.crowd)], minlength=classes)
    labels, scores, hits = (np.concatenate(each) for each in zip(*parts))
    result = np.full(classes, np.nan)
    for label, chosen in enumerate(_by_class(labels, scores, classes)):
        if not objects[label]:
            continue
        right = hits[chosen].cumsum()
        recall, precision = right / objects[label], right / np.arange(1, len(chosen) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        if points:
            recall_points = np.linspace(0, 1, points)
            result[label] = np.append(best, 0)[np.searchsorted(recall, recall_points - 1e-12)].mean()
        else:
            result[label] = (np.diff(recall, prepend=0) * best).sum()
    return result


def _by_class(labels: NDArray[np.int64], scores: Floats, classes: int) -> list[NDArray[np.int64]]:
    """The positions of each class's detections, in falling order of score; of equal ones, the first comes first."""
    order = np.lexsort((-scores, labels))
    return np.split(order, np.searchsorted(labels[order], np.arange(1, classes)))


def _outside(areas: NDArray[Any]) -> Flags:
    """Which of n areas lie outside each of AREAS: (areas, n)."""
    return np.stack([(areas < low) | (areas > high) for low, high in AREAS.values()])


def _nothing() -> tuple[Any, ...]:
    """What `_image_matches` gives of no detections."""
    none = np.zeros((len(AREAS), len(OVERLAPS), 0), np.bool_)
    return np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), none, none


def _image_matches(boxes: BoxTarget, detections: ScoredBoxes) -> tuple[Any, ...]:
    """The labels, scores, ranks, hits and ignored ones of the detections in one image: see `Matches`."""
    order = np.lexsort((-detections.scores, detections.labels))
    labels = detections.labels[order]
    rank = np.arange(len(order)) - np.searchsorted(labels, labels)
    order, labels, rank = order[rank < MOST[-1]], labels[rank < MOST[-1]], rank[rank < MOST[-1]]
    detected, corners = detections.boxes[order].astype(np.float64), boxes.corners.astype(np.float64)
    outside = _outside(boxes.area) | boxes.crowd
    hit = np.zeros((len(AREAS), len(OVERLAPS), len(order)), np.bool_)
    ignored = hit.copy()
    for label in np.intersect1d(labels, boxes.labels).tolist():
        mine, chosen = boxes.labels == label, np.flatnonzero(labels == label)
        matches = _match(detected[chosen], corners[mine], boxes.crowd[mine], outside[:, mine])
        hit[..., chosen], ignored[..., chosen] = matches
    ignored |= ~hit & _outside(box_areas(detected))[:, None]
    return labels, detections.scores[order].astype(np.float64), rank, hit, ignored


def _match(detected: Floats, corners: Floats, crowd: Flags, outside: Flags) -> tuple[Flags, Flags]:
    """Hits and ignored hits (areas, T, D), for D detections in falling order of score and G objects.

    Each detection takes the free object that it overlaps most, the last of equals; one that counts before one that does
    not. A crowd takes any number, and its overlap is relative to the area of the detection. outside: (areas, G), what is ignored.
    """
    shape = (len(AREAS), len(OVERLAPS), len(detected))
    hit, ignored = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    overlap = _overlap(detected, corners, crowd)
    least = np.minimum(OVERLAPS, 1 - 1e-10)[:, None]
    free = np.ones((*shape[:2], len(corners)), np.bool_)
    last = len(corners) - 1
    for index in np.flatnonzero(overlap.max(axis=1) >= least[0]).tolist():
        row = overlap[index]
        able = free & (row >= least)
        counted = able & ~outside[:, None]
        able = np.where(counted.any(axis=2, keepdims=True), counted, able)
        which, at = np.nonzero(able.any(axis=2))
        best = last - np.where(able, row, -1)[..., ::-1].argmax(axis=2)[which, at]
        hit[which, at, index] = True
        ignored[which, at, index] = outside[which, best]
        free[which, at, best] = crowd[best]
    return hit, ignored


def _overlap(detected: Floats, corners: Floats, crowd: Flags) -> Floats:
    """(D, G): intersection over union, or over the detection where the object is a crowd."""
    result: Floats = pairwise_iou(detected, corners)
    if crowd.any():
        shared, own = pairwise_intersection(detected, corners[crowd]), box_areas(detected)[:, None]
        result[:, crowd] = np.divide(shared, own, out=np.zeros_like(shared), where=own > 0)
    return result


def _voc_hits(boxes: BoxTarget, detections: ScoredBoxes) -> tuple[Any, ...]:
    """Labels, scores and hits of the detections in one image, but for those of difficult objects."""
    order = np.argsort(-detections.scores, kind="stable")
    labels, scores = detections.labels[order], detections.scores[order].astype(np.float64)
    hit, counts = np.zeros(len(order), np.bool_), np.ones(len(order), np.bool_)
    for label in np.intersect1d(labels, boxes.labels[~boxes.crowd]).tolist():
        mine, chosen = (boxes.labels == label) & ~boxes.crowd, np.flatnonzero(labels == label)
        iou = pairwise_iou(detections.boxes[order[chosen]].astype(np.float64), boxes.corners[mine].astype(np.float64))
        best, near = iou.argmax(axis=1), iou.max(axis=1) >= VOC_OVERLAP
        counts[chosen] = ~(near & boxes.difficult[mine][best])
        first = np.unique(np.where(near, best, -1), return_index=True)[1]  # the second on an object is wrong
        hit[chosen[first]] = near[first]
    return labels[counts], scores[counts], hit[counts]


def _mean(values: Any) -> float:
    """The mean of what is not nan; nan where all is."""
    flat = np.asarray(values, np.float64).ravel()
    flat = flat[~np.isnan(flat)]
    return float(flat.mean()) if len(flat) else float("nan")

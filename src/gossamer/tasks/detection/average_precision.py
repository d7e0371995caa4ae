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

from gossamer.answers.boxes import Detections, area, pairwise_intersection, pairwise_iou
from gossamer.tasks.detection.answer import Boxes

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
OVERLAPS = np.linspace(0.5, 0.95, 10)  # T of them
RECALLS = np.linspace(0, 1, 101)
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # square pixels
MOST = (1, 10, 100)  # detections of a class an image
VOC_OVERLAP = 0.5


@dataclass(frozen=True)
class Matches:
    """The D detections of one class in all images, in falling order of score.

    rank: (D,) among those of its image. hit, ignored: (areas, T, D), whether it found an object, and whether it counts.
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
        taken = self.rank < most
        hit, counts = self.hit[areas][:, taken], ~self.ignored[areas][:, taken]
        right, wrong = (hit & counts).cumsum(axis=1), (~hit & counts).cumsum(axis=1)
        recall = right / count
        precision = right / np.maximum(right + wrong, 1)
        # precision at a recall is the best at any that is higher; none where the recall is never reached
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        best = np.concatenate([best, np.zeros((len(OVERLAPS), 1))], axis=1)
        read = np.stack([row[np.searchsorted(r, RECALLS)] for row, r in zip(best, recall)])
        return read, recall[:, -1] if recall.shape[1] else np.zeros(len(OVERLAPS))


def coco_matches(truth: Sequence[Boxes], found: Sequence[Detections], classes: int) -> list[Matches]:
    """The matches of each class. truth, found: of the same images, in the same order, in the same pixels."""
    parts: list[list[tuple[Any, ...]]] = [[] for _ in range(classes)]
    objects = np.zeros((classes, len(AREAS)), np.int64)
    for boxes, said in zip(truth, found, strict=True):
        order = np.argsort(-said.scores, kind="stable")
        for label in np.union1d(boxes.labels, said.labels).tolist():
            mine, chosen = boxes.labels == label, order[said.labels[order] == label][: MOST[-1]]
            corners, crowd = boxes.corners[mine].astype(np.float64), boxes.crowd[mine]
            outside = _outside(boxes.area[mine]) | crowd
            detected = said.boxes[chosen].astype(np.float64)
            hit, ignored = _match(detected, corners, crowd, outside)
            ignored |= ~hit & _outside(area(detected))[:, None]
            objects[label] += (~outside).sum(axis=1)
            parts[label].append((said.scores[chosen].astype(np.float64), np.arange(len(chosen)), hit, ignored))
    return [_joined(each, objects[label]) for label, each in enumerate(parts)]


def summary(matches: Sequence[Matches]) -> dict[str, float]:
    """COCO's numbers, 0..1: map is the mean over classes and OVERLAPS; ar10 the recall with 10 boxes an image, ...

    nan where there is nothing to find.
    """
    names = list(AREAS)
    whole = [each.curve() for each in matches]
    precision = np.array([read for read, _ in whole]).reshape(-1, len(OVERLAPS), len(RECALLS))
    result = {"map": _mean(precision), "map50": _mean(precision[:, 0]), "map75": _mean(precision[:, 5])}
    for index, name in enumerate(names[1:], 1):
        result[f"map_{name}"] = _mean([each.curve(index)[0] for each in matches])
    for most in MOST:
        result[f"ar{most}"] = _mean([each.curve(0, most)[1] for each in matches])
    for index, name in enumerate(names[1:], 1):
        result[f"ar_{name}"] = _mean([each.curve(index)[1] for each in matches])
    return result


def voc_average_precision(
    truth: Sequence[Boxes], found: Sequence[Detections], classes: int, *, points: int | None = None
) -> Floats:
    """AP of each class at an overlap of 0.5: (classes,); nan where there is nothing to find.

    points: 11 for the mean of the precision at so many recalls, as until 2009; None for the area under the curve.
    """
    result = np.full(classes, np.nan)
    for label in range(classes):
        scores, hits, count = _voc_hits(truth, found, label)
        if not count:
            continue
        hits = hits[np.argsort(-scores, kind="stable")]
        right = hits.cumsum()
        recall, precision = right / count, right / np.arange(1, len(hits) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        if points:
            asked = np.linspace(0, 1, points)
            result[label] = np.append(best, 0)[np.searchsorted(recall, asked - 1e-12)].mean()
        else:
            result[label] = (np.diff(recall, prepend=0) * best).sum()
    return result


def _outside(areas: NDArray[Any]) -> Flags:
    """Which of n areas lie outside each of AREAS: (areas, n)."""
    return np.stack([(areas < low) | (areas > high) for low, high in AREAS.values()])


def _match(detected: Floats, corners: Floats, crowd: Flags, outside: Flags) -> tuple[Flags, Flags]:
    """Hits and ignored hits (areas, T, D), for D detections in falling order of score and G objects.

    Each detection takes the free object that it overlaps most, the last of equals; one that counts before one that does
    not. A crowd takes any number, and its overlap is the share of the detection. outside: (areas, G), what is ignored.
    """
    shape = (len(AREAS), len(OVERLAPS), len(detected))
    hit, ignored = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    if not len(corners) or not len(detected):
        return hit, ignored
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
        shared, own = pairwise_intersection(detected, corners[crowd]), area(detected)[:, None]
        result[:, crowd] = np.divide(shared, own, out=np.zeros_like(shared), where=own > 0)
    return result


def _joined(parts: list[tuple[Any, ...]], objects: NDArray[np.int64]) -> Matches:
    """The images' detections as one list by score; of equal ones, the first image's first."""
    none = np.zeros((len(AREAS), len(OVERLAPS), 0), np.bool_)
    parts = [(np.zeros(0), np.zeros(0, np.int64), none, none), *parts]
    scores, rank, hit, ignored = (np.concatenate(each, axis=-1) for each in zip(*parts))
    order = np.argsort(-scores, kind="stable")
    return Matches(scores[order], rank[order], hit[..., order], ignored[..., order], objects)


def _voc_hits(truth: Sequence[Boxes], found: Sequence[Detections], label: int) -> tuple[Floats, Flags, int]:
    """Scores and hits of all detections of a class but those of difficult objects, and how many objects there are."""
    scores, hits, count = [np.zeros(0)], [np.zeros(0, np.bool_)], 0
    for boxes, said in zip(truth, found, strict=True):
        mine = (boxes.labels == label) & ~boxes.crowd
        corners, difficult = boxes.corners[mine].astype(np.float64), boxes.difficult[mine]
        count += int((~difficult).sum())
        chosen = np.flatnonzero(said.labels == label)
        chosen = chosen[np.argsort(-said.scores[chosen], kind="stable")]
        hit, counts = np.zeros(len(chosen), np.bool_), np.ones(len(chosen), np.bool_)
        if len(corners) and len(chosen):
            iou = pairwise_iou(said.boxes[chosen].astype(np.float64), corners)
            best, near = iou.argmax(axis=1), iou.max(axis=1) >= VOC_OVERLAP
            counts = ~(near & difficult[best])
            first = np.unique(np.where(near, best, -1), return_index=True)[1]  # the second on an object is wrong
            hit[first] = near[first] & counts[first]
        scores.append(said.scores[chosen][counts].astype(np.float64))
        hits.append(hit[counts])
    return np.concatenate(scores), np.concatenate(hits), count


def _mean(values: Any) -> float:
    """The mean of what is not nan; nan where all is."""
    flat = np.asarray(values, np.float64).ravel()
    flat = flat[~np.isnan(flat)]
    return float(flat.mean()) if len(flat) else float("nan")

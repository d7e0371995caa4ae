"""Scores of detection, in numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.data.boxes.annotation import BoxTarget
from gossamer.host.shown import Report
from gossamer.host.text import counted, format_table, metric_lines, ratio
from gossamer.images.preprocess import Placement
from gossamer.predictions.anchors import AnchorSpec
from gossamer.predictions.boxes import (
    Decoding,
    ScoredBoxes,
    detections,
    pairwise_intersection,
    pairwise_iou,
    to_image,
)
from gossamer.predictions.head import Raw
from gossamer.tasks.detection.average_precision import (
    RECALLS,
    VOC_OVERLAP,
    Matches,
    coco_matches,
    summary,
    voc_average_precision,
)

CONFIDENCE = 0.3  # score from which a detection counts, in the confusion alone
NAMES = {
    "map": "mAP@0.5:0.95",
    "map50": "mAP@0.5",
    "map75": "mAP@0.75",
    "map_small": "mAP@0.5:0.95, small objects",
    "map_medium": "mAP@0.5:0.95, medium objects",
    "map_large": "mAP@0.5:0.95, large objects",
    "ar1": "AR@1",
    "ar10": "AR@10",
    "ar100": "AR@100",
}
"""The scores that are printed, as COCO's users write them; objects are medium from 32 x 32 pixels, large from 96 x 96."""


class DetectionScorer:
    """Scores of one detector of these classes and anchors: deltas (n, A, 4), logits (n, A, K + 1 or K), and boxes."""

    def __init__(self, classes: tuple[str, ...], spec: AnchorSpec, decoding: Decoding) -> None:
        self.classes, self.spec, self.decoding = classes, spec, decoding
        self.names: list[str] = []
        self.truth: list[BoxTarget] = []
        self.detections: list[ScoredBoxes] = []
        self.unreadable: list[tuple[str, str]] = []

    def add(
        self,
        names: Sequence[str],
        raw: Raw,
        targets: Sequence[Any],
        places: Sequence[Placement],
    ) -> None:
        """Take in raw outputs, the boxes of the images, and where the images are in the input."""
        assert isinstance(raw, dict)
        self.names.extend(names)
        self.truth.extend(targets)
        for deltas, logits, place in zip(raw["deltas"], raw["logits"], places):
            seen = detections(deltas, logits, self.spec, self.decoding)
            self.detections.append(seen._replace(boxes=to_image(seen.boxes, place)))

    def merge(self, other: DetectionScorer) -> None:
        """Merge the results of another scorer."""
        self.names += other.names
        self.truth += other.truth
        self.detections += other.detections
        self.unreadable += other.unreadable

    def scores(self) -> DetectionScores:
        """The scores of all so far."""
        return DetectionScores(self.classes, self.names, self.truth, self.detections, self.unreadable)


@dataclass(frozen=True, repr=False)
class DetectionScores(Report):
    """Scores of a detector on n images. Ratios are 0..1, nan where there is nothing to find.

    classes: K names. names: n image names. truth: the annotated boxes. detections: those predicted, in the same
    pixels. unreadable: (name, reason) of the skipped images.
    """

    classes: tuple[str, ...]
    names: list[str]
    truth: list[BoxTarget]
    detections: list[ScoredBoxes]
    unreadable: list[tuple[str, str]]
    task: str = "detect"

    @cached_property
    def matches(self) -> list[Matches]:
        """Which detections match an object, for each class, as COCO counts."""
        return coco_matches(self.truth, self.detections, len(self.classes))

    @cached_property
    def metrics(self) -> dict[str, float]:
        """COCO's numbers (see `average_precision.summary`), and voc, the area under the curve at an overlap of 0.5."""
        voc = voc_average_precision(self.truth, self.detections, len(self.classes))
        voc = voc[~np.isnan(voc)]
        return {**summary(self.matches), "voc": float(voc.mean()) if len(voc) else float("nan")}

    @property
    def loss(self) -> float:
        """None: it depends on which anchors are matched, which says nothing of the detections."""
        return float("nan")

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """class, map, map50, map75, recall (of 100 boxes per image), support of each class."""
        rows = []
        for name, each in zip(self.classes, self.matches):
            precision, recall = each.curve()
            rows.append(
                {
                    "class": name,
                    "map": float(precision.mean()),
                    "map50": float(precision[0].mean()),
                    "map75": float(precision[5].mean()),
                    "recall": float(recall.mean()),
                    "support": int(each.objects[0]),
                }
            )
        return rows

    @cached_property
    def curves(self) -> NDArray[np.float64]:
        """Precision of each class at the recalls 0, 0.01, ..., 1, at an overlap of 0.5: (K, 101)."""
        return np.array([each.curve()[0][0] for each in self.matches]).reshape(-1, len(RECALLS))

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Counts by [true class, predicted class], of detections of CONFIDENCE or more: (K + 1, K + 1).

        The last row is false positives, the last column missed objects. Pairs are formed by overlap,
        largest first, down to 0.5, whatever the classes; crowds are left out, with what reaches into them.
        """
        size = len(self.classes) + 1
        counts = np.zeros(size * size, np.int64)
        for boxes, image_detections in zip(self.truth, self.detections):
            real, confident = ~boxes.crowd, image_detections.scores >= CONFIDENCE
            labels, predicted = boxes.labels[real], image_detections.labels[confident]
            rows, columns = _pairs(pairwise_iou(boxes.corners[real], image_detections.boxes[confident]))
            in_crowd = (pairwise_intersection(boxes.corners[boxes.crowd], image_detections.boxes[confident]) > 0).any(
                axis=0
            )
            alone = np.setdiff1d(np.flatnonzero(~in_crowd), columns)
            paired = labels[rows] * size + predicted[columns]
            missed = np.delete(labels, rows) * size + size - 1
            invented = (size - 1) * size + predicted[alone]
            counts += np.bincount(np.concatenate([paired, missed, invented]), minlength=size * size)
        return counts.reshape(size, size)

    def to_json(self) -> dict[str, Any]:
        """Everything but the boxes, as plain values; nan becomes None."""
        return {
            "task": self.task,
            "images": len(self.names),
            **{name: _plain(value) for name, value in self.metrics.items()},
            "per_class": [{key: _plain(value) for key, value in row.items()} for row in self.per_class],
            "curves": [[_plain(value) for value in row] for row in self.curves.round(4).tolist()],
            "confusion": self.confusion.tolist(),
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
        }

    def text(self) -> str:
        """A few lines for people."""
        metrics = {name: self.metrics[name] for name in NAMES}
        lines = [
            f"{counted(len(self.names), 'image')}, {counted(sum(row['support'] for row in self.per_class), 'object')}"
        ]
        lines += [*metric_lines(metrics, NAMES), ""]
        rows = [
            [row["class"], *(ratio(row[name]) for name in ("map", "map50", "recall")), str(row["support"])]
            for row in self.per_class
        ]
        lines += format_table(("class", "mAP@0.5:0.95", "mAP@0.5", "AR@100", "objects"), rows)
        return "\n".join([*lines, *(f"skipped: {name}: {reason}" for name, reason in self.unreadable)])


def _pairs(iou: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns in pairs, the largest first, each once, down to an overlap of 0.5."""
    rows, columns = np.nonzero(iou >= VOC_OVERLAP)
    left = np.argsort(-iou[rows, columns], kind="stable").tolist()
    chosen: list[int] = []
    seen: set[tuple[str, int]] = set()
    for index in left:
        pair = {("row", int(rows[index])), ("column", int(columns[index]))}
        if not pair & seen:
            seen |= pair
            chosen.append(index)
    return rows[chosen], columns[chosen]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value

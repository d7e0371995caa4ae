"""Scores of segmentation from one confusion matrix, in numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import DataError
from gossamer.host.shown import Report
from gossamer.host.text import counted, format_table, metric_lines, ratio
from gossamer.images.preprocess import Placement
from gossamer.predictions.head import Raw
from gossamer.predictions.masks import IGNORED, Mask, Size, mask_of_logits

PixelCounts = NDArray[np.int64]
Ratios = NDArray[np.float64]


def confusion_of(truth: Mask, predicted: Mask, classes: int) -> PixelCounts:
    """Pixels by [true class, predicted class]: (classes, classes). Pixels whose truth is IGNORED count nowhere.

    Raises DataError where the masks differ in size or name another class.
    """
    if truth.shape != predicted.shape:
        raise DataError(f"a mask of {predicted.shape} for one of {truth.shape}", "masks of one size", "up-sample it")
    counted = truth != IGNORED
    true, predictions = truth[counted].astype(np.int64), predicted[counted]
    highest = max(int(true.max(initial=0)), int(predictions.max(initial=0)))
    if highest >= classes:
        raise DataError(f"class {highest} in a mask", f"0 to {classes - 1}, and {IGNORED} to ignore", "fix the mask")
    flat = np.bincount(true * classes + predictions, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def iou_of(confusion: PixelCounts) -> Ratios:
    """Intersection over union of each class, (K,); nan for a class in neither the truth nor the prediction.

    Everingham et al. 2010, The PASCAL Visual Object Classes Challenge, section 4.4: TP / (TP + FP + FN).
    """
    hits = confusion.diagonal()
    return _ratio(hits, confusion.sum(axis=0) + confusion.sum(axis=1) - hits)


def _ratio(part: PixelCounts, total: PixelCounts) -> Ratios:
    return np.where(total > 0, part / np.maximum(total, 1), np.nan)


def _mean(values: Ratios) -> float:
    """The mean of what is defined; nan where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


class MaskScorer:
    """Takes images one by one and keeps of each its name and its mean IoU only, so that masks of any size may come.

    input_size: (height, width) of the network's input, which the logits cover.
    """

    def __init__(self, classes: tuple[str, ...], input_size: Size) -> None:
        self.classes, self.input_size = classes, input_size
        self.names: list[str] = []
        self.image_miou: list[float] = []
        self.confusion: PixelCounts = np.zeros((len(classes), len(classes)), np.int64)
        self.unreadable: list[tuple[str, str]] = []

    def add(self, names: Sequence[str], raw: Raw, targets: Sequence[Mask], places: Sequence[Placement]) -> None:
        """Take in logits (n, K, h, w) and the masks of the images' own sizes. Raises DataError."""
        logits = raw["logits"] if isinstance(raw, dict) else raw
        for name, one, truth, place in zip(names, logits, targets, places, strict=True):
            self.count(name, truth, mask_of_logits(one, (place.height, place.width), self.input_size, place))

    def count(self, name: str, truth: Mask, predicted: Mask) -> None:
        """Take in one image; both masks (H, W) of the image's own size. Raises DataError."""
        counts = confusion_of(truth, predicted, len(self.classes))
        self.confusion = self.confusion + counts
        self.names.append(name)
        self.image_miou.append(_mean(iou_of(counts)))

    def merge(self, other: MaskScorer) -> None:
        """Merge the results of another scorer."""
        self.names += other.names
        self.image_miou += other.image_miou
        self.confusion = self.confusion + other.confusion
        self.unreadable += other.unreadable

    def scores(self) -> SegmentationEvaluation:
        """The scores of all so far."""
        return SegmentationEvaluation(
            self.classes, list(self.names), self.confusion, np.array(self.image_miou), list(self.unreadable)
        )


@dataclass(frozen=True, repr=False)
class SegmentationEvaluation(Report):
    """Scores of the pixels of n images. Ratios are 0..1.

    classes: K names. names: n image names. confusion: (K, K) pixels by [true, predicted class]. image_miou: (n,) mean
    IoU of each image over the classes in it. unreadable: (name, reason) of the skipped images. loss: nan, for logits
    are scored at the images' own sizes and losses are not.
    """

    classes: tuple[str, ...]
    names: list[str]
    confusion: PixelCounts
    image_miou: Ratios
    unreadable: list[tuple[str, str]]
    loss: float = float("nan")
    task: str = "segment"

    @cached_property
    def iou(self) -> Ratios:
        """IoU of each class: (K,); nan where a class is in neither the truth nor the prediction."""
        return iou_of(self.confusion)

    @cached_property
    def accuracy(self) -> Ratios:
        """Recall of each class's pixels: (K,); nan where it has none."""
        return _ratio(self.confusion.diagonal(), self.confusion.sum(axis=1))

    @property
    def metrics(self) -> dict[str, float]:
        """miou, pixel_accuracy, mean_accuracy; classes that do not occur are left out of the means."""
        total = self.confusion.sum()
        pixels = float(self.confusion.trace() / total) if total else float("nan")
        return {"miou": _mean(self.iou), "pixel_accuracy": pixels, "mean_accuracy": _mean(self.accuracy)}

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """class, iou, accuracy, precision, support (pixels) of each class; nan where nothing defines it."""
        precision = _ratio(self.confusion.diagonal(), self.confusion.sum(axis=0))
        support = self.confusion.sum(axis=1)
        return [
            {
                "class": name,
                "iou": float(self.iou[i]),
                "accuracy": float(self.accuracy[i]),
                "precision": float(precision[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(self.classes)
        ]

    def worst(self, count: int = 10) -> list[tuple[str, float]]:
        """(name, mean IoU) of the images with the lowest, worst first; images without a class are left out."""
        order = np.argsort(self.image_miou, kind="stable")
        defined = [i for i in order.tolist() if not np.isnan(self.image_miou[i])]
        return [(self.names[i], float(self.image_miou[i])) for i in defined[:count]]

    def text(self) -> str:
        """A few lines for people."""
        rows = [
            [row["class"], *(ratio(row[name]) for name in ("iou", "accuracy", "precision")), str(row["support"])]
            for row in self.per_class
        ]
        lines = [counted(len(self.names), "image"), *metric_lines(self.metrics), ""]
        lines += format_table(("class", "IoU", "accuracy", "precision", "pixels"), rows)
        return "\n".join([*lines, *(f"skipped: {name}: {reason}" for name, reason in self.unreadable)])

    def to_json(self) -> dict[str, Any]:
        """Plain values; nan becomes None."""
        return {
            "task": self.task,
            "images": len(self.names),
            "loss": _plain(self.loss),
            **{name: _plain(value) for name, value in self.metrics.items()},
            "per_class": [{key: _plain(value) for key, value in row.items()} for row in self.per_class],
            "confusion": self.confusion.tolist(),
            "per_image": [
                {"name": name, "miou": _plain(value)} for name, value in zip(self.names, self.image_miou.tolist())
            ],
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
        }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value

"""Scores of segmentation from one confusion matrix, in numpy alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.answers.masks import IGNORED, Mask
from gossamer.errors import DataError

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


def confusion_of(truth: Mask, predicted: Mask, classes: int) -> Counts:
    """Pixels by [true class, predicted class]: (classes, classes). Pixels whose truth is IGNORED count nowhere.

    Raises DataError where the masks differ in size or name another class.
    """
    if truth.shape != predicted.shape:
        raise DataError(f"a mask of {predicted.shape} for one of {truth.shape}", "masks of one size", "up-sample it")
    counted = truth != IGNORED
    true, said = truth[counted].astype(np.int64), predicted[counted]
    highest = max(int(true.max(initial=0)), int(said.max(initial=0)))
    if highest >= classes:
        raise DataError(f"class {highest} in a mask", f"0 to {classes - 1}, and {IGNORED} to ignore", "mend the mask")
    flat = np.bincount(true * classes + said, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def iou_of(confusion: Counts) -> Shares:
    """Intersection over union of each class, (K,); nan for a class in neither the truth nor the prediction.

    Everingham et al. 2010, The PASCAL Visual Object Classes Challenge, section 4.4: TP / (TP + FP + FN).
    """
    hits = confusion.diagonal()
    return _share(hits, confusion.sum(axis=0) + confusion.sum(axis=1) - hits)


def _share(part: Counts, whole: Counts) -> Shares:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: Shares) -> float:
    """The mean of what is defined; nan where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


@dataclass
class Tally:
    """Images scored one by one, none of them kept: `add` each, then `evaluation`."""

    classes: tuple[str, ...]
    names: list[str] = field(default_factory=list)
    image_miou: list[float] = field(default_factory=list)
    confusion: Counts = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((len(self.classes), len(self.classes)), np.int64)

    def add(self, name: str, truth: Mask, predicted: Mask) -> None:
        """Count one image; both masks (H, W) of the image's own size. Raises DataError."""
        counts = confusion_of(truth, predicted, len(self.classes))
        self.confusion += counts
        self.names.append(name)
        self.image_miou.append(_mean(iou_of(counts)))

    def evaluation(
        self, unreadable: list[tuple[str, str]] | None = None, loss: float = float("nan")
    ) -> SegmentationEvaluation:
        """The scores so far. loss: the mean over the images, if it is known."""
        return SegmentationEvaluation(
            self.classes, list(self.names), self.confusion.copy(), np.array(self.image_miou), unreadable or [], loss
        )


@dataclass(frozen=True)
class SegmentationEvaluation:
    """What a network said of the pixels of n images. Shares are 0..1.

    classes: K names. names: n image names. confusion: (K, K) pixels by [true, predicted class]. image_miou: (n,) mean
    IoU of each image over the classes in it. unreadable: (name, reason) of the images set aside. loss: nan if unknown.
    """

    classes: tuple[str, ...]
    names: list[str]
    confusion: Counts
    image_miou: Shares
    unreadable: list[tuple[str, str]]
    loss: float = float("nan")
    task: str = "segment"

    @classmethod
    def merge(cls, parts: list[SegmentationEvaluation]) -> SegmentationEvaluation:
        """One evaluation of the images of all `parts`; parts without images have no say in the loss."""
        counts = np.array([len(part.names) for part in parts])
        losses = np.array([part.loss for part in parts])[counts > 0]
        return cls(
            parts[0].classes,
            [name for part in parts for name in part.names],
            np.sum([part.confusion for part in parts], axis=0),
            np.concatenate([part.image_miou for part in parts]),
            [row for part in parts for row in part.unreadable],
            float(np.average(losses, weights=counts[counts > 0])) if len(losses) else float("nan"),
        )

    @cached_property
    def iou(self) -> Shares:
        """IoU of each class: (K,); nan where a class is in neither the truth nor the prediction."""
        return iou_of(self.confusion)

    @cached_property
    def accuracy(self) -> Shares:
        """Share of each class's pixels that were found: (K,); nan where it has none."""
        return _share(self.confusion.diagonal(), self.confusion.sum(axis=1))

    @property
    def metrics(self) -> dict[str, float]:
        """miou, pixel_accuracy, mean_accuracy; classes that do not occur are left out of the means."""
        total = self.confusion.sum()
        pixels = float(self.confusion.trace() / total) if total else float("nan")
        return {"miou": _mean(self.iou), "pixel_accuracy": pixels, "mean_accuracy": _mean(self.accuracy)}

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """class, iou, accuracy, precision, support (pixels) of each class; nan where nothing defines it."""
        precision = _share(self.confusion.diagonal(), self.confusion.sum(axis=0))
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
        shown = "  ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        width = max(map(len, self.classes))
        rows = [f"{name:<{width}}  IoU {value:.4f}" for name, value in zip(self.classes, self.iou.tolist())]
        aside = [f"{len(self.unreadable)} images could not be read"] if self.unreadable else []
        return "\n".join([f"{len(self.names)} images: {shown}", *rows, *aside])

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

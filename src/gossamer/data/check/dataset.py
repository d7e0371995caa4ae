"""A dataset checked before it is trained on, without torch: its images, and the annotations that its task needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gossamer.data.check.images import ALL_CLEAR, ALL_CLEAR_IMAGES, ImageCheck, check_images
from gossamer.data.check.labels import TargetCheck, check_boxes, check_heads, check_masks
from gossamer.data.open import open_data
from gossamer.data.source import Data, Source
from gossamer.data.tasks import reader_of
from gossamer.host.progress import SILENT, Progress
from gossamer.host.shown import Report
from gossamer.settings import Settings


@dataclass(frozen=True, repr=False)
class DatasetCheck(Report):
    """The check of the images, and of their annotations; None where an image has a class and nothing else."""

    task: str
    images: ImageCheck
    annotations: TargetCheck | None

    def to_json(self) -> dict[str, Any]:
        """The values of the images, with the task and its annotations."""
        annotations = self.annotations.to_json() if self.annotations else None
        return {**self.images.to_json(), "task": self.task, "annotations": annotations}

    def text(self) -> str:
        """What is read, the annotations in place of the classes, the images, advice last."""
        return self.images.text(self.annotations.text() if self.annotations else "")


def check_dataset(
    root: str, task: str = "classify", *, val: str = "", heads: str = "", progress: Progress = SILENT
) -> DatasetCheck:
    """Read every image at `root`, and the annotations that the task needs.

    heads: of the task "multi", as in the settings of a training. Raises DataError, SettingsError, UnknownNameError.
    """
    settings = Settings(data=root, val=val, task=task, heads=heads)  # type: ignore[arg-type]
    data = open_data(root, val=val, val_share=settings.val_share, seed=settings.seed, read=reader_of(task, settings))
    annotations = None
    if task == "detect":
        annotations = check_boxes(data, (root, val))
    elif task == "segment":
        annotations = check_masks(data)
    elif data.train.targets is not None:
        annotations = check_heads(data)
    images = check_images(
        _of_one_class(data) if annotations else data,
        identities=task == "embed",
        annotated=annotations is not None,
        progress=progress,
    )
    advice = [*(annotations.advice if annotations else []), *images.advice]
    if len(advice) > 1:
        advice = [line for line in advice if line not in (ALL_CLEAR, ALL_CLEAR_IMAGES)]
    return DatasetCheck(task, replace(images, advice=advice), annotations)


def _of_one_class(data: Data) -> Data:
    """The images of `data`, all of one class: an image with boxes, a mask or several labels has no class of its own."""

    def relabelled(source: Source) -> Source:
        return replace(source, classes=("images",), labels=np.zeros(len(source), np.int64))

    test = relabelled(data.test) if data.test else None
    return Data(relabelled(data.train), relabelled(data.val), test, ("images",), data.how, data.notes, data.left_out)

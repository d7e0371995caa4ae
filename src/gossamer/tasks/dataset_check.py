"""A dataset checked before it is trained on: its images, and the boxes or masks that its task needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gossamer.data.check.images import ImageCheck, check_images
from gossamer.data.check.labels import TargetCheck, check_boxes, check_masks
from gossamer.data.source import Data, Source
from gossamer.host.progress import SILENT, Progress
from gossamer.settings import Settings
from gossamer.tasks.registry import task_of


@dataclass(frozen=True)
class DatasetCheck:
    """The check of the images, and of their annotations; None where an image has a class and nothing else."""

    task: str
    images: ImageCheck
    annotations: TargetCheck | None

    def to_json(self) -> dict[str, Any]:
        """The values of the images, with the task and its annotations."""
        annotations = self.annotations.to_json() if self.annotations else None
        return {**self.images.to_json(), "task": self.task, "annotations": annotations}

    def text(self) -> str:
        """The annotations, then the images, advice last."""
        return "\n\n".join([*([self.annotations.text()] if self.annotations else []), self.images.text()])


def check_dataset(root: str, task: str = "classify", *, val: str = "", progress: Progress = SILENT) -> DatasetCheck:
    """Read every image at `root`, and the annotations that the task needs. Raises DataError, UnknownNameError."""
    settings = Settings(data=root, val=val, task=task)  # type: ignore[arg-type]
    data = task_of(task).open_data(settings)
    annotations = (
        check_boxes(data, (root, val)) if task == "detect" else check_masks(data) if task == "segment" else None
    )
    if annotations is None:
        return DatasetCheck(task, check_images(data, identities=task == "embed", progress=progress), None)
    images = check_images(_of_one_class(data), progress=progress)
    return DatasetCheck(task, replace(images, advice=[*annotations.advice, *images.advice]), annotations)


def _of_one_class(data: Data) -> Data:
    """The images of `data`, all of one class: an image with boxes or a mask has no class of its own."""

    def relabelled(source: Source) -> Source:
        return replace(source, classes=("images",), labels=np.zeros(len(source), np.int64))

    test = relabelled(data.test) if data.test else None
    return Data(relabelled(data.train), relabelled(data.val), test, ("images",), data.how, data.notes)

"""The data of a task looked through before it is trained on: its images, and the boxes or masks that belong to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gossamer.data.check.images import Inspection, inspect
from gossamer.data.check.labels import Answered, boxes_of, masks_of
from gossamer.data.source import Data, Source
from gossamer.host.progress import SILENT, Progress
from gossamer.settings import Settings
from gossamer.tasks.registry import task_of


@dataclass(frozen=True)
class LookThrough:
    """What was found. answers: None where an image has a class and nothing else."""

    task: str
    images: Inspection
    labels: Answered | None

    def to_json(self) -> dict[str, Any]:
        """The values of the images, with the task and its answers."""
        answers = self.labels.to_json() if self.labels else None
        return {**self.images.to_json(), "task": self.task, "answers": answers}

    def text(self) -> str:
        """The answers, then the images, advice last."""
        return "\n\n".join([*([self.labels.text()] if self.labels else []), self.images.text()])


def look_through(root: str, task: str = "classify", *, val: str = "", progress: Progress = SILENT) -> LookThrough:
    """Read every image at `root`, and what the task takes from there. Raises DataError, UnknownNameError."""
    settings = Settings(data=root, val=val, task=task)  # type: ignore[arg-type]
    data = task_of(task).open_data(settings)
    answers = boxes_of(data, (root, val)) if task == "detect" else masks_of(data) if task == "segment" else None
    if answers is None:
        return LookThrough(task, inspect(data, apart=task == "embed", progress=progress), None)
    found = inspect(_classless(data), progress=progress)
    return LookThrough(task, replace(found, advice=[*answers.advice, *found.advice]), answers)


def _classless(data: Data) -> Data:
    """The images of `data`, all of one class: an image with boxes or a mask has none of its own."""

    def plain(source: Source) -> Source:
        return replace(source, classes=("images",), labels=np.zeros(len(source), np.int64))

    test = plain(data.test) if data.test else None
    return Data(plain(data.train), plain(data.val), test, ("images",), data.how, data.notes)

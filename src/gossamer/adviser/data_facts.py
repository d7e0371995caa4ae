"""What the rules on the task read of a run's training images: their sizes, their boxes, and the anchors beside them."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from gossamer.data.open import apply_split
from gossamer.data.source import Source
from gossamer.data.tasks import reader_of
from gossamer.errors import GossamerError, InputError
from gossamer.images.decode import describe
from gossamer.images.preprocess import Preprocess
from gossamer.predictions.anchors import AnchorSpec
from gossamer.run import Run

LOOKED_AT = 200  # images whose headers are read
BOXED = 1000  # images whose boxes are read
MATCHED = 0.5  # intersection over union of a box with its best anchor: SSD (1512.02325), section 2.2
Numbers = NDArray[np.float64]


def _none(columns: int) -> Numbers:
    return np.zeros((0, columns))


@dataclass(frozen=True)
class DataFacts:
    """size, resize, crop_pct: of the input, as `Preprocess` has them. images: (n, 2) rows and columns of images as they are.

    boxes: (n, 2) width and height of objects in pixels of the input. steps: pixels of the input between the positions of
    each map that predicts boxes. anchors: (n, 3) width and height of their shapes in pixels of the input, and the places each
    is at.
    """

    size: tuple[int, int]
    resize: str = "crop"
    crop_pct: float = 1.0
    images: Numbers = field(default_factory=lambda: _none(2))
    boxes: Numbers = field(default_factory=lambda: _none(2))
    steps: tuple[float, ...] = ()
    anchors: Numbers = field(default_factory=lambda: _none(3))

    def scales(self) -> Numbers:
        """(n, 2): what the rows and the columns of each image are multiplied with to become the input."""
        preprocess = Preprocess(self.size, self.resize, self.crop_pct)
        return np.asarray([_scales(preprocess, int(rows), int(columns)) for rows, columns in self.images], np.float64)


def _scales(preprocess: Preprocess, rows: int, columns: int) -> tuple[float, float]:
    place = preprocess.place(rows, columns)
    return place.scale_y, place.scale_x


def facts_of_run(path: str, data: str, preprocess: Preprocess, module: nn.Module) -> DataFacts:
    """The facts of a run folder. data: where its images lie, "" where they lay when it was trained.

    Raises DataError where they are not there, InputError where none can be read, RunError.
    """
    run = Run.open(path)
    settings = run.settings
    read = reader_of(settings.task, settings)
    opened = apply_split(
        data or settings.data, run.split(), val="" if data else settings.val, classes=run.classes, read=read
    )
    spec = next((one for each in module.modules() if isinstance(one := getattr(each, "spec", None), AnchorSpec)), None)
    facts = DataFacts(preprocess.size, preprocess.resize, preprocess.crop_pct, images=_sizes(opened.train))
    if not len(facts.images):
        raise InputError(
            f"{data or settings.data}: no training image can be read", "the images of the run", "check --data"
        )
    if settings.task == "detect":
        facts = dataclasses.replace(facts, boxes=_boxes(opened.train, preprocess))
    if spec is not None:
        steps = tuple(math.sqrt(math.prod(spec.input) / math.prod(level.size)) for level in spec.levels)
        anchors = [(w, h, math.prod(level.size)) for level in spec.levels for w, h in level.shapes]
        facts = dataclasses.replace(facts, steps=steps, anchors=np.asarray(anchors, np.float64).reshape(-1, 3))
    return facts


def _few(source: Source, count: int) -> list[int]:
    """The indices of at most `count` images, evenly over the source."""
    return [int(index) for index in np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).round())]


def _sizes(source: Source) -> Numbers:
    sizes = []
    for index in _few(source, LOOKED_AT):
        try:
            header = describe(source.read(index), name=source.names[index])
        except GossamerError:  # one that cannot be read has no size; the training has left it out as well
            continue
        sizes.append((header.height, header.width))
    return np.asarray(sizes, np.float64).reshape(-1, 2)


def _boxes(source: Source, preprocess: Preprocess) -> Numbers:
    parts = [_none(2)]
    for index in _few(source, BOXED):
        target: Any = source.target(index)
        sides = (target.corners[:, 2:].astype(np.float64) - target.corners[:, :2])[~target.crowd]
        down, across = _scales(preprocess, *(int(side) for side in target.size))
        parts.append(sides * np.asarray([across, down]))
    boxes = np.concatenate(parts)
    return np.asarray(boxes[(boxes > 0).all(axis=1)], np.float64)


def check_data(kind: str, target: str, data: str | os.PathLike[str] | None) -> None:
    """Raises InputError where data were given for what has none."""
    if data is not None and kind != "run":
        raise InputError(f"--data for {target}, a {kind}", "a run folder", "review the run that was trained on them")

"""Scores of anything that maps images to raw outputs - a network, a model file - on a source of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.data.augment import EvalTransform, Transform
from gossamer.data.cache import Cache
from gossamer.data.frames import FrameStore, FrameTransform
from gossamer.data.joint import EvalJoint
from gossamer.data.loader import Batches, prefetch
from gossamer.data.source import Source
from gossamer.errors import DataError
from gossamer.host.progress import SILENT, Progress
from gossamer.host.text import counted
from gossamer.images.preprocess import Placement, Preprocess
from gossamer.predictions.head import Raw
from gossamer.tasks.scores import ClassScorer, Evaluation, Scorer

Forward = Callable[[NDArray[np.float32]], Raw]


def evaluate(
    forward: Forward,
    source: Source,
    preprocess: Preprocess,
    scorer: Scorer,
    *,
    batch: int = 64,
    cache: Cache | None = None,
    prepare: Callable[[NDArray[np.uint8]], NDArray[Any]] | None = None,
    rank: int = 0,
    world: int = 1,
    max_unreadable: float = 1.0,
    what: str = "evaluating",
    progress: Progress = SILENT,
) -> Scorer:
    """Run `forward` over the images of `source`, each preprocessed as in deployment, and add the outputs to `scorer`.

    prepare: makes of pixels what `forward` takes, where that is not `preprocess.normalise`. Process `rank` of `world` takes every world-th image. Raises DataError where no image can be read, or more than
    the fraction `max_unreadable` cannot.
    """
    order = np.arange(rank, len(source), world)
    transform: Transform | EvalJoint = EvalTransform(preprocess) if source.targets is None else EvalJoint(preprocess)
    if isinstance(source.store, FrameStore) and isinstance(transform, EvalTransform):
        transform = FrameTransform(transform, source.store.count)
    batches = Batches(source, transform, order, batch, cache=cache, max_unreadable=max_unreadable)
    count = 0
    for part in progress.track(prefetch(batches), len(batches), f"{what}: batch"):
        scorer.unreadable.extend(part.unreadable)
        if not len(part.indices):
            continue
        names = [source.names[index] for index in part.indices]
        targets, places = part.targets, [Placement(*preprocess.size, 1, 1)] * len(names)
        if source.targets is not None:
            targets, places = [one for one, _ in targets], [place for _, place in targets]
        scorer.add(names, forward((prepare or preprocess.normalise)(part.pixels)), targets, places)
        count += len(names)
    if not count and world == 1:
        raise DataError(
            f"none of {counted(len(source), 'image')} can be read",
            "readable images",
            "look at the list of unreadable images",
        )
    return scorer


def classification(forward: Forward, source: Source, preprocess: Preprocess, **options: object) -> Evaluation:
    """`evaluate` for one classifier over the classes of `source`."""
    scorer = ClassScorer(source.classes)
    evaluate(forward, source, preprocess, scorer, **options)  # type: ignore[arg-type]
    return scorer.scores()

"""Scores of anything that maps images to logits - a network, a model file - on a source of images. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gossamer.data.augment import EvalTransform
from gossamer.data.cache import Cache
from gossamer.data.loader import Batches, prefetch
from gossamer.data.source import Source
from gossamer.errors import DataError
from gossamer.images import Preprocess
from gossamer.progress import SILENT, Progress
from gossamer.tasks.scores import Evaluation

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def evaluate(
    forward: Forward,
    source: Source,
    preprocess: Preprocess,
    *,
    batch: int = 64,
    cache: Cache | None = None,
    rank: int = 0,
    world: int = 1,
    max_unreadable: float = 1.0,
    what: str = "evaluating",
    progress: Progress = SILENT,
) -> Evaluation:
    """Run `forward` over the images of `source`, each preprocessed as in deployment.

    Process `rank` of `world` takes every world-th image. Raises DataError where no image can be read, or more than
    the share `max_unreadable` cannot.
    """
    order = np.arange(rank, len(source), world)
    batches = Batches(source, EvalTransform(preprocess), order, batch, cache=cache, max_unreadable=max_unreadable)
    names: list[str] = []
    logits: list[NDArray[np.float32]] = []
    targets: list[NDArray[np.int64]] = []
    unreadable: list[tuple[str, str]] = []
    for part in progress.track(prefetch(batches), len(batches), what):
        unreadable.extend(part.unreadable)
        if len(part.indices):
            logits.append(forward(preprocess.normalise(part.pixels)))
            targets.append(part.targets)
            names.extend(source.names[index] for index in part.indices)
    if not logits and world == 1:
        raise DataError(
            f"none of {len(source)} images can be read", "readable images", "look at the list of unreadable images"
        )
    return Evaluation(
        source.classes,
        names,
        np.concatenate(logits) if logits else np.zeros((0, len(source.classes)), np.float32),
        np.concatenate(targets) if targets else np.zeros(0, np.int64),
        unreadable,
    )

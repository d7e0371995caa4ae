"""How much worse one network is than another on the same images, with the interval that so many images leave open."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gossamer.data.source import Source
from gossamer.host.progress import Progress
from gossamer.images.preprocess import Preprocess
from gossamer.tasks.base import Task
from gossamer.tasks.scores import Evaluation
from gossamer.training.evaluate import Forward, evaluate

GROUPS = 20  # of images, each left out once, for the jackknife of scores that are no mean over images
NORMAL, STUDENT = (
    1.960,
    2.093,
)  # the 97.5 % quantiles of the normal and of Student's t with GROUPS - 1 degrees of freedom


@dataclass(frozen=True)
class Outcome:
    """What a network did on images. metrics: of all of them; score: the name of the one that decides.

    Of a classifier `names` are the images that could be read, `predicted` and `targets` their classes. Of another task
    `replicates` is the score without each of GROUPS groups of images; empty where there are fewer images than groups.
    """

    score: str
    images: int
    metrics: dict[str, float]
    names: tuple[str, ...] = ()
    predicted: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    replicates: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        """The score, 0..1."""
        return self.metrics[self.score]

    def to_json(self) -> dict[str, Any]:
        """Plain values, which `outcome_of` reads."""
        return dict(vars(self))


def outcome_of(values: Mapping[str, Any]) -> Outcome:
    """What `Outcome.to_json` gave."""
    lists = ("names", "predicted", "targets", "replicates")
    known: dict[str, Any] = {name: tuple(value) if name in lists else value for name, value in values.items()}
    known["metrics"] = {name: _known(value) for name, value in known["metrics"].items()}
    known["replicates"] = tuple(map(_known, known["replicates"]))
    return Outcome(**known)


def _known(value: float | None) -> float:
    return math.nan if value is None else value  # JSON has no NaN


@dataclass(frozen=True)
class Drop:
    """Points of 100 that a score is below another one on the same images; low, high: the 95 % interval, nan for none.

    lost, gained: of a classifier how many images only the other one, and only this one, has right.
    """

    points: float
    low: float = math.nan
    high: float = math.nan
    lost: int | None = None
    gained: int | None = None

    @property
    def resolved(self) -> bool:
        """Whether the images tell the two apart: 0 is outside the interval."""
        return self.low > 0 or self.high < 0

    def text(self) -> str:
        """For people: the interval always stands beside the number."""
        if not math.isfinite(self.low):
            return f"{self.points:+.2f} points lost (too few images for an interval)"
        return f"{self.points:+.2f} points lost (95 % interval {self.low:+.2f} to {self.high:+.2f})"


def outcome(
    forward: Forward, source: Source, preprocess: Preprocess, task: Task, progress: Progress, what: str
) -> Outcome:
    """Score a network on the images of a source. Raises DataError where none can be read."""
    groups = min(GROUPS, max(1, len(source)))
    parts = []
    for number in progress.track(range(groups), groups, what):
        some = source.select(np.arange(number, len(source), groups))
        parts.append(evaluate(forward, some, preprocess, task.scorer()))
    merged = copy.deepcopy(parts[0])
    for part in parts[1:]:
        merged.merge(part)
    scores = merged.scores()
    metrics = {name: float(value) for name, value in scores.metrics.items()}
    if isinstance(scores, Evaluation) and task.score == "accuracy":
        return Outcome(
            task.score,
            len(scores.names),
            metrics,
            tuple(scores.names),
            tuple(scores.predicted.tolist()),
            tuple(scores.targets.tolist()),
        )
    replicates = []
    for left_out in range(groups if groups == GROUPS else 0):
        rest = [part for number, part in enumerate(parts) if number != left_out]
        some_scorer = copy.deepcopy(rest[0])
        for part in rest[1:]:
            some_scorer.merge(part)
        replicates.append(float(some_scorer.scores().metrics[task.score]))
    return Outcome(task.score, len(scores.names), metrics, replicates=tuple(replicates))


def drop_between(before: Outcome, after: Outcome) -> Drop:
    """How far `after` is below `before`.

    Classifiers: the difference of paired proportions with the adjusted Wald interval of Bonett and Price 2012, Journal of
    Educational and Behavioral Statistics 37(4), which stays open where no image differs. Other tasks: the delete-a-group
    jackknife of the difference (Efron and Tibshirani 1993, chapter 11).
    """
    if before.names and after.names:
        a, b = _right(before), _right(after)
        both = [name for name in a if name in b]
        lost = sum(a[name] and not b[name] for name in both)
        gained = sum(b[name] and not a[name] for name in both)
        return Drop(100 * (lost - gained) / max(1, len(both)), *paired_interval(lost, gained, len(both)), lost, gained)
    points = 100 * (before.value - after.value)
    if len(before.replicates) != GROUPS or len(after.replicates) != GROUPS:
        return Drop(points)
    differences = 100 * (np.asarray(before.replicates) - np.asarray(after.replicates))
    if not np.isfinite(differences).all():
        return Drop(points)
    error = STUDENT * math.sqrt((GROUPS - 1) / GROUPS * float(((differences - differences.mean()) ** 2).sum()))
    return Drop(points, points - error, points + error)


def paired_interval(lost: int, gained: int, count: int) -> tuple[float, float]:
    """The 95 % interval, in points, of the accuracy lost between two classifiers on `count` images."""
    p, q = (lost + 1) / (count + 2), (gained + 1) / (count + 2)
    error = NORMAL * math.sqrt(max(0.0, p + q - (p - q) ** 2) / (count + 2))
    return 100 * (p - q - error), 100 * (p - q + error)


def changed(before: Outcome, after: Outcome) -> list[tuple[str, int, int, int]]:
    """(name, true class, class before, class after) of the images whose class changed, those that became wrong first."""
    known = dict(zip(after.names, after.predicted, strict=True))
    rows = [
        (name, true, old, known[name])
        for name, true, old in zip(before.names, before.targets, before.predicted, strict=True)
        if name in known and known[name] != old
    ]
    return sorted(rows, key=lambda row: (row[2] != row[1], row[3] == row[1], row[0]))


def _right(one: Outcome) -> dict[str, bool]:
    return {name: a == b for name, a, b in zip(one.names, one.predicted, one.targets, strict=True)}


def smallest_step(images: int) -> float:
    """The points of accuracy that one image of so many is."""
    return 100 / max(1, images)

"""Scorers of several heads, and of multi-label, regression and hierarchical heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.host.shown import Report
from gossamer.host.text import counted
from gossamer.images.preprocess import Placement
from gossamer.predictions.head import OutputHead, Raw
from gossamer.tasks.hierarchy import ClassTree
from gossamer.tasks.scores import Scorer, Scores
from gossamer.tasks.scores_heads import HierarchicalEvaluation, MultiLabelEvaluation, RegressionEvaluation

NAN = float("nan")


class _RowScorer:
    """Takes in one row of numbers per image, and what it should have been; None where that is not known."""

    output = "logits"

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.names: list[str] = []
        self.outputs: list[NDArray[np.float32]] = []
        self.targets: list[NDArray[Any]] = []
        self.unreadable: list[tuple[str, str]] = []

    def add(self, names: Sequence[str], raw: Raw, targets: Sequence[Any], places: Sequence[Placement]) -> None:
        """Take in the head's output (n, K) and its labels."""
        self.names.extend(names)
        self.outputs.append(self.predicted(raw[self.output] if isinstance(raw, dict) else raw))
        self.targets.extend(self.nothing if target is None else self.truth(target) for target in targets)

    def merge(self, other: _RowScorer) -> None:
        """Merge the results of another scorer."""
        self.names += other.names
        self.outputs += other.outputs
        self.targets += other.targets
        self.unreadable += other.unreadable

    def predicted(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output in the unit of the labels."""
        return output

    def truth(self, target: Any) -> NDArray[Any]:
        """A label as a row."""
        return np.asarray(target, np.float32)

    @property
    def nothing(self) -> NDArray[Any]:
        """The row of an image without a label."""
        return np.full(len(self.classes), np.nan, np.float32)

    def _rows(self) -> tuple[list[str], NDArray[np.float32], NDArray[Any], list[tuple[str, str]]]:
        outputs = np.concatenate(self.outputs) if self.outputs else np.zeros((0, len(self.classes)), np.float32)
        targets = np.stack(self.targets) if self.targets else self.nothing[None][:0]
        return self.names, outputs, targets, self.unreadable


class LabelScorer(_RowScorer):
    """Scores of a head of several labels: logits (n, K), and (K,) of 0, 1 or NaN per image."""

    def scores(self) -> MultiLabelEvaluation:
        """The scores of all so far."""
        return MultiLabelEvaluation(*self._rows(), self.classes)


class NumberScorer(_RowScorer):
    """Scores of a regression: standardised values (n, D), and (D,) in their own unit, or NaN, an image."""

    output = "values"

    def __init__(self, classes: tuple[str, ...], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(classes)
        self.mean, self.std = np.array(mean, np.float64), np.array(std, np.float64)

    def predicted(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        return (output * self.std + self.mean).astype(np.float32)

    def scores(self) -> RegressionEvaluation:
        """The scores of all so far."""
        return RegressionEvaluation(*self._rows(), self.classes)


class TreeScorer(_RowScorer):
    """Scores of a classifier of a tree: logits (n, K) of the leaves, and the path of names of a class per image."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__(classes)
        self.tree = tree_of(classes)

    def truth(self, target: Any) -> NDArray[Any]:
        return self.tree.target(target)

    @property
    def nothing(self) -> NDArray[Any]:
        return np.full(len(self.tree.levels), -1, np.int64)

    def scores(self) -> HierarchicalEvaluation:
        """The scores of all so far."""
        return HierarchicalEvaluation(*self._rows(), self.tree)


def tree_of(classes: Sequence[str]) -> ClassTree:
    """The tree of classes that are paths, such as animal/dog. Raises DataError."""
    return ClassTree(tuple(tuple(name.split("/")) for name in classes))


class MultiScorer:
    """Scores of several heads: collects the outputs of all, and for each head the images that have its label.

    scorers: of each head, by its name. heads: in their order. main: the metric with which each head counts in the
    score, by the head's name.
    """

    def __init__(self, scorers: dict[str, Scorer], heads: Sequence[OutputHead], main: dict[str, str]) -> None:
        self.scorers, self.heads, self.main = scorers, tuple(heads), main
        self.names: list[str] = []
        self.unreadable: list[tuple[str, str]] = []

    def add(self, names: Sequence[str], raw: Raw, targets: Sequence[Any], places: Sequence[Placement]) -> None:
        """Take in the raw outputs of all heads, and for each image a dictionary of labels, None where one lacks."""
        self.names.extend(names)
        for head in self.heads:
            rows = [row for row, target in enumerate(targets) if target[head.name] is not None]
            if rows:
                mine: Raw = {name: values[rows] for name, values in head.of(raw).items()}
                labels = [targets[row][head.name] for row in rows]
                self.scorers[head.name].add([names[row] for row in rows], mine, labels, [places[row] for row in rows])

    def merge(self, other: MultiScorer) -> None:
        """Merge the results of another scorer."""
        self.names += other.names
        self.unreadable += other.unreadable
        for name, scorer in self.scorers.items():
            scorer.merge(other.scorers[name])

    def scores(self) -> MultiScores:
        """The scores of all so far."""
        return MultiScores(
            self.names, {name: scorer.scores() for name, scorer in self.scorers.items()}, self.main, self.unreadable
        )


@dataclass(frozen=True, repr=False)
class MultiScores(Report):
    """Scores of several heads on n images. heads: the scores of each, of the images that have its label.

    main: the metric of each head that counts. unreadable: (name, reason) of the skipped images.
    """

    names: list[str]
    heads: dict[str, Scores]
    main: dict[str, str]
    unreadable: list[tuple[str, str]]
    task: str = "multi"

    @cached_property
    def metrics(self) -> dict[str, float]:
        """score, and those of each head as head.metric.

        score: the mean of the heads' main metrics (accuracy, map, r2, map50, miou, recall1), each cut to 0..1 (only r2
        can be below 0), over the heads that have one; nan where none has.
        """
        every = {f"{head}.{name}": value for head, one in self.heads.items() for name, value in one.metrics.items()}
        counted = [every.get(f"{head}.{name}", NAN) for head, name in self.main.items()]
        clipped = [min(max(value, 0.0), 1.0) for value in counted if not math.isnan(value)]
        return {"score": sum(clipped) / len(clipped) if clipped else NAN, **every}

    @property
    def loss(self) -> float:
        """None: those of the heads are in units of their own, and stand with their scores."""
        return NAN

    def to_json(self) -> dict[str, Any]:
        """Plain values; nan becomes None."""
        scores = {"loss": self.loss, **self.metrics}
        return {
            "task": self.task,
            "images": len(self.names),
            **{name: None if math.isnan(value) else value for name, value in scores.items()},
            "heads": {name: one.to_json() for name, one in self.heads.items()},
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
        }

    def text(self) -> str:
        """What each head's scores say, for people."""
        score = self.metrics["score"]
        mean = "" if math.isnan(score) else f", score {score:.4f} (the mean of the heads)"
        lines = [f"{counted(len(self.names), 'image')}{mean}"]
        for name, one in self.heads.items():
            lines += ["", f"{name}:", *(f"  {line}".rstrip() for line in one.text().splitlines())]
        return "\n".join([*lines, *(f"skipped: {name}: {reason}" for name, reason in self.unreadable)])

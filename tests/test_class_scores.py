"""Scores of a classifier where outputs are equal, as those of int8 often are, and where they are no numbers."""

from __future__ import annotations

import numpy as np

from gossamer.predictions.classes import rank
from gossamer.tasks.scores import Evaluation

CLASSES = tuple(f"class{number}" for number in range(12))


def evaluation(logits: np.ndarray, targets: np.ndarray) -> Evaluation:
    return Evaluation(CLASSES, [""] * len(targets), logits.astype(np.float32), targets, [])


def test_the_five_best_are_those_that_a_prediction_names() -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.integers(-2, 3, (300, len(CLASSES))), rng.integers(0, len(CLASSES), 300)
    named = [rank("", row.astype(np.float32), CLASSES, 5).classes for row in logits]
    scores = evaluation(logits, targets).metrics
    assert scores["top5"] == np.mean([CLASSES[target] in five for target, five in zip(targets, named, strict=True)])
    assert scores["accuracy"] == np.mean([CLASSES[t] == five[0] for t, five in zip(targets, named, strict=True)])


def test_of_outputs_that_are_all_equal_the_first_five_classes_are_the_best() -> None:
    scores = evaluation(np.zeros((12, 12)), np.arange(12)).metrics
    assert scores["accuracy"] == 1 / 12 and scores["top5"] == 5 / 12


def test_an_output_that_is_no_number_is_none_of_the_best() -> None:
    logits = np.tile(np.arange(12.0), (2, 1))
    logits[:, 11] = np.nan
    assert evaluation(logits, np.array([11, 10])).metrics["top5"] == 0.5

"""What `gossamer eval` prints: the field's names, and nothing that does not apply."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gossamer.data.boxes.annotation import BoxTarget
from gossamer.host.text import METRIC_NAMES, metric_lines, metric_name, ratio
from gossamer.predictions.boxes import ScoredBoxes
from gossamer.tasks.detection.scores import DetectionScores
from gossamer.tasks.embedding.scores import EmbeddingScores
from gossamer.tasks.scores import Evaluation
from gossamer.tasks.scores_heads import MultiLabelEvaluation, RegressionEvaluation
from gossamer.tasks.segmentation.scores import MaskScorer

NAMES = ["a.png", "b.png"]
SKIPPED = [("c.png", "cut off")]


def classes(known: bool) -> Any:
    targets = np.array([0, 1], np.int64) if known else np.zeros(0, np.int64)
    logits = np.eye(6, dtype=np.float32)[: len(targets)]
    return Evaluation(tuple("abcdef"), NAMES[: len(targets)], logits, targets, SKIPPED)


def boxes(known: bool) -> Any:
    corners = np.array([[1, 1, 20, 20]], np.float32) if known else np.zeros((0, 4), np.float32)
    labels, flags = np.zeros(len(corners), np.int64), np.zeros(len(corners), np.bool_)
    truth = BoxTarget(corners, labels, flags, flags, np.full(len(corners), 361.0), (40, 40))
    return DetectionScores(
        ("car", "bus"), NAMES[:1], [truth], [ScoredBoxes(corners, labels, np.ones(len(corners), np.float32))], SKIPPED
    )


def masks(known: bool) -> Any:
    scorer = MaskScorer(("road", "car"), (8, 8))
    scorer.unreadable += SKIPPED
    return scorer.scores()


def embeddings(known: bool) -> Any:
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0, 0.9]], np.float32)
    labels = np.array([0, 0, 1, 1]) if known else np.arange(4)
    return EmbeddingScores((), list("abcd"), vectors, labels, SKIPPED)


def labels(known: bool) -> Any:
    targets = np.array([[1, 0], [0, 0]]) if known else np.full((2, 2), np.nan)
    return MultiLabelEvaluation(NAMES, np.ones((2, 2), np.float32), targets, SKIPPED, ("red", "round"))


def numbers(known: bool) -> Any:
    targets = np.array([[1.0], [1.0]]) if known else np.full((2, 1), np.nan)
    return RegressionEvaluation(NAMES, np.ones((2, 1), np.float32), targets, SKIPPED, ("price",))


SHOWN = {
    classes: ["top-1 accuracy", "top-5 accuracy", "balanced accuracy", "macro F1", "precision", "recall"],
    boxes: ["mAP@0.5:0.95", "mAP@0.5 ", "mAP@0.75", "AR@100", "small objects", "car"],
    embeddings: [
        "Recall@1 ",
        "Recall@5 ",
        "R-precision",
        "MAP@R",
        "AUC",
        "true-accept rate at a false-accept rate of 0.001",
    ],
    labels: ["mAP", "macro F1", "micro F1"],
    numbers: ["MAE price", "RMSE price"],
}


@pytest.mark.parametrize("build", [*SHOWN, masks], ids=lambda build: build.__name__)
@pytest.mark.parametrize("known", [True, False])
def test_scores_are_printed_by_the_names_of_the_field_and_without_nan(build: Any, known: bool) -> None:
    scores = build(known)
    text = scores.text()
    assert "nan" not in text.casefold() and "None" not in text
    assert "skipped: c.png: cut off" in text
    if known:
        for name in SHOWN.get(build, ()):
            assert name in text, text
    elif build is not masks:
        assert "no score" in text
    json.dumps(scores.to_json(), allow_nan=False)


def test_what_does_not_apply_is_left_out() -> None:
    text = boxes(True).text()
    assert "medium" not in text and "large" not in text, "there is one small object"
    assert text.splitlines()[-2].split() == ["bus", "-", "-", "-", "0"]
    assert "R²" not in numbers(True).text(), "all true values are the same"
    assert set(numbers(True).to_json()) >= {"r2", "mae:price", "rmse:price"}, "files keep their keys"
    assert set(boxes(True).to_json()) >= {"map", "map50", "map75", "map_small", "map_large", "ar100"}


def test_lines_of_scores_are_columns() -> None:
    lines = metric_lines(
        {"accuracy": 0.5, "macro_f1": float("nan"), "mae:a b": 2.0, "x_y": 1.0}, {"x_y": "a much longer name"}
    )
    assert lines == ["top-1 accuracy      0.5000", "MAE a b             2.0000", "a much longer name  1.0000"]
    assert metric_name("accuracy:2") == "accuracy at level 2"
    assert (ratio(None), ratio(float("inf")), ratio(0.12345)) == ("-", "-", "0.123")
    assert all(name == name.strip() for name in METRIC_NAMES.values())

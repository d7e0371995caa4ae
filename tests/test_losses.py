"""Losses against their formulas, computed the plain way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from gossamer.errors import SettingsError
from gossamer.networks.base import Outputs
from gossamer.settings import Settings
from gossamer.tasks import losses
from gossamer.tasks.classify import Classify

LOGITS = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.1, 0.2, 0.3, -4.0], [1.0, 1.0, 1.0, 1.0]])
TARGETS = torch.tensor([0, 3, 2])


def log_p() -> np.ndarray:
    z = LOGITS.double().numpy()
    return np.asarray(z - np.log(np.exp(z).sum(1, keepdims=True)))


@pytest.mark.parametrize("over", ["all", "others"])
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.6])
def test_cross_entropy_with_both_conventions_of_smoothing(over: str, alpha: float) -> None:
    aims = np.full((3, 4), alpha / 4 if over == "all" else alpha / 3)
    aims[np.arange(3), TARGETS] = 1 - alpha + alpha / 4 if over == "all" else 1 - alpha
    expected = -(aims * log_p()).sum(1)
    assert aims.sum(1) == pytest.approx(1)
    assert losses.cross_entropy(LOGITS, TARGETS, alpha, over).numpy() == pytest.approx(expected, abs=1e-6)


def test_smoothing_over_the_others_cannot_take_more_than_everything() -> None:
    with pytest.raises(SettingsError, match=r"at most 0\.75"):
        losses.cross_entropy(LOGITS, TARGETS, 0.9, "others")


@pytest.mark.parametrize(("over", "hit", "miss"), [("all", 0.9 + 0.1 / 4, 0.1 / 4), ("others", 0.9, 0.1 / 3)])
def test_binary_cross_entropy(over: str, hit: float, miss: float) -> None:
    aims = np.full((3, 4), miss)
    aims[np.arange(3), TARGETS] = hit
    p = 1 / (1 + np.exp(-LOGITS.double().numpy()))
    expected = -(aims * np.log(p) + (1 - aims) * np.log(1 - p)).sum(1)
    assert losses.binary_cross_entropy(LOGITS, TARGETS, 0.1, over).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal(gamma: float) -> None:
    own = log_p()[np.arange(3), TARGETS]
    expected = -((1 - np.exp(own)) ** gamma) * own
    assert losses.focal(LOGITS, TARGETS, gamma).numpy() == pytest.approx(expected, abs=1e-6)


def test_focal_has_a_finite_gradient_at_certainty() -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    losses.focal(logits, torch.tensor([0]), 0.5).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", ["balanced", "log"])
def test_weights_of_classes_have_mean_one_over_the_samples(kind: str) -> None:
    counts = [10, 30, 0, 60]
    tensor = losses.class_weights(kind, counts)
    assert tensor is not None and losses.class_weights("none", counts) is None
    nothing = losses.class_weights(kind, [0, 0])
    assert nothing is not None and nothing.tolist() == [0, 0]
    weights = tensor.tolist()
    if kind == "balanced":
        assert weights == pytest.approx([100 / 30, 100 / 90, 0, 100 / 180])
    else:
        assert weights[0] / weights[3] == pytest.approx(math.log(1.62) / math.log(1.12)) and weights[2] == 0
    assert math.isclose(sum(w * n for w, n in zip(weights, counts, strict=True)) / 100, 1, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, losses.cross_entropy(LOGITS, TARGETS)),
        ({"label_smoothing": 0.3}, losses.cross_entropy(LOGITS, TARGETS, 0.3)),
        (
            {"label_smoothing": 0.3, "smoothing_over": "others"},
            losses.cross_entropy(LOGITS, TARGETS, 0.3, "others"),
        ),
        ({"loss": "bce", "label_smoothing": 0.1}, losses.binary_cross_entropy(LOGITS, TARGETS, 0.1)),
        ({"loss": "focal", "focal_gamma": 1.5}, losses.focal(LOGITS, TARGETS, 1.5)),
        ({"loss": "focal", "label_smoothing": 0.2}, losses.focal(LOGITS, TARGETS, 2.0, 0.2)),
    ],
    ids=str,
)
def test_a_classifier_has_the_loss_of_its_settings(settings: dict[str, Any], expected: torch.Tensor) -> None:
    task = Classify(tuple("abcd"), Settings(**{"label_smoothing": 0.0, **settings}))
    images = torch.zeros(3, 3, 8, 8)
    assert torch.equal(task.loss(LOGITS, TARGETS, images), expected)
    task.weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    weighted = expected * torch.tensor([1.0, 4.0, 3.0])
    assert torch.equal(task.loss(LOGITS, TARGETS, images), weighted)
    outputs = Outputs(LOGITS, [LOGITS, LOGITS])
    torch.testing.assert_close(task.loss(outputs, TARGETS, images), weighted * (1 + 2 * task.settings.aux_weight))

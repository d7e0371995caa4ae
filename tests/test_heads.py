"""Losses, weightings and scores of heads that stand beside others, against their formulas worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gossamer.errors import DataError, SettingsError
from gossamer.predictions.classes import labels
from gossamer.tasks import losses
from gossamer.tasks.hierarchy import ClassTree
from gossamer.tasks.scores_heads import (
    HierarchicalEvaluation,
    MultiLabelEvaluation,
    RegressionEvaluation,
    average_precision,
)
from gossamer.tasks.weighting import Fixed, GradNorm, Uncertainty

NAN = math.nan
TREE = ClassTree((("animal", "cat"), ("animal", "dog"), ("plant", "rose"), ("stone",)))
GROUPS = [torch.from_numpy(group) for group in TREE.groups]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# losses


@pytest.mark.parametrize(("gamma_pos", "gamma_neg", "margin"), [(0, 0, 0), (2, 2, 0), (1, 4, 0.05), (0, 0.5, 0.2)])
def test_multi_label(gamma_pos: float, gamma_neg: float, margin: float) -> None:
    logits, targets = [[1.5, -0.5, -3.0], [0.2, 2.0, 0.0]], [[1.0, 0.0, 0.0], [NAN, 0.25, NAN]]

    def one(x: float, t: float) -> float:
        p = sigmoid(x)
        q = max(p - margin, 0)
        return -(t * (1 - p) ** gamma_pos * math.log(p) + (1 - t) * q**gamma_neg * math.log(1 - q))

    expected = [one(1.5, 1) + one(-0.5, 0) + one(-3, 0), one(2, 0.25)]
    got = losses.multi_label(torch.tensor(logits), torch.tensor(targets), gamma_pos, gamma_neg, margin)
    assert got.tolist() == pytest.approx(expected, rel=1e-5)
    assert got.dtype == torch.float32


def test_what_is_easily_false_costs_nothing_with_a_margin() -> None:
    x = torch.tensor([[-5.0]], requires_grad=True)  # p = 0.0067
    loss = losses.multi_label(x, torch.zeros(1, 1), 0, 4, 0.05)
    loss.sum().backward()
    assert x.grad is not None
    assert (loss.item(), x.grad.item()) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "beta", "expected"),
    [
        ("l1", 1.0, [(0.5 + 3) / 2, 2.0]),
        ("mse", 1.0, [(0.25 + 9) / 2, 4.0]),
        ("smooth_l1", 1.0, [(0.125 + 2.5) / 2, 1.5]),
        ("smooth_l1", 4.0, [(0.25 / 8 + 9 / 8) / 2, 4 / 8]),
    ],
)
def test_regression(kind: str, beta: float, expected: list[float]) -> None:
    outputs, targets = torch.tensor([[1.5, 0.0], [7.0, 1.0]]), torch.tensor([[1.0, 3.0], [NAN, 3.0]])
    assert losses.regression(outputs, targets, kind, beta).tolist() == pytest.approx(expected)


def test_regression_has_three_kinds() -> None:
    with pytest.raises(SettingsError, match="smooth_l1"):
        losses.regression(torch.zeros(1, 1), torch.zeros(1, 1), "huber")


def test_hierarchical_sums_the_leaves_of_a_class() -> None:
    p = np.array([0.1, 0.2, 0.3, 0.4])  # cat, dog, rose, stone
    logits = torch.tensor(np.log(p), dtype=torch.float32).repeat(4, 1) + 5
    targets = torch.tensor([[0, 1], [2, 3], [0, -1], [-1, -1]])  # dog; stone; any animal; nothing known
    expected = [-math.log(0.3) - math.log(0.2), -2 * math.log(0.4), -math.log(0.3), 0]
    assert losses.hierarchical(logits, targets, GROUPS).tolist() == pytest.approx(expected, abs=1e-6)
    halved = losses.hierarchical(logits, targets, GROUPS, (0.5, 2.0))
    assert halved[0].item() == pytest.approx(-0.5 * math.log(0.3) - 2 * math.log(0.2), abs=1e-6)


@pytest.mark.parametrize("output", [0.0, math.inf, NAN, 300.0])
@pytest.mark.parametrize("kind", ["bce", "asymmetric", "l1", "mse", "smooth_l1", "hierarchical"])
def test_a_label_that_is_not_there_adds_nothing(kind: str, output: float) -> None:
    outputs = torch.full((2, 4), 0.5)
    outputs[1] = output
    outputs.requires_grad_()
    numbers = torch.tensor([[1.0, 0, 1, 0], [NAN] * 4])
    loss = {
        "bce": lambda: losses.multi_label(outputs, numbers),
        "asymmetric": lambda: losses.multi_label(outputs, numbers, 0.5, 0.5, 0.05),
        "hierarchical": lambda: losses.hierarchical(outputs, torch.tensor([[0, 1], [-1, -1]]), GROUPS),
    }.get(kind, lambda: losses.regression(outputs, numbers, kind))()
    loss.sum().backward()
    assert outputs.grad is not None
    assert loss[0] > 0
    assert loss[1] == 0
    assert outputs.grad[0].abs().sum() > 0
    assert (outputs.grad[1] == 0).all()


@pytest.mark.parametrize("size", [300.0, -300.0])
def test_certainty_has_finite_losses_and_gradients(size: float) -> None:
    outputs = torch.tensor([[size, -size, 0.0, size]], requires_grad=True)
    numbers = torch.tensor([[1.0, 1, 0, 0]])
    for gamma, margin in ((0.0, 0.0), (0.5, 0.0), (2.0, 0.05)):
        total = losses.multi_label(outputs, numbers, gamma, gamma, margin)
        total = total + losses.hierarchical(outputs, torch.tensor([[1, 2]]), GROUPS)
        (gradient,) = torch.autograd.grad(total.sum(), outputs)
        assert torch.isfinite(total).all()
        assert torch.isfinite(gradient).all()


# the tree


def test_the_levels_of_a_tree() -> None:
    assert TREE.levels[0] == (("animal",), ("plant",), ("stone",))
    assert TREE.levels[1] == TREE.paths
    assert [group.tolist() for group in TREE.groups] == [[0, 0, 1, 2], [0, 1, 2, 3]]
    assert TREE.targets(np.array([1, -1, 3])).tolist() == [[0, 1], [-1, -1], [2, 3]]
    assert TREE.target(("animal",)).tolist() == [0, -1]
    assert TREE.target(("animal", "dog")).tolist() == [0, 1]
    assert TREE.target(("stone",)).tolist() == [2, 3]
    with pytest.raises(DataError, match="animal/fish"):
        TREE.target(("animal", "fish"))


@pytest.mark.parametrize(
    ("paths", "match"),
    [
        ((), "empty"),
        (((), ("a",)), "empty"),
        ((("a",), ("b",), ("a",)), "a is there twice"),
        ((("a", "b"), ("c",), ("a",)), "a/b is below the leaf a"),
    ],
)
def test_what_is_no_tree(paths: tuple[tuple[str, ...], ...], match: str) -> None:
    with pytest.raises(DataError, match=match):
        ClassTree(paths)


# weighting

LOSSES = {"size": torch.tensor([2.0, 4.0]), "kind": torch.tensor([1.0, 0.0])}


def test_fixed_weights() -> None:
    assert Fixed({"size": 0.5, "kind": 3.0})(LOSSES).tolist() == [4.0, 2.0]
    with pytest.raises(SettingsError, match="weight of kind"):
        Fixed({"kind": -1.0})


def test_uncertainty() -> None:
    weighting = Uncertainty(("size", "kind"), regression=("size",))
    with torch.no_grad():
        weighting.log_variance.copy_(torch.tensor([math.log(4), math.log(2)]))
    extra = math.log(4) / 2 + math.log(2) / 2
    assert weighting(LOSSES).tolist() == pytest.approx([2 / 8 + 1 / 2 + extra, 4 / 8 + extra])
    known = {"kind": torch.tensor([True, False])}
    assert weighting(LOSSES, known)[1].item() == pytest.approx(4 / 8 + math.log(4) / 2)


def test_uncertainty_settles_where_it_says() -> None:
    weighting = Uncertainty(("size", "kind"), regression=("size",))
    known = {"kind": torch.tensor([True, False])}
    optimiser = torch.optim.SGD(weighting.parameters(), lr=0.5)
    for _ in range(200):
        optimiser.zero_grad()
        weighting(LOSSES, known).mean().backward()
        optimiser.step()
    assert weighting.log_variance.tolist() == pytest.approx([math.log(3), math.log(2 * 1)], abs=1e-3)


def two_heads(shared: Tensor) -> dict[str, Tensor]:
    """Losses of a shared weight w: 3 w and w^2, with gradients 3 and 2 w."""
    return {"a": (3 * shared).repeat(2), "b": shared.square().repeat(2)}


def test_gradnorm_takes_the_step_of_the_paper() -> None:
    weighting = GradNorm(("a", "b"), alpha=1.0, lr=0.1)
    shared = nn.Parameter(torch.tensor(2.0))
    losses = two_heads(shared)  # 6 and 4; gradients 3 and 4, their mean 3.5, the pace still 1
    total = weighting(losses).mean()
    weighting.update(losses, [shared])
    moved = [1 + 0.1 * 3, 1 - 0.1 * 4]  # a is below 3.5 and rises, b above and falls
    assert weighting.weights.tolist() == pytest.approx([2 * one / sum(moved) for one in moved])
    assert weighting.initial.tolist() == [6.0, 4.0]
    total.backward()
    assert shared.grad is not None
    assert shared.grad.item() == 7.0  # with the weights that the losses were summed with

    later = nn.Parameter(torch.tensor(1.0))  # 3 and 1, at a half and a quarter of the beginning: pace 4/3 and 2/3
    before = weighting.weights.tolist()
    norms = [before[0] * 3, before[1] * 2]
    target = [sum(norms) / 2 * 4 / 3, sum(norms) / 2 * 2 / 3]
    weighting.update(two_heads(later), [later])
    moved = [
        weight - 0.1 * math.copysign(slope, norm - aim)
        for weight, slope, norm, aim in zip(before, (3, 2), norms, target, strict=True)
    ]
    assert weighting.weights.tolist() == pytest.approx([2 * one / sum(moved) for one in moved])


def test_gradnorm_waits_for_a_head_without_labels() -> None:
    weighting = GradNorm(("a", "b", "c"))
    shared = nn.Parameter(torch.tensor(2.0))
    losses = {**two_heads(shared), "c": shared.repeat(2)}
    known = {"b": torch.tensor([True, False]), "c": torch.zeros(2, dtype=torch.bool)}
    weighting.update(losses, [shared], known)
    assert weighting.initial[:2].tolist() == [6.0, 4.0]
    assert weighting.initial[2].isnan()
    assert weighting.weights.sum().item() == pytest.approx(3)
    assert set(weighting.state_dict()) == {"weights", "initial"}
    quiet = GradNorm(("a",))
    quiet.update({"a": shared.repeat(2)}, [shared], {"a": torch.zeros(2, dtype=torch.bool)})
    assert quiet.weights.tolist() == [1.0]


def test_gradnorm_brings_unequal_heads_to_one_pace() -> None:
    torch.manual_seed(0)
    trunk, x = nn.Linear(4, 8), torch.randn(64, 4)
    heads = {"small": nn.Linear(8, 1), "large": nn.Linear(8, 1)}
    aims = {"small": x[:, :1], "large": 30 * x[:, 1:2]}
    weighting = GradNorm(tuple(heads), alpha=1.5, lr=0.002)
    losses = {name: (head(trunk(x)) - aims[name]).square().squeeze(1) for name, head in heads.items()}
    for _ in range(300):
        weighting.update(losses, [trunk.weight])
    slopes = [torch.autograd.grad(loss.mean(), trunk.weight, retain_graph=True)[0].norm() for loss in losses.values()]
    norms = [(weight * slope).item() for weight, slope in zip(weighting.weights, slopes, strict=True)]
    assert slopes[1] / slopes[0] > 10
    assert norms[0] == pytest.approx(norms[1], rel=0.5)


# scores


def test_multi_label_scores_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    y = (rng.random((60, 4)) < [0.1, 0.3, 0.5, 0.9]).astype(np.float64)
    x = np.round(rng.standard_normal((60, 4)) + y, 1).astype(np.float32)  # rounded, so that some are equal
    scores = MultiLabelEvaluation([f"{i}" for i in range(60)], x, y, [], tuple("abcd")).metrics
    assert scores["map"] == pytest.approx(metrics.average_precision_score(y, x, average="macro"))
    assert scores["macro_f1"] == pytest.approx(metrics.f1_score(y, x >= 0, average="macro"))
    assert scores["micro_f1"] == pytest.approx(metrics.f1_score(y, x >= 0, average="micro"))


def test_average_precision_by_hand() -> None:
    scores, targets = np.array([0.9, 0.8, 0.7, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0, NAN])
    assert average_precision(scores, targets) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 4)
    assert math.isnan(average_precision(scores, np.zeros(5)))


def test_multi_label_with_unknown_labels() -> None:
    y = np.array([[1.0, NAN], [0.0, 0.0], [NAN, NAN]])
    x = np.array([[1.0, 9.0], [2.0, -1.0], [5.0, 5.0]], np.float32)
    evaluation = MultiLabelEvaluation(["a", "b", "c"], x, y, [("d", "cut off")], ("one", "two"))
    assert evaluation.metrics == {"map": 0.5, "macro_f1": 2 / 3, "micro_f1": 2 / 3}
    expected = losses.multi_label(torch.from_numpy(x), torch.from_numpy(y)).sum() / 2
    assert evaluation.loss == pytest.approx(expected.item())
    assert evaluation.text().endswith("skipped: d: cut off")
    even = MultiLabelEvaluation(["a"], np.zeros((1, 2), np.float32), np.array([[1.0, 0.0]]), [], ("one", "two"))
    assert labels("a", even.outputs[0], even.labels, 0.5).classes == ("one", "two")
    assert even.metrics["micro_f1"] == 2 / 3, "a probability of 0.5 names the label, as in a prediction"
    nothing = MultiLabelEvaluation(["a"], x[:1], np.full((1, 2), NAN), [], ("one", "two"))
    plain = nothing.to_json()
    assert [row["class"] for row in plain.pop("per_class")] == ["one", "two"]
    assert plain == {
        "images": 1, "loss": None, "map": None, "macro_f1": None, "micro_f1": None, "unreadable": [],
    }  # fmt: skip


def test_regression_scores_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    y = rng.standard_normal((30, 2)) * [1, 20]
    x = (y + rng.standard_normal((30, 2))).astype(np.float32)
    evaluation = RegressionEvaluation([""] * 30, x, y, [], ("age", "price"))
    assert evaluation.metrics["r2"] == pytest.approx(metrics.r2_score(y, x))
    assert evaluation.metrics["mae:price"] == pytest.approx(metrics.mean_absolute_error(y[:, 1], x[:, 1]))
    assert evaluation.metrics["rmse:age"] == pytest.approx(metrics.root_mean_squared_error(y[:, 0], x[:, 0]))
    assert evaluation.loss == pytest.approx(metrics.mean_squared_error(y, x))


def test_regression_counts_what_is_known() -> None:
    y, x = np.array([[1.0, NAN], [3.0, NAN], [NAN, NAN]]), np.array([[2, 0], [3, 0], [9, 9]], np.float32)
    evaluation = RegressionEvaluation(["a", "b", "c"], x, y, [], ("age", "price"))
    assert evaluation.metrics == pytest.approx(
        {"r2": 1 - 1 / 2, "mae:age": 0.5, "rmse:age": math.sqrt(0.5), "mae:price": NAN, "rmse:price": NAN}, nan_ok=True
    )
    expected = losses.regression(torch.from_numpy(x), torch.from_numpy(y), "mse").sum() / 2
    assert evaluation.loss == pytest.approx(expected.item())


def test_hierarchical_scores() -> None:
    p = np.array([[0.3, 0.25, 0.4, 0.05], [0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    x = np.log(p).astype(np.float32)
    # the first is best as a rose, but an animal rather than a plant
    y = np.array([[0, 0], [2, 3], [1, -1]])
    evaluation = HierarchicalEvaluation(["a", "b", "c"], x, y, [], TREE)
    assert evaluation.metrics == {"accuracy": 1 / 2, "accuracy:1": 2 / 3, "accuracy:2": 1 / 2}
    expected = losses.hierarchical(torch.from_numpy(x), torch.from_numpy(y), GROUPS).mean()
    assert evaluation.loss == pytest.approx(expected.item(), rel=1e-5)


def test_merged_scores_are_those_of_all_images() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((9, 4)).astype(np.float32)
    leaves = TREE.targets(rng.integers(-1, 4, 9))
    all_at_once = HierarchicalEvaluation(list("abcdefghi"), x, leaves, [("z", "gone")], TREE)
    first = HierarchicalEvaluation(list("abcd"), x[:4], leaves[:4], [("z", "gone")], TREE)
    parts = HierarchicalEvaluation.merge([first, HierarchicalEvaluation(list("efghi"), x[4:], leaves[4:], [], TREE)])
    assert (parts.to_json(), parts.names, parts.tree) == (all_at_once.to_json(), all_at_once.names, TREE)

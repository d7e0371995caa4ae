"""Losses of metric learning, against plain loops and pytorch-metric-learning."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from gossamer.errors import MissingPackageError, SettingsError, UnknownNameError
from gossamer.tasks.embedding import losses
from gossamer.tasks.embedding.criterion import LOSSES, build_loss

LABELS = torch.tensor([3, 3, 0, 0, 0, 7, 7, 5])  # 5 has one image
FROM_REFERENCE = ("arcface", "supcon", "proxy-anchor", "proxy-nca")


def embeddings(seed: int = 0, count: int = len(LABELS), dim: int = 5) -> torch.Tensor:
    """Random vectors of many lengths, near enough for some terms to be 0 and some not."""
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(0.4, 1, (count, dim)) * rng.uniform(0.1, 9, (count, 1)), dtype=torch.float32)


def distances(vectors: torch.Tensor) -> np.ndarray:
    unit = vectors.double().numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return np.asarray(np.linalg.norm(unit[:, None] - unit[None], axis=2))


def triplets(y: list[int]) -> Iterator[tuple[int, int, int]]:
    for a, p, n in itertools.permutations(range(len(y)), 3):
        if y[a] == y[p] != y[n]:
            yield a, p, n


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def plain_contrastive(d: np.ndarray, y: list[int], margin: float) -> float:
    both = [(i, j) for i, j in itertools.permutations(range(len(y)), 2)]
    far = [max(0.0, margin - d[i, j]) ** 2 for i, j in both if y[i] != y[j]]
    return mean([d[i, j] ** 2 for i, j in both if y[i] == y[j]]) + mean([value for value in far if value > 0])


def plain_batch_all(d: np.ndarray, y: list[int], margin: float) -> float:
    return mean([v for v in (d[a, p] - d[a, n] + margin for a, p, n in triplets(y)) if v > 0])


def plain_batch_hard(d: np.ndarray, y: list[int], margin: float) -> float:
    hardest: dict[int, float] = {}
    for a, p, n in triplets(y):
        hardest[a] = max(hardest.get(a, 0.0), d[a, p] - d[a, n] + margin)
    return mean(list(hardest.values()))


def plain_semi_hard(d: np.ndarray, y: list[int], margin: float) -> float:
    by_pair: dict[tuple[int, int], list[float]] = {}
    for a, p, n in triplets(y):
        by_pair.setdefault((a, p), []).append(float(d[a, n] ** 2))
    values = []
    for (a, p), negatives in by_pair.items():
        farther = [one for one in negatives if one > d[a, p] ** 2]
        values.append(max(0.0, d[a, p] ** 2 - (min(farther) if farther else max(negatives)) + margin))
    return mean(values)


def plain_quadruplet(d: np.ndarray, y: list[int], margin: float, second: float) -> float:
    worst: dict[int, float] = {}
    for a, p, m, n in itertools.permutations(range(len(y)), 4):
        if y[a] == y[p] and len({y[a], y[m], y[n]}) == 3:
            worst[a] = max(worst.get(a, 0.0), d[a, p] ** 2 - d[m, n] ** 2 + second)
    return plain_batch_hard(d**2, y, margin) + mean(list(worst.values()))


def plain_quadruplets(d: np.ndarray, y: list[int]) -> dict[tuple[int, int], list[float]]:
    """For each pair of one identity the squared distances of all pairs of two others."""
    by_pair: dict[tuple[int, int], list[float]] = {}
    for a, p, m, n in itertools.permutations(range(len(y)), 4):
        if y[a] == y[p] and len({y[a], y[m], y[n]}) == 3:
            by_pair.setdefault((a, p), []).append(float(d[m, n] ** 2))
    return by_pair


def plain_quadruplet_all(d: np.ndarray, y: list[int], margin: float, second: float) -> float:
    terms = [d[a, p] ** 2 - one + second for (a, p), across in plain_quadruplets(d, y).items() for one in across]
    return plain_batch_all(d**2, y, margin) + mean([v for v in terms if v > 0])


def plain_quadruplet_semi_hard(d: np.ndarray, y: list[int], margin: float, second: float) -> float:
    values = []
    for (a, p), across in plain_quadruplets(d, y).items():
        farther = [one for one in across if one > d[a, p] ** 2]
        values.append(max(0.0, d[a, p] ** 2 - (min(farther) if farther else max(across)) + second))
    return plain_semi_hard(d, y, margin) + mean(values)


PLAIN: list[tuple[Callable[..., torch.Tensor], Callable[..., float], tuple[float, ...]]] = [
    (losses.contrastive, plain_contrastive, (0.9,)),
    (losses.triplet_batch_all, plain_batch_all, (0.2,)),
    (losses.triplet_batch_hard, plain_batch_hard, (0.3,)),
    (losses.triplet_semi_hard, plain_semi_hard, (0.5,)),
    (losses.quadruplet, plain_quadruplet, (0.6, 0.4)),
    (losses.quadruplet_all, plain_quadruplet_all, (0.6, 0.4)),
    (losses.quadruplet_semi_hard, plain_quadruplet_semi_hard, (0.6, 0.4)),
]
NAMES = [function.__name__ for function, _, _ in PLAIN]


@pytest.mark.parametrize(("function", "plain", "margins"), PLAIN, ids=NAMES)
@pytest.mark.parametrize("seed", range(6))
def test_a_loss_is_that_of_plain_loops(
    function: Callable[..., torch.Tensor], plain: Callable[..., float], margins: tuple[float, ...], seed: int
) -> None:
    vectors = embeddings(seed)
    values = function(vectors, LABELS, *margins)
    assert values.shape == (8,) and values.dtype == torch.float32
    expected = plain(distances(vectors), LABELS.tolist(), *margins)
    assert expected > 0.05
    assert float(values.mean()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("function", "plain", "margins"), PLAIN, ids=NAMES)
def test_a_batch_without_pairs_of_one_identity_or_of_two_has_a_gradient(
    function: Callable[..., torch.Tensor], plain: Callable[..., float], margins: tuple[float, ...]
) -> None:
    for labels in (torch.arange(8), torch.zeros(8, dtype=torch.int64)):
        vectors = embeddings().requires_grad_()
        values = function(vectors, labels, *margins)
        values.mean().backward()
        assert vectors.grad is not None and torch.isfinite(vectors.grad).all()
        expected = plain(distances(vectors.detach()), labels.tolist(), *margins)
        assert values.mean().item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("function", "plain", "margins"), PLAIN, ids=NAMES)
def test_equal_embeddings_have_a_finite_gradient_and_infinite_ones_a_loss_of_nan(
    function: Callable[..., torch.Tensor], plain: Callable[..., float], margins: tuple[float, ...]
) -> None:
    for start in (torch.ones(8, 5), torch.zeros(8, 5)):
        vectors = start.requires_grad_()
        values = function(vectors, LABELS, *margins)
        values.mean().backward()
        assert vectors.grad is not None and torch.isfinite(vectors.grad).all()
        assert values.mean().item() > 0
    broken = embeddings()
    broken[2, 1] = float("inf")
    assert math.isnan(float(function(broken, LABELS, *margins).mean()))


@pytest.mark.parametrize(("function", "plain", "margins"), PLAIN, ids=NAMES)
def test_autocast_does_not_round_the_distances(
    function: Callable[..., torch.Tensor], plain: Callable[..., float], margins: tuple[float, ...]
) -> None:
    vectors = embeddings()
    with torch.autocast("cpu", torch.bfloat16):
        inside = function(vectors, LABELS, *margins)
    assert torch.equal(inside, function(vectors, LABELS, *margins))


def test_the_values_belong_to_the_anchors() -> None:
    """Moving a sample into its identity lowers its own value the most."""
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [1.0, 0.05], [0.0, 1.0], [0.1, 1.0]])
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    for function, _, margins in PLAIN[1:4]:
        assert int(function(vectors, labels, *margins).argmax()) == 3


@pytest.mark.parametrize("seed", range(3))
def test_triplets_and_pairs_are_those_of_pytorch_metric_learning(seed: int) -> None:
    reference = pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import distances as d
    from pytorch_metric_learning import losses as reference_losses
    from pytorch_metric_learning import miners, reducers

    assert reference.__version__
    x = embeddings(seed)
    every = reference_losses.TripletMarginLoss(margin=0.2)(x, LABELS)
    assert float(losses.triplet_batch_all(x, LABELS, 0.2).mean()) == pytest.approx(float(every), rel=1e-4)

    hard = reference_losses.TripletMarginLoss(margin=0.3, reducer=reducers.MeanReducer())
    expected = float(hard(x, LABELS, miners.BatchHardMiner()(x, LABELS)))
    assert float(losses.triplet_batch_hard(x, LABELS, 0.3).mean()) == pytest.approx(expected, rel=1e-4)
    assert float(losses.quadruplet(x, LABELS, 0.3, 1e-9).mean()) > 0

    class Squared(reference_losses.ContrastiveLoss):  # type: ignore[misc, name-defined]
        """Theirs is of distances, Hadsell's of squared distances."""

        def pos_calc(self, distance: torch.Tensor, margin: float) -> torch.Tensor:
            return super().pos_calc(distance, margin) ** 2

        def neg_calc(self, distance: torch.Tensor, margin: float) -> torch.Tensor:
            return super().neg_calc(distance, margin) ** 2

    pairs = Squared(pos_margin=0, neg_margin=0.9)(x, LABELS)
    assert float(losses.contrastive(x, LABELS, 0.9).mean()) == pytest.approx(float(pairs), rel=1e-4)

    squared = d.LpDistance(power=2)
    a, p, n = miners.TripletMarginMiner(margin=4, type_of_triplets="semihard", distance=squared)(x, LABELS)
    nearest: dict[tuple[int, int], float] = {}
    mat = squared(x)
    for one, two, three in zip(a.tolist(), p.tolist(), n.tolist(), strict=True):
        nearest[one, two] = min(nearest.get((one, two), 9.0), float(mat[one, three]))
    labels = LABELS.tolist()
    rest = {(i, j): 0.0 for i, j in itertools.permutations(range(8), 2) if labels[i] == labels[j]}
    for i, j in rest:
        away = nearest.get((i, j), max(float(mat[i, k]) for k in range(8) if labels[k] != labels[i]))
        rest[i, j] = max(0.0, float(mat[i, j]) - away + 0.2)
    ours = float(losses.triplet_semi_hard(x, LABELS, 0.2).mean())
    assert ours == pytest.approx(mean(list(rest.values())), rel=1e-4)


@pytest.mark.parametrize("name", FROM_REFERENCE)
def test_the_losses_of_pytorch_metric_learning(name: str) -> None:
    pytest.importorskip("pytorch_metric_learning")
    torch.manual_seed(0)
    loss = build_loss(name, 5, 8)
    x = embeddings().requires_grad_()
    values = loss({"embedding": x}, LABELS)
    values.mean().backward()
    assert values.shape == (8,)
    assert torch.equal(values, values[:1].expand(8))
    assert x.grad is not None and float(x.grad.abs().sum()) > 0
    shapes = [tuple(parameter.shape) for parameter in loss.parameters()]
    assert shapes == {"arcface": [(5, 8)], "supcon": []}.get(name, [(8, 5)])
    assert all(parameter.grad is not None for parameter in loss.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        again = loss({"embedding": x.bfloat16()}, LABELS)
    assert again.dtype == torch.float32
    assert all(parameter.dtype == torch.float32 for parameter in loss.parameters())


def test_arcface_adds_its_margin_in_radians() -> None:
    """arXiv 1801.07698, equation 3, with one class weight on each axis."""
    pytest.importorskip("pytorch_metric_learning")
    loss = build_loss("arcface", 2, 2, {"margin": 0.3, "scale": 4})
    with torch.no_grad():
        next(loss.parameters()).copy_(torch.eye(2))
    angle = 0.5
    logits = 4 * math.cos(angle + 0.3), 4 * math.sin(angle)
    expected = -logits[0] + math.log(sum(math.exp(z) for z in logits))
    x = torch.tensor([[math.cos(angle), math.sin(angle)]])
    assert loss({"embedding": 7 * x}, torch.tensor([0])).mean().item() == pytest.approx(expected, rel=1e-5)


def test_supcon_is_its_equation() -> None:
    """arXiv 2004.11362, equation 2."""
    pytest.importorskip("pytorch_metric_learning")
    labels = LABELS[:7]  # each has a positive
    x = embeddings()[:7]
    cosine = 1 - distances(x) ** 2 / 2
    terms = []
    for i in range(7):
        others = [j for j in range(7) if j != i]
        total = sum(math.exp(cosine[i, j] / 0.5) for j in others)
        terms.append(mean([math.log(total) - cosine[i, j] / 0.5 for j in others if labels[j] == labels[i]]))
    loss = build_loss("supcon", 5, 8, {"temperature": 0.5})
    assert float(loss({"embedding": x}, labels).mean()) == pytest.approx(mean(terms), rel=1e-5)


def test_a_loss_from_its_name() -> None:
    x, outputs = embeddings(), {"embedding": embeddings()}
    loss = build_loss("triplet", 5, 8, {"mining": "semi-hard", "margin": 0.4})
    assert torch.equal(loss(outputs, LABELS), losses.triplet_semi_hard(x, LABELS, 0.4))
    assert torch.equal(build_loss("triplet", 5, 8)(outputs, LABELS), losses.triplet_batch_hard(x, LABELS, 0.2))
    loss = build_loss("quadruplet", 5, 8, {"second_margin": 0.1})
    assert torch.equal(loss(outputs, LABELS), losses.quadruplet(x, LABELS, 1.0, 0.1))
    loss = build_loss("quadruplet", 5, 8, {"mining": "semi-hard"})
    assert torch.equal(loss(outputs, LABELS), losses.quadruplet_semi_hard(x, LABELS, 1.0, 0.5))
    assert not list(loss.parameters())
    assert torch.equal(build_loss("contrastive", 5, 8)(outputs, LABELS), losses.contrastive(x, LABELS, 0.5))


def test_a_loss_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UnknownNameError, match="did you mean triplet"):
        build_loss("tripplet", 5, 8)
    with pytest.raises(UnknownNameError, match="did you mean batch-hard"):
        build_loss("triplet", 5, 8, {"mining": "batch-hrd"})
    with pytest.raises(SettingsError, match="contrastive has no option 'mining'"):
        build_loss("contrastive", 5, 8, {"mining": "batch-all"})
    for value in (0, -1, 2.5, float("nan"), True, "0.5"):
        with pytest.raises(SettingsError, match="a number above 0, at most 2"):
            build_loss("contrastive", 5, 8, {"margin": value})


@pytest.mark.parametrize("name", FROM_REFERENCE)
def test_a_missing_reference_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    with pytest.raises(MissingPackageError, match=r"gossamer\[embed\]"):
        build_loss(name, 5, 8)
    assert name in LOSSES

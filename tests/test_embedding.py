"""Metric learning: embedders, batches of identities, scores counted by hand, collapse, projections."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gossamer.data.pk import pk_order
from gossamer.errors import MissingPackageError, SettingsError, UnknownNameError
from gossamer.images.preprocess import Placement
from gossamer.networks import create_model
from gossamer.predictions.neighbours import unit as unit_of
from gossamer.tasks.embedding import similarity
from gossamer.tasks.embedding.collapse import alarm, spread
from gossamer.tasks.embedding.criterion import build_loss
from gossamer.tasks.embedding.network import Embedder
from gossamer.tasks.embedding.plane import plane
from gossamer.tasks.embedding.ranking import ranking_scores
from gossamer.tasks.embedding.scores import EmbeddingScorer, EmbeddingScores
from gossamer.tasks.embedding.verification import verify_pairs


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1"])
def test_an_embedder_projects_the_features_of_any_network(name: str) -> None:
    torch.manual_seed(0)
    backbone = create_model(name, num_classes=10, width=0.25 if name == "mobilenet_v2" else None)
    network = Embedder(backbone, 12).eval()
    x = torch.randn(2, 3, 64, 64)
    features = backbone.forward_head(backbone.forward_features(x), pre_logits=True)
    assert network(x)["embedding"].shape == (2, 12) and network.dim == 12
    assert not [name for name, _ in network.named_parameters() if ".classifier." in name]
    plain = Embedder(backbone, 0).eval()
    assert torch.equal(plain(x)["embedding"], features)
    assert plain.dim == backbone.num_features == features.shape[1]


def test_an_embedder_has_no_auxiliary_classifiers() -> None:
    with pytest.raises(SettingsError, match="auxiliary classifiers in an embedder"):
        Embedder(create_model("googlenet", aux=True, width=0.25), 8)
    with pytest.raises(SettingsError, match="dim: -1"):
        Embedder(create_model("mobilenet_v2", width=0.25), -1)


def batches(order: np.ndarray, p: int, k: int) -> np.ndarray:
    return order.reshape(-1, p, k)


@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=12),
    st.integers(2, 5),
    st.integers(2, 6),
    st.integers(0, 3),
)
def test_batches_hold_p_identities_with_k_images(counts: list[int], p: int, k: int, epoch: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)) * 3, counts))
    p = min(p, len(counts))
    order = pk_order(labels, p, k, 5, epoch)
    assert np.array_equal(order, pk_order(labels, p, k, 5, epoch))
    groups = batches(order, p, k)
    for batch in groups:
        of = labels[batch]
        assert (of == of[:, :1]).all()
        assert len(set(of[:, 0].tolist())) == p
        for identity, images in zip(of[:, 0] // 3, batch, strict=True):
            times = np.unique(images, return_counts=True)[1]
            assert len(times) == min(k, counts[identity])
            assert times.max() - times.min() <= 1
    assert set(labels[order].tolist()) == set(labels.tolist())
    for identity, count in enumerate(counts):
        seen = order[labels[order] == identity * 3]
        if -(-count // k) <= len(groups):  # not more than one group a batch: every image
            assert len(set(seen.tolist())) == count
    assert len(groups) == -(-sum(-(-count // k) for count in counts) // p)


def test_an_order_changes_with_the_seed_and_the_epoch() -> None:
    labels = np.repeat(np.arange(8), 9)
    orders = [pk_order(labels, 4, 3, seed, epoch).tolist() for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_identities_meet_in_all_combinations() -> None:
    """Laid out in a row, the same ones would meet in every batch, and the others never be compared."""
    labels = np.repeat(np.arange(6), 120)
    met = {
        tuple(sorted(set(row))) for row in labels[batches(pk_order(labels, 2, 4, 0, 0), 2, 4)].reshape(-1, 8).tolist()
    }
    assert met == set(itertools.combinations(range(6), 2))


def test_batches_of_identities_refuse_what_cannot_be() -> None:
    labels = np.repeat(np.arange(3), 5)
    with pytest.raises(SettingsError, match="p 4: the training images are of 3 identities"):
        pk_order(labels, 4, 2, 0, 0)
    for p, k in ((1, 2), (2, 1), (True, 2), (2, 2.0)):
        with pytest.raises(SettingsError, match="a whole number from 2"):
            pk_order(labels, p, k, 0, 0)  # type: ignore[arg-type]


def line(*degrees: float) -> np.ndarray:
    """Vectors in the plane at these angles."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def test_ranking_scores_by_hand() -> None:
    """A at 0, 10, 30; B at 14, 33; C at 90, alone.

    Neighbours, nearest first, then hits: A0: A10 B14 A30 B33 C; R = 2: 1 0 -> R-precision 1/2, MAP@R 1/2 * 1.
    A10: B14 A0 A30 B33: 0 1 -> 1/2, 1/2 * 1/2. A30: B33 B14 A10 A0: 0 0 -> 0, 0.
    B14: A10 A0 A30 B33 (14, 16, 19): R = 1: 0. B33: A30 B14 (19) A10: 0 -> 0. C is not searched for.
    """
    vectors, labels = line(0, 10, 30, 14, 33, 90), np.array([0, 0, 0, 1, 1, 2])
    scores = ranking_scores(vectors * [[1], [5], [0.2], [1], [3], [1]], labels)
    assert scores == pytest.approx(
        {"recall1": 1 / 5, "recall5": 1.0, "recall10": 1.0, "r_precision": 1 / 5, "map_r": (1 / 2 + 1 / 4) / 5}
    )


def test_embeddings_that_are_all_the_same_score_nothing() -> None:
    labels = np.repeat(np.arange(20), 3)  # in order: a stable sort alone would find each identity beside itself
    for vectors in (np.ones((60, 7), np.float32), np.zeros((60, 7), np.float32)):
        scores = ranking_scores(vectors, labels)
        assert scores == dict.fromkeys(scores, 0.0)
        assert verify_pairs(vectors, labels).auc == pytest.approx(0.5)


def test_duplicates_of_two_identities_count_against_the_recall() -> None:
    vectors, labels = line(0, 0, 0, 90, 91), np.array([0, 0, 1, 2, 2])
    assert ranking_scores(vectors, labels)["recall1"] == pytest.approx(2 / 4)


def plain_ranking(vectors: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    unit = similarity.steps(*[vectors / np.linalg.norm(vectors, axis=1, keepdims=True)] * 2)
    rows = []
    for q in range(len(labels)):
        rest = [i for i in range(len(labels)) if i != q]
        rest.sort(key=lambda i: (-unit[q, i], labels[i] == labels[q]))
        hits = [bool(labels[i] == labels[q]) for i in rest]
        r = sum(hits)
        if r:
            precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(r) if hits[i]]
            rows.append([any(hits[:1]), any(hits[:5]), any(hits[:10]), sum(hits[:r]) / r, sum(precisions) / r])
    return dict(zip(("recall1", "recall5", "recall10", "r_precision", "map_r"), np.mean(rows, 0), strict=True))


@pytest.mark.parametrize("chunk", [1, 100, 2**22])
def test_ranking_scores_are_those_of_plain_loops_in_chunks_of_any_size(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "CHUNK", chunk)
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 14, 60)
    vectors = (rng.normal(size=(14, 4))[labels] + 1.2 * rng.normal(size=(60, 4))).astype(np.float32)
    assert ranking_scores(vectors, labels) == pytest.approx(plain_ranking(vectors, labels))


def test_ranking_scores_are_those_of_pytorch_metric_learning() -> None:
    pytest.importorskip("pytorch_metric_learning")
    pytest.importorskip("faiss")
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    rng = np.random.default_rng(3)
    labels = rng.integers(0, 14, 90)
    vectors = (rng.normal(size=(14, 8))[labels] + 1.2 * rng.normal(size=(90, 8))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    reference = AccuracyCalculator(include=names, k="max_bin_count", device=torch.device("cpu")).get_accuracy(
        vectors, labels
    )
    ours = ranking_scores(vectors, labels)
    assert [ours["recall1"], ours["r_precision"], ours["map_r"]] == pytest.approx([reference[name] for name in names])


@pytest.mark.parametrize("chunk", [1, 100, 2**22])
def test_verification_is_the_roc_of_all_pairs(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    monkeypatch.setattr(similarity, "CHUNK", chunk)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 9, 40)
    vectors = np.round(rng.normal(size=(9, 3))[labels] + rng.normal(size=(40, 3))).astype(np.float32)  # with ties
    pairs = verify_pairs(vectors, labels)
    upper = np.triu_indices(40, 1)
    unit = unit_of(vectors)
    values, same = similarity.steps(unit, unit)[upper], (labels[:, None] == labels)[upper]
    assert pairs.same.sum() == same.sum() and pairs.other.sum() == (~same).sum()
    assert pairs.auc == pytest.approx(metrics.roc_auc_score(same, values), abs=1e-9)
    for far in (0.0, 0.01, 0.1, 0.5, 1.0):
        threshold = pairs.threshold(far)
        accepted = values >= round(threshold * similarity.STEPS)
        assert accepted[~same].mean() <= far
        assert pairs.accepted(threshold) == pytest.approx((accepted[same].mean(), accepted[~same].mean()))
        lower = values[~same & ~accepted]
        if len(lower):  # one step lower accepts too many
            assert (values[~same] >= lower.max()).mean() > far
    x, y = pairs.curve(100)
    assert x[0] == 0 and x[-1] == y[-1] == 1
    assert (np.diff(x) > 0).all() and (np.diff(y) >= 0).all() and len(x) <= 100
    assert np.trapezoid(y, x) == pytest.approx(pairs.auc, abs=0.02)


def test_a_threshold_may_accept_nothing() -> None:
    pairs = verify_pairs(np.ones((6, 3), np.float32), np.array([0, 0, 1, 1, 2, 2]))
    assert pairs.threshold(0.5) > 1
    assert pairs.accepted(pairs.threshold(0.5)) == (0.0, 0.0)


def scored(vectors: np.ndarray, labels: np.ndarray) -> EmbeddingScores:
    names = [f"{i}.jpg" for i in range(len(labels))]
    return EmbeddingScores(("a", "b", "c"), names, vectors.astype(np.float32), labels, [("bad.jpg", "cut off")], 0.1)


def test_scores_of_an_embedder() -> None:
    vectors, labels = line(0, 1, 90, 91, 180, 182), np.array([0, 0, 1, 1, 2, 2])
    scores = scored(vectors, labels)
    assert scores.metrics == dict.fromkeys(scores.metrics, 1.0)
    assert list(scores.metrics) == ["recall1", "recall5", "recall10", "r_precision", "map_r", "auc", "tar"]
    plain = scores.to_json()
    assert plain["images"] == 6 and plain["identities"] == 3 and plain["loss"] is None
    assert plain["pairs"] == {"same": 3, "other": 12}
    assert plain["unreadable"] == [{"name": "bad.jpg", "reason": "cut off"}]
    assert math.cos(math.radians(89)) < scores.threshold + 1e-6 < math.cos(math.radians(2)) + 2e-6
    lines = scores.text().splitlines()
    assert lines[0] == "6 images of 3 identities" and lines[1].split() == ["Recall@1", "1.0000"]
    assert f"from a cosine similarity of {scores.threshold:.4f}" in lines[8] and lines[9:] == [
        "skipped: bad.jpg: cut off"
    ]


def test_merged_scores_are_those_of_all_images() -> None:
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(30, 4)), np.arange(30) % 3
    places = [Placement(8, 8, 1, 1)] * 30
    first, second, all_at_once = (EmbeddingScorer(("a", "b", "c")) for _ in range(3))
    for scorer, part in ((first, slice(11)), (second, slice(11, 30)), (all_at_once, slice(30))):
        names = [f"{number}.png" for number in range(30)[part]]
        scorer.add(names, {"embedding": vectors[part].astype(np.float32)}, labels[part].tolist(), places[part])
        scorer.unreadable.append(("x", "torn"))
    first.merge(second)
    merged = first.scores()
    assert merged.metrics == all_at_once.scores().metrics
    assert merged.metrics["recall1"] == scored(vectors, labels).metrics["recall1"]
    assert merged.names == [f"{number}.png" for number in range(30)] and len(merged.unreadable) == 2


@pytest.mark.parametrize(
    ("vectors", "labels"),
    [
        (np.zeros((0, 4)), np.zeros(0, np.int64)),
        (line(0, 5, 9), np.arange(3)),
        (np.array([[np.nan, 1], [1, 0], [0, 1]]), np.array([0, 0, 1])),
    ],
    ids=["none", "all alone", "not finite"],
)
def test_scores_that_nothing_defines_are_nan(vectors: np.ndarray, labels: np.ndarray) -> None:
    scores = scored(vectors, labels)
    assert all(math.isnan(value) for name, value in scores.metrics.items())
    assert scores.to_json()["map_r"] is None
    assert "no score" in scores.text() and "nan" not in scores.text()
    assert ("not finite" in scores.text()) == bool(np.isnan(vectors).any())


def test_the_alarm_of_collapse() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(32) % 4
    good = rng.normal(size=(32, 8)).astype(np.float32)
    assert alarm(good, labels) == ""
    distance, rank = spread(good)
    assert distance == pytest.approx(math.sqrt(2), abs=0.15) and 6 < rank <= 8
    assert "collapsed to a point" in alarm(5 + 0.01 * good, labels)
    axis = np.outer(rng.choice([-1.0, 1.0], 32), np.ones(8)) + 0.001 * good
    assert "collapsed to a line" in alarm(axis.astype(np.float32), labels)
    assert alarm(axis.astype(np.float32), labels % 2) == ""  # two identities lie on a line
    assert alarm(np.ones((4, 8), np.float32), np.zeros(4, np.int64)) == ""
    assert "not finite" in alarm(np.full((4, 8), np.nan, np.float32), np.arange(4))
    assert spread(np.ones((5, 3), np.float32)) == pytest.approx((0, 1))
    corners = np.eye(4, dtype=np.float32)  # a simplex: 3 equal directions, sqrt(2) from each other
    assert spread(corners) == pytest.approx((math.sqrt(2), 3))


def test_a_projection_of_embeddings() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(40, 2)) * [[1, 0.3]]) @ rng.normal(size=(2, 6)) + 0.001 * rng.normal(size=(40, 6))
    vectors = vectors.astype(np.float32)
    projected = plane(vectors)
    assert projected.shape == (40, 2) and projected.dtype == np.float32
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    singular = np.linalg.svd(unit - unit.mean(0), compute_uv=False)
    assert np.linalg.norm(projected, axis=0) == pytest.approx(singular[:2], rel=1e-4)
    assert np.array_equal(projected, plane(vectors.copy()))
    assert plane(np.ones((3, 1), np.float32)).tolist() == [[0, 0]] * 3
    assert plane(np.zeros((0, 4), np.float32)).shape == (0, 2)
    with pytest.raises(UnknownNameError, match="umap"):
        plane(vectors, "umap")


def test_a_projection_by_tsne_separates_clusters() -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    vectors = (5 * np.eye(3, 6)[labels] + 0.3 * rng.normal(size=(30, 6))).astype(np.float32)
    projected = plane(vectors, "tsne")
    assert projected.shape == (30, 2)
    assert ranking_scores(projected - projected.mean(0), labels)["recall1"] > 0.9


def test_tsne_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(MissingPackageError, match=r"gossamer\[embed\]"):
        plane(np.eye(6, dtype=np.float32), "tsne")


def test_training_with_a_loss_pulls_identities_together() -> None:
    """A linear embedder on noise around three directions learns to drop the noise."""
    torch.manual_seed(0)
    labels = torch.arange(24) % 3
    x = torch.cat([torch.eye(3)[labels], 2 * torch.randn(24, 5)], 1)
    for name in ("contrastive", "triplet", "quadruplet"):
        layer = torch.nn.Linear(8, 3)
        optimizer = torch.optim.Adam(layer.parameters(), 0.05)
        loss = build_loss(name, 3, 3, {"mining": "batch-all"} if name == "triplet" else {})
        before = ranking_scores(layer(x).detach().numpy(), labels.numpy())["map_r"]
        for _ in range(60):
            optimizer.zero_grad()
            loss({"embedding": layer(x)}, labels).mean().backward()
            optimizer.step()
        after = ranking_scores(layer(x).detach().numpy(), labels.numpy())["map_r"]
        assert before < 0.6 < 0.95 < after, name

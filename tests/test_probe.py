"""Classical classifiers on frozen features: folds, rows, the verdict, and the command."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from gossamer.cli.main import main
from gossamer.errors import DataError, InputError, MissingPackageError, SettingsError, UnknownNameError
from gossamer.host.progress import SILENT
from gossamer.images.preprocess import Preprocess
from gossamer.networks import create_model
from gossamer.probe import CLASSIFIERS, ClassifierScore, ProbeResult, probe
from gossamer.probe.classifiers import pipeline, select_classifiers
from gossamer.probe.features import Extracted, extract, of_network
from gossamer.probe.measure import fold_numbers, majority_baseline, measure_classifier
from gossamer.probe.result import MAJORITY
from gossamer.settings import Settings
from gossamer.training.loop import train
from tests.test_trainer import Messages

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
NET = "shufflenet_v2_x0_5"


def blobs(each: int, classes: int = 3, distance: float = 6.0, seed: int = 0) -> Extracted:
    """Features of classes that lie `distance` deviations from each other, in 8 dimensions."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), each)
    x = rng.standard_normal((len(y), 8)) + distance * np.eye(8)[y]
    return Extracted(x, y, [], 0.0)


def result(**rows: tuple[float, ...]) -> ProbeResult:
    """A probe with these accuracies a fold; the baseline is called `baseline`."""
    scores = [
        ClassifierScore(
            MAJORITY if name == "baseline" else name, "linear", folds, 0.5, 0.1, 1.0, "" if folds else "refused"
        )
        for name, folds in rows.items()
    ]
    scores = [row if row.fold_accuracies else ClassifierScore(row.name, row.kind, error="refused") for row in scores]
    return ProbeResult("net", "", False, "", "", (3, 32, 32), 8, ("a", "b"), 9, 9, 3, 0, 1.0, tuple(scores))


@given(counts=st.lists(st.integers(0, 9), min_size=2, max_size=6), folds=st.integers(2, 6), seed=st.integers(0, 9))
def test_folds_divide_each_class_evenly(counts: list[int], folds: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    if sum(count >= 2 for count in counts) < 2:
        with pytest.raises(DataError, match="two or more such classes"):
            fold_numbers(labels, folds, seed)
        return
    parts = fold_numbers(labels, folds, seed)
    assert parts.max() + 1 == max(2, min(folds, min(count for count in counts if count)))
    for label, count in enumerate(counts):
        per_fold = np.bincount(parts[labels == label], minlength=parts.max() + 1)
        assert per_fold.sum() == count
        assert per_fold.max() - per_fold.min() <= 1
        assert count < 2 or (count - per_fold).min() > 0  # each class of two is trained on in every fold


def test_folds_follow_from_the_seed() -> None:
    labels = np.repeat([0, 1], 20)
    assert (fold_numbers(labels, 5, 1) == fold_numbers(labels, 5, 1)).all()
    assert (fold_numbers(labels, 5, 1) != fold_numbers(labels, 5, 2)).any()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_finds_what_is_easy_to_find(name: str) -> None:
    train, held = blobs(15), blobs(10, seed=1)
    row = measure_classifier(name, "linear", lambda: pipeline(name, 30, 8, 0), train, held, fold_numbers(train.y, 3, 0))
    assert row.error == ""
    assert len(row.fold_accuracies) == 3
    assert row.mean > 0.85
    assert row.held_accuracy is not None and row.held_accuracy > 0.85


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_takes_three_images_a_class_and_features_that_never_change(name: str) -> None:
    x = np.array([[first, 1.0, 3.0] for first in (0.0, 0.1, 0.2, 5.0, 5.1, 5.2)])
    few = Extracted(x, np.array([0, 0, 0, 1, 1, 1]), [], 0.0)
    row = measure_classifier(name, "linear", lambda: pipeline(name, 4, 3, 0), few, few, fold_numbers(few.y, 5, 0))
    assert row.error == ""
    assert len(row.fold_accuracies) == 3


def test_a_class_inside_another_tells_linear_from_not() -> None:
    y = np.repeat([0, 1], 100)
    x = np.random.default_rng(0).standard_normal((200, 2)) * np.where(y, 4.0, 0.5)[:, None]
    ring = Extracted(x, y, [], 0.0)
    parts = fold_numbers(y, 4, 0)
    for name, entry in CLASSIFIERS.items():
        mean = measure_classifier(name, entry.kind, lambda name=name: pipeline(name, 150, 2, 0), ring, ring, parts).mean
        assert (mean > 0.75) == (entry.kind == "non-linear"), name


def test_scaling_belongs_to_the_classifier() -> None:
    train = blobs(20)
    stretched = Extracted(train.x * np.array([1e6, *[1.0] * 6, 1e-6]) + 1e3, train.y, [], 0.0)
    parts = fold_numbers(train.y, 4, 0)
    plain, other = (
        measure_classifier("knn", "", lambda: pipeline("knn", 45, 8, 0), each, each, parts)
        for each in (train, stretched)
    )
    assert plain.fold_accuracies == other.fold_accuracies


def test_the_majority_baseline_is_the_fraction_of_the_largest_class() -> None:
    train = Extracted(np.zeros((10, 1)), np.array([0, 1, 1, 1, 1, 1, 1, 0, 0, 0]), [], 0.0)
    held = Extracted(np.zeros((4, 1)), np.array([0, 0, 0, 1]), [], 0.0)
    row = majority_baseline(train, held, np.arange(10) % 2)
    assert row.fold_accuracies == (3 / 5, 3 / 5)
    assert row.held_accuracy == 1 / 4


def test_a_warning_becomes_a_note_and_a_refusal_an_error() -> None:
    class Fussy:
        def __init__(self, refuse: bool) -> None:
            self.refuse = refuse

        def fit(self, x: np.ndarray, y: np.ndarray) -> Fussy:
            if self.refuse:
                raise ValueError("not\nthese")
            warnings.warn("did not converge.\nmore", stacklevel=1)
            return self

        def predict(self, x: np.ndarray) -> np.ndarray:
            return np.zeros(len(x), np.int64)

    train = blobs(4)
    parts = fold_numbers(train.y, 2, 0)
    assert measure_classifier("x", "", lambda: Fussy(False), train, train, parts).note == "did not converge"
    refused = measure_classifier("x", "", lambda: Fussy(True), train, train, parts)
    assert (refused.error, refused.fold_accuracies) == ("not these", ())
    assert np.isnan(refused.mean)


def test_a_winner_leads_by_more_than_the_spread() -> None:
    clear = result(baseline=(0.3, 0.3), a=(0.90, 0.92), b=(0.80, 0.82))  # lead 10 points, spread 1.4
    assert clear.winner == "a"
    assert clear.verdict() == "winner: a, 10.0 points before b; the folds spread by 1.4"
    close = result(baseline=(0.3, 0.3), a=(0.90, 0.92), b=(0.8, 1.0))  # b spreads by 14 points
    assert close.winner is None
    assert "leads b by 1.0 points" in close.verdict()
    assert result(baseline=(0.6, 0.6), a=(0.5, 0.5)).winner is None
    assert "largest class" in result(baseline=(0.6, 0.6), a=(0.5, 0.5)).verdict()
    failed = result(baseline=(0.6, 0.6), a=())
    assert (failed.winner, failed.exit_code) == (None, 1)
    assert "a: not fitted: refused" in failed.text()
    assert failed.to_json()["rows"][1]["mean"] is None


def test_names_of_classifiers() -> None:
    assert select_classifiers("all") == tuple(CLASSIFIERS)
    assert select_classifiers("forest, linear")[-1] == "forest"
    assert set(select_classifiers("linear")) | set(select_classifiers("non-linear")) == set(CLASSIFIERS)
    with pytest.raises(UnknownNameError, match="did you mean forest"):
        select_classifiers("forrest")
    with pytest.raises(SettingsError):
        select_classifiers(",")


def test_features_are_the_embedding_of_the_deployment_pixels(image_folder: Path) -> None:
    network = of_network(Settings(data=str(image_folder), net=NET, input="32x32", seed=3), SILENT)
    extracted = extract(network, network.data.val, 5, "", SILENT)
    torch.manual_seed(3)
    plain = create_model(NET, num_classes=3, small_input=True).eval()
    plain.reset_classifier(0)
    preprocess = Preprocess((32, 32), crop_pct=1.0)
    assert network.preprocess == preprocess
    last = len(network.data.val) - 1
    with torch.inference_mode():
        expected = plain(torch.from_numpy(preprocess(network.data.val.read(last))[None])).numpy()
    assert extracted.x.shape == (36, 1024)
    assert extracted.x[last] == pytest.approx(expected[0], abs=1e-5)
    assert (extracted.y == network.data.val.labels).all()


def test_weights_of_a_file_are_loaded_and_noted(image_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(11)
    other = create_model(NET, num_classes=7, small_input=True)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    settings = Settings(data=str(image_folder), net=NET, input="32x32", weights=str(tmp_path / "other.safetensors"))
    network = of_network(settings, SILENT)
    assert (network.trained, network.warning) == (True, "")
    assert any("tensors loaded" in note for note in network.notes)
    pixels = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    other.reset_classifier(0)
    with torch.inference_mode():
        assert network.forward(pixels) == pytest.approx(other.eval()(torch.from_numpy(pixels)).numpy(), abs=1e-5)


def test_a_missing_package_is_named_before_the_work(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.preprocessing", None)
    with pytest.raises(MissingPackageError, match=r"scikit-learn.*gossamer\[probe\]"):
        probe(image_folder, net=NET)


def test_features_that_are_not_finite_are_refused(image_folder: Path) -> None:
    network = of_network(Settings(data=str(image_folder), net=NET), SILENT)
    broken = dataclasses.replace(network, forward=lambda images: np.full((len(images), 4), np.inf, np.float32))
    with pytest.raises(DataError, match="NaN or infinity"):
        extract(broken, network.data.val, 8, "", SILENT)


def test_probe_skips_unreadable_images_and_draws(make_image_folder: Callable[..., Path], tmp_path: Path) -> None:
    photos = make_image_folder(each=6)
    (photos / "train" / "class0" / "000.png").write_bytes(b"no image")
    result = probe(photos, net=NET, classifiers="logistic,knn", folds=9)
    assert (result.train_images, result.held_images, result.folds) == (17, 18, 5)
    assert [name for name, _ in result.unreadable] == ["train/class0/000.png"]
    assert [row.name for row in result.rows] == [MAJORITY, "logistic", "knn"]
    assert not result.trained
    assert result.text().startswith("UNTRAINED NETWORK")
    assert max(map(len, result.text().splitlines())) <= 100
    again = probe(photos, net=NET, classifiers="logistic,knn", folds=9)
    assert [row.fold_accuracies for row in again.rows] == [row.fold_accuracies for row in result.rows]
    result.plot(tmp_path / "probe.svg")
    svg = (tmp_path / "probe.svg").read_text()
    assert "logistic" in svg and "majority baseline" in svg and "5 folds" in svg and "RANDOM" in svg
    with pytest.raises(InputError, match=r"allowed: \.svg"):
        result.plot(tmp_path / "probe.png")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [({"folds": 1}, "folds"), ({"data": ""}, "data"), ({"run": "r", "weights": "default"}, "--weights")],
)
def test_what_cannot_be_probed(image_folder: Path, arguments: dict[str, object], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        probe(**{"data": image_folder, "net": NET, **arguments})  # type: ignore[arg-type]


def test_the_command_probes_a_run_with_its_own_data(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    train(Settings(data=str(image_folder), net=NET, input="32", epochs=1, batch=12, workers=0, threads=1, out=run))
    chart = tmp_path / "p.svg"
    assert main(["probe", "--run", run, "--classifiers", "logistic,forest", "--plot", str(chart), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["trained"]
    assert "flatter" in plain["warning"]
    assert plain["input"] == [3, 32, 32]
    assert [row["name"] for row in plain["rows"]] == [MAJORITY, "logistic", "forest"]
    assert chart.exists()
    assert main(["probe", str(image_folder), "--run", run, "--classifiers", "knn", "--folds", "3", "--json"]) == 0
    elsewhere = json.loads(capsys.readouterr().out)
    assert (elsewhere["warning"], elsewhere["folds"]) == ("", 3)
    assert main(["probe", str(image_folder), "--classifiers", "nonsense"]) == 2
    assert "no classifier is called 'nonsense'" in capsys.readouterr().err


class Sleepy:
    """A classifier whose fit sleeps for so many seconds per image, and that keeps how many it saw."""

    def __init__(self, seconds: float, seen: list[np.ndarray]) -> None:
        self.seconds, self.seen = seconds, seen

    def fit(self, x: np.ndarray, y: np.ndarray) -> Sleepy:
        time.sleep(self.seconds * len(x))
        self.seen.append(y)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.zeros(len(x), np.int64)


def test_a_slow_classifier_sees_fewer_images_of_each_class_and_says_so() -> None:
    train, seen = blobs(1000), list[np.ndarray]()
    parts = fold_numbers(train.y, 5, 0)
    row = measure_classifier("x", "", lambda: Sleepy(0.0005, seen), train, train, parts, limit=2.0)
    assert "of 3000 images at most" in row.note and "2 s" in row.note
    assert len(row.fold_accuracies) >= 2
    assert max(map(len, seen)) < 2000
    for labels in seen:
        counts = np.bincount(labels, minlength=3)
        assert counts.max() - counts.min() <= 1


def test_folds_are_left_out_where_the_time_is_used_up() -> None:
    train, seen = blobs(100), list[np.ndarray]()
    row = measure_classifier("x", "", lambda: Sleepy(0.001, seen), train, train, fold_numbers(train.y, 5, 0), limit=0.5)
    assert len(row.fold_accuracies) < 5 and f"{len(row.fold_accuracies)} of 5 folds" in row.note
    assert row.held_accuracy == pytest.approx(1 / 3) and len(seen[-1]) == 300


def test_a_fast_classifier_is_not_limited() -> None:
    train = blobs(300)
    row = measure_classifier(
        "ridge", "", lambda: pipeline("ridge", 100, 8, 0), train, train, fold_numbers(train.y, 3, 0)
    )
    assert row.note == "" and len(row.fold_accuracies) == 3


def test_ridge_is_least_squares_on_one_hot_labels() -> None:
    train = blobs(30, distance=1.5)
    model = pipeline("ridge", 90, 8, 0).fit(train.x, train.y)
    scaled = (train.x - train.x.mean(0)) / train.x.std(0)
    onehot = np.where(np.eye(3)[train.y] > 0, 1.0, -1.0)
    alpha = model[-1].alpha_
    weights = np.linalg.solve(scaled.T @ scaled + alpha * np.eye(8), scaled.T @ (onehot - onehot.mean(0)))
    expected = (scaled @ weights + onehot.mean(0)).argmax(1)
    np.testing.assert_array_equal(model.predict(train.x), expected)


def test_one_fold_names_no_winner() -> None:
    probed = result(baseline=(0.3, 0.3), a=(0.9,), b=(0.5, 0.6))
    assert probed.winner is None and "one fold" in probed.verdict()


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_seconds_above_0(image_folder: Path, limit: float) -> None:
    with pytest.raises(SettingsError, match="limit"):
        probe(image_folder, net=NET, limit=limit)


def test_results_are_printed_as_they_come(image_folder: Path) -> None:
    messages = Messages()
    probe(image_folder, net=NET, classifiers="ridge,knn", input="32", folds=2, progress=messages)
    names = [line.split(":")[0] for line in messages.lines if "held out" in line]
    assert names == ["ridge", "knn"]


def test_one_fold_has_no_spread(tmp_path: Path) -> None:
    one = ClassifierScore("knn", "non-linear", (0.7,), 0.6, 1.0, 1.0)
    result = ProbeResult("net", "", True, "", "", (3, 32, 32), 8, ("a", "b"), 9, 9, 3, 0, 1.0, (one,))
    json.dumps(result.to_json(), allow_nan=False)
    assert result.to_json()["rows"][0]["spread"] is None
    assert "70.0 ±    –" in result.text() and "nan" not in result.text()
    result.plot(tmp_path / "a.svg")
    assert "70.0 ± – %" in (tmp_path / "a.svg").read_text(encoding="utf-8")

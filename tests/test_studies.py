"""The studies compute what they say, at sizes that take seconds; what they find here is no test."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.analysis.cost import cost
from gossamer.errors import SettingsError
from gossamer.networks import create_model
from gossamer.networks.published import published_top1
from gossamer.runtime import native

pytest.importorskip("matplotlib")

from studies import compression, frame, relu_manifold, reviews, survey, timing, training
from studies.bottleneck import VARIANTS
from studies.guidelines import candidates

from tests.conftest import write_boxes


@pytest.mark.full
@pytest.mark.parametrize("name", ["relu_manifold", "separable", "factorise", "guidelines", "block_costs"])
def test_a_study_runs_and_draws(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = importlib.import_module(f"studies.{name}")
    frame.main(name, study.study, study.draw, arguments=["--quick", "--json", "--out", str(tmp_path)])
    result = json.loads(capsys.readouterr().out)
    assert result["rows"] and result["conclusion"] and result["machine"]["cpu"]
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.full
def test_the_study_of_attention_counts_what_gates_compute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    study = importlib.import_module("studies.attention")
    options = ["--quick", "--json", "--out", str(tmp_path)]
    frame.main("attention", study.study, study.draw, takes_data=True, arguments=options)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 11 and (tmp_path / "attention.png").stat().st_size > 5000
    plain, gated = (next(row for row in rows if row["with"] == name) for name in ("plain", "gated channels"))
    # a quick training may close no gate, which then costs what it computes itself; test_options counts closed ones
    assert 0.2 < gated["MACs computed"] / plain["MACs computed"] < 1.02
    assert gated["parameters"] > plain["parameters"]


@pytest.mark.full
def test_the_study_of_deformable_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = importlib.import_module("studies.deformable")
    options = ["--quick", "--out", str(tmp_path), "--data", str(write_boxes(tmp_path / "signs"))]
    frame.main("deformable", study.study, study.draw, takes_data=True, arguments=options)
    assert "v2, last 2 stages changes mAP@0.5 by" in capsys.readouterr().out
    with pytest.raises(SettingsError, match="--data"):
        study.study()


@pytest.mark.full
@pytest.mark.parametrize("name", ["bottleneck", "shuffle"])
def test_a_study_that_trains_states_its_margin(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    study = importlib.import_module(f"studies.{name}")
    frame.main(name, study.study, study.draw, takes_data=True, arguments=["--quick", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    assert "+-" in text and "points" in text
    assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_nothing_is_lost_where_relu_cuts_nothing() -> None:
    curve = relu_manifold.spiral()
    assert relu_manifold.error(curve, curve) < 1e-12
    assert relu_manifold.error(curve, 0.3 * curve[::-1] + 2) < 1e-12  # an affine map loses nothing
    assert relu_manifold.error(curve, np.zeros_like(curve)) == pytest.approx(1)


def test_a_single_direction_loses_more_than_thirty() -> None:
    curve = relu_manifold.spiral()
    two = [relu_manifold.error(curve, relu_manifold.through_relu(curve, 2, seed)) for seed in range(10)]
    thirty = [relu_manifold.error(curve, relu_manifold.through_relu(curve, 30, seed)) for seed in range(10)]
    assert min(two) > max(thirty)


def test_points_that_fall_together_are_counted() -> None:
    assert relu_manifold.collapsed(np.array([[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 1.0, 2.0]])) == 0.5


def test_the_settings_of_a_guideline_have_nearly_equal_macs() -> None:
    costs: dict[str, list[int]] = {}
    for guideline, _, module, channels in candidates():
        costs.setdefault(guideline, []).append(cost(module, (1, channels, 28, 28)).macs)
    assert set(costs) == {"G1", "G2", "G3", "G4"}
    for macs in costs.values():
        assert max(macs) < 1.15 * min(macs)  # what is left is divided out


def test_the_variants_of_the_bottleneck_are_what_they_are_called() -> None:
    def counted(name: str) -> tuple[int, int]:
        blocks = [block for stage in create_model("mobilenet_v2", **VARIANTS[name]).stages for block in stage]
        linear = sum(not hasattr(block.project, "act") for block in blocks)
        return linear, sum(block.shortcut for block in blocks)

    assert counted("linear, shortcut") == (17, 10)
    assert counted("ReLU6, shortcut") == (0, 10)
    assert counted("linear, no shortcut") == (17, 0)
    assert counted("ReLU6, no shortcut") == (0, 0)


def test_margins_are_students() -> None:
    score = training.score([0.5, 0.6, 0.7])
    assert score.mean == pytest.approx(0.6) and score.margin == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert training.differs([0.9, 0.91, 0.92], [0.5, 0.51, 0.53]) and not training.differs([0.5, 0.9], [0.6, 0.7])


def test_training_learns_and_times_are_positive() -> None:
    x = torch.randn(200, 3, 32, 32)
    labels = (x.mean((1, 2, 3)) > 0).long()
    x += labels[:, None, None, None] * 2.0
    images = training.Images(x, labels, x, labels, 2, "two brightnesses")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    assert training.train(model, images, epochs=20, seed=0) > 0.95
    (time,) = timing.measure([(model, (1, 3, 32, 32))], rounds=3)
    assert 0 < time.low <= time.median <= time.high


@pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native engine is not built: make engine")
def test_the_survey_measures_each_network_once_and_says_what_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey.native, "NATIVE_BFLOAT16", ())
    lines: list[str] = []
    (row,) = survey.survey(["lenet5", "vgg11"], tmp_path, 2, lines.append)  # the second one is not light
    assert len(lines) == 1 and row["network"] == "lenet5" and row["top1"] == "" and row["parameters"] == "145856"
    assert all(float(row[f"ms_{one}"]) > 0 for one in ("float32", "int8")) and row["ms_bf16"] == "not available"
    page = (tmp_path / "survey.md").read_text()
    assert (
        f"| lenet5 | 1x32x32 | not known | 0.5 | 0.15 | {row['ms_float32']} | not available | {row['ms_int8']} |"
        in page
    )
    written = (tmp_path / "survey.csv").read_text()
    assert survey.known_rows(tmp_path / "survey.csv", row["machine"]) == {"lenet5": row}
    assert not survey.known_rows(tmp_path / "survey.csv", "another machine")

    def fail(*given: object) -> None:
        raise AssertionError("it is measured already")

    monkeypatch.setattr(survey, "row_of", fail)
    assert survey.survey(["lenet5"], tmp_path, 2, lines.append) == [row] and len(lines) == 1
    assert (tmp_path / "survey.csv").read_text() == written


def test_the_survey_has_the_published_accuracy_and_says_that_a_machine_was_busy() -> None:
    known = published_top1("mobilenetv2_100")
    assert known is not None
    row = dict.fromkeys(survey.COLUMNS, "1") | {
        "network": "mobilenetv2_100",
        "top1": known.text,
        "source": known.source,
    }
    rows = [{**row, "load": "0.0"}, {**row, "network": "slower", "ms_float32": "2", "load": "7.5"}]
    page = survey.markdown(rows)
    assert f"| {known.text} |" in page and known.source in page
    assert "other programs were at work for 1 of 2 rows (a load of up to 7.5)" in page
    assert page.index("| mobilenetv2_100 |") < page.index("| slower |")
    assert "no other program was at work" in survey.markdown(rows[:1])


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native engine is not built: make engine")
def test_the_study_of_compression_makes_every_step_and_trains_nothing_twice(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "LEAST", 0.02)
    monkeypatch.setattr(compression, "METHODS", ("svd",))  # of four layers, where all kinds would take minutes
    words = ["--data", str(image_folder), "--folder", str(tmp_path / "runs"), "--minutes", "0.05", "--nets", "resnet18"]
    rows = compression.main([*words, "--out", str(tmp_path)])
    assert [row["step"] for row in rows] == list(compression.STEPS)
    by_step = {row["step"]: row for row in rows}
    assert all(float(row["ms"]) > 0 and float(row["mb"]) > 0 for row in rows)
    assert float(by_step["int8"]["mb"]) < 0.6 * float(by_step["the network"]["mb"])
    assert float(by_step["prune"]["ms"]) < 0.8 * float(by_step["the network"]["ms"])
    assert float(by_step["all"]["mb"]) < float(by_step["prune"]["mb"])
    assert float(by_step["distil"]["mb"]) < 0.6 * float(by_step["the network"]["mb"])
    assert all(float(row["low"]) <= float(row["points_lost"]) <= float(row["high"]) for row in rows[1:])
    page = (tmp_path / "compression.md").read_text()
    assert page.count("| resnet18 |") == len(rows) and "12 validation" not in page and "36 validation images" in page

    def train_again(*given: object, **more: object) -> None:
        raise AssertionError("it is trained already")

    monkeypatch.setattr(compression, "train", train_again)
    monkeypatch.setattr(compression.gossamer, "prune", train_again)
    again = compression.main([*words, "--out", str(tmp_path)])
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in rows]


def test_the_study_of_compression_claims_what_the_images_tell() -> None:
    row = dict.fromkeys(compression.COLUMNS, "1") | {"network": "vgg11", "points_lost": "3.0", "note": ""}
    rows = [
        {**row, "step": "the network", "points_lost": "", "low": "", "high": ""},
        {**row, "step": "prune", "low": "0.5", "high": "5.5"},
        {**row, "step": "int8", "low": "-1.0", "high": "7.0"},
    ]
    page = compression.markdown(rows, 2, 500, 6.0)
    assert "3.0 (0.5 to 5.5)" in page and "a load of 6.0" in page and "500 validation images" in page
    assert page.rstrip().endswith("Differences that the images tell from none: prune of vgg11 (-3.0).")
    assert "from none: none." in compression.markdown(rows[2:], 2, 500, None)


def test_reviews_say_what_became_of_each_finding_and_defend_each_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reviews, "FOLLOWERS", {"mobilenetv1_100": "mobilenetv2_100", "squeezenet1_0": "squeezenet1_1"})
    reviews.main(["--out", str(tmp_path)], names=lambda: ["mobilenetv2_100", "squeezenet1_0"])
    page = (tmp_path / "reviews.md").read_text()
    assert page.strip() == capsys.readouterr().out.strip()
    rows = {tuple(line.split(" | ")[:2]): line for line in page.splitlines() if line.startswith("| ")}
    assert "mobilenetv2_100: gone" in rows["| mobilenetv1_100", "missing-shortcut"]
    assert "1 of 2 networks draw a warning, none more than 2." in page  # MobileNetV2 draws none
    kernel = rows["| squeezenet1_0", "large-first-kernel"]
    assert kernel.count("|") == 6 and "above" in kernel  # the figure beside the threshold, and its reason

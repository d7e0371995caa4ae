"""Settings that a training does not look at are told, by a table that is right: they change no bit of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gossamer
from gossamer.cli.main import main
from gossamer.errors import SettingsError
from gossamer.predictions.head import OutputHead
from gossamer.settings import Settings, differing
from gossamer.settings.unused import USES, unused
from gossamer.tasks.registry import source_of
from tests.runs import same, weights
from tests.scenes import write_boxes, write_masks
from tests.shop import write_shop
from tests.test_trainer import Messages, small


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expand": 0.2}, ["expand", "the task detect"]),
        ({"task": "detect", "randaugment": 2, "class_weights": "balanced"}, ["randaugment", "class_weights"]),
        ({"task": "detect", "label_smoothing": 0.3}, ["label_smoothing", "classify, segment and multi"]),
        ({"task": "segment", "crop": "center", "sampler": "balanced"}, ["crop", "sampler"]),
        ({"task": "segment", "aspp": True}, ["aspp", "deeplabv3"]),
        ({"task": "embed", "loss": "arcface", "mining": "hard"}, ["mining", "triplet and quadruplet"]),
        ({"patience": 2, "gamma": 0.5}, ["patience", "--schedule plateau", "gamma", "step, exponential and plateau"]),
        ({"schedule": "one_cycle", "warmup": 3}, ["warmup", "one_cycle"]),
        ({"optimizer": "adamw", "nesterov": False, "momentum": 0.5}, ["nesterov", "momentum", "sgd, rmsprop"]),
        ({"eps": 1e-3}, ["eps", "sgd"]),
        ({"crop": "padded", "crop_scale": (0.5, 1.0)}, ["crop_scale", "--crop random_resized"]),
        ({"save_steps": 5, "save_every": 5.0}, ["save_every", "--save-steps"]),
        ({"label_smoothing": 0.0, "smoothing_over": "others"}, ["smoothing_over", "--label-smoothing"]),
        (
            {"task": "multi", "heads": '{"a": {"kind": "detect"}}', "random_erasing": 0.5},
            ["random_erasing", "boxes and masks"],
        ),
    ],
)
def test_a_setting_without_effect_is_told(options: dict[str, Any], words: list[str]) -> None:
    settings = Settings(**options)
    text = "\n".join(unused(settings, differing(settings)))
    assert all(word in text for word in words), text
    assert text.count("warning: ") == sum(word in options for word in words)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedule": "step", "step_epochs": (1.0,), "gamma": 0.5},
        {"optimizer": "rmsprop", "momentum": 0.5, "rho": 0.8, "eps": 1e-3},
        {"task": "detect", "crop": "random_resized", "expand": 0.1, "loss": "focal", "focal_gamma": 1.5},
        {"task": "segment", "head": "deeplabv3", "aspp": True, "class_weights": "log", "dice": 1.0},
        {"task": "multi", "heads": "a: {kind: classify}", "random_erasing": 0.5, "focal_gamma": 1.0},
        {"eps": 0.0, "crop_scale": (0.5, 1.0), "crop": "random_resized"},
    ],
)
def test_nothing_is_told_of_settings_that_count(options: dict[str, Any]) -> None:
    settings = Settings(**options)
    assert not unused(settings, differing(settings))


def test_the_table_names_settings() -> None:
    assert {name for use in USES for name in use.names} <= set(Settings.__dataclass_fields__)


def test_a_training_says_it(image_folder: Path, tmp_path: Path) -> None:
    messages = Messages()
    settings = small(image_folder, tmp_path / "run", net="lenet5", width=None, epochs=1, patience=3)
    run = gossamer.train(settings, progress=messages)
    line = "warning: patience has no effect here: it is for --schedule plateau"
    assert line in messages.lines and line in run.log_lines()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "--weights", "--max-params", "3M"], "list --max-params with --weights"),
        (["list", "--weights", "--max-macs", "3M"], "list --max-macs with --weights"),
        (["compare", "lenet5", "--threads", "2"], "compare --threads without --measure"),
        (["compare", "lenet5", "--no-measure", "--threads", "2"], "compare --threads without --measure"),
        (["pick", "--latency", "2ms", "--runtime", "onnxruntime", "--epochs", "3"], "--epochs 3.0 without data"),
        (["pick", "--latency", "2ms", "--runtime", "onnxruntime", "--val", "photos"], "--val photos without data"),
        (["pick", "--latency", "2ms", "--runtime", "onnxruntime", "--task", "detect"], "--task detect without data"),
        (["pick", "--latency", "2ms", "--runtime", "onnxruntime", "--candidates", "3"], "--candidates 3 without data"),
        (["pick", "--latency", "2ms", "--runtime", "onnxruntime", "--seed", "1"], "--seed 1 without data"),
        (["probe", "photos", "--which", "last"], "the last weights without a run"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line != "loading PyTorch"]
    assert len(lines) == 1 and message in lines[0], lines


def test_only_masks_have_pixels_to_ignore() -> None:
    with pytest.raises(SettingsError, match="ignore_index 3 with a model file of classify"):
        source_of((OutputHead("classify", ("a", "b")),), "photos", 3)


@pytest.mark.full
@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("classify", {"expand": 0.1, "scales": (0.5, 1.0), "dim": 8, "threshold": 0.9, "per_identity": 2, "patience": 1}),
        ("classify", {"step_epochs": (0.5,), "gamma": 0.9, "cycle_epochs": 1.0, "rho": 0.5, "betas": (0.5, 0.6), "eps": 0.1}),
        ("classify", {"focal_gamma": 5.0, "mining": "hard", "randaugment_magnitude": 3.0, "crop_scale": (0.9, 1.0), "crop": "padded"}),
        ("embed", {"label_smoothing": 0.5, "smoothing_over": "others", "class_weights": "balanced", "sampler": "balanced"}),
        ("detect", {"randaugment": 2, "random_erasing": 1.0, "crop": "center", "crop_scale": (0.9, 1.0)}),
        ("detect", {"label_smoothing": 0.5, "class_weights": "balanced", "momentum": 0.1, "nesterov": False}),
        ("segment", {"randaugment": 2, "random_erasing": 1.0, "crop": "center", "expand": 0.1, "mosaic": 1.0, "aspp": True}),
        ("segment", {"smoothing_over": "others", "focal_gamma": 5.0, "levels": 2, "fpn": True}),
        ("multi", {"randaugment": 2, "random_erasing": 1.0, "crop": "center", "dice": 1.0, "scales": (0.5, 1.0), "aux_weight": 2.0}),
    ],
)  # fmt: skip
def test_what_is_told_to_have_no_effect_has_none(
    task: str, options: dict[str, Any], image_folder: Path, tmp_path: Path
) -> None:
    data = {"detect": write_boxes, "segment": write_masks, "multi": write_shop}
    place = data[task](tmp_path / "data") if task in data else image_folder  # type: ignore[operator]
    common: dict[str, Any] = {"task": task, "width": 0.1, "epochs": 1, "deterministic": True}
    if task == "multi":
        common["heads"] = (tmp_path / "data" / "heads.yaml").read_text()
    if "crop" in options and task == "classify":
        common["crop"] = "padded"
    messages = Messages()
    plain = gossamer.train(small(place, tmp_path / "plain", **common))
    other = gossamer.train(small(place, tmp_path / "other", **{**common, **options}), progress=messages)
    told = {line.split()[1] for line in messages.lines if line.startswith("warning: ") and "no effect" in line}
    assert told == set(options) - ({"crop"} if task == "classify" else set())
    assert same(weights(plain.path), weights(other.path))

"""Training: what a run leaves, resuming to the same bits, and the run repeated."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gossamer
from gossamer.errors import RunError, SettingsError, UnknownNameError
from gossamer.host.progress import Progress
from gossamer.networks import create_model
from gossamer.networks.base import Outputs
from gossamer.run import Run
from gossamer.settings import Settings
from gossamer.tasks.classify import Classify
from gossamer.training import precision
from gossamer.training.loop import resume, train
from gossamer.training.restore import load_run
from tests.counterparts import counterpart
from tests.runs import RECIPE, command, same, weights
from tests.runs import gossamer as run_gossamer
from tests.scenes import write_boxes, write_masks
from tests.tiers import quick_ones


class Messages(Progress):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def small(image_folder: Path, out: Path, **options: object) -> Settings:
    defaults = {
        "net": "mobilenet_v1",
        "width": 0.25,
        "input": "32",
        "epochs": 2,
        "batch": 8,
        "threads": 1,
        "workers": 0,
    }
    defaults |= {"precision": "float32", "memory_format": "channels_last"}
    return Settings(data=str(image_folder), out=str(out), **{**defaults, **options})  # type: ignore[arg-type]


def test_a_run_learns_and_leaves_everything_behind(image_folder: Path, tmp_path: Path) -> None:
    messages = Messages()
    options = {"net": "mobilenet_v2", "epochs": 20, "lr": 0.02, "flip": 0}
    run = gossamer.train(small(image_folder, tmp_path / "run", **options), progress=messages)
    rows = run.metrics()
    assert [row["epoch"] for row in rows] == list(range(1, 21))
    assert max(row["val_accuracy"] for row in rows) >= 0.9
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert any("waiting for data" in line for line in messages.lines)
    names = {path.name for path in run.path.iterdir()}
    assert {"settings.yaml", "environment.json", "classes.json", "data.json", "split.csv", "unreadable.csv"} <= names
    assert {
        "metrics.jsonl",
        "metrics.csv",
        "log.txt",
        "best.safetensors",
        "best.json",
        "last.safetensors",
        "last.json",
    } <= names
    assert not [name for name in names if name.endswith(".part")]
    assert gossamer.Run.open(run.path).settings == run.settings
    assert run.classes == ("class0", "class1", "class2")
    with (run.path / "metrics.csv").open(newline="") as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == [row["loss"] for row in rows]
    assert run.data["images"] == {"train": 36, "val": 36}
    assert run.environment["seed"] == 0
    assert len(run.split()) == 72
    json.loads((run.path / "best.json").read_text())


def test_best_is_the_best_epoch_and_is_scored_again_to_the_same_value(image_folder: Path, tmp_path: Path) -> None:
    from gossamer.training.evaluate import classification
    from gossamer.training.restore import load_run, run_data, torch_forward

    run = gossamer.train(small(image_folder, tmp_path / "run", epochs=4, lr=0.3))
    best = max(row["val_accuracy"] for row in run.metrics())
    network = load_run(run.path, "best")
    again = classification(torch_forward(network.model), run_data(run).val, network.preprocess)
    assert again.metrics["accuracy"] == best


@pytest.mark.parametrize(
    ("stop", "every", "scale"),
    [
        (5, 1, 0.5),
        (7, 2, 1.0),
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in ((1, 1, 1.0), (4, 1, 1.0), (11, 1, 1.0), (4, 2, 0.5))
        ),
    ],
)
def test_an_interrupted_run_resumes_to_the_same_bits(
    image_folder: Path, tmp_path: Path, stop: int, every: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before step `stop` without any farewell, with a state saved every other step: 4 steps per epoch.

    One of the states is rewritten as one of format 1.
    """
    from gossamer.training import loop as trainer

    options = {"epochs": 3, "deterministic": True, "drop_rate": 0.3, "mixup": 0.3, "ema": 0.9, "save_steps": 2}
    options |= {"eval_every": every, "progressive": scale}
    uninterrupted = gossamer.train(small(image_folder, tmp_path / "uninterrupted", **options))

    class Killed(Exception):
        pass

    real, count = trainer._step, 0

    def step(*arguments: object) -> None:
        nonlocal count
        if count == stop:
            raise Killed
        count += 1
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "_step", step)
    with pytest.raises(Killed):
        gossamer.train(small(image_folder, tmp_path / "cut", **options))
    monkeypatch.undo()
    if scale < 1 and every == 1:
        stopped = Run.open(tmp_path / "cut")
        tensors, facts = stopped.load_state("last")
        facts["counters"]["share"] = facts["counters"].pop("input_scale")
        stopped.save_state("last", tensors, {**facts, "format": 1})
    cut = gossamer.resume(tmp_path / "cut")
    for which in ("last", "best"):
        assert same(weights(uninterrupted.path, which), weights(cut.path, which))
    timed = ("images_per_second", "data_seconds", "step_seconds", "seconds")
    rows = [[{k: v for k, v in row.items() if k not in timed} for row in run.metrics()] for run in (uninterrupted, cut)]
    assert rows[0] == rows[1]


@pytest.mark.full
def test_a_run_killed_at_random_moments_loses_nothing(image_folder: Path, tmp_path: Path) -> None:
    """kill -9 from outside; `python -m tests.kill --kills 50` does the same at length."""
    from tests.kill import kill_and_resume

    report = kill_and_resume(image_folder, tmp_path, kills=6, seed=3)
    assert report.kills >= 6
    assert report.before_the_first_state < report.kills
    assert report.identical


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_says_how_to_resume(image_folder: Path, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command("train", image_folder, *RECIPE, "--epochs", "500", "--out", out),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests may run under nohup
    )
    try:
        deadline = time.monotonic() + 120
        while not (out / "last.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == code
    assert f"--resume {out}" in error
    assert "Traceback" not in error


@pytest.mark.full
def test_two_runs_of_one_settings_file_are_the_same(image_folder: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    run_gossamer("train", image_folder, *RECIPE, "--epochs", "2", "--out", first)
    run_gossamer("train", "--config", first / "settings.yaml", cwd=tmp_path)
    again = tmp_path / "first-1"
    assert same(weights(first), weights(again))


@pytest.mark.full
def test_accumulation_gives_the_gradient_of_the_full_batch(image_folder: Path, tmp_path: Path) -> None:
    """Without batch statistics the parts add up: squeezenet has no batch norm."""
    options = {"net": "squeezenet1_1", "width": None, "input": "64", "epochs": 1, "lr": 0.01}
    losses = []
    for parts in (1, 2, 4):
        run = gossamer.train(small(image_folder, tmp_path / f"run{parts}", accumulate=parts, **options))
        losses.append(run.metrics()[0]["loss"])
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-4)


def test_a_minute_budget_ends_the_run(image_folder: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    run = gossamer.train(small(image_folder, tmp_path / "run", epochs=None, minutes=0.05))
    assert time.monotonic() - started < 30
    assert "minutes are used up" in json.loads((run.path / "last.json").read_text())["counters"]["finished"]
    assert run.metrics()[-1]["lr"] < run.metrics()[0]["lr"]


def test_evaluations_come_every_so_many_epochs_and_at_the_end(image_folder: Path, tmp_path: Path) -> None:
    options = {"epochs": 5, "deterministic": True}
    often = gossamer.train(small(image_folder, tmp_path / "often", **options)).metrics()
    seldom = gossamer.train(small(image_folder, tmp_path / "seldom", eval_every=2, **options)).metrics()
    assert [row["epoch"] for row in seldom] == [2, 4, 5]
    assert [row["val_loss"] for row in seldom] == [often[i]["val_loss"] for i in (1, 3, 4)]
    assert seldom[0]["loss"] == pytest.approx((often[0]["loss"] + often[1]["loss"]) / 2)


def test_a_progressive_run_begins_small_and_ends_at_full_size(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gossamer.training.state import Session

    real, sizes = Session.images, list[tuple[int, ...]]()

    def images(session: Session, pixels: np.ndarray) -> torch.Tensor:
        sizes.append(pixels.shape[1:3])
        return real(session, pixels)

    monkeypatch.setattr(Session, "images", images)
    messages = Messages()
    options = {"input": "64x48", "epochs": 6, "progressive": 0.5, "cutmix": 1.0, "small_input": True}
    run = gossamer.train(small(image_folder, tmp_path / "run", **options), progress=messages)
    # 0.5 at the beginning, 1 after 4 of 6 epochs; multiples of 8, and a half goes to the even multiple
    expected = [(32, 24), (40, 32), (48, 32), (56, 40), (64, 48), (64, 48)]
    assert list(dict.fromkeys(sizes)) == expected[:-1]
    assert [
        next(size for size in expected if f"at {size[0]}x{size[1]} " in line) for line in messages.lines[-7:-1]
    ] == expected
    assert load_run(run.path).preprocess.size == (64, 48)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"cache": "1G"}, "progressive with a cache"),
        ({"net": "alexnet", "width": None, "input": "96"}, "progressive 0.3: alexnet does not take 32x32.*raise"),
        ({"task": "detect"}, "progressive 0.3 for the task detect"),
        ({"progressive": 0.05}, "progressive: 0.05"),
    ],
)
def test_a_progressive_run_that_makes_no_sense_is_refused(
    image_folder: Path, tmp_path: Path, options: dict[str, object], line: str
) -> None:
    data = write_boxes(tmp_path / "boxes") if "task" in options else image_folder
    with pytest.raises(SettingsError, match=line):
        gossamer.train(small(data, tmp_path / "run", **{"progressive": 0.3, **options}))
    assert not (tmp_path / "run").exists()


def test_early_stopping_stops(image_folder: Path, tmp_path: Path) -> None:
    run = gossamer.train(small(image_folder, tmp_path / "run", epochs=30, lr=0.0, early_stop=2))
    assert len(run.metrics()) == 3
    run = gossamer.train(small(image_folder, tmp_path / "seldom", epochs=30, lr=0.0, early_stop=3, eval_every=2))
    best = max(run.metrics(), key=lambda row: row["val_accuracy"])
    assert run.metrics()[-1]["epoch"] - best["epoch"] == 4  # 2 would be too few


def test_a_loss_that_is_not_finite_is_one_line_and_keeps_the_state(image_folder: Path, tmp_path: Path) -> None:
    """A network without normalisation, at an absurd learning rate."""
    with pytest.raises(RunError, match=r"the loss is (nan|inf).*lower --lr"):
        gossamer.train(
            small(image_folder, tmp_path / "run", net="squeezenet1_1", width=None, lr=90.0, warmup=0.0, epochs=4)
        )


def test_freezing_the_backbone_trains_the_head_alone(image_folder: Path, tmp_path: Path) -> None:
    run = gossamer.train(small(image_folder, tmp_path / "run", net="mobilenet_v2", freeze="backbone", epochs=1))
    torch.manual_seed(0)
    fresh = gossamer.create_model("mobilenet_v2", width=0.25, num_classes=3, small_input=True).state_dict()
    state = weights(run.path)
    assert {name for name in state if name.startswith("model.")} == {f"model.{name}" for name in fresh}
    for name, value in state.items():
        if name.startswith("model."):
            own = fresh[name.removeprefix("model.")]
            assert torch.equal(own, torch.from_numpy(value)) != name.startswith("model.head."), name


def test_starting_from_the_weights_of_another_run(image_folder: Path, tmp_path: Path) -> None:
    first = gossamer.train(small(image_folder, tmp_path / "first", epochs=1))
    messages = Messages()
    second = gossamer.train(
        small(image_folder, tmp_path / "second", epochs=1, lr=0.0, weights=str(first.path / "best.safetensors")),
        progress=messages,
    )
    assert any("weights" in line for line in messages.lines)
    a, b = weights(first.path), weights(second.path)
    assert (a["model.stem.conv.weight"] == b["model.stem.conv.weight"]).all()


def test_a_segmenter_starts_from_another_with_its_head_or_from_a_classifier(image_folder: Path, tmp_path: Path) -> None:
    options = {"task": "segment", "head": "deeplabv3", "batch": 4, "threads": 1, "workers": 0, "epochs": 1, "ema": 0.0}
    options |= {
        "net": "mobilenet_v2",
        "width": 0.25,
        "input": "48",
        "precision": "float32",
        "memory_format": "channels_last",
    }
    data = str(write_masks(tmp_path / "masks", each=4))

    def start(name: str, **more: object) -> dict[str, np.ndarray]:
        run = gossamer.train(Settings(data=data, out=str(tmp_path / name), **{**options, **more}))  # type: ignore[arg-type]
        return {key: value for key, value in weights(run.path, "last").items() if key.startswith("model.")}

    first = start("first")
    again = start("again", lr=0.0, output_stride=8, weights=str(tmp_path / "first" / "last.safetensors"))
    moved = {key for key in first if not np.array_equal(first[key], again[key])}
    assert moved
    assert all(key.endswith(("running_mean", "running_var", "num_batches_tracked")) for key in moved)
    options_of_classifier = {"net": "mobilenet_v2", "epochs": 1, "small_input": False}
    classifier = gossamer.train(small(image_folder, tmp_path / "classifier", **options_of_classifier))
    backbone = weights(classifier.path, "last")
    from_classifier = start("from_classifier", lr=0.0, weights=str(classifier.path / "last.safetensors"))
    learnt = [key for key in from_classifier if key.startswith("model.backbone.") and key.endswith(".weight")]
    assert learnt
    assert all(
        np.array_equal(from_classifier[key], backbone["model." + key.removeprefix("model.backbone.")]) for key in learnt
    )


def test_the_folder_of_another_run_is_not_touched(image_folder: Path, tmp_path: Path) -> None:
    run = gossamer.train(small(image_folder, tmp_path / "run", epochs=1))
    before = {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()}
    with pytest.raises(RunError, match="holds a run already"):
        gossamer.train(small(image_folder, tmp_path / "run", epochs=1))
    assert {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()} == before


def test_two_processes_cannot_train_in_one_folder(image_folder: Path, tmp_path: Path) -> None:
    run = gossamer.train(small(image_folder, tmp_path / "run", epochs=1))
    run.lock()
    try:
        with pytest.raises(RunError, match="another process"):
            gossamer.resume(run.path)
    finally:
        run.unlock()


def test_resuming_a_complete_run_changes_nothing(image_folder: Path, tmp_path: Path) -> None:
    run = gossamer.train(small(image_folder, tmp_path / "run", epochs=1))
    before = (run.path / "last.safetensors").read_bytes()
    assert "complete" in run_gossamer("train", "--resume", run.path).stderr
    assert (run.path / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"net": "mobilnet_v2"}, UnknownNameError),
        ({"device": "cuda:99"}, SettingsError),
        ({"freeze": "("}, SettingsError),
    ],
)
def test_nothing_is_written_where_nothing_can_start(
    image_folder: Path, tmp_path: Path, options: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        gossamer.train(small(image_folder, tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_a_damaged_state_is_one_line(image_folder: Path, tmp_path: Path) -> None:
    run = gossamer.train(small(image_folder, tmp_path / "run", epochs=1))
    content = (run.path / "last.safetensors").read_bytes()
    rng = random.Random(5)
    for cut in [0, 4, 100, *(rng.randrange(len(content)) for _ in range(5))]:
        (run.path / "last.safetensors").write_bytes(content[:cut])
        with pytest.raises(RunError, match="is damaged"):
            gossamer.resume(run.path)


def test_unreadable_images_are_listed_and_too_many_stop_the_run(
    make_image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_image_folder()
    (data / "train" / "class1" / "003.png").write_bytes(b"")
    (data / "val" / "class2" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n half")
    run = gossamer.train(small(data, tmp_path / "run", epochs=1, max_unreadable=0.1))
    assert {Path(name).name for name, _ in run.unreadable()} == {"003.png", "001.png"}
    for path in list((data / "train" / "class0").iterdir())[:9]:
        path.write_bytes(b"no image")
    with pytest.raises(gossamer.GossamerError, match="unreadable"):
        gossamer.train(small(data, tmp_path / "run2", epochs=1, max_unreadable=0.1))


def test_auto_precision_times_the_candidates_and_keeps_its_choice(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no choice of an earlier run
    messages = Messages()
    run = gossamer.train(
        small(image_folder, tmp_path / "run", epochs=1, precision="auto", memory_format="auto"), progress=messages
    )
    line = next(line for line in messages.lines if line.startswith("precision "))
    assert "float32 channels_last" in line
    assert re.search(r"(float32|bf16) channels_first", line)  # in the faster precision
    # where bf16 is emulated, a step of it can take minutes: not even tried
    assert ("bf16 channels_last" in line) == precision.pays_bf16(torch.device("cpu"))
    assert run.settings.precision in ("float32", "bf16")
    assert gossamer.Run.open(run.path).settings == run.settings


@pytest.mark.parametrize("able", quick_ones([True, False], [True]))
def test_bf16_that_is_emulated_is_left_out_and_warned_of(
    able: bool, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "computes_bf16", lambda device: able)
    messages = Messages()
    gossamer.train(small(image_folder, tmp_path / "run", epochs=1, precision="bf16"), progress=messages)
    assert any("bf16 is emulated" in line for line in messages.lines) != able


def test_weights_with_another_norm_eps_ask_for_it(image_folder: Path, tmp_path: Path) -> None:
    torch.save(counterpart("timm", "mobilenetv3_small_050").state_dict(), tmp_path / "theirs.pth")
    options = {"net": "mobilenetv3_small_050", "width": None, "epochs": 1, "weights": str(tmp_path / "theirs.pth")}
    with pytest.raises(SettingsError, match="give --norm-eps 1e-05"):
        gossamer.train(small(image_folder, tmp_path / "run", **options))
    run = gossamer.train(small(image_folder, tmp_path / "run", norm_eps=1e-5, **options))
    assert gossamer.Run.open(run.path).settings.norm_eps == 1e-5


@pytest.mark.full
def test_auxiliary_classifiers_train_with_the_network_and_are_idle_when_it_is_scored(
    image_folder: Path, tmp_path: Path
) -> None:
    settings = Settings(
        data=str(image_folder),
        out=str(tmp_path / "run"),
        net="googlenet",
        net_options="aux=true",
        width=0.125,
        input="32",
        epochs=1,
        batch=8,
        workers=0,
        precision="float32",
        memory_format="channels_last",
    )
    run = train(settings)
    before = create_model("googlenet", num_classes=len(run.classes), width=0.125, aux=True).state_dict()
    saved = weights(run.path)
    assert {f"model.{name}" for name in before if name.startswith("aux.")} <= set(saved)
    model = load_run(run.path).model
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, len(run.classes))
    task = Classify(run.classes, settings)
    targets, logits = torch.tensor([0, 1]), torch.randn(2, len(run.classes))
    images = torch.zeros(2, 3, 32, 32)
    combined = task.loss(Outputs(logits, [logits, 2 * logits]), targets, images)
    expected = task.loss(logits, targets, images) * 1.3 + 0.3 * task.loss(2 * logits, targets, images)
    torch.testing.assert_close(combined, expected)


# a run that is left at a fraction of it, to be resumed


@pytest.mark.parametrize(
    "until", [pytest.param(0.5, marks=pytest.mark.full), 0.4]
)  # at the end of an epoch; within one
def test_a_run_that_is_left_on_the_way_comes_to_the_same_weights(
    image_folder: Path, tmp_path: Path, until: float
) -> None:
    whole = train(small(image_folder, tmp_path / "whole", eval_every=4))
    run = train(small(image_folder, tmp_path / "parts", eval_every=4), until=until)
    (row,) = run.metrics()
    assert until <= row["epoch"] / 2 < until + 0.25 and "val_accuracy" in row and run.has("best")
    assert not run.counters()["finished"]
    state = weights(run.path)
    resume(run.path, until=until)
    assert same(weights(run.path), state) and len(run.metrics()) == 1, "it is there already"
    resume(run.path)
    assert same(weights(run.path), weights(whole.path)) and run.counters()["finished"]
    assert run.metrics()[-1]["val_accuracy"] == whole.metrics()[-1]["val_accuracy"]


@pytest.mark.parametrize("until", [0, -0.5, 1.5, math.nan, True, "1"])
def test_a_fraction_that_is_none_is_refused_before_anything_is_written(tmp_path: Path, until: Any) -> None:
    with pytest.raises(SettingsError, match="above 0 and at most 1"):
        train(Settings(data=str(tmp_path), out=str(tmp_path / "run")), until=until)
    with pytest.raises(SettingsError, match="above 0 and at most 1"):
        resume(tmp_path / "run", until=until)
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_a_fraction_of_the_minutes_is_one_too(image_folder: Path, tmp_path: Path) -> None:
    run = train(small(image_folder, tmp_path / "run", epochs=None, minutes=0.05), until=0.3)
    used = run.clock()["seconds"]
    # what the evaluation at the end takes is estimated
    assert not run.counters()["finished"] and 0.2 * 3 <= used < 3 and len(run.metrics()) >= 1
    resume(run.path)
    assert "minutes are used up" in run.counters()["finished"] and run.clock()["seconds"] > used

"""What the state of a run holds, and what it does not: times, unfinished files; and runs of unusual lengths."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gossamer
from gossamer.errors import Interrupted, RunError, SettingsError
from gossamer.images.preprocess import Preprocess
from gossamer.settings.rates import resolve_optimizer
from gossamer.training import loop, optim, plan, setup
from gossamer.training.state import Counters
from tests.test_progress_of_a_run import change
from tests.test_trainer import Messages, small

EXACT: dict[str, Any] = {"width": 0.1, "epochs": 1, "deterministic": True}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    return gossamer.train(small(image_folder, tmp_path_factory.mktemp("run") / "run", **EXACT)).path


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run whose state says that it has not ended."""
    shutil.copytree(finished, tmp_path / "run")
    change(tmp_path / "run", ("counters", "finished"), "")
    return tmp_path / "run"


def test_equal_runs_have_equal_states(finished: Path, image_folder: Path, tmp_path: Path) -> None:
    again = gossamer.train(small(image_folder, tmp_path / "again", **EXACT)).path
    for name in ("last.safetensors", "best.safetensors", "last.json", "best.json"):
        assert (again / name).read_bytes() == (finished / name).read_bytes(), name
    assert json.loads((again / "clock.json").read_text())["seconds"] > 0


def test_the_clock_goes_on_where_it_was(unfinished: Path) -> None:
    (unfinished / "clock.json").write_text('{"seconds": 5000.0, "data_seconds": 0.0, "step_seconds": 0.0}')
    change(unfinished, ("counters", "step_in_epoch"), 0)
    change(unfinished, ("counters", "epoch"), 0)
    assert gossamer.resume(unfinished).metrics()[-1]["seconds"] > 5000


@pytest.mark.parametrize(
    "content",
    [None, "", "[]", "{", '{"seconds": "long"}', '{"seconds": -1}', '{"seconds": NaN}', "[" * 50_000, b"\xff"],
)
def test_a_clock_that_is_missing_or_damaged_is_reported(unfinished: Path, content: Any) -> None:
    clock, messages = unfinished / "clock.json", Messages()
    clock.unlink()
    if content is not None:
        clock.write_bytes(content if isinstance(content, bytes) else content.encode())
    gossamer.resume(unfinished, progress=messages)
    assert any("clock.json" in line for line in messages.lines)


def test_a_state_of_format_2_has_its_times_in_the_counters(unfinished: Path) -> None:
    (unfinished / "clock.json").unlink()
    change(unfinished, ("format",), 2)
    for name, value in {
        "seconds": 70.0,
        "data_seconds": 1.0,
        "step_seconds": 2.0,
        "step_in_epoch": 0,
        "epoch": 0,
    }.items():
        change(unfinished, ("counters", name), value)
    messages = Messages()
    assert gossamer.resume(unfinished, progress=messages).metrics()[-1]["seconds"] > 70
    assert not any("clock" in line for line in messages.lines)


@pytest.mark.parametrize("number", [0, 4, "3", None, True, 1.5])
def test_a_state_of_an_unknown_format_is_refused(unfinished: Path, number: Any) -> None:
    change(unfinished, ("format",), number)
    with pytest.raises(RunError, match="does not fit this run"):
        gossamer.resume(unfinished)


def test_a_folder_whose_first_start_was_killed_is_cleaned_by_the_next(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".data.json.abcdefgh.part").write_bytes(b"half")
    gossamer.train(small(image_folder, tmp_path / "run", **EXACT))
    assert not list((tmp_path / "run").glob(".*.part"))


# runs of unusual lengths


@pytest.mark.parametrize("minutes", [0.001, 0.01])
def test_a_budget_that_the_preparation_uses_up_is_worth_one_step(
    image_folder: Path, tmp_path: Path, minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = loop.build

    def slow(*arguments: Any) -> Any:
        import time

        time.sleep(0.7)
        return build(*arguments)

    monkeypatch.setattr(loop, "build", slow)
    run = gossamer.train(small(image_folder, tmp_path / "run", width=0.1, epochs=None, minutes=minutes))
    (row,) = run.metrics()
    assert row["step"] == 1 and row["seconds"] >= 0.7
    assert "minutes are used up" in run.load_state("last")[1]["counters"]["finished"]


def test_the_minutes_are_told_in_steps_and_kept(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gossamer.training.plan.SAMPLE", 1)  # on a busy machine no more may fit
    messages = Messages()
    run = gossamer.train(small(image_folder, tmp_path / "run", width=0.1, epochs=None, minutes=0.05), progress=messages)
    assert any(line.startswith("plan: 0.05 minutes") for line in messages.lines)
    assert any("step" in line and "fit into 0.05 minutes" in line for line in messages.lines)
    rows = run.metrics()
    assert rows[-1]["seconds"] >= 0.05 * 60 * 0.5
    assert rows[-1]["lr"] < max(row["lr"] for row in rows) or len(rows) == 1


@pytest.mark.parametrize("options", [{"epochs": 0.5}, {"batch": 64}, {"batch": 64, "epochs": 0.1}, {"accumulate": 4}])
def test_short_runs_and_large_batches_take_a_step_and_end(
    image_folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """36 training images."""
    run = gossamer.train(small(image_folder, tmp_path / "run", width=0.1, **{"epochs": 1, **options}))
    (row,) = run.metrics()
    assert row["step"] >= 1 and row["lr"] > 1e-6


@pytest.mark.parametrize("images", [1, 2, 3])
def test_so_few_images_train_or_are_refused_in_one_line(tmp_path: Path, images: int) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for index in range(images):
                pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{index}.png")
    run = gossamer.train(small(tmp_path / "data", tmp_path / "run", width=0.1, epochs=2, net="mobilenet_v2"))
    assert run.metrics()[-1]["step"] == 2


def test_the_first_step_of_a_warm_up_learns() -> None:
    settings = resolve_optimizer(gossamer.Settings(lr=0.1, warmup=2.0, schedule="constant"))
    schedule = optim.Schedule(settings, 40.0)
    rates = [schedule.rate(step / 5, step / 200, 1 / 5) for step in range(12)]
    assert rates == pytest.approx([0.01 * min(step + 1, 10) for step in range(12)])


def test_a_warm_up_of_an_epoch_takes_a_tenth_of_the_minutes_at_most() -> None:
    settings = resolve_optimizer(gossamer.Settings(lr=0.1, schedule="constant", minutes=5.0))
    schedule = optim.Schedule(settings, None)
    assert schedule.rate(0.01, 0.05, 0.001) == pytest.approx(0.05)
    assert schedule.rate(0.02, 0.1, 0.001) == pytest.approx(0.1)
    assert schedule.rate(0.5, 0.01, 0.0) == pytest.approx(0.05)


def test_evaluations_take_a_fifth_of_the_minutes_at_most(
    make_image_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def due(trained: float, evaluation: float, every: int | None, epoch: int = 0) -> bool:
        session: Any = SimpleNamespace(
            settings=gossamer.Settings(eval_every=every),
            counters=Counters(epoch=epoch, data_seconds=trained / 4, step_seconds=trained * 3 / 4),
            evaluation_seconds=evaluation,
        )
        return plan.evaluation_is_due(session)

    assert due(40.0, 10.0, None) and not due(39.0, 10.0, None)
    assert due(0.0, 10.0, 1) and not due(900.0, 1.0, 2, epoch=0) and due(0.0, 1.0, 2, epoch=1)


def test_before_the_first_evaluation_its_time_is_estimated_from_the_steps() -> None:
    session: Any = SimpleNamespace(
        counters=Counters(images=100, step_seconds=10.0),
        evaluation_seconds=0.0,
        data=SimpleNamespace(val=range(500)),
        processes=SimpleNamespace(world=1),
    )
    assert plan.evaluation_seconds(session) == pytest.approx(0.1 * plan.EVALUATION_COST * 500)
    session.evaluation_seconds = 3.0
    assert plan.evaluation_seconds(session) == 3.0


def test_a_new_run_stands_at_its_beginning() -> None:
    beginning = dataclasses.asdict(Counters())
    assert beginning.pop("input_scale") == 1.0 and beginning.pop("best") is None and beginning.pop("finished") == ""
    assert set(beginning.values()) == {0}


def test_signals_are_kept_until_the_step_is_done_but_for_those_that_are_ignored() -> None:
    """Under nohup a hang-up stays ignored; a second signal stops at once."""
    session: Any = SimpleNamespace(interrupted=0)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with loop._signals(session):
            handlers = [signal.getsignal(number) for number in numbers]
            assert handlers[0] is handlers[1] is not before[signal.SIGTERM] and handlers[2] is signal.SIG_IGN
            stop: Any = handlers[1]
            stop(signal.SIGTERM, None)
            assert session.interrupted == signal.SIGTERM
            with pytest.raises(Interrupted):
                stop(signal.SIGINT, None)
        assert [signal.getsignal(number) for number in numbers[:2]] == [before[number] for number in numbers[:2]]
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with loop._signals(session):
            assert signal.getsignal(signal.SIGHUP) is signal.getsignal(signal.SIGINT)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("options", "changed", "line"),
    [
        (
            {"epochs": 4.0},
            {},
            "epoch 2/4: loss 0.5000, val loss 0.2500, val top-1 accuracy 0.7500, lr 0.05, 321 images/s "
            "(waiting for data 1.0 s, steps 9.0 s, evaluation 1.5 s)",
        ),
        (
            {"minutes": 3.0, "progressive": 0.5},
            {"val_loss": float("nan"), "epoch": 1.5},
            "epoch 1.5, 2.0/3 min: loss 0.5000, val top-1 accuracy 0.7500, lr 0.05, 321 images/s at 64x96 "
            "(waiting for data 1.0 s, steps 9.0 s, evaluation 1.5 s)",
        ),
    ],
)
def test_the_line_of_an_evaluation_says_what_was_measured(
    options: dict[str, Any], changed: dict[str, Any], line: str
) -> None:
    session: Any = SimpleNamespace(
        settings=gossamer.Settings(**{"epochs": None, **options}),
        task=SimpleNamespace(score="accuracy"),
        preprocess=Preprocess((64, 96)),
        counters=Counters(),
        teacher=None,
        evaluation_seconds=1.5,
    )
    row = {"epoch": 2.0, "seconds": 120.0, "loss": 0.5, "val_loss": 0.25, "val_accuracy": 0.75, "lr": 0.05}
    row |= {"images_per_second": 321.4, "data_seconds": 1.0, "step_seconds": 9.0, **changed}
    assert loop._line(row, session) == line


@pytest.mark.parametrize(
    ("progressive", "kernel", "refused"), [(1.0, 41, False), (0.5, 16, False), (0.5, 17, True), (0.75, 25, True)]
)
def test_a_network_must_take_the_smallest_input_of_a_progressive_run(
    progressive: float, kernel: int, refused: bool
) -> None:
    settings = gossamer.Settings(net="some_net", input="32x40", progressive=progressive)
    model = torch.nn.Conv2d(3, 1, kernel)
    if not refused:
        setup._check_smallest(model, settings)
        return
    smallest = "24x32" if progressive == 0.75 else "16x16"
    with pytest.raises(SettingsError, match=f"progressive {progressive}: some_net does not take {smallest};"):
        setup._check_smallest(model, settings)

"""Edges of a training: scores that nothing defines, weights that are no numbers, what timing leaves behind, other processes."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gossamer
from gossamer.cli.train import trained
from gossamer.errors import RunError
from gossamer.images.preprocess import Preprocess
from gossamer.run import Run
from gossamer.settings import Settings
from gossamer.tasks.registry import task_of
from gossamer.tasks.segmentation.augment import SegmentTransform
from gossamer.training import distributed, optim, plan, precision, rerun
from gossamer.training.distributed import Processes
from gossamer.training.loop import train
from gossamer.training.setup import resolve_settings
from tests.runs import same, weights
from tests.shop import write_shop
from tests.test_progress_of_a_run import change
from tests.test_trainer import Messages, small

QUICK: dict[str, Any] = {"net": "lenet5", "width": None, "epochs": 1}


# what a person has set


def test_timing_keeps_which_settings_were_given(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "LIMIT", 0.1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = gossamer.train(
        small(image_folder, tmp_path / "run", **QUICK, lr=0.01, precision="auto", memory_format="auto")
    )
    assert run.settings.precision == "float32"  # decided, or bf16 where the processor has it
    given = Run.open(run.path).user_settings() or ()
    assert {"data", "net", "lr"} <= set(given) and "precision" not in given


def test_a_run_repeated_with_another_network_is_timed_anew(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was timed for a small network, one thread among it, says nothing of a large one; what was set is kept."""
    monkeypatch.setattr(precision, "LIMIT", 0.1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {**QUICK, "precision": "auto", "threads": 0}
    first = gossamer.train(small(image_folder, tmp_path / "run", **options)).settings
    assert first.threads > 0 and first.precision != "auto" and first.memory_format == "channels_last"
    seen: list[Settings] = []
    monkeypatch.setattr(rerun, "train", lambda settings, **_: seen.append(settings))
    rerun.retrain(tmp_path / "run", "mobilenet_v1", tmp_path / "other")
    assert (seen[0].threads, seen[0].precision, seen[0].memory_format) == (0, "auto", "channels_last")


# scores that nothing defines


@pytest.fixture(scope="module")
def undefined(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An embedder whose validation images have no two of one identity."""
    from tests.conftest import write_image_folder

    root = write_image_folder(tmp_path_factory.mktemp("undefined") / "images", each=8)
    for path in (root / "val").rglob("*.png"):
        if path.stem != "000":
            path.unlink()
    options = {**QUICK, "epochs": 2, "task": "embed", "per_identity": 4, "dim": 8, "save_steps": 1, "patience": 0}
    options |= {"schedule": "plateau", "early_stop": 5}
    return gossamer.train(small(root, root.parent / "run", **options))


def test_where_nothing_defines_the_score_the_last_weights_are_kept(undefined: Run) -> None:
    assert [math.isnan(row["val_recall1"]) for row in undefined.metrics()] == [True, True]
    assert undefined.counters()["best"] is None and undefined.counters()["bad_epochs"] == 2
    last = {name: value for name, value in weights(undefined.path).items() if name.startswith("model.")}
    assert same(last, weights(undefined.path, "best"))
    assert "no Recall@1 is defined" in undefined.log_lines()[-1] and "epoch 2" in undefined.log_lines()[-1]
    state = undefined.load_state("last")[1]["schedule"]
    assert state["best"] is None


@pytest.mark.parametrize("best", [None, math.nan])
def test_such_a_run_is_resumed(undefined: Run, tmp_path: Path, best: Any) -> None:
    """NaN is what earlier versions wrote there."""
    shutil.copytree(undefined.path, tmp_path / "run")
    change(tmp_path / "run", ("counters", "finished"), "")
    change(tmp_path / "run", ("counters", "best"), best)
    run = Run.open(tmp_path / "run")
    run.save_settings(run.settings.replace(epochs=3.0))
    rows = gossamer.resume(tmp_path / "run").metrics()
    assert len(rows) == 3 and math.isnan(rows[-1]["val_recall1"])


def test_a_defined_score_is_better_than_none() -> None:
    schedule = optim.Schedule(Settings(schedule="plateau", patience=0, lr=0.1), 10.0)
    schedule.epochs_done(math.nan)
    schedule.epochs_done(0.5)
    assert schedule.state["best"] == 0.5 and schedule.state["bad"] == 0


# weights that are no numbers


@pytest.mark.parametrize(("steps", "is_saved"), [(4, False), (8, True)])
def test_weights_that_are_not_finite_are_neither_scored_nor_saved(
    image_folder: Path, tmp_path: Path, steps: int, is_saved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the last step of an epoch is finite, its gradient leads out of the numbers: 4 steps an epoch."""
    real, taken = optim.set_rate, 0

    def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
        nonlocal taken
        taken += 1
        real(optimizer, math.inf if taken == steps else rate)

    monkeypatch.setattr(optim, "set_rate", set_rate)
    with pytest.raises(RunError, match=f"not finite after step {steps}") as caught:
        gossamer.train(small(image_folder, tmp_path / "run", **{**QUICK, "epochs": 3}))
    run = Run.open(tmp_path / "run")
    assert run.has("last") is run.has("best") is is_saved
    assert ("last saved state" in str(caught.value)) is is_saved
    assert len(run.metrics()) == steps // 4 - 1
    if is_saved:
        assert all(torch.isfinite(value).all() for value in run.load_state("last")[0].values())
        assert gossamer.resume(run.path).counters()["finished"]


# what a program is told


def test_the_epochs_of_the_result_are_those_that_were_trained(image_folder: Path, tmp_path: Path) -> None:
    """Not the evaluations, of which there are two in four epochs, and one in half an epoch."""
    for number, (epochs, every) in enumerate([(4, 2), (0.5, 1)]):
        run = gossamer.train(
            small(image_folder, tmp_path / f"{number}", **{**QUICK, "epochs": epochs}, eval_every=every)
        )
        assert trained(run).values["epochs"] == epochs and trained(run).values["last"]["epoch"] == epochs


# timing


@pytest.mark.parametrize("weighting", ["gradnorm", "uncertainty"])
def test_timing_leaves_the_model_and_its_loss_as_they_are(tmp_path: Path, weighting: str) -> None:
    shop = write_shop(tmp_path / "shop")
    heads = "colour: classify\ntags: multilabel"
    settings = Settings(
        data=str(shop),
        task="multi",
        heads=heads,
        net="mobilenet_v2",
        width=0.1,
        input="32",
        batch=8,
        head_weights=weighting,
    )  # type: ignore[arg-type]
    data = task_of("multi").open_data(settings)
    settings, _ = resolve_settings(settings, data, Processes())
    task = task_of("multi")(data.classes, settings)
    model = task.build()
    order = task.order(data.train, 0)[:8]
    targets = [data.train.target(int(index)) for index in order]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.rand(8, 3, 32, 32)
    precision.choose_precision(
        settings.replace(precision="float32"),
        model,
        images,
        targets,
        task.loss,
        lambda trial: optim.build_optimizer(trial, settings),
        limit=2.0,
    )
    after = model.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value.nan_to_num(7), after[name].nan_to_num(7)), name


# parts of a batch, and other processes


@pytest.mark.parametrize(("batch", "accumulate", "images"), [(64, 4, 32), (64, 1, 36), (8, 2, 8)])
def test_the_plan_says_how_many_images_a_step_has(
    image_folder: Path, tmp_path: Path, batch: int, accumulate: int, images: int
) -> None:
    """36 images are fewer than 64, and two of the four parts of 16 images."""
    messages = Messages()
    options = {**QUICK, "batch": batch, "accumulate": accumulate}
    run = gossamer.train(small(image_folder, tmp_path / "run", **options), progress=messages)
    row = run.metrics()[-1]
    planned = next(line for line in messages.lines if line.startswith("plan: "))
    assert f"of {images} images per epoch" in planned, planned
    assert row["step"] == 36 // images


def test_the_parts_of_a_batch_move_the_weights_of_heads_as_far_as_the_batch(tmp_path: Path) -> None:
    """One step of gradnorm with 1 and with 4 parts: a step of the weights is a sign times a norm, of each part anew."""
    shop = write_shop(tmp_path / "shop")
    moved = []
    for parts in (1, 4):
        options = {
            "task": "multi",
            "heads": "colour: classify\ntags: multilabel",
            "head_weights": "gradnorm",
            "width": 0.1,
        }
        options |= {"batch": 16, "accumulate": parts, "epochs": 1, "flip": 0, "lr": 1e-9, "ema": 0}
        run = gossamer.train(small(shop, tmp_path / str(parts), **options))
        assert run.metrics()[-1]["step"] == 1
        kept = weights(run.path)["model.head_losses.weighting.weights"]
        assert kept.sum() == pytest.approx(2, rel=1e-5)
        moved.append(float(abs(kept - 1).max()))
    assert 0 < moved[1] < 2 * moved[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": "cosine"}, "schedule cosine from a learning rate of 0.1, ends with the run"),
        ({"schedule": "one_cycle"}, "schedule one_cycle up to a learning rate of 0.1, ends with the run"),
        ({"schedule": "step", "step_epochs": (3.0,)}, "schedule step from a learning rate of 0.1"),
        ({"schedule": "plateau"}, "schedule plateau from a learning rate of 0.1"),
        ({"schedule": "cyclic"}, "schedule cyclic up to a learning rate of 0.1"),
    ],
)
def test_the_plan_says_where_the_schedule_ends(options: dict[str, Any], words: str) -> None:
    lines: list[str] = []
    settings = Settings(lr=0.1, epochs=10.0, **options)

    class Few:
        batch = 8

        def __len__(self) -> int:
            return 5

    session: Any = SimpleNamespace(
        settings=settings, counters=SimpleNamespace(epoch=0, seconds=0.0), batches=lambda epoch: Few(),
        schedule=optim.Schedule(settings, 10.0), say=lines.append,
    )  # fmt: skip
    plan.say_plan(session)
    assert words in lines[0].split("; ")


def test_all_processes_evaluate_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an evaluation is due depends on a clock: the first process's decides."""
    counters = SimpleNamespace(epoch=0, data_seconds=0.0, step_seconds=10.0, images=10)
    session: Any = SimpleNamespace(
        settings=SimpleNamespace(eval_every=None), counters=counters, evaluation_seconds=1.0, processes=Processes(1, 2)
    )
    assert plan.evaluation_is_due(session)
    monkeypatch.setattr(distributed, "broadcast", lambda value: False)
    assert not plan.evaluation_is_due(session)


def test_unreadable_images_that_another_process_has_met_are_listed(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather(value: Any) -> list[Any]:
        scorer, _ = value
        return [value, (type(scorer)(scorer.classes), {"cut.png": "ends early"})]

    monkeypatch.setattr(distributed, "gather", gather)
    run = gossamer.train(small(image_folder, tmp_path / "run", **QUICK))
    assert run.unreadable() == [("cut.png", "ends early")]
    assert json.loads((run.path / "last.json").read_text())["unreadable"] == {"cut.png": "ends early"}


# pauses


@pytest.mark.parametrize(("every", "until"), [(1, 0.15), pytest.param(2, 0.25, marks=pytest.mark.full)])
def test_a_pause_is_no_epoch_for_rate_and_patience(
    image_folder: Path, tmp_path: Path, every: int, until: float
) -> None:
    """4 epochs of 4 steps, whose rate drops behind each epoch without a better score; left within one, or between scores."""
    options = {**QUICK, "epochs": 4, "schedule": "plateau", "patience": 0, "warmup": 0, "lr": 1e-6, "eval_every": every}
    options |= {"early_stop": 50}
    whole = gossamer.train(small(image_folder, tmp_path / "whole", **options))
    run = train(small(image_folder, tmp_path / "parts", **options), until=until)
    assert len(run.metrics()) == 1 and not run.counters()["finished"]
    gossamer.resume(run.path)
    assert len(run.metrics()) == len(whole.metrics()) + 1
    assert same(weights(run.path), weights(whole.path))
    assert run.load_state("last")[1]["schedule"] == whole.load_state("last")[1]["schedule"]
    # the score of the pause may be the best, which those of whole epochs then do not better
    assert whole.counters()["bad_epochs"] <= run.counters()["bad_epochs"] <= 4


# masks


def test_a_segmenter_s_images_are_turned_upside_down_with_their_masks() -> None:
    mask = (np.arange(32)[:, None] < 12) & (np.arange(32)[None, :] < 20)
    file = io.BytesIO()
    Image.fromarray((mask[..., None] * np.array([255, 255, 255])).astype(np.uint8)).save(file, "PNG")
    preprocess = Preprocess(size=(32, 32), resize="squash", interpolation="nearest", mean=(0.0,) * 3, std=(1.0,) * 3)
    corners = set()
    for seed in range(16):
        transform = SegmentTransform(preprocess, scale=(1.0, 1.0), flip=0.5, vertical_flip=0.5)
        pixels, turned = transform.joint(file.getvalue(), mask.astype(np.uint8), np.random.default_rng(seed))
        assert ((pixels[..., 0] > 127) == (turned == 1)).all() and turned.sum() == mask.sum()
        corners.add((bool(turned[0].any()), bool(turned[:, 0].any())))
    assert corners == {(True, True), (True, False), (False, True), (False, False)}
    never = SegmentTransform(preprocess, scale=(1.0, 1.0), flip=0.0, vertical_flip=0.0)
    assert (never.joint(file.getvalue(), mask.astype(np.uint8), np.random.default_rng(0))[1] == mask).all()

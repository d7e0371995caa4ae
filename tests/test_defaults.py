"""Settings that are chosen by the data where the user sets nothing: which, and the message."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import gossamer
from gossamer.data.open import open_data
from gossamer.settings import Settings
from gossamer.settings.rates import resolve_optimizer
from gossamer.training import defaults, optim
from gossamer.training.distributed import Processes
from gossamer.training.setup import resolve_settings
from tests.test_trainer import Messages, small


def chosen(size: int = 32, images: int = 10_000, **options: Any) -> dict[str, Any]:
    return {choice.name: choice.value for choice in defaults.choose(Settings(**options), (size, size), images)}


def test_small_images_get_their_strides_and_padded_crops() -> None:
    for size, small_input, crop in ((32, True, "padded"), (64, True, "padded"), (96, False, "random_resized")):
        values = chosen(size)
        assert (values["small_input"], values["crop"]) == (small_input, crop)


@pytest.mark.parametrize(
    "options", [{"crop": "center"}, {"small_input": False}, {"epochs": 3.0}, {"input": "32"}, {"minutes": 1.0}]
)
def test_what_the_user_says_is_not_chosen(options: dict[str, Any]) -> None:
    assert not set(options) & set(chosen(**options))
    assert "epochs" not in chosen(minutes=1.0)


def test_strides_are_said_only_of_networks_that_have_them() -> None:
    for net, has_reason in (("mobilenet_v2", True), ("lenet5", False)):
        (choice,) = [each for each in defaults.choose(Settings(net=net), (32, 32), 100) if each.name == "small_input"]
        assert choice.value is True and bool(choice.reason) == has_reason


@pytest.mark.parametrize("options", [{"crop_scale": (0.5, 1.0)}, {"crop_ratio": (1.0, 1.0)}, {"task": "multilabel"}])
def test_random_resized_crops_stay_where_they_are_described_or_not_measured(options: dict[str, Any]) -> None:
    assert chosen(**options)["crop"] == "random_resized"


def test_few_images_get_more_epochs() -> None:
    assert chosen(images=50_000)["epochs"] == 20
    assert chosen(images=640, batch=64)["epochs"] == 40  # 10 steps per epoch
    assert chosen(images=5, batch=64)["epochs"] == defaults.MOST_EPOCHS
    assert chosen(images=640, batch=64, weights="default")["epochs"] == 20


def test_a_training_says_and_records_what_was_chosen(image_folder: Path, tmp_path: Path) -> None:
    messages = Messages()
    run = gossamer.train(small(image_folder, tmp_path / "run", width=0.1, epochs=0.3, input="auto"), progress=messages)
    lines = [line for line in messages.lines if line.startswith("chosen: ")]
    assert any("small-input on" in line for line in lines) and any("crop padded" in line for line in lines)
    assert any("input " in line for line in lines)
    assert gossamer.Run.open(run.path).settings.crop == "padded" and run.settings.small_input is True
    assert lines[0] in (run.path / "log.txt").read_text()
    messages.lines.clear()
    gossamer.train(
        small(image_folder, tmp_path / "set", width=0.1, epochs=0.3, small_input=True, crop="padded"), progress=messages
    )
    assert not any(line.startswith("chosen: ") for line in messages.lines)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_wait_passively_unless_the_user_says_how(
    variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gossamer.cli.train import wait_passively

    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    wait_passively()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


@pytest.mark.full
def test_a_default_training_does_not_load_the_compiler_of_torch(image_folder: Path, tmp_path: Path) -> None:
    """It takes seconds, before the first step."""
    program = (
        "import sys, gossamer\n"
        f"gossamer.train(gossamer.Settings(data={str(image_folder)!r}, out={str(tmp_path / 'run')!r}, input='32', "
        "width=0.1, epochs=0.2, clip_norm=1.0, ema=0.9, workers=0))\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("kind", ["sgd", "rmsprop", "adagrad", "adadelta", "adam", "adamw"])
def test_an_optimiser_without_the_compiler_computes_the_same(kind: str) -> None:
    settings = resolve_optimizer(Settings(optimizer=kind, weight_decay=0.01))  # type: ignore[arg-type]
    weights = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        updates = optim.build_optimizer(model, settings.replace(compile=compiled))
        for step in range(3):
            updates.zero_grad()
            model(torch.full((4, 3), 1.0 + step)).square().sum().backward()
            updates.step()
        assert all(parameter.requires_grad and parameter.grad_fn is None for parameter in model.parameters())
        weights.append(model.weight.detach().clone())
    assert torch.equal(*weights)


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/defaults.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    return importlib.import_module("defaults")


def test_the_grid_is_resumed_where_it_was(grid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def one(path: Path, data: str, name: str, seed: int, minutes: float, *rest: Any) -> dict[str, Any]:
        computed.append((data, name, seed, minutes))
        return {
            "data": data,
            "setting": name,
            "seed": seed,
            "minutes": minutes,
            "steps": 9,
            "accuracy": 0.5 + seed / 10,
            "step_of": "net",
            "step_seconds": 0.1,
        }

    monkeypatch.setattr(grid, "one", one)
    options = argparse.Namespace(results=tmp_path / "results.jsonl", minutes=2.0, seeds=1)
    sets = {"digits": tmp_path, "cifar10-small": tmp_path}
    grid.compute(sets, ["base", "crop: padded"], options, tmp_path)
    assert computed == [
        ("digits", "base", 0, 0.5),
        ("cifar10-small", "base", 0, 2.0),
        ("digits", "crop: padded", 0, 0.5),
        ("cifar10-small", "crop: padded", 0, 2.0),
    ]
    options.seeds = 2
    grid.compute(sets, ["base"], options, tmp_path)
    assert computed[4:] == [("digits", "base", 1, 0.5), ("cifar10-small", "base", 1, 2.0)]
    table = grid.table(grid.read(options.results))
    assert "| base | 55.0 (50.0 to 60.0, n=2) | 55.0 (50.0 to 60.0, n=2) | 55.0 |" in table
    assert "| crop: padded | 50.0 | 50.0 | 50.0 |" in table


def test_every_setting_of_the_grid_is_one(grid: Any) -> None:
    for changes in grid.GRID.values():
        Settings(**{**grid.BASE, **changes})
    for _, changes in grid.SETS.values():
        Settings(**{**grid.BASE, **changes})
    assert grid.GRID["base"] == {}


def test_an_input_size_that_is_set_is_kept_and_else_follows_the_images(image_folder: Path, tmp_path: Path) -> None:
    data = open_data(image_folder)

    def size(**options: Any) -> str:
        settings = small(image_folder, tmp_path / "run", **options)
        return resolve_settings(settings, data, Processes())[0].input

    assert (size(input="48x64"), size(input="56"), size(input="auto")) == ("48x64", "56x56", "32x32")

"""How far a run is: one count, whatever the epochs' number, the images that are left, and what a state file holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gossamer
from gossamer.errors import RunError, SettingsError
from gossamer.host.progress import Progress
from gossamer.host.text import counted
from gossamer.settings.file import load_settings
from tests.test_trainer import small


class Interrupt(Progress):
    """Ctrl-C at the n-th step that is tracked."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def track(self, items: Any, total: int, what: str) -> Any:
        for item in items:
            if what.startswith("epoch"):
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt
            yield item


@pytest.mark.parametrize("epochs", [0.3, 1.2, 1.5, 2.9])
def test_epochs_with_a_fraction_end(image_folder: Path, tmp_path: Path, epochs: float) -> None:
    """36 images in batches of 8 are 4 steps per epoch."""
    run = gossamer.train(small(image_folder, tmp_path / "run", epochs=epochs, width=0.1))
    rows = run.metrics()
    assert rows[-1]["step"] == max(1, round(4 * epochs))
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert abs(rows[-1]["epoch"] - epochs) <= 0.125 + 1e-9  # half a step


@pytest.mark.parametrize("gone", [1, 9, 20])
def test_a_run_resumed_with_images_gone_ends(make_image_folder: Callable[..., Path], tmp_path: Path, gone: int) -> None:
    """The epochs shrink from 4 steps to fewer: the run ends all the same, and says what is gone."""
    image_folder = make_image_folder("images")
    settings = small(image_folder, tmp_path / "run", epochs=4, width=0.1, save_steps=1)
    with pytest.raises(KeyboardInterrupt):
        gossamer.train(settings, progress=Interrupt(11))
    for path in sorted((image_folder / "train").rglob("*.png"))[:gone]:
        path.unlink()
    lines: list[str] = []
    progress = Progress()
    progress.say = lines.append  # type: ignore[method-assign]
    run = gossamer.resume(tmp_path / "run", progress=progress)
    steps = [row["step"] for row in run.metrics()]
    assert steps == sorted(set(steps)) and run.metrics()[-1]["epoch"] == 4
    assert any(f"{counted(gone, 'image is', 'images are')} gone" in line for line in lines)


def test_the_rate_of_an_epoch_resumed_after_its_last_step_is_that_step_s(image_folder: Path, tmp_path: Path) -> None:
    options = {"epochs": 2, "width": 0.1, "save_steps": 1, "deterministic": True}
    rates = [row["lr"] for row in gossamer.train(small(image_folder, tmp_path / "a", **options)).metrics()]

    class Stop(Progress):
        """Ctrl-C when the first epoch is about to be evaluated."""

        def track(self, items: Any, total: int, what: str) -> Any:
            yield from items
            if what == "epoch 1: step":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gossamer.train(small(image_folder, tmp_path / "b", **options), progress=Stop())
    state = json.loads((tmp_path / "b" / "last.json").read_text())
    assert state["counters"]["step_in_epoch"] == 4 and state["counters"]["epoch"] == 0
    assert [row["lr"] for row in gossamer.resume(tmp_path / "b").metrics()] == rates


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    return gossamer.train(small(image_folder, tmp_path_factory.mktemp("run") / "run", epochs=1, width=0.1)).path


def change(run: Path, where: tuple[str, ...], value: Any) -> None:
    """Write another value into the header of a run's state."""
    path = run / "last.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    facts = json.loads(header["__metadata__"]["gossamer"])
    inner = facts
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    header["__metadata__"]["gossamer"] = json.dumps(facts)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("counters", "step"), "several"),
        (("counters", "step"), -1),
        (("counters", "epoch"), 1.5),
        (("counters", "epoch"), True),
        (("counters", "epoch"), 10**30),
        (("counters", "seconds"), None),
        (("counters", "seconds"), float("nan")),
        (("counters", "best"), "high"),
        (("counters", "best"), float("inf")),
        (("counters", "finished"), 1),
        (("counters", "unknown"), 1),
        (("counters",), []),
        (("rows",), "two"),
        (("rows",), -1),
        (("schedule",), []),
        (("schedule", "factor"), "x"),
        (("schedule", "bad"), 1.5),
        (("schedule", "best"), "x"),
        (("unreadable",), 3),
        (("optimizer",), 3),
    ],
)
def test_a_state_is_checked_when_it_is_read(finished: Path, tmp_path: Path, where: tuple[str, ...], value: Any) -> None:
    shutil.copytree(finished, tmp_path / "run")
    change(tmp_path / "run", ("counters", "finished"), "")
    change(tmp_path / "run", where, value)
    with pytest.raises(RunError, match="does not fit this run"):
        gossamer.resume(tmp_path / "run")


def test_a_state_far_past_the_end_ends(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    change(tmp_path / "run", ("counters", "finished"), "")
    change(tmp_path / "run", ("counters", "epoch"), 1000)
    assert len(gossamer.resume(tmp_path / "run").metrics()) <= 2


def test_a_state_with_deep_json_is_one_line(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "last.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"]["gossamer"] = "[" * 100_000
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    with pytest.raises(RunError, match="is damaged"):
        gossamer.resume(tmp_path / "run")


LISTS = "mean: [&a0 [" + ", ".join("x" * 10) + "]"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "{a: " * 20_000,
        "data: 2020-13-45\n",
        "data: 2020-02-30 25:61:61\n",
        "mean: [&a0 [x]" + "".join(f", &a{i} [*a{i - 1}]" for i in range(1, 2001)) + "]\n",
        LISTS + "".join(f", &a{i} [" + ", ".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 30)) + "]\n",
        "&a [*a]\n",
        "mean: &a [*a]\n",
        "data: !!python/object:os.system x\n",
        "width: " + "9" * 5000 + "\n",
        "data: !!binary '!'\n",
    ],
)
def test_settings_that_are_no_settings_are_one_short_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(SettingsError) as error:
        load_settings(tmp_path / "settings.yaml")
    assert len(str(error.value)) < 2000 and "\n" not in str(error.value)

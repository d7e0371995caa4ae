"""A run folder that is moved or removed while it trains: the training ends with one line, and writes no folder that nothing opens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gossamer.errors import RunError
from gossamer.host.progress import Progress
from gossamer.run import SETTINGS, Run
from gossamer.settings import Settings
from gossamer.training.loop import resume, train

WRITES: dict[str, Callable[[Run], Any]] = {
    "log": lambda run: run.log("a line"),
    "metrics": lambda run: run.save_metrics([{"epoch": 1.0}]),
    "unreadable": lambda run: run.save_unreadable([("a.jpg", "empty")]),
    "clock": lambda run: run.save_clock({"train": 1.0}),
    "state": lambda run: run.save_state("last", {}, {"counters": {}}),
}


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("write", list(WRITES))
def test_nothing_is_written_where_the_folder_was(tmp_path: Path, write: str, opened: bool) -> None:
    settings = Settings(data="photos", out=str(tmp_path / "run"))
    run = Run.create(settings)
    run.log("before the settings are resolved")
    run.save_settings(settings)
    if opened:
        run.unlock()
        run = Run.open(tmp_path / "run")
    WRITES[write](run)
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(RunError, match="run: was moved or removed while the run was training"):
        WRITES[write](run)
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]
    shutil.copytree(tmp_path / "moved", tmp_path / "run", ignore=shutil.ignore_patterns(SETTINGS))
    with pytest.raises(RunError, match=r"run: its settings.yaml was removed"):
        WRITES[write](run)


def test_a_training_whose_folder_is_moved_ends_and_resumes_there(image_folder: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "run", tmp_path / "moved"

    class Mover(Progress):
        def say(self, line: str) -> None:
            if line.startswith("epoch 2/"):
                out.rename(moved)

    small = {
        "net": "lenet5",
        "input": "32",
        "batch": 8,
        "epochs": 4,
        "precision": "float32",
        "workers": 0,
        "threads": 1,
    }
    settings = Settings(data=str(image_folder), out=str(out), memory_format="channels_last", **small)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="was moved or removed"):
        train(settings, progress=Mover())
    assert not out.exists()
    run = resume(moved)
    assert [round(row["epoch"]) for row in run.metrics()] == [1, 2, 3, 4]

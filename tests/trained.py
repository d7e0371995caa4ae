"""Small runs of the tasks and their model files, trained once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from gossamer.cli.main import main
from tests.conftest import once, write_boxes, write_image_folder, write_masks

# One epoch of a small network: enough for every command, in a second.
SHORT = ["--net", "mobilenet_v2", "--width", "0.25", "--input", "32", "--epochs", "1", "--batch", "8", "--threads", "1"]
SHORT += ["--workers", "0", "--precision", "float32", "--memory-format", "channels_last"]
TASKS = {"detect": "signs", "segment": "street", "embed": "people"}


def train_words(root: Path, task: str, out: Path) -> list[str]:
    """The words of the command that trains a task on its data below `root`."""
    return ["train", str(root / TASKS[task]), *SHORT, "--input", "64", "--task", task, "--out", str(out)]


def fill(root: Path) -> None:
    """signs/, street/ and people/; for each task a run folder of its name and the model file beside it."""
    write_boxes(root / "signs", each=4)
    write_masks(root / "street", each=4)
    write_image_folder(root / "people", classes=2, each=4)
    for task in TASKS:
        assert main(train_words(root, task, root / task)) == 0
        assert main(["export", str(root / task), "--out", str(root / f"{task}.onnx")]) == 0


def runs_of_tasks(factory: pytest.TempPathFactory) -> Path:
    """The folder that `fill` fills; not to be changed: copy it, the data of the runs stay where they are."""
    return once(factory, "tasks", fill)

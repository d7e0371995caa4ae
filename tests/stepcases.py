"""Functions of steps that end their own process, as a system without memory does; found by their names in other processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

from gossamer.errors import InputError
from gossamer.host.progress import SILENT, Progress
from gossamer.host.stepfolder import StepFolder


class Folder(StepFolder):
    """A folder of steps of any kind."""

    command, state, first = "gossamer steps", "steps.json", "one"


def kill_once(path: Path) -> None:
    """End this process while the file `path` has lines, one less after each time."""
    lines = path.read_text().splitlines() if path.exists() else []
    if lines:
        path.write_text("".join(f"{line}\n" for line in lines[1:]))
        os.kill(os.getpid(), signal.SIGKILL)


def killed(path: str, what: str, progress: Progress = SILENT) -> dict[str, Any]:
    """A step that says something, and is killed as often as the file `path` has lines."""
    progress.say(f"{what} begins")
    kill_once(Path(path))
    if what == "refused":
        raise InputError("a", "b", "c")
    return {"pid": os.getpid(), "what": what}


def killed_trial(
    folder: str, settings: dict[str, Any], end: float, score: str, split_of: str, progress: Progress = SILENT
) -> dict[str, Any]:
    """In place of a training: killed as often as a file beside the current folder's `kills-LR` has lines."""
    kill_once(Path(f"kills-{settings['lr']}"))
    return {"score": settings["lr"], "epochs": 2 * end, "fraction": end}


def killed_training(
    folder: str, settings: dict[str, Any], end: float, score: str, split_of: str, progress: Progress = SILENT
) -> dict[str, Any]:
    """A training that is killed as it tells of its second epoch, as often as the file `kills` has lines."""
    from gossamer.sweeps import steps

    class Killing(Progress):
        def say(self, line: str) -> None:
            if line.startswith("epoch 2/"):
                kill_once(Path("kills"))

    return steps.train_step(folder, settings, end, score, split_of, Killing())


def forking(progress: Progress = SILENT) -> dict[str, Any]:
    """A step that forks a process, as a training does whose images are decoded in processes."""
    process = multiprocessing.get_context("fork").Process(target=time.time)
    process.start()
    process.join(20)
    process.kill()
    return {"code": process.exitcode}


def waiting(progress: Progress = SILENT) -> dict[str, Any]:
    """A step that says so and takes a minute."""
    progress.say("a minute")
    time.sleep(60)
    return {}

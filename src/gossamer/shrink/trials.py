"""Trainings on trial: in a hidden folder beside the run that is asked for, which takes its place only where it is accepted."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gossamer.errors import InputError, RunError
from gossamer.host.progress import Progress
from gossamer.host.storage import storage_error
from gossamer.networks.changes import Change
from gossamer.run import SETTINGS, Run
from gossamer.settings import Settings
from gossamer.training.loop import resume, train
from gossamer.training.network import changes_of

T = TypeVar("T")
SAME = (
    "data",
    "net",
    "weights",
    "teacher",
    "minutes",
    "epochs",
    "lr",
    "seed",
)  # settings by which a trial is known again


class _WithoutFolder(Progress):
    """Passes everything on; an interrupted trial is resumed by its own command, not as a run."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def say(self, line: str) -> None:
        if line.startswith("Interrupted. Resume with:"):
            line = "Interrupted. Nothing was written; the same command resumes this training."
        self.progress.say(line)

    def track(self, items: Iterable[T], total: int | None = None, what: str = "") -> Iterator[T]:
        return self.progress.track(items, total, what)


def trial_folder(out: str | os.PathLike[str], number: int) -> Path:
    """The folder of a trial for the run folder `out`."""
    path = Path(out)
    return path.with_name(f".{path.name}.trial-{number}")


def trained_trial(settings: Settings, changes: Sequence[Change], parent: Run, number: int, progress: Progress) -> Run:
    """Train as `settings` say, with the edits, into the folder of the trial; resume it where it was begun so.

    Raises what training raises; RunError where another process trains there.
    """
    folder = trial_folder(settings.out, number)
    settings = settings.replace(out=str(folder))
    quiet = _WithoutFolder(progress)
    if (folder / SETTINGS).is_file() and _same(folder, settings, changes):
        progress.say(f"resuming the training of trial {number}")
        return resume(folder, progress=quiet)
    _remove(folder)
    return train(settings, split_of=parent, changes=changes, progress=quiet)


def accept(run: Run, out: str | os.PathLike[str]) -> Run:
    """Give a trial the name of the run that was asked for, in one step. Raises StorageError."""
    run.save_settings(run.settings.replace(out=os.fspath(out)), run.user_settings() or ())
    try:
        run.path.rename(out)
    except OSError as error:
        raise storage_error(out, error) from error
    return Run.open(os.fspath(out))


def remove_trials(out: str | os.PathLike[str], count: int) -> None:
    """Remove the folders of trials. Raises RunError where another process trains there."""
    for number in range(1, count + 1):
        _remove(trial_folder(out, number))


def remove_run(folder: Path) -> None:
    """Remove a run that was accepted, where whoever asked for it was stopped before it could take note. Raises RunError, StorageError."""
    _remove(folder)


def open_trial(out: str | os.PathLike[str], number: int) -> Run | None:
    """A training on trial for `out` that was begun; None where there is none, or it is damaged and begins anew."""
    folder = trial_folder(out, number)
    if not (folder / SETTINGS).is_file():
        return None
    try:
        run = Run.open(folder)
    except InputError:
        return None
    return run


def _same(folder: Path, settings: Settings, changes: Sequence[Change]) -> bool:
    """Whether a folder holds the beginning of this very training."""
    try:
        run = Run.open(folder)
        alike = all(_equal(getattr(run.settings, name), getattr(settings, name)) for name in SAME)
        return alike and changes_of(run) == tuple(changes) and run.environments() != []
    except Exception:  # whatever a damaged folder raises: the trial begins anew
        return False


def _equal(a: Any, b: Any) -> bool:
    """Whether two settings are one; minutes that `unfinished_trials` divided by a share are off by a last bit."""
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-9))


def _remove(folder: Path) -> None:
    if not folder.exists():
        return
    run = Run(folder, Settings())
    try:
        run.lock()
    except RunError as error:
        raise RunError(
            f"{folder}: another process decomposes into the same folder", "one at a time", "wait for it or stop it"
        ) from error
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        run.unlock()

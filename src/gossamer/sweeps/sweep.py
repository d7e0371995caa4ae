"""`gossamer.sweep`: many trainings of one task, the worse ones left early; ends with those that nothing beats."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gossamer.errors import DataError, SettingsError
from gossamer.host import machine
from gossamer.host.cluster import check_address, joined
from gossamer.host.progress import SILENT, Progress
from gossamer.host.stepprocess import StepProcess
from gossamer.host.text import counted
from gossamer.sweeps.folder import SweepFolder
from gossamer.sweeps.result import SweepResult
from gossamer.sweeps.settings import check_options, checked_sweep, load_sweep
from gossamer.sweeps.steps import SweepSteps, check_buildable
from gossamer.sweeps.study import check_optuna
from gossamer.tasks.registry import task_of


def sweep(
    settings: str | os.PathLike[str] | Mapping[str, Any],
    out: str | os.PathLike[str] | None = None,
    *,
    minutes: float | None = None,
    seeds: int = 1,
    ray: str = "",
    progress: Progress = SILENT,
) -> SweepResult:
    """Train what `settings` vary, score and time each, and find the trials that no other one beats in both.

    settings: a YAML file, or its values: sections `settings` (of every trial), `grid` (all combinations), `choices` (lists) and
    `ranges` ({low, high, log, step}) of which a value is drawn for each trial by Optuna, and trials, seed, runtime, threads,
    precision. out: the folder, by default runs/NAME of the file. minutes: for all starts together; where the file gives no
    epochs or minutes, the length of a training is derived from them. seeds: trainings of each point of the front, for its
    spread. ray: "auto", "local" or an address: a trial a worker of Ray, the folder on a disk that all of them share.
    Trainings are done in a process of their own, which may be killed where the memory is not enough: the training goes on in
    another one from its last saved state, and is given up when that is killed too. A trial is a run folder; it is left early where others that are as fast score better. The same call resumes a folder.

    Raises SettingsError, UnknownNameError, DataError for what cannot be used, RunError for a folder of another sweep or one
    that another process works in, MissingPackageError, StorageError; KeyboardInterrupt goes through, what is done is kept.
    """
    check_options(minutes, seeds)
    if isinstance(settings, (str, os.PathLike)):
        asked = load_sweep(settings)
        out = out if out is not None else Path("runs") / Path(settings).stem
    else:
        asked = checked_sweep(settings)
    if out is None or not os.fspath(out):
        raise SettingsError("no folder for the result", "a new folder, or one to go on in", "give out")
    check_address(ray)
    check_optuna()
    SweepFolder.check_out(out)
    first = asked.space.typical()
    progress.say(f"{counted(asked.trials, 'trial')}; reading {first.data}")
    data = task_of(first.task).open_data(first)
    if not len(data.val):
        raise DataError(f"{first.data}: no validation images", "some that decide", "give val")
    asked = replace(asked, fingerprint=data.fingerprint)
    for line in (data.how, *data.notes):
        progress.say(line)
    check_buildable(asked, data)
    with SweepFolder(out) as folder:
        folder.begin(asked, machine.describe_machine())
        try:
            with joined(ray, progress) as workers, StepProcess(progress) as process:
                return SweepSteps(folder, asked, minutes, seeds, data, workers, process, progress).result()
        except KeyboardInterrupt:
            progress.say("interrupted; the same command goes on where it stands")
            raise

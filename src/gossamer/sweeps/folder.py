"""The folder of a sweep.

sweep.json          the settings, and machine and versions of every start
study.journal       Optuna's journal: the values of every trial, and in the end its score and milliseconds
steps/NAME.json     the result of a step, or the reason why it failed; a step with a file is not done again
runs/NUMBER/        the training of a trial, a run folder like others; NUMBER-seed-K with another seed
trials.json         every trial with what became of it; trials.csv; front.svg
front/NUMBER.yaml   the settings of each point on the front, for `gossamer train --config`
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gossamer.errors import RunError
from gossamer.host.cells import to_cell
from gossamer.host.stepfolder import STEPS, StepFolder
from gossamer.host.storage import storage_error, write_text
from gossamer.host.strict_json import dumps
from gossamer.host.text import counted
from gossamer.run import SETTINGS
from gossamer.selection.budget import is_finite
from gossamer.sweeps.settings import SweepSettings, check_same

JOURNAL, RUNS, FRONT, RESULT, TABLE, PICTURE = (
    "study.journal", "runs", "front", "trials.json", "trials.csv", "front.svg",
)  # fmt: skip
PLAN = "plan"  # the first step: how long a training is
_STEP = re.compile(r"trial-\d{4}-(time|rung-\d|seed-\d+)")
_POINT = re.compile(r"\d{4}\.yaml")


class SweepFolder(StepFolder):
    """A folder of `gossamer sweep`; see `StepFolder`."""

    command, state, first = "gossamer sweep", "sweep.json", PLAN
    first_files = (JOURNAL,)
    folders = (FRONT, STEPS)

    @classmethod
    def check_out(cls, out: str | os.PathLike[str]) -> None:
        """Refuse a place that is no folder for a sweep. Raises InputError."""
        cls.check(out, SETTINGS)

    def begin(self, settings: SweepSettings, environment: Mapping[str, Any]) -> bool:
        """Keep the settings, or compare them with those kept; whether the folder was begun before. Raises RunError."""

        def same(kept: Any, path: Path) -> None:
            check_same(settings, kept, path, self.path)

        return self.begin_with(settings.to_json(), environment, same)

    def check_trials(self, count: int) -> None:
        """Raises RunError where a training is of a trial that a journal of so many lacks: another would get its result.

        A network that was timed alone is timed again. Raises StorageError.
        """
        steps = sorted((self.path / STEPS).glob("trial-*.json"))
        lost = [path for path in steps if _STEP.fullmatch(path.stem) and int(path.stem.split("-")[1]) >= count]
        for path in lost:
            if not path.stem.endswith("-time"):
                raise RunError(
                    f"{self.path / JOURNAL}: holds {counted(count, 'trial')}, not that of {path}",
                    "the journal with which the steps were done",
                    "restore it, or give another --out",
                )
        try:
            for path in lost:
                path.unlink()
        except OSError as error:
            raise storage_error(self.path / STEPS, error) from error

    def check_step(self, values: Mapping[str, Any], step: str, path: Path) -> None:
        """Raises RunError where a step cannot have left these values."""
        kind = "plan" if step == PLAN else (_STEP.fullmatch(step) or [""])[0].split("-")[2:3]
        needed: dict[str, bool] = {"what": isinstance(values.get("what"), str)}
        for name in ("seconds", "elapsed", "killed", "lost"):  # the others are not in every step
            needed[name] = _number(values.get(name, None if name == "seconds" else 0))
        needed["given_up"] = isinstance(values.get("given_up", False), bool)
        if "error" in values:
            needed["error"] = isinstance(values["error"], str)
        elif kind == "plan":
            needed["schedule"] = values.get("schedule", "") is None or _number(values.get("schedule"))
        elif kind == ["time"]:
            needed |= {name: _number(values.get(name)) for name in ("ms", "bytes")}
        else:
            needed["score"] = values.get("score", "") is None or _number(values.get("score"), signed=True)
            needed["fraction"] = _number(values.get("fraction")) and 0 < values["fraction"] <= 1
        for name, sound in needed.items():
            if not sound:
                raise self.damaged(path, f"{name} is missing or of another type")

    def run(self, trial: int, seed: int = 0) -> Path:
        """Where a training of a trial lies. seed: which of those with other seeds, 0 for the trial's own."""
        return self.path / RUNS / (f"{trial:04d}-seed-{seed}" if seed else f"{trial:04d}")

    def publish(
        self,
        found: Mapping[str, Any],
        header: Iterable[str],
        rows: Iterable[Iterable[Any]],
        front: Mapping[int, str],
    ) -> dict[int, str]:
        """Replace trials.json, trials.csv and the files of front/; the paths of those. Raises StorageError."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(list(header))
        writer.writerows([to_cell(cell) for cell in row] for row in rows)
        paths = {number: self.path / FRONT / f"{number:04d}.yaml" for number in front}
        for number, settings in front.items():
            write_text(paths[number], settings)
        try:
            for path in (self.path / FRONT).glob("*.yaml"):
                if _POINT.fullmatch(path.name) and path not in paths.values():  # on the front of an earlier start
                    path.unlink()
        except OSError as error:
            raise storage_error(self.path / FRONT, error) from error
        write_text(self.path / TABLE, text.getvalue())
        write_text(self.path / RESULT, dumps(found, indent=1))
        return {number: str(path) for number, path in paths.items()}


def _number(value: Any, signed: bool = False) -> bool:
    return is_finite(value) and (signed or value >= 0)

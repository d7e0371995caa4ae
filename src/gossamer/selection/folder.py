"""The folder of a pick.

pick.json         the settings, and machine and versions of every start
steps/NAME.json   the result of a step, or the reason why it failed; a step with a file is not done again
runs/NAME/        a training of each network of the first rung, run folders like others
candidates/       the model files that were made at the end
best.onnx         a copy of the chosen one (best.goss where it is of bf16)
pareto.json       every network with why it was dropped, and which of those trained no other one beats; pareto.csv, pareto.svg
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gossamer.host.cells import to_cell
from gossamer.host.stepfolder import STEPS, StepFolder
from gossamer.host.storage import read_regular, write_bytes, write_text
from gossamer.host.strict_json import dumps
from gossamer.run import SETTINGS
from gossamer.selection.finalists import SUFFIXES
from gossamer.selection.saved import wrong_with
from gossamer.selection.settings import PickSettings, check_same, settings_of

RUNS, CANDIDATES, PARETO, TABLE, PICTURE = "runs", "candidates", "pareto.json", "pareto.csv", "pareto.svg"
FIRST = "networks"  # the first step: which networks keep the budget


class PickFolder(StepFolder):
    """A folder of `gossamer pick`; see `StepFolder`."""

    command, state, first = "gossamer pick", "pick.json", FIRST
    folders = (CANDIDATES, STEPS)

    @classmethod
    def check_out(cls, out: str | os.PathLike[str]) -> None:
        """Refuse a place that is no folder for a pick. Raises InputError."""
        cls.check(out, SETTINGS)

    def begin(self, settings: PickSettings, environment: Mapping[str, Any]) -> bool:
        """Keep the settings, or compare them with those kept; whether the folder was begun before. Raises RunError."""

        def same(kept: Any, path: Path) -> None:
            check_same(settings, settings_of(kept, path), self.path)

        return self.begin_with(settings.to_json(), environment, same)

    def check_step(self, values: Mapping[str, Any], step: str, path: Path) -> None:
        """Raises RunError where a step cannot have left these values."""
        if wrong := wrong_with(values, step, self.first):
            raise self.damaged(path, wrong)

    def candidate(self, name: str, suffix: str) -> Path:
        """Where the file of a candidate lies."""
        return self.path / CANDIDATES / f"{name}{suffix}"

    def run(self, name: str) -> Path:
        """Where a training lies."""
        return self.path / RUNS / name

    def publish(self, found: Mapping[str, Any], header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
        """Replace pareto.json and pareto.csv. Raises StorageError."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(list(header))
        writer.writerows([to_cell(cell) for cell in row] for row in rows)
        write_text(self.path / TABLE, text.getvalue())
        write_text(self.path / PARETO, dumps(found, indent=1))

    def choose(self, candidate: Path) -> Path:
        """Make a candidate the chosen file. Raises StorageError."""
        target = self.path / f"best{candidate.suffix}"
        data = read_regular(candidate)
        if not target.exists() or read_regular(target) != data:
            write_bytes(target, data)
        for suffix in {*SUFFIXES.values()} - {candidate.suffix}:  # of a choice before, whose step was done again
            (self.path / f"best{suffix}").unlink(missing_ok=True)
        return target

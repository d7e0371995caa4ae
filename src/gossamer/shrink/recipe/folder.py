"""The folder of a recipe: one file a finished step, each written in one atomic step, and what was found so far.

shrink.json       the settings, and machine and versions of every start
steps/NAME.json   the result of a step, or the reason why it failed; a step with a file is not done again
runs/NAME/        trainings, run folders like others
candidates/       the model files that were tried
best.onnx         a copy of the best of them so far
pareto.json       all of them, which no other one beats, and which limits they keep; pareto.csv is the same as a table
report.html       the page, where it was asked for
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
from gossamer.shrink.recipe.saved import check_step
from gossamer.shrink.recipe.settings import ShrinkSettings, check_same, settings_of

RUNS, CANDIDATES, BEST, PARETO, TABLE, PAGE = (
    "runs", "candidates", "best.onnx", "pareto.json", "pareto.csv", "report.html",
)  # fmt: skip
FIRST = "float"  # the first step and its file


def check_out(out: str | os.PathLike[str]) -> None:
    """Refuse a place that is no folder for a recipe. Raises InputError."""
    RecipeFolder.check(out, SETTINGS)


class RecipeFolder(StepFolder):
    """A folder of `gossamer shrink`; see `StepFolder`."""

    command, state, first = "gossamer shrink", "shrink.json", FIRST
    first_files = (f"{CANDIDATES}/{FIRST}.onnx",)
    folders = (CANDIDATES, STEPS)

    def begin(self, settings: ShrinkSettings, environment: Mapping[str, Any]) -> bool:
        """Keep the settings, or compare them with those kept; whether the folder was begun before. Raises RunError."""

        def same(kept: Any, path: Path) -> None:
            check_same(settings, settings_of(kept, path), self.path)

        return self.begin_with(settings.to_json(), environment, same)

    def check_step(self, values: Mapping[str, Any], step: str, path: Path) -> None:
        """Raises RunError where a step cannot have left these values."""
        check_step(values, step, path)

    def candidate(self, name: str) -> Path:
        """Where the file of a candidate lies."""
        return self.path / CANDIDATES / f"{name}.onnx"

    def run(self, name: str) -> Path:
        """Where a training lies."""
        return self.path / RUNS / name

    def publish(
        self, best: Path, found: Mapping[str, Any], header: Iterable[str], rows: Iterable[Iterable[str]]
    ) -> None:
        """Replace best.onnx, pareto.json and pareto.csv. Raises StorageError."""
        data = read_regular(best)
        target = self.path / BEST
        if not target.exists() or read_regular(target) != data:
            write_bytes(target, data)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(list(header))
        writer.writerows([to_cell(cell) for cell in row] for row in rows)
        write_text(self.path / TABLE, text.getvalue())
        write_text(self.path / PARETO, dumps(found, indent=1))

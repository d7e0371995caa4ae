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

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gossamer.errors import RunError, SettingsError
from gossamer.host.cells import to_cell
from gossamer.host.storage import read_regular, remove_parts, storage_error, write_bytes, write_text
from gossamer.host.strict_json import dumps
from gossamer.run import SETTINGS
from gossamer.shrink.recipe.saved import check_step, damaged
from gossamer.shrink.recipe.settings import ShrinkSettings, check_same, settings_of
from gossamer.targets import is_folder, is_there

STATE, STEPS, RUNS, CANDIDATES, BEST, PARETO, TABLE, PAGE, LOCK = (
    "shrink.json", "steps", "runs", "candidates", "best.onnx", "pareto.json", "pareto.csv", "report.html", ".lock",
)  # fmt: skip
FORMAT = 1
FIRST = "float"  # the first step and its file
LIMIT = 64 << 20  # bytes of a file of JSON


def check_out(out: str | os.PathLike[str]) -> None:
    """Refuse a place that is no folder for a recipe. Raises InputError."""
    if not os.fspath(out):
        raise SettingsError("no folder for the result", "a new folder, or one to go on in", "give --out")
    path = Path(out)
    if is_there(path) and not is_folder(path):
        raise RunError(f"{path}: is no folder", "a new folder", "give another --out")
    if not is_folder(path) or (path / STATE).exists():
        return
    if (path / SETTINGS).exists():
        raise RunError(f"{path}: holds a run", "a new folder", "give another --out")
    if any(not entry.name.startswith(".") for entry in path.iterdir()):
        raise RunError(f"{path}: holds other files", "a new folder, or one of gossamer shrink", "give another --out")


class RecipeFolder:
    """A folder that this process alone writes to, inside `with`. Raises RunError where another one does, StorageError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = -1

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise storage_error(self.path, error) from error
        try:
            import fcntl

            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such lock on this platform
            pass
        except OSError as error:
            os.close(self._lock)
            self._lock = -1
            raise RunError(f"{self.path}: another process is at work there", "one at a time", "wait for it") from error
        for folder in (self.path, self.path / STEPS, self.path / CANDIDATES):
            remove_parts(folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write here; where not even the first step was finished, what was written goes."""
        if self._lock >= 0 and not (self.path / STEPS / f"{FIRST}.json").exists():
            with contextlib.suppress(OSError):
                for path in (self.path / STATE, self.candidate(FIRST)):
                    path.unlink(missing_ok=True)
                (self.path / LOCK).unlink()
                for folder in (self.path / CANDIDATES, self.path / STEPS, self.path):
                    if folder.exists():
                        folder.rmdir()  # only an empty one goes
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def begin(self, settings: ShrinkSettings, environment: Mapping[str, Any]) -> bool:
        """Keep the settings, or compare them with those kept; whether the folder was begun before. Raises RunError."""
        known: list[Any] = []
        path = self.path / STATE
        if path.exists():
            state = self._read(path)
            known = state.get("environments", [])
            if (
                state.get("format") != FORMAT
                or not isinstance(known, list)
                or not all(isinstance(one, dict) for one in known)
            ):
                raise RunError(f"{path}: is of another version", f"format {FORMAT}", "give another --out")
            check_same(settings, settings_of(state.get("settings"), path), self.path)
        state = {"format": FORMAT, "settings": settings.to_json(), "environments": [*known, dict(environment)]}
        write_text(path, dumps(state, indent=1))
        return bool(known)

    def result(self, step: str) -> dict[str, Any] | None:
        """What a finished step has left; None for one that is not finished. Raises RunError where it is damaged."""
        path = self.step(step)
        if not path.exists():
            return None
        values = self._read(path)
        check_step(values, step, path)
        return values

    def step(self, name: str) -> Path:
        """Where the result of a step lies."""
        return self.path / STEPS / f"{name}.json"

    def commit(self, step: str, values: Mapping[str, Any]) -> None:
        """A step is finished: from here on it is not done again. Raises StorageError."""
        write_text(self.step(step), dumps(values))

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

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            if path.stat().st_size > LIMIT:
                raise ValueError(f"more than {LIMIT} bytes")
            values = json.loads(read_regular(path).decode("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise damaged(path, error) from error
        if not isinstance(values, dict):
            raise damaged(path, "no object")
        return values

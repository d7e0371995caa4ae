"""A folder of work in steps: one file a finished step, each written in one atomic step, so that a kill loses at most one.

STATE             the settings, and machine and versions of every start
steps/NAME.json   the result of a step, or the reason why it failed; a step with a file is not done again
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from gossamer.errors import RunError, SettingsError
from gossamer.host.storage import lock_file, read_regular, remove_parts, storage_error, write_text
from gossamer.host.strict_json import dumps

STEPS, LOCK = "steps", ".lock"
DO = "remove it: its step is done again"
LIMIT = 64 << 20  # bytes of a file of JSON


class StepFolder:
    """A folder that this process alone writes to, inside `with`. Raises RunError where another one does, StorageError.

    command: what people call it. state: the file of its settings, in the version `version`. first: the first step; where
    it is not finished, what was written goes at the end: the state, `first_files` and folders that are empty. folders:
    those that files are written to, the inner ones first.
    """

    command: ClassVar[str]
    state: ClassVar[str]
    first: ClassVar[str]
    version: ClassVar[int] = 1
    first_files: ClassVar[tuple[str, ...]] = ()
    folders: ClassVar[tuple[str, ...]] = (STEPS,)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = -1

    @classmethod
    def check(cls, out: str | os.PathLike[str], run_file: str) -> None:
        """Refuse a place that is no folder for this work. run_file: the file by which a run folder is known. Raises InputError."""
        if not os.fspath(out):
            raise SettingsError("no folder for the result", "a new folder, or one to go on in", "give --out")
        path = Path(out)
        if "\0" in os.fspath(out):
            raise RunError(
                f"{os.fspath(out)!r}: a null character", "a path that a folder can have", "give another --out"
            )
        try:
            is_there, is_folder = path.exists(), path.is_dir()
        except OSError as error:
            raise RunError(
                f"{path}: {error.strerror}", "a path that a folder can have", "give another --out"
            ) from error
        if path.is_symlink() and not is_there:
            raise RunError(f"{path}: a link to nothing", "a new folder", "give another --out")
        if is_there and not is_folder:
            raise RunError(f"{path}: is no folder", "a new folder", "give another --out")
        if not is_folder or (path / cls.state).exists():
            return
        if (path / run_file).exists():
            raise RunError(f"{path}: holds a run", "a new folder", "give another --out")
        if any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise RunError(f"{path}: holds other files", f"a new folder, or one of {cls.command}", "give another --out")

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = lock_file(self.path / LOCK)
        except BlockingIOError as error:
            raise RunError(f"{self.path}: another process is at work there", "one at a time", "wait for it") from error
        except OSError as error:
            raise storage_error(self.path, error) from error
        for folder in (self.path, *(self.path / name for name in self.folders)):
            remove_parts(folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write here; where not even the first step was finished, what was written goes.

        A first step that was removed to be done again is another matter: those after it are work of hours.
        """
        if self._lock >= 0 and not any((self.path / STEPS).glob("*.json")):
            with contextlib.suppress(OSError):
                for name in (self.state, *self.first_files):
                    (self.path / name).unlink(missing_ok=True)
                (self.path / LOCK).unlink()
                for folder in (*(self.path / name for name in self.folders), self.path):
                    if folder.exists():
                        folder.rmdir()  # only an empty one goes
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def begin_with(
        self, settings: Mapping[str, Any], environment: Mapping[str, Any], same: Callable[[Any, Path], None]
    ) -> bool:
        """Keep the settings, or have `same` compare them with those kept; whether the folder was begun before.

        same: takes the settings kept and the path of their file. Raises RunError, and what `same` raises.
        """
        known: list[Any] = []
        path = self.path / self.state
        if path.exists():
            state = self._read(path, "restore it, or give another --out: no step holds what it did")
            known = state.get("environments", [])
            sound = isinstance(known, list) and all(isinstance(one, dict) for one in known)
            if state.get("format") != self.version or not sound:
                raise RunError(f"{path}: is of another version", f"format {self.version}", "give another --out")
            same(state.get("settings"), path)
        state = {"format": self.version, "settings": settings, "environments": [*known, dict(environment)]}
        write_text(path, dumps(state, indent=1))
        return bool(known)

    def result(self, step: str) -> dict[str, Any] | None:
        """What a finished step has left; None for one that is not finished. Raises RunError where it is damaged."""
        path = self.step(step)
        if not path.exists():
            return None
        values = self._read(path)
        self.check_step(values, step, path)
        return values

    def check_step(self, values: Mapping[str, Any], step: str, path: Path) -> None:
        """Raises RunError where a step cannot have left these values in the file `path`."""

    def step(self, name: str) -> Path:
        """Where the result of a step lies."""
        return self.path / STEPS / f"{name}.json"

    def check_there(self) -> None:
        """Raises RunError where the folder was moved or removed since it was begun: what is written there now would be lost."""
        if not (self.path / self.state).is_file():
            what = f"its {self.state} was removed" if self.path.is_dir() else "was moved or removed"
            raise RunError(
                f"{self.path}: {what} while {self.command} was at work there",
                "a folder that stays in its place",
                "where it was moved to, the same command goes on with --out",
            )

    def commit(self, step: str, values: Mapping[str, Any]) -> None:
        """A step is finished: from here on it is not done again. Raises RunError, StorageError."""
        self.check_there()
        write_text(self.step(step), dumps(values))

    def damaged(self, path: Path, problem: object, do: str = DO) -> RunError:
        """The error of a file that is not as it was written. do: what to do."""
        return RunError(f"{path}: is damaged: {problem}", f"what {self.command} wrote", do)

    def _read(self, path: Path, do: str = DO) -> dict[str, Any]:
        try:
            if path.stat().st_size > LIMIT:
                raise ValueError(f"more than {LIMIT} bytes")
            values = json.loads(read_regular(path).decode("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise self.damaged(path, error, do) from error
        if not isinstance(values, dict):
            raise self.damaged(path, "no object", do)
        return values


def is_settings(values: Any, names: set[str]) -> bool:
    """Whether `values` is an object of exactly these names."""
    return isinstance(values, Mapping) and set(values) == names

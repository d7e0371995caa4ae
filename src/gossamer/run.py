"""The run folder: everything a training run leaves behind, and the only file that knows its file names.

    settings.yaml        the resolved settings; `gossamer train --config` takes it
    environment.json     one entry per start: versions, machine, processes
    classes.json         the class names, in the order of the outputs
    changes.json         edits of the network after it was built (networks/changes.py); none where it is missing
    teacher.json         the teacher, by kind and SHA-256; none where the run has no teacher
    data.json            what was recognised, fingerprint, counts
    split.csv            name, label, split of every sample
    images.csv           name, bytes, time, digest of the label of every sample when the run began
    unreadable.csv       skipped images, with the reason
    metrics.jsonl        one line per epoch; metrics.csv is the same as a table
    log.txt              the log
    best.safetensors     weights of the best epoch (the averaged ones where averaging is on)
    last.safetensors     the state to resume from: weights, optimiser, counters
    clock.json           seconds that the run has taken, which are no state: equal trainings have equal states
    *.json beside them   the metadata of the two, for people; the header of the safetensors file counts

A state is one file that is replaced in one step, so a kill at any moment leaves a complete one.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.errors import MissingPackageError, RunError
from gossamer.host.cells import from_cell, to_cell
from gossamer.host.storage import (
    append_text,
    lock_file,
    open_regular,
    read_regular,
    remove_parts,
    storage_error,
    write_bytes,
    write_text,
)
from gossamer.host.strict_json import dumps
from gossamer.settings import Settings
from gossamer.settings import names as setting_names
from gossamer.settings.file import dump_settings, load_settings

if TYPE_CHECKING:
    import torch

SETTINGS, ENVIRONMENT, CLASSES, DATA = "settings.yaml", "environment.json", "classes.json", "data.json"
GIVEN = "# given: "  # begins the first line of settings.yaml; the other settings are defaults or were resolved
MOST_GIVEN = 10_000  # characters of that line
SPLIT, UNREADABLE, METRICS, TABLE, LOG, LOCK, IMAGES = (
    "split.csv",
    "unreadable.csv",
    "metrics.jsonl",
    "metrics.csv",
    "log.txt",
    ".lock",
    "images.csv",
)
BENCH, REPORT, CHANGES, CLOCK, TEACHER = "bench.json", "report.html", "changes.json", "clock.json", "teacher.json"
WHICH = ("best", "last")
STATES = tuple(f"{which}.{suffix}" for which in WHICH for suffix in ("safetensors", "json"))
OWN = (  # what a result of another command must not replace; the report is such a result
    *(SETTINGS, ENVIRONMENT, CLASSES, DATA, SPLIT, UNREADABLE, METRICS, TABLE, LOG, LOCK, IMAGES),
    *(BENCH, CHANGES, CLOCK, TEACHER),
    *STATES,
)
STOPPED = "stopped: "  # begins the line of the log that says why a training could not go on
MOST_NUMBER = 10**300
CHANGES_LIMIT = 64 << 20  # bytes
CLOCK_LIMIT = 1 << 16  # characters
LOG_LIMIT = 4 << 20  # bytes


class Run:
    """A run folder. `Run.open` reads one, `Run.create` makes one."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.settings = path, settings
        self._lock: int | None = None
        self._complete = False  # whether its settings are on the disk

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def create(cls, settings: Settings) -> Run:
        """Make the folder `settings.out`; the settings are written when they are resolved.

        Raises RunError where a run is there already, StorageError.
        """
        path = Path(settings.out)
        if (path / SETTINGS).exists():
            raise RunError(
                f"{path}: holds a run already", "a new folder", f"give another --out, or resume it with --resume {path}"
            )
        if path.exists() and not path.is_dir():
            raise RunError(f"{path}: is a file", "a new folder", "give another --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(path, error) from error
        run = cls(path, settings)
        run.lock()
        run.remove_parts()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read the run folder `path`. Raises RunError, SettingsError."""
        path = Path(path)
        if not (path / SETTINGS).is_file():
            what = "no such folder" if not path.exists() else "holds no settings.yaml"
            raise RunError(f"{path}: {what}", "a folder made by `gossamer train`", "check the path")
        run = cls(path, load_settings(path / SETTINGS))
        run._complete = True
        return run

    def lock(self) -> None:
        """Keep other processes from writing here until this one ends. Raises RunError where one does."""
        try:
            self._lock = lock_file(self.path / LOCK)
        except BlockingIOError as error:
            raise RunError(
                f"{self.path}: another process is training there", "one at a time", "wait for it or stop it"
            ) from error
        except OSError as error:
            raise storage_error(self.path / LOCK, error) from error

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.unlock()

    def unlock(self) -> None:
        """Let others write here."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # what is written once

    def save_settings(self, settings: Settings, user: Iterable[str] = ()) -> None:
        """Save the resolved settings, and in a comment the names of those that the user set. From here on the folder counts as a run."""
        self.settings = settings
        listed = ", ".join(user)
        write_text(self.path / SETTINGS, (f"{GIVEN}{listed}\n" if listed else "") + dump_settings(settings))
        self._complete = True

    def _check_there(self) -> None:
        """Raises RunError where the folder was moved or deleted since it was complete: what is written there now would make
        another one, which nothing can open."""
        if self._complete and not (self.path / SETTINGS).is_file():
            what = f"its {SETTINGS} was removed" if self.path.is_dir() else "was moved or removed"
            raise RunError(
                f"{self.path}: {what} while the run was training",
                "a folder that stays in its place",
                "where it was moved to, it can be resumed: gossamer train --resume FOLDER",
            )

    def user_settings(self) -> tuple[str, ...] | None:
        """The names of the settings that the user set; None where the run does not say."""
        with open_regular(self.path / SETTINGS) as file:
            first = file.readline(MOST_GIVEN).decode("utf-8", "replace")
        if not first.startswith(GIVEN):
            return None
        known = setting_names()
        return tuple(name for name in first.removeprefix(GIVEN).strip().split(", ") if name in known)

    def save_data(
        self,
        classes: Iterable[str],
        facts: Mapping[str, Any],
        split: Iterable[tuple[str, int, str]],
        images: Iterable[tuple[str, int, int, str]] = (),
    ) -> None:
        """Save the class list, the facts about the data, the split as (name, label, split) rows, and what the images were
        as rows of `data.changed.ImageState`."""
        write_text(self.path / IMAGES, _csv(("name", "bytes", "time", "target"), images))
        write_text(self.path / CLASSES, dumps(list(classes), indent=1))
        write_text(self.path / DATA, dumps(facts, indent=1))
        write_text(self.path / SPLIT, _csv(("name", "label", "split"), split))

    def remove_parts(self) -> list[str]:
        """Remove what a killed process has left unfinished in the folder; the names."""
        return remove_parts(self.path)

    def save_changes(self, text: str) -> None:
        """Save the edits of the network, as `networks.changes.changes_to_json` writes them."""
        write_text(self.path / CHANGES, text)

    def save_teacher(self, facts: Mapping[str, str]) -> None:
        """Save what tells the teacher from others: target, kind and sha256."""
        write_text(self.path / TEACHER, dumps(dict(facts), indent=1))

    def add_environment(self, environment: Mapping[str, Any]) -> None:
        """Add the machine and versions of this start."""
        write_text(self.path / ENVIRONMENT, dumps([*self.environments(), dict(environment)], indent=1))

    # what is added while it trains

    def log(self, line: str) -> None:
        """Add a line to the log. Raises RunError, StorageError."""
        self._check_there()
        append_text(self.path / LOG, time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + line + "\n")

    def save_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Replace the metrics by `rows`, as JSON lines and as a table. Raises RunError, StorageError."""
        self._check_there()
        write_text(self.path / METRICS, "".join(dumps(row) + "\n" for row in rows))
        columns = list(dict.fromkeys(name for row in rows for name in row))
        write_text(self.path / TABLE, _csv(columns, ([row.get(name, "") for name in columns] for row in rows)))

    def save_unreadable(self, rows: Iterable[tuple[str, str]]) -> None:
        """Replace the list of skipped images by (name, reason) rows. Raises RunError, StorageError."""
        self._check_there()
        write_text(self.path / UNREADABLE, _csv(("name", "reason"), rows))

    # what is read

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the outputs."""
        classes = self._json(CLASSES)
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise self._unexpected(CLASSES, "a list of names")
        return tuple(classes)

    def teacher(self) -> dict[str, str]:
        """What `save_teacher` saved. Raises RunError."""
        facts = self._json(TEACHER)
        names = ("target", "kind", "sha256")
        if not isinstance(facts, dict) or not all(isinstance(facts.get(name), str) for name in names):
            raise self._unexpected(TEACHER, f"texts called {', '.join(names)}")
        return {name: facts[name] for name in names}

    @property
    def data(self) -> dict[str, Any]:
        """What was recognised in the data: how, fingerprint, counts."""
        facts = self._json(DATA)
        if not isinstance(facts, dict):
            raise self._unexpected(DATA, "an object")
        return facts

    @property
    def environment(self) -> dict[str, Any]:
        """Machine and versions of the latest start."""
        return self.environments()[-1] if self.environments() else {}

    def changes(self) -> str | None:
        """The text of changes.json, for `networks.changes.parse_changes`; None where the network was not edited.

        Raises RunError where it cannot be read or is larger than any that gossamer writes.
        """
        path = self.path / CHANGES
        if not path.exists():
            return None
        try:
            if path.stat().st_size > CHANGES_LIMIT:
                raise RunError(f"{path}: {path.stat().st_size} bytes", f"{CHANGES_LIMIT} at most", "restore the file")
            return read_regular(path).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path}: {error}", "a JSON file written by gossamer", "restore the file") from error

    def environments(self) -> list[dict[str, Any]]:
        """Machine and versions of every start."""
        if not (self.path / ENVIRONMENT).exists():
            return []
        starts = self._json(ENVIRONMENT)
        if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
            raise self._unexpected(ENVIRONMENT, "a list of objects")
        return starts

    def metrics(self) -> list[dict[str, Any]]:
        """One row per epoch, NaN where a number was not finite; from a damaged line on they are left out, see `metrics_problem`."""
        return self._metrics()[0]

    def metrics_problem(self) -> str:
        """Why rows of the metrics are left out: a last line that a crash has cut off, or a damaged one; "" where none are."""
        return self._metrics()[1]

    def _metrics(self) -> tuple[list[dict[str, Any]], str]:
        if not (self.path / METRICS).exists():
            return [], ""
        rows: list[dict[str, Any]] = []
        lines = read_regular(self.path / METRICS).decode("utf-8", "replace").splitlines()
        for line in lines:
            try:
                rows.append(_metrics_row(line))
            except (ValueError, RecursionError):
                number, count = len(rows) + 1, len(lines)
                rest = f" and the {count - number} behind it are" if number < count else " is"
                return rows, f"{self.path / METRICS}: line {number} of {count} is damaged: it{rest} left out"
        return rows, ""

    def best(self, name: str) -> dict[str, Any]:
        """The first row with the highest value of the metric `name`; {} where no row has a number there."""
        rows = [row for row in self.metrics() if not math.isnan(row.get(name, math.nan))]
        return max(rows, key=lambda row: float(row[name]), default={})

    def split(self) -> list[tuple[str, int, str]]:
        """(name, label, split) of every sample. Raises RunError."""
        try:
            return [(name, int(label), split) for name, label, split in self._csv(SPLIT)]
        except ValueError as error:
            raise RunError(f"{self.path / SPLIT}: {error}", "lines of name,label,split", "restore the file") from error

    def images(self) -> list[tuple[str, int, int, str]]:
        """(name, bytes, time, target) of every sample when the run began; [] in runs of versions that did not keep it.

        Raises RunError.
        """
        if not (self.path / IMAGES).exists():
            return []
        try:
            return [(name, int(size), int(time), target) for name, size, time, target in self._csv(IMAGES)]
        except ValueError as error:
            raise RunError(
                f"{self.path / IMAGES}: {error}", "lines of name,bytes,time,target", "restore or remove the file"
            ) from error

    def log_lines(self, limit: int = LOG_LIMIT) -> list[str]:
        """The lines of the log without their times, the last `limit` bytes of it. Raises RunError."""
        try:
            with open_regular(self.path / LOG) as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - limit))
                text = file.read(limit).decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunError(f"{self.path / LOG}: {error}", "the log of a run", "restore or remove the file") from error
        return [line.partition(" ")[2] for line in text.splitlines()]

    def counters(self) -> dict[str, Any]:
        """The counters of the last saved state, as last.json shows them; {} before the first. Raises RunError."""
        if not (self.path / "last.json").exists():
            return {}
        facts = self._json("last.json")
        counters = facts.get("counters") if isinstance(facts, dict) else None
        if not isinstance(counters, dict):
            raise self._unexpected("last.json", "counters")
        return counters

    def is_locked(self) -> bool:
        """Whether a process is training here now; nothing is written."""
        try:
            import fcntl

            handle = os.open(self.path / LOCK, os.O_RDONLY | os.O_NONBLOCK)
        except (ImportError, OSError):
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def unreadable(self) -> list[tuple[str, str]]:
        """(name, reason) of the skipped images."""
        if not (self.path / UNREADABLE).exists():
            return []
        return [(row[0], row[1]) for row in self._csv(UNREADABLE) if len(row) == 2]

    def has(self, which: str) -> bool:
        """Whether the state "best" or "last" has been saved."""
        return (self.path / f"{which}.safetensors").is_file()

    def weights(self, which: str = "best") -> Path:
        """The weights file, "best" or "last". Raises RunError where there is none yet."""
        path = self.path / f"{which}.safetensors"
        if which not in WHICH:
            raise RunError(f"weights {which!r}", " or ".join(WHICH), "choose one of them")
        if not path.is_file():
            raise RunError(f"{self.path}: has no {path.name} yet", "a run with one epoch done", "train it further")
        return path

    # states

    def save_state(self, which: str, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Replace the state "best" or "last" in one step: named tensors and JSON facts. Raises RunError, StorageError."""
        self._check_there()
        from safetensors.torch import save

        text = json.dumps(facts, allow_nan=True)
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        data = save(contiguous, metadata={"format": "pt", "gossamer": text})
        write_bytes(self.path / f"{which}.safetensors", _in_order(data))
        write_text(self.path / f"{which}.json", dumps(facts, indent=1))

    def save_clock(self, times: Mapping[str, float]) -> None:
        """Replace the seconds that the run has taken, by name. Raises RunError, StorageError."""
        self._check_there()
        write_text(self.path / CLOCK, dumps(times, indent=1))

    def clock(self) -> dict[str, Any]:
        """What `save_clock` saved; {} where the file is missing or damaged."""
        try:
            with open_regular(self.path / CLOCK) as file:
                times = json.loads(file.read(CLOCK_LIMIT))
        except (OSError, ValueError, RecursionError):
            return {}
        return times if isinstance(times, dict) else {}

    def load_state(self, which: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The tensors and facts that `save_state` saved. Raises RunError."""
        try:
            from safetensors import SafetensorError, safe_open
        except ImportError as error:
            raise MissingPackageError("safetensors", "train", "reading weights") from error
        path = self.weights(which)
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                facts = json.loads((file.metadata() or {})["gossamer"])
        except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
            raise RunError(
                f"{path}: is damaged: {error or type(error).__name__}",
                "a state that gossamer wrote",
                "restore it from a copy",
            ) from error
        return tensors, facts

    def _json(self, name: str) -> Any:
        path = self.path / name
        try:
            with open_regular(path) as file:
                return json.loads(file.read())
        except FileNotFoundError as error:
            raise RunError(
                f"{self.path}: has no {name}", "a folder made by `gossamer train`", "check the path"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{path}: {error}", "a JSON file written by gossamer", "restore the file") from error

    def _unexpected(self, name: str, expected: str) -> RunError:
        return RunError(
            f"{self.path / name}: does not hold {expected}", "a JSON file written by gossamer", "restore the file"
        )

    def _csv(self, name: str) -> list[list[str]]:
        try:
            file = io.StringIO(read_regular(self.path / name).decode("utf-8"), newline="")
            return [[from_cell(cell) for cell in row] for row in csv.reader(file)][1:]
        except (OSError, csv.Error, UnicodeDecodeError) as error:
            raise RunError(
                f"{self.path / name}: {error}", "a CSV file written by gossamer", "restore the file"
            ) from error


def _metrics_row(line: str) -> dict[str, Any]:
    """A line of metrics.jsonl. Raises ValueError where it is no JSON object of numbers; null is NaN."""
    row = json.loads(line)
    if not isinstance(row, dict) or not all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in row.values()
    ):
        raise ValueError(line)
    if any(isinstance(value, int) and abs(value) > MOST_NUMBER for value in row.values()):  # more than a float can be
        raise ValueError(line)
    return {name: math.nan if number is None else number for name, number in row.items()}


def next_folder(net: str, root: str | Path = "runs") -> str:
    """The first of runs/NET-1, runs/NET-2, ... that is free."""
    number = 1
    while (Path(root) / f"{net.replace(':', '_')}-{number}").exists():
        number += 1
    return str(Path(root) / f"{net.replace(':', '_')}-{number}")


def settings_from(config: str | Path, changes: Mapping[str, Any]) -> Settings:
    """The settings of another run's settings.yaml with `changes`; without an `out` among them, to a new folder beside it.

    Raises SettingsError.
    """
    base = load_settings(config)
    old = Path(base.out)
    out = next_folder(old.name or base.net, old.parent if base.out else "runs")
    return base.replace(**{"out": out, **changes})


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its metadata in one order: the library writes them in a random one, so that equal states differ.

    Eight bytes, the size of the header, the header as JSON, the tensors at places that count from its end.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(data)[8 + size :]))


def _csv(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([to_cell(cell) for cell in header])
    writer.writerows([to_cell(cell) for cell in row] for row in rows)
    return text.getvalue()

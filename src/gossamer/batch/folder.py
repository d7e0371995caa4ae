"""The folder of answers: the only file that knows its file names.

answers/
    batch.json           the model's SHA-256, the settings and the sources of the first start
    plan.jsonl           a line of totals, then a unit of work a line
    log.jsonl            the commit log: a line for each unit that is answered, synced after its rows
    rows/000/000012.jsonl  (or .parquet) the rows of unit 12
    failed.jsonl         a line for each unit that was given up; the next start tries it again and removes the file
    .lock                locked by the process that fills the folder
    .work/               units that are handed out (pending/) and claimed by a worker (claims/); goes with the process

Rows count once their unit is in the log. What a killed process leaves without that is removed by the next start.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gossamer.batch.plan import Unit, identity
from gossamer.errors import DataError, InputError
from gossamer.host.storage import (
    atomic_write,
    lock_file,
    open_regular,
    read_regular,
    remove_parts,
    storage_error,
    write_text,
)
from gossamer.host.text import counted

SETTINGS, PLAN, LOG, LOCK, ROWS, WORK = "batch.json", "plan.jsonl", "log.jsonl", ".lock", "rows", ".work"
FAILED = "failed.jsonl"
PENDING, CLAIMS, NETWORK = "pending", "claims", "network.goss"  # in WORK
FORMAT = 1
EACH = 1000  # units whose rows are in one folder
COUNTS = ("unit", "images", "unreadable", "repeated", "bytes")  # whole numbers of a line of the log
TIMES = ("at", "input_bytes", "seconds")  # numbers, which older folders may lack
TEXTS = ("fingerprint", "rows", "damaged")
ALLOWED = "a folder that `gossamer predict --out` filled"

DAMAGED = (ValueError, KeyError, TypeError, OverflowError, RecursionError)  # what reading a damaged file raises
ROW_FILE = re.compile(r"[0-9]{6,}\.(jsonl|parquet|vectors)")  # the name of a file of rows, as `rows_name` makes it

Record = dict[str, Any]  # a line of the log


class AnswerFolder:
    """An output folder; `begin` locks it for this process, without that it is only read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = -1
        self._failed: list[dict[str, Any]] = []

    # one process at a time

    def begin(self) -> None:
        """Make the folder where it is not there, and lock it. Raises InputError where another process fills it, StorageError."""
        try:
            if "\0" in os.fspath(self.path):
                raise OSError(errno.EINVAL, "no path of a folder")
            if self.path.is_symlink() and not self.path.exists():
                raise InputError(
                    f"{self.path}: is a link to nothing", "a new folder, or one to resume", "give another --out"
                )
            if self.path.is_dir():
                self._check_contents()
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(
                f"{self.path}: is a file", "a new folder, or one to resume", "give another --out"
            ) from error
        except OSError as error:
            self.end()
            raise storage_error(self.path, error) from error
        shutil.rmtree(self.path / WORK, ignore_errors=True)
        remove_parts(self.path)
        try:
            for name in (PENDING, CLAIMS):
                (self.path / WORK / name).mkdir(parents=True)
        except OSError as error:
            self.end()
            raise storage_error(self.path / WORK, error) from error

    def end(self) -> None:
        """Let others fill the folder."""
        if self._lock >= 0:
            shutil.rmtree(self.path / WORK, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Remove the folder that this process has locked; the lock last: whoever has a new one finds nothing that goes.

        The settings go before it, so that what a kill leaves is still a folder to resume.
        """
        with contextlib.suppress(OSError):
            for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == SETTINGS):
                if entry.name != LOCK:
                    shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
            (self.path / LOCK).unlink(missing_ok=True)
            self.path.rmdir()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove_unfinished(self) -> None:
        """Remove rows that killed processes were writing."""
        for folder, _, _ in os.walk(self.path / ROWS):
            remove_parts(folder)

    def filler(self) -> dict[str, Any] | None:
        """The process that fills the folder now: its pid and when it began; None where there is none."""
        try:
            import fcntl

            handle = os.open(self.path / LOCK, os.O_RDONLY | os.O_NONBLOCK)  # should a pipe have replaced it
        except (ImportError, OSError):
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return self._holder()
        finally:
            os.close(handle)
        return None

    def _holder(self) -> dict[str, Any]:
        try:
            values = json.loads(read_regular(self.path / LOCK))
            return {"pid": int(values["pid"]), "started": float(values["started"])}
        except (*DAMAGED, OSError):  # it is being written
            return {"pid": 0, "started": time.time()}

    def _take_lock(self) -> None:
        try:
            self._lock = lock_file(self.path / LOCK)
        except BlockingIOError as error:
            pid = self._holder()["pid"]
            raise InputError(
                f"{self.path}: another process ({pid}) fills it",
                "one at a time",
                f"wait for it or stop it; gossamer predict --status {shlex.quote(str(self.path))} shows how far it is",
            ) from error
        os.ftruncate(self._lock, 0)
        os.write(self._lock, json.dumps({"pid": os.getpid(), "started": time.time()}).encode())

    def _check_contents(self) -> None:
        """Raises InputError for a folder that holds something else."""
        if not os.path.lexists(self.path / SETTINGS):  # a link to nothing counts, as what cannot be read does
            others = [name for name in sorted(os.listdir(self.path)) if not name.startswith(".")]
            if others:
                raise InputError(
                    f"{self.path}: holds {others[0]} and no {SETTINGS}",
                    "a new or empty folder, or one that `gossamer predict --out` filled",
                    "give another --out",
                )

    # what was asked

    def settings(self) -> dict[str, Any] | None:
        """What `save_settings` saved; None where the folder is new. Raises DataError."""
        path = self.path / SETTINGS
        try:
            values = json.loads(read_regular(path))
        except FileNotFoundError as error:
            if not path.is_symlink():
                return None
            raise DataError(f"{path}: is a link to nothing", ALLOWED, "remove it, or give another --out") from error
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(
                f"{path}: {getattr(error, 'strerror', None) or error}", ALLOWED, "give another --out"
            ) from error
        if not isinstance(values, dict) or type(values.get("format")) is not int or values["format"] != FORMAT:
            raise DataError(f"{path}: is of another format", f"format {FORMAT}", "give another --out")
        texts = [values.get(name) for name in ("model", "sha256")]
        sources = values.get("sources")
        texts += sources if isinstance(sources, list) else [sources]
        if not isinstance(values.get("settings"), dict) or not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"{path}: is damaged: no model, sha256, settings and sources of their types",
                ALLOWED,
                "give another --out",
            )
        return values

    def save_settings(self, values: Mapping[str, Any]) -> None:
        """Save them; from here on the folder counts as one to resume. Raises StorageError."""
        write_text(self.path / SETTINGS, json.dumps({"format": FORMAT, **values}, indent=1) + "\n")

    # the plan

    def plan(self) -> list[Unit] | None:
        """The saved units; None where there are none yet. Raises DataError."""
        path = self.path / PLAN
        try:
            with open_regular(path) as file:
                totals = json.loads(file.readline())
                units = [Unit.parse(line) for line in file]
            if len(units) != totals["units"]:
                raise ValueError(f"{len(units)} units of {str(totals['units'])[:20]}")
            if len({unit.number for unit in units}) < len(units):
                raise ValueError("a unit that is there twice")
            return units
        except FileNotFoundError:
            return None
        except (*DAMAGED, OSError) as error:
            raise DataError(f"{path}: {_damage(error)}", ALLOWED, "restore it, or give another --out") from error

    def totals(self) -> tuple[dict[int, str], int]:
        """The fingerprint of each unit of the plan by its number, and the bytes of all; none where there is no plan yet.

        The units are not parsed: of millions of images that takes minutes. Raises DataError.
        """
        try:
            with open_regular(self.path / PLAN) as file:
                values = json.loads(file.readline())
                if not all(type(values[name]) is int and values[name] >= 0 for name in ("units", "bytes")):
                    raise ValueError("totals that are no counts")
                units = dict(map(identity, file))
            if len(units) != values["units"]:
                raise ValueError(f"{len(units)} units of {str(values['units'])[:20]}")
            return units, values["bytes"]
        except FileNotFoundError:
            return {}, 0
        except (*DAMAGED, OSError) as error:
            raise DataError(f"{self.path / PLAN}: {_damage(error)}", ALLOWED, "restore it") from error

    def save_plan(self, units: Sequence[Unit]) -> None:
        """Save the units. Raises StorageError."""
        totals = {"units": len(units), "bytes": sum(unit.size for unit in units)}
        with atomic_write(self.path / PLAN) as file:
            file.write(json.dumps(totals).encode() + b"\n")
            file.writelines(unit.line + b"\n" for unit in units)

    # the commit log

    def records(self) -> tuple[dict[int, Record], int, int]:
        """The last line of each unit in the log, the bytes that could be read, and the bytes of the file. Raises DataError."""
        result: dict[int, Record] = {}
        good = 0
        try:
            with open_regular(self.path / LOG) as file:
                for line in file:
                    record = _record(line)
                    if record is None:
                        break
                    result[record["unit"]] = record
                    good += len(line)
                return result, good, os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return {}, 0, 0
        except OSError as error:
            raise DataError(f"{self.path / LOG}: {error.strerror}", ALLOWED, "check its permissions") from error

    def committed(self) -> tuple[dict[int, Record], list[str]]:
        """The units whose rows are there, by number, and notes. The end of a line that a crash cut off is removed, and so
        are rows that are in no line. Raises DataError, StorageError."""
        records, good, size = self.records()
        notes = []
        if size > good:
            notes.append(
                f"{self.path / LOG}: {counted(size - good, 'byte')} at the end {'is' if size - good == 1 else 'are'} cut off, by a crash, or damaged; they are removed, and what "
                "they were of is answered again"
            )
            try:
                os.truncate(self.path / LOG, good)
            except OSError as error:
                raise storage_error(self.path / LOG, error) from error
        there: dict[str, int] = {}
        for folder, _, names in os.walk(self.path / ROWS):
            for name in filter(ROW_FILE.fullmatch, names):  # other files are somebody else's
                with contextlib.suppress(FileNotFoundError):
                    there[Path(folder, name).relative_to(self.path).as_posix()] = os.stat(
                        os.path.join(folder, name)
                    ).st_size
        kept = {number: each for number, each in records.items() if there.get(each["rows"]) == each["bytes"]}
        if len(kept) < len(records):
            notes.append(
                f"the rows of {counted(len(records) - len(kept), 'unit')} are gone or changed: they are answered again"
            )
        self._remove(there.keys() - {each["rows"] for each in kept.values()})
        return kept, notes

    def remove_rows(self, records: Iterable[Record]) -> None:
        """Remove the rows of lines of `committed`. Raises StorageError."""
        self._remove(each["rows"] for each in records)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                os.unlink(self.path / name)
            except OSError as error:
                raise storage_error(self.path / name, error) from error

    def commit(self, records: Iterable[Record]) -> None:
        """Add lines to the log, durably. Raises StorageError; the log is then as before."""
        data = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        path = self.path / LOG
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o666)
            try:
                before = os.fstat(handle).st_size
                try:
                    while data:
                        data = data[os.write(handle, data) :]
                    os.fsync(handle)
                except OSError:
                    os.ftruncate(handle, before)
                    raise
            finally:
                os.close(handle)
        except OSError as error:
            raise storage_error(path, error) from error

    # units that were given up

    def fail(self, unit: Unit, reason: str) -> None:
        """Give a unit up for this start. Raises StorageError."""
        self._failed.append({"unit": unit.number, "key": unit.entries()[0][0], "reason": reason})
        write_text(self.path / FAILED, "".join(json.dumps(each) + "\n" for each in self._failed))

    def forget_failed(self) -> None:
        """Those of the start before are tried again. Raises StorageError."""
        self._failed = []
        try:
            (self.path / FAILED).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(self.path / FAILED, error) from error

    def failed(self) -> tuple[str, ...]:
        """A line for each unit that the last start gave up. Raises DataError."""
        try:
            lines = [json.loads(line) for line in read_regular(self.path / FAILED).splitlines()]
            return tuple(f"unit {int(each['unit'])} ({each['key']}): {each['reason']}" for each in lines)
        except FileNotFoundError:
            return ()
        except (*DAMAGED, OSError) as error:
            raise DataError(f"{self.path / FAILED}: {_damage(error)}", ALLOWED, "remove it") from error

    # units that are handed out

    def hand_out(self, unit: Unit) -> None:
        """Put a unit where a worker can claim it. Raises StorageError."""
        path = self.path / WORK / PENDING / unit_name(unit.number)
        try:
            path.write_bytes(unit.line)
        except OSError as error:
            raise storage_error(path, error) from error

    def forget(self, number: int) -> None:
        """Remove what is left of a unit that was handed out: it is committed, or its worker is dead."""
        work = self.path / WORK
        for path in [work / PENDING / unit_name(number), work / CLAIMS / unit_name(number)]:
            with contextlib.suppress(OSError):
                path.unlink()


def claim(out: Path, number: int) -> Unit:
    """Take a unit that was handed out: of those who try to rename it, one can. Raises InputError for all others."""
    work, name = out / WORK, unit_name(number)
    try:
        os.rename(work / PENDING / name, work / CLAIMS / name)
        return Unit.parse((work / CLAIMS / name).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{work}: unit {number} cannot be claimed ({error})", "a folder that nobody else changes", "start it again"
        ) from error


def rows_name(number: int, suffix: str) -> str:
    """Where the rows of a unit are in the folder. In folders of EACH: a folder is listed at each write."""
    return f"{ROWS}/{number // EACH:03d}/{unit_name(number)}.{suffix}"


def unit_name(number: int) -> str:
    """The name of a unit's files."""
    return f"{number:06d}"


def _record(line: bytes) -> Record | None:
    """A line of the log; None where it is cut off or damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not all(_is_number(values.get(name, 0)) for name in TIMES):
        return None
    if not all(type(values.get(name)) is int and values[name] >= 0 for name in COUNTS):
        return None
    if not isinstance(values.get("doubtful", ""), str):  # older folders lack it
        return None
    return values if all(isinstance(values.get(name), str) for name in TEXTS) else None


def _damage(error: Exception) -> str:
    """What is wrong with a file that cannot be read, or not be understood."""
    if isinstance(error, OSError):
        return str(error.strerror or error)
    what = str(error) if isinstance(error, ValueError) else "values of another type, or missing"
    return f"is damaged: {what}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf and value >= 0

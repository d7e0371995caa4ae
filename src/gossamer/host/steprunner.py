"""Work in steps within so many minutes: each is done once, recorded in its folder, and replayed at the next start."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from gossamer.errors import GossamerError, StorageError
from gossamer.host.progress import Progress
from gossamer.host.stepfolder import StepFolder
from gossamer.host.text import minutes_text, short_minutes


class WorkerLost(GossamerError):
    """The process that did a step is gone: killed, as where the memory is not enough, or with its machine. lost: how often."""

    def __init__(self, message: str, lost: int = 1) -> None:
        super().__init__(message)
        self.lost = lost


@dataclass(frozen=True)
class FinishedStep:
    """A step: its name, what it tried, the seconds that it took, and why it failed, "" where it did not."""

    name: str
    what: str
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Step:
    """A step that may be done elsewhere: a function of a module with plain arguments. late, killed: as of `StepRunner.do`."""

    name: str
    what: str
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]
    late: bool = False
    killed: float = 0.0


class Workers(Protocol):
    """Processes that do steps side by side. count: how many steps at once. tries: of a step whose process is lost."""

    count: int
    tries: int

    def start(self, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> Any:
        """Begin a step; what names it in `first`."""

    def first(self, running: Sequence[Any], seconds: float) -> tuple[Any, Callable[[], dict[str, Any]]] | None:
        """One that has ended, and what gives its result or raises; None where none has within so many seconds.

        What is raised is WorkerLost where the process that did it is gone.
        """


class StepRunner:
    """The steps of a folder under way.

    done: the finished ones in order; values: what each has left. before: seconds of what earlier starts did. notes: gets
    a line where time runs out. fresh: whether this start has done a step: until then what was written is the later state.
    """

    def __init__(self, folder: StepFolder, minutes: float, progress: Progress, notes: list[str]) -> None:
        self.folder, self.minutes, self.progress, self.notes = folder, minutes, progress, notes
        self.done: list[FinishedStep] = []
        self.values: dict[str, dict[str, Any]] = {}
        self.out_of_time = self.fresh = False
        self.begun = time.monotonic()
        self.before = 0.0

    def record(self, name: str, what: str, values: dict[str, Any], seconds: float) -> None:
        """A step that was done elsewhere and is committed."""
        self.values[name] = values
        self.done.append(FinishedStep(name, what, seconds, values.get("error", "")))

    def do(
        self,
        name: str,
        what: str,
        action: Callable[[], dict[str, Any]],
        late: bool = False,
        took: Callable[[dict[str, Any]], float] | None = None,
        killed: float = 0.0,
    ) -> dict[str, Any] | None:
        """What a step leaves; of one that failed {"error": ...}; None where no time is left for it.

        late: whether it belongs to work that was begun, and is done all the same. took: the seconds that a step from an
        earlier start counts, by what it left; by default those that it took. killed: seconds of starts that were killed in it,
        which are in `before` already and kept for later starts. Raises StorageError, RunError.
        """
        known = self.folder.result(name)
        if known is None:
            if not late and self.left() <= 0:
                self.stop(what)
                return None
            of = f" of {short_minutes(self.minutes)}" if math.isfinite(self.minutes) else ""
            self.progress.say(f"step {len(self.done) + 1}: {what} ({self.spent() / 60:.1f}{of} minutes used)")
            self.folder.check_there()
            begun = time.monotonic()
            try:
                known = action()
            except StorageError:
                raise
            except Exception as error:
                known = _failed(error)
                self.progress.say(f"failed: {what}: {known['error']}; the next step follows")
            known = {**known, "what": what, "seconds": time.monotonic() - begun}
            known = self._commit(name, {**known, "killed": killed} if killed else known)
        else:
            self.before += elapsed(known) if took is None or "error" in known else took(known)
        self.record(name, known["what"], known, known["seconds"])
        return known

    def do_each(self, steps: Sequence[Step], workers: Workers | None = None) -> list[dict[str, Any] | None]:
        """What each of the steps leaves, as `do` has it: one after the other, or side by side in `workers`.

        A step whose worker is lost is begun again, `Workers.tries` times in all; "lost" in what it leaves says how often, and
        "given_up" that this was the reason why it failed.
        Raises StorageError, RunError; what was under way is then lost to its worker.
        """
        if workers is None:
            return [
                self.do(one.name, one.what, partial(one.function, *one.arguments), one.late, killed=one.killed)
                for one in steps
            ]
        results: dict[str, dict[str, Any] | None] = {}
        waiting: list[Step] = []
        for one in steps:
            if self.folder.result(one.name) is None:
                waiting.append(one)
            else:
                results[one.name] = self.do(one.name, one.what, dict)
        running: dict[Any, Step] = {}
        begun: dict[str, float] = {}  # of the first of its workers
        lost: Counter[str] = Counter()
        mark = time.monotonic()  # of the last result: side by side, seconds of steps are more than those that passed
        while waiting or running:
            while waiting and len(running) < workers.count:
                one = waiting.pop(0)
                if not one.late and self.left() <= 0:
                    self.stop(one.what)
                    results[one.name] = None
                    continue
                self.progress.say(f"begun: {one.what} ({self.spent() / 60:.1f} minutes used, {len(running)} beside it)")
                self.folder.check_there()
                begun.setdefault(one.name, time.monotonic())
                running[workers.start(one.function, one.arguments)] = one
            found = workers.first(list(running), 60.0) if running else None
            if found is None:
                continue
            one = running.pop(found[0])
            try:
                known = found[1]()
            except StorageError:
                raise
            except Exception as error:
                if isinstance(error, WorkerLost):
                    lost[one.name] += 1
                    if lost[one.name] < workers.tries:
                        self.progress.say(f"{error}; begun again: {one.what}")
                        waiting.insert(0, one)
                        continue
                    error = WorkerLost(f"{error}, the last of {lost[one.name]} times")
                known = _failed(error)
                self.progress.say(f"failed: {one.what}: {known['error']}")
            if lost[one.name]:
                known = {**known, "lost": lost[one.name]}
            now = time.monotonic()
            past = now - mark + one.killed / workers.count
            known = {**known, "what": one.what, "seconds": now - begun[one.name], "elapsed": past, "killed": one.killed}
            mark = now
            results[one.name] = self._commit(one.name, known)
            self.record(one.name, one.what, known, known["seconds"])
        return [results[one.name] for one in steps]

    def _commit(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        self.folder.commit(name, values)
        self.fresh = True
        return values

    def stop(self, what: str, needed: float = 0.0) -> None:
        """No time is left for a step, or less than the seconds that it will take."""
        self.out_of_time = True
        line = f"the {minutes_text(self.minutes, 'minutes are')} used up; not tried: {what}"
        if 0 < self.left() < needed:
            line = f"{self.left() / 60:.2g} of the {minutes_text(self.minutes)} are left, which are not enough; not tried: {what}"
        self.notes.append(line)
        self.progress.say(line)

    def spent(self) -> float:
        """Seconds of all starts."""
        return self.before + time.monotonic() - self.begun

    def left(self) -> float:
        """Seconds."""
        return self.minutes * 60 - self.spent()


def elapsed(values: dict[str, Any]) -> float:
    """Seconds that passed for a step of an earlier start, which are fewer than its own where others ran beside it."""
    return float(values.get("elapsed", values["seconds"] + values.get("killed", 0.0)))


def called(function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """In another process: what a function returns or, as plain values, the error that it raises."""
    try:
        return {"value": function(*arguments)}
    except GossamerError as error:
        return {"error": str(error), "exit_code": error.exit_code, "storage": isinstance(error, StorageError)}
    except MemoryError:
        return {"error": "the memory of the machine is not enough", "exit_code": 2, "storage": False}
    except Exception as error:  # the process goes on, and is not called lost
        return {"error": reason_of(error), "exit_code": 70, "storage": False}


def result_of(values: dict[str, Any]) -> dict[str, Any]:
    """What `called` has returned. Raises the error again."""
    if "error" in values:
        error = (StorageError if values["storage"] else GossamerError)(values["error"])
        error.exit_code = values["exit_code"]
        raise error
    result: dict[str, Any] = values["value"]
    return result


def _failed(error: Exception) -> dict[str, Any]:
    """What a step leaves that failed."""
    gone = {"lost": error.lost, "given_up": True} if isinstance(error, WorkerLost) else {}
    return {"error": reason_of(error), **gone}


def reason_of(error: Exception) -> str:
    """One line on why a step failed."""
    if isinstance(error, GossamerError):
        return str(error)
    return " ".join(f"a defect of gossamer: {type(error).__name__}: {error}".split())[:300]

"""Work in steps within so many minutes: each is done once, recorded in its folder, and replayed at the next start."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gossamer.errors import GossamerError, StorageError
from gossamer.host.progress import Progress
from gossamer.host.stepfolder import StepFolder


@dataclass(frozen=True)
class FinishedStep:
    """A step: its name, what it tried, the seconds that it took, and why it failed, "" where it did not."""

    name: str
    what: str
    seconds: float
    error: str = ""


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
    ) -> dict[str, Any] | None:
        """What a step leaves; of one that failed {"error": ...}; None where no time is left for it.

        late: whether it belongs to work that was begun, and is done all the same. took: the seconds that a step from an
        earlier start counts, by what it left; by default those that it took. Raises StorageError, RunError.
        """
        known = self.folder.result(name)
        if known is None:
            if not late and self.left() <= 0:
                self.stop(what)
                return None
            self.progress.say(
                f"step {len(self.done) + 1}: {what} ({self.spent() / 60:.1f} of {self.minutes:g} minutes used)"
            )
            begun = time.monotonic()
            try:
                known = action()
            except StorageError:
                raise
            except Exception as error:
                known = {"error": reason_of(error)}
                self.progress.say(f"failed: {what}: {known['error']}; the next step follows")
            known = {**known, "what": what, "seconds": time.monotonic() - begun}
            self.folder.commit(name, known)
            self.fresh = True
        else:
            self.before += float(known["seconds"]) if took is None or "error" in known else took(known)
        self.record(name, known["what"], known, known["seconds"])
        return known

    def stop(self, what: str) -> None:
        """No time is left for a step."""
        self.out_of_time = True
        line = f"the {self.minutes:g} minutes are used up; not tried: {what}"
        self.notes.append(line)
        self.progress.say(line)

    def spent(self) -> float:
        """Seconds of all starts."""
        return self.before + time.monotonic() - self.begun

    def left(self) -> float:
        """Seconds."""
        return self.minutes * 60 - self.spent()


def reason_of(error: Exception) -> str:
    """One line on why a step failed."""
    if isinstance(error, GossamerError):
        return str(error)
    return " ".join(f"a defect of gossamer: {type(error).__name__}: {error}".split())[:300]

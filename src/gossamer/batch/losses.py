"""Units whose workers are lost: tried again, alone, and given up; a worker may run out of memory at what is in one of them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from gossamer.batch.folder import AnswerFolder
from gossamer.batch.plan import Unit
from gossamer.errors import GossamerError
from gossamer.host.progress import one_line

MOST_LOSSES = 2  # of workers at one unit, until it is given up for this start
MOST_KILLS = 10  # of workers without a unit answered between them, until the whole stops; or all of them and one more
ADVICE = "where the memory is not enough, try fewer --workers or a smaller --batch"


class Queue:
    """The units of a start that wait for a worker. count: of workers; ahead: the most units of each. left: units that are not done with."""

    def __init__(self, folder: AnswerFolder, units: Sequence[Unit], count: int, ahead: int) -> None:
        self.folder, self.count, self.ahead = folder, count, ahead
        self.left = len(units)
        self._waiting = deque(units)
        self._lost: Counter[int] = Counter()
        self._alone: set[int] = (
            set()
        )  # a worker that was lost had these: the next one that has one of them has no other
        self._in_a_row = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def give(self, units: list[Unit], send: Callable[[Unit], None]) -> None:
        """Hand units out to a worker that has `units`, to which they are added. Raises StorageError."""
        while self._waiting and len(units) < (self.ahead if len(self._waiting) > self.count else 1):
            if units and (self._waiting[0].number in self._alone or units[0].number in self._alone):
                return
            unit = self._waiting.popleft()
            self.folder.hand_out(unit)
            units.append(unit)
            send(unit)

    def answered(self) -> None:
        """A unit is in the log."""
        self.left -= 1
        self._in_a_row = 0

    def back(self, units: Sequence[Unit]) -> None:
        """Units of a worker that has not begun them wait again, before the others."""
        for unit in reversed(units):
            self.folder.forget(unit.number)
            self._waiting.appendleft(unit)

    def lost(self, units: Sequence[Unit], why: str) -> str:
        """A worker is lost, with these units, the first of them begun: they wait again, behind the others; a line to be said.

        why: after "its worker was", such as "ended by SIGKILL". A unit that loses a second worker is given up. Raises
        GossamerError where nothing was answered between too many of them, StorageError.
        """
        self._in_a_row += 1
        most = max(MOST_KILLS, self.count + 1)  # a machine that is lost takes all of its workers with it
        if self._in_a_row >= most:
            at = f" at {_name(units[0])}" if units else ""
            raise GossamerError(
                f"{most} workers were lost with no unit answered between them, the last one{at} was {why}; {ADVICE}"
            )
        again = list(units)
        for unit in units:
            self.folder.forget(unit.number)
        line = f"a worker was {one_line(why)}: another one takes its place"
        if units:
            first = units[0]
            self._lost[first.number] += 1
            line = f"a worker was {one_line(why)}: another one takes its unit"
            if self._lost[first.number] >= MOST_LOSSES:
                reason = f"its worker was lost {MOST_LOSSES} times, the last time {why}; {ADVICE}"
                self.folder.fail(first, reason)
                self.left -= 1
                again = again[1:]
                line = f"{_name(first)} is given up: {one_line(reason)}"
        self._alone |= {unit.number for unit in again}
        self._waiting.extend(again)
        return line


def _name(unit: Unit) -> str:
    """A unit on one line, whatever the name of its first file is."""
    return f"unit {unit.number} ({one_line(unit.entries()[0][0])})"

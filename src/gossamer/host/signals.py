"""A polite kill and a terminal that closes, for every command: they end it as Ctrl-C does; who is killed where memory lacks."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Generator
from types import FrameType

from gossamer.errors import Interrupted

NAMES = ("SIGTERM", "SIGHUP")  # of those that a system has


def goes_first() -> None:
    """Let the system end this process before others where its memory is not enough: its parent starts another one."""
    with contextlib.suppress(OSError):
        handle = os.open("/proc/self/oom_score_adj", os.O_WRONLY)  # Linux's; 1000 is the most
        try:
            os.write(handle, b"500")
        finally:
            os.close(handle)


@contextlib.contextmanager
def ends_as_interrupts() -> Generator[None]:
    """Within it SIGTERM and SIGHUP raise Interrupted, so that temporary files go, workers end and what was found is kept.

    One that is ignored, as SIGHUP is under nohup, stays so. In a thread that is not the main one nothing is changed: signals
    are the caller's business there.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {}
    try:
        for number in numbers:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: not from Python, and not to be restored
                before[number] = signal.signal(number, stop)
    except ValueError:
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

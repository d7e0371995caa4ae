"""Files are written as ever, but nothing waits until the disk has them: no test takes the power away.

A training waits some twenty-five times, for a third of its time where it is as short as those of the tests.
"""

from __future__ import annotations

import os


def do_not_wait_for_the_disk() -> None:
    """Make `os.fsync` of this process, and of those that it forks, refuse what is not open and do nothing else."""

    def fsync(handle: int) -> None:
        os.fstat(handle)

    os.fsync = fsync  # type: ignore[assignment]

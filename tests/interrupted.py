"""A training that is interrupted after a number of steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gossamer.training import loop


@contextmanager
def interrupted_after(steps: int) -> Iterator[None]:
    """What trains within is interrupted as by Ctrl-C when `steps` steps are done; fails where it is not."""
    step, count = loop._step, 0

    def counted(*arguments: Any) -> None:
        nonlocal count
        if count == steps:
            raise KeyboardInterrupt
        count += 1
        step(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_step", counted)
        yield

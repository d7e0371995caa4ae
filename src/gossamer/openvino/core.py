"""The one `openvino.Core` of a process."""

from __future__ import annotations

import functools
import threading
from types import ModuleType
from typing import Any

_ONE_AT_A_TIME = threading.Lock()  # a cache alone calls what it keeps once in each thread that comes before it is there


def core_of(openvino: ModuleType) -> Any:
    """The `openvino.Core` of this process, made at the first call and kept until it ends.

    Each core's CPU plugin gives the thread that loads it a stack for signal handlers, and puts that of the core before back when it
    goes. Where that one has gone first, the stack is memory that was freed, and the next signal, such as Ctrl-C, ends
    the process by a segmentation fault (OpenVINO 2026.4).
    """
    with _ONE_AT_A_TIME:
        return _made(openvino)


@functools.cache
def _made(openvino: ModuleType) -> Any:
    return openvino.Core()

"""Milliseconds of modules, measured in turn so that a busy machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn


class Time(NamedTuple):
    """Median and quartiles, in milliseconds."""

    median: float
    low: float
    high: float


def measure(
    modules: Sequence[tuple[nn.Module, tuple[int, ...]]],
    *,
    rounds: int = 15,
    calls: int = 3,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[Time]:
    """Each module in eval mode on an input of its shape, on one thread: rounds of `calls` calls each, in turn.

    clock: nanoseconds; `time.thread_time_ns` leaves out the time that other processes take.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    times: list[list[float]] = [[] for _ in modules]
    try:
        with torch.inference_mode():
            prepared = [(module.eval(), torch.randn(*shape)) for module, shape in modules]
            for number in range(rounds + 1):
                for (module, x), mine in zip(prepared, times):
                    for _ in range(calls):
                        start = clock()
                        module(x)
                        if number:  # the first round warms up
                            mine.append((clock() - start) / 1e6)
    finally:
        torch.set_num_threads(before)
    quartiles = (statistics.quantiles(mine, n=4, method="inclusive") for mine in times)
    return [Time(middle, low, high) for low, middle, high in quartiles]

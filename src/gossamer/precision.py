"""Which arithmetic is fastest here: times a few training steps of each candidate on this machine.

No setting wins everywhere: on a CPU with bfloat16 units, bf16 in channels_last is the fastest at 224x224 and
slower than float32 at 32x32, where the layers are too small to pay for the conversions.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.settings import Settings

PRECISIONS = ("float32", "bf16")
FORMATS = ("channels_first", "channels_last")


@dataclass(frozen=True)
class Choice:
    """What was chosen, and the seconds a step of every candidate that was timed."""

    precision: str
    memory_format: str
    seconds: dict[str, float]

    def __str__(self) -> str:
        timed = ", ".join(f"{name} {value * 1e3:.0f} ms" for name, value in self.seconds.items())
        return f"precision {self.precision}, {self.memory_format}" + (f" (a step: {timed})" if timed else " (as set)")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16 autocast where `precision` says so."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def as_format(value: Any, memory_format: str) -> Any:
    """A module or an (N, C, H, W) tensor in the memory format."""
    return value.to(memory_format=torch.channels_last if memory_format == "channels_last" else torch.contiguous_format)


def choose(
    settings: Settings,
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
) -> Choice:
    """The fastest of the candidates that `settings` leaves open; `model` itself is not touched.

    images: (N, C, H, W) float32 on the model's device, of the size and number of a real step. targets: (N,) int64.
    """
    precisions = PRECISIONS if settings.precision == "auto" else (settings.precision,)
    formats = FORMATS if settings.memory_format == "auto" else (settings.memory_format,)
    candidates = [(precision, memory_format) for memory_format in reversed(formats) for precision in precisions]
    if len(candidates) == 1:
        return Choice(*candidates[0], {})
    seconds: dict[tuple[str, str], float] = {}
    for candidate in candidates:
        best = min(seconds.values(), default=float("inf"))
        seconds[candidate] = _time_steps(candidate, model, images, targets, loss, optimizer, best)
    winner = min(seconds, key=lambda candidate: seconds[candidate])
    return Choice(*winner, {f"{precision} {form}": value for (precision, form), value in seconds.items()})


def _time_steps(
    candidate: tuple[str, str],
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    best: float,
) -> float:
    """Seconds of the fastest of a few steps; a candidate far behind `best` is not timed further."""
    precision, memory_format = candidate
    trial = as_format(copy.deepcopy(model), memory_format).train()
    images = as_format(images, memory_format)
    updates = optimizer(trial)
    times: list[float] = []
    while len(times) < 2 or (sum(times[1:]) < 1.0 and len(times) < 12):
        started = time.perf_counter()
        with autocast(images.device, precision):
            outputs = trial(images)
        value = loss(outputs, targets).mean()
        updates.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        updates.step()
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        times.append(time.perf_counter() - started)
        if min(times) > 2 * best:  # even the warm-up tells enough
            break
    return min(times[1:] or times)

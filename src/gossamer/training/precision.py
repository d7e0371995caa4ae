"""Which arithmetic is fastest here: times a few training steps of each candidate on this machine.

No setting wins everywhere: on a CPU with bfloat16 units, bf16 in channels_last is the fastest at 224x224 and
slower than float32 at 32x32, where the layers are too small to pay for the conversions. Nor do more threads: a small
network on a machine that others use too can be faster on one.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gossamer.settings import Settings

PRECISIONS = ("float32", "bf16")
FORMATS = ("channels_last", "channels_first")
BEHIND = 1.3  # a candidate so many times slower than the best is not timed further
STEPS, ENOUGH = (3, 8), 1.5  # steps a candidate at least and at most, in between so many seconds


class PrecisionCandidate(NamedTuple):
    """One way to compute a step."""

    precision: str
    memory_format: str
    threads: int

    def __str__(self) -> str:
        return f"{self.precision} {self.memory_format}, {self.threads} thread{'s' if self.threads != 1 else ''}"


class Choice(NamedTuple):
    """The candidate chosen, and the seconds a step of every one that was timed."""

    candidate: PrecisionCandidate
    seconds: dict[str, float]

    def __str__(self) -> str:
        timed = ", ".join(f"{name}: {value * 1e3:.0f} ms" for name, value in self.seconds.items())
        return f"precision {self.candidate}" + (f" (a step takes {timed})" if timed else " (as set)")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16 autocast where `precision` says so."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has arithmetic for bf16; what has none emulates it, at a fiftieth of float32's speed and less."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # the question that torch asks itself before it hands a convolution to oneDNN
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def as_format(value: Any, memory_format: str) -> Any:
    """A module or an (N, C, H, W) tensor in the memory format."""
    return value.to(memory_format=torch.channels_last if memory_format == "channels_last" else torch.contiguous_format)


def choose_precision(
    settings: Settings,
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
) -> Choice:
    """The fastest of the candidates that `settings` leaves open; `model` itself is not touched.

    images: (N, C, H, W) float32 on the model's device, of the size and number of a real step. targets: (N,) int64.
    Threads are open where `settings.threads` is 0, on a CPU: all that torch has now, or one. bf16 is no candidate where
    the device only emulates it: its first step can take minutes.
    """
    every = torch.get_num_threads()
    able = PRECISIONS if computes_bf16(images.device) else ("float32",)
    precisions = able if settings.precision == "auto" else (settings.precision,)
    formats = FORMATS if settings.memory_format == "auto" else (settings.memory_format,)
    open_threads = settings.threads == 0 and not images.is_cuda and every > 1
    seconds: dict[PrecisionCandidate, float] = {}

    def fastest(candidates: list[PrecisionCandidate]) -> PrecisionCandidate:
        if len(candidates) == 1:
            return candidates[0]
        seconds.update(_time_in_turn(candidates, model, images, targets, loss, optimizer))
        return min(seconds, key=lambda candidate: seconds[candidate])

    try:
        best = fastest([PrecisionCandidate(p, form, every) for form in formats for p in precisions])
        if open_threads:
            best = fastest([best, best._replace(threads=1)])
    finally:
        torch.set_num_threads(every)
    return Choice(best, {str(candidate): value for candidate, value in seconds.items()})


def _time_in_turn(
    candidates: list[PrecisionCandidate],
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
) -> dict[PrecisionCandidate, float]:
    """Seconds of the fastest step of each candidate.

    They take turns, so that another load on the machine hits all of them. The first step of each only warms up:
    it pays for memory and kernels that are new.
    """
    steps = {c: _stepper(c, model, images, targets, loss, optimizer) for c in candidates}
    for step in steps.values():
        step()
    times: dict[PrecisionCandidate, list[float]] = {candidate: [] for candidate in candidates}
    left = candidates
    for number in range(1, STEPS[1] + 1):
        for candidate in left:
            times[candidate].append(steps[candidate]())
        best = min(min(times[candidate]) for candidate in left)
        left = [candidate for candidate in left if min(times[candidate]) < BEHIND * best]
        if len(left) == 1 or (number >= STEPS[0] and sum(times[left[0]]) > ENOUGH):
            break
    return {candidate: min(times[candidate]) for candidate in candidates}


def _stepper(
    candidate: PrecisionCandidate,
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
) -> Callable[[], float]:
    """A function that does one training step on a copy of the model, and tells its seconds."""
    trial = as_format(copy.deepcopy(model), candidate.memory_format).train()
    inputs = as_format(images, candidate.memory_format)
    updates = optimizer(trial)

    def step() -> float:
        if torch.get_num_threads() != candidate.threads:
            torch.set_num_threads(candidate.threads)
        started = time.perf_counter()
        with autocast(inputs.device, candidate.precision):
            outputs = trial(inputs)
        updates.zero_grad(set_to_none=True)
        torch.autograd.backward(loss(outputs, targets, inputs).mean())
        updates.step()
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        return time.perf_counter() - started

    return step

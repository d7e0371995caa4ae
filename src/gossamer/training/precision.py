"""Which arithmetic is fastest here: times a few training steps of each candidate on this machine, within a limit.

No setting wins everywhere: on a CPU with bfloat16 units, bf16 in channels_last is the fastest at 224x224 and
slower than float32 at 32x32, where the layers are too small to pay for the conversions. Nor do more threads: a small
network on a machine that others use too can be faster on one.

The limit holds on a busy machine too: a timed step is of a few images, each candidate differs in one respect from the best
so far, and what there is no time for is not compared. What is most often the fastest comes first.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gossamer.host import machine
from gossamer.host.text import counted, thread_count
from gossamer.settings import Settings

PRECISIONS = ("float32", "bf16")
FORMATS = ("channels_last", "channels_first")
LIMIT = 4.0  # seconds for all timed steps; with the batch that is read for them it stays below 5
THREADS_LIMIT = 2.0  # where only the threads are open
FIRST = 2  # images of the first step, which tells how many a timed step may have; a batch norm needs two
STEP = 0.15  # seconds that a timed step should take: shorter ones say too little about a whole batch
ROUNDS = 5  # timed steps of a candidate at most
CLEAR = 1.3  # one step so many times slower than the other ends the comparison of the two
BETTER = 0.97  # a candidate must take less than this of the time of the one before it
# instruction sets that compute bf16; other processors convert to float32 and back at every operation, which never pays
BF16_ISA = ("avx512_bf16", "amx_bf16", "neon_bf16")


class PrecisionCandidate(NamedTuple):
    """One way to compute a step."""

    precision: str
    memory_format: str
    threads: int

    def __str__(self) -> str:
        return f"{self.precision} {self.memory_format}, {thread_count(self.threads)}"


class PrecisionChoice(NamedTuple):
    """The candidate chosen, and the seconds that a step of `images` images took with every one that was timed.

    known: precision and memory format are those of an earlier run. untried: what there was no time for.
    """

    candidate: PrecisionCandidate
    seconds: dict[str, float]
    images: int = 0
    known: bool = False
    untried: tuple[PrecisionCandidate, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether precision and memory format, which do not depend on other work, were compared with all others."""
        return all(other[:2] == self.candidate[:2] for other in self.untried)

    def __str__(self) -> str:
        timed = ", ".join(f"{name}: {value * 1e3:.0f} ms" for name, value in self.seconds.items())
        notes = [f"a step of {counted(self.images, 'image')} takes {timed}"] if timed else []
        notes += ["precision and memory format as timed in an earlier run"] if self.known else []
        notes += [f"no time to try {'; '.join(map(str, self.untried))}"] if self.untried else []
        return f"precision {self.candidate} ({'; '.join(notes) or 'as set'})"


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


def pays_bf16(device: torch.device) -> bool:
    """Whether bf16 can be faster than float32: the device has arithmetic for it, a CPU instructions of its own."""
    if not computes_bf16(device):
        return False
    isa = machine.describe_machine()["isa"] if device.type == "cpu" else None
    return isa is None or any(name in isa for name in BF16_ISA)


def choose_precision(
    settings: Settings,
    model: nn.Module,
    images: Tensor,
    targets: Any,
    loss: Callable[[Tensor, Any, Tensor], Tensor],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    *,
    known: tuple[str, str] | None = None,
    limit: float | None = None,
) -> PrecisionChoice:
    """The fastest of the candidates that `settings` leaves open; `model` itself is not touched.

    images: (N, C, H, W) float32 on the model's device, of the size and number of a real step; targets: N of them. On a
    CPU, where all of them would take long, the first few are timed. known: precision and memory format of an earlier
    run, so that only the threads are left, which depend on what else the machine does. limit: seconds for all of it,
    default LIMIT, or THREADS_LIMIT where the rest is known; one step of two images is taken whatever it takes.

    Threads are open where `settings.threads` is 0, on a CPU: all that torch has now, or one. bf16 is no candidate where
    it cannot pay.
    """
    every = torch.get_num_threads()
    precisions = _open(settings.precision, PRECISIONS if pays_bf16(images.device) else PRECISIONS[:1])
    formats = _open(settings.memory_format, FORMATS)
    if known:
        precisions, formats = (known[0],), (known[1],)
    usual = PrecisionCandidate(precisions[0], formats[0], every)
    changes: list[dict[str, Any]] = []
    best = usual
    if settings.threads == 0 and not images.is_cuda and every > 1:
        # begun with one: threads that wait for one another can take a hundred times as long on a busy machine
        best = usual._replace(threads=1)
        changes.append({"threads": every})
    changes += [{"precision": name} for name in precisions[1:]] + [{"memory_format": name} for name in formats[1:]]
    if not changes:
        return PrecisionChoice(usual, {}, known=known is not None)
    began, used = time.perf_counter(), time.process_time()
    deadline = began + ((THREADS_LIMIT if known else LIMIT) if limit is None else limit)
    # a loss may keep what it has seen first in the model beside which it stands, as the balance of several heads does
    kept = {name: value.clone() for name, value in model.named_buffers()}

    def stepper(candidate: PrecisionCandidate, count: int, until: float) -> Callable[[], float]:
        return _stepper(candidate, model, images[:count], targets[:count], loss, optimizer, until)

    seconds: dict[str, float] = {}
    untried: list[PrecisionCandidate] = []
    count = 0
    try:
        count = _count_to_time(stepper, best, len(images), deadline, images.is_cuda)
        champion = stepper(best, count, deadline)
        champion()
        for number, change in enumerate(changes):
            rival = best._replace(**change)
            now = time.perf_counter()
            until = now + (deadline - now) / (len(changes) - number)  # a share of the time that is left
            mine, theirs = _duel(champion, stepper(rival, count, until), until)
            if theirs is None:
                untried.append(rival)
                continue
            seconds[str(best)] = min(mine, seconds.get(str(best), mine))
            seconds[str(rival)] = theirs
            if theirs < BETTER * mine:
                best, champion = rival, stepper(rival, count, deadline)
    except _TimeUp:  # not even two images
        if not _others_work(time.perf_counter() - began, time.process_time() - used):
            best = usual  # a large network, which gains from threads
        count = 0
        untried = [best._replace(**change) for change in changes]
    finally:
        torch.set_num_threads(every)
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(kept[name])
    return PrecisionChoice(best, seconds, count, known is not None, tuple(untried))


def _others_work(wall: float, used: float) -> bool:
    """Whether other processes had the cores while one thread of this one computed. Both in seconds; used: of a processor."""
    return used < 0.6 * wall


class _TimeUp(Exception):
    """The limit has come in the middle of a step."""


def _open(value: str, every: tuple[str, ...]) -> tuple[str, ...]:
    return every if value == "auto" else (value,)


def _count_to_time(
    stepper: Callable[[PrecisionCandidate, int, float], Callable[[], float]],
    candidate: PrecisionCandidate,
    most: int,
    deadline: float,
    all_of_them: bool,
) -> int:
    """How many images a timed step should have. Raises _TimeUp."""
    if all_of_them:
        return most
    count = min(FIRST, most)
    step = stepper(candidate, count, deadline)
    took = step()  # pays for memory and kernels that are new as well
    if took < STEP * 10:
        took = step()
    return min(most, max(count, int(count * STEP / max(took, 1e-4))))


def _duel(one: Callable[[], float], other: Callable[[], float], until: float) -> tuple[float, float | None]:
    """Seconds of the fastest step of each; None where there was no time for the other, which then is slower or unknown.

    They take turns, so that another load on the machine hits both. The first step of the other only warms up: it pays
    for memory and kernels that are new.
    """
    ours, theirs = [math.inf], []
    try:
        other()
        for _ in range(ROUNDS):
            ours.append(one())
            theirs.append(other())
            fast, slow = sorted((min(ours), min(theirs)))
            if slow > CLEAR * fast or time.perf_counter() + ours[-1] + theirs[-1] >= until:
                break
    except _TimeUp:
        pass
    return min(ours), min(theirs, default=None)


def _stepper(
    candidate: PrecisionCandidate,
    model: nn.Module,
    images: Tensor,
    targets: Any,
    loss: Callable[[Tensor, Any, Tensor], Tensor],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    until: float,
) -> Callable[[], float]:
    """A function that does one training step on a copy of the model, and tells its seconds.

    It raises _TimeUp where a layer, forwards or backwards, would begin after `until` on the clock of perf_counter.
    """
    trial = as_format(copy.deepcopy(model), candidate.memory_format).train()
    inputs = as_format(images, candidate.memory_format)
    updates = optimizer(trial)

    def check(*_: Any) -> None:
        if time.perf_counter() > until:
            raise _TimeUp

    def watch(layer: nn.Module, inputs_of_layer: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(check)  # type: ignore[no-untyped-call]

    for layer in trial.modules():
        if not list(layer.children()):
            layer.register_forward_pre_hook(check)
            layer.register_forward_hook(watch)

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

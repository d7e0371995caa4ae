"""Which arithmetic is fastest here: times a few training steps of each candidate on this machine, within a limit.

No setting wins everywhere: on a CPU with bfloat16 units, bf16 in channels_last is the fastest at 224x224 and
slower than float32 at 32x32, where the layers are too small to pay for the conversions. Nor do more threads: a small
network on a machine that others use too can be faster on one.

The limit holds on a busy machine too: timed steps are of few images, each candidate differs in one respect from the best so
far, and what there is no time for is not compared. Steps of two numbers of images tell what each image costs and what each step,
as bf16 converts all weights once a step: what is compared is a step of all images by that line. One thread is timed by the
processor that it had, which other work does not change.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
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
APART = 2  # how many times as many images the longer of two steps has at least, to tell what an image costs
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
    """The candidate chosen, and the seconds of a step of `images` images with every one that was timed.

    timed: how many images the timed steps had, one number or two; where none is `images`, the seconds are worked out from
    them. known: precision and memory format are those of an earlier run. untried: what there was no time for.
    """

    candidate: PrecisionCandidate
    seconds: dict[str, float]
    images: int = 0
    timed: tuple[int, ...] = ()
    known: bool = False
    untried: tuple[PrecisionCandidate, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether precision and memory format, which do not depend on other work, were compared with all others."""
        return all(other[:2] == self.candidate[:2] for other in self.untried)

    def __str__(self) -> str:
        each = ", ".join(f"{name}: {value * 1e3:.0f} ms" for name, value in self.seconds.items())
        worked_out = self.images not in self.timed
        how = f", by steps of {' and '.join(map(str, self.timed))}" if worked_out else ""
        takes = "takes about" if worked_out else "takes"
        notes = [f"a step of {counted(self.images, 'image')} {takes} {each}{how}"] if each else []
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
    # the threads last: the others gain more, and a busy machine, where time is short, is none for threads
    changes: list[dict[str, Any]] = [{"precision": name} for name in precisions[1:]]
    changes += [{"memory_format": name} for name in formats[1:]]
    best = usual
    if settings.threads == 0 and not images.is_cuda and every > 1:
        # begun with one: threads that wait for one another can take a hundred times as long on a busy machine
        best = usual._replace(threads=1)
        changes.append({"threads": every})
    if not changes:
        return PrecisionChoice(usual, {}, known=known is not None)
    began, used = time.perf_counter(), time.process_time()
    deadline = began + ((THREADS_LIMIT if known else LIMIT) if limit is None else limit)
    # a loss may keep what it has seen first in the model beside which it stands, as the balance of several heads does
    kept = {name: value.clone() for name, value in model.named_buffers()}

    def trial(candidate: PrecisionCandidate, until: float) -> _Trial:
        return _Trial(candidate, model, images, targets, loss, optimizer, until)

    seconds: dict[str, float] = {}
    untried: list[PrecisionCandidate] = []
    counts: tuple[int, ...] = ()
    try:
        champion = trial(best, deadline)
        counts = _counts_to_time(champion, len(images), images.is_cuda)
        champion.warm_up(counts)
        for number, change in enumerate(changes):
            rival = best._replace(**change)
            now = time.perf_counter()
            until = now + (deadline - now) / (len(changes) - number)  # a share of the time that is left
            by_processor = rival.threads == best.threads == 1 and not images.is_cuda
            mine, theirs = _duel(champion, trial(rival, until), counts, by_processor, until)
            if theirs is None:
                untried.append(rival)
                continue
            seconds.setdefault(str(best), mine)
            seconds[str(rival)] = theirs
            if theirs < BETTER * mine:
                best, champion = rival, trial(rival, deadline)
    except _TimeUp:  # not even two images
        if not _others_work(time.perf_counter() - began, time.process_time() - used):
            best = usual  # a large network, which gains from threads
        counts = ()
        untried = [best._replace(**change) for change in changes]
    finally:
        torch.set_num_threads(every)
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(kept[name])
    return PrecisionChoice(best, seconds, len(images), counts, known is not None, tuple(untried))


def _others_work(wall: float, used: float) -> bool:
    """Whether other processes had the cores while one thread of this one computed. Both in seconds; used: of a processor."""
    return used < 0.6 * wall


class _TimeUp(Exception):
    """The limit has come in the middle of a step."""


def _open(value: str, every: tuple[str, ...]) -> tuple[str, ...]:
    return every if value == "auto" else (value,)


def _counts_to_time(champion: _Trial, most: int, all_of_them: bool) -> tuple[int, ...]:
    """How many images timed steps should have: two numbers, or one where that is all or where more take too long. Raises _TimeUp."""
    if all_of_them or most <= FIRST:
        return (most,)
    took = champion.step(FIRST)  # pays for memory and kernels that are new as well
    if took.wall < STEP * 10:
        took = champion.step(FIRST)
    one = took.used if champion.candidate.threads == 1 else took.wall
    many = min(most, int(FIRST * STEP / max(one, 1e-4)))
    if many == most:
        return (most,)
    return (FIRST, many) if many >= APART * FIRST else (max(FIRST, many),)


def _duel(
    one: _Trial, other: _Trial, counts: tuple[int, ...], by_processor: bool, until: float
) -> tuple[float, float | None]:
    """Seconds of a step of all images with each; None where there was no time for the other, which then is slower or unknown.

    They take turns, so that another load on the machine hits both. The first steps of the other only warm up: they pay
    for memory and kernels that are new. by_processor: seconds of the processor, else on the clock.
    """
    one.forget()
    try:
        other.warm_up(counts)
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for count in counts:
                one.step(count)
                other.step(count)
            ours, theirs = one.of_all(counts, by_processor), other.of_all(counts, by_processor)
            now = time.perf_counter()
            if max(ours, theirs) > CLEAR * min(ours, theirs) or 2 * now - began >= until:
                break
    except _TimeUp:
        pass
    if not all(other.took.get(count) for count in counts):
        return 0.0, None
    return one.of_all(counts, by_processor), other.of_all(counts, by_processor)


class _StepTime(NamedTuple):
    """Seconds on the clock, and of the processor that the thread had: its share where it computes alone."""

    wall: float
    used: float


class _Trial:
    """Training steps on a copy of the model, and what they took by their number of images."""

    def __init__(
        self,
        candidate: PrecisionCandidate,
        model: nn.Module,
        images: Tensor,
        targets: Any,
        loss: Callable[[Tensor, Any, Tensor], Tensor],
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        until: float,
    ) -> None:
        self.candidate, self.images, self.targets, self.loss = candidate, images, targets, loss
        self.took: dict[int, list[_StepTime]] = {}
        self.network = as_format(copy.deepcopy(model), candidate.memory_format).train()
        self.updates = optimizer(self.network)

        def check(*_: Any) -> None:
            if time.perf_counter() > until:
                raise _TimeUp

        def watch(layer: nn.Module, inputs_of_layer: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad:
                output.register_hook(check)  # type: ignore[no-untyped-call]

        for layer in self.network.modules():
            if not list(layer.children()):
                layer.register_forward_pre_hook(check)
                layer.register_forward_hook(watch)

    def step(self, count: int) -> _StepTime:
        """One step of so many images. Raises _TimeUp where a layer, forwards or backwards, would begin after `until`."""
        if torch.get_num_threads() != self.candidate.threads:
            torch.set_num_threads(self.candidate.threads)
        inputs, targets = as_format(self.images[:count], self.candidate.memory_format), self.targets[:count]
        wall, used = time.perf_counter(), time.thread_time()
        with autocast(inputs.device, self.candidate.precision):
            outputs = self.network(inputs)
        self.updates.zero_grad(set_to_none=True)
        torch.autograd.backward(self.loss(outputs, targets, inputs).mean())
        self.updates.step()
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        took = _StepTime(time.perf_counter() - wall, time.thread_time() - used)
        self.took.setdefault(count, []).append(took)
        return took

    def warm_up(self, counts: tuple[int, ...]) -> None:
        """A step of each number, which does not count. Raises _TimeUp."""
        for count in counts:
            self.step(count)
        self.forget()

    def forget(self) -> None:
        """Time anew."""
        self.took.clear()

    def of_all(self, counts: tuple[int, ...], by_processor: bool) -> float:
        """Seconds of a step of all images, by the fastest steps of each number."""
        least = [min(each.used if by_processor else each.wall for each in self.took[count]) for count in counts]
        return on_line(counts, least, len(self.images))


def on_line(counts: Sequence[int], seconds: Sequence[float], every: int) -> float:
    """Seconds of a step of `every` images, by those of one number of images, or of two.

    Of two: on the line through both, where more images take longer; of one: as many times as long.
    """
    if len(counts) == 1:
        return seconds[0] * every / counts[0]
    an_image = max(0.0, seconds[1] - seconds[0]) / (counts[1] - counts[0])
    return seconds[1] + (every - counts[1]) * an_image

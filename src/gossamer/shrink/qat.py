"""Training a network with the roundings of its int8 file, the float network as teacher (quantisation-aware training).

It begins at the calibrated network: scales, biases and all. Source: Jacob et al. 2018 (arXiv 1712.05877), section 3; with the float
network as teacher as Mishra and Marr 2018 (arXiv 1711.05852), section 3.3.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gossamer.data.loader import Batch, Batches, prefetch
from gossamer.data.source import Data
from gossamer.errors import InputError, SettingsError
from gossamer.host.progress import SILENT, Progress
from gossamer.host.text import metric_name
from gossamer.shrink.fake_quant import FakeQuantised, TorchGraph
from gossamer.shrink.graph import OnnxGraph
from gossamer.shrink.qdq import QuantisationChoice
from gossamer.tasks.base import Task
from gossamer.tasks.distillation.heads import HeadTerm, head_terms
from gossamer.training.restore import LoadedRun
from gossamer.training.setup import keep_memory

LEARNING_RATE = 0.02  # of Adam: rounding steps of a weight that one update moves it at most
RANGES = 0.05  # of that, for the logarithm of a range's scale: 0.1 % an update
EVALUATIONS = 8  # in the whole training, evenly spread

Score = Callable[[OnnxGraph, QuantisationChoice], float]


@dataclass(frozen=True)
class QatSettings:
    """How long it trains: minutes on the clock, scoring among them, or epochs, which depend on no clock; one of the two.

    lr: rounding steps of a weight that one update moves it at most, at the beginning; it falls to 0 along a cosine.
    """

    minutes: float | None = None
    epochs: float | None = None
    lr: float = LEARNING_RATE

    def __post_init__(self) -> None:
        """Raises SettingsError."""
        if (self.minutes is None) == (self.epochs is None):
            raise SettingsError("QAT without minutes or epochs, or with both", "one of them", "give one")
        for what, value, low, high in (
            ("minutes", self.minutes, 0.001, 1e6), ("epochs", self.epochs, 0.001, 1e6), ("learning rate", self.lr, 1e-6, 10),
        ):  # fmt: skip
            if value is not None and (isinstance(value, bool) or not (math.isfinite(value) and low <= value <= high)):
                raise SettingsError(f"QAT with {what} {value}", f"{low:g} to {high:g}", "give such a number")


@dataclass(frozen=True)
class QatResult:
    """What the training came to. before, after: the score of the int8 file without it, and of the best state.

    kept: whether that state was taken, which is where it scores no lower; after is as before where no state has a score. steps: updates; seconds: on the clock; losses and scores: of
    each evaluation.
    """

    settings: QatSettings
    before: float
    after: float
    kept: bool
    steps: int
    images: int
    seconds: float
    losses: tuple[float, ...]
    scores: tuple[float, ...]

    def text(self, score: str) -> str:
        """A line for people."""
        done = f"QAT: {self.steps} updates in {self.seconds / 60:.1f} min, {metric_name(score)} of the int8 file {self.before:.4f} -> {self.after:.4f}"
        if self.kept:
            return done + ", kept"
        return done + (
            ", not kept, as it is lower" if self.after < self.before else ", not kept, as no state has a score"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def train_quantised(
    parent: OnnxGraph,
    graph: OnnxGraph,
    choice: QuantisationChoice,
    loaded: LoadedRun,
    data: Data,
    settings: QatSettings,
    score: Score,
    progress: Progress = SILENT,
) -> tuple[OnnxGraph, QuantisationChoice, QatResult]:
    """The graph and the choice after training, or those given where no trained state scores as high.

    parent: the float graph, the teacher. loaded, data: the run that it is of, loaded with its data. score: of the file of a graph and a choice,
    higher is better. Raises InputError for a network or a loss that cannot be trained so, DataError for images that cannot be read.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_memory()
    task = _task(loaded, device)
    teacher, network = TorchGraph(parent, device), FakeQuantised(graph, choice, device)
    terms, _ = head_terms(task.heads(), task.heads(), loaded.settings, str(loaded.run.path))
    clock = _Clock(settings, len(_epoch(loaded, data, 0)))
    before = clock.timed(lambda: score(graph, choice))
    optimizer = torch.optim.Adam(
        [{"params": list(network.parameters())}, {"params": list(network.factors.values())}], lr=settings.lr, eps=1e-12
    )
    best, best_state = -math.inf, network.state()
    losses: list[float] = []
    scores: list[float] = []
    total, count, steps, images = 0.0, 0, 0, 0
    with closing(_batches(loaded, data)) as parts:
        for part in progress.track(parts, clock.steps, "QAT"):
            rate = _rate(settings.lr, clock.fraction(steps))
            optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate, rate * RANGES
            loss = _loss(network, teacher, part, loaded, terms)
            value = float(loss.detach())
            optimizer.zero_grad(set_to_none=True)
            if math.isfinite(value):
                torch.autograd.backward(loss)
            if not math.isfinite(value) or not _finite_gradients(optimizer):  # one such update would make all NaN
                what = "a gradient is NaN or infinite" if math.isfinite(value) else f"the loss is {value}"
                progress.say(f"QAT: {what} at update {steps + 1}: stopped; the best state until then counts")
                break
            optimizer.step()
            total, count, steps, images = total + value, count + 1, steps + 1, images + len(part.indices)
            if not clock.evaluation_is_due(steps):
                continue
            now = clock.timed(lambda: score(*network.written()))
            losses.append(total / count)
            scores.append(now)
            total, count = 0.0, 0
            done = min(1.0, clock.fraction(steps))
            name = metric_name(task.score)
            progress.say(
                f"QAT {done:.0%}: loss {losses[-1]:.4f}, {name} of the int8 file {now:.4f} (without QAT {before:.4f})"
            )
            if now > best:
                best, best_state = now, network.state()
            if done >= 1:
                break
    kept = best > -math.inf and not best < before  # NaN is no score
    result = QatResult(
        settings,
        before,
        best if best > -math.inf else before,
        kept,
        steps,
        images,
        clock.elapsed(),
        tuple(losses),
        tuple(scores),
    )
    if not kept:
        return graph, choice, result
    network.restore(best_state)
    return (*network.written(), result)


def _rate(lr: float, done: float) -> float:
    """The learning rate of a fraction of the training: a cosine, 0 from its end on."""
    return lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _finite_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Whether all gradients are numbers."""
    norms = [one.grad.norm() for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
    return not norms or bool(torch.isfinite(torch.stack(norms)).all())


class _Clock:
    """Where the training stands. steps: of all, None where the time alone ends it."""

    def __init__(self, settings: QatSettings, steps_per_epoch: int) -> None:
        self.steps = None if settings.epochs is None else max(1, round(settings.epochs * steps_per_epoch))
        self.seconds = None if settings.minutes is None else settings.minutes * 60
        self.started, self.evaluation, self.due = time.perf_counter(), 0.0, 0.0

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self.started

    def timed(self, evaluate: Callable[[], float]) -> float:
        """What `evaluate` gives; how long it takes is what the next one is expected to take."""
        began = time.perf_counter()
        value = evaluate()
        self.evaluation = time.perf_counter() - began
        return value

    def fraction(self, steps: int) -> float:
        """The part that is done after so many updates."""
        if self.steps is not None:
            return steps / self.steps
        assert self.seconds is not None, "one of the two is set"
        return (self.elapsed() + self.evaluation) / self.seconds

    def evaluation_is_due(self, steps: int) -> bool:
        """Whether another part of the training is over. With minutes all evaluations take a quarter of them at most."""
        count = EVALUATIONS
        if self.seconds is not None and self.evaluation:
            count = max(1, min(count, int(self.seconds / 4 / self.evaluation)))
        part = int(min(1.0, self.fraction(steps)) * count) / count
        if part <= self.due:
            return False
        self.due = part
        return True


def check_loss(loaded: LoadedRun) -> None:
    """Raises InputError where the loss of a run needs more than outputs."""
    if loaded.settings.head_weights == "gradnorm":
        raise InputError(
            f"{loaded.run.path}: QAT with head_weights gradnorm, which compares gradients within the network",
            "fixed or uncertainty",
            "quantise it without QAT",
        )


def _task(loaded: LoadedRun, device: torch.device) -> Task:
    """The task of the run on the device; nothing of it is trained."""
    check_loss(loaded)
    loaded.model.to(device).requires_grad_(False)  # with it a loss that has weights of its own
    for module in loaded.task.frozen_modules():
        module.to(device).eval().requires_grad_(False)
    return loaded.task


def _epoch(loaded: LoadedRun, data: Data, epoch: int) -> Batches:
    """The batches of an epoch, augmented as those of the run. Raises DataError."""
    settings, source = loaded.settings, data.train
    batches = Batches(
        source,
        loaded.task.transform(loaded.preprocess, source),
        loaded.task.order(source, epoch),
        max(1, settings.batch // settings.accumulate),
        seed=settings.seed,
        epoch=epoch,
        drop_last=True,
        max_unreadable=settings.max_unreadable,
    )
    if not len(batches):
        raise InputError(f"{loaded.run.path}: QAT with no training images", "one batch at least", "give another run")
    return batches


def _batches(loaded: LoadedRun, data: Data) -> Generator[Batch, None, None]:
    """The batches of epoch after epoch, for as long as they are asked for. Raises InputError for an epoch that has none."""
    for epoch in itertools.count():
        empty = True
        with closing(prefetch(_epoch(loaded, data, epoch), workers=loaded.settings.workers or 0)) as parts:
            for batch in parts:
                empty = False
                yield batch
        if empty:  # no image could be read: the next epoch would have none either
            raise InputError(
                f"{loaded.run.path}: QAT with no image that can be read", "one batch at least", "check the images"
            )


def _loss(
    network: FakeQuantised, teacher: TorchGraph, part: Batch, loaded: LoadedRun, terms: Sequence[HeadTerm]
) -> Tensor:
    """The mean over a batch of the task's loss and of what the float network teaches."""
    task = loaded.task
    images = torch.from_numpy(loaded.preprocess.normalise(part.pixels)).to(network.device)
    images = images.to(memory_format=torch.channels_last)
    with torch.no_grad():
        predicted = teacher.run(images)
    outputs = network(images)
    targets = part.targets if isinstance(part.targets, list) else torch.from_numpy(part.targets).to(network.device)
    given: Any = next(iter(outputs.values())) if task.name == "classify" else outputs
    values = task.loss(given, targets, images)
    taught = torch.stack([term(outputs, predicted, targets) for term in terms]).sum(0)
    return (values + loaded.settings.distil_weight * taught).mean()

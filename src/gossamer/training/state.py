"""All that a running training holds, where it stands, and what it feeds to the network."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gossamer.data.augment import Transform
from gossamer.data.cache import Cache
from gossamer.data.joint import JointTransform
from gossamer.data.loader import Batch, Batches
from gossamer.data.mix import MixPlan
from gossamer.data.source import Data
from gossamer.host.progress import Progress
from gossamer.images.preprocess import Preprocess
from gossamer.run import Run
from gossamer.settings import Settings
from gossamer.tasks.base import Task, progressive_size
from gossamer.training import optim, precision
from gossamer.training.distributed import Processes
from gossamer.training.teacher import Teacher


@dataclass
class Counters:
    """Where a run stands. All of it is saved with the state, so all of it survives a kill. Times are in seconds."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    bad_epochs: int = 0
    finished: str = ""
    # of the last step, before the groups' own scales; a state of format 1 has none
    lr: float = 0.0
    # of the input's sides in this epoch
    input_scale: float = 1.0
    # sums since the last evaluation
    loss_sum: float = 0.0
    images: int = 0
    data_seconds: float = 0.0
    step_seconds: float = 0.0


@dataclass
class Session:
    """All that a running training holds. `model` is the plain network; `runner` may wrap it."""

    run: Run
    settings: Settings
    data: Data
    device: torch.device
    processes: Processes
    progress: Progress
    task: Task
    model: nn.Module
    runner: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: optim.Schedule
    preprocess: Preprocess
    table: Tensor
    transform: Transform | JointTransform
    teacher: Teacher | None = None
    average: optim.Average | None = None
    cache: Cache | None = None
    val_cache: Cache | None = None
    counters: Counters = field(default_factory=Counters)
    rows: list[dict[str, Any]] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    interrupted: int = 0  # the signal that ended the run, 0: none
    evaluation_seconds: float = 0.0  # of the last one
    steps_since_start: int = 0  # of this process
    until: float = 1.0  # the fraction of the run at which it is left, to be resumed

    def say(self, line: str) -> None:
        """A line for the person and the log."""
        if self.processes.first:
            self.progress.say(line)
            self.run.log(line)

    def batches(self, epoch: int) -> Batches:
        """The batches of an epoch at `counters.input_scale` of the input size; `accumulate` of them make a step."""
        settings, source, transform = self.settings, self.data.train, self.transform
        size = progressive_size(self.preprocess.size, self.counters.input_scale)
        if size != self.preprocess.size:
            transform = self.task.transform(dataclasses.replace(self.preprocess, size=size), source)
        return Batches(
            source,
            transform,
            self.task.order(source, epoch),
            settings.batch // settings.accumulate,
            rank=self.processes.rank,
            world=self.processes.world,
            seed=settings.seed,
            epoch=epoch,
            drop_last=True,
            cache=self.cache,
            max_unreadable=settings.max_unreadable,
            partners=settings.mixup > 0 or settings.cutmix > 0,
        )

    def images(self, pixels: NDArray[np.uint8]) -> Tensor:
        """The network's input, (n, C, H, W) float32 in the memory format, of uint8 (n, H, W, C).

        The values are those of `Preprocess.normalise`, by the same table, on any device.
        """
        if self.device.type == "cpu":
            images = torch.from_numpy(self.preprocess.normalise(pixels))
        else:  # one byte per value to the device, and the look-up there
            there = torch.from_numpy(pixels).to(self.device, non_blocking=True).long()
            images = torch.stack([self.table[c][there[..., c]] for c in range(there.shape[-1])], 1)
        result: Tensor = precision.as_format(images, self.settings.memory_format)
        return result

    def mixed(self, part: Batch, plan: MixPlan | None) -> tuple[Tensor, Any, Tensor | None, float]:
        """Images, targets, the targets mixed in (None without mixing), and the weight of the images' own targets."""
        if isinstance(part.targets, list):  # the task knows what they are
            return self.images(part.pixels), part.targets, None, 1.0
        targets = torch.from_numpy(part.targets).to(self.device)
        if plan is None:
            return self.images(part.pixels), targets, None, 1.0
        pixels, others = part.partners()
        if plan.box:
            top, left, bottom, right = plan.box
            blended = part.pixels.copy()
            blended[:, top:bottom, left:right] = pixels[:, top:bottom, left:right]
            images = self.images(blended)
        else:
            images = torch.lerp(self.images(pixels), self.images(part.pixels), plan.lam)
        return images, targets, torch.from_numpy(others).to(self.device), plan.lam

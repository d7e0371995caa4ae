"""What every task is to the training loop: data, a network, a loss, a score. The loop knows no task by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gossamer.blocks.gates import gate_cost
from gossamer.data.augment import Transform
from gossamer.data.joint import JointTransform
from gossamer.data.open import ReadTable, apply_split, open_data, open_source
from gossamer.data.source import Data, Source
from gossamer.data.split import Row
from gossamer.data.tasks import reader_of
from gossamer.errors import SettingsError
from gossamer.images.preprocess import Preprocess
from gossamer.predictions.head import OutputHead
from gossamer.settings import Settings
from gossamer.tasks.scores import Scorer


class Task(ABC):
    """A task for `settings` and the classes of its data.

    score: the metric by which the best epoch is chosen. losses: the names that `--loss` may have, the default first.
    geometry: the resize that `auto` stands for. mixes: whether mixup and CutMix make sense. caches: whether images can come
    from a cache, which holds no targets but classes. supports_progressive: whether training may begin at a smaller input. head_names: the names that `--head` may have.
    """

    name: ClassVar[str]
    score: ClassVar[str]
    losses: ClassVar[tuple[str, ...]]
    geometry: ClassVar[str] = "squash"
    mixes: ClassVar[bool] = False
    caches: ClassVar[bool] = False
    supports_progressive: ClassVar[bool] = True
    head_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, classes: tuple[str, ...], settings: Settings) -> None:
        self.classes, self.settings = classes, settings

    # data

    @classmethod
    def reader(cls, settings: Settings) -> ReadTable:
        """How the data are read with these settings, with their targets, not yet split. Its calls raise DataError."""
        return reader_of(cls.name, settings)

    @classmethod
    def open_data(cls, settings: Settings) -> Data:
        """The data of the settings, split. Raises DataError."""
        val_share, seed = settings.val_share, settings.seed
        return open_data(settings.data, val=settings.val, val_share=val_share, seed=seed, read=cls.reader(settings))

    @classmethod
    def open_source(cls, root: str, classes: tuple[str, ...], settings: Settings, split: str = "") -> Source:
        """Images to be scored, of `split` if named, with the class numbers of `classes`. Raises DataError."""
        return open_source(root, classes, split, read=cls.reader(settings))

    @classmethod
    def apply_split(cls, settings: Settings, rows: Sequence[Row], classes: tuple[str, ...]) -> Data:
        """The data of the settings, with the split that a run has saved. Raises DataError."""
        return apply_split(settings.data, rows, val=settings.val, classes=classes, read=cls.reader(settings))

    @classmethod
    def resolve(cls, settings: Settings, data: Data) -> Settings:
        """The settings with what only this task knows decided. Raises SettingsError."""
        return settings

    @classmethod
    def resize_for(cls, settings: Settings) -> str:
        """The resize that `auto` stands for with these settings. Raises DataError, SettingsError."""
        return cls.geometry

    def prepare(self, data: Data) -> None:  # noqa: B027 (most tasks need nothing)
        """Look at the training data before the first step, for weights of classes and the like."""

    # the network

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with fresh weights. In evaluation mode it outputs what `heads` read: a tensor, or several by name.

        Raises UnknownNameError, SettingsError, MissingPackageError.
        """

    @abstractmethod
    def heads(self) -> tuple[OutputHead, ...]:
        """How the outputs are read. Raises SettingsError where the network's sizes are not known yet."""

    # training

    def transform(self, preprocess: Preprocess, source: Source) -> Transform | JointTransform:
        """From training images to pixels, and to targets where they follow the geometry."""
        from gossamer.data.augment import TrainTransform
        from gossamer.data.frames import FrameTransform

        transform = TrainTransform(preprocess, self.settings)
        return FrameTransform(transform, self.settings.frames) if self.settings.frames else transform

    def order(self, source: Source, epoch: int) -> NDArray[np.int64]:
        """The images of an epoch, by their indices."""
        return source.order(epoch, self.settings.seed, self.settings.sampler)

    @abstractmethod
    def loss(self, outputs: Any, targets: Any, images: Tensor) -> Tensor:
        """One loss per image, (N,) float32, of the network's outputs in training mode.

        images: what the network saw, (N, C, H, W) float32, after mixing and at the size of this epoch.
        """

    def cost(self, model: nn.Module) -> Tensor | None:
        """What is added to the mean loss of a step for what `model` computed in it, (), or None: that of hard gates."""
        cost = gate_cost(model, self.settings.gate_target)
        return None if cost is None else self.settings.gate_weight * cost

    def frozen_modules(self) -> Sequence[nn.Module]:
        """Modules that the loss runs but does not train, such as a teacher; called after `build`, always the same.

        The loop puts them on the device, in evaluation mode and without gradients. They are no part of the network, so
        neither the state nor the shipped weights hold them: the task makes them again when a run is resumed.
        """
        return ()

    def watch(self, outputs: Any) -> str:
        """A line where the training goes wrong in a way that the loss does not show; "" elsewhere."""
        return ""

    # scoring

    @abstractmethod
    def scorer(self) -> Scorer:
        """The scorer of predictions on images."""


def check_loss(task: type[Task], settings: Settings) -> str:
    """The name of the loss. Raises SettingsError where the task has no such loss."""
    if settings.loss == "auto":
        return task.losses[0]
    if settings.loss not in task.losses:
        raise SettingsError(
            f"loss {settings.loss} for the task {task.name}", ", ".join(task.losses), "choose one of these losses"
        )
    return settings.loss


def check_head(task: type[Task], settings: Settings) -> None:
    """Raises SettingsError where the task has no such head."""
    if settings.head != "auto" and settings.head not in task.head_names:
        allowed = ", ".join(task.head_names) or "none"
        raise SettingsError(f"head {settings.head} for the task {task.name}", allowed, "choose one of these heads")


def progressive_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) of a progressive run's input at `scale` of its sides: multiples of 8 pixels, or the full size."""
    height, width = (min(side, max(8, 8 * round(side * scale / 8))) for side in size)
    return (height, width) if scale < 1 else size


def sized(settings: Settings) -> tuple[int, int]:
    """(height, width) of the network's input, of resolved settings."""
    size = settings.input_size()
    assert size is not None, "settings must be resolved"
    return size


def stacked(size: tuple[int, int], settings: Settings) -> tuple[int, int]:
    """(height, width) of the network's input where a frame has `size`: frames lie one below the other."""
    return size[0] * max(1, settings.frames), size[1]

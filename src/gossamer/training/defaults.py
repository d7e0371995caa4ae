"""Settings that are chosen by the data where the user says nothing, and why; measured in benchmarks/README.md."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from gossamer.host.text import counted
from gossamer.networks.registry import traits
from gossamer.settings import Settings

SMALL = 64  # pixels: a larger side is no small image
LEARNT = 400  # steps that a network of random weights needs to learn anything at all
MOST_EPOCHS = 100.0
USUAL_EPOCHS = 20.0


class Chosen(NamedTuple):
    """A setting with the value chosen for it, and the reason in a few words."""

    name: str
    value: Any
    reason: str

    def __str__(self) -> str:
        shown = {True: "on", False: "off"}.get(self.value, self.value) if isinstance(self.value, bool) else self.value
        shown = f"{shown:g}" if isinstance(shown, float) else shown
        return f"chosen: {self.name.replace('_', '-')} {shown} ({self.reason})"


def choose(settings: Settings, size: tuple[int, int], images: int) -> list[Chosen]:
    """What the user has left open. size: (height, width) of the input in pixels; images: for training."""
    small = max(size) <= SMALL
    chosen = []
    if settings.input == "auto":
        chosen.append(Chosen("input", f"{size[0]}x{size[1]}", "by the shorter sides of the images"))
    if settings.small_input is None:
        own = traits(settings.net)
        fits = small and own.takes_small_input
        reason = ""
        if fits and max(own.input[1:]) > SMALL:  # a network that was made for small images changes nothing
            reason = f"the first strides of {settings.net} would leave too little of {size[0]}x{size[1]} pixels"
        chosen.append(Chosen("small_input", fits, reason))
    if settings.crop == "auto":
        if small and settings.task == "classify" and not _shapes_its_crops(settings):
            chosen.append(Chosen("crop", "padded", "small images lose too much by random resized crops"))
        else:
            chosen.append(Chosen("crop", "random_resized", ""))
    if settings.epochs is None and settings.minutes is None:
        chosen.append(_epochs(settings, images))
    return chosen


def _shapes_its_crops(settings: Settings) -> bool:
    """Whether the user has set how random resized crops are drawn."""
    usual = Settings()
    return (settings.crop_scale, settings.crop_ratio) != (usual.crop_scale, usual.crop_ratio)


def _epochs(settings: Settings, images: int) -> Chosen:
    """USUAL_EPOCHS, or more where so few images are few steps."""
    steps = max(1, images // settings.batch)
    needed = float(min(MOST_EPOCHS, math.ceil(LEARNT / steps)))
    if settings.weights or needed <= USUAL_EPOCHS:
        return Chosen("epochs", USUAL_EPOCHS, "")
    return Chosen("epochs", needed, f"{counted(steps, 'step')} per epoch: {round(needed * steps)} steps in all")

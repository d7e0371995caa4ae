"""mixup and CutMix: what one batch blends, drawn separately from how it is applied.

Every sample is blended with the one behind it in the global batch, the last with the first, as torchvision's MixUp
and CutMix do: the order of the epoch is random already. A process that has one slice of the batch then needs only one
sample more, the first of the next slice, so any number of processes computes the same blend (`Batch.partners`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gossamer.data.streams import MIX, stream


@dataclass(frozen=True)
class MixPlan:
    """How a batch is blended.

    lam: weight of a sample's own target; its partner's is 1 - lam. box: None for mixup, where the pixels are weighted
    as the targets; (top, left, bottom, right) for CutMix, where the box holds the partner's pixels.
    """

    lam: float
    box: tuple[int, int, int, int] | None


def mix_plan(seed: int, epoch: int, step: int, mixup: float, cutmix: float, size: tuple[int, int]) -> MixPlan | None:
    """The plan of one batch of the epoch; None where both are off. Where both are on, each has every second batch
    (at random).

    mixup, cutmix: alpha of lam ~ Beta(alpha, alpha): Zhang et al. 2018 (arXiv:1710.09412), section 2, and Yun et al.
    2019 (arXiv:1905.04899), section 3.1. size: (height, width) of the input. In CutMix, lam is the fraction of the area that the box
    leaves after it is clipped to the image.
    """
    if not mixup and not cutmix:
        return None
    rng = stream(seed, epoch, step, MIX)
    boxed = bool(cutmix) and (not mixup or rng.random() < 0.5)
    alpha = cutmix if boxed else mixup
    lam = float(rng.beta(alpha, alpha))
    if not boxed:
        return MixPlan(lam, None)
    height, width = size
    down, across = (int(side * math.sqrt(1 - lam)) for side in size)
    top, left = int(rng.integers(height)) - down // 2, int(rng.integers(width)) - across // 2
    box = max(0, top), max(0, left), min(height, top + down), min(width, left + across)
    return MixPlan(1 - (box[2] - box[0]) * (box[3] - box[1]) / (height * width), box)

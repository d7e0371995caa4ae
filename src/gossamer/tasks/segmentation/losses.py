"""Segmentation losses, one value per image, whose mean is the loss of the batch.

Logits (N, K, h, w) are up-sampled to the masks' size, bilinear, corners not aligned. Masks (N, H, W) hold class
numbers, and IGNORED where a pixel has no say. A batch without any pixel that has one costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gossamer.errors import SettingsError, UnknownNameError
from gossamer.predictions.masks import IGNORED

LossName = Literal["cross_entropy", "ohem", "dice"]
LOSSES = ("cross_entropy", "ohem", "dice")
OHEM_THRESHOLD, OHEM_FRACTION = 0.7, 1 / 16


@dataclass
class SegmentationLoss:
    """({"logits": (N, K, h, w)}, masks (N, H, W) integers) -> (N,) float32.

    loss: one of LOSSES. weights: (K,) per class, for cross-entropy. label_smoothing: of cross-entropy. dice: factor of a
    Dice loss that is added. Raises UnknownNameError, SettingsError.
    """

    loss: LossName = "cross_entropy"
    weights: Tensor | None = None
    label_smoothing: float = 0.0
    dice: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UnknownNameError("segmentation loss", self.loss, LOSSES)
        if self.dice < 0 or not 0 <= self.label_smoothing < 1:
            offending = f"dice {self.dice!r}, label_smoothing {self.label_smoothing!r}"
            raise SettingsError(offending, "dice of 0 or more, label_smoothing from 0 to below 1", "check the settings")

    def __call__(self, outputs: dict[str, Tensor], masks: Tensor) -> Tensor:
        masks = masks.long()
        logits = upsampled(outputs["logits"], masks)
        if self.weights is not None:
            self.weights = self.weights.to(logits.device)
        if self.loss == "dice":
            values = dice(logits, masks)
        elif self.loss == "ohem":
            values = ohem(logits, masks, weights=self.weights, smoothing=self.label_smoothing)
        else:
            values = pixel_cross_entropy(logits, masks, weights=self.weights, smoothing=self.label_smoothing)
        return values + self.dice * dice(logits, masks) if self.dice and self.loss != "dice" else values


def upsampled(logits: Tensor, masks: Tensor) -> Tensor:
    """Logits at the masks' size in float32: (N, K, h, w), (N, H, W) -> (N, K, H, W)."""
    return F.interpolate(logits.float(), size=masks.shape[-2:], mode="bilinear", align_corners=False)


def pixel_cross_entropy(
    logits: Tensor, masks: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of the pixels, with label smoothing over all classes: (N, K, H, W), (N, H, W) -> (N,).

    The mean over the images is the sum over all pixels of the batch, each times its class's weight, over the sum of
    those weights: what torch's own cross-entropy gives for the batch, so an image with few labelled pixels counts little.
    """
    pixels, weight_map = _pixels(logits, masks, weights, smoothing)
    return _normalised(pixels, weight_map)


def ohem(
    logits: Tensor,
    masks: Tensor,
    *,
    threshold: float = OHEM_THRESHOLD,
    fraction: float = OHEM_FRACTION,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of the hard pixels only: (N, K, H, W), (N, H, W) -> (N,).

    Hard are pixels whose loss is that of a probability below `threshold`, and at least the `fraction` of an image's labelled
    pixels, the hardest. Source: online bootstrapping, Wu et al. 2016 (1605.06885), section 3.2, after Shrivastava et
    al. 2016 (1604.03540).
    """
    pixels, weight_map = _pixels(logits, masks, weights, smoothing)
    labelled = masks.flatten(1) != IGNORED
    with torch.no_grad():
        hardest = pixels.masked_fill(~labelled, -math.inf).sort(dim=1, descending=True).values
        count = (labelled.sum(1) * fraction).ceil().long().clamp_min(1)
        least = hardest.gather(1, count[:, None] - 1).clamp_max(-math.log(threshold))
        hard = labelled & (pixels >= least)
    return _normalised(pixels * hard, weight_map * hard)


def dice(logits: Tensor, masks: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - the mean Dice coefficient of the classes that each image's mask has: (N, K, H, W), (N, H, W) -> (N,).

    (2 * sum(p * y) + smooth) / (sum(p) + sum(y) + smooth), p the softmax, over labelled pixels; an image without any
    costs nothing. Source: V-Net (1606.04797), section 3, without squaring in the denominator.
    """
    labelled = (masks != IGNORED)[:, None]
    probabilities = logits.softmax(1) * labelled
    truth = F.one_hot(masks.where(labelled[:, 0], 0), logits.shape[1]).permute(0, 3, 1, 2) * labelled
    both, either = (probabilities * truth).sum((2, 3)), (probabilities + truth).sum((2, 3))
    present = truth.sum((2, 3)) > 0
    missed = (1 - (2 * both + smooth) / (either + smooth)) * present
    return missed.sum(1) / present.sum(1).clamp_min(1)


def _pixels(logits: Tensor, masks: Tensor, weights: Tensor | None, smoothing: float) -> tuple[Tensor, Tensor]:
    """(N, H * W) weighted losses, 0 where ignored, and the weights they count with in a mean."""
    values = F.cross_entropy(
        logits, masks, weights, ignore_index=IGNORED, reduction="none", label_smoothing=smoothing
    ).flatten(1)
    labelled = masks != IGNORED
    if weights is None:
        weight_map = labelled.to(values.dtype)
    else:
        weight_map = weights[masks.where(labelled, 0)] * labelled
    return values, weight_map.flatten(1)


def _normalised(pixels: Tensor, weight_map: Tensor) -> Tensor:
    """Sums per image over the mean of the images' sums of weights, so that their mean is the batch's weighted mean."""
    total = weight_map.sum() / len(weight_map)
    return pixels.sum(1) / total.clamp_min(torch.finfo(total.dtype).tiny)

"""Single-label classification: network and loss; its score is in `scores.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.data.open import Data
from gossamer.networks.base import Outputs
from gossamer.predictions.head import OutputHead
from gossamer.tasks import losses
from gossamer.tasks.backbone import network
from gossamer.tasks.base import Task
from gossamer.tasks.frames import FrameClassifier, frames_of
from gossamer.tasks.scores import ClassScorer


class Classify(Task):
    """The classification task for `classes` with the losses of `settings`."""

    name, score = "classify", "accuracy"
    losses = ("cross_entropy", "bce", "focal")
    geometry = "crop"
    mixes = caches = True
    weights: Tensor | None = None

    def prepare(self, data: Data) -> None:
        """Weigh the classes by their counts, where the settings say so."""
        counts = np.bincount(data.train.labels, minlength=len(self.classes)).tolist()
        self.weights = losses.class_weights(self.settings.class_weights, counts)

    def build(self) -> nn.Module:
        """The network with a classifier of one output per class. Raises UnknownNameError, SettingsError."""
        frames = frames_of(self.settings)
        if frames:
            return FrameClassifier(network(self.settings, 1), frames, len(self.classes))
        return network(self.settings, len(self.classes))

    def heads(self) -> tuple[OutputHead, ...]:
        return (OutputHead("classify", self.classes),)

    def scorer(self) -> ClassScorer:
        return ClassScorer(self.classes)

    def loss(self, outputs: Tensor | Outputs, targets: Tensor, images: Tensor) -> Tensor:
        """One loss per sample: (N, K) logits, (N,) int64 -> (N,) float32.

        Auxiliary classifiers add theirs at `aux_weight` each: GoogLeNet (1409.4842), section 5.
        """
        settings = self.settings
        if isinstance(outputs, Outputs):
            extra = torch.stack([self.loss(logits, targets, images) for logits in outputs.aux]).sum(0)
            return self.loss(outputs.logits, targets, images) + settings.aux_weight * extra
        smoothing, over = settings.label_smoothing, settings.smoothing_over
        if settings.loss == "bce":
            values = losses.binary_cross_entropy(outputs, targets, smoothing, over)
        elif settings.loss == "focal":
            values = losses.focal(outputs, targets, settings.focal_gamma, smoothing, over)
        else:
            values = losses.cross_entropy(outputs, targets, smoothing, over)
        if self.weights is None:
            return values
        self.weights = self.weights.to(values.device)
        return values * self.weights[targets]


def mixed_loss(
    task: Task, outputs: Any, targets: Any, images: Tensor, others: Tensor | None = None, weight: float = 1.0
) -> Tensor:
    """The loss of mixed images: weight * loss(targets) + (1 - weight) * loss(others), (N,); plain without others.

    mixup: Zhang et al. 2017, arXiv 1710.09412, equation 2; CutMix: Yun et al. 2019, arXiv 1905.04899, equation 1.
    """
    own = task.loss(outputs, targets, images)
    return own if others is None else weight * own + (1 - weight) * task.loss(outputs, others, images)

"""Single-label classification: network and loss; its score is in `scores.py`."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.blocks.activation import Activation
from gossamer.errors import SettingsError
from gossamer.networks import create_model
from gossamer.networks.base import Outputs
from gossamer.settings import Settings, parse_options
from gossamer.tasks import losses


class Classify:
    """The classification task for `classes` with the losses of `settings`."""

    def __init__(self, classes: tuple[str, ...], settings: Settings, counts: list[int] | None = None) -> None:
        self.classes, self.settings = classes, settings
        balanced = settings.class_weights == "balanced" and counts is not None
        self.weights = losses.balanced_weights(counts) if balanced and counts else None

    def build(self, pretrained: str = "") -> nn.Module:
        """The network with a classifier of one output a class. Raises UnknownNameError, SettingsError, WeightsError."""
        settings = self.settings
        network: nn.Module = create_model(
            settings.net,
            num_classes=len(self.classes),
            in_chans=settings.in_chans,
            width=settings.width,
            small_input=bool(settings.small_input),
            drop_rate=settings.drop_rate,
            drop_path_rate=settings.drop_path_rate,
            output_stride=settings.output_stride,
            act=typing.cast(Activation | None, settings.act or None),  # checked where it is used
            norm=settings.norm or None,
            norm_eps=settings.norm_eps,
            pretrained=pretrained,
            **self._options(),
        )
        return network

    def _options(self) -> dict[str, Any]:
        """The options of the family. Raises SettingsError for those that have a setting of their own."""
        options = parse_options(self.settings.net_options)
        own = sorted(set(options) & set(inspect.signature(create_model).parameters))
        if own:
            raise SettingsError(
                f"net_options: {own[0]} is not of one family only", "arguments of the family", f"use --{own[0]} instead"
            )
        return options

    def loss(self, outputs: Tensor | Outputs, targets: Tensor) -> Tensor:
        """One loss a sample: (N, K) logits, (N,) int64 -> (N,) float32.

        Auxiliary classifiers add theirs at `aux_weight` each: GoogLeNet (1409.4842), section 5.
        """
        settings = self.settings
        if isinstance(outputs, Outputs):
            extra = torch.stack([self.loss(one, targets) for one in outputs.aux]).sum(0)
            return self.loss(outputs.logits, targets) + settings.aux_weight * extra
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
    task: Classify, outputs: Tensor | Outputs, targets: Tensor, others: Tensor | None, weight: float
) -> Tensor:
    """The loss of mixed images: weight * loss(targets) + (1 - weight) * loss(others), (N,); plain without others.

    mixup: Zhang et al. 2017, arXiv 1710.09412, equation 2; CutMix: Yun et al. 2019, arXiv 1905.04899, equation 1.
    """
    own = task.loss(outputs, targets)
    return own if others is None else weight * own + (1 - weight) * task.loss(outputs, others)

"""Segmentation: a class for every pixel."""

from __future__ import annotations

import typing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gossamer.data.joint import JointTransform
from gossamer.data.masks.open import pixel_counts
from gossamer.data.source import Data, Source
from gossamer.images.preprocess import Preprocess
from gossamer.predictions.head import OutputHead
from gossamer.settings import Settings
from gossamer.tasks.backbone import arguments
from gossamer.tasks.base import Task, sized
from gossamer.tasks.losses import class_weights
from gossamer.tasks.segmentation.augment import SegmentTransform
from gossamer.tasks.segmentation.heads import HEADS, HeadName, Segmenter
from gossamer.tasks.segmentation.losses import LossName, SegmentationLoss
from gossamer.tasks.segmentation.scores import MaskScorer

OUTPUT_STRIDE = 16  # where the settings give none: DeepLabv3 (1706.05587), section 4, MobileNetV2 (1801.04381), table 7


class Segment(Task):
    """LR-ASPP, DeepLabv3 or DeepLabv3+ around any backbone."""

    name, score = "segment", "miou"
    losses = ("cross_entropy", "ohem", "dice")
    head_names = HEADS
    weights: Tensor | None = None

    @classmethod
    def resolve(cls, settings: Settings, data: Data) -> Settings:
        """The output stride, where it is not set."""
        return settings.replace(output_stride=settings.output_stride or OUTPUT_STRIDE)

    def prepare(self, data: Data) -> None:
        """Weigh the classes by their pixels, where the settings say so."""
        if self.settings.class_weights != "none":
            self.weights = class_weights(self.settings.class_weights, pixel_counts(data.train))

    def build(self) -> nn.Module:
        """The segmenter. Raises UnknownNameError, SettingsError."""
        settings = self.settings
        self.criterion = SegmentationLoss(
            typing.cast(LossName, settings.loss),
            self.weights,
            label_smoothing=settings.label_smoothing,
            dice=settings.dice,
        )
        return Segmenter(
            settings.net,
            len(self.classes),
            head=typing.cast(HeadName, settings.head if settings.head != "auto" else HEADS[0]),
            aspp=settings.aspp,
            scale_attention=settings.scale_attention,
            **{**arguments(settings), "output_stride": settings.output_stride or OUTPUT_STRIDE},
        )

    def heads(self) -> tuple[OutputHead, ...]:
        return (OutputHead("segment", self.classes, options={"size": list(sized(self.settings))}),)

    def transform(self, preprocess: Preprocess, source: Source) -> JointTransform:
        low, high = self.settings.scales
        settings = self.settings
        return SegmentTransform(
            preprocess,
            scale=(low, high),
            flip=settings.flip,
            vertical_flip=settings.vertical_flip,
            color_jitter=settings.color_jitter,
        )

    def loss(self, outputs: dict[str, Any], targets: list[NDArray[np.uint8]], images: Tensor) -> Tensor:
        masks = torch.from_numpy(np.stack(targets)).to(outputs["logits"].device)
        loss = self.criterion(outputs, masks)
        for logits in outputs.get("scale_logits", ()):  # each scale by itself: 1511.03339, section 3.3
            loss = loss + self.settings.aux_weight * self.criterion({"logits": logits}, masks)
        return loss

    def scorer(self) -> Any:
        return MaskScorer(self.classes, sized(self.settings))

"""Detection: boxes with a class and a score."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from gossamer.data.boxes.annotation import BoxTarget
from gossamer.data.joint import JointTransform
from gossamer.data.source import Data, Source
from gossamer.images.preprocess import Preprocess
from gossamer.predictions.anchors import AnchorSpec
from gossamer.predictions.boxes import Decoding
from gossamer.predictions.head import OutputHead
from gossamer.settings import Settings
from gossamer.tasks.backbone import arguments
from gossamer.tasks.base import Task, sized
from gossamer.tasks.detection.augment import TrainBoxes
from gossamer.tasks.detection.fit import anchor_sizes_of
from gossamer.tasks.detection.heads import build_detector
from gossamer.tasks.detection.losses import DetectionLoss
from gossamer.tasks.detection.match import Target, collate
from gossamer.tasks.detection.scores import DetectionScorer

HEADS = ("ssdlite", "ssd")


class Detect(Task):
    """SSD or SSDLite around any backbone."""

    name, score = "detect", "map50"
    losses = ("smooth_l1", "giou", "focal")
    head_names = HEADS
    supports_progressive = False  # anchors are in pixels of the input
    spec: AnchorSpec | None = None
    criterion: DetectionLoss | None = None

    @classmethod
    def resolve(cls, settings: Settings, data: Data) -> Settings:
        """Anchors fitted to the training boxes, where none are set. Raises SettingsError."""
        if settings.anchors == "ssd" or settings.anchor_sizes:
            return settings
        annotations = (data.train.target(index) for index in range(len(data.train)))
        return settings.replace(anchor_sizes=anchor_sizes_of(annotations, sized(settings), settings.seed))

    def build(self) -> nn.Module:
        """The detector. Raises UnknownNameError, SettingsError, InputError for an image too small."""
        settings = self.settings
        detector = build_detector(
            settings.net,
            len(self.classes),
            sized(settings),
            levels=settings.levels,
            lite=settings.head != "ssd",
            pyramid=settings.fpn,
            score=self.decoding.score,
            shapes=list(zip(settings.anchor_sizes[::2], settings.anchor_sizes[1::2])),
            **arguments(settings),
        )
        self.spec = detector.spec
        boxes, classes = ("giou" if settings.loss == "giou" else "smooth_l1"), "softmax"
        if settings.loss == "focal":
            classes = "focal"
        self.criterion = DetectionLoss(detector.spec, boxes, classes, gamma=settings.focal_gamma)
        return detector

    @property
    def decoding(self) -> Decoding:
        """How outputs become boxes."""
        settings = self.settings
        return Decoding(
            "sigmoid" if settings.loss == "focal" else "softmax",
            threshold=settings.score_threshold,
            iou=settings.iou_threshold,
            limit=settings.max_detections,
        )

    def heads(self) -> tuple[OutputHead, ...]:
        assert self.spec is not None, "build comes first"
        options = {"anchors": self.spec.to_json(), "decoding": self.decoding.to_json()}
        return (OutputHead("detect", self.classes, options=options),)

    def transform(self, preprocess: Preprocess, source: Source) -> JointTransform:
        settings = self.settings

        def others(rng: np.random.Generator) -> tuple[bytes, BoxTarget]:
            index = int(rng.integers(len(source)))
            return source.read(index), source.target(index)

        return TrainBoxes(
            preprocess,
            crop=settings.iou_crop,
            expand=settings.expand,
            flip=settings.flip,
            vertical_flip=settings.vertical_flip,
            jitter=settings.color_jitter,
            mosaic=settings.mosaic,
            others=others,
        )

    def loss(self, outputs: dict[str, Tensor], targets: list[Target], images: Tensor) -> Tensor:
        assert self.criterion is not None, "build comes first"
        batch = collate(targets)
        device = outputs["deltas"].device
        return self.criterion(outputs, batch._replace(boxes=batch.boxes.to(device), labels=batch.labels.to(device)))

    def scorer(self) -> DetectionScorer:
        assert self.spec is not None, "build comes first"
        return DetectionScorer(self.classes, self.spec, self.decoding)

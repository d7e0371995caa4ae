"""Several heads on one backbone, and the tasks of one head with labels or numbers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gossamer.data.heads.columns import class_numbers
from gossamer.data.heads.open import HeadTargets, split_classes
from gossamer.data.heads.spec import HeadSpec, dump_heads
from gossamer.data.heads.tasks import heads_of
from gossamer.data.joint import JointTransform
from gossamer.data.source import Data, Source
from gossamer.data.table import StrPath
from gossamer.errors import SettingsError, UnknownNameError
from gossamer.images.preprocess import Preprocess
from gossamer.predictions.anchors import AnchorSpec
from gossamer.predictions.boxes import Decoding
from gossamer.predictions.head import NAMELESS, OutputHead
from gossamer.settings import Settings
from gossamer.tasks.base import Task, sized
from gossamer.tasks.detection.fit import anchor_sizes_of
from gossamer.tasks.embed import identity_order
from gossamer.tasks.embedding.collapse import alarm
from gossamer.tasks.multihead.augment import PlacedLabels, PlainLabels
from gossamer.tasks.multihead.losses import HeadLosses
from gossamer.tasks.multihead.network import DetectHead, build_multi_network
from gossamer.tasks.registry import scorer_of, task_of
from gossamer.tasks.scores import Scorer
from gossamer.tasks.segment import OUTPUT_STRIDE

PLACED = ("detect", "segment")
"""Kinds whose labels say where in the image something is."""


class Multi(Task):
    """One backbone with any set of heads, as `settings.heads` says, each with a column of labels of its own.

    Its score is the mean of the heads' main scores: accuracy, map, r2 (0 where it is below), map50, miou, recall1.
    """

    name, score = "multi", "score"
    losses: ClassVar[tuple[str, ...]] = ("auto",)  # each head names its own
    supports_progressive = False  # a head may be a detector's
    anchors: dict[str, AnchorSpec]

    def __init__(self, classes: tuple[str, ...], settings: Settings) -> None:
        super().__init__(classes, settings)
        self.specs = self.head_specs(settings, classes=classes)
        self.classes_of = split_classes(classes, self.specs)
        self.anchors = {}

    @classmethod
    def head_specs(cls, settings: Settings, root: StrPath = "", classes: tuple[str, ...] = ()) -> tuple[HeadSpec, ...]:
        """The heads of the settings. root, classes: what a task of one head goes by where the settings have none.

        Raises DataError, SettingsError, MissingPackageError.
        """
        return heads_of(cls.name, settings, root, classes)

    # data

    @classmethod
    def resize_for(cls, settings: Settings) -> str:
        """That of a classifier, unless a head says where something is."""
        return "squash" if any(spec.kind in PLACED for spec in cls.head_specs(settings, settings.data)) else "crop"

    @classmethod
    def resolve(cls, settings: Settings, data: Data) -> Settings:
        """The heads as text, with their losses, anchors, and the mean and deviation of each quantity.

        Raises SettingsError, UnknownNameError.
        """
        specs = [cls._resolved(spec, settings, data) for spec in cls.head_specs(settings, settings.data)]
        kinds = {spec.kind for spec in specs}
        if settings.sampler != "shuffle" or settings.class_weights != "none":
            what = "sampler balanced" if settings.sampler != "shuffle" else f"class_weights {settings.class_weights}"
            raise SettingsError(f"{what} for the task {cls.name}", "shuffle, and none", "leave it out")
        if settings.head_weights != "fixed" and any(spec.weight != 1 for spec in specs):
            raise SettingsError(
                f"weights of heads with head_weights {settings.head_weights}",
                "1, or head_weights fixed",
                "leave them out",
            )
        if settings.head_weights == "gradnorm" and settings.compile:
            raise SettingsError("head_weights gradnorm with compile", "one of the two", "leave one out")
        changes: dict[str, Any] = {"heads": dump_heads(specs)}
        if "segment" in kinds and "detect" not in kinds:  # boxes want the coarse maps
            changes["output_stride"] = settings.output_stride or OUTPUT_STRIDE
        return settings.replace(**changes)

    @classmethod
    def _resolved(cls, spec: HeadSpec, settings: Settings, data: Data) -> HeadSpec:
        """A head with all decided. Raises SettingsError, UnknownNameError."""
        task = task_of(spec.kind)
        loss = spec.loss or (settings.loss if settings.loss in task.losses else task.losses[0])
        for what, named, allowed in (("loss", loss, task.losses), ("head", spec.head, ("", *task.head_names))):
            if named not in allowed:
                raise UnknownNameError(f"{what} of a {spec.kind} head", named, [name for name in allowed if name])
        changes: dict[str, Any] = {"loss": loss}
        if spec.hierarchy and loss != "cross_entropy":
            raise SettingsError(f"loss {loss} with hierarchy", "cross_entropy", "leave the loss out")
        if spec.kind == "regress" and not spec.mean:
            changes["mean"], changes["std"] = _moments(np.stack(_labels(data.train, spec.name)))
        if spec.kind == "detect" and settings.anchors != "ssd" and not spec.anchor_sizes:
            chosen = settings.anchor_sizes
            fitted = chosen or anchor_sizes_of(_labels(data.train, spec.name), sized(settings), settings.seed)
            changes["anchor_sizes"] = tuple(fitted)
        return spec.with_values(**changes)

    # the network

    def build(self) -> nn.Module:
        """The network, with the losses beside it, which evaluation leaves alone.

        Raises UnknownNameError, SettingsError, InputError, MissingPackageError.
        """
        settings = self.settings
        if (
            settings.head_weights == "gradnorm"
            and torch.distributed.is_available()
            and torch.distributed.is_initialized()
        ):
            raise SettingsError("head_weights gradnorm with several processes", "fixed or uncertainty", "choose one")
        counts = {name: len(classes) for name, classes in self.classes_of.items()}
        model = build_multi_network(settings, self.specs, counts)
        parts = dict(zip(model.names, model.head_parts))
        self.anchors = {name: part.boxes.spec for name, part in parts.items() if isinstance(part, DetectHead)}
        wide = model.trunk.num_features
        embedding = {
            spec.name: ((spec.dim if spec.dim >= 0 else settings.dim) or wide, counts[spec.name])
            for spec in self.specs
            if spec.kind == "embed"
        }
        self.criterion = HeadLosses(settings, self.specs, self.heads(), embedding, model.trunk.shared_by_all)
        model.head_losses = self.criterion
        return model

    def heads(self) -> tuple[OutputHead, ...]:
        return tuple(
            OutputHead(
                spec.kind,
                () if spec.kind in NAMELESS else self.classes_of[spec.name],
                spec.name,
                self._options(spec),
            )
            for spec in self.specs
        )

    def _options(self, spec: HeadSpec) -> dict[str, Any]:
        """What the decoding of a head needs besides its classes."""
        settings = self.settings
        if spec.kind == "multilabel":
            return {"threshold": spec.threshold if spec.threshold >= 0 else settings.threshold}
        if spec.kind == "regress":
            return {"mean": list(spec.mean), "std": list(spec.std)}
        if spec.kind == "segment":
            return {"size": list(sized(settings))}
        if spec.kind == "detect":
            decoding = Decoding(
                "sigmoid" if spec.loss == "focal" else "softmax",
                threshold=settings.score_threshold,
                iou=settings.iou_threshold,
                limit=settings.max_detections,
            )
            return {"anchors": self.anchors[spec.name].to_json(), "decoding": decoding.to_json()}
        return {"hierarchy": True} if spec.hierarchy else {}

    # training

    def transform(self, preprocess: Preprocess, source: Source) -> JointTransform:
        boxes, masks = ([spec.name for spec in self.specs if spec.kind == kind] for kind in PLACED)
        if boxes or masks:
            return PlacedLabels(preprocess, self.settings, boxes, masks)
        return PlainLabels(preprocess, self.settings)

    def order(self, source: Source, epoch: int) -> NDArray[np.int64]:
        """As it comes, or, where a head embeds, in batches of identities; images without one count as one identity."""
        spec = next((spec for spec in self.specs if spec.kind == "embed"), None)
        if spec is None:
            return source.order(epoch, self.settings.seed)
        assert isinstance(source.targets, HeadTargets)
        return identity_order(class_numbers(source.targets.columns[spec.name])[source.rows], self.settings, epoch)

    def loss(self, outputs: dict[str, Tensor], targets: list[Any], images: Tensor) -> Tensor:
        self.targets = targets if self.specs[0].name else [{"": target} for target in targets]
        values: Tensor = self.criterion(outputs, self.targets)
        return values

    def watch(self, outputs: dict[str, Tensor]) -> str:
        """A line where embeddings have collapsed."""
        for spec in self.specs:
            labels = [target[spec.name] for target in self.targets]
            rows = [row for row, label in enumerate(labels) if label is not None]
            if spec.kind == "embed" and rows:
                vectors = outputs[f"{spec.name}.embedding"].detach().float().cpu().numpy()
                message = alarm(vectors[rows], np.array([labels[row] for row in rows]))
                if message:
                    return f"{spec.name}: {message}"
        return ""

    def scorer(self) -> Scorer:
        return scorer_of(self.heads())


class MultiLabel(Multi):
    """Any number of labels per image: a CSV of path,label with | between, or with a column of 0 and 1 a label."""

    name, score = "multilabel", "map"
    losses = ("bce", "focal", "asymmetric")


class Regress(Multi):
    """Numbers of an image: a CSV with a column each; an empty cell is not known."""

    name, score = "regress", "r2"
    losses = ("smooth_l1", "l1", "mse")


def _labels(source: Source, head: str) -> list[Any]:
    """The labels of a head that the images of a source have."""
    assert isinstance(source.targets, HeadTargets)
    column = source.targets.columns[head]
    return [label for label in map(column.read, source.rows.tolist()) if label is not None]


def _moments(values: NDArray[np.float32]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each column of (n, D), over what is known; 0 and 1 where nothing tells."""
    known = [column[~np.isnan(column)].astype(np.float64) for column in values.T]
    return (
        tuple(float(column.mean()) if len(column) else 0.0 for column in known),
        tuple((float(column.std()) if len(column) else 0.0) or 1.0 for column in known),
    )

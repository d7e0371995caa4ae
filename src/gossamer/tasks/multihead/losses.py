"""The losses of several heads, and one of them all."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.data.heads.spec import HeadSpec
from gossamer.errors import SettingsError
from gossamer.predictions.anchors import AnchorSpec
from gossamer.predictions.head import KINDS, OutputHead
from gossamer.settings import Settings
from gossamer.tasks import losses
from gossamer.tasks.detection.losses import DetectionLoss
from gossamer.tasks.detection.match import collate
from gossamer.tasks.embedding.criterion import loss_of
from gossamer.tasks.hierarchy import ClassTree
from gossamer.tasks.multihead.scores import tree_of
from gossamer.tasks.segmentation.losses import LossName, SegmentationLoss
from gossamer.tasks.weighting import GRADNORM_LR, Fixed, GradNorm, Uncertainty

Outputs = dict[str, Tensor]
Loss = Callable[[Outputs, list[Any]], Tensor]
"""Of the images that have the label: outputs without the head's name, their labels -> (N,) float32."""

# Ridnik et al. 2020 (arXiv 2009.14119), section 3: gamma+ 0, gamma- 4, margin 0.05
ASYMMETRIC = (0.0, 4.0, 0.05)


class HeadLosses(nn.Module):
    """All heads' losses: (outputs by name, a dictionary of labels per image) -> (N,) float32, one value per image.

    An image that lacks a label adds nothing to that head's loss or gradients. shared: parameters behind which all
    heads' gradients meet; `gradnorm` compares them at the last that learns. embedding: the numbers of an embedding and
    of identities, of the heads of that kind. Raises SettingsError, MissingPackageError.
    """

    def __init__(
        self,
        settings: Settings,
        specs: Sequence[HeadSpec],
        heads: Sequence[OutputHead],
        embedding: dict[str, tuple[int, int]],
        shared: nn.Module,
    ) -> None:
        super().__init__()
        self.heads = tuple(heads)
        self.embedding = nn.ModuleList()  # those with parameters
        self.losses: list[Loss] = []
        for spec, head in zip(specs, heads):
            if spec.kind == "embed":
                loss = loss_of(settings, spec.loss, *embedding[spec.name])
                self.embedding.append(loss)
                self.losses.append(_Targeted(loss))
            else:
                self.losses.append(_loss(settings, spec, head))
        names = [spec.name for spec in specs]
        self.shared = [parameter for parameter in shared.parameters() if parameter.ndim > 1]
        self.weighting: Fixed | Uncertainty | GradNorm
        if settings.head_weights == "uncertainty":
            self.weighting = Uncertainty(names, [spec.name for spec in specs if spec.loss == "mse"])
        elif settings.head_weights == "gradnorm":
            # each part of a batch moves the weights: all of them together as far as the batch would
            self.weighting = GradNorm(names, lr=GRADNORM_LR / settings.accumulate)
        else:
            self.weighting = Fixed({spec.name: spec.weight for spec in specs})

    def forward(self, outputs: Outputs, targets: list[dict[str, Any]]) -> Tensor:
        values: Outputs = {}
        known: Outputs = {}
        for head, loss in zip(self.heads, self.losses):
            mine = {short: outputs[full] for short, full in zip(KINDS[head.kind], head.outputs)}
            labels = [one[head.name] for one in targets]
            values[head.name] = of_known(loss, mine, labels)
            known[head.name] = torch.tensor([one is not None for one in labels], device=values[head.name].device)
        total: Tensor = self.weighting(values, known)
        if isinstance(self.weighting, GradNorm) and torch.is_grad_enabled():
            self.weighting.update(values, [self._last_shared()], known)
        return total

    def _last_shared(self) -> Tensor:
        """The last shared weight that learns. Raises SettingsError."""
        parameter = next((parameter for parameter in reversed(self.shared) if parameter.requires_grad), None)
        if parameter is None:
            raise SettingsError(
                "head_weights gradnorm with a frozen backbone", "fixed or uncertainty", "choose one of them"
            )
        return parameter


class _Targeted:
    """A loss of class numbers for a list of them."""

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss

    def __call__(self, outputs: Outputs, labels: list[Any]) -> Tensor:
        value: Tensor = self.loss(outputs, _stacked(outputs, labels))
        return value


def of_known(loss: Loss, outputs: Outputs, labels: list[Any]) -> Tensor:
    """The loss of the images that have a label, 0 for the others: (N,) float32.

    Every output stays part of the graph, so that each parameter has a gradient whatever the batch lacks.
    """
    rows = [row for row, label in enumerate(labels) if label is not None]
    nothing = torch.stack([value[:0].float().sum() for value in outputs.values()]).sum()
    result = nothing.expand(len(labels))
    if not rows:
        return result
    index = torch.tensor(rows, device=result.device)
    values = loss({name: value[index] for name, value in outputs.items()}, [labels[row] for row in rows])
    return result.index_add(0, index, values.float())


def _stacked(outputs: Outputs, labels: list[Any]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(label, np.int64) for label in labels])).to(_device(outputs))


def _real(outputs: Outputs, labels: list[Any]) -> Tensor:
    return torch.from_numpy(np.stack(labels).astype(np.float32)).to(_device(outputs))


def _device(outputs: Outputs) -> torch.device:
    return next(iter(outputs.values())).device


def _loss(settings: Settings, spec: HeadSpec, head: OutputHead) -> Loss:
    """The loss of a head, without parameters."""
    if spec.kind == "classify":
        return _tree(tree_of(head.classes)) if spec.hierarchy else _classify(settings, spec)
    if spec.kind == "multilabel":
        return _multilabel(settings, spec)
    if spec.kind == "regress":
        return _regress(spec, head)
    if spec.kind == "detect":
        return _detect(settings, spec, head)
    masks = SegmentationLoss(typing.cast(LossName, spec.loss), label_smoothing=settings.label_smoothing)
    return lambda outputs, labels: masks(outputs, torch.from_numpy(np.stack(labels)).to(_device(outputs)))


def _detect(settings: Settings, spec: HeadSpec, head: OutputHead) -> Loss:
    boxes, classes = "giou" if spec.loss == "giou" else "smooth_l1", "focal" if spec.loss == "focal" else "softmax"
    anchors = AnchorSpec.from_json(head.options["anchors"])
    detection = DetectionLoss(anchors, boxes, classes, gamma=settings.focal_gamma)

    def loss(outputs: Outputs, labels: list[Any]) -> Tensor:
        batch = collate(labels)
        device = _device(outputs)
        return detection(outputs, batch._replace(boxes=batch.boxes.to(device), labels=batch.labels.to(device)))

    return loss


def _classify(settings: Settings, spec: HeadSpec) -> Loss:
    smoothing, over = settings.label_smoothing, settings.smoothing_over

    def loss(outputs: Outputs, labels: list[Any]) -> Tensor:
        targets = _stacked(outputs, labels)
        if spec.loss == "bce":
            return losses.binary_cross_entropy(outputs["logits"], targets, smoothing, over)
        if spec.loss == "focal":
            return losses.focal(outputs["logits"], targets, settings.focal_gamma, smoothing, over)
        return losses.cross_entropy(outputs["logits"], targets, smoothing, over)

    return loss


def _tree(tree: ClassTree) -> Loss:
    groups = [torch.from_numpy(group) for group in tree.groups]

    def loss(outputs: Outputs, labels: list[Any]) -> Tensor:
        targets = _stacked(outputs, [tree.target(label) for label in labels])
        return losses.hierarchical(outputs["logits"], targets, groups)

    return loss


def _multilabel(settings: Settings, spec: HeadSpec) -> Loss:
    gamma = settings.focal_gamma
    shape = {"focal": (gamma, gamma, 0.0), "asymmetric": ASYMMETRIC}.get(spec.loss, (0.0, 0.0, 0.0))
    return lambda outputs, labels: losses.multi_label(outputs["logits"], _real(outputs, labels), *shape)


def _regress(spec: HeadSpec, head: OutputHead) -> Loss:
    mean, std = (np.array(head.options[name], np.float32) for name in ("mean", "std"))

    def loss(outputs: Outputs, labels: list[Any]) -> Tensor:
        return losses.regression(
            outputs["values"], _real(outputs, [(label - mean) / std for label in labels]), spec.loss
        )

    return loss

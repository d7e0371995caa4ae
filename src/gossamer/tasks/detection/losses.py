"""Losses of detection, one value per image: its mean over the batch is the sum over the batch's matched anchors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gossamer.errors import UnknownNameError
from gossamer.predictions.anchors import AnchorSpec, anchors
from gossamer.tasks.detection.match import IGNORED, BatchTargets, decode_deltas, encode, match, tensor_box_areas

BOX_LOSSES, CLASS_LOSSES = ("smooth_l1", "giou"), ("softmax", "focal")
NEGATIVES = 3  # hardest anchors without an object for each with one: SSD (1512.02325), section 2.2
LEAST_NEGATIVES = 3  # of an image without objects, from which nothing else would be learnt
GIOU_WEIGHT = 2.0  # to 1 of the classes, as in DETR (2005.12872)


class DetectionLoss:
    """SSD's loss of the boxes and classes of `spec`'s anchors.

    boxes: "smooth_l1" of the deltas, or "giou" of the boxes. classes: "softmax" cross-entropy over the anchors with an
    object and the hardest NEGATIVES times as many without, or "focal", of sigmoids over all anchors. Ignored anchors
    add nothing. Source: SSD, equations 1 to 3; Lin et al. 2017, focal loss (1708.02002); Rezatofighi et al. 2019, GIoU
    (1902.09630). Raises UnknownNameError.
    """

    def __init__(
        self,
        spec: AnchorSpec,
        boxes: str = "smooth_l1",
        classes: str = "softmax",
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        for kind, name, allowed in (("box loss", boxes, BOX_LOSSES), ("class loss", classes, CLASS_LOSSES)):
            if name not in allowed:
                raise UnknownNameError(kind, name, allowed)
        self.boxes, self.classes, self.alpha, self.gamma = boxes, classes, alpha, gamma
        self.variances = spec.variances
        self.anchors = torch.from_numpy(anchors(spec).copy())

    def __call__(self, outputs: dict[str, Tensor], targets: BatchTargets) -> Tensor:
        """{"deltas": (N, A, 4), "logits": (N, A, K + 1 or K)}, targets -> (N,) float32."""
        deltas, logits = outputs["deltas"].float(), outputs["logits"].float()
        self.anchors = self.anchors.to(deltas.device)
        owners = match(targets, self.anchors)
        labels = targets.labels.gather(1, owners.clamp_min(0))
        if self.classes == "softmax":
            values = hard_negatives(logits, labels, owners)
        else:
            values = anchor_focal(logits, labels, owners, self.alpha, self.gamma)
        values = values + self._box_loss(deltas, targets, owners)
        # each image's part of the batch's sum, so that their mean is that sum over the number of positives
        return values * len(values) / (owners >= 0).sum().clamp_min(1)

    def _box_loss(self, deltas: Tensor, targets: BatchTargets, owners: Tensor) -> Tensor:
        """Sum over the matched anchors of each image: (N,)."""
        wanted = targets.boxes.gather(1, owners.clamp_min(0)[..., None].expand(-1, -1, 4))
        if self.boxes == "smooth_l1":
            aims = encode(wanted, self.anchors, self.variances)
            each = F.smooth_l1_loss(deltas, aims, reduction="none").sum(2)
        else:
            each = GIOU_WEIGHT * (1 - generalised_iou(decode_deltas(deltas, self.anchors, self.variances), wanted))
        return torch.where(owners >= 0, each, 0).sum(1)


def hard_negatives(logits: Tensor, labels: Tensor, owners: Tensor) -> Tensor:
    """Cross-entropy of the positives and of the hardest negatives, summed per image: (N, A, K + 1), (N, A), (N, A) -> (N,)."""
    positive = owners >= 0
    aims = torch.where(positive, labels + 1, 0)
    each = F.cross_entropy(logits.flatten(0, 1), aims.flatten(), reduction="none").view_as(aims)
    least = -torch.ones_like(each)  # losses are 0 or more: what is no negative comes last
    hardness = torch.where(positive | (owners == IGNORED), least, each.detach())
    rank = hardness.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    most = (NEGATIVES * positive.sum(1)).clamp_min(LEAST_NEGATIVES)
    chosen = positive | ((rank < most[:, None]) & (hardness >= 0))
    return torch.where(chosen, each, 0).sum(1)


def anchor_focal(logits: Tensor, labels: Tensor, owners: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss over all anchors that are not ignored, summed per image: (N, A, K), (N, A), (N, A) -> (N,)."""
    aims = F.one_hot(torch.where(owners >= 0, labels, 0), logits.shape[2]) * (owners >= 0)[..., None]
    plain = F.binary_cross_entropy_with_logits(logits, aims.to(logits.dtype), reduction="none")
    wrong = torch.sigmoid(torch.where(aims > 0, -logits, logits))  # 1 - the probability of what is true
    each = torch.where(aims > 0, alpha, 1 - alpha) * wrong**gamma * plain
    return torch.where((owners == IGNORED)[..., None], 0, each).sum((1, 2))


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """GIoU, -1 to 1, of boxes (..., 4) in pairs: (...)."""
    inner = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    outer = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    shared, hull = inner.clamp_min(0).prod(-1), outer.prod(-1).clamp_min(1e-9)
    union = (tensor_box_areas(first) + tensor_box_areas(second) - shared).clamp_min(1e-9)
    return shared / union - (hull - union) / hull

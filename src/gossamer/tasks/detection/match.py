"""Which anchor stands for which object, and what it should say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

IGNORED, PADDING = -1, -2  # labels of boxes that are no objects: a crowd, and nothing at all
BACKGROUND = -2  # matched with an anchor that stands for no object
OVERLAP = 0.5  # SSD (1512.02325), section 2.2


class Target(NamedTuple):
    """The objects of an image: boxes (n, 4) float32 x0, y0, x1, y1 in input pixels; labels (n,) int64, 0..K-1.

    A box of label IGNORED is a region in which nothing is held against the detector.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


class BatchTargets(NamedTuple):
    """Those of a batch: boxes (N, M, 4) float32, labels (N, M) int64; rows of label PADDING fill up."""

    boxes: Tensor
    labels: Tensor


def collate(targets: Sequence[Target]) -> BatchTargets:
    """The targets of a batch, filled up to the longest, at least one row."""
    most = max([1, *(len(each.labels) for each in targets)])
    boxes = torch.zeros(len(targets), most, 4)
    labels = torch.full((len(targets), most), PADDING, dtype=torch.int64)
    for row, each in enumerate(targets):
        count = len(each.labels)
        boxes[row, :count] = torch.from_numpy(each.boxes.astype(np.float32))
        labels[row, :count] = torch.from_numpy(each.labels.astype(np.int64))
    return BatchTargets(boxes, labels)


def corners(anchors: Tensor) -> Tensor:
    """(..., 4) cx, cy, w, h as x0, y0, x1, y1."""
    centre, half = anchors[..., :2], anchors[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def tensor_box_areas(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...)."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def intersection(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Area shared by boxes (N, M, 4) and anchors (A, 4), both as corners: (N, M, A)."""
    sides = []
    for low, high in ((0, 2), (1, 3)):  # an axis at a time: several times as fast as both in one tensor
        side = torch.minimum(boxes[:, :, high, None], anchors[:, high])
        side -= torch.maximum(boxes[:, :, low, None], anchors[:, low])
        sides.append(side.clamp_min_(0))
    return sides[0].mul_(sides[1])


def overlaps(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Intersection over union of boxes (N, M, 4) and anchors (A, 4), both as corners: (N, M, A)."""
    return _over_union(intersection(boxes, anchors), boxes, anchors)


def _over_union(shared: Tensor, boxes: Tensor, anchors: Tensor) -> Tensor:
    union = (tensor_box_areas(boxes)[:, :, None] + tensor_box_areas(anchors)).sub_(shared)
    return shared / union.clamp_min_(1e-9)


def encode(boxes: Tensor, anchors: Tensor, variances: tuple[float, float]) -> Tensor:
    """Deltas (..., A, 4) of boxes (..., A, 4), as corners, from anchors (A, 4) cx, cy, w, h: SSD, equation 2."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp_min(1e-3)  # pixels; a box without a side has no logarithm
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    shift = (centre - anchors[:, :2]) / anchors[:, 2:] / variances[0]
    return torch.cat([shift, (sides / anchors[:, 2:]).log() / variances[1]], -1)


def decode_deltas(deltas: Tensor, anchors: Tensor, variances: tuple[float, float]) -> Tensor:
    """The inverse of `encode`, as `gossamer.predictions.boxes.decode_boxes`."""
    centre = anchors[:, :2] + deltas[..., :2] * variances[0] * anchors[:, 2:]
    half = anchors[:, 2:] * (deltas[..., 2:] * variances[1]).clamp_max(10).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


@torch.no_grad()
def match(targets: BatchTargets, anchors: Tensor, overlap: float = OVERLAP) -> Tensor:
    """The object of each anchor (A, 4) cx, cy, w, h: (N, A) int64, its row in `targets`, BACKGROUND or IGNORED.

    First every object gets the anchor that it overlaps most and that no other overlaps more (so that each has one
    of its own, where any overlaps); then each other anchor stands for the object that it overlaps most, if their
    intersection over union is above `overlap`. Anchors without an object that lie by half or more in an ignored region
    are ignored. Source: SSD (1512.02325), section 2.2.
    """
    placed = corners(anchors)
    shared = intersection(targets.boxes, placed)
    iou = _over_union(shared, targets.boxes, placed).masked_fill_((targets.labels < 0)[:, :, None], 0)
    best, index = iou.max(1)
    index = torch.where(best > overlap, index, BACKGROUND)
    crowd = (targets.labels == IGNORED)[:, :, None] & (shared >= 0.5 * tensor_box_areas(placed))
    index = torch.where((index < 0) & crowd.any(1), IGNORED, index)
    owner = _own_anchor(iou)
    return torch.where(owner >= 0, owner, index)


def _own_anchor(iou: Tensor) -> Tensor:
    """For each anchor the object that has it for its own, or -1: (N, M, A) -> (N, A).

    Objects propose to anchors in falling order of overlap, anchors keep the proposer that overlaps most: as
    pairing the two that overlap most, again and again, but in a few rounds for the whole batch. Of equals, the first.
    """
    images, objects, places = iou.shape
    held = iou.new_zeros(images, places)  # overlap of each anchor with its owner
    owner = torch.full((images, places), -1, device=iou.device)
    rows = torch.arange(objects, device=iou.device).expand(images, objects)
    free = torch.ones_like(rows, dtype=torch.bool)
    while True:
        score, choice = torch.where(iou > held[:, None], iou, 0).max(2)
        asks = free & (score > 0)
        if not bool(asks.any()):
            return owner
        top = held.scatter_reduce(1, choice, torch.where(asks, score, 0), "amax")
        wins = asks & (score == top.gather(1, choice))
        first = torch.full_like(owner, objects).scatter_reduce(1, choice, torch.where(wins, rows, objects), "amin")
        owner, held = torch.where(first < objects, first, owner), top
        served = F.pad(torch.zeros_like(free), (0, 1)).scatter(1, torch.where(owner < 0, objects, owner), True)
        free = ~served[:, :objects]

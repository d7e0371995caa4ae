"""Losses over the pairs, triplets and quadruplets of a batch, one value a sample.

Embeddings (N, D) are divided by their lengths first, so distances lie in 0..2. The mean of the N values is the loss of
the batch: what belongs to one sample, its anchor, is summed there and scaled by N over the number of terms. What a
batch has no terms of counts 0, and an embedding that is not finite makes the loss nan.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BEYOND = 5.0  # more than any distance (2) or its square (4)
TINY = 1e-12  # the square root has no finite gradient at 0; nearer pairs get none


class IdentityPairs(NamedTuple):
    """All ordered pairs of a batch. squared: distances squared (N, N), float32. same, other: bool (N, N), whether the
    pair is of one identity (a sample with itself is no pair) or of two."""

    squared: Tensor
    same: Tensor
    other: Tensor

    @property
    def distances(self) -> Tensor:
        return self.squared.clamp_min(TINY).sqrt()


def pairs(embeddings: Tensor, labels: Tensor) -> IdentityPairs:
    """The pairs of embeddings (N, D) and labels (N,) int64. It leaves autocast: bfloat16 has 3 digits."""
    with torch.autocast(embeddings.device.type, enabled=False):
        unit = F.normalize(embeddings.float(), dim=1)
        squared = (2 - 2 * unit @ unit.T).clamp_min(0)
    equal = labels[:, None] == labels[None, :]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return IdentityPairs(squared, equal & ~itself, ~equal)


def contrastive(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """d^2 of pairs of one identity, max(0, margin - d)^2 of pairs of two: (N, D), (N,) -> (N,).

    Hadsell et al. 2006, Dimensionality Reduction by Learning an Invariant Mapping, equation 4, without its halves.
    The batch loss is the mean over the pairs of one identity plus the mean over the pairs of two that are within the
    margin: the many that are far enough do not thin out those that are not.
    """
    squared, same, other = distance_pairs = pairs(embeddings, labels)
    near = (margin - distance_pairs.distances).relu().square() * other
    return _spread((squared * same).sum(1), same.sum()) + _spread(near.sum(1), (near > 0).sum())


def triplet_batch_all(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """max(0, d(a, p) - d(a, n) + margin), the mean over all triplets where it is above 0: (N, D), (N,) -> (N,).

    Hermans et al. 2017 (arXiv 1703.07737), equation 6 with the mean of section 3.2 (BA, "not 0").
    """
    distance_pairs = pairs(embeddings, labels)
    distances = distance_pairs.distances
    anchors, positives = distance_pairs.same.nonzero(as_tuple=True)
    terms = (distances[anchors, positives][:, None] - distances[anchors] + margin).relu() * distance_pairs.other[
        anchors
    ]
    return _spread(_by_anchor(terms.sum(1), anchors, len(labels)), (terms > 0).sum())


def triplet_batch_hard(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The farthest of the anchor's identity against the nearest of another: (N, D), (N,) -> (N,).

    Hermans et al. 2017 (arXiv 1703.07737), equation 5; the mean over all anchors that have both.
    """
    distance_pairs = pairs(embeddings, labels)
    terms, usable = _hardest(distance_pairs, distance_pairs.distances, margin)
    return _spread(terms, usable.sum())


def triplet_semi_hard(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """d(a, p)^2 - d(a, n)^2 + margin with the nearest n that is farther than p: (N, D), (N,) -> (N,).

    Schroff et al. 2015 (arXiv 1503.03832), section 3.2; the mean over all pairs of one identity. Where every n is
    nearer than p, the paper names none; the farthest is used, so that the pair does not go without a gradient.
    """
    squared, same, other = pairs(embeddings, labels)
    anchors, positives = same.nonzero(as_tuple=True)
    return _semi_hard(squared[anchors, positives], squared[anchors], other[anchors], margin, anchors, len(labels))


def quadruplet(embeddings: Tensor, labels: Tensor, margin: float, second_margin: float) -> Tensor:
    """The hardest triplet of each anchor, and its farthest positive against the nearest pair of two other identities.

    (N, D), (N,) -> (N,). Chen et al. 2017 (arXiv 1704.01719), equation 7, distances squared:
    max(0, d(a, p)^2 - d(a, n)^2 + margin) + max(0, d(a, p)^2 - d(m, n)^2 + second_margin), a, m and n of three
    identities. The hardest of a batch stand for its sum, as in batch-hard triplets.
    """
    squared, same, _ = distance_pairs = pairs(embeddings, labels)
    first, usable = _hardest(distance_pairs, squared, margin)
    allowed, number = _without(distance_pairs, labels)
    nearest = squared.flatten().expand(allowed.shape).masked_fill(~allowed, BEYOND).amin(1)[number]
    has_both = usable & allowed.any(1)[number]
    farthest = squared.masked_fill(~same, 0.0).amax(1)
    second = (farthest - nearest + second_margin).relu() * has_both
    return _spread(first, usable.sum()) + _spread(second, has_both.sum())


def quadruplet_semi_hard(embeddings: Tensor, labels: Tensor, margin: float, second_margin: float) -> Tensor:
    """Equation 7 of `quadruplet` over all pairs of one identity: (N, D), (N,) -> (N,).

    Each pair (a, p) meets the nearest negative, and the nearest pair of two other identities, that are farther apart
    than it, as in `triplet_semi_hard`: the hardest of an untrained network draw all embeddings to one point.
    """
    squared, same, other = distance_pairs = pairs(embeddings, labels)
    anchors, positives = same.nonzero(as_tuple=True)
    positive = squared[anchors, positives]
    allowed, number = _without(distance_pairs, labels)
    first = _semi_hard(positive, squared[anchors], other[anchors], margin, anchors, len(labels))
    across = squared.flatten().expand(len(anchors), -1)
    return first + _semi_hard(positive, across, allowed[number[anchors]], second_margin, anchors, len(labels))


def quadruplet_all(embeddings: Tensor, labels: Tensor, margin: float, second_margin: float) -> Tensor:
    """Equation 7 of `quadruplet` as it stands, each of its two terms the mean where it is above 0: (N, D), (N,) -> (N,)."""
    squared, same, other = distance_pairs = pairs(embeddings, labels)
    anchors, positives = same.nonzero(as_tuple=True)
    positive = squared[anchors, positives][:, None]
    allowed, number = _without(distance_pairs, labels)
    first = (positive - squared[anchors] + margin).relu() * other[anchors]
    second = (positive - squared.flatten() + second_margin).relu() * allowed[number[anchors]]
    sums = [_spread(_by_anchor(terms.sum(1), anchors, len(labels)), (terms > 0).sum()) for terms in (first, second)]
    return sums[0] + sums[1]


def _without(distance_pairs: IdentityPairs, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs are of two identities that are both another: bool (identities, N * N); the identity of each: (N,)."""
    identities, number = torch.unique(labels, return_inverse=True)
    without = number[None, :] != torch.arange(len(identities), device=labels.device)[:, None]  # (identities, N)
    return (without[:, :, None] & without[:, None, :] & distance_pairs.other).flatten(1), number


def _semi_hard(
    positive: Tensor, candidates: Tensor, allowed: Tensor, margin: float, anchors: Tensor, size: int
) -> Tensor:
    """positive (P,) against the nearest of its allowed candidates (P, M) that is farther, else the farthest: (N,).

    anchors: (P,), of a batch of N = `size`; the mean over all that have a candidate.
    """
    farther = allowed & (candidates > positive[:, None])
    nearest = candidates.masked_fill(~farther, BEYOND).amin(1)
    farthest = candidates.masked_fill(~allowed, 0.0).amax(1)
    usable = allowed.any(1)
    terms = (positive - torch.where(farther.any(1), nearest, farthest) + margin).relu() * usable
    return _spread(_by_anchor(terms, anchors, size), usable.sum())


def _hardest(distance_pairs: IdentityPairs, distances: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """The batch-hard triplet term of each anchor (N,), and which anchors have one: bool (N,)."""
    farthest = distances.masked_fill(~distance_pairs.same, 0.0).amax(1)
    nearest = distances.masked_fill(~distance_pairs.other, BEYOND).amin(1)
    usable = distance_pairs.same.any(1) & distance_pairs.other.any(1)
    return (farthest - nearest + margin).relu() * usable, usable


def _by_anchor(terms: Tensor, anchors: Tensor, size: int) -> Tensor:
    """The sum of the terms (n,) of each anchor: (size,)."""
    return terms.new_zeros(size).index_add(0, anchors, terms)


def _spread(sums: Tensor, terms: Tensor) -> Tensor:
    """Sums (N,) scaled so that their mean is their total over the number of terms."""
    return sums * (len(sums) / terms.clamp_min(1))

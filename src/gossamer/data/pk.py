"""Batches of p identities with k images each, for losses over the pairs of a batch."""

from __future__ import annotations

import numpy as np

from gossamer.data.source import Indices
from gossamer.data.streams import ORDER, stream
from gossamer.errors import SettingsError
from gossamer.host.text import counted


def pk_order(labels: Indices, p: int, k: int, seed: int, epoch: int) -> Indices:
    """The indices of one epoch, (batches * p * k,), the same for the same (epoch, seed); batch follows batch.

    labels: (n,), the identity of each image. Each batch holds p different identities with k images each, concatenated
    by identity. An identity of fewer than k images repeats them; of others no image comes twice in a batch. An
    epoch has about n images: every identity comes, all images of most of them too; an identity so large that it would
    be drawn more than once per batch is in every batch, and a part of its images waits for another epoch.
    Source: Hermans et al. 2017 (arXiv 1703.07737), section 2. Raises SettingsError.
    """
    identities, counts = np.unique(labels, return_counts=True)
    for name, value in (("p", p), ("k", k)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 2:
            raise SettingsError(f"{name} {value!r}", "a whole number from 2", "give such a number")
    if p > len(identities):
        raise SettingsError(
            f"p {p}: the training images are of {counted(len(identities), 'identity')}",
            f"2 to {len(identities)}",
            "lower p",
        )
    rng = stream(seed, epoch, 0, ORDER)
    batches = -(-int((-(-counts // k)).sum()) // p)
    repeats = _batches_per_identity(np.minimum(-(-counts // k), batches), batches, p, rng)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    groups = [iter(_groups(own, count, k, rng)) for own, count in zip(members, repeats.tolist())]
    chosen = _assign(repeats, batches, p, rng)
    return np.concatenate([next(groups[identity]) for identity in chosen.tolist()])


def _batches_per_identity(repeats: Indices, batches: int, p: int, rng: np.random.Generator) -> Indices:
    """How many batches hold each identity: `repeats`, raised to p * batches in all, the smallest first."""
    repeats = repeats.copy()
    while missing := p * batches - int(repeats.sum()):
        order = np.lexsort((rng.random(len(repeats)), repeats))
        repeats[order[repeats[order] < batches][:missing]] += 1
    return repeats


def _groups(members: Indices, count: int, k: int, rng: np.random.Generator) -> Indices:
    """`count` groups of k images: (count, k). Passes over the members follow each other; a group that begins in one
    pass and ends in the next holds no image twice."""
    if len(members) < k:
        rounds = -(-k // len(members))
        return np.stack([np.concatenate([rng.permutation(members) for _ in range(rounds)])[:k] for _ in range(count)])
    picks = rng.permutation(members)
    while len(picks) < count * k:
        begun = picks[len(picks) - len(picks) % k :]
        rest = np.setdiff1d(members, begun, assume_unique=True)
        picks = np.concatenate([picks, rng.permutation(rest), rng.permutation(begun)])
    return picks[: count * k].reshape(count, k)


def _assign(repeats: Indices, batches: int, p: int, rng: np.random.Generator) -> Indices:
    """The identities of each batch, p different ones: (batches * p,).

    Drawn in proportion to what is left of each (Efraimidis and Spirakis 2006, Weighted random sampling with a
    reservoir); one that is left as often as there are batches left must be taken.
    """
    left, chosen = repeats.copy(), []
    for remaining in range(batches, 0, -1):
        keys = rng.exponential(size=len(left)) / np.maximum(left, 1)
        keys[left == 0] = np.inf
        keys[left == remaining] = -1.0
        chosen.append(np.argsort(keys, kind="stable")[:p])
        left[chosen[-1]] -= 1
    return np.concatenate(chosen)

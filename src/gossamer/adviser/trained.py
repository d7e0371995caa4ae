"""Weights of a trained network: channels without use, ranges that int8 cuts short, layers of low rank."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gossamer.adviser.rule import Candidate, Change, one
from gossamer.adviser.subject import BATCH_NORMS, RECTIFIERS, LayerFacts, Subject, Weights

FAINT = 1e-3  # of the median channel's norm: a channel below gives a constant
SIGMAS = 4.0  # a normalised value is below this many deviations but for 1 in 30 000
ENERGY = 0.95  # of the squared singular values that a factorised layer keeps
LEAST_SIDE = 32  # of a matrix that is worth two
MOST_SIDE = 2048  # of a matrix whose singular values are computed, so that a review stays below seconds


def _scale_shift(subject: Subject, each: LayerFacts) -> tuple[Weights, Weights] | None:
    """gamma and beta of the batch norm behind a convolution; None where there is none, or without its numbers."""
    for node in each.layer.nodes[1:]:
        if node.op in BATCH_NORMS:
            vectors = subject.vectors(each, node)
            return (vectors[0], vectors[1]) if len(vectors) == 4 else None
    return None


def _folded(subject: Subject, each: LayerFacts) -> Weights | None:
    """The weight with the batch norm behind it multiplied in, (out, numbers); None where it is not known."""
    weight = subject.weight(each)
    if weight is None or weight.ndim < 2 or weight.shape[0] != each.c_out:
        return None
    flat = np.asarray(weight, np.float32).reshape(len(weight), -1)
    for node in each.layer.nodes[1:]:
        vectors = subject.vectors(each, node) if node.op in BATCH_NORMS else []
        if len(vectors) == 4:
            gamma, _, _, variance = vectors
            flat = flat * (gamma / np.sqrt(np.maximum(variance, 0) + node.attributes.get("eps", 1e-5)))[:, None]
    return flat if np.isfinite(flat).all() else None


def dead(subject: Subject) -> Iterator[Candidate]:
    """Convolutions: the fraction of their channels that give one number whatever the image is."""
    for each in subject.layers:
        flat = _folded(subject, each) if each.kind == "conv" and each.c_out > 1 else None
        if flat is None:
            continue
        norms = np.sqrt((flat**2).sum(1))
        constant = norms <= FAINT * max(float(np.median(norms)), float(norms.max()) * FAINT)
        pair = _scale_shift(subject, each)
        if pair is not None and each.act in RECTIFIERS:
            gamma, beta = pair
            constant |= beta + SIGMAS * np.abs(gamma) <= 0
        count = int(constant.sum())
        yield one(
            each, count / each.c_out, each.macs / subject.macs * count / each.c_out, f"{count} of {each.c_out} channels"
        )


def tiny_gammas(subject: Subject) -> Iterator[Candidate]:
    """Batch norms: the fraction of their gammas below a hundredth of the largest."""
    for each in subject.layers:
        pair = _scale_shift(subject, each)
        if pair is not None and each.c_out > 1:
            sizes = np.abs(pair[0])
            count = int((sizes < 0.01 * sizes.max()).sum()) if sizes.max() > 0 else len(sizes)
            yield one(
                each,
                count / each.c_out,
                each.macs / subject.macs * count / each.c_out,
                f"{count} of {each.c_out} gammas",
            )


def uneven_ranges(subject: Subject) -> Iterator[Candidate]:
    """Weights with their norm multiplied in: the largest channel's range over the median channel's."""
    for each in subject.layers:
        flat = _folded(subject, each) if each.kind in ("conv", "linear") and each.c_out > 3 else None
        if flat is None:
            continue
        ranges = np.abs(flat).max(1)
        ranges = ranges[ranges > 0]
        if len(ranges) > 3:
            figure = float(ranges.max() / np.median(ranges))
            yield one(
                each,
                figure,
                each.macs / subject.macs,
                f"ranges of {ranges.max():.3g} and, in the median, {np.median(ranges):.3g}",
            )


def low_rank(subject: Subject) -> Iterator[Candidate]:
    """Dense layers: the multiply-adds of two layers in a row that keep 95 % of the energy, over those of the one."""
    for each in subject.layers:
        if each.kind not in ("conv", "linear") or each.groups > 1:
            continue
        weight = subject.weight(each)
        if weight is None or weight.ndim < 2 or weight.shape[0] != each.c_out:
            continue
        flat = np.asarray(weight, np.float64).reshape(len(weight), -1)
        rows, columns = flat.shape
        if not LEAST_SIDE <= min(rows, columns) <= MOST_SIDE or not np.isfinite(flat).all():
            continue
        gram = flat @ flat.T if rows <= columns else flat.T @ flat
        energy = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0)
        if energy.sum() <= 0:
            continue
        rank = int(np.searchsorted(np.cumsum(energy), ENERGY * energy.sum())) + 1
        figure = rank * (rows + columns) / (rows * columns)
        yield one(
            each,
            figure,
            each.macs / subject.macs,
            f"rank {rank} of {min(rows, columns)} has {100 * ENERGY:.0f} % of the energy",
        )


def prune(subject: Subject) -> Change:
    return Change("gossamer prune RUN removes them" if subject.kind == "run" else "prune the run and export it again")


def equalise(subject: Subject) -> Change:
    return Change("gossamer quantize, which equalises ranges and says which layers it costs most (--layers)")


def factorise(subject: Subject) -> Change:
    return Change("two layers in a row with that rank between them, trained on for some epochs")

"""The report of an embedder: recall, verification, the nearest images, the embedding projection (PCA)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.charts.rates import RateAxis, RateCurve, rate_chart
from gossamer.charts.svg import WIDTH, Markup, Scale, chart, element, tooltip
from gossamer.host.text import counted, grouped, grouped_count, percent, points
from gossamer.report.contents import ReportData
from gossamer.report.neighbours import EmbeddingDetails
from gossamer.report.view import SPLITS, Highlight, KeyFigure, TaskView, all_missed, bdi

COLOURED = 8  # identities with a colour of their own in the projection
CHANCE = 0.6  # AUC, below which it is mentioned; 0.5 is chance
SAMPLES = 200  # points of the curve
DECADES = 5  # of the false-accept rate, at most
SCORES = (
    ("recall1", "Recall@1", "the nearest image is of the same identity"),
    ("recall5", "Recall@5", "one of the 5 nearest is"),
    ("recall10", "Recall@10", "one of the 10 nearest is"),
    ("r_precision", "R-precision", "the mean fraction of the R nearest that are; R: images of the identity"),
    ("map_r", "MAP@R", "mean average precision over the R nearest"),
)


def embedding_view(data: ReportData) -> TaskView:
    """The part of an embedder."""
    scores = data.evaluation
    details: EmbeddingDetails | None = data.details
    queries = details.queries if details else ()
    plotted = details is not None and len(details.points) > 0
    parts = (("neighbours", "Nearest images", bool(queries)), ("projection", "Projection", plotted))
    metrics = scores.metrics
    identities = {name: sum(1 for images in counts if images) for name, counts in data.counts.items()}
    return TaskView(
        template="embed.html",
        sections=(("recall", "Recall"), ("verification", "Verification"), *((a, b) for a, b, shown in parts if shown)),
        subject=f"embeddings of {scores.embeddings.shape[1]} numbers",
        headline=_headline(data),
        highlights=_highlights(data, details),
        values={
            "identities": len(np.unique(scores.labels)),
            "recalls": [(name, metrics[key], definition) for key, name, definition in SCORES],
            "roc": roc_chart(scores) if math.isfinite(metrics["auc"]) else "",
            "pairs": (int(scores.verification.same.sum()), int(scores.verification.other.sum())),
            "accepted": scores.verification.accepted(scores.threshold),
            "queries": queries,
            "projection": projection_chart(details.points, details.labels, data.classes) if details and plotted else "",
            "plotted": len(details.points) if details else 0,
            "coloured": [data.classes[label] for label in coloured(details.labels)] if details else [],
        },
        extent_heads=("images", "identities"),
        extents=[(SPLITS.get(n, n), (sum(counts), identities[n])) for n, counts in data.counts.items()],
        styles=("tasks.css",),
    )


def _headline(data: ReportData) -> KeyFigure:
    scores = data.evaluation
    images = grouped_count(len(scores.labels), f"{data.split} image")
    of = f"{images} of {grouped_count(len(np.unique(scores.labels)), 'identity')}"
    note = f"the nearest image is of the same identity; AUC of pairs {points(scores.metrics['auc'])}; {of}"
    return KeyFigure("Recall@1", percent(scores.metrics["recall1"]), note)


def _highlights(data: ReportData, details: EmbeddingDetails | None) -> list[Highlight]:
    scores = data.evaluation
    if not scores.finite:
        return [Highlight("Outputs", "Some of the embeddings are not numbers, so nothing is scored.", failure=True)]
    highlights = _all_wrong(data, details)
    if scores.metrics["auc"] < CHANCE:
        auc = points(scores.metrics["auc"])
        sentence = f"AUC {auc}: two images of one identity are hardly more similar than any two."
        highlights.append(Highlight("Near chance", sentence, failure=True))
    highlights += _most_confused(data, details)
    train, scored = (set(np.flatnonzero(data.counts.get(name, ())).tolist()) for name in ("train", "val"))
    if data.split == "validation" and train & scored:
        same = f"{grouped(len(train & scored))} of {grouped_count(len(scored), 'identity')}"
        have = "has" if len(train & scored) == 1 else "have"
        highlights.append(
            Highlight("Seen before", f"{same} {have} training images: expect less of identities that are new.")
        )
    return highlights


def _all_wrong(data: ReportData, details: EmbeddingDetails | None) -> list[Highlight]:
    """The identities none of whose images has another of theirs as its nearest."""
    if details is None or not len(details.first):
        return []
    labels = data.evaluation.labels
    counts = np.bincount(labels, minlength=len(data.classes))
    right = np.bincount(labels[labels == labels[details.first]], minlength=len(data.classes))
    missed = [(data.classes[label], int(counts[label])) for label in np.flatnonzero((counts > 1) & (right == 0))]
    return all_missed(missed, "Never nearest", "queries")


def _most_confused(data: ReportData, details: EmbeddingDetails | None) -> list[Highlight]:
    if details is None or not len(details.first):
        return []
    labels = data.evaluation.labels
    others = np.bincount(labels)[labels] > 1  # an identity of one image has no image that would be right
    pairs = zip(labels[others].tolist(), labels[details.first[others]].tolist())
    mixed = Counter((a, b) for a, b in pairs if a != b)
    if not mixed:
        return []
    (true, nearest), times = mixed.most_common(1)[0]
    names = f"{bdi(data.classes[nearest])} is nearest to {bdi(data.classes[true])}"
    return [
        Highlight(
            "Most confused",
            f"{names} for {grouped(times)} of its {grouped_count(int((labels == true).sum()), 'image')}.",
        )
    ]


def roc_chart(scores: Any) -> Markup:
    """True accept rate by false accept rate, the latter on a logarithmic axis, with the threshold."""
    verification = scores.verification
    total = int(verification.other.sum())
    decades = max(1, min(DECADES, math.ceil(math.log10(max(total, 10)))))
    far, tar = sampled(verification.same, verification.other, np.geomspace(10.0**-decades, 1, SAMPLES))
    ring = (scores.verification.accepted(scores.threshold)[1], scores.metrics["tar"])
    samples = "; ".join(
        f"{percent(float(tar[index]))} at {percent(float(far[index]), 2)}" for index in range(0, SAMPLES, SAMPLES // 4)
    )
    description = f"ROC: true accept rate by false accept rate: {samples}."
    across = RateAxis("false accept rate", decades)
    curve = RateCurve(far.tolist(), tar.tolist(), "a")
    return rate_chart(description, [curve], across, "true accept rate", height=270, ring=ring, rule=scores.far)


def sampled(
    same: NDArray[np.int64], other: NDArray[np.int64], far: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(FAR, TAR): the largest fraction of `same` that is accepted where at most each `far` of `other` is.

    same, other: pairs by rising similarity.
    """
    accepted = np.concatenate([[0.0], np.cumsum(other[::-1]) / other.sum()])
    right = np.concatenate([[0.0], np.cumsum(same[::-1]) / same.sum()])
    return far, right[np.searchsorted(accepted, far * (1 + 1e-12), side="right") - 1]


def coloured(labels: NDArray[np.int64]) -> list[int]:
    """The identities with a colour of their own: those with the most points, of equal ones the first."""
    counts = np.bincount(labels) if len(labels) else np.zeros(0, np.int64)
    order = np.argsort(-counts, kind="stable")[:COLOURED]
    return [int(label) for label in sorted(order.tolist()) if counts[label]]


def projection_chart(places: NDArray[np.float32], labels: NDArray[np.int64], names: Sequence[str]) -> Markup:
    """Points in the plane, the same scale along both axes, coloured by identity; the rest are grey and behind them."""
    low, high = places.min(axis=0), places.max(axis=0)
    middle, reach = (low + high) / 2, float(max((high - low).max(), 1e-6)) / 2
    height = round(max(120.0, (WIDTH - 24) * float(high[1] - low[1]) / (2 * reach) + 24))
    across = Scale(float(middle[0]) - reach, float(middle[0]) + reach, 12, WIDTH - 12)
    half = (height - 24) / (WIDTH - 24) * reach
    up = Scale(float(middle[1]) - half, float(middle[1]) + half, height - 12, 12)
    own = {label: f"p{rank}" for rank, label in enumerate(coloured(labels))}
    order = sorted(range(len(labels)), key=lambda index: int(labels[index]) in own)
    parts = []
    for index in order:
        label = int(labels[index])
        x, y = across(float(places[index, 0])), up(float(places[index, 1]))
        parts.append(element("circle", tooltip(names[label]), cx=x, cy=y, r=3, class_=f"fill {own.get(label, 'c')}"))
    identities = len(np.unique(labels))
    images = f"{counted(len(labels), 'image')} of {counted(identities, 'identity')}"
    description = f"{images} along the two directions of largest variance."
    return chart(WIDTH, height, description, *parts)

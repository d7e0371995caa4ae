"""The report of several heads, and of labels, numbers and classes of a tree: what each head is worth, in tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gossamer.report import figures
from gossamer.report.contents import ReportData
from gossamer.report.detect import BACKGROUND, pairs
from gossamer.report.formats import count, points, significant
from gossamer.report.scatter import scatter
from gossamer.report.scores import Pair, confused_pairs
from gossamer.report.view import SPLITS, Finding, KeyFigure, View, bdi, weakest_first
from gossamer.tasks.detection.scores import DetectionScores
from gossamer.tasks.embedding.scores import EmbeddingScores
from gossamer.tasks.multihead.scores import MultiScores
from gossamer.tasks.scores import Evaluation
from gossamer.tasks.scores_heads import Hierarchical, MultiLabel, Regression
from gossamer.tasks.segmentation.scores import SegmentationEvaluation

PAIRS = 10
CHARTS = 12  # quantities with a chart of their own


class Row(NamedTuple):
    """A class, label, quantity or level: the share its bar shows (nan for none), and the cells behind."""

    name: str
    share: float
    cells: tuple[str, ...]


class Chart(NamedTuple):
    """A figure and what stands above it."""

    name: str
    said: str
    svg: str


@dataclass(frozen=True)
class Part:
    """What the page shows of one head.

    said: a sentence on what the table's numbers are. columns: above the cells of `rows`; the first is that of the bar.
    matrix: the confusion of `classes`, of `counted`. facts: (name, value) of the head's scores.
    """

    said: str
    facts: list[tuple[str, str]]
    columns: tuple[str, ...] = ()
    rows: list[Row] = field(default_factory=list)
    what: str = "class"
    classes: tuple[str, ...] = ()
    matrix: str = ""
    pairs: list[Pair] = field(default_factory=list)
    counted: str = "images"
    charts: list[Chart] = field(default_factory=list)


class Titled(NamedTuple):
    """A part with its place on the page and the images that have its label."""

    id: str
    name: str
    kind: str
    images: int
    main: str
    value: float
    part: Part


def view(data: ReportData) -> View:
    """The part of several heads, or of one without a report of its own."""
    found = data.evaluation
    if isinstance(found, MultiScores):
        scores, main = found.heads, found.main
    else:
        scores, main = {data.task: found}, {data.task: data.score}
    parts = [
        Titled(f"head-{index}", name, kind, len(one.names), main[name], one.metrics[main[name]], make(one))
        for index, (name, one) in enumerate(scores.items())
        for kind, make in [_kind(one)]
    ]
    images = f"{count(len(found.names))} {data.split} images"
    note = f"the mean of {len(parts)} heads; {images}" if len(parts) > 1 else images
    return View(
        template="heads.html",
        sections=(*([("heads", "Heads")] if len(parts) > 1 else []), *((one.id, one.name) for one in parts)),
        subject=f"{len(parts)} heads" if len(parts) > 1 else f"task {data.task}",
        headline=KeyFigure(_plain(data.score), significant(found.metrics[data.score]), note),
        findings=_findings(parts, len(found.names)),
        values={"parts": parts, "said": images},
        extent_heads=("images",),
        extents=[(SPLITS.get(name, name), (images,)) for name, images in data.images.items()],
        styles=("tasks.css",),
    )


def _findings(parts: Sequence[Titled], images: int) -> list[Finding]:
    known = [one for one in parts if math.isfinite(one.value)]
    found = []
    if len(known) > 1:
        weakest = min(known, key=lambda one: one.value)
        said = f"{bdi(weakest.name)}: {_plain(weakest.main)} {significant(weakest.value)}."
        found.append(Finding("Weakest head", said))
    for one in parts:
        if one.images < images:
            said = (
                f"{bdi(one.name)} is known of {count(one.images)} of {count(images)} images; the others count nowhere."
            )
            found.append(Finding("Labels missing", said))
    return found


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _facts(scores: Any) -> list[tuple[str, str]]:
    """The scores of a head by name, its loss first where it has one."""
    values = {"loss": scores.loss, **scores.metrics} if math.isfinite(scores.loss) else scores.metrics
    return [(_plain(name), significant(value, 4)) for name, value in values.items()]


def _classes(scores: Evaluation) -> Part:
    rows = weakest_first(scores.per_class, "f1")
    return Part(
        "The weakest class first, in per cent. Precision: of the images given this name, those that bear it rightly. "
        "Recall: of the images of this class, those that were found. F1: their harmonic mean.",
        _facts(scores),
        ("F1", "precision", "recall", "images"),
        [_row(row, "f1", "precision", "recall") for row in rows],
        classes=scores.classes,
        matrix=figures.matrix(scores.confusion, scores.classes),
        pairs=confused_pairs(scores.confusion, PAIRS),
    )


def _row(row: dict[str, Any], *shares: str) -> Row:
    """The first share with its bar, the others behind it, the support last."""
    first, *others = shares
    return Row(row["class"], row[first], (*(points(row[name]) for name in others), count(row["support"])))


def _labels(scores: MultiLabel) -> Part:
    rows = weakest_first(scores.per_class, "ap")
    return Part(
        "The weakest label first, in per cent. AP: average precision over all thresholds; precision, recall and F1 at a "
        "probability of 0.5. Images: those that have the label.",
        _facts(scores),
        ("AP", "precision", "recall", "F1", "images"),
        [_row(row, "ap", "precision", "recall", "f1") for row in rows],
        what="label",
    )


def _quantities(scores: Regression) -> Part:
    rows = [
        Row(
            row["class"],
            row["r2"],
            (
                *(significant(row[name]) for name in ("mae", "rmse", "bias", "low", "high")),
                count(row["support"]),
            ),
        )
        for row in scores.per_class
    ]
    charts = []
    for index, row in enumerate(scores.per_class[:CHARTS]):
        known = ~np.isnan(scores.targets[:, index])
        truth, said = scores.targets[known, index], scores.outputs[known, index]
        charts.append(Chart(row["class"], f"R² {significant(row['r2'])}", scatter(row["class"], truth, said)))
    return Part(
        "In the unit of each quantity. R²: the share of its variance that is explained, in per cent; MAE: mean absolute "
        "error; RMSE: root of the mean squared error; bias: the mean of said less true; from, to: the true values.",
        _facts(scores),
        ("R²", "MAE", "RMSE", "bias", "from", "to", "images"),
        rows,
        what="quantity",
        charts=charts,
    )


def _levels(scores: Hierarchical) -> Part:
    rows = []
    for level in range(scores.targets.shape[1]):
        share, known = scores.metrics[f"accuracy:{level + 1}"], int((scores.targets[:, level] >= 0).sum())
        rows.append(Row(f"level {level + 1}", share, (count(known),)))
    return Part(
        "In per cent, the coarsest level first: of the images whose class is known at that level, those named rightly.",
        _facts(scores),
        ("accuracy", "images"),
        rows,
        what="level",
    )


def _pixels(scores: SegmentationEvaluation) -> Part:
    return Part(
        "The weakest class first, in per cent. IoU: of the pixels that are of the class or were said to be, those that "
        "are both. Found: of the pixels of the class, those that were said to be.",
        _facts(scores),
        ("IoU", "found", "precision", "pixels"),
        [_row(row, "iou", "accuracy", "precision") for row in weakest_first(scores.per_class, "iou")],
        classes=scores.classes,
        matrix=figures.matrix(scores.confusion, scores.classes, "pixels", cents=True),
        pairs=confused_pairs(scores.confusion, PAIRS),
        counted="pixels",
    )


def _boxes(scores: DetectionScores) -> Part:
    return Part(
        "Average precision (AP), the weakest class first, in per cent: at an overlap of 0.5, at 0.75, and the mean over "
        "0.5 to 0.95. Recall: with at most 100 boxes an image, the mean over the same overlaps.",
        _facts(scores),
        ("AP 0.5", "AP 0.75", "AP 0.5–0.95", "recall", "objects"),
        [_row(row, "map50", "map75", "map", "recall") for row in weakest_first(scores.per_class, "map50")],
        classes=scores.classes,
        matrix=figures.matrix(scores.confusion, (*scores.classes, BACKGROUND), "objects"),
        pairs=pairs(scores.confusion),
        counted="objects",
    )


def _neighbours(scores: EmbeddingScores) -> Part:
    return Part(
        "Each image is looked up among all others by cosine similarity. Recall at k: an image of the same identity is "
        "among the k nearest.",
        _facts(scores),
    )


KINDS: dict[type, tuple[str, Callable[[Any], Part]]] = {
    Evaluation: ("classes", _classes),
    MultiLabel: ("labels", _labels),
    Regression: ("numbers", _quantities),
    Hierarchical: ("classes of a tree", _levels),
    SegmentationEvaluation: ("masks", _pixels),
    DetectionScores: ("boxes", _boxes),
    EmbeddingScores: ("embeddings", _neighbours),
}


def _kind(scores: Any) -> tuple[str, Callable[[Any], Part]]:
    return KINDS.get(type(scores), ("scores", lambda other: Part("", _facts(other))))

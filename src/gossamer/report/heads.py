"""The report of several heads, and of labels, numbers and classes of a tree: the scores of each head, in tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gossamer.charts.confusion import confusion_chart
from gossamer.charts.scatter import predicted_against_true
from gossamer.charts.svg import Markup
from gossamer.host.text import grouped, grouped_count, metric_name, metric_title, points, significant
from gossamer.report.contents import ReportData
from gossamer.report.detect import BACKGROUND, class_confusions
from gossamer.report.scores import ConfusedPair, confused_pairs
from gossamer.report.view import SPLITS, Highlight, KeyFigure, TaskView, all_missed, bdi, listed, weakest_first
from gossamer.tasks.detection.scores import DetectionScores
from gossamer.tasks.embedding.scores import EmbeddingScores
from gossamer.tasks.multihead.scores import MultiScores
from gossamer.tasks.scores import Evaluation
from gossamer.tasks.scores_heads import HierarchicalEvaluation, MultiLabelEvaluation, RegressionEvaluation
from gossamer.tasks.segmentation.scores import SegmentationEvaluation

PAIRS = 10
CHARTS = 12  # quantities with a chart of their own


class ScoreRow(NamedTuple):
    """A class, label, quantity or level: the score its bar shows, 0..1 (nan for none), and the cells behind it."""

    name: str
    score: float
    cells: tuple[str, ...]


class NamedChart(NamedTuple):
    """A chart and what stands above it."""

    name: str
    note: str
    svg: Markup


@dataclass(frozen=True)
class HeadSection:
    """What the page shows of one head.

    explanation: what the table's numbers are, in sentences. columns: above the cells of `rows`; the first is that of the bar.
    matrix: the confusion of `classes`, of `counted`. facts: (name, value) of the head's scores.
    """

    explanation: str
    facts: list[tuple[str, str]]
    columns: tuple[str, ...] = ()
    rows: list[ScoreRow] = field(default_factory=list)
    what: str = "class"
    classes: tuple[str, ...] = ()
    matrix: Markup | None = None
    pairs: list[ConfusedPair] = field(default_factory=list)
    counted: str = "images"
    charts: list[NamedChart] = field(default_factory=list)


class PlacedSection(NamedTuple):
    """The section of a head with its place on the page and the images that have its label."""

    id: str
    name: str
    kind: str
    images: int
    main: str
    value: float
    section: HeadSection


def heads_view(data: ReportData) -> TaskView:
    """The part of several heads, or of one without a report of its own."""
    evaluation = data.evaluation
    if isinstance(evaluation, MultiScores):
        heads, main = evaluation.heads, evaluation.main
    else:
        heads, main = {data.task: evaluation}, {data.task: data.score}
    parts = []
    for index, (name, scores) in enumerate(heads.items()):
        kind, section_of = _kind(scores)
        value = scores.metrics[main[name]]
        parts.append(
            PlacedSection(f"head-{index}", name, kind, len(scores.names), main[name], value, section_of(scores))
        )
    images = grouped_count(len(evaluation.names), f"{data.split} image")
    note = f"the mean of {len(parts)} heads; {images}" if len(parts) > 1 else images
    return TaskView(
        template="heads.html",
        sections=(*([("heads", "Heads")] if len(parts) > 1 else []), *((part.id, part.name) for part in parts)),
        subject=f"{len(parts)} heads" if len(parts) > 1 else _subject(data.task, parts[0].section),
        headline=KeyFigure(metric_title(data.score), significant(evaluation.metrics[data.score]), note),
        highlights=[*_failures(heads), *_highlights(parts, len(evaluation.names))],
        values={"parts": parts, "images": images},
        extent_heads=("images",),
        extents=[(SPLITS.get(name, name), (images,)) for name, images in data.images.items()],
        styles=("tasks.css",),
    )


def _subject(task: str, section: HeadSection) -> str:
    """What a single head distinguishes: "8 labels"."""
    plural = {"class": "classes", "quantity": "quantities"}.get(section.what, f"{section.what}s")
    return (
        f"{len(section.rows)} {section.what if len(section.rows) == 1 else plural}" if section.rows else f"task {task}"
    )


def _failures(heads: dict[str, Any]) -> list[Highlight]:
    """The classes, labels and quantities of which a head knows nothing."""
    highlights = []
    for name, scores in heads.items():
        rows = [row for row in scores.per_class if row.get("support")] if type(scores) in RECALLS else []
        key, counted = RECALLS.get(type(scores), ("", ""))
        missed = [(row["class"], row["support"]) for row in rows if row[key] == 0]
        where = f" ({bdi(name)})" if len(heads) > 1 else ""
        highlights += all_missed(missed, "Never found", counted, where)
        if isinstance(scores, RegressionEvaluation):
            worse = [row["class"] for row in scores.per_class if row["r2"] <= 0]
            if worse:
                sentence = f"{listed(worse)}: R² of 0 or less{where}; the mean of the true values would be as close."
                highlights.append(Highlight("No better than the mean", sentence, failure=True))
    return highlights


def _highlights(parts: Sequence[PlacedSection], images: int) -> list[Highlight]:
    known = [part for part in parts if math.isfinite(part.value)]
    highlights = []
    if len(known) > 1:
        weakest = min(known, key=lambda part: part.value)
        score = f"{bdi(weakest.name)}: {metric_name(weakest.main)} {significant(weakest.value)}."
        highlights.append(Highlight("Weakest head", score))
    for part in parts:
        if part.images < images:
            has = "has" if part.images == 1 else "have"
            labelled = f"{grouped(part.images)} of {grouped_count(images, 'image')} {has} a label of {bdi(part.name)}"
            highlights.append(Highlight("Labels missing", f"{labelled}; the others do not count in its scores."))
    return highlights


def _facts(scores: Any) -> list[tuple[str, str]]:
    """The scores of a head by name, its loss first where it has one."""
    values = {"loss": scores.loss, **scores.metrics} if math.isfinite(scores.loss) else scores.metrics
    return [(metric_name(name), significant(value, 4)) for name, value in values.items()]


def _classes(scores: Evaluation) -> HeadSection:
    rows = weakest_first(scores.per_class, "f1")
    return HeadSection(
        "The weakest class first, in per cent. Precision: TP / (TP + FP). Recall: TP / (TP + FN). "
        "F1: their harmonic mean.",
        _facts(scores),
        ("F1", "precision", "recall", "images"),
        [_row(row, "f1", "precision", "recall") for row in rows],
        classes=scores.classes,
        matrix=confusion_chart(scores.confusion, scores.classes),
        pairs=confused_pairs(scores.confusion, PAIRS),
    )


def _row(row: dict[str, Any], *scores: str) -> ScoreRow:
    """The first score with its bar, the others behind it, the support last."""
    first, *others = scores
    return ScoreRow(row["class"], row[first], (*(points(row[name]) for name in others), grouped(row["support"])))


def _labels(scores: MultiLabelEvaluation) -> HeadSection:
    rows = weakest_first(scores.per_class, "ap")
    return HeadSection(
        "The weakest label first, in per cent. AP: average precision over all thresholds; precision, recall and F1 at a "
        "probability of 0.5. Images: those that have the label.",
        _facts(scores),
        ("AP", "precision", "recall", "F1", "images"),
        [_row(row, "ap", "precision", "recall", "f1") for row in rows],
        what="label",
    )


def _quantities(scores: RegressionEvaluation) -> HeadSection:
    rows = [
        ScoreRow(
            row["class"],
            row["r2"],
            (
                *(significant(row[name]) for name in ("mae", "rmse", "bias", "low", "high")),
                grouped(row["support"]),
            ),
        )
        for row in scores.per_class
    ]
    charts = []
    for index, row in enumerate(scores.per_class[:CHARTS]):
        known = ~np.isnan(scores.targets[:, index])
        chart = predicted_against_true(row["class"], scores.targets[known, index], scores.outputs[known, index])
        charts.append(NamedChart(row["class"], f"R² {significant(row['r2'])}", chart))
    return HeadSection(
        "In the unit of each quantity. R²: the explained fraction of the variance, in per cent; MAE: mean absolute "
        "error; RMSE: root mean squared error; bias: mean of predicted minus true; min, max: of the true values.",
        _facts(scores),
        ("R²", "MAE", "RMSE", "bias", "min", "max", "images"),
        rows,
        what="quantity",
        charts=charts,
    )


def _levels(scores: HierarchicalEvaluation) -> HeadSection:
    rows = []
    for level in range(scores.targets.shape[1]):
        accuracy, known = scores.metrics[f"accuracy:{level + 1}"], int((scores.targets[:, level] >= 0).sum())
        rows.append(ScoreRow(f"level {level + 1}", accuracy, (grouped(known),)))
    return HeadSection(
        "In per cent, the coarsest level first: accuracy over the images whose class is known at that level.",
        _facts(scores),
        ("accuracy", "images"),
        rows,
        what="level",
    )


def _pixels(scores: SegmentationEvaluation) -> HeadSection:
    return HeadSection(
        "The weakest class first, in per cent. IoU: TP / (TP + FP + FN), in pixels. "
        "Recall: TP / (TP + FN). Precision: TP / (TP + FP).",
        _facts(scores),
        ("IoU", "recall", "precision", "pixels"),
        [_row(row, "iou", "accuracy", "precision") for row in weakest_first(scores.per_class, "iou")],
        classes=scores.classes,
        matrix=confusion_chart(scores.confusion, scores.classes, "pixels", percent=True),
        pairs=confused_pairs(scores.confusion, PAIRS),
        counted="pixels",
    )


def _boxes(scores: DetectionScores) -> HeadSection:
    return HeadSection(
        "Average precision (AP), the weakest class first, in per cent: at an IoU of 0.5, of 0.75, and the mean "
        "over 0.5 to 0.95. AR: mean recall over the same IoUs with at most 100 boxes per image.",
        _facts(scores),
        ("AP@0.5", "AP@0.75", "AP@0.5:0.95", "AR@100", "objects"),
        [_row(row, "map50", "map75", "map", "recall") for row in weakest_first(scores.per_class, "map50")],
        classes=scores.classes,
        matrix=confusion_chart(scores.confusion, (*scores.classes, BACKGROUND), "objects"),
        pairs=class_confusions(scores.confusion),
        counted="objects",
    )


def _neighbours(scores: EmbeddingScores) -> HeadSection:
    return HeadSection(
        "Each image is a query among all others, by cosine similarity. Recall@k: the fraction of queries with an image of "
        "the same identity among the k nearest.",
        _facts(scores),
    )


# kind of scores -> recall: the fraction of a class's support that was detected, and what the support counts
RECALLS: dict[type, tuple[str, str]] = {
    Evaluation: ("recall", "images"),
    MultiLabelEvaluation: ("recall", "images"),
    SegmentationEvaluation: ("accuracy", "pixels"),
    DetectionScores: ("recall", "objects"),
}
KINDS: dict[type, tuple[str, Callable[[Any], HeadSection]]] = {
    Evaluation: ("classes", _classes),
    MultiLabelEvaluation: ("labels", _labels),
    RegressionEvaluation: ("numbers", _quantities),
    HierarchicalEvaluation: ("classes of a tree", _levels),
    SegmentationEvaluation: ("masks", _pixels),
    DetectionScores: ("boxes", _boxes),
    EmbeddingScores: ("embeddings", _neighbours),
}


def _kind(scores: Any) -> tuple[str, Callable[[Any], HeadSection]]:
    return KINDS.get(type(scores), ("scores", lambda other: HeadSection("", _facts(other))))

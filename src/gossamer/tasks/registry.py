"""The tasks by their names."""

from __future__ import annotations

import importlib
from dataclasses import replace

from gossamer.data.source import Source
from gossamer.errors import SettingsError
from gossamer.predictions.anchors import AnchorSpec
from gossamer.predictions.boxes import Decoding
from gossamer.predictions.head import OutputHead
from gossamer.settings import Settings
from gossamer.tasks.base import Task
from gossamer.tasks.scores import ClassScorer, Scorer

# name -> (module, class)
TASKS: dict[str, tuple[str, str]] = {
    "classify": ("gossamer.tasks.classify", "Classify"),
    "multilabel": ("gossamer.tasks.multi", "MultiLabel"),
    "regress": ("gossamer.tasks.multi", "Regress"),
    "detect": ("gossamer.tasks.detect", "Detect"),
    "segment": ("gossamer.tasks.segment", "Segment"),
    "embed": ("gossamer.tasks.embed", "Embed"),
    "multi": ("gossamer.tasks.multi", "Multi"),
}


def task_of(name: str) -> type[Task]:
    """The task called `name`, which the settings have checked."""
    module, kind = TASKS[name]
    task: type[Task] = getattr(importlib.import_module(module), kind)
    return task


def scorer_of(heads: tuple[OutputHead, ...]) -> Scorer:
    """The scorer of the predictions of a model file. Raises SettingsError where there is none."""
    if heads[0].name:  # a head of several, or of a task that could have had several
        from gossamer.tasks.multihead.scores import MultiScorer

        main = {head.name: task_of(head.kind).score for head in heads}
        return MultiScorer({head.name: scorer_of((replace(head, name=""),)) for head in heads}, heads, main)
    head = heads[0]
    if head.kind == "classify" and not head.options.get("hierarchy"):
        return ClassScorer(head.classes)
    if head.kind in ("classify", "multilabel", "regress"):
        from gossamer.tasks.multihead.scores import LabelScorer, NumberScorer, TreeScorer

        if head.kind == "classify":
            return TreeScorer(head.classes)
        if head.kind == "multilabel":
            return LabelScorer(head.classes)
        return NumberScorer(head.classes, head.options["mean"], head.options["std"])
    if head.kind == "detect":
        from gossamer.tasks.detection.scores import DetectionScorer

        spec, how = AnchorSpec.from_json(head.options["anchors"]), Decoding.from_json(head.options["decoding"])
        return DetectionScorer(head.classes, spec, how)
    if head.kind == "segment":
        from gossamer.tasks.segmentation.scores import MaskScorer

        height, width = head.options["size"]
        return MaskScorer(head.classes, (height, width))
    from gossamer.tasks.embedding.scores import EmbeddingScorer

    return EmbeddingScorer()


def source_of(heads: tuple[OutputHead, ...], root: str, ignore_index: int | None = None, split: str = "") -> Source:
    """The images at `root` with the targets of the heads of a model file. Raises DataError, SettingsError."""
    if heads[0].name:
        raise SettingsError("a model file of named heads with data", "its run folder", "gossamer eval RUN")
    if ignore_index is not None and heads[0].kind != "segment":
        raise SettingsError(
            f"ignore_index {ignore_index} with a model file of {heads[0].kind}", "masks", "leave it out"
        )
    settings = Settings(ignore_index=ignore_index)
    return task_of(heads[0].kind).open_source(root, heads[0].classes, settings, split)

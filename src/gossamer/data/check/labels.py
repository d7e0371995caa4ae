"""The boxes and masks of a data set: counts per class, sizes, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from gossamer.data.boxes.annotation import BoxTarget
from gossamer.data.boxes.open import read_boxes
from gossamer.data.boxes.table import size_differences
from gossamer.data.check.images import table_lines
from gossamer.data.heads.open import HeadTargets
from gossamer.data.source import Data, Source, shown
from gossamer.errors import GossamerError, ImageError
from gossamer.images.preprocess import printable
from gossamer.predictions.masks import IGNORED

ABSENT = "cannot be learnt where training has none of it, nor measured where validation has none"


@dataclass(frozen=True)
class TargetCheck:
    """The targets of each split: counts, sizes and what cannot be read.

    unit: "boxes" or "pixels". counts: split -> class -> how many. facts: split -> what -> how much; sides in pixels of
    the images. unreadable: name and reason of masks that cannot be read. notes: what looks odd in the annotations.
    """

    unit: str
    counts: dict[str, dict[str, int]]
    facts: dict[str, dict[str, float | None]]
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def advice(self) -> list[str]:
        """What to do, a line each."""
        lines = []
        for split, classes in self.counts.items():
            if absent := [printable(name) for name, count in classes.items() if not count]:
                lines.append(f"No {self.unit} in {split}: {shown(absent)}. A class {ABSENT}: add some, or drop it.")
        if self.unreadable:
            lines.append(
                f"Annotations that cannot be read: {len(self.unreadable)}. Their images are skipped: fix them."
            )
        return lines + [f"{note[:1].upper()}{note[1:]}. Annotate them again, or fix the sizes." for note in self.notes]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        unreadable = [{"name": name, "reason": reason} for name, reason in self.unreadable]
        return {**asdict(self), "unreadable": unreadable, "advice": self.advice}

    def text(self) -> str:
        """Tables for a terminal, and the notes."""
        splits = list(self.counts)
        classes, kinds = list(self.counts[splits[0]]), list(self.facts[splits[0]])
        rows = [(self.unit, *splits)]
        rows += [(printable(name), *(str(self.counts[split][name]) for split in splits)) for name in classes]
        rows += [(kind, *(_figure(self.facts[split][kind]) for split in splits)) for kind in kinds]
        lines = table_lines(rows)
        lines.insert(1 + len(classes), "")  # the facts stand in the same columns, below the classes
        lines += [f"cannot be read: {printable(name)}: {printable(reason)}" for name, reason in self.unreadable[:5]]
        lines += ["..."] if len(self.unreadable) > 5 else []
        return "\n".join([*lines, *map(printable, self.notes)])


def check_boxes(data: Data, roots: Iterable[str]) -> TargetCheck:
    """The boxes of `data`, which are at `roots`; every image's header is read. Raises DataError."""
    counts, facts = {}, {}
    for split, source in data.splits().items():
        boxes: list[BoxTarget] = [source.target(index) for index in range(len(source))]
        labels = np.concatenate([each.labels for each in boxes])
        sides = np.concatenate([each.corners[:, 2:] - each.corners[:, :2] for each in boxes])
        counts[split] = dict(zip(data.classes, np.bincount(labels, minlength=len(data.classes)).tolist(), strict=True))
        facts[split] = {
            "images": len(source),
            "images without boxes": sum(not len(each) for each in boxes),
            "most boxes on an image": max(map(len, boxes)),
            "smallest side (px)": float(sides.min()) if len(sides) else None,
            "median width (px)": float(np.median(sides[:, 0])) if len(sides) else None,
            "median height (px)": float(np.median(sides[:, 1])) if len(sides) else None,
        }
    differ = [line for root in roots if root for line in size_differences(read_boxes(root))]
    return TargetCheck("boxes", counts, facts, notes=differ)


def check_masks(data: Data) -> TargetCheck:
    """The masks of `data`, each of which is read, shared among threads."""
    counts: dict[str, dict[str, int]] = {}
    facts: dict[str, dict[str, float | None]] = {}
    unreadable: list[tuple[str, str]] = []
    for split, source in data.splits().items():
        total, read = np.zeros(IGNORED + 1, np.int64), 0
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for index, histogram in enumerate(
                pool.map(lambda at, source=source: _histogram(source, at), range(len(source)))
            ):
                if isinstance(histogram, str):
                    unreadable.append((source.names[index], histogram))
                else:
                    total, read = total + histogram, read + 1
        counts[split] = dict(zip(data.classes, total[: len(data.classes)].tolist()))
        facts[split] = {
            "images": len(source),
            "ignored pixels": int(total[IGNORED]),
            "masks read": read,
        }
    return TargetCheck("pixels", counts, facts, unreadable)


def check_heads(data: Data) -> TargetCheck:
    """The labels of each head of `data`: images of each class or label, numbers, boxes and pixels of masks."""
    counts: dict[str, dict[str, int]] = {}
    facts: dict[str, dict[str, float | None]] = {}
    unreadable: list[tuple[str, str]] = []
    for split, source in data.splits().items():
        assert isinstance(source.targets, HeadTargets)
        counts[split] = {}
        facts[split] = {"images": len(source)}
        for head, column in source.targets.columns.items():
            named = {name: f"{head}/{name}" if head else name for name in column.classes}
            total = np.zeros(len(named), np.int64)
            labelled = 0
            for index, row in enumerate(source.rows.tolist()):
                try:
                    label = column.read(row)
                except (GossamerError, OSError) as error:
                    unreadable.append((source.names[index], str(getattr(error, "given", error))))
                    continue
                if label is not None:
                    labelled += 1
                    total += _of_label(label, len(named))
            counts[split] |= dict(zip(named.values(), total.tolist(), strict=True))
            facts[split][f"images with {head or 'a label'}"] = labelled
    return TargetCheck("labels", counts, facts, unreadable)


def _of_label(label: Any, classes: int) -> Any:
    """How often each class is in one label: a number, numbers by column, boxes or a mask; (classes,)."""
    if isinstance(label, BoxTarget):
        return np.bincount(label.labels, minlength=classes)
    array = np.asarray(label)
    if array.ndim == 0:
        return np.bincount([int(array)], minlength=classes)
    if array.dtype.kind == "f":  # several labels as 0 and 1, or quantities, of which each that is known counts
        known = ~np.isnan(array)
        return (array > 0) & known if set(array[known].tolist()) <= {0.0, 1.0} else known
    return np.bincount(array.ravel(), minlength=IGNORED + 1)[:classes]


def _histogram(source: Source, index: int) -> Any:
    """Pixels of each value of a mask, (256,) int64, or why it cannot be read."""
    try:
        return np.bincount(source.target(index).ravel(), minlength=IGNORED + 1)
    except ImageError as error:
        return error.given
    except (GossamerError, OSError) as error:
        return str(error)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value == int(value) else f"{value:.1f}"

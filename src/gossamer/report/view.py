"""The task's part of the report: the interface between a task and the rest of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gossamer.host.text import grouped, percent
from gossamer.report.contents import ReportData

SPLITS = {"train": "training", "val": "validation"}
IMBALANCE = 3.0  # largest class over smallest, from which it is mentioned


class KeyFigure(NamedTuple):
    """A number of the headline; `command` measures it where `value` is empty."""

    name: str
    value: str
    note: str
    command: str = ""


class Highlight(NamedTuple):
    """What stands out, in a word or two, and a sentence with its numbers; failure: the network does not do its work."""

    what: str
    sentence: str
    failure: bool = False


class SplitRow(NamedTuple):
    """The images of a split, and its smallest and largest class."""

    name: str
    images: int
    smallest: str
    smallest_count: int
    largest: str
    largest_count: int


@dataclass(frozen=True)
class TaskView:
    """A task's part of the page.

    template: the file of its sections, with `values`. sections: (id, title) of those that the navigation names.
    subject: what the task distinguishes, "3 classes". highlights: what stands out in its scores.
    smallest: the splits with their smallest and largest class, or else extents: (split, numbers) under extent_heads.
    counted: what `ReportData.counts` counts, where they are shown by class. styles: files of style beside the page's.
    """

    template: str
    sections: tuple[tuple[str, str], ...]
    subject: str
    headline: KeyFigure
    highlights: list[Highlight]
    values: dict[str, Any] = field(default_factory=dict)
    smallest: list[SplitRow] = field(default_factory=list)
    extent_heads: tuple[str, ...] = ()
    extents: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    counted: str = ""
    styles: tuple[str, ...] = ()


def bdi(text: str) -> str:
    """A class name isolated from the sentence, whatever its direction of writing."""
    return f"\u2068{text}\u2069"


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first few of `names`, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(bdi, names[:most])) + more


def imbalance(data: ReportData, what: str) -> list[Highlight]:
    """A highlight where one class has many times the training `what` of another."""
    counts = data.counts.get("train", ())
    if not counts or max(counts) < IMBALANCE * max(min(counts), 1):
        return []
    small, large = counts.index(min(counts)), counts.index(max(counts))
    sentence = (
        f"{grouped(counts[large])} training {what} of {bdi(data.classes[large])}, "
        f"{grouped(counts[small])} of {bdi(data.classes[small])}."
    )
    return [Highlight("Imbalance", sentence)]


def never_predicted(names: Sequence[str], what: str = "Never predicted") -> list[Highlight]:
    """A highlight that names the classes that were never predicted."""
    return [Highlight(what, f"{listed(names)}.")] if names else []


def all_missed(rows: Sequence[tuple[str, int]], what: str, counted: str, where: str = "") -> list[Highlight]:
    """A failure that names the classes without any detection: (name, how many there are) of each, the largest first.

    what: the word or two; counted: what is missed, "images"; where: what else there is to say, at the end.
    """
    if not rows:
        return []
    most = 5
    ordered = sorted(rows, key=lambda row: -row[1])
    parts = [f"{bdi(name)}: {grouped(count)} of {grouped(count)} {counted} missed" for name, count in ordered[:most]]
    more = f"; and {len(rows) - most} more" if len(rows) > most else ""
    return [Highlight(what, f"{'; '.join(parts)}{more}{where}.", failure=True)]


def most_confused(data: ReportData, true: int, predicted: int, times: str, fraction: float) -> Highlight:
    """A highlight that names the two classes that are confused most. times: "12 times"; fraction: of the true class."""
    names = f"{bdi(data.classes[true])} predicted as {bdi(data.classes[predicted])}"
    return Highlight("Most confused", f"{names}: {times}, {percent(fraction, 0)} of that class.")


def weakest_first(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Rows of per-class scores by `key`, the lowest first; classes that do not occur last."""
    return sorted(rows, key=lambda row: (not row["support"], row[key] if math.isfinite(row[key]) else 2.0))


def with_training(rows: list[dict[str, Any]], counts: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of per-class scores, each with its number and the training count of its class, None without one."""
    return [
        {**row, "number": index, "train": counts[index] if index < len(counts) else None}
        for index, row in enumerate(rows)
    ]

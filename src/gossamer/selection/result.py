"""What `gossamer.pick` returns: the networks that keep a budget, or the one that was trained and chosen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gossamer.charts.scatter import LabelledPoint, TargetBox, pareto_chart
from gossamer.charts.svg import Markup
from gossamer.host.shown import Report
from gossamer.host.steprunner import FinishedStep
from gossamer.host.text import counted, format_table, metric_name, thread_count
from gossamer.selection.budget import Budget, Use
from gossamer.selection.finalists import FinalFile
from gossamer.selection.search import Dropped

GROUPED = (
    "not tried",
    "counted",
    "cannot be built",
    "the same network",
    "about",
)  # beginnings of reasons told together


@dataclass(frozen=True)
class FittingNetwork:
    """A network with fresh weights that keeps the budget in a precision.

    input: (height, width) in pixels. top1: per cent on ImageNet, as `source` published it at its own input; None and "" where
    nothing is known. front: nothing else here has more of it in fewer milliseconds.
    """

    network: str
    precision: str
    input: tuple[int, int]
    use: Use
    params: int
    macs: int
    top1: float | None
    source: str
    front: bool = False


@dataclass(frozen=True, repr=False)
class FittingNetworks(Report):
    """The networks of the zoo that keep a budget on this machine, the highest published accuracy first."""

    budget: Budget
    runtime: str
    threads: int
    machine: dict[str, Any]
    networks: tuple[FittingNetwork, ...]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """A table for people, the Pareto front marked with *."""
        header = ("network", "precision", "", "input", "ms", "MB", "memory MB", "M MACs", "top-1 %", "published in")
        rows = [
            (
                one.network, one.precision, "*" if one.front else "", f"{one.input[0]}x{one.input[1]}", f"{one.use.ms:.3f}",
                f"{one.use.bytes / 1e6:.3f}", f"{one.use.memory / 1e6:.3f}", f"{one.macs / 1e6:.1f}",
                "-" if one.top1 is None else f"{one.top1:.1f}", one.source or "-",
            )
            for one in self.networks
        ]  # fmt: skip
        lines = [
            f"{self.budget.text()}; milliseconds of one image in {self.runtime}, {thread_count(self.threads)}, "
            f"{self.machine['cpu']}",
            *format_table(header, rows, left=(0, 1, 2, 3, 9)),
            "* nothing here has more published accuracy in fewer milliseconds",
            "the accuracy is published, of float32 at the network's own input; milliseconds are measured here, untrained",
        ]
        return "\n".join([*lines, *reasons_in_short(self.dropped), *self.notes])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "budget": self.budget.to_json(),
            "runtime": self.runtime,
            "threads": self.threads,
            "machine": self.machine,
            "networks": [asdict(one) for one in self.networks],
            "dropped": [one.to_json() for one in self.dropped],
            "notes": list(self.notes),
        }


def _outcome(one: FinalFile, called: str) -> str:
    if one.over:
        return f"dropped: {one.over}"
    return f"{called} {one.score:.4f}" if one.score is not None else f"dropped: {called} is not defined"


def reasons_in_short(dropped: Sequence[Dropped]) -> list[str]:
    """Lines on why networks were dropped: one for each that was timed, the others by kind of reason."""
    lines, kinds = [], Counter[str]()
    for one in dropped:
        if one.use is not None:
            lines.append(f"dropped: {one.name} in {one.precision}: {one.reason}")
            continue
        kind = next((start for start in GROUPED if one.reason.startswith(start)), "")
        kinds[kind or ("too many MACs" if " M MACs: " in one.reason else one.reason)] += 1
    names = {"about": "too slow by others of the family or by the zoo's table", "counted": "too large as counted"}
    return [*lines, *(f"dropped: {count} more: {names.get(kind, kind)}" for kind, count in kinds.most_common())]


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that was trained. precision, use: the most exact that keeps the budget, untrained, as timed before.

    rung: the last that it reached, from 1; fraction: of its schedule. score: its best on the validation images, in
    float32; of the chosen one all of these are of its file. reason: why it was dropped, "" for the chosen one. front: nothing here has more of the score in fewer milliseconds.
    """

    name: str
    run: str
    precision: str
    use: Use
    rung: int
    fraction: float
    score: float | None
    reason: str
    front: bool = False


@dataclass(frozen=True, repr=False)
class Picked(Report):
    """The chosen file, and everything that was tried.

    file: the chosen file, a copy of `chosen.file`. score: the name of the metric. test: metrics on the test images, opened once
    at the end, {} where there are none. chart: the picture of `trained`.
    """

    file: str
    chosen: FinalFile
    score: str
    test: dict[str, float]
    test_images: int
    budget: Budget
    runtime: str
    threads: int
    trained: tuple[TrainedNetwork, ...]
    files: tuple[FinalFile, ...]
    dropped: tuple[Dropped, ...]
    steps: tuple[FinishedStep, ...]
    notes: tuple[str, ...]
    chart: str

    def text(self) -> str:
        """Lines for people."""
        one, called = self.chosen, metric_name(self.score)
        assert one.score is not None, "the chosen file was scored"
        lines = [
            f"{self.file}: {one.network} in {one.precision}, verified, from the run {one.run}",
            f"{one.use.text()} ({self.budget.text()}) in {self.runtime}, {thread_count(self.threads)}",
            f"{called} on {counted(one.images, 'validation image')}: {one.score:.4f}",
        ]
        if self.score in self.test:
            lines.append(f"{called} on {counted(self.test_images, 'test image')}: {self.test[self.score]:.4f}")
        header = ("network", "precision", "", "ms", "MB", "rung", "schedule", called, "")
        rows = [
            (
                each.name, each.precision, "*" if each.front else "", f"{each.use.ms:.3f}", f"{each.use.bytes / 1e6:.3f}",
                str(each.rung), f"{100 * each.fraction:.3g} %", "-" if each.score is None else f"{each.score:.4f}",
                f"dropped: {each.reason}" if each.reason else "chosen",
            )
            for each in self.trained
        ]  # fmt: skip
        lines += format_table(header, rows, left=(0, 1, 2, 8))
        lines.append(f"* nothing that was trained has more {called} in fewer milliseconds; {self.chart} is the picture")
        lines += [f"{each.file}: {each.use.text()}, {_outcome(each, called)}" for each in self.files]
        lines += reasons_in_short(self.dropped)
        lines += [f"failed: {step.what}: {step.error}" for step in self.steps if step.error]
        return "\n".join([*lines, *self.notes])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "file": self.file,
            "chosen": self.chosen.to_json(),
            "score": self.score,
            "test": self.test,
            "test_images": self.test_images,
            "budget": self.budget.to_json(),
            "runtime": self.runtime,
            "threads": self.threads,
            "trained": [asdict(one) for one in self.trained],
            "files": [one.to_json() for one in self.files],
            "dropped": [one.to_json() for one in self.dropped],
            "steps": [asdict(step) for step in self.steps],
            "notes": list(self.notes),
            "chart": self.chart,
        }


def on_front(points: Sequence[tuple[float, float | None]]) -> list[bool]:
    """Whether nothing has at least the score in at most the milliseconds, and one of them better. points: (ms, score)."""

    def beaten(ms: float, score: float) -> bool:
        return any(
            other >= score and theirs <= ms and (other > score or theirs < ms)
            for theirs, other in points
            if other is not None
        )

    return [score is not None and not beaten(ms, score) for ms, score in points]


def chart_of(trained: Sequence[TrainedNetwork], score: str, budget: Budget) -> Markup:
    """The score over the milliseconds of what was trained, the budget shaded. trained: one at least with a score."""
    known = [(one, one.score) for one in trained if one.score is not None and math.isfinite(one.score)]
    points = [LabelledPoint(one.name, one.use.ms, 100 * value, one.front) for one, value in known]
    box = None
    if budget.ms is not None and points:
        box = TargetBox(budget.ms, min(point.y for point in points), "within the budget")
    return pareto_chart("Picked networks", points, "milliseconds of an image", f"{metric_name(score)}, %", box=box)

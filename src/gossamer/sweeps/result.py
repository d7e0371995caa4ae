"""What `gossamer.sweep` returns: every trial, those that nothing else beats in score and milliseconds, and their spread."""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gossamer.charts.scatter import LabelledPoint, pareto_chart
from gossamer.charts.svg import Markup, empty_chart
from gossamer.host.progress import one_line
from gossamer.host.shown import Report
from gossamer.host.steprunner import FinishedStep
from gossamer.host.text import counted, format_table, metric_name, thread_count

SHOWN = 40  # trials in the text, at most; all of them are in trials.csv


@dataclass(frozen=True)
class SweptTrial:
    """A trial. values: of the settings that vary. ms, bytes: of its network with fresh weights, None where it was not timed.

    run: its run folder, "" for none. rung: the last that it reached, from 1; fraction: of its schedule; score: its best on
    the validation images there. reason: why it went no further, "" where it is complete. front: no complete trial has at
    least its score in no more milliseconds, one of them better. settings: the file of its settings, of those on the front.
    seeds: scores of all its seeds, its own first; () where no others were trained. lost: how often a process that trained it
    was killed and another one went on; given_up: whether a training of it was killed until it was not tried again.
    """

    number: int
    values: dict[str, Any]
    ms: float | None
    bytes: int | None
    run: str
    rung: int
    fraction: float
    score: float | None
    reason: str
    front: bool = False
    settings: str = ""
    seeds: tuple[float, ...] = ()
    lost: int = 0
    given_up: bool = False

    @property
    def note(self) -> str:
        """Why it went no further, and how often its process was lost."""
        return "; ".join(filter(None, (self.reason, f"worker lost {counted(self.lost, 'time')}" if self.lost else "")))

    @property
    def complete(self) -> bool:
        """Whether it was trained to its end and has a score."""
        return self.fraction == 1 and self.score is not None

    @property
    def name(self) -> str:
        """Its number and what varies, for people."""
        return f"{self.number:04d} {shown_values(self.values)}"


@dataclass(frozen=True, repr=False)
class SweepResult(Report):
    """All trials of a sweep, those of the front first. score: the name of the metric. left: trials that no time was left for.

    minutes: that all starts took; budget: those allowed, None for no limit.
    """

    out: str
    score: str
    runtime: str
    threads: int
    precision: str
    machine: dict[str, Any]
    trials: tuple[SweptTrial, ...]
    left: int
    minutes: float
    budget: float | None
    steps: tuple[FinishedStep, ...]
    notes: tuple[str, ...]
    chart: str

    @property
    def front(self) -> tuple[SweptTrial, ...]:
        """The trials that nothing beats, the fastest first."""
        return tuple(sorted((one for one in self.trials if one.front), key=lambda one: one.ms or 0.0))

    @property
    def exit_code(self) -> int:
        """1 where no trial came to its end, 2 where one was given up as its process was killed again and again."""
        return 2 if any(one.given_up for one in self.trials) else 0 if self.front else 1

    def text(self) -> str:
        """A table for people, the Pareto front marked with *."""
        called = metric_name(self.score)
        seeds = any(one.seeds for one in self.trials)
        header = ("trial", "", *_varying(self.trials), "ms", "schedule", called, *(("seeds",) if seeds else ()), "")
        rows = []
        for one in self.trials[:SHOWN]:
            spread = (_spread(one.seeds),) if seeds else ()
            rows.append(
                (
                    f"{one.number:04d}", "*" if one.front else "", *(shown(value) for value in one.values.values()),
                    "-" if one.ms is None else f"{one.ms:.3f}", f"{100 * one.fraction:.3g} %",
                    "-" if one.score is None else f"{one.score:.4f}", *spread, one_line(one.note),
                )
            )  # fmt: skip
        lines = format_table(header, rows, left=(*range(2 + len(_varying(self.trials))), len(header) - 1))
        if len(self.trials) > SHOWN:
            more = counted(len(self.trials) - SHOWN, "more trial is", "more trials are")
            lines.append(f"{more} in {one_line(self.out)}/trials.csv")
        budget = "" if self.budget is None else f" of {self.budget:g}"
        complete = sum(one.complete for one in self.trials)
        lines += [
            f"* no complete trial has more {called} in fewer milliseconds; {one_line(self.chart)} is the picture",
            f"milliseconds of one image in {self.runtime}, {thread_count(self.threads)}, {self.precision}, "
            f"{self.machine['cpu']}",
            f"{counted(len(self.trials), 'trial')}, {complete} of them to the end, in {self.minutes:.1f}{budget} minutes"
            + (f"; no time was left for {self.left} more" if self.left else ""),
        ]
        given_up = [f"{one.number:04d}" for one in self.trials if one.given_up]
        if given_up:
            lines.append(
                f"given up, as their process was killed again and again: {', '.join(given_up)}; the others are complete or left "
                f"early. To try one again, remove its last file in {one_line(self.out)}/steps and give the same command"
            )
        lines += [f"gossamer train --config {one_line(shlex.quote(one.settings))}" for one in self.front]
        return "\n".join([*lines, *(one_line(note) for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "out": self.out,
            "score": self.score,
            "runtime": self.runtime,
            "threads": self.threads,
            "precision": self.precision,
            "machine": self.machine,
            "front": [one.number for one in self.front],
            "trials": [trial_json(one) for one in self.trials],
            "left": self.left,
            "minutes": self.minutes,
            "budget": self.budget,
            "steps": [asdict(step) for step in self.steps],
            "notes": list(self.notes),
            "chart": self.chart,
        }


def trial_json(one: SweptTrial) -> dict[str, Any]:
    """Plain values of a trial, with mean and standard deviation over its seeds."""
    mean, deviation = mean_and_deviation(one.seeds)
    return {**asdict(one), "seeds": list(one.seeds), "mean": mean, "deviation": deviation, "complete": one.complete}


def mean_and_deviation(scores: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean and the sample standard deviation; None for fewer than two."""
    if len(scores) < 2:
        return None, None
    return statistics.fmean(scores), statistics.stdev(scores)


def _spread(scores: Sequence[float]) -> str:
    mean, deviation = mean_and_deviation(scores)
    if mean is None or deviation is None:
        return "-"
    return f"{mean:.4f} ± {deviation:.4f} of {len(scores)} ({min(scores):.4f} to {max(scores):.4f})"


def _varying(trials: Sequence[SweptTrial]) -> tuple[str, ...]:
    return tuple(trials[0].values) if trials else ()


def shown(value: Any) -> str:
    """A value of a setting, for people."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return one_line(value if isinstance(value, str) else json.dumps(value))


def shown_values(values: Mapping[str, Any]) -> str:
    """The values that vary on one line, without their names."""
    return " ".join(shown(value) for value in values.values())


def chart_of(trials: Sequence[SweptTrial], score: str) -> Markup:
    """The score over the milliseconds of the complete trials, the front connected."""
    points = [
        LabelledPoint(one.name, one.ms, 100 * one.score, one.front)
        for one in trials
        if one.complete and one.ms is not None and one.score is not None and math.isfinite(one.score)
    ]
    if not points:
        return empty_chart("Trials of a sweep")
    return pareto_chart("Trials of a sweep", points, "milliseconds of an image", f"{metric_name(score)}, %")

"""Which trials of a bracket go on to the next rung: successive halving by score, among those that are as fast.

Source: Jamieson and Talwalkar 2016 (1502.07943); a third goes on, as in Hyperband (Li et al. 2018, 1603.06560), and beside it
whatever no faster trial beats by more than SLACK: a small network with a lower score is a point of the front, no failure.
Brackets that follow one another, their trials drawn from what those before have shown: as BOHB (Falkner et al. 2018, 1807.01774).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from gossamer.selection.halving import fractions_of

ETA = 3  # of so many trials one goes on at least
MOST_RUNGS = 3
BRACKET = 9  # trials that are drawn before any is compared
SLACK = 0.01  # of score, by which the first epochs mislead
GOING_ON = 0.5  # of the trials, about, where the schedule is derived from minutes


class Standing(NamedTuple):
    """Where a trial is at a rung."""

    number: int
    score: float
    ms: float


def fractions(trials: int) -> tuple[float, ...]:
    """Of the schedule at the end of each rung of a bracket: 9 -> (1/9, 1/3, 1), 2 -> (1/3, 1), 1 -> (1,)."""
    rungs = 1
    while rungs < MOST_RUNGS and ETA ** (rungs - 1) < trials:
        rungs += 1
    return fractions_of(rungs, ETA)


def going_on(bracket: Sequence[Standing], known: Sequence[Standing]) -> list[int]:
    """The numbers of those that go on, the best score first. known: all at this rung, those of earlier brackets too.

    All that no trial beats which is as fast; those that are beaten by SLACK at most up to half of the bracket; a third at least.
    """

    def beaten(one: Standing, slack: float) -> bool:
        return any(other.ms <= one.ms and other.score > one.score + slack for other in known)

    front = [one for one in bracket if not beaten(one, 0.0)]
    near = [one for one in bracket if not beaten(one, SLACK)]
    order = sorted(bracket, key=lambda one: (one not in front, one not in near, -one.score, one.ms, one.number))
    half = min(len(near), math.ceil(len(bracket) * GOING_ON))
    count = max(math.ceil(len(bracket) / ETA), len(front), half)
    return [one.number for one in sorted(order[:count], key=lambda one: (-one.score, one.ms, one.number))]


def work(trials: int, seeds: int) -> float:
    """Whole schedules that a sweep takes, about."""
    size = min(trials, BRACKET)
    ends = fractions(size)
    part = 1 if len(ends) == 1 else GOING_ON
    return trials * (ends[0] + part * (1 - ends[0])) + (seeds - 1) * math.ceil(trials / 4)

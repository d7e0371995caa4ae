"""Successive halving: many networks for a short time, the better part of them for longer, and one to the end.

Source: Jamieson and Talwalkar 2016 (1502.07943), with 3/4 dropped at each rung as in Hyperband (Li et al. 2018, 1603.06560).
A network keeps one schedule, of the length that the last one gets, and is resumed at each rung where it was left.
"""

from __future__ import annotations

from dataclasses import dataclass

ETA = 4  # of so many networks one stays
SHORTEST = 30.0  # seconds of a training in the first rung


@dataclass(frozen=True)
class Rungs:
    """counts: networks at each rung, ending with 1; fractions: of the schedule at its end; seconds: of a whole schedule."""

    counts: tuple[int, ...]
    fractions: tuple[float, ...]
    seconds: float


def counts_of(networks: int) -> tuple[int, ...]:
    """8 -> (8, 2, 1)."""
    counts = [networks]
    while counts[-1] > 1:
        counts.append(max(1, counts[-1] // ETA))
    return tuple(counts)


def fractions_of(rungs: int, eta: int = ETA) -> tuple[float, ...]:
    """3 -> (1/16, 1/4, 1)."""
    return tuple(float(eta) ** -(rungs - 1 - number) for number in range(rungs))


def plan(networks: int, most: int, seconds: float, shortest: float = SHORTEST) -> Rungs:
    """The rungs of at most `most` of so many networks that fit into the seconds. networks: one at least."""
    for count in range(min(networks, most), 0, -1):
        counts = counts_of(count)
        fractions = fractions_of(len(counts))
        work = sum(n * (end - begin) for n, end, begin in zip(counts, fractions, (0.0, *fractions)))
        schedule = seconds / work
        if schedule * fractions[0] >= shortest or count == 1:
            return Rungs(counts, fractions, schedule)
    raise AssertionError("no network")

"""Layers of an int8 file that go back to floats, by the score that comes back for a millisecond."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gossamer.shrink.sensitivity import LayerNoise

TRIED = 12  # layers that are tried alone: those that make the most noise
FLOOR = 0.005  # of the milliseconds of the int8 file: what a layer costs less than that cannot be told from nothing

Names = frozenset[str]


@dataclass(frozen=True)
class Fallback:
    """The layers in floats. drop: points that the file loses with them. layers: all, those that were tried with what they regain.

    steps: lines for people. holds: whether the limit is kept.
    """

    names: Names
    drop: float
    layers: tuple[LayerNoise, ...]
    steps: tuple[str, ...]
    holds: bool


def fall_back(
    layers: Sequence[LayerNoise],
    kept: Names,
    others: Names,
    drop: float,
    max_drop: float,
    drop_of: Callable[[Names], float],
    ms_of: Callable[[Sequence[Names]], list[float]],
) -> Fallback:
    """The fewest layers in floats, in the order of what they regain, with which `max_drop` points hold.

    layers: of the network; kept: those that are in floats anyway; others: of the graph's nodes, those without weights, which go
    last. drop: points that the file loses without a fallback. drop_of: that it loses with such layers in floats; ms_of: the
    milliseconds of several such files, measured in turn.
    """
    order = [one for one in sorted(layers, key=lambda one: -one.share) if one.name not in kept]
    tried = order[:TRIED]
    steps: list[str] = []
    drops = {one.name: drop_of(kept | {one.name}) for one in tried}
    first, *times = ms_of([kept, *(kept | {one.name} for one in tried)]) if tried else [0.0]
    known = {
        one.name: replace(one, regained=drop - drops[one.name], extra_ms=ms - first)
        for one, ms in zip(tried, times, strict=True)
    }
    if tried:
        steps.append(f"fallback: the {len(tried)} noisiest of {len(order)} layers tried alone, score and milliseconds")

    def cost(one: LayerNoise) -> float:
        return max(one.extra_ms or 0.0, FLOOR * first, 1e-9)

    measured = tuple(known.get(one.name, one) for one in layers)
    alone = [one for one in known.values() if drops[one.name] <= max_drop]
    if alone:
        best = min(alone, key=lambda one: (cost(one), drops[one.name]))
        steps.append(_line(1, len(order), drops[best.name]))
        return Fallback(kept | {best.name}, drops[best.name], measured, tuple(steps), True)
    gains = sorted(
        (one for one in known.values() if (one.regained or 0) > 0), key=lambda one: -(one.regained or 0) / cost(one)
    )
    chosen = {one.name for one in gains}
    names = [*(one.name for one in gains), *(one.name for one in order if one.name not in chosen)]
    results: dict[int, float] = {}

    def lost(count: int) -> float:
        if count not in results:
            results[count] = drop_of(kept | set(names[:count]))
            steps.append(_line(count, len(order), results[count]))
        return results[count]

    low, high = 1, 2  # layers: too few, and perhaps enough
    while high < len(names) and not lost(high) <= max_drop:
        low, high = high, 2 * high
    high = min(high, len(names))
    if high > low and lost(high) <= max_drop:
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if lost(middle) <= max_drop else (middle, high)
        return Fallback(kept | set(names[:high]), results[high], measured, tuple(steps), True)
    everything = kept | set(names) | others
    last = drop_of(everything)
    steps.append(f"{_line(len(order), len(order), last)}, and all that has no weights")
    return Fallback(everything, last, measured, tuple(steps), last <= max_drop)


def _line(count: int, total: int, drop: float) -> str:
    return f"fallback: {count} of {total} layers in float, {drop:.2f} points lost"

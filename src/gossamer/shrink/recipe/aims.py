"""What a recipe tries next: how much narrower a network has to be for its int8 file to keep the limits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gossamer.shrink.decompose import MAX_DROP
from gossamer.shrink.limits import Limit
from gossamer.shrink.recipe.candidates import Candidate, Targets

BELOW = 0.97  # of the fraction that is needed: times scatter
AGAIN = 0.95  # of the fraction that would have been enough, where a file missed
HARDER = 0.8  # where all limits were kept: perhaps there is more to gain
MOST = 0.95  # of the network: less narrow than that is not worth a training
LEAST = 0.02


def count_of(minutes: float) -> int:
    """How many narrower networks are trained in so many minutes, at most."""
    return 1 if minutes < 4 else 2 if minutes < 30 else 3


def decompose_drop(targets: Targets, parent: Candidate) -> float:
    """The points that decomposing may cost, of those that the parent, a file in float, leaves; 0 where it leaves none."""
    left = targets.max_drop - parent.drop
    return min(MAX_DROP, max(0.0, left)) if math.isfinite(left) else 0.0


def needed(first: Candidate, int8: Candidate, targets: Targets, parameters: int) -> dict[str, float]:
    """The fractions of time and parameters with which the int8 file of a narrower network keeps the limits: kind -> fraction.

    parameters: bytes of those of the run in float32, of which an int8 file has a quarter, and the rest of it stays.
    """
    result = {}
    if targets.max_ms is not None and int8.ms is not None and int8.ms > targets.max_ms:
        result["latency"] = targets.max_ms / int8.ms
    if targets.max_mb is not None and int8.mb > targets.max_mb:
        fixed = max(0.0, int8.bytes - parameters / 4)
        result["size"] = max(LEAST, (1e6 * targets.max_mb - fixed) / max(1.0, int8.bytes - fixed))
    return result


def next_scale(scale: float, fractions: dict[str, float], last: Candidate, targets: Targets) -> float:
    """What the fractions are multiplied by after `last`, the int8 file at `scale`.

    Narrower where time or size are missed; wider, to a limit that is not kept but may be worth it, where only the score
    is; narrower again where all limits are kept.
    """
    missed = targets.cost_misses(last.ms, last.mb)
    if missed:
        return scale * AGAIN / (1 + max(miss.excess for miss in missed))
    if last.drop > targets.max_drop:
        least = min(fractions.values(), default=1.0) * scale
        return scale / math.sqrt(max(LEAST, least))
    return scale * HARDER


def limits_of(fractions: dict[str, float], scale: float, native: bool) -> list[Limit]:
    """The limits of pruning. native: whether milliseconds are of the engine; else multiply-adds stand for them."""
    result = []
    for kind, fraction in fractions.items():
        value = min(MOST, max(LEAST, fraction * scale * BELOW))
        result.append(Limit("macs" if kind == "latency" and not native else kind, value, True))
    return result


def in_words(limits: Sequence[Limit]) -> str:
    """For people."""
    names = {"latency": "the milliseconds", "macs": "the multiply-adds", "size": "the parameters"}
    return " and ".join(f"{limit.value:.2f}x {names[limit.kind]}" for limit in limits)

"""Files that were tried, the limits that they are held to, and which of them are worth a look."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from gossamer.host.text import format_table
from gossamer.shrink.recipe.paired import Drop, Outcome


@dataclass(frozen=True)
class Candidate:
    """A model file that was written and measured.

    file: beside the recipe's other files. step: the step that made it. ms: of an image in `runtime`, None where it could
    not be measured. drop: points of the score that it is below the run, on the same validation images, with the 95 %
    interval from drop_low to drop_high (None where there are too few images).
    """

    name: str
    file: str
    step: str
    precision: str
    runtime: str
    ms: float | None
    bytes: int
    score: float
    drop: float
    drop_low: float | None
    drop_high: float | None
    run: str = ""
    notes: tuple[str, ...] = ()

    @property
    def mb(self) -> float:
        """Size of the file in units of a million bytes."""
        return self.bytes / 1e6

    def interval(self) -> Drop:
        """The drop with its interval."""
        low, high = (math.nan if one is None else one for one in (self.drop_low, self.drop_high))
        return Drop(self.drop, low, high)


def candidate_of(values: Mapping[str, Any]) -> Candidate:
    """What a step has saved of a candidate."""
    known = {field.name for field in fields(Candidate)}
    own: dict[str, Any] = {k: tuple(v) if k == "notes" else v for k, v in values.items() if k in known}
    for name in ("score", "drop"):  # JSON has no NaN
        own[name] = math.nan if own[name] is None else own[name]
    return Candidate(**own)


@dataclass(frozen=True)
class Miss:
    """A limit that a candidate does not keep. excess: how far it is above, as a fraction of the limit (of points: of one at least)."""

    name: str
    limit: float
    reached: float
    excess: float

    def text(self) -> str:
        """For people."""
        unit = {"ms": "ms", "MB": "MB", "drop": "points lost"}[self.name]
        if not math.isfinite(self.reached):
            return f"at most {self.limit:g} {unit}: what it takes is unknown"
        return (
            f"at most {self.limit:g} {unit}: {self.reached:.3f} were reached, {self.reached - self.limit:.3f} too many"
        )


@dataclass(frozen=True)
class Targets:
    """What a deployment allows: milliseconds, megabytes (10^6 bytes), points of the score below the run; None for no limit."""

    max_ms: float | None
    max_mb: float | None
    max_drop: float

    def cost_misses(self, ms: float | None, mb: float) -> list[Miss]:
        """The limits of time and size that are not kept."""
        result = []
        if self.max_ms is not None and (ms is None or ms > self.max_ms):
            reached = math.inf if ms is None else ms
            result.append(Miss("ms", self.max_ms, reached, reached / self.max_ms - 1))
        if self.max_mb is not None and mb > self.max_mb:
            result.append(Miss("MB", self.max_mb, mb, mb / self.max_mb - 1))
        return result

    def misses(self, one: Candidate) -> list[Miss]:
        """All limits that a candidate does not keep."""
        result = self.cost_misses(one.ms, one.mb)
        if not one.drop <= self.max_drop:  # a score that nothing defines, too
            excess = (one.drop - self.max_drop) / max(1.0, self.max_drop)
            result.append(Miss("drop", self.max_drop, one.drop, math.inf if math.isnan(excess) else excess))
        return result

    def text(self) -> str:
        """For people."""
        parts = [f"{self.max_ms:g} ms"] if self.max_ms is not None else []
        parts += [f"{self.max_mb:g} MB"] if self.max_mb is not None else []
        return f"at most {', '.join(parts)}, {self.max_drop:g} points lost"


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other one beats in milliseconds, bytes and score at once, in the order given."""

    def costs(one: Candidate) -> tuple[float, float, float]:
        worse = math.inf if math.isnan(one.score) else -one.score
        return (math.inf if one.ms is None else one.ms, one.bytes, worse)

    def beaten(one: Candidate) -> bool:
        mine = costs(one)
        return any(
            theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True))
            for theirs in map(costs, candidates)
        )

    return [one for one in candidates if not beaten(one)]


def best_of(candidates: Sequence[Candidate], targets: Targets) -> Candidate:
    """The highest score among those that keep every limit; where none does, the one whose worst excess is the smallest.

    Of equal ones the smaller file, then the faster. candidates: one at least.
    """

    def order(one: Candidate) -> tuple[float, float, float, float]:
        excess = max((miss.excess for miss in targets.misses(one)), default=0.0)
        worse = math.inf if math.isnan(one.score) else -one.score
        return (excess, worse, one.bytes, math.inf if one.ms is None else one.ms)

    return min(candidates, key=order)


HEADER = ("file", "made by", "precision", "ms", "MB", "score", "points lost", "95 % interval", "limits", "Pareto")


def rows(candidates: Sequence[Candidate], targets: Targets) -> list[tuple[str, ...]]:
    """A row of text a candidate, under HEADER."""
    front = {one.name for one in pareto(candidates)}
    result: list[tuple[str, ...]] = []
    for one in candidates:
        drop = one.interval()
        interval = f"{drop.low:+.2f} to {drop.high:+.2f}" if math.isfinite(drop.low) else "-"
        missed = ", ".join(miss.name for miss in targets.misses(one))
        result.append(
            (
                one.file,
                one.step,
                one.precision,
                "-" if one.ms is None else f"{one.ms:.3f}",
                f"{one.mb:.3f}",
                f"{one.score:.4f}",
                f"{one.drop:+.2f}",
                interval,
                f"misses {missed}" if missed else "kept",
                "yes" if one.name in front else "",
            )
        )
    return result


def table(candidates: Sequence[Candidate], targets: Targets) -> list[str]:
    """Lines for people."""
    return list(format_table(HEADER, rows(candidates, targets), left=(0, 1, 2, 7, 8, 9)))


def to_json(one: Candidate, targets: Targets, front: bool) -> dict[str, Any]:
    """Plain values."""
    return {**asdict(one), "pareto": front, "misses": [asdict(miss) for miss in targets.misses(one)]}


def made(
    name: str, file: str, step: str, precision: str, runtime: str, ms: float | None, size: int, drop: Drop, result: Outcome,
    run: str = "", notes: Sequence[str] = (),
) -> Candidate:  # fmt: skip
    """A candidate from what was measured of it."""
    low, high = (one if math.isfinite(one) else None for one in (drop.low, drop.high))
    return Candidate(
        name, file, step, precision, runtime, ms, size, result.value, drop.points, low, high, run, tuple(notes)
    )

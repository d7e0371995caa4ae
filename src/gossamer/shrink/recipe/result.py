"""What a recipe returns."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from gossamer.host.progress import one_line
from gossamer.host.steprunner import FinishedStep
from gossamer.host.text import counted, metric_name
from gossamer.shrink.recipe.candidates import Candidate, Miss, Targets, pareto, table, to_json


@dataclass(frozen=True)
class Shrunk:
    """The best file that was found, and everything that was tried.

    file: a copy of the best candidate; bytes and ms: of it; scores: metric -> (of the run, of the file) on the run's
    validation images, test: the same on its test images, opened once at the end, {} where it has none. misses: the limits
    that the file does not keep, with exit_code 1.
    """

    file: str
    best: str
    score: str
    scores: dict[str, tuple[float, float]]
    test: dict[str, tuple[float, float]]
    test_drop: tuple[float, float | None, float | None] | None
    images: int
    ms: float | None
    bytes: int
    targets: Targets
    misses: tuple[Miss, ...]
    candidates: tuple[Candidate, ...]
    steps: tuple[FinishedStep, ...]
    notes: tuple[str, ...] = ()
    report: str = ""

    @property
    def exit_code(self) -> int:
        """1 where a limit is missed."""
        return 1 if self.misses else 0

    @property
    def pareto(self) -> tuple[Candidate, ...]:
        """The candidates that no other one beats in milliseconds, bytes and score at once."""
        return tuple(pareto(self.candidates))

    def text(self) -> str:
        """Lines for people."""
        best = next(one for one in self.candidates if one.name == self.best)
        first = self.candidates[0]
        lines = [f"{one_line(self.file)}: {best.file}, {best.precision}"]
        if best.ms is not None and first.ms is not None:
            lines.append(
                f"latency in {best.runtime}: {first.ms:.3f} ms -> {best.ms:.3f} ms ({best.ms / first.ms:.2f}x)"
                if best.runtime == first.runtime
                else f"latency: {first.ms:.3f} ms in {first.runtime}, {best.ms:.3f} ms in {best.runtime}"
            )
        lines.append(f"size: {first.mb:.3f} MB -> {best.mb:.3f} MB ({best.bytes / max(1, first.bytes):.2f}x)")
        before, after = self.scores[self.score]
        lines.append(
            f"{metric_name(self.score)} on {counted(self.images, 'validation image')}: {before:.4f} -> {after:.4f}, "
            f"{best.interval().text()}"
        )
        if self.score in self.test:
            before, after = self.test[self.score]
            interval = ""
            if self.test_drop and self.test_drop[1] is not None and self.test_drop[2] is not None:
                interval = f" (95 % interval of the points lost {self.test_drop[1]:+.2f} to {self.test_drop[2]:+.2f})"
            lines.append(f"{metric_name(self.score)} on the test images: {before:.4f} -> {after:.4f}{interval}")
        lines += table(self.candidates, self.targets)
        lines += [f"failed: {step.what}: {step.error}" for step in self.steps if step.error]
        lines += self.notes
        lines += [f"missed: {miss.text()}" for miss in self.misses]
        if self.misses:
            lines.append(f"the nearest that was reached is {one_line(self.file)}")
        if self.report:
            lines.append(f"report: {one_line(self.report)}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        front = {one.name for one in self.pareto}

        def pairs(scores: dict[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
            return {name: {"before": before, "after": after} for name, (before, after) in scores.items()}

        return {
            **{name: getattr(self, name) for name in ("file", "best", "score", "images", "ms", "bytes", "report")},
            "scores": pairs(self.scores),
            "test": pairs(self.test),
            "test_drop": None
            if self.test_drop is None
            else dict(zip(("points", "low", "high"), self.test_drop, strict=True)),
            "targets": asdict(self.targets),
            "misses": [asdict(miss) for miss in self.misses],
            "candidates": [to_json(one, self.targets, one.name in front) for one in self.candidates],
            "pareto": [one.name for one in self.candidates if one.name in front],
            "steps": [asdict(step) for step in self.steps],
            "notes": list(self.notes),
            "exit_code": self.exit_code,
        }


def finite(value: float) -> float | None:
    """None for a number that JSON has not."""
    return value if math.isfinite(value) else None

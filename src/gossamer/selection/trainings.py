"""Trainings that go from rung to rung: each a run folder, begun once, left at a fraction of its schedule, and resumed there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from gossamer.host.progress import Progress
from gossamer.run import SETTINGS, Run
from gossamer.selection.budget import is_finite
from gossamer.settings import Settings
from gossamer.training.loop import resume, train


def is_begun(folder: Path) -> bool:
    """Whether a training has a run folder already."""
    return (folder / SETTINGS).exists()


def train_until(
    folder: Path, settings: Settings, fraction: float, score: str, progress: Progress, split_of: Run | None = None
) -> dict[str, Any]:
    """Train to a fraction of the schedule; its best score on the validation images, None where there is none, and the epochs.

    settings, split_of: of a training that is not begun, see `gossamer.train`. Raises what `train` and `resume` raise.
    """
    if is_begun(folder):
        run = resume(folder, until=fraction, progress=progress)
    else:
        run = train(settings.replace(out=str(folder)), until=fraction, progress=progress, split_of=split_of)
    best = run.best(f"val_{score}")
    rows = run.metrics()
    value = best.get(f"val_{score}", math.nan) if best else math.nan
    return {"score": value if math.isfinite(value) else None, "epochs": rows[-1]["epoch"] if rows else 0}


def seconds_of_killed(folder: Path, known: float) -> float:
    """Seconds that a training has taken in starts that were killed. known: those that finished steps hold."""
    if not is_begun(folder):
        return 0.0
    clock = Run.open(folder).clock().get("seconds")
    return max(0.0, float(clock or 0) - known) if is_finite(clock) else 0.0  # a damaged clock tells nothing

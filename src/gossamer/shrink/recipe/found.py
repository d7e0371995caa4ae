"""What a recipe has found so far: written into its folder, and returned at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gossamer.host.steprunner import FinishedStep
from gossamer.host.text import metric_name
from gossamer.shrink.recipe import steps
from gossamer.shrink.recipe.candidates import Candidate, Targets, best_of, pareto, to_json
from gossamer.shrink.recipe.folder import BEST, CANDIDATES, RecipeFolder
from gossamer.shrink.recipe.result import Shrunk

TABLE_HEADER = (
    "name", "file", "step", "precision", "runtime", "ms", "mb", "score", "drop", "drop_low", "drop_high", "misses", "pareto",
)  # fmt: skip


def publish(
    folder: RecipeFolder,
    place: steps.Workplace,
    candidates: Sequence[Candidate],
    done: Sequence[FinishedStep],
    notes: Sequence[str],
) -> None:
    """Write what was found so far: the best file, the Pareto list and the table. Raises StorageError."""
    targets = place.settings.targets
    best = best_of(candidates, targets)
    front = {one.name for one in pareto(candidates)}
    rows = [_row(one, targets, one.name in front) for one in candidates]
    found = {
        "score": place.loaded.task.score,
        "targets": vars(targets),
        "best": best.name,
        "misses": [vars(miss) for miss in targets.misses(best)],
        "candidates": [to_json(one, targets, one.name in front) for one in candidates],
        "pareto": [one.name for one in candidates if one.name in front],
        "steps": [vars(step) for step in done],
        "notes": list(notes),
    }
    folder.publish(folder.path / CANDIDATES / best.file, found, TABLE_HEADER, rows)


def shrunk(
    folder: RecipeFolder,
    place: steps.Workplace,
    candidates: Sequence[Candidate],
    done: Sequence[FinishedStep],
    values: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str],
) -> Shrunk:
    """The result of a recipe. values: what each step has left."""
    targets, before = place.settings.targets, place.before
    assert before is not None, "the run was measured"
    best = best_of(candidates, targets)
    after = before
    if best.name != "float":
        after = steps.known_outcome(
            next(one for one in values.values() if one.get("candidate", {}).get("name") == best.name)
        )
    test = values.get("test", {})
    both = [
        {name: math.nan if value is None else value for name, value in test.get(side, {}).items()}
        for side in ("before", "after")
    ]
    runner_up = _not_told_apart(best, candidates, targets)
    if runner_up:
        notes = [
            *notes,
            f"{metric_name(before.score)} of {best.file} and {runner_up.file} differ by less than {before.images} images tell apart",
        ]
    return Shrunk(
        file=str(folder.path / BEST),
        best=best.name,
        score=before.score,
        scores={name: (before.metrics[name], after.metrics[name]) for name in before.metrics if name in after.metrics},
        test={name: (both[0][name], both[1][name]) for name in both[0] if name in both[1]},
        test_drop=tuple(test["drop"]) if "drop" in test else None,
        images=before.images,
        ms=best.ms,
        bytes=best.bytes,
        targets=targets,
        misses=tuple(targets.misses(best)),
        candidates=tuple(candidates),
        steps=tuple(done),
        notes=tuple(notes),
    )


def _not_told_apart(best: Candidate, candidates: Sequence[Candidate], targets: Targets) -> Candidate | None:
    """Another file that keeps the limits and whose drop lies inside the interval of the best one's, where there is one."""
    others = [one for one in candidates if one.name != best.name and not targets.misses(one)]
    if targets.misses(best) or best.drop_low is None or best.drop_high is None:
        return None
    near = [one for one in others if best.drop_low <= one.drop <= best.drop_high]
    return min(near, key=lambda one: one.drop, default=None)


def _row(one: Candidate, targets: Targets, front: bool) -> list[Any]:
    missed = " ".join(miss.name for miss in targets.misses(one))
    values: list[Any] = [one.name, one.file, one.step, one.precision, one.runtime, one.ms, one.mb, one.score, one.drop]
    return [
        "" if value is None else value
        for value in [*values, one.drop_low, one.drop_high, missed, "yes" if front else ""]
    ]

"""A trained network with fewer channels, as many as a limit of milliseconds, multiply-adds or bytes leaves, trained on."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gossamer.errors import SettingsError, UnknownNameError
from gossamer.host.progress import SILENT, Progress, one_line
from gossamer.host.text import counted
from gossamer.networks.changes import Change
from gossamer.run import Run
from gossamer.settings import Settings
from gossamer.shrink.importance import KINDS
from gossamer.shrink.limits import Limit, parse_limit
from gossamer.shrink.narrow import NarrowNetwork, narrow_network
from gossamer.shrink.outcome import check_new_run, lines_of_change, settings_after
from gossamer.shrink.times import check_engine
from gossamer.targets import target_of
from gossamer.training.loop import train
from gossamer.training.network import changes_of
from gossamer.training.restore import load_run, same_data

MINUTES = 20.0
SHORT = 10.0  # epochs of a run, below which a narrower network from the start was 3 points better (benchmarks/README.md, 5 epochs)


@dataclass(frozen=True)
class Pruned:
    """A run that was made from another one.

    file: its folder. scores: metric -> (before, after) on the validation images. ms: (before, after) of an image in the
    native engine here, None without a limit in milliseconds. bytes: (before, after) of the parameters in float32.
    widths: for each layer that became narrower (its name, output channels before, after). dropped: the residual blocks that
    went as a whole. steps: what was done, in order.
    """

    file: str
    parent: str
    score: str
    scores: dict[str, tuple[float, float]]
    ms: tuple[float, float] | None
    macs: tuple[int, int]
    bytes: tuple[int, int]
    threads: int
    importance: str
    widths: tuple[tuple[str, int, int], ...]
    steps: tuple[str, ...]
    notes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    exit_code: int = 0

    @property
    def run(self) -> Run:
        """The run folder, open."""
        return Run.open(self.file)

    def text(self) -> str:
        """A few lines for people."""
        gone = f", and without {counted(len(self.dropped), 'block')}" if self.dropped else ""
        lines = [
            f"{one_line(self.file)}: {one_line(self.parent)} with {counted(len(self.widths), 'narrower layer')}{gone}"
        ]
        counts = {"macs": self.macs, "size": self.bytes}
        lines += lines_of_change("the native engine", self.threads, self.ms, counts, self.score, self.scores)
        return "\n".join([*lines, *self.steps, *self.notes])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""

        def pair(values: tuple[float, float] | None) -> dict[str, float] | None:
            return None if values is None else {"before": values[0], "after": values[1]}

        return {
            **dataclasses.asdict(self),
            "scores": {name: pair(values) for name, values in self.scores.items()},
            "ms": pair(self.ms),
            "macs": pair(self.macs),
            "bytes": pair(self.bytes),
            "widths": [{"layer": name, "before": before, "after": after} for name, before, after in self.widths],
        }


def prune(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    latency: float | str | None = None,
    macs: float | str | None = None,
    size: float | str | None = None,
    minutes: float = MINUTES,
    importance: str = "taylor",
    threads: int = 1,
    which: str = "best",
    drop_blocks: bool = True,
    teacher: bool = True,
    progress: Progress = SILENT,
) -> Pruned:
    """Remove channels of a run's network until it keeps the limits, and train it on into the new run folder `out`.

    latency, macs, size: a fraction of what the network takes now (0.5) or a number with a unit ("1.2ms", "100M", "2MB");
    at least one. Milliseconds are measured in the native engine with `threads`. minutes: of training afterwards, with the
    run's own settings from the start of its schedule (Renda et al. 2020, 2003.02389). teacher: whether the run teaches in it, which
    takes part of the minutes. importance: taylor (of the loss on
    training images), norm or bn-scale. which: the checkpoint of the run. drop_blocks: whether residual blocks with an identity
    shortcut may go as a whole.
    Raises InputError for what cannot be used and for a limit that is met already, VerificationError where a limit cannot be
    reached (it names the nearest), MissingPackageError without SciPy or, for `latency`, the engine; all of it before
    anything is written. An interrupted training is resumed like that of any run.
    """
    limits = _limits({"latency": latency, "macs": macs, "size": size})
    _check(run, out, minutes, importance, threads, which)
    if any(limit.kind == "latency" for limit in limits):
        check_engine()
    loaded = load_run(os.fspath(run), which)
    data = same_data(loaded.run)
    loaded.task.prepare(data)
    narrow = narrow_network(loaded, data, limits, importance, threads, progress, drop_blocks)
    settings, notes = training_settings(loaded.settings, loaded.run, out, minutes, which, teacher)
    notes += short_run(loaded.run)
    for line in (*narrow.steps, *notes):
        progress.say(line)
    changes: tuple[Change, ...] = (*changes_of(loaded.run), *narrow.changes)
    trained = train(settings, split_of=loaded.run, changes=changes, progress=progress)
    return _result(loaded.run, trained, narrow, which, importance, threads, notes)


def _limits(values: dict[str, float | str | None]) -> list[Limit]:
    limits = [parse_limit(kind, value) for kind, value in values.items() if value is not None]
    if not limits:
        raise SettingsError(
            "no limit", "--latency 0.5 (or 1.2ms), --macs 0.5 (or 100M), --size 0.5 (or 2MB)", "give one or more"
        )
    return limits


def _check(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    minutes: float,
    importance: str,
    threads: int,
    which: str,
) -> None:
    """Raises InputError, MissingPackageError."""
    target_of(run, ("run",))
    if importance not in KINDS:
        raise UnknownNameError("importance", importance, KINDS)
    if which not in ("best", "last"):
        raise SettingsError(f"weights {which!r}", "best or last", "choose one of them")
    if isinstance(minutes, bool) or not (math.isfinite(minutes) and 0.001 <= minutes <= 1e6):
        raise SettingsError(f"minutes {minutes}", "0.001 to 1000000", "give such a number")
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 4096:
        raise SettingsError(f"threads {threads}", "1 to 4096", "give such a number")
    check_new_run(out, "pruned")
    from gossamer.shrink.solve import check_solver

    check_solver()


def training_settings(
    settings: Settings, run: Run, out: str | os.PathLike[str], minutes: float, which: str, teacher: bool = True
) -> tuple[Settings, list[str]]:
    """The settings of the training that follows, and lines on what is dropped."""
    return settings_after(settings, run, out, minutes, which, "narrowed", teacher)


def short_run(run: Run) -> list[str]:
    """A line where a run has seen so little that pruning it may not be the best use of the minutes."""
    rows = run.metrics()
    epochs = rows[-1].get("epoch") if rows else None
    if run.settings.weights or not isinstance(epochs, (int, float)) or not 0 < epochs < SHORT:
        return []
    return [
        f"the run was trained for {counted(round(float(epochs), 1), 'epoch')} only: a narrower network from the start may come out better in "
        "the same minutes (gossamer train with a smaller --width); compare them, or train the run longer first"
    ]


def _result(
    parent: Run, run: Run, narrow: NarrowNetwork, which: str, importance: str, threads: int, notes: Sequence[str]
) -> Pruned:
    before, after = metrics_of(parent, which), metrics_of(run, "best" if run.has("best") else "last")
    from gossamer.tasks.registry import task_of

    return Pruned(
        file=str(run.path),
        parent=str(parent.path),
        score=task_of(run.settings.task).score,
        scores={name: (before[name], after[name]) for name in before if name in after},
        ms=narrow.ms,
        macs=narrow.macs,
        bytes=narrow.bytes,
        threads=threads,
        importance=importance,
        widths=narrow.widths,
        steps=narrow.steps,
        dropped=narrow.dropped,
        notes=tuple(notes),
    )


def metrics_of(run: Run, which: str) -> dict[str, float]:
    """What a checkpoint of a run scored on its validation images; {} where it was not scored."""
    rows = run.metrics()
    if not rows:
        return {}
    from gossamer.tasks.registry import task_of

    row = run.best(f"val_{task_of(run.settings.task).score}") if which == "best" else rows[-1]
    return {name.removeprefix("val_"): float(value) for name, value in row.items() if name.startswith("val_")}

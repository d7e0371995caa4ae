"""What pruning and decomposition share: the settings of the training that follows, and the lines on what has changed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gossamer.errors import RunError, SettingsError
from gossamer.host.text import metric_name, thread_count
from gossamer.run import SETTINGS, Run
from gossamer.settings import Settings
from gossamer.shrink.limits import shown
from gossamer.targets import is_folder, is_there


def check_new_run(out: str | os.PathLike[str], what: str) -> None:
    """Refuse, before any work, a place where no run folder can be made. what: becomes of it, "pruned". Raises InputError."""
    if not os.fspath(out):
        raise SettingsError(f"no folder for the {what} run", "a new folder", "give --out")
    Settings().replace(out=os.fspath(out))  # refuses what no path can have
    path = Path(out)
    if is_there(path / SETTINGS):
        raise RunError(f"{path}: holds a run already", "a new folder", "give another --out")
    if is_folder(path):
        return
    if is_there(path):
        raise RunError(f"{path}: is a file", "a new folder", "give another --out")
    if path.is_symlink():
        raise RunError(f"{path}: is a link to nothing", "a new folder", "give another --out")


def settings_after(
    settings: Settings,
    run: Run,
    out: str | os.PathLike[str],
    minutes: float,
    which: str,
    what: str,
    teacher: bool = True,
) -> tuple[Settings, list[str]]:
    """The settings of a training that goes on from the run, and lines on what is dropped.

    what: became of layers, "narrowed". teacher: whether the run teaches, or nothing does.
    """
    notes = []
    if settings.freeze != Settings().freeze:
        notes.append(f"freeze {settings.freeze} is dropped: what was {what} has to be trained")
    changed: dict[str, Any] = {"out": os.fspath(out), "weights": str(run.weights(which)), "minutes": minutes}
    changed["teacher"] = str(run.path) if teacher else ""
    if not teacher:  # how a teacher was learnt from says nothing without one
        fields = [field.name for field in dataclasses.fields(Settings) if field.name.startswith(("distil", "teacher_"))]
        changed |= {name: getattr(Settings(task=settings.task), name) for name in fields}
    return settings.replace(**changed, epochs=None, freeze=Settings().freeze, eval_every=None), notes


def lines_of_change(
    clock: str,
    threads: int,
    ms: tuple[float, float] | None,
    counts: Mapping[str, tuple[int, int]],
    score: str,
    scores: Mapping[str, tuple[float, float]],
) -> list[str]:
    """Lines on milliseconds, multiply-adds, bytes and the score before and after. clock: what the milliseconds are of."""
    lines = []
    if ms:
        lines.append(
            f"latency in {clock}, {thread_count(threads)}: {ms[0]:.3f} ms -> {ms[1]:.3f} ms ({ms[1] / ms[0]:.2f}x)"
        )
    for kind, (before, after) in counts.items():
        name = "multiply-adds" if kind == "macs" else "size of the parameters"
        lines.append(f"{name}: {shown(kind, before)} -> {shown(kind, after)} ({after / max(1, before):.2f}x)")
    if score in scores:
        was, now = scores[score]
        lines.append(f"{metric_name(score)} on the validation images: {was:.4f} -> {now:.4f}")
    return lines

"""The scores of a run folder or of a model file on images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from gossamer.errors import InputError, SettingsError
from gossamer.host.progress import SILENT, Progress
from gossamer.runtime.model import load
from gossamer.runtime.table import AUTO
from gossamer.targets import FILES, target_of
from gossamer.tasks.registry import scorer_of, source_of
from gossamer.training.evaluate import evaluate


def evaluate_target(
    target: str | Path,
    data: str = "",
    *,
    split: str = "",
    which: str = "best",
    runtime: str = AUTO,
    ignore_index: int | None = None,
    batch: int = 64,
    progress: Progress = SILENT,
    notes: list[str] | None = None,
) -> Any:
    """The scores of a run folder (in torch) or of a model file (in a runtime): the evaluation of its task.

    data: images with their targets; "" for those of the run, of which `split` is val by default. which: "best" or
    "last" checkpoint of a run. ignore_index: value in the masks of pixels that do not count, for a model file.
    batch: images at once. notes: gets what was left out when the data were read, a line each, which `progress` says, too.
    Raises InputError and what opening the target and its data raises.
    """
    if target_of(target, ("run", *FILES)).kind == "run":
        if runtime != AUTO:
            raise SettingsError(
                f"a run folder with the runtime {runtime}",
                "a model file",
                f"gossamer export {shlex.quote(str(target))}",
            )
        if ignore_index is not None:
            raise SettingsError(
                f"ignore_index {ignore_index} with a run folder", "a model file", "leave it out: the run has its own"
            )
        from gossamer.tasks.base import stacked
        from gossamer.training.gated import scored
        from gossamer.training.restore import load_run, run_data, torch_forward

        network = load_run(target, which, takes_frames=True)
        if data:
            source = network.task.open_source(data, network.classes, network.settings, split)
        else:
            own_data, split = run_data(network.run), split or "val"
            splits = own_data.splits()
            if split not in splits:
                raise SettingsError(f"{target}: no {split} images", ", ".join(splits), "choose one of them")
            source = splits[split]
            source.notes = own_data.notes
        _say(source.notes, progress, notes)
        forward, preprocess, scorer = torch_forward(network.model), network.preprocess, network.task.scorer()
        return scored(
            network.model,
            (preprocess.channels, *stacked(preprocess.size, network.settings)),
            lambda: evaluate(forward, source, preprocess, scorer, batch=batch, progress=progress).scores(),
        )
    else:
        if which != "best":
            raise SettingsError(f"the {which} weights of a model file", "a run folder", "leave --which out")
        model = load(target, runtime=runtime)
        metadata = model.metadata
        if metadata is None:
            raise InputError(f"{target}: has no metadata", "a file made by `gossamer export`", "export the run")
        if not data:
            raise SettingsError("a model file without data", "gossamer eval FILE DATA", "name the images")
        source = source_of(metadata.heads, data, ignore_index, split)
        forward, preprocess, scorer = model.run, metadata.preprocess, scorer_of(metadata.heads)
    _say(source.notes, progress, notes)
    return evaluate(forward, source, preprocess, scorer, batch=batch, prepare=model.prepare, progress=progress).scores()


def _say(lines: list[str], progress: Progress, notes: list[str] | None) -> None:
    """What was left out when the data were read: printed, and kept in `notes`."""
    for line in lines:
        progress.say(line)
    if notes is not None:
        notes += lines

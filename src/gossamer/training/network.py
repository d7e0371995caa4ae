"""The network of a run: built from settings and classes, given its first weights, then edited as `changes.json` says.

Starting, resuming, restoring, exporting and evaluating a run all build it here, so that a network that was changed
after it was built is the same everywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gossamer.blocks.head import ClassifierHead
from gossamer.data.source import Data
from gossamer.errors import RunError
from gossamer.networks.base import FeatureList
from gossamer.networks.changes import Change, apply_changes, parse_changes
from gossamer.run import CHANGES, SETTINGS, Run
from gossamer.tasks.base import Task, sized, stacked
from gossamer.tasks.registry import task_of


def build_network(
    task: Task,
    changes: Sequence[Change] = (),
    initialise: Callable[[], nn.Module] | None = None,
    applied: int = 0,
    *,
    values: bool = True,
) -> nn.Module:
    """The network of `task`, changed by `changes`, in training mode.

    initialise: builds the network as the settings say, with the weights that a training starts from; by default it is
    built with random ones. Edits come after them, so weights of the unchanged network are sliced with it.
    applied: how many of the edits `initialise` has applied already. values: as of `apply_changes`.
    Raises what building raises, SettingsError or UnknownNameError for an edit that cannot be applied, RunError where the
    network does not run after the edits.
    """
    model = initialise() if initialise else task.build()
    if changes:
        apply_changes(model, changes[applied:], values=values)
        _run_once(model, task)
    return model


def network_of(run: Run, data: Data | None = None) -> tuple[nn.Module, Task]:
    """The network of a run folder with random weights, for a saved state, and its task.

    data: those of the run, where the task's loss will be computed: it may weigh classes by their counts.
    Raises RunError, and what `build_network` raises.
    """
    task = task_of(run.settings.task)(run.classes, run.settings)
    if data is not None:
        task.prepare(data)
    return build_network(task, changes_of(run), values=False), task


def changes_of(run: Run) -> tuple[Change, ...]:
    """The edits of a run's network; none where the run has no changes.json. Raises RunError, InputError."""
    text = run.changes()
    return () if text is None else parse_changes(text, str(run.path / CHANGES))


def changes_of_config(config: str | Path) -> tuple[Change, ...]:
    """The edits that belong to a settings.yaml in a run folder; none elsewhere. Raises RunError, InputError."""
    path = Path(config)
    return changes_of(Run.open(path.parent)) if (path.parent / CHANGES).exists() and path.name == SETTINGS else ()


def changes_of_weights(weights: str) -> tuple[Change, ...]:
    """The edits of the network that a state in a run folder belongs to; none for other files. Raises RunError, InputError."""
    folder = Path(weights).parent
    inside = weights.endswith(".safetensors") and (folder / CHANGES).exists() and (folder / SETTINGS).exists()
    return changes_of(Run.open(folder)) if inside else ()


def _run_once(model: nn.Module, task: Task) -> None:
    """Run an edited network in training and evaluation, and bring what it says of its channels to what they now are.

    Raises RunError where its layers do not fit together.
    """
    trial: nn.Module = copy.deepcopy(model).cpu()  # norms keep running means in training
    images = torch.zeros(2, task.settings.in_chans, *stacked(sized(task.settings), task.settings))
    channels: dict[nn.Module, int] = {}  # of each module's output
    inputs: dict[nn.Module, int] = {}  # of each head's classifier
    for module in trial.modules():
        if isinstance(module, ClassifierHead):
            module.classifier.register_forward_pre_hook(
                lambda _, arguments, head=module: inputs.update({head: arguments[0].shape[1]})
            )
        module.register_forward_hook(
            lambda module, _, output: (
                channels.update({module: output.shape[1]})
                if isinstance(output, torch.Tensor) and output.dim() > 1
                else None
            )
        )
    with torch.no_grad():
        for mode in (True, False):
            try:
                outputs: Any = trial.train(mode)(images)
            except (RuntimeError, ValueError) as error:
                raise RunError(
                    f"{CHANGES}: the edited network does not run: {str(error).splitlines()[0]}",
                    "edits after which the layers fit together",
                    "restore the file from a copy, or edit all layers of the channel group",
                ) from error
            del outputs
    for module, tried in zip(model.modules(), trial.modules(), strict=True):
        if isinstance(features := getattr(module, "feature_info", None), FeatureList):
            parts = dict(tried.named_modules())
            edited = FeatureList(
                info._replace(channels=channels.get(parts[info.module], info.channels))
                if info.module in parts
                else info
                for info in features
            )
            setattr(module, "feature_info", edited)  # noqa: B010 (typed as a module or a tensor)
        elif isinstance(module, ClassifierHead) and tried in inputs:
            module.num_features = inputs[tried]

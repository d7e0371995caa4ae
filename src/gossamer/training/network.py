"""The network of a run: built from settings and classes, given its first weights, then edited as `changes.json` says.

Starting, resuming, restoring, exporting and evaluating a run all build it here, so that a network that was changed
after it was built is the same everywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from gossamer.errors import RunError
from gossamer.networks.changes import Change, apply_changes, parse_changes
from gossamer.run import CHANGES, Run
from gossamer.tasks.base import Task, sized
from gossamer.tasks.registry import task_of


def build_network(
    task: Task, changes: Sequence[Change] = (), initialise: Callable[[], nn.Module] | None = None
) -> nn.Module:
    """The network of `task`, changed by `changes`, in training mode.

    initialise: builds the network as the settings say, with the weights that a training starts from; by default it is
    built with random ones. Edits come after them, so weights of the unchanged network are sliced with it.
    Raises what building raises, SettingsError or UnknownNameError for an edit that cannot be applied, RunError where the
    network does not run after the edits.
    """
    model = initialise() if initialise else task.build()
    if changes:
        apply_changes(model, changes)
        _check_runs(model, task)
    return model


def network_of(run: Run) -> tuple[nn.Module, Task]:
    """The network of a run folder with random weights, for a saved state, and its task.

    Raises RunError, and what `build_network` raises.
    """
    task = task_of(run.settings.task)(run.classes, run.settings)
    return build_network(task, changes_of(run)), task


def changes_of(run: Run) -> tuple[Change, ...]:
    """The edits of a run's network; none where the run has no changes.json. Raises RunError, InputError."""
    text = run.changes()
    return () if text is None else parse_changes(text, str(run.path / CHANGES))


def _check_runs(model: nn.Module, task: Task) -> None:
    """Raises RunError where the layers of an edited network do not fit together, in training or evaluation."""
    trial: nn.Module = copy.deepcopy(model).cpu()  # norms keep running means in training
    images = torch.zeros(2, task.settings.in_chans, *sized(task.settings))
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

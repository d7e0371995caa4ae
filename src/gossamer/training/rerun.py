"""A run repeated with another network: same task, data, split and settings, so that the two can be compared."""

from __future__ import annotations

import os
from typing import Any

from gossamer.errors import SettingsError
from gossamer.host.progress import SILENT, Progress
from gossamer.host.text import counted
from gossamer.run import Run
from gossamer.settings import Settings
from gossamer.training.loop import train
from gossamer.training.network import changes_of

# what only means something for the network that it was given for, or follows from its weights
OWN = ("width", "net_options", "weights", "norm_eps", "freeze")
# what was timed for the network that it was, unless somebody has set it
TIMED = ("precision", "memory_format", "threads")


def retrain(
    folder: str | os.PathLike[str],
    net: str,
    out: str | os.PathLike[str],
    *,
    weights: str = "",
    progress: Progress = SILENT,
) -> tuple[Run, dict[str, Any]]:
    """Train the run in `folder` anew with the network `net`, into the new run folder `out`; and the settings dropped.

    weights: what the new network starts from. Raises DataError where the images are no longer those of the run, and what
    `train` raises.
    """
    run = Run.open(os.fspath(folder))
    settings, dropped = settings_with_net(run.settings, net, os.fspath(out), weights)
    given, fresh = run.user_settings(), Settings()
    if given is not None:  # a run of versions that did not say keeps them all
        settings = settings.replace(**{name: getattr(fresh, name) for name in TIMED if name not in given})
    changes = changes_of(run)
    if changes:
        dropped["changes"] = counted(len(changes), "edit")
    for name, value in dropped.items():
        progress.say(f"dropped, as it belongs to {run.settings.net}: {name} {value}")
    return train(settings, split_of=run, progress=progress), dropped


def settings_with_net(settings: Settings, net: str, out: str, weights: str = "") -> tuple[Settings, dict[str, Any]]:
    """The settings for another network, and those that were dropped on the way. Raises SettingsError."""
    if net == settings.net:
        raise SettingsError(f"net {net}: the run has it already", "another network", "see: gossamer list")
    fresh = Settings()
    dropped = {name: value for name in OWN if (value := getattr(settings, name)) != getattr(fresh, name)}
    if settings.freeze == "backbone" and weights:  # a name that every network knows
        del dropped["freeze"]
    kept = {name: getattr(fresh, name) for name in dropped}
    # whether to stay fine at small inputs is decided by the input again, as not every network can
    return settings.replace(**{**kept, "net": net, "out": out, "weights": weights, "small_input": None}), dropped

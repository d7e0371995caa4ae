"""A model file in a runtime, or the network of a run folder in torch, behind one interface."""

from __future__ import annotations

import shlex
from pathlib import Path

from gossamer.errors import SettingsError
from gossamer.runtime.model import Model, load
from gossamer.runtime.table import AUTO
from gossamer.targets import FILES, target_of


def load_target(target: str | Path, *, runtime: str = AUTO, threads: int = 0) -> Model:
    """Open a model file, or the network of a run folder, which only torch runs.

    threads: 0 leaves the number to the runtime. Raises SettingsError for a run folder with a runtime, and what
    `gossamer.load` and `as_model` raise.
    """
    if target_of(target, ("run", *FILES)).kind != "run":
        return load(target, runtime=runtime, threads=threads)
    if not 0 <= threads <= 4096:
        raise SettingsError(f"threads {threads}", "0 (the runtime decides) to 4096", "give such a number")
    if runtime != AUTO:
        raise SettingsError(
            f"a run folder with the runtime {runtime}", "a model file", f"gossamer export {shlex.quote(str(target))}"
        )
    import torch

    from gossamer.training.restore import as_model

    if threads:
        torch.set_num_threads(threads)
    return as_model(target)

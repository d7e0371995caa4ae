"""What is asked of `gossamer.sweep`: a YAML file, checked before any work, and kept with what it makes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.errors import MissingPackageError, RunError, SettingsError, UnknownNameError
from gossamer.host.stepfolder import is_settings
from gossamer.runtime.table import RUNTIMES, missing
from gossamer.selection.budget import PRECISIONS, SPELLINGS, is_finite
from gossamer.selection.settings import ABLE, NATIVE
from gossamer.settings import Settings
from gossamer.settings.file import read_mapping
from gossamer.sweeps.space import MOST_TRIALS, Space, checked_space

SECTIONS = ("settings", "grid", "choices", "ranges")
OTHERS = ("trials", "seed", "runtime", "threads", "precision")
FEWEST_MINUTES = 0.1
MOST_SEEDS = 100


@dataclass(frozen=True)
class SweepSettings:
    """What decides the trials. trials: how many; seed: of what is drawn.

    runtime, threads, precision: of the measured milliseconds. fingerprint: of the images.
    """

    space: Space
    trials: int
    seed: int
    runtime: str
    threads: int
    precision: str
    fingerprint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "space": self.space.to_json(), "trials": self.trials, "seed": self.seed, "runtime": self.runtime,
            "threads": self.threads, "precision": self.precision, "fingerprint": self.fingerprint,
        }  # fmt: skip


def load_sweep(path: str | os.PathLike[str]) -> SweepSettings:
    """The settings of a file, as far as they can be checked without opening the data.

    Raises SettingsError, UnknownNameError, MissingPackageError.
    """
    return checked_sweep(read_mapping(Path(path), "a sweep", links=False), os.fspath(path))


def checked_sweep(values: Mapping[str, Any], path: str = "sweep") -> SweepSettings:
    """The settings of plain values, as a file has them. path: what messages call them."""
    for name in values:
        if name not in (*SECTIONS, *OTHERS):
            hint = "settings" if name in Settings.__dataclass_fields__ else ""
            if hint:
                raise SettingsError(
                    f"{path}: {name} beside the sections", f"it below {', '.join(SECTIONS)}", f"move it below {hint}"
                )
            raise UnknownNameError("part of a sweep", str(name), (*SECTIONS, *OTHERS))
    space = checked_space(values, path)
    if not space.fixed.get("data"):
        raise SettingsError(f"{path}: no data", "data below settings", "add `data: FOLDER` below settings")
    combinations = len(space.combinations())
    trials = values.get("trials")
    if trials is None and space.drawn:
        raise SettingsError(f"{path}: choices or ranges without trials", "how many are drawn", "add `trials: 20`")
    trials = combinations if trials is None else _whole(path, "trials", trials, 1, MOST_TRIALS)
    if trials != combinations and not space.drawn:
        raise SettingsError(
            f"{path}: trials {trials} for a grid of {combinations} combinations", "all of a grid", "leave trials out"
        )
    if trials < combinations:
        raise SettingsError(
            f"{path}: trials {trials} for a grid of {combinations} combinations", f"{combinations} or more",
            "raise trials",
        )  # fmt: skip
    runtime = values.get("runtime", NATIVE)
    if runtime not in ABLE:
        raise UnknownNameError("runtime to time in", str(runtime), ABLE)
    if reason := missing(RUNTIMES[runtime]):
        raise MissingPackageError(RUNTIMES[runtime].title, "", f"runtime {runtime}", reason)
    precision = SPELLINGS.get(str(values.get("precision", "float32")), values.get("precision", "float32"))
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", str(precision), (*PRECISIONS, *SPELLINGS))
    if precision == "bf16" and runtime != NATIVE:
        raise SettingsError(f"{path}: precision bf16 with the runtime {runtime}", "float32, int8", "use runtime native")
    return SweepSettings(
        space, trials, _whole(path, "seed", values.get("seed", 0), 0, (1 << 31) - 1), runtime,
        _whole(path, "threads", values.get("threads", 1), 1, 4096), precision,
    )  # fmt: skip


def check_options(minutes: float | None, seeds: int) -> None:
    """Refuse a budget and a number of seeds that cannot be. Raises SettingsError."""
    if minutes is not None and not (is_finite(minutes) and FEWEST_MINUTES <= minutes <= 1e6):
        raise SettingsError(f"minutes {minutes}", f"{FEWEST_MINUTES:g} to 1000000", "check --minutes")
    _whole("sweep", "seeds", seeds, 1, MOST_SEEDS)


def _whole(path: str, name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingsError(
            f"{path}: {name} {str(value)[:40]}", f"a whole number from {low} to {high}", f"check {name}"
        )
    return value


def check_same(asked: SweepSettings, kept: Any, path: Path, folder: Path) -> None:
    """Raises RunError where a folder was begun with another sweep: says in what they differ."""
    if not is_settings(kept, set(asked.to_json())) or not isinstance(kept["space"], dict):
        raise RunError(f"{path}: does not hold the settings of a sweep", "what gossamer sweep wrote", "restore it")
    now, then = _flat(asked.to_json()), _flat(kept)
    for name in (*now, *then):
        if now.get(name) != then.get(name):
            what = f"was begun with {name} {_shown(then, name)}, now it is {_shown(now, name)}"
            what = "the images are no longer those it was begun with" if name == "fingerprint" else what
            raise RunError(f"{folder}: {what}", "the sweep that it was begun with", "give that, or another --out")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """settings.lr and the like -> value."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if name == "space" and isinstance(value, dict):
            for section, inner in value.items():
                if isinstance(inner, dict):
                    result |= {f"{section}.{key}": each for key, each in inner.items()}
        else:
            result[name] = value
    return result


def _shown(values: Mapping[str, Any], name: str) -> str:
    return str(values[name])[:100] if name in values else "not there"

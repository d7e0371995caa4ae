"""What a recipe is asked to do: typed, checked before any work, and kept with what it makes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gossamer.errors import RunError, SettingsError, UnknownNameError
from gossamer.shrink.importance import KINDS
from gossamer.shrink.recipe.candidates import Targets
from gossamer.targets import target_of

MINUTES = 30.0
FEWEST_MINUTES = 1.0  # in less, a network is measured and quantised but not trained
MOST_DROP = 100.0


@dataclass(frozen=True)
class ShrinkSettings:
    """What decides the result. run: the run folder; weights: SHA-256 of its checkpoint; seed: of its training.

    epochs: of each training, None for as many as its share of the minutes allows. decompose: whether layers of the narrower
    networks may be decomposed.
    """

    run: str
    which: str
    weights: str
    seed: int
    max_ms: float | None
    max_mb: float | None
    max_drop: float
    minutes: float
    epochs: float | None
    importance: str
    threads: int
    decompose: bool = True

    @property
    def targets(self) -> Targets:
        """The limits."""
        return Targets(self.max_ms, self.max_mb, self.max_drop)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def check_settings(
    run: str | os.PathLike[str],
    max_ms: float | None,
    max_mb: float | None,
    max_drop: float,
    minutes: float,
    epochs: float | None,
    importance: str,
    threads: int,
    which: str,
) -> None:
    """Raises InputError for what can be told without opening the run."""
    target_of(run, ("run",))
    if max_ms is None and max_mb is None:
        raise SettingsError(
            "no limit of time or size", "--max-ms 1.0, --max-mb 1 or both", "say what the network has to keep"
        )
    _number("a limit of", max_ms, "ms", 1e-6, 1e6, "--max-ms")
    _number("a limit of", max_mb, "MB", 1e-6, 1e6, "--max-mb")
    _number("a drop of at most", max_drop, "points", 0.0, MOST_DROP, "--max-drop")
    if not _finite(minutes) or minutes > 1e6 or minutes <= 0:
        raise SettingsError(f"minutes {minutes}", f"{FEWEST_MINUTES:g} to 1000000", "give such a number")
    if minutes < FEWEST_MINUTES:
        raise SettingsError(
            f"{minutes:g} minutes, too few to train, quantise and measure anything",
            f"{FEWEST_MINUTES:g} minute at least",
            "give more, or use gossamer quantize, which trains nothing",
        )
    _number("trainings of", epochs, "epochs", 0.01, 1e6, "--epochs")
    if importance not in KINDS:
        raise UnknownNameError("importance", importance, KINDS)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 4096:
        raise SettingsError(f"threads {threads}", "1 to 4096", "give such a number")
    if which not in ("best", "last"):
        raise SettingsError(f"weights {which!r}", "best or last", "choose one of them")


def settings_of(values: Any, path: Path) -> ShrinkSettings:
    """The settings that a folder was begun with. Raises RunError."""
    names = {field.name for field in fields(ShrinkSettings)}
    if isinstance(values, Mapping):
        values = {"decompose": False, **values}  # folders of versions that decomposed nothing lack it
    if not isinstance(values, Mapping) or set(values) != names or not isinstance(values["decompose"], bool):
        raise RunError(f"{path}: does not hold the settings of a recipe", "what gossamer shrink wrote", "restore it")
    text = all(isinstance(values[name], str) and "\0" not in values[name] for name in ("run", "which", "weights"))
    if not text or not all(value is None or isinstance(value, (str, int, float)) for value in values.values()):
        raise RunError(f"{path}: settings of another type", "what gossamer shrink wrote", "restore it")
    return ShrinkSettings(**values)


def check_same(asked: ShrinkSettings, begun: ShrinkSettings, path: Path) -> None:
    """Raises RunError where a folder was begun with other settings: its steps would not be those of the new ones."""
    for field in fields(ShrinkSettings):
        now, then = getattr(asked, field.name), getattr(begun, field.name)
        same = os.path.realpath(now) == os.path.realpath(then) if field.name == "run" else now == then
        if not same:
            what = "the checkpoint of the run is another one" if field.name == "weights" else f"{field.name} {now}"
            was = "" if field.name == "weights" else f" where it was begun with {then}"
            fix = "give those, or another --out"
            if field.name == "decompose":  # folders of versions that decomposed nothing are begun without it
                fix = f"{'leave out' if then else 'give'} --no-decompose, or give another --out"
            raise RunError(f"{path}: {what}{was}", "the settings that it was begun with", fix)


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _number(what: str, value: float | None, unit: str, low: float, high: float, flag: str) -> None:
    if value is not None and not (_finite(value) and low <= value <= high):
        raise SettingsError(f"{what} {value} {unit}", f"{low:g} to {high:g}", f"check {flag}")

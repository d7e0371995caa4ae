"""What is asked of `gossamer.pick`: typed, checked before any work, and kept with what it makes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gossamer.errors import MissingPackageError, RunError, SettingsError, UnknownNameError
from gossamer.host.stepfolder import is_settings
from gossamer.networks.pretrained import TIMM
from gossamer.networks.registry import ALIASES, NETWORKS, list_models
from gossamer.runtime.table import RUNTIMES, missing
from gossamer.selection.budget import PRECISIONS, SPELLINGS, Budget, is_finite, parse_budget
from gossamer.settings import choices
from gossamer.settings.parse import parse_shape

MINUTES = 60.0
FEWEST_MINUTES = 1.0  # in less not one network is measured, trained and exported
TRAINED = 8  # networks of the first rung, at most
ABLE = ("native", "onnxruntime", "openvino")  # runtimes that networks are timed in
NATIVE = "native"


@dataclass(frozen=True)
class PickSettings:
    """What decides the result. data: "" for none; fingerprint: of its images. ms, bytes, memory: the budget.

    input: "CxHxW", "" for the network's own or that of the images. nets: patterns of names. epochs: of a whole training,
    None for as many as its share of the minutes allows. trained: networks of the first rung, at most.
    """

    data: str
    val: str
    task: str
    fingerprint: str
    ms: float | None
    bytes: float | None
    memory: float | None
    runtime: str
    threads: int
    precisions: tuple[str, ...]
    input: str
    nets: tuple[str, ...]
    trained: int
    minutes: float
    epochs: float | None
    seed: int

    @property
    def budget(self) -> Budget:
        """The limits."""
        return Budget(self.ms, self.bytes, self.memory)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of the input; None where it is not given."""
        return parse_shape(self.input) if self.input else None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "precisions": list(self.precisions), "nets": list(self.nets)}


def checked_settings(
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str] | None,
    latency: str | None,
    size: str | None,
    memory: str | None,
    runtime: str,
    threads: int,
    precision: str | Sequence[str],
    input: str,
    task: str,
    val: str,
    nets: str | Sequence[str],
    candidates: int,
    minutes: float,
    epochs: float | None,
    seed: int,
) -> PickSettings:
    """The settings, as far as they can be checked without opening the data. Raises InputError, MissingPackageError."""
    budget = parse_budget(latency, size, memory)
    if runtime not in ABLE:
        raise UnknownNameError("runtime to pick for", runtime, ABLE)
    if reason := missing(RUNTIMES[runtime]):
        raise MissingPackageError(RUNTIMES[runtime].title, "", f"--runtime {runtime}", reason)
    _whole("threads", threads, 1, 4096)
    _whole("candidates", candidates, 1, 64)
    _whole("seed", seed, 0, (1 << 31) - 1)
    if input:
        shape = parse_shape(input)
        if shape[0] not in (1, 3):
            raise SettingsError(f"input {input}: {shape[0]} channels", "1 (grey) or 3 (RGB)", "check --input")
    tasks = choices("task") or ()
    if task not in tasks:
        raise UnknownNameError("task", task, tasks)
    _check_time(minutes, epochs)
    folder = "" if data is None else os.fspath(data)
    if data is not None and not folder:
        raise SettingsError("an empty name of the data", "a folder of images, a CSV file, or tar shards", "name one")
    _check_out(folder, out)
    if not folder:
        _check_untrained(
            task=(task, "classify"), val=(val, ""), epochs=(epochs, None), candidates=(candidates, 8), seed=(seed, 0)
        )
    patterns = tuple(nets.split(",")) if isinstance(nets, str) else tuple(nets)
    _check_nets(patterns)
    return PickSettings(
        folder, val, task, "", budget.ms, budget.bytes, budget.memory, runtime, threads, _precisions(precision, runtime),
        input, patterns, candidates, float(minutes), epochs, seed,
    )  # fmt: skip


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingsError(f"{name} {value}", f"{low} to {high}", f"check --{name}")


def _check_time(minutes: float, epochs: float | None) -> None:
    if not is_finite(minutes) or not 0 < minutes <= 1e6:
        raise SettingsError(f"minutes {minutes}", f"{FEWEST_MINUTES:g} to 1000000", "check --minutes")
    if epochs is None and minutes < FEWEST_MINUTES:
        raise SettingsError(
            f"{minutes:g} minutes, too few to measure, train and export one network",
            f"{FEWEST_MINUTES:g} minute at least",
            "give more --minutes, or --epochs for trainings of a fixed length",
        )
    if epochs is not None and not (is_finite(epochs) and 0.01 <= epochs <= 1e6):
        raise SettingsError(f"trainings of {epochs} epochs", "0.01 to 1000000", "check --epochs")


def _check_out(data: str, out: str | os.PathLike[str] | None) -> None:
    if not data:
        if out is not None:
            raise SettingsError(
                f"--out {os.fspath(out)} without data", "a folder for what is trained on your data", "name the data"
            )
        return
    if out is None or not os.fspath(out):
        raise SettingsError("no folder for the result", "a new folder, or one to go on in", "give --out")
    inner, outer = (Path(os.path.realpath(path)) for path in (os.fspath(out).replace("\0", ""), data.replace("\0", "")))
    if inner == outer or (outer in inner.parents and outer.is_dir()):
        raise SettingsError(
            f"--out {os.fspath(out)} inside the data {data}", "a folder beside them", "give another --out"
        )


def _precisions(given: str | Sequence[str], runtime: str) -> tuple[str, ...]:
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
    names = [SPELLINGS.get(name, name) for name in names if name]
    for name in names:
        if name not in PRECISIONS:
            raise UnknownNameError("precision", str(name), (*PRECISIONS, *SPELLINGS))
    if "bf16" in names and runtime != NATIVE:
        raise SettingsError(f"precision bf16 with the runtime {runtime}", "float32, int8", "use --runtime native")
    able = [name for name in PRECISIONS if name != "bf16" or runtime == NATIVE]
    return tuple(name for name in able if not names or name in names)


def _check_untrained(**given: tuple[Any, Any]) -> None:
    """Refuse what only trainings look at. given: each with its default. Raises SettingsError."""
    for name, (value, usual) in given.items():
        if value != usual:
            raise SettingsError(
                f"--{name} {value} without data, where nothing is trained",
                f"--{name} with images",
                "name them, or leave it out",
            )


def _check_nets(patterns: Sequence[str]) -> None:
    for pattern in patterns:
        if pattern.startswith(TIMM):
            raise SettingsError(f"nets {pattern}", "networks of gossamer's own", "see: gossamer list")
        if not pattern or not list_models(pattern):
            raise UnknownNameError("network", pattern, (*ALIASES, *NETWORKS))


def settings_of(values: Any, path: Path) -> PickSettings:
    """The settings that a folder was begun with. Raises RunError."""
    if not is_settings(values, {field.name for field in fields(PickSettings)}):
        raise RunError(f"{path}: does not hold the settings of a pick", "what gossamer pick wrote", "restore it")
    names = ("precisions", "nets")
    lists = {name: tuple(values[name]) for name in names if _is_texts(values[name])}
    plain = all(
        value is None or isinstance(value, (str, int, float)) for name, value in values.items() if name not in names
    )
    if len(lists) < len(names) or not plain or not isinstance(values["data"], str) or "\0" in values["data"]:
        raise RunError(f"{path}: settings of another type", "what gossamer pick wrote", "restore it")
    return PickSettings(**{**values, **lists})


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def check_same(asked: PickSettings, begun: PickSettings, path: Path) -> None:
    """Raises RunError where a folder was begun with other settings: its steps would not be those of the new ones."""
    for field in fields(PickSettings):
        now, then = getattr(asked, field.name), getattr(begun, field.name)
        same = os.path.realpath(now) == os.path.realpath(then) if field.name == "data" else now == then
        if not same:
            what = f"holds another pick: {field.name} {_shown(then)} where now it is {_shown(now)}"
            what = "the images are no longer those it was begun with" if field.name == "fingerprint" else what
            raise RunError(f"{path}: {what}", "the settings that it was begun with", "give those, or another --out")


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

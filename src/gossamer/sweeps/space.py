"""What varies between the trials of a sweep: values of a grid, choices and ranges, and when two trials are the same."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gossamer.errors import SettingsError, UnknownNameError
from gossamer.host.text import counted
from gossamer.networks.registry import resolve, traits
from gossamer.selection.choices import own_width, takes_width
from gossamer.settings import Settings, from_dict, names, to_dict, type_hints
from gossamer.settings.check import checked_value, without_none

MOST_TRIALS = 1000  # each is a run folder
MOST_VALUES = 1000  # of one setting
MOST_STEPS = 1e9  # of a range: finer ones are none
FIXED = ("data", "val", "val_share", "task", "heads", "out", "seed")  # what no trial may have of its own
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # 1e-3, which YAML 1.1 takes for a text


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included. log: drawn evenly over their logarithm. step: between two, None for none."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    @property
    def end(self) -> float:
        """The last value that steps from low reach, in decimal numbers as Optuna counts them."""
        if self.step is None:
            return self.high
        low, step = Decimal(str(self.low)), Decimal(str(self.step))
        return type(self.low)((Decimal(str(self.high)) - low) // step * step + low)

    def values(self) -> list[float] | None:
        """All of them; None where they are too many to count."""
        step = 1 if self.whole and self.step is None else self.step
        if step is None:
            return None
        count = round((self.end - self.low) / step) + 1
        return None if count > MOST_VALUES else [min(self.low + index * step, self.end) for index in range(count)]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Space:
    """fixed: settings of every trial. grid: all combinations are tried. choices, ranges: one value is drawn for a trial."""

    fixed: dict[str, Any]
    grid: dict[str, tuple[Any, ...]]
    choices: dict[str, tuple[Any, ...]]
    ranges: dict[str, Range]

    @property
    def drawn(self) -> bool:
        """Whether a part of each trial is drawn."""
        return bool(self.choices or self.ranges)

    def combinations(self) -> list[dict[str, Any]]:
        """Those of the grid, in its order, each once; one without settings where there is no grid."""
        known: dict[str, dict[str, Any]] = {}
        for combination in _products(self.grid):
            known.setdefault(self.identity(combination), combination)
        return list(known.values())

    def size(self) -> int | None:
        """How many trials there are; None where a range has no end of values. Equal ones count."""
        count = 1
        for values in (*self.grid.values(), *self.choices.values(), *(each.values() for each in self.ranges.values())):
            if values is None:
                return None
            count *= len(values)
        return count

    def every(self) -> Iterator[dict[str, Any]]:
        """All trials of a space that has a size."""
        ranges = {name: tuple(each.values() or ()) for name, each in self.ranges.items()}
        return _products({**self.grid, **self.choices, **ranges})

    def settings(self, values: Mapping[str, Any]) -> Settings:
        """Of a trial. Raises SettingsError where these values do not go together."""
        return from_dict({**self.fixed, **values})

    def typical(self, combination: Mapping[str, Any] | None = None) -> Settings:
        """With the first of the choices and the low end of each range: the first combination of the grid that goes together
        with them, or these values in place of theirs. Raises SettingsError."""
        rest = {**{name: each[0] for name, each in self.choices.items()}, **{k: r.low for k, r in self.ranges.items()}}
        problem: SettingsError | None = None
        for values in _products(self.grid) if combination is None else [combination]:
            try:
                return self.settings({**rest, **values})
            except SettingsError as error:
                problem = problem or error
        raise problem or SettingsError("nothing varies", "values in grid, choices or ranges", "add some")

    def identity(self, values: Mapping[str, Any]) -> str:
        """The same text for trials that would train the same: 224 is 224x224, and a network's own width is no other one."""
        try:
            settings = self.settings(values)
        except SettingsError:  # it is never trained
            return json.dumps(sorted(values.items()), default=list)
        plain = to_dict(settings)
        size = settings.input_size()
        plain["input"] = "auto" if size is None else f"{size[0]}x{size[1]}"
        if not settings.net.startswith("timm:"):
            plain["net"] = resolve(settings.net)
            if settings.width is None and takes_width(plain["net"]):  # given to others it is an error
                plain["width"] = own_width(plain["net"])
        return json.dumps(plain, sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "settings": self.fixed,
            "grid": {name: list(values) for name, values in self.grid.items()},
            "choices": {name: list(values) for name, values in self.choices.items()},
            "ranges": {name: each.to_json() for name, each in self.ranges.items()},
        }


def _products(values: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination))


def checked_space(sections: Mapping[str, Any], path: str) -> Space:
    """The space of the sections settings, grid, choices and ranges. Raises SettingsError, UnknownNameError."""
    fixed = {name: _value(name, value, path) for name, value in _section(sections, "settings", path).items()}
    lists = {}
    for section in ("grid", "choices"):
        lists[section] = {
            name: _values(name, values, section, path) for name, values in _section(sections, section, path).items()
        }
    ranges = {name: _range(name, value, path) for name, value in _section(sections, "ranges", path).items()}
    seen: dict[str, str] = {}
    for section, listed in (("settings", fixed), *lists.items(), ("ranges", ranges)):
        for name in listed:
            if name in seen:
                raise SettingsError(
                    f"{path}: {name} is in {seen[name]} and in {section}", "each setting in one section", "remove one"
                )
            seen[name] = section
            if section != "settings" and name in FIXED:
                raise SettingsError(
                    f"{path}: {name} in {section}: scores of such trials would not compare",
                    "it in settings" + (", and --seeds for the spread" if name == "seed" else ""),
                    "move it",
                )
    if "out" in fixed:
        raise SettingsError(f"{path}: out in settings", "--out", "leave it out: each trial has a folder of its own")
    count = math.prod(len(values) for values in lists["grid"].values())
    if count > MOST_TRIALS:
        raise SettingsError(
            f"{path}: a grid of {count} combinations", f"{MOST_TRIALS} at most", "draw some of its settings: choices"
        )
    space = Space(fixed, lists["grid"], lists["choices"], ranges)
    if not seen.keys() - fixed.keys():
        raise SettingsError(
            f"{path}: nothing varies", "values in grid, choices or ranges", "add some, e.g. grid: {width: [0.5, 1.0]}"
        )
    space.typical()
    return space


def _section(sections: Mapping[str, Any], section: str, path: str) -> dict[str, Any]:
    values = sections.get(section)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(
            f"{path}: {section} holds {_kind(values)}", "lines of `name: value` below it", "fix the file"
        )
    for name in values:
        if name not in names():
            raise UnknownNameError("setting", str(name), names())
    return values


def _values(name: str, values: Any, section: str, path: str) -> tuple[Any, ...]:
    if not isinstance(values, list) or not values:
        what = "no values" if values in (None, []) else f"{_kind(values)}"
        raise SettingsError(
            f"{path}: {section}.{name} holds {what}", f"a list of values, as {name}: [A, B]", "list them"
        )
    if len(values) > MOST_VALUES:
        raise SettingsError(
            f"{path}: {section}.{name}: {counted(len(values), 'value')}", f"{MOST_VALUES} at most", "list fewer"
        )
    result = []
    for value in values:
        checked = _value(name, value, path)
        if checked not in result:
            result.append(checked)
    return tuple(result)


def _value(name: str, value: Any, path: str) -> Any:
    """A value as its setting takes it. Raises SettingsError, UnknownNameError."""
    field = next(each for each in dataclasses.fields(Settings) if each.name == name)
    hint = type_hints()[name]
    if without_none(hint) is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    if value is None and field.metadata["usual"] is not None:  # the default of the task
        return None
    try:
        value = checked_value(field, hint, value)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error.given}", error.allowed, error.do) from error
    if name == "net":
        traits(value)  # that there is one
    if name == "input" and value != "auto":
        from gossamer.settings.parse import parse_size

        parse_size(value)
    return list(value) if isinstance(value, tuple) else value


def _range(name: str, value: Any, path: str) -> Range:
    where = f"{path}: ranges.{name}"
    kind = without_none(type_hints()[name])
    if kind not in (int, float):
        raise SettingsError(
            f"{where}: no number", "settings that are numbers", f"list its values: choices: {{{name}: [...]}}"
        )
    if not isinstance(value, dict):
        raise SettingsError(
            f"{where} holds {_kind(value)}", "low and high, and log or step", "give {low: ..., high: ...}"
        )
    for key in value:
        if key not in ("low", "high", "log", "step"):
            raise UnknownNameError(f"part of ranges.{name}", str(key), ("low", "high", "log", "step"))
    missing = [key for key in ("low", "high") if value.get(key) is None]
    if missing:
        raise SettingsError(f"{where}: no {missing[0]}", "low and high", f"add {missing[0]}")
    low, high = (_value(name, value[key], path) for key in ("low", "high"))
    log, step = value.get("log", False), value.get("step")
    if not isinstance(log, bool):
        raise SettingsError(f"{where}: log {log!r}", "true or false", "give one")
    if not low < high:
        raise SettingsError(f"{where}: {low:g} to {high:g}", "low below high", "check the numbers")
    if log and low <= 0:
        raise SettingsError(f"{where}: a logarithm from {low:g} on", "low above 0 with log: true", "check the numbers")
    if step is not None:
        step = float(step) if isinstance(step, str) and _EXPONENT.fullmatch(step) else step
        wanted = (int,) if kind is int else (int, float)
        least = 1 if kind is int else (high - low) / MOST_STEPS
        if isinstance(step, bool) or not isinstance(step, wanted) or not least <= step <= high - low:
            raise SettingsError(
                f"{where}: step {str(step)[:40]}",
                f"{'a whole number' if kind is int else 'a number'} from {least:g} to {high - low:g}", "check the numbers",
            )  # fmt: skip
        if log:
            raise SettingsError(f"{where}: step with log", "one of them", "leave one of them out")
    return Range(low, high, log, step, kind is int)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]}"

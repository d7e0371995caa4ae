"""Limits of a smaller network as people write them: 0.5 of what it takes now, 1.2ms, 100M, 2MB."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from gossamer.errors import SettingsError

# kind -> unit -> its value in milliseconds, multiply-adds or bytes
UNITS: dict[str, dict[str, float]] = {
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "macs": {"k": 1e3, "m": 1e6, "g": 1e9, "kmacs": 1e3, "mmacs": 1e6, "gmacs": 1e9, "macs": 1.0},
    "size": {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30},
}
UNITS["memory"] = UNITS["size"]
EXAMPLES = {"latency": "0.5 or 1.2ms", "macs": "0.5 or 100M", "size": "0.5 or 2MB", "memory": "0.5 or 8MB"}
WHAT = {"latency": "latency", "macs": "multiply-adds", "size": "size"}


@dataclass(frozen=True)
class Limit:
    """At most `value`: a fraction of what the network takes now, or in milliseconds, multiply-adds or bytes."""

    kind: str
    value: float
    fraction: bool

    def of(self, now: float) -> float:
        """The limit where the network takes `now`."""
        return self.value * now if self.fraction else self.value


def parse_limit(kind: str, given: float | str) -> Limit:
    """A limit of the kind "latency", "macs" or "size". Raises SettingsError."""
    allowed = f"a fraction between 0 and 1, or a number with a unit: {EXAMPLES[kind]}"
    value, unit = _parts(kind, given, allowed)
    if not unit:
        if not 0 < value < 1:
            raise SettingsError(
                f"{kind} {given}", allowed, f"give a unit, as {EXAMPLES[kind].split()[-1]}, or a fraction"
            )
        return Limit(kind, value, True)
    return Limit(kind, value, False)


def parse_amount(kind: str, given: float | str) -> float:
    """Milliseconds, multiply-adds or bytes of a number that has its unit, as "2ms" or "3MB". Raises SettingsError."""
    example = EXAMPLES[kind].split()[-1]
    allowed = (
        f"a number above 0 with one of the units {', '.join(_spelled(unit) for unit in UNITS[kind])}, as {example}"
    )
    value, unit = _parts(kind, given, allowed)
    if not unit:
        raise SettingsError(f"{kind} {given}: no unit", allowed, f"give a unit, as {example}")
    return value


def _spelled(unit: str) -> str:
    return {"kib": "KiB", "mib": "MiB", "gib": "GiB", "b": "B", "kb": "kB", "mb": "MB", "gb": "GB"}.get(unit, unit)


def _parts(kind: str, given: float | str, allowed: str) -> tuple[float, str]:
    """The value in milliseconds, multiply-adds or bytes, and the unit, "" where there is none and the value is as it stands."""
    text = str(given).strip()
    matched = re.fullmatch(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)", text) if len(text) <= 40 else None
    if matched is None or isinstance(given, bool):
        raise SettingsError(f"{kind} {text[:40]!r}", allowed, f"check --{kind}")
    value, unit = float(matched[1]), matched[2].lower()
    if not unit:
        return value, ""
    if unit not in UNITS[kind]:
        raise SettingsError(f"{kind} {text}: the unit {matched[2]}", allowed, f"check --{kind}")
    value *= UNITS[kind][unit]
    if not (math.isfinite(value) and value > 0):
        raise SettingsError(f"{kind} {text}", allowed, f"check --{kind}")
    return value, unit


def shown(kind: str, value: float) -> str:
    """A value with its unit, for people, beside the word of WHAT that says what it is."""
    if kind == "latency":
        return f"{value:.3f} ms"
    if kind == "macs":
        return f"{value / 1e6:.2f} M"
    return f"{value / 1e6:.3f} MB"

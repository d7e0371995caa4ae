"""Values that settings and flags spell as text: sizes, shapes, bytes, counts and options."""

from __future__ import annotations

import math
import re
from typing import Any

from gossamer.errors import SettingsError


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of "224" or "240x320", in pixels. Raises SettingsError."""
    parts = str(text).lower().split("x")
    if len(parts) in (1, 2) and all(part.isdecimal() and len(part) <= 4 and 8 <= int(part) <= 4096 for part in parts):
        return int(parts[0]), int(parts[-1])
    raise SettingsError(
        f"input size {text!r}", "8 to 4096 pixels, as 224 or 240x320 (height x width)", "give such a size"
    )


def parse_shape(text: str) -> tuple[int, int, int]:
    """(channels, height, width) of "3x224x224", "240x320" or "224"; 3 channels unless given. Raises SettingsError."""
    parts = str(text).lower().split("x")
    channels = parts.pop(0) if len(parts) == 3 else "3"
    if len(parts) not in (1, 2) or not channels.isdecimal() or len(channels) > 4 or not 1 <= int(channels) <= 1024:
        raise SettingsError(
            f"input {text!r}", "channels x height x width, as 3x224x224, 240x320 or 224", "give such a size"
        )
    return (int(channels), *parse_size("x".join(parts)))


def parse_bytes(text: str, flag: str = "size") -> int:
    """Bytes of "500M", "2G" or "1048576" (K, M, G, T are powers of 1024). Raises SettingsError, which names the flag."""
    given, text = text, str(text).strip().upper().removesuffix("B").removesuffix("I")
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    number, factor = (text[:-1], scale[text[-1]]) if text and text[-1] in scale else (text, 1)
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not (math.isfinite(value) and value * factor >= 1):
        raise SettingsError(f"{flag} {given!r}", "a number of bytes with K, M, G or T, as 500M", "give such a size")
    return int(value * factor)


def parse_stages(text: str, flag: str = "stages") -> tuple[int, ...]:
    """The numbers of "3" or "2,3", ascending; () of an empty text. Raises SettingsError, which names the flag."""
    parts = [part.strip() for part in str(text).split(",")] if str(text).strip() else []
    if not all(part.isdecimal() and len(part) < 4 for part in parts) or len({int(part) for part in parts}) < len(parts):
        raise SettingsError(f"{flag} {text!r}", "numbers from 0, each once, as 3 or 2,3", "give such numbers")
    return tuple(sorted(int(part) for part in parts))


def parse_count(text: str, flag: str = "count") -> int:
    """The number of "3M", "1.5G" or "2500000" (K, M, G are powers of 1000). Raises SettingsError, which names the flag."""
    scale = {"K": 10**3, "M": 10**6, "G": 10**9}
    stripped = str(text).strip().upper()
    number, factor = (stripped[:-1], scale[stripped[-1]]) if stripped[-1:] in scale else (stripped, 1)
    try:
        value = float(number) * factor
    except ValueError:
        value = -1.0
    if not math.isfinite(value) or value < 0:
        raise SettingsError(f"{flag} {text!r}", "a number with K, M or G, as 3M or 1.5G", "give such a number")
    return round(value)


def parse_options(text: str) -> dict[str, Any]:
    """The values of "key=value key=value", as int, float, bool, a tuple of whole numbers (1,2,2) or str.

    Raises SettingsError where a part is no key=value.
    """
    options: dict[str, Any] = {}
    for part in text.split():
        key, mark, value = part.partition("=")
        if not mark or not key.isidentifier() or not value or key in options:
            raise SettingsError(f"net_options {part!r}", "key=value, each key once, with spaces between", "fix it")
        options[key] = _plain(value)
    return options


def _plain(text: str) -> Any:
    """A word as the value that it spells."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    if re.fullmatch(r"\d{1,18}(,\d{1,18})+,?", text):
        return tuple(int(item) for item in text.strip(",").split(","))
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text

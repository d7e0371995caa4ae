"""Numbers as a reader wants them; what is not a number is shown as a dash, never as zero."""

from __future__ import annotations

import math

DASH = "–"
THIN = "\u202f"  # narrow no-break space: between a number and its unit, and between groups of three digits


def percent(share: float, digits: int = 1) -> str:
    """0.9123 -> "91.2 %"."""
    return f"{share * 100:.{digits}f}{THIN}%" if math.isfinite(share) else DASH


def points(share: float, digits: int = 1) -> str:
    """0.9123 -> "91.2", for columns whose head says per cent."""
    return f"{share * 100:.{digits}f}" if math.isfinite(share) else DASH


def count(value: float) -> str:
    """1234567 -> "1 234 567"; four digits stay together."""
    if not math.isfinite(value):
        return DASH
    return f"{value:,.0f}".replace(",", THIN) if abs(value) >= 10_000 else f"{value:.0f}"


def short(value: float, digits: int = 3) -> str:
    """2237000 -> "2.24 M": thousands k, millions M, billions G; `digits` significant digits."""
    if not math.isfinite(value):
        return DASH
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{significant(value / size, digits)}{THIN}{unit}"
    return significant(value, digits)


def significant(value: float, digits: int = 3) -> str:
    """`digits` significant digits, without an exponent where 1e-4 <= |value| < 1e6."""
    if not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if abs(value) < 1e-4 or abs(value) >= 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{round(value, places):.{max(places, 0)}f}"


def tick(value: float) -> str:
    """The number beside an axis: as short as it can be."""
    if abs(value) >= 1000:
        for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:g}{unit}"
    return f"{value:g}"


def size(value: float) -> str:
    """Bytes: 8912345 -> "8.91 MB" (powers of 1000)."""
    if not math.isfinite(value):
        return DASH
    return (
        f"{value:.0f}{THIN}bytes"
        if value < 1000
        else short(value).replace("k", "kB").replace("M", "MB").replace("G", "GB")
    )


def milliseconds(value: float) -> str:
    return f"{significant(value)}{THIN}ms" if math.isfinite(value) else DASH


def duration(seconds: float) -> str:
    """4000 -> "1 h 07 min"; 75 -> "1 min 15 s"; 3.2 -> "3.2 s"."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 59.95:
        return f"{seconds:.1f}{THIN}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{THIN}min {whole % 60:02d}{THIN}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}{THIN}h {minutes % 60:02d}{THIN}min"


def crop(name: str, length: int) -> str:
    """`name` cut to at most `length` characters, its cut marked."""
    return name if len(name) <= length else name[: length - 1] + "…"

"""Arguments that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from gossamer.errors import SettingsError


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    if not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a number from 1")
    return int(text)


def thread_number(text: str) -> int:
    """A number of threads, 1 to 4096, for argparse."""
    if not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a number from 1 to 4096")
    return int(text)


def whole_number(text: str) -> int:
    """A whole number, for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a whole number") from None


def number(text: str) -> float:
    """A number, for argparse."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a number") from None


def shortened(text: str) -> str:
    """What was given, as messages show it."""
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}..."


def fraction(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a number from 0 to 1")
    return value


def thread_counts(text: str) -> tuple[int, ...]:
    """ "1,2" -> (1, 2). Raises SettingsError."""
    parts = text.split(",")
    if not all(part.isdecimal() and len(part) <= 4 and 1 <= int(part) <= 4096 for part in parts):
        raise SettingsError(
            f"threads {shortened(text)}", "numbers from 1 to 4096 with commas, as 1,2", "check --threads"
        )
    return tuple(int(part) for part in parts)


def input_shape(text: str) -> Sequence[int] | None:
    """ "3x224x224" -> (3, 224, 224), "" -> None. Raises SettingsError."""
    from gossamer.settings.parse import parse_shape

    return parse_shape(text) if text else None


def add_batch(parser: argparse.ArgumentParser, default: int) -> None:
    """--batch."""
    parser.add_argument(
        "--batch", type=positive, default=default, metavar="N", help=f"images at once (default {default})"
    )


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """--runtime."""
    from gossamer.runtime.table import AUTO, RUNTIMES

    parser.add_argument("--runtime", default=AUTO, metavar="NAME", help=f"{AUTO} (default) or {', '.join(RUNTIMES)}")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """--threads of a runtime."""
    from gossamer.runtime.table import RUNTIMES

    fixed = [name for name, entry in RUNTIMES.items() if not entry.threads]
    parser.add_argument(
        "--threads",
        type=whole_number,
        default=0,
        metavar="N",
        help=f"threads; 0 (default) is the runtime's choice; no effect on {', '.join(fixed)}",
    )


def add_which(parser: argparse.ArgumentParser, whose: str) -> None:
    """--which: the checkpoint of a run."""
    parser.add_argument("--which", choices=("best", "last"), default="best", help=f"weights of {whose} (default best)")


def check_without(options: argparse.Namespace, flag: str, values: Mapping[str, Any], *, given: bool) -> None:
    """Refuse flags that a command would not look at. Raises SettingsError.

    values: the flags' names and defaults, of no use with `flag` where it is `given`, else without it.
    """
    for name, default in values.items():
        if getattr(options, name) != default:
            word = f"--{name.replace('_', '-')}"
            together = f"{options.command} {word} {'with' if given else 'without'} {flag}"
            raise SettingsError(
                together,
                f"{flag} without it" if given else f"{flag} with it",
                "leave one of them out" if given else "add it, or leave it out",
            )


def check_plot(path: str) -> None:
    """Refuse the name of a chart before minutes of measuring, not after. Raises InputError."""
    if path:
        from gossamer.charts.chart_file import check_chart_path

        check_chart_path(path)

"""Progress for long work: a bar on a terminal, plain lines elsewhere, nothing by default.

Library functions take a `Progress` and never print; the command line passes what `terminal` returns.
Everything goes to standard error: standard output is kept for results.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import IO, Any, TypeVar

T = TypeVar("T")

# control characters act on a terminal (colours, the cursor, the clipboard), and these marks reorder what it shows
_HARMFUL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_HARMFUL |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029)}


def escaped(text: str) -> str:
    """`text` as it may be written to a terminal or a log: what would act on it is escaped, line ends and tabs are not."""
    return text.translate(_HARMFUL)


def one_line(text: str) -> str:
    """A name within a line: `escaped`, and line ends and tabs too, so that a file's name cannot look like another line."""
    return escaped(text).translate({ord("\n"): "\\n", ord("\t"): "\\t"})


class Progress:
    """Prints nothing; the base of the others."""

    def say(self, line: str) -> None:
        """Print a line."""

    def track(self, items: Iterable[T], total: int | None = None, what: str = "") -> Iterator[T]:
        """Yield `items`, showing how many of `total` are done."""
        yield from items


SILENT = Progress()


class PlainLines(Progress):
    """Plain lines, for logs and pipes: at most one every `every` seconds and one at the end."""

    def __init__(self, stream: IO[str] | None = None, every: float = 10.0) -> None:
        self.stream = stream or sys.stderr
        self.every = every

    def say(self, line: str) -> None:
        try:
            self.stream.write(escaped(line) + "\n")
            self.stream.flush()
        except BrokenPipeError:  # whoever read it has closed it, which ends a command
            raise
        except OSError:  # a full disk, or a terminal that is gone: hours of work do not end for the lines about them
            _let_go(self.stream)

    def track(self, items: Iterable[T], total: int | None = None, what: str = "") -> Iterator[T]:
        started = told = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - told >= self.every:
                told = now
                of = f"/{total}" if total else ""
                self.say(f"{what} {done}{of} ({_pace(done, now - started)})")


def _pace(done: int, seconds: float) -> str:
    """ "2.5/s"; where one takes longer than a second "12 s each"."""
    return f"{done / seconds:.1f}/s" if done >= seconds else f"{seconds / done:.1f} s each"


class TerminalBar(Progress):
    """A bar drawn by rich, for a person at a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        self.console.print(escaped(line), markup=False)

    def track(self, items: Iterable[T], total: int | None = None, what: str = "") -> Iterator[T]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns: tuple[Any, ...] = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            for item in items:
                yield item
                bar.advance(task)


def _let_go(stream: IO[str]) -> None:
    """Let what a standard stream did not take, and what follows, go nowhere: Python would try again as it ends."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def terminal() -> Progress:
    """A bar where standard error is a terminal and rich is installed, plain lines elsewhere."""
    if sys.stderr.isatty():
        try:
            return TerminalBar()
        except ImportError:
            return PlainLines()
    return PlainLines()

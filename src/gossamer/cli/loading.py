"""A line before PyTorch is imported, which takes seconds: no command is silent for that long."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # as typing has it, whose import the help need not wait for
if TYPE_CHECKING:
    from gossamer.host.progress import Progress

LOADING = "loading PyTorch"


class _Watch:
    """A finder of modules that finds none: it says the line when torch is looked for, once."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.said = (
            False  # it stays where it is after that: Python goes through the list of finders while it asks this one
        )

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "torch" and not self.said and PathFinder.find_spec(name) is not None:
            say_loading(self.progress)


@contextlib.contextmanager
def loading_said(progress: Progress) -> Generator[None]:
    """Within it the first import of torch in this process is told before it begins, whoever needs it."""
    watch = _Watch(progress)
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, watch)
    try:
        yield
    finally:
        if watch in sys.meta_path:
            sys.meta_path.remove(watch)


def say_loading(progress: Progress) -> None:
    """Say it now, and not again at the import: for commands that do more than import before their first line."""
    for finder in sys.meta_path:
        if isinstance(finder, _Watch):
            finder.said = True
    progress.say(LOADING)

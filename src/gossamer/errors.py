"""Every error gossamer raises on purpose.

GossamerError                 anything below; `str()` is one line, `exit_code` is what the CLI returns
├── InputError                what was given cannot be used (exit 2)
│   ├── ImageError            an image: unreadable, truncated, over the pixel limit
│   ├── DataError             a data set: folder, CSV, shard, split
│   ├── SettingsError         a setting: unknown name, wrong type, outside its range
│   ├── UnknownNameError      a network, loss, runtime, ...: no such name, with the nearest ones
│   ├── WeightsError          a weights file: unreadable, unsafe, other shapes
│   ├── ModelFileError        a model file: breaks a rule of FORMAT.md
│   └── RunError              a run folder: missing, locked, already there, incomplete
├── MissingPackageError       an optional package is not installed; names the extra (exit 2)
├── StorageError              the disk is full, read-only, or refuses (exit 2)
└── VerificationError         the numbers do not agree (exit 1)

Interrupted is a KeyboardInterrupt that knows its signal.

An InputError always says three things: what was given, what is allowed, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 1000  # characters of what was given


def nearest_names(name: str, names: Iterable[str], count: int = 3, cutoff: float = 0.5) -> list[str]:
    """The names that are most like `name`, the nearest first; none where nothing is like it.

    cutoff: how like, from 0 to 1 for the same.
    """
    import difflib  # loaded where something is wrong, not at every start

    return difflib.get_close_matches(name, list(names), n=count, cutoff=cutoff)


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def _short(line: str) -> str:
    """A line that a person can read: what was given may be a whole file."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... ({len(line)} characters)"


class GossamerError(Exception):
    """Base of all errors raised on purpose; `str(error)` is a single line."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class InputError(GossamerError):
    """What was given cannot be used.

    given: what was given and why it cannot be used, e.g. "photos/: holds no images".
    allowed: what is allowed, e.g. "one folder per class with .jpg or .png files".
    do: what to do about it, e.g. "check the path".
    """

    def __init__(self, given: str, allowed: str, do: str) -> None:
        self.given, self.allowed, self.do = _short(_one_line(given)), _one_line(allowed), _one_line(do)
        super().__init__(f"{self.given}; allowed: {self.allowed}; {self.do}")

    def __reduce__(self) -> tuple[object, ...]:  # survives a worker process
        return (type(self), (self.given, self.allowed, self.do))


class ImageError(InputError):
    """An image cannot be read or is over the pixel limit."""


class DataError(InputError):
    """A data set (folder, CSV, shard, split) cannot be used."""


class SettingsError(InputError):
    """A setting is unknown, of the wrong type or outside its range."""


class UnknownNameError(InputError):
    """No such name; the message gives the nearest ones.

    kind: what is named, e.g. "network". name: what is looked up. names: those allowed.
    """

    def __init__(self, kind: str, name: str, names: Iterable[str]) -> None:
        self.kind, self.name, self.names = kind, name, tuple(names)
        near = nearest_names(name, self.names)
        shown = ", ".join(near) if near else ", ".join(self.names[:12]) + (", ..." if len(self.names) > 12 else "")
        do = f"did you mean {near[0]}?" if near else "choose one of them"
        super().__init__(f"no {kind} is called {name!r}", shown, do)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.kind, self.name, self.names))


class WeightsError(InputError):
    """A weights file is unreadable, unsafe or does not fit the network."""


class ModelFileError(InputError):
    """A model file breaks a rule of FORMAT.md; `rule` is its number."""

    def __init__(self, rule: int, given: str, allowed: str, do: str = "export the run again") -> None:
        self.rule = rule
        super().__init__(f"{given} (rule {rule})", allowed, do)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.rule, self.given.removesuffix(f" (rule {self.rule})"), self.allowed, self.do))


class RunError(InputError):
    """A run folder is missing, locked, already there or incomplete."""


class MissingPackageError(GossamerError, ImportError):
    """An optional package is not installed.

    package: its name. extra: the extra of gossamer that brings it, "" where none does. purpose: what needs it.
    do: what to do instead of installing the extra.
    """

    def __init__(self, package: str, extra: str, purpose: str, do: str = "") -> None:
        self.package, self.extra, self.purpose, self.do = package, extra, purpose, do
        needed = f"the package {package}" if extra else package
        super().__init__(
            f"{purpose} needs {needed}, which is not installed; " + (do or f'pip install "gossamer[{extra}]"')
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.package, self.extra, self.purpose, self.do))


class StorageError(GossamerError):
    """A file could not be written; what was there before is untouched."""


class VerificationError(GossamerError):
    """Two results that must agree do not."""

    exit_code = 1


class Interrupted(KeyboardInterrupt):
    """A signal ended the work after what there was had been saved. signal: its number."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal

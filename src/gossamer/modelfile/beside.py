"""Files of a network that lie beside one another, and files that are made of an ONNX file: how reading and making them fail."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from gossamer.errors import GossamerError, InputError, MissingPackageError, ModelFileError
from gossamer.host.storage import read_regular
from gossamer.modelfile.digest_json import ChangedFileError, checked_values
from gossamer.modelfile.metadata import rule_error

RuleError = Callable[[int, str, str], ModelFileError]  # rule, what is wrong, what to do


def bytes_of(name: str, limit: int, error: RuleError, together: str) -> bytes:
    """The bytes of a file, `limit` at most. together: the files that belong together, as "both files". Raises `error`'s rule 1."""
    try:
        return read_regular(name, limit)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise error(1, f"{name}: {reason}", f"check the path, and that {together} are together") from problem


def values_of(data: bytes, name: str, kind: str, of: str, error: RuleError) -> dict[str, Any]:
    """The entries of a .json file, its digest checked. kind: its entry "format". of: "an ncnn network". Raises `error`'s rule 2."""
    try:
        values = checked_values(data)
    except ChangedFileError as problem:
        raise error(2, f"{name}: {problem}", "fetch it again, or export it again") from problem
    except ValueError as problem:
        raise error(2, f"{name}: {problem}", "export it again") from problem
    if values.get("format") != kind:
        raise error(2, f"{name}: not the .json file of {of}", "export it again")
    return values


@contextlib.contextmanager
def made_from(path: str) -> Iterator[None]:
    """Within it an ONNX file becomes another one as it is loaded: what that refuses becomes rule 8, and names `path` once.

    Raises ModelFileError; MissingPackageError as it came.
    """
    try:
        yield
    except MissingPackageError:
        raise
    except (InputError, ModelFileError) as error:
        known = error.given.startswith(f"{path}: ")
        raise rule_error(8, error.given if known else f"{path}: {error.given}") from error
    except GossamerError as error:
        raise rule_error(8, f"{path}: {error}") from error

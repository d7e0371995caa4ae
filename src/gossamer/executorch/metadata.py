"""The files of an ExecuTorch program that gossamer wrote: found, checked and read without a package, whatever they hold."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.errors import ModelFileError
from gossamer.modelfile.beside import bytes_of, values_of
from gossamer.modelfile.executorch import IDENTIFIER, IDENTIFIER_AT, METADATA, SUFFIX
from gossamer.modelfile.stated import Stated, is_shape, stated_of

FORMAT, VERSION = "gossamer executorch", 1
LIMITS = {SUFFIX: 2**31, METADATA: 2**30}  # bytes
RULES = {
    1: "a .pte file of ExecuTorch (ET12), with the .json file of the same name beside it",
    2: "the .json file that `gossamer export --to executorch` wrote, with the SHA-256 that it states",
    3: "a .pte file of the SHA-256 that the .json file states",
    4: f"a .json file of version {VERSION} with the input, the outputs and the metadata of FORMAT.md",
    5: "a program that the runtime runs, with the input and outputs that the .json file states",
}


@dataclass(frozen=True)
class ExecuTorchProgram:
    """What the files hold. data: of the .pte file. sha256: of the .json file, which holds that of the .pte file.

    outputs: names. shapes: of the outputs behind the batch.
    """

    data: bytes
    sha256: str
    stated: Stated
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


def executorch_error(
    rule: int, problem: str, do: str = "export it again: gossamer export FILE --to executorch"
) -> ModelFileError:
    """The error for a rule of FORMAT.md, "The ExecuTorch files", that does not hold."""
    return ModelFileError(rule, problem, RULES[rule], do)


def read_program(path: str | os.PathLike[str]) -> ExecuTorchProgram:
    """The program of a .pte file, both files checked. Raises ModelFileError, whatever they hold."""
    name = os.fspath(path)
    data = bytes_of(name, LIMITS[SUFFIX], executorch_error, "both files")
    if data[IDENTIFIER_AT : IDENTIFIER_AT + len(IDENTIFIER)] != IDENTIFIER:
        raise executorch_error(1, f"{name}: not a .pte file of ExecuTorch", "check the path")
    place = Path(path).with_suffix(METADATA) if Path(path).suffix else Path(f"{name}{METADATA}")
    metadata = bytes_of(os.fspath(place), LIMITS[METADATA], executorch_error, "both files")
    values = values_of(metadata, os.fspath(place), FORMAT, "an ExecuTorch program", executorch_error)
    if values.get("pte") != hashlib.sha256(data).hexdigest():
        raise executorch_error(
            3, f"{name}: not the file that {place.name} belongs to", "fetch both again, or export again"
        )
    try:
        return _program(values, data, hashlib.sha256(metadata).hexdigest())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise executorch_error(4, f"{place}: {type(error).__name__}: {error}") from error


def _program(values: dict[str, Any], data: bytes, sha256: str) -> ExecuTorchProgram:
    """Raises ValueError and the like, and ModelFileError for metadata that break a rule."""
    if values["version"] != VERSION:
        raise ValueError(f"version {str(values['version'])[:20]}")
    outputs = [(one["name"], one["shape"]) for one in values["outputs"]]
    if not outputs or not all(isinstance(name, str) and is_shape(shape) for name, shape in outputs):
        raise ValueError(f"outputs {str(outputs)[:80]}")
    if len({name for name, _ in outputs}) < len(outputs):
        raise ValueError("two outputs of one name")
    names, shapes = zip(*outputs, strict=True)
    return ExecuTorchProgram(data, sha256, stated_of(values), names, tuple(tuple(one) for one in shapes))

"""The target of a command: a run folder, a file or the name of a network, distinguished in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gossamer.errors import InputError, RunError
from gossamer.modelfile.compiled import is_compiled
from gossamer.run import SETTINGS

Kind = Literal["run", "model file", "compiled file", "index", "network"]

# kind -> how messages call it
KINDS: dict[Kind, str] = {
    "run": "a run folder",
    "model file": "a model file (.onnx)",
    "compiled file": "a compiled file (.goss)",
    "index": "an index (gossamer index)",
    "network": "the name of a network (gossamer list)",
}


@dataclass(frozen=True)
class ResolvedTarget:
    """A run folder, a file, or a network by its name or "timm:NAME". text: a path or the name."""

    text: str
    kind: Kind


def target_of(text: str | os.PathLike[str], allowed: tuple[Kind, ...] = tuple(KINDS)) -> ResolvedTarget:
    """Tell what `text` names; what exists on the disk goes before the name of a network.

    A file that is neither compiled nor an index counts as a model file: whoever reads it checks its contents. Raises
    InputError for what is not among the `allowed` kinds, RunError for a folder without a run, UnknownNameError with
    the nearest names for a mistyped network.
    """
    text = os.fspath(text)
    kind = _kind(text, allowed)
    if kind not in allowed:
        raise InputError(f"{text}: {KINDS[kind]}", _choices(allowed), "give one of these")
    return ResolvedTarget(text, kind)


def _kind(text: str, allowed: tuple[Kind, ...]) -> Kind:
    path = Path(text)
    if path.is_dir():
        if not (path / SETTINGS).is_file():
            raise RunError(f"{text}: a folder without {SETTINGS}", _choices(allowed), "check the path")
        return "run"
    if path.exists():
        return "compiled file" if is_compiled(path) else "index" if _is_index(path) else "model file"
    from gossamer.networks.registry import is_network_name, resolve

    if is_network_name(text):
        return "network"
    if "network" not in allowed or path.suffix or len(path.parts) != 1:
        raise InputError(f"{text}: no such file or folder", _choices(allowed), "check the path")
    resolve(text)
    return "network"


def _choices(allowed: tuple[Kind, ...]) -> str:
    *others, last = [KINDS[kind] for kind in KINDS if kind in allowed]
    return f"{', '.join(others)} or {last}" if others else last


def _is_index(path: Path) -> bool:
    from gossamer.predictions.gallery import MARK

    try:
        with path.open("rb") as file:
            return file.read(len(MARK)) == MARK
    except OSError:
        return False  # whoever reads it next says why

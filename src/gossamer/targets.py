"""The target of a command: a run folder, a file or the name of a network, distinguished in one place."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gossamer.errors import InputError, RunError
from gossamer.host.storage import check_output, open_regular
from gossamer.images.preprocess import IMAGE_SUFFIXES
from gossamer.modelfile.compiled import is_compiled
from gossamer.modelfile.executorch import is_executorch
from gossamer.modelfile.litert import is_litert
from gossamer.modelfile.ncnn import is_ncnn
from gossamer.modelfile.openvino import is_openvino
from gossamer.run import OWN, SETTINGS

TargetKind = Literal[
    "run",
    "model file",
    "compiled file",
    "LiteRT file",
    "ncnn file",
    "OpenVINO file",
    "ExecuTorch file",
    "index",
    "network",
]

# kind -> how messages call it
KINDS: dict[TargetKind, str] = {
    "run": "a run folder",
    "model file": "a model file (.onnx)",
    "compiled file": "a compiled file (.goss)",
    "LiteRT file": "a LiteRT file (.tflite)",
    "ncnn file": "an ncnn file (.param)",
    "OpenVINO file": "an OpenVINO file (.xml)",
    "ExecuTorch file": "an ExecuTorch file (.pte)",
    "index": "an index (gossamer index)",
    "network": "the name of a network (gossamer list)",
}

PACKAGE = ".mlpackage"  # a folder that Core ML reads

SUFFIXES: dict[str, TargetKind] = {
    ".onnx": "model file",
    ".goss": "compiled file",
    ".tflite": "LiteRT file",
    ".param": "ncnn file",
    ".xml": "OpenVINO file",
    ".pte": "ExecuTorch file",
}

FILES: tuple[TargetKind, ...] = (
    "model file",
    "compiled file",
    "LiteRT file",
    "ncnn file",
    "OpenVINO file",
    "ExecuTorch file",
)  # what a runtime opens

# kind of the files of one other runtime -> what tells it by its first bytes or its name
OTHERS: dict[TargetKind, Callable[[str | os.PathLike[str]], bool]] = {
    "LiteRT file": is_litert,
    "ncnn file": is_ncnn,
    "OpenVINO file": is_openvino,
    "ExecuTorch file": is_executorch,
}


COUNTED: tuple[TargetKind, ...] = ("run", "model file", "network")  # whose layers can be counted


@dataclass(frozen=True)
class ResolvedTarget:
    """A run folder, a file, or a network by its name or "timm:NAME". text: a path or the name."""

    text: str
    kind: TargetKind


def target_of(text: str | os.PathLike[str], allowed: tuple[TargetKind, ...] = tuple(KINDS)) -> ResolvedTarget:
    """Tell what `text` names; what exists on the disk goes before the name of a network.

    A file of no other kind counts as a model file: whoever reads it checks its contents. Raises InputError for what is not among the `allowed` kinds, RunError for a folder without a run, UnknownNameError with
    the nearest names for a mistyped network.
    """
    text = os.fspath(text)
    kind = _kind(text, allowed)
    if kind not in allowed:
        if kind == "model file" and Path(text).suffix.lower() != ".onnx":
            raise InputError(f"{text}: a file of another kind", _choices(allowed), "check the path")
        raise InputError(f"{text}: {KINDS[kind]}", _choices(allowed), _instead(text, kind, allowed))
    return ResolvedTarget(text, kind)


def check_result(
    path: str | os.PathLike[str], *inputs: str | os.PathLike[str], suffix: str = "", advice: str = "give another name"
) -> None:
    """Refuse, before any work, a place where a result would replace what it is made from or look like what it is not.

    suffix: of a model file that is written, one of SUFFIXES; a name with another one of them is refused, and `advice` says what
    to do. Raises InputError, also for a folder, a pipe, a device and a file of a run folder.
    """
    check_output(path, *inputs)
    place = Path(path)
    if place.name in OWN and is_there(place.parent / SETTINGS):
        raise InputError(
            f"{os.fspath(path)}: is a file of the run {place.parent}", "a file of its own", "give another name"
        )
    other = SUFFIXES.get(place.suffix.lower())
    if suffix and other and other != SUFFIXES[suffix]:
        raise InputError(
            f"{os.fspath(path)}: the name of {KINDS[other]} for {KINDS[SUFFIXES[suffix]]}", f"FILE{suffix}", advice
        )


def _instead(text: str, kind: TargetKind, allowed: tuple[TargetKind, ...]) -> str:
    """What to do with a target of another kind than those allowed."""
    if kind == "run" and "model file" in allowed:
        return f"export it: gossamer export {shlex.quote(text)} --out model.onnx"
    if kind == "network" and "run" in allowed:
        return f"train it: gossamer train DATA --net {shlex.quote(text)}"
    if kind == "model file" and "compiled file" in allowed:
        return f"compile it: gossamer compile {shlex.quote(text)} --out model.goss"
    if kind in OTHERS and "model file" in allowed:
        return "give the ONNX file that it was made from"
    if kind in FILES and "run" in allowed:
        return "give the run folder that it was exported from"
    if kind == "index" and "model file" in allowed:
        return "give the model file that made it; gossamer search takes an index"
    if kind in ("run", "model file") and "index" in allowed:
        return f"make one: gossamer index {'MODEL' if kind == 'run' else shlex.quote(text)} FOLDER --out {shlex.quote(f'{Path(text).stem}.index')}"
    return "give one of these"


def _kind(text: str, allowed: tuple[TargetKind, ...]) -> TargetKind:
    path = Path(text)
    if is_folder(path):
        if path.suffix.lower() == PACKAGE:
            what = "a Core ML package, which runs on a Mac alone"
            raise InputError(f"{text}: {what}", _choices(allowed), "give the ONNX file that it was made from")
        if not (path / SETTINGS).is_file():
            raise RunError(f"{text}: a folder without {SETTINGS}", _choices(allowed), "check the path")
        return "run"
    if is_there(path):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise InputError(f"{text}: an image", _choices(allowed), "check the order of the arguments")
        return "index" if _is_index(path) else file_kind(path)
    from gossamer.networks.registry import is_network_name, resolve

    if is_network_name(text):
        return "network"
    if "\0" in text:
        raise InputError(f"{text[:80]!r}: no path", _choices(allowed), "check the path")
    if "network" not in allowed or path.suffix or len(path.parts) != 1:
        raise InputError(f"{text}: no such file or folder", _choices(allowed), "check the path")
    resolve(text)
    return "network"


def file_kind(path: str | os.PathLike[str]) -> TargetKind:
    """Which of FILES a file is; what is none of the others counts as a model file, whose reader checks it."""
    if is_compiled(path):
        return "compiled file"
    for kind, recognised in OTHERS.items():
        if recognised(path):
            return kind
    return "model file"


def is_folder(path: Path) -> bool:
    """Whether a folder is there; a path that no file can have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long, a loop of links, a null character
        return False


def is_there(path: Path) -> bool:
    """Whether something is there; a path that no file can have is not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _choices(allowed: tuple[TargetKind, ...]) -> str:
    *others, last = [KINDS[kind] for kind in KINDS if kind in allowed]
    return f"{', '.join(others)} or {last}" if others else last


def _is_index(path: Path) -> bool:
    from gossamer.predictions.gallery import MARK

    try:
        with open_regular(path) as file:
            return file.read(len(MARK)) == MARK
    except OSError:
        return False  # whoever reads it next says why

"""The runtimes: all that the rest of the package knows of each is its row here.

A runtime is a class in a file of its own, see `gossamer.runtime.interface.FileRuntime`, and a row.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gossamer.host import machine

if TYPE_CHECKING:
    from gossamer.runtime.interface import FileRuntime, OwnFile
    from gossamer.targets import TargetKind

AUTO = "auto"  # the first of the table that is installed and runs the file


class RuntimeEntry(NamedTuple):
    """A runtime.

    module, class_name: what opens a model file, "" where only `gossamer.bench` knows how. title: its name in a sentence.
    package: what must be installed, and extra, what brings it: "" for gossamer itself. targets: the kinds of
    `gossamer.targets` that it runs. purpose: what needs it. library: a file of this package that it needs beside.
    advice: what to add to the reason why it was chosen. threads: whether it takes their number. own_class: what opens a
    file of its own kind, see `gossamer.runtime.interface.OwnFile`; "" where it has none.
    """

    module: str
    class_name: str
    title: str
    package: str
    extra: str
    targets: tuple[TargetKind, ...]
    purpose: str
    library: str = ""
    advice: str = ""
    threads: bool = True
    own_class: str = ""


# in the order in which "auto" tries them
RUNTIMES: dict[str, RuntimeEntry] = {
    "native": RuntimeEntry(
        "gossamer.runtime.native",
        "OnTheFly",
        "the native engine",
        package="numpy",
        extra="",
        targets=("model file", "compiled file"),
        purpose="compiled networks, the fastest predict and verify",
        library="libgossamer.so",
        own_class="Native",
    ),
    "onnxruntime": RuntimeEntry(
        "gossamer.runtime.ort",
        "OnnxRuntime",
        "ONNX Runtime",
        package="onnxruntime",
        extra="onnx",
        targets=("model file",),
        purpose="export, fast predict and verify, bench",
    ),
    "openvino": RuntimeEntry(
        "gossamer.openvino.runtime",
        "OpenVino",
        "OpenVINO",
        package="openvino",
        extra="openvino",
        targets=("model file", "OpenVINO file"),
        purpose="OpenVINO files (.xml): export, predict, verify, bench; its telemetry is off",
        own_class="OpenVinoFile",
    ),
    "reference": RuntimeEntry(
        "gossamer.runtime.reference",
        "Reference",
        "plain numpy",
        package="numpy",
        extra="",
        targets=("model file",),
        purpose="everything",
        advice='slow: install a faster runtime: pip install "gossamer[onnx]"',
        threads=False,
    ),
    # behind plain numpy: a model file is written anew for it
    "litert": RuntimeEntry(
        "gossamer.litert.runtime",
        "OnTheFly",
        "LiteRT",
        package="ai-edge-litert",
        extra="litert",
        targets=("model file", "LiteRT file"),
        purpose="LiteRT files (.tflite): export, predict, verify, bench",
        own_class="LiteRtFile",
    ),
    "ncnn": RuntimeEntry(
        "gossamer.ncnn.runtime",
        "OnTheFly",
        "ncnn",
        package="ncnn",
        extra="ncnn",
        targets=("model file", "ncnn file"),
        purpose="ncnn files (.param): export, predict, verify, bench",
        own_class="NcnnFile",
    ),
    "executorch": RuntimeEntry(
        "gossamer.executorch.runtime",
        "OnTheFly",
        "ExecuTorch",
        package="executorch",
        extra="executorch",
        targets=("model file", "ExecuTorch file"),
        purpose="ExecuTorch files (.pte): export, predict, verify, bench",
        own_class="ExecuTorchFile",
    ),
}


def runtime_class(name: str) -> type[FileRuntime]:
    """The class of a runtime, whose module is imported now."""
    entry = RUNTIMES[name]
    loaded: type[FileRuntime] = getattr(importlib.import_module(entry.module), entry.class_name)
    return loaded


def own_class(name: str) -> type[OwnFile]:
    """What opens a file of a runtime's own kind; its module is imported now."""
    entry = RUNTIMES[name]
    loaded: type[OwnFile] = getattr(importlib.import_module(entry.module), entry.own_class)
    return loaded


def runtimes_of(kind: TargetKind) -> list[str]:
    """The runtimes that open files of a kind, in the order of the table."""
    return [name for name, entry in RUNTIMES.items() if kind in entry.targets]


def missing(entry: RuntimeEntry) -> str:
    """Why a runtime is not installed here and what installs it; "" where it is. Nothing is imported."""
    if machine.versions([entry.package])[entry.package] is None:
        return f'{entry.package} is not installed; pip install "gossamer[{entry.extra}]"'
    if entry.library and not Path(__file__).with_name(entry.library).is_file():
        return f"{entry.title} is not built; make engine"
    return ""

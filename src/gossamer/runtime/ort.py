"""ONNX Runtime on the CPU, as a runtime of gossamer."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import MissingPackageError
from gossamer.modelfile.metadata import ModelFile, rule_error
from gossamer.predictions.head import Raw, raw_of

FATAL = 4  # ONNX Runtime's log levels run from 0 to 4; its errors come as exceptions anyway


class OnnxRuntime:
    """A session of ONNX Runtime. Safe to call from several threads."""

    def __init__(self, file: ModelFile, threads: int = 0) -> None:
        """`threads` 0 leaves the number to ONNX Runtime. Raises MissingPackageError, ModelFileError (rule 8)."""
        self.path, self.version = file.path, str(self.import_package().__version__)
        try:
            self.session = open_session(file.data, threads)
        except Exception as error:  # its exceptions have no base of their own
            raise rule_error(8, f"{file.path}: ONNX Runtime {self.version}: {_reason(error)}") from error
        self.input, self.outputs = file.onnx.input.name, file.outputs

    @staticmethod
    def import_package() -> ModuleType:
        """ONNX Runtime. Raises MissingPackageError."""
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingPackageError("onnxruntime", "onnx", "the runtime onnxruntime") from error
        return onnxruntime  # type: ignore[no-any-return]

    def __call__(self, batch: NDArray[np.float32]) -> Raw:
        """batch (N, C, H, W) -> (N, ...), by name where there are several. Raises ModelFileError (rule 8)."""
        return self.run_inputs({self.input: batch})

    def run_inputs(self, batch: Mapping[str, NDArray[np.float32]]) -> Raw:
        """As a call, with each input by its name."""
        try:
            results = self.session.run(list(self.outputs), dict(batch))
        except Exception as error:  # as above
            raise rule_error(8, f"{self.path}: ONNX Runtime {self.version}: {_reason(error)}") from error
        return raw_of(self.outputs, results)


def open_session(model: str | bytes, threads: int = 0, *, exact: bool = False, profile: str = "") -> Any:
    """A session on the CPU, of a path or the bytes of a model, with the options that every session of gossamer has.

    threads: 0 leaves the number to ONNX Runtime. exact: leave the graph as it is, so that every value can be read. profile:
    the beginning of the path of a profile, written by `session.end_profiling()`. Raises MissingPackageError, and what ONNX
    Runtime raises: its exceptions have no base of their own.
    """
    onnxruntime = OnnxRuntime.import_package()
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = FATAL
    # Without it, sums of two products of bytes saturate at 16 bits on x86 processors that lack VNNI, and a network in
    # int8 gives other outputs there than elsewhere.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def kernel_times(
    model: str | bytes, image: NDArray[np.float32], threads: int, warm: int, runs: int
) -> dict[str, list[float]]:
    """Milliseconds of each kernel in each of `runs` runs after `warm` ones, by its name in ONNX Runtime's own profile.

    image: the only input. Raises as `open_session`.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model, threads, profile=str(Path(folder) / "profile"))
        feed = {session.get_inputs()[0].name: image}
        for _ in range(warm + runs):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[str, list[float]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            times.setdefault(name.removesuffix("_kernel_time"), []).append(event["dur"] / 1e3)
    return {name: milliseconds[warm:] for name, milliseconds in times.items()}


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

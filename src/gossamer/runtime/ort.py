"""ONNX Runtime on the CPU, as a runtime of gossamer."""

from __future__ import annotations

from types import ModuleType

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
        onnxruntime = self.import_package()
        self.path, self.version = file.path, str(onnxruntime.__version__)
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        # Without it, sums of two products of bytes saturate at 16 bits on x86 processors that lack VNNI, and a network in
        # int8 gives other outputs there than elsewhere.
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self.session = onnxruntime.InferenceSession(file.data, options, providers=["CPUExecutionProvider"])
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
        try:
            results = self.session.run(list(self.outputs), {self.input: batch})
        except Exception as error:  # as above
            raise rule_error(8, f"{self.path}: ONNX Runtime {self.version}: {_reason(error)}") from error
        return raw_of(self.outputs, results)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

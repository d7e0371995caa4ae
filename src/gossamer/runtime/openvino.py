"""OpenVINO on the CPU, as a runtime of gossamer."""

from __future__ import annotations

import io
import sys
import threading
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import MissingPackageError
from gossamer.modelfile.metadata import ModelFile, rule_error
from gossamer.predictions.head import Raw, raw_of

TELEMETRY = "openvino_telemetry"


class OpenVino:
    """A model compiled by OpenVINO in float32. Safe to call from several threads; they take turns."""

    def __init__(self, file: ModelFile, threads: int = 0) -> None:
        """`threads` 0 leaves the number to OpenVINO. Raises MissingPackageError, ModelFileError (rule 8)."""
        openvino = self.import_package()
        self.path, self.version = file.path, str(openvino.__version__).split("-")[0]
        self.outputs = file.outputs
        # without the last one OpenVINO computes in bfloat16 on processors that have it
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            core = openvino.Core()
            self.compiled: Any = core.compile_model(core.read_model(io.BytesIO(file.data)), "CPU", settings)
            self.ports = [self.compiled.output(name) for name in file.outputs]
        except Exception as error:  # RuntimeError, or what its C++ side throws
            raise rule_error(8, f"{file.path}: OpenVINO {self.version}: {_reason(error)}") from error
        self.request: Any = self.compiled.create_infer_request()
        self.lock = threading.Lock()

    @staticmethod
    def import_package() -> ModuleType:
        """OpenVINO, imported without its telemetry, which would report the import over the network.

        Raises MissingPackageError.
        """
        blocked = TELEMETRY not in sys.modules
        if blocked:
            sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # importing it fails; OpenVINO then uses its stub
        try:
            import openvino
        except ImportError as error:
            raise MissingPackageError("openvino", "openvino", "the runtime openvino") from error
        finally:
            if blocked:
                del sys.modules[TELEMETRY]
        return openvino  # type: ignore[no-any-return]

    def __call__(self, batch: NDArray[np.float32]) -> Raw:
        """batch (N, C, H, W) -> (N, ...), by name where there are several. Raises ModelFileError (rule 8)."""
        try:
            with self.lock:  # a request holds one inference at a time, and its outputs until the next
                self.request.infer([batch], share_inputs=True)
                return raw_of(self.outputs, [np.array(self.request.get_tensor(port).data) for port in self.ports])
        except Exception as error:  # as above
            raise rule_error(8, f"{self.path}: OpenVINO {self.version}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The lines that say something: OpenVINO's first ones name places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Exception from" not in line]
    return " ".join(lines)[:300] or type(error).__name__

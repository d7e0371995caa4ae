"""OpenVINO on the CPU, as a runtime of gossamer."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import InputError, MissingPackageError
from gossamer.modelfile.metadata import ModelFile, ModelMetadata, rule_error
from gossamer.modelfile.stated import wrong_outputs
from gossamer.openvino.core import core_of
from gossamer.openvino.integers import REMARK, exact_settings
from gossamer.openvino.metadata import openvino_error, read_network
from gossamer.predictions.head import Raw, raw_of

TELEMETRY = "openvino_telemetry"


class OpenVino:
    """A model compiled by OpenVINO in float32, or a QDQ file in int8. Safe to call from several threads; they take turns.

    remark: what `exact_settings` changed, or "".
    """

    def __init__(self, file: ModelFile, threads: int = 0) -> None:
        """`threads` 0 leaves the number to OpenVINO. Raises MissingPackageError, ModelFileError (rule 8)."""
        openvino = self.import_package()
        self.path, self.version = file.path, str(openvino.__version__).split("-")[0]
        self.outputs = file.outputs
        try:
            core = core_of(openvino)
            model = core.read_model(io.BytesIO(file.data))
            exact = exact_settings(openvino, model)
            self.remark = REMARK if exact else ""
            self.compiled: Any = core.compile_model(model, "CPU", _settings(threads) | exact)
            self.ports = [self.compiled.output(name) for name in file.outputs]
        except Exception as error:  # RuntimeError, or what its C++ side throws
            raise rule_error(8, f"{file.path}: OpenVINO {self.version}: {reason(error)}") from error
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
        return self._run([batch])

    def run_inputs(self, batch: Mapping[str, NDArray[np.float32]]) -> Raw:
        """As a call, with each input by its name."""
        read = {name for port in self.compiled.inputs for name in port.get_names()}  # it drops those that no node reads
        return self._run({name: array for name, array in batch.items() if name in read})

    def _run(self, batch: Any) -> Raw:
        try:
            with self.lock:  # a request holds one inference at a time, and its outputs until the next
                self.request.infer(batch, share_inputs=True)
                return raw_of(self.outputs, [np.array(self.request.get_tensor(port).data) for port in self.ports])
        except Exception as error:  # as above
            raise rule_error(8, f"{self.path}: OpenVINO {self.version}: {reason(error)}") from error


class OpenVinoFile:
    """An IR that gossamer wrote, compiled in float32, or in int8 as it says. Safe to call from several threads; they take turns.

    input_shape: (None, C, H, W), or what the ONNX file had in its place; (None, H, W, C) of `pixels`, uint8. metadata: of the model file that it was made from, or None.
    sha256: of both files. remark: what `exact_settings` changed, or "".
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        """`threads` 0 leaves the number to OpenVINO. Raises MissingPackageError, ModelFileError."""
        self.path, network = os.fspath(path), read_network(path)
        openvino = OpenVino.import_package()
        self.version = str(openvino.__version__).split("-")[0]
        self.outputs, self._shapes, self.sha256 = network.outputs, network.shapes, network.sha256
        self.metadata: ModelMetadata | None = network.stated.metadata
        self.pixels, sides = network.pixels, network.stated.input
        self.input_shape: tuple[Any, ...] = (None, *sides[1:], sides[0]) if self.pixels else (None, *sides)
        if self.metadata is not None and (wrong := wrong_outputs(self.outputs, self._shapes, self.metadata)):
            raise openvino_error(6, f"{self.path}: {wrong}")
        # the bytes that were checked, not what may have replaced them since; OpenVINO keeps no copy of the weights
        self._weights = np.frombuffer(network.weights, np.uint8).copy()  # which it asks to be writable
        try:
            core = core_of(openvino)
            model = core.read_model(network.xml, openvino.Tensor(self._weights, shared_memory=True))
            exact = exact_settings(openvino, model)
            self.remark = REMARK if exact else ""
            self._compiled: Any = core.compile_model(model, "CPU", _settings(threads) | exact)
            self._ports = [self._compiled.output(name) for name in self.outputs]
            self._request: Any = self._compiled.create_infer_request()
        except Exception as error:  # RuntimeError, or what its C++ side throws
            raise openvino_error(6, f"{self.path}: OpenVINO {self.version}: {reason(error)}") from error
        self._lock = threading.Lock()

    def __call__(self, batch: NDArray[Any]) -> Raw:
        """batch (N, C, H, W), or uint8 (N, H, W, C) -> (N, ...), by name where there are several. Raises InputError, ModelFileError (rule 6)."""
        expected, kind = self.input_shape[1:], np.dtype(np.uint8 if self.pixels else np.float32)
        if batch.dtype != kind or batch.shape[1:] != expected:
            raise InputError(
                f"{self.path}: an input of {batch.dtype} {batch.shape}", f"{kind} (any, {expected})", "convert"
            )
        try:
            with self._lock:
                self._request.infer([batch], share_inputs=True)
                arrays = [np.array(self._request.get_tensor(port).data) for port in self._ports]
        except Exception as error:  # as above
            raise openvino_error(6, f"{self.path}: OpenVINO {self.version}: {reason(error)}") from error
        for name, array, sides in zip(self.outputs, arrays, self._shapes, strict=True):
            if array.shape != (len(batch), *sides):
                raise openvino_error(6, f"{self.path}: an output {name!r} of {array.shape}")
        return raw_of(self.outputs, arrays)


def _settings(threads: int) -> dict[str, str]:
    """Of a compiled model. Without the second one OpenVINO computes in bfloat16 on processors that have it."""
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return settings | ({"INFERENCE_NUM_THREADS": str(threads)} if threads else {})


def reason(error: Exception) -> str:
    """The lines that say something: OpenVINO's first ones name places in its source. Where it lists operators, the first that
    failed by itself, not for want of the shape that another one had to give."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Exception from" not in line]
    operator, said = "", ""
    for line in [*lines, "Summary:"]:
        if (line.startswith("-- ") and line.endswith(" with a message:")) or line == "Summary:":
            if operator and "rank has to be known" not in said:
                return f"{operator}: {said}"[:300]
            operator = line.removeprefix("-- ").split(" ")[0].partition("-")[0]
        else:
            said = line
    return " ".join(lines)[:300] or type(error).__name__

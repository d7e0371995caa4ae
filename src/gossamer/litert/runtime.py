"""LiteRT's interpreter on the CPU, with XNNPACK, as a runtime of gossamer."""

from __future__ import annotations

import math
import os
import threading
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import InputError, MissingPackageError
from gossamer.host.machine import usable_cores
from gossamer.host.notices import without_notices
from gossamer.litert.metadata import Stated, litert_error, read_bytes, read_metadata
from gossamer.litert.write import litert_bytes
from gossamer.modelfile.beside import made_from
from gossamer.modelfile.metadata import CHECKED, ModelFile, ModelMetadata
from gossamer.predictions.head import Raw, raw_of

PACKAGE = "ai-edge-litert"
NOTICE = b"INFO: "


class LiteRtFile:
    """A .tflite file that gossamer wrote, open. It runs images one by one. Safe to call from several threads; they take turns.

    input_shape: (None, C, H, W), or what the ONNX file had in its place. metadata: of the model file that it was made from, or None.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        """`threads` 0 takes the usable cores. Raises ModelFileError, MissingPackageError."""
        data = read_bytes(path)
        self._open(data, read_metadata(data, os.fspath(path)), os.fspath(path), threads)

    def _open(self, data: bytes, stated: Stated, path: str, threads: int) -> None:
        self.path, self.stated, self.threads = path, stated, threads or usable_cores()
        interpreter_class = self.import_package()
        self.version = version(PACKAGE)
        self.metadata: ModelMetadata | None = stated.metadata
        self.input_shape: tuple[Any, ...] = (None, *stated.input)
        self._lock = threading.Lock()
        try:
            with without_notices(NOTICE):  # of its delegate, and there is no setting against it
                self._interpreter = interpreter_class(model_content=data, num_threads=self.threads)
                self._interpreter.allocate_tensors()
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        except Exception as error:  # ValueError, RuntimeError, or what its C++ side throws
            raise litert_error(6, f"{path}: LiteRT {self.version}: {_reason(error)}") from error
        sides = (*stated.input[1:], stated.input[0]) if stated.channels_last else stated.input
        shapes = [tuple(int(side) for side in one["shape"]) for one in (*inputs, *outputs)]
        floats = all(one["dtype"] == np.float32 for one in (*inputs, *outputs))
        if len(inputs) != 1 or not outputs or shapes[0] != (1, *sides) or not floats:
            raise litert_error(6, f"{path}: an input of {shapes[:1]} where its metadata state {(1, *sides)}")
        self._input, self._outputs = inputs[0]["index"], [one["index"] for one in outputs]
        self.outputs = tuple(str(one["name"]) for one in outputs)
        self._shapes = shapes[1:]
        if stated.metadata is not None:
            self._check_outputs(stated.metadata)

    def _check_outputs(self, metadata: ModelMetadata) -> None:
        """Raises ModelFileError where the heads read other outputs than there are."""
        names = self.outputs[:1] if metadata.format == 1 else metadata.outputs
        shapes = dict(zip(self.outputs, self._shapes))
        counts = [math.prod(shapes.get(name, (0,))[1:]) for name in names]
        wanted = sum(min(count, CHECKED) if metadata.format > 1 else count for count in counts)
        if set(names) != set(self.outputs) or wanted != len(metadata.checks[0].outputs):
            raise litert_error(
                6, f"{self.path}: outputs {', '.join(self.outputs)[:200]} of other sizes than its heads read"
            )

    @staticmethod
    def import_package() -> Any:
        """LiteRT's interpreter class. Raises MissingPackageError."""
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingPackageError(PACKAGE, "litert", "the runtime litert") from error
        return Interpreter

    def __call__(self, batch: NDArray[np.float32]) -> Raw:
        """batch (N, C, H, W) -> (N, ...), by name where there are several. Raises ModelFileError (rule 6)."""
        expected = self.input_shape[1:]
        if batch.dtype != np.float32 or batch.shape[1:] != expected:
            raise InputError(
                f"{self.path}: an input of {batch.dtype} {batch.shape}", f"float32 (any, {expected})", "convert"
            )
        if self.stated.channels_last:
            batch = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
        arrays = [np.empty((len(batch), *shape[1:]), np.float32) for shape in self._shapes]
        try:
            with self._lock:
                for place in range(len(batch)):
                    self._interpreter.set_tensor(self._input, batch[place : place + 1])
                    self._interpreter.invoke()
                    for array, index in zip(arrays, self._outputs):
                        array[place] = self._interpreter.get_tensor(index)[0]
        except Exception as error:  # as above
            raise litert_error(6, f"{self.path}: LiteRT {self.version}: {_reason(error)}") from error
        return raw_of(self.outputs, arrays)


class OnTheFly(LiteRtFile):
    """An ONNX file on LiteRT, written as a .tflite file in memory as it is loaded."""

    def __init__(self, file: ModelFile, threads: int = 0) -> None:
        """Raises MissingPackageError, ModelFileError (rule 8) where LiteRT or the compile step lacks an operator."""
        self.import_package()  # before the work
        with made_from(file.path):
            data = litert_bytes(file)
            self._open(data, read_metadata(data, file.path), file.path, threads)


def _reason(error: Exception) -> str:
    """Its first lines, in one."""
    return " ".join(str(error).split())[:300] or type(error).__name__

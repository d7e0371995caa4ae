"""ncnn on the CPU in float32, as a runtime of gossamer."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import InputError, MissingPackageError
from gossamer.host.machine import usable_cores
from gossamer.modelfile.beside import made_from
from gossamer.modelfile.metadata import ModelFile, ModelMetadata
from gossamer.modelfile.ncnn import METADATA, SUFFIX, WEIGHTS
from gossamer.modelfile.stated import wrong_outputs
from gossamer.ncnn.metadata import ncnn_error, read_network
from gossamer.ncnn.write import NcnnFiles, ncnn_files
from gossamer.predictions.head import Raw, raw_of

# each would round weights or maps to 16 bits or fewer, or compute on a GPU
OFF = (
    *("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_bf16_packed"),
    *("use_int8_storage", "use_int8_packed", "use_int8_arithmetic", "use_int8_inference", "use_vulkan_compute"),
)


class NcnnFile:
    """The network of a .param file that gossamer wrote, open. It runs images one by one. Safe to call from several threads; they take turns.

    input_shape: (None, C, H, W), or what the ONNX file had in its place. metadata: of the model file that it was made from, or None.
    sha256: of the .json file, which holds those of the two others.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        """`threads` 0 takes the usable cores. Raises ModelFileError, MissingPackageError."""
        self._open(Path(path), os.fspath(path), threads)

    def _open(self, place: Path, path: str, threads: int) -> None:
        """`path`: how messages call it."""
        network = read_network(place)
        self.path, self.threads = path, threads or usable_cores()
        self.metadata: ModelMetadata | None = network.stated.metadata
        self.input_shape: tuple[Any, ...] = (None, *network.stated.input)
        self.sha256, self.network = network.sha256, network
        self.outputs = tuple(one.name for one in network.outputs)
        if self.metadata is not None:
            wrong = wrong_outputs(self.outputs, [one.shape for one in network.outputs], self.metadata)
            if wrong:
                raise ncnn_error(6, f"{path}: {wrong}")
        for one in network.outputs:
            if one.made != one.shape:
                raise ncnn_error(6, f"{path}: an output {one.name!r} of {one.made}, not {one.shape}")
        ncnn = self.import_package()
        self.version, self._mat, self._lock = str(ncnn.__version__), ncnn.Mat, threading.Lock()
        self._net = ncnn.Net()
        for option in OFF:
            if hasattr(self._net.opt, option):  # older versions have fewer
                setattr(self._net.opt, option, False)
        self._net.opt.num_threads = self.threads
        # the text that was checked, not what may have replaced it since
        if self._net.load_param_mem(network.param) != 0 or self._net.load_model(os.fspath(network.weights)) != 0:
            raise ncnn_error(6, f"{path}: ncnn {self.version} cannot load it")

    @staticmethod
    def import_package() -> ModuleType:
        """ncnn. Raises MissingPackageError."""
        try:
            import ncnn
        except ImportError as error:
            raise MissingPackageError("ncnn", "ncnn", "the runtime ncnn") from error
        return ncnn  # type: ignore[no-any-return]

    def __call__(self, batch: NDArray[np.float32]) -> Raw:
        """batch (N, C, H, W) -> (N, ...), by name where there are several. Raises InputError, ModelFileError (rule 6)."""
        expected = self.input_shape[1:]
        if batch.dtype != np.float32 or batch.shape[1:] != expected:
            raise InputError(
                f"{self.path}: an input of {batch.dtype} {batch.shape}", f"float32 (any, {expected})", "convert"
            )
        arrays = [np.empty((len(batch), *one.shape), np.float32) for one in self.network.outputs]
        with self._lock:
            for place in range(len(batch)):
                self._run(np.ascontiguousarray(batch[place]), [array[place] for array in arrays])
        return raw_of(self.outputs, arrays)

    def _run(self, image: NDArray[np.float32], arrays: list[NDArray[np.float32]]) -> None:
        """One image's outputs into arrays."""
        extractor = self._net.create_extractor()
        extractor.input(
            self.network.input_blob, self._mat(image).clone()
        )  # in memory of ncnn, where a first layer may write
        for one, array in zip(self.network.outputs, arrays, strict=True):
            code, mat = extractor.extract(one.blob)
            values = np.asarray(mat) if code == 0 else np.empty(0, np.float32)
            if values.size != array.size or values.dtype != np.float32:
                raise ncnn_error(6, f"{self.path}: ncnn {self.version}: an output {one.name!r} of {values.shape}")
            array[...] = values.reshape(array.shape)


class OnTheFly(NcnnFile):
    """An ONNX file on ncnn, written as the files of a network in a temporary folder as it is loaded."""

    def __init__(self, file: ModelFile, threads: int = 0) -> None:
        """Raises MissingPackageError, ModelFileError (rule 8) where ncnn or the compile step lacks an operator."""
        self.import_package()  # before the work
        with made_from(file.path), tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / f"model{SUFFIX}"
            write_files(place, ncnn_files(file))
            self._open(place, file.path, threads)


def write_files(place: Path, files: NcnnFiles) -> None:
    """The three files in a folder of one's own."""
    place.write_bytes(files.param)
    place.with_suffix(WEIGHTS).write_bytes(files.bin)
    place.with_suffix(METADATA).write_bytes(files.json)

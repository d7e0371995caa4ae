"""ExecuTorch on the CPU with XNNPACK, as a runtime of gossamer."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import InputError
from gossamer.executorch.metadata import executorch_error, read_program
from gossamer.executorch.package import import_runtime, import_threadpool, package_version, quiet
from gossamer.executorch.write import ExecuTorchFiles, executorch_files
from gossamer.host.machine import usable_cores
from gossamer.host.text import thread_count
from gossamer.modelfile.beside import made_from
from gossamer.modelfile.executorch import METADATA, SUFFIX
from gossamer.modelfile.metadata import ModelFile, ModelMetadata
from gossamer.modelfile.stated import wrong_outputs
from gossamer.predictions.head import Raw, raw_of

METHOD = "forward"
_threads = threading.Lock()
_open: weakref.WeakSet[ExecuTorchFile] = weakref.WeakSet()  # they hold the process's one pool of threads


class ExecuTorchFile:
    """A .pte file that gossamer wrote, open. It runs images one by one. Safe to call from several threads; they take turns.

    input_shape: (None, C, H, W), or what the ONNX file had in its place. metadata: of the model file that it was made from, or None.
    sha256: of the .json file, which holds that of the .pte file.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        """`threads` 0 takes the usable cores, or the number of the files that are open.

        Raises ModelFileError, MissingPackageError, InputError where files with another number are open.
        """
        self._load(Path(path), os.fspath(path), threads)

    def _load(self, place: Path, path: str, threads: int) -> None:
        """`path`: how messages call it."""
        program = read_program(place)
        self.path, self.metadata, self.sha256 = path, program.stated.metadata, program.sha256
        self.input_shape: tuple[Any, ...] = (None, *program.stated.input)
        self.outputs, self._shapes = program.outputs, program.shapes
        if isinstance(self.metadata, ModelMetadata):
            wrong = wrong_outputs(self.outputs, self._shapes, self.metadata)
            if wrong:
                raise executorch_error(5, f"{path}: {wrong}")
        package = self.import_package()
        self.version, self._lock = package_version(), threading.Lock()
        self.threads = _set_threads(self, threads)
        try:
            with quiet():
                check = package.Verification.InternalConsistency
                self._program = package.Runtime.get().load_program(program.data, verification=check)
                if METHOD not in self._program.method_names:
                    raise ValueError(f"no method {METHOD!r}")
                self._method = self._program.load_method(METHOD)
            meta = self._method.metadata
            inputs = [meta.input_tensor_meta(number) for number in range(meta.num_inputs())]
            outputs = [meta.output_tensor_meta(number) for number in range(meta.num_outputs())]
        except Exception as error:  # RuntimeError, or what its C++ side throws
            raise executorch_error(5, f"{path}: ExecuTorch {self.version}: {_reason(error)}") from error
        import torch

        kinds = {int(one.dtype()) for one in (*inputs, *outputs)}
        sides = [tuple(one.sizes()) for one in (*inputs, *outputs)]
        floats = {6}  # the number of float32 among torch's types
        if sides != [(1, *one) for one in (program.stated.input, *self._shapes)] or len(inputs) != 1 or kinds != floats:
            raise executorch_error(5, f"{path}: an input or outputs of {str(sides)[:200]}, not those stated")
        self._torch, self._ran = torch, False

    @staticmethod
    def import_package() -> ModuleType:
        """ExecuTorch's runtime. Raises MissingPackageError."""
        return import_runtime()

    def __call__(self, batch: NDArray[np.float32]) -> Raw:
        """batch (N, C, H, W) -> (N, ...), by name where there are several. Raises InputError, ModelFileError (rule 5)."""
        expected = self.input_shape[1:]
        if batch.dtype != np.float32 or batch.shape[1:] != expected:
            raise InputError(
                f"{self.path}: an input of {batch.dtype} {batch.shape}", f"float32 (any, {expected})", "convert"
            )
        arrays = [np.empty((len(batch), *shape), np.float32) for shape in self._shapes]
        images = np.require(batch, requirements=["C", "W"])  # torch warns of arrays that it might not write
        try:
            # the first run tells on standard error what it does not know of the processor
            with self._lock, contextlib.nullcontext() if self._ran else quiet():
                self._ran = True
                for place in range(len(batch)):
                    made = self._method.execute([self._torch.from_numpy(images[place : place + 1])])
                    for array, one in zip(arrays, made, strict=True):
                        array[place] = one[0].numpy()
        except Exception as error:  # as above
            raise executorch_error(5, f"{self.path}: ExecuTorch {self.version}: {_reason(error)}") from error
        return raw_of(self.outputs, arrays)


class OnTheFly(ExecuTorchFile):
    """An ONNX file on ExecuTorch, written as its files in a temporary folder as it is loaded."""

    def __init__(self, file: ModelFile, threads: int = 0) -> None:
        """Raises MissingPackageError, ModelFileError (rule 8) where ExecuTorch or the compile step lacks an operator."""
        self.import_package()  # before the work
        with made_from(file.path), tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / f"model{SUFFIX}"
            write_files(place, executorch_files(file))
            self._load(place, file.path, threads)


def write_files(place: Path, files: ExecuTorchFiles) -> None:
    """Both files in a folder of one's own."""
    place.write_bytes(files.pte)
    place.with_suffix(METADATA).write_bytes(files.json)


def _set_threads(file: ExecuTorchFile, threads: int) -> int:
    """The number of threads of the process's one pool, set while no other file is open: its programs hold the pool.

    Raises InputError where another number is asked for then.
    """
    pool = import_threadpool()
    with _threads, quiet():
        now = int(pool._threadpool_get_thread_count())
        if len(_open):
            if threads not in (0, now):
                what = f"{thread_count(threads)} where an ExecuTorch file is open with {now}"
                raise InputError(what, f"{thread_count(now)}, or 0", "close the other, or take another process")
        elif now != (threads or usable_cores()):
            now = threads or usable_cores()
            pool._unsafe_reset_threadpool(now)
        _open.add(file)
        return now


def _reason(error: Exception) -> str:
    """Its first lines, in one."""
    return " ".join(str(error).split())[:300] or type(error).__name__

"""What every runtime is to the rest: a loaded graph that takes and returns arrays."""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gossamer.modelfile.metadata import ModelFile, ModelMetadata
from gossamer.predictions.head import Raw


class Runtime(Protocol):
    """A loaded graph: batch (N, C, H, W) -> (N, ...), by name where there are several outputs."""

    version: str

    def __call__(self, batch: NDArray[np.float32]) -> Raw: ...


class FileRuntime(Runtime, Protocol):
    """A runtime that loads model files: a row of `gossamer.runtime.table`."""

    def __init__(self, file: ModelFile, threads: int = 0) -> None:
        """Load the graph; threads 0 leaves the number to the runtime. Raises MissingPackageError, ModelFileError."""

    @staticmethod
    def import_package() -> Any:
        """Import the package that it needs, if any. Raises MissingPackageError."""


class OwnFile(Runtime, Protocol):
    """A runtime that opens a file of its own kind by its path, such as a compiled one: `own_class` of the table.

    metadata: of the file, or None. input_shape: (None, C, H, W), or what the ONNX file had in its place. One of several files
    has `sha256` as well, a digest of them all.
    """

    metadata: ModelMetadata | None
    input_shape: tuple[Any, ...]

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        """Open the file; threads 0 leaves the number to the runtime. Raises MissingPackageError, ModelFileError."""

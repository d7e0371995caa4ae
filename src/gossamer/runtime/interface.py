"""What every runtime is to the rest: a loaded graph that takes and returns arrays."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gossamer.modelfile.metadata import ModelFile
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

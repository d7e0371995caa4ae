"""What every runtime is to the rest: a loaded graph that takes and returns arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gossamer.modelfile.metadata import ModelFile, ModelMetadata
from gossamer.predictions.head import Raw

Batch = NDArray[np.float32] | Mapping[str, NDArray[np.float32]]
"""What a network reads: one array, or several by the names of its inputs; the first axis of each is the batch."""

Shape = tuple[int | str | None, ...]


def one_by_one(batch: Batch) -> Iterator[Batch]:
    """Each image of a batch, with a batch axis of 1."""
    if not isinstance(batch, Mapping):
        yield from (one[None] for one in batch)
        return
    for index in range(len(next(iter(batch.values())))):
        yield {name: array[index : index + 1] for name, array in batch.items()}


def noise(shapes: Mapping[str, Shape], count: int, usual: tuple[int, ...] = ()) -> Batch:
    """Normally distributed numbers for `count` images, of one seed: an array for one input, else by name.

    usual: the sides behind the batch in place of those that a shape leaves open, else 1.
    """
    random, arrays = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        open_sides = usual if len(usual) == len(shape) - 1 else (1,) * (len(shape) - 1)
        sides = [count]
        for side, other in zip(shape[1:], open_sides, strict=True):
            sides.append(side if isinstance(side, int) else other)
        arrays[name] = random.standard_normal(sides, dtype=np.float32)
    return arrays if len(arrays) > 1 else next(iter(arrays.values()))


class Runtime(Protocol):
    """A loaded graph: batch (N, C, H, W) -> (N, ...), by name where there are several outputs."""

    version: str

    def __call__(self, batch: NDArray[np.float32]) -> Raw: ...


@runtime_checkable
class SeveralInputs(Protocol):
    """A runtime that runs networks of several inputs too."""

    def run_inputs(self, batch: Mapping[str, NDArray[np.float32]]) -> Raw:
        """An array (N, ...) by the name of each input -> as `Runtime`."""


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

"""A loaded model: which runtime runs it and why, arrays in, arrays out, images in, class names out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from gossamer import modelfile
from gossamer.errors import InputError, MissingPackageError, ModelFileError, UnknownNameError, VerificationError
from gossamer.images import Source
from gossamer.modelfile import Card, ModelFile
from gossamer.runtime import native, openvino, ort, reference
from gossamer.runtime.prediction import Prediction, check_top, rank, source_name


class Runtime(Protocol):
    """What runs a graph: batch (N, C, H, W) -> (N, K), or a dict by name where it has several outputs; and its version."""

    version: str

    def __init__(self, file: ModelFile, threads: int = 0) -> None: ...

    def __call__(self, batch: NDArray[np.float32]) -> native.Answer: ...


AUTO, REFERENCE, NATIVE = "auto", "reference", "native"
# in the order in which "auto" tries them: name -> (what opens a file, what it is, advice)
RUNTIMES: dict[str, tuple[type[Runtime], str, str]] = {
    NATIVE: (native.OnTheFly, "the native engine", ""),
    "onnxruntime": (ort.OnnxRuntime, "ONNX Runtime", ""),
    "openvino": (openvino.OpenVino, "OpenVINO", ""),
    REFERENCE: (reference.Reference, "plain numpy", f"; slow: {reference.FASTER}"),
}


class Model:
    """A model file, ready to run. `load` makes one.

    path: the file. card: what belongs to the network, None for a plain ONNX file. runtime_name, runtime_version: what
    runs it. why: one line saying why that runtime. input_shape: (N, C, H, W) with None or a name where it is free.
    outputs: their names.
    """

    def __init__(
        self,
        path: str,
        card: Card | None,
        sha256: str,
        opset: int,
        input_shape: tuple[int | str | None, ...],
        outputs: tuple[str, ...],
        runtime_name: str,
        runtime: Runtime,
        why: str,
    ) -> None:
        self.path, self.card, self.sha256, self.opset = path, card, sha256, opset
        self.input_shape, self.outputs = input_shape, outputs
        self.runtime_name, self.runtime_version, self.why = runtime_name, runtime.version, why
        self._runtime = runtime

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output float32 (N, K) of a normalised batch float32 (N, C, H, W).

        Raises InputError for another type or shape and for a network of several outputs, ModelFileError where the
        runtime gives up.
        """
        if len(self.outputs) > 1:
            raise InputError(f"{self.path}: run() of {len(self.outputs)} outputs", "one output", "use run_all()")
        return self.run_all(batch)[self.outputs[0]]

    def run_all(self, batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """All outputs float32 (N, ...) by name. Raises as `run`, but for several outputs."""
        expected = self.input_shape
        fits = (
            isinstance(batch, np.ndarray) and batch.dtype == np.float32 and batch.ndim == len(expected) and batch.size
        )
        if not fits or any(isinstance(side, int) and side != given for side, given in zip(expected, batch.shape)):
            given = f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else type(batch).__name__
            wanted = ", ".join(str(side) if isinstance(side, int) else "any" for side in expected)
            raise InputError(f"{self.path}: an input of {given}", f"a float32 array ({wanted})", "convert the input")
        found = self._runtime(np.ascontiguousarray(batch))
        return found if isinstance(found, dict) else {self.outputs[0]: found}

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str or bytes is a Sequence too, but one image here
        self, sources: Source, *, top: int = 1, batch: int = 32
    ) -> Prediction: ...

    @overload
    def predict(self, sources: Sequence[Source], *, top: int = 1, batch: int = 32) -> list[Prediction]: ...

    def predict(
        self, sources: Source | Sequence[Source], *, top: int = 1, batch: int = 32
    ) -> Prediction | list[Prediction]:
        """The `top` likeliest classes of an image (path, bytes, Pillow image or uint8 (H, W, C)), or of a list of them.

        `batch` images run at a time. Raises ImageError, ModelFileError for a file without a card, InputError,
        VerificationError where the network answers NaN or infinity.
        """
        if isinstance(sources, (list, tuple)):
            return self._predict(sources, top, batch)
        return self._predict([sources], top, batch)[0]  # type: ignore[list-item]  # a Sequence that is one image: bytes

    def need_card(self) -> Card:
        """The card. Raises ModelFileError for a plain ONNX file."""
        if self.card is None:
            raise modelfile.broken(
                9,
                f"{self.path}: a plain ONNX file: it does not say how images become its input, nor its classes",
                "use run() with normalised arrays, or `gossamer export` a run",
            )
        return self.card

    def _predict(self, sources: Sequence[Source], top: int, batch: int) -> list[Prediction]:
        card = self.need_card()
        check_top(top, batch)
        results = []
        for start in range(0, len(sources), batch):
            part = sources[start : start + batch]
            outputs = self.run(card.preprocess.normalise(np.stack([card.preprocess.pixels(one) for one in part])))
            results += [rank(source_name(one), output, card.classes, top) for one, output in zip(part, outputs)]
        for result in results:
            if result.error:
                raise VerificationError(f"{self.path}: {result.source}: {result.error}")
        return results


def load(path: str | os.PathLike[str], *, runtime: str = AUTO, threads: int = 0) -> Model:
    """Open a model file with a runtime: "auto", "native", "onnxruntime", "openvino" or "reference".

    "auto" takes the native engine where it is built and has the file's operators, else the first of the others that is
    installed and runs the file; `Model.why` says which and why. threads: 0 leaves the number to the runtime.
    Raises ModelFileError, MissingPackageError, UnknownNameError.
    """
    if runtime not in (AUTO, *RUNTIMES):
        raise UnknownNameError("runtime", runtime, (AUTO, *RUNTIMES))
    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= 4096:
        raise InputError(f"threads {threads!r}", "0 (the runtime decides) to 4096", "give such a number")
    compiled = native.is_compiled(path)
    if compiled and runtime in (AUTO, NATIVE):
        return _compiled(os.fspath(path), threads)
    if compiled:
        raise InputError(f"{path} with the runtime {runtime}", "a compiled network with native", "leave --runtime out")
    return open_model(modelfile.read(path), runtime, threads)


def open_model(file: ModelFile, runtime: str, threads: int = 0) -> Model:
    """A model of a file that has been read. Raises ModelFileError, MissingPackageError."""
    if runtime != AUTO:
        return _model(file, runtime, threads, "asked for")
    passed: list[str] = []
    refused: ModelFileError | None = None
    for name in RUNTIMES:
        try:
            return _model(file, name, threads, "; ".join(["chosen by auto", *passed]))
        except MissingPackageError:
            passed.append(f"{name} is not installed")
        except ModelFileError as error:
            refused = refused or error
            passed.append(f"{name} cannot run it: {error.given}")
    assert refused is not None, "the reference runtime is always installed"
    raise refused


def _model(file: ModelFile, name: str, threads: int, reason: str) -> Model:
    open_with, title, advice = RUNTIMES[name]
    runtime = open_with(file, threads)
    why = f"{title} {runtime.version}, {reason}{advice}"
    onnx, outputs = file.onnx, tuple(output.name for output in file.onnx.outputs)
    return Model(file.path, file.card, file.sha256, onnx.opset, onnx.input.shape or (), outputs, name, runtime, why)


def _compiled(path: str, threads: int) -> Model:
    """A compiled network, which only the native engine runs. Raises ModelFileError, MissingPackageError."""
    engine = native.Native(path, threads)
    why = f"the native engine, {engine.isa}, {engine.threads} threads: it alone runs compiled networks"
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    outputs = tuple(output.name for output in engine.outputs)
    return Model(path, engine.card, digest, 0, engine.input_shape, outputs, NATIVE, engine, why)

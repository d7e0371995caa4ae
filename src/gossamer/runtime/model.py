"""A loaded model: which runtime runs it and why, arrays in, arrays out, images in, class names out."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import InputError, MissingPackageError, ModelFileError, UnknownNameError, VerificationError
from gossamer.host.storage import open_descriptor
from gossamer.host.text import counted, thread_count
from gossamer.images.preprocess import ImageSource, Placement
from gossamer.modelfile.metadata import ModelFile, ModelMetadata, read_model_file, rule_error
from gossamer.predictions.classes import check_top, source_name
from gossamer.predictions.head import Raw, image_outputs
from gossamer.predictions.limits import OWN, DecodingLimits
from gossamer.predictions.postprocess import Prediction, postprocess
from gossamer.runtime.interface import Batch, Runtime, SeveralInputs, Shape
from gossamer.runtime.table import AUTO, RUNTIMES, own_class, runtime_class, runtimes_of
from gossamer.targets import KINDS, TargetKind, file_kind

REFERENCE = "reference"  # the runtime that is the oracle of the others


class Model:
    """A model file, ready to run. `load` returns one.

    path: the file; kind: which of `gossamer.targets` it is. metadata: None for a plain ONNX file, or one of another kind that was
    made from it. runtime_name, runtime_version: what runs it. why: one line saying why that runtime. input_shape: (N, C, H, W) with None or a name where it is free, () where
    there are several inputs. input_shapes: of each input by its name.
    pixels: the file has the preprocessing inside, so that `run` takes uint8 (N, H, W, C), as `input_shape` then is. remark: what the
    runtime does otherwise than its usual way, or "".
    """

    def __init__(
        self,
        path: str,
        metadata: ModelMetadata | None,
        sha256: str | Callable[[], str],
        opset: int,
        input_shape: tuple[int | str | None, ...],
        runtime_name: str,
        runtime: Runtime,
        why: str,
        kind: TargetKind = "model file",
        input_shapes: dict[str, Shape] | None = None,
    ) -> None:
        self.path, self.metadata, self._sha256, self.opset = path, metadata, sha256, opset
        self.input_shape = input_shape if len(input_shapes or {}) < 2 else ()
        self.input_shapes = input_shapes or {"": input_shape}
        self.runtime_name, self.runtime_version, self.why = runtime_name, runtime.version, why
        self._runtime, self.kind = runtime, kind
        self.pixels: bool = getattr(runtime, "pixels", False)
        self.remark: str = getattr(runtime, "remark", "")
        self.why += f"; {self.remark}" if self.remark else ""

    def __repr__(self) -> str:
        plain = "plain ONNX" if self.kind == "model file" else f"{self.kind} without metadata"
        kinds = plain if self.metadata is None else ", ".join(head.kind for head in self.metadata.heads)
        given = f"input {self.input_shape}" if len(self.input_shapes) == 1 else f"inputs {self.input_shapes}"
        return f"Model({self.path!r}, {kinds}, {given}, runtime {self.runtime_name})"

    @property
    def sha256(self) -> str:
        """Of the file's bytes; of a compiled network, which its own checksum guards, computed at the first use."""
        if not isinstance(self._sha256, str):
            self._sha256 = self._sha256()
        return self._sha256

    def prepare(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """What `run` takes for pixels uint8 (N, H, W, C): normalised, or themselves where the file has that inside.

        Raises ModelFileError for a file without metadata, ImageError.
        """
        preprocess = self.need_metadata().preprocess
        return pixels if self.pixels else preprocess.normalise(pixels)

    def run(self, batch: Batch | NDArray[np.uint8]) -> Raw:
        """Outputs float32 (N, ...) of a normalised batch float32 (N, C, H, W), or of `pixels`: an array, or several by their names.

        A network of several inputs takes an array for each by its name.
        Raises InputError for another type or shape, ModelFileError where the runtime gives up.
        """
        if len(self.input_shapes) > 1:
            return self._run_several(batch)
        return self._runtime(self._checked("", batch, self.input_shape))

    def _run_several(self, batch: Any) -> Raw:
        names = list(self.input_shapes)
        if not isinstance(batch, Mapping) or set(batch) != set(names):
            given = f"inputs {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
            wanted = f"a float32 array for each of {', '.join(names)}"
            raise InputError(f"{self.path}: {given[:200]}", wanted, "give a dict of arrays by these names")
        arrays = {name: self._checked(f" {name!r}", batch[name], self.input_shapes[name]) for name in names}
        counts = {len(array) for array in arrays.values()}
        if len(counts) > 1:
            shown = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
            raise InputError(f"{self.path}: batches of {shown}", "one batch for all inputs", "give as many of each")
        assert isinstance(self._runtime, SeveralInputs), "others were refused as the file was opened"
        return self._runtime.run_inputs(arrays)

    def _checked(self, name: str, array: Any, expected: Shape) -> NDArray[Any]:
        kind = np.dtype(np.uint8 if self.pixels else np.float32)
        fits = isinstance(array, np.ndarray) and array.dtype == kind and array.ndim == len(expected) and array.size
        if not fits or any(isinstance(side, int) and side != actual for side, actual in zip(expected, array.shape)):
            actual = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            wanted = ", ".join(str(side) if isinstance(side, int) else "any" for side in expected)
            what = f"{self.path}: an input{name} of {actual}"
            raise InputError(what, f"a {kind} array ({wanted})", "convert the input")
        return np.ascontiguousarray(array)

    @overload
    def predict(
        self,
        sources: ImageSource,
        *,
        top: int = ...,
        batch: int = ...,
        threshold: float | None = ...,
        iou: float | None = ...,
        max_boxes: int | None = ...,
    ) -> Any: ...

    @overload
    def predict(
        self,
        sources: Sequence[ImageSource],
        *,
        top: int = ...,
        batch: int = ...,
        threshold: float | None = ...,
        iou: float | None = ...,
        max_boxes: int | None = ...,
    ) -> list[Any]: ...

    def predict(
        self,
        sources: ImageSource | Sequence[ImageSource],
        *,
        top: int = 1,
        batch: int = 32,
        threshold: float | None = None,
        iou: float | None = None,
        max_boxes: int | None = None,
    ) -> Any:
        """The prediction for an image (path, bytes, Pillow image or uint8 (H, W, C)), or a list of them for a list.

        A `Classification` with the `top` likeliest classes of a classifier, `Detections` with boxes in pixels of the image,
        a `Mask` of its size, an `Embedding`, `LabelScores`, `Numbers`, or `Several` of them by the names of the heads.
        `batch` images run at a time. threshold: minimum score of a box or label; iou: that of non-maximum suppression;
        max_boxes: boxes per image; None is the model's own. Raises ImageError, ModelFileError for a file without metadata,
        InputError, VerificationError where the network computes NaN or infinity.
        """
        limits = DecodingLimits(threshold, iou, max_boxes)
        if isinstance(sources, (list, tuple)):
            return self._predict(sources, top, batch, limits)
        return self._predict([sources], top, batch, limits)[0]  # type: ignore[list-item]  # a Sequence that is one image: bytes

    def need_metadata(self) -> ModelMetadata:
        """The metadata. Raises ModelFileError for a file without."""
        if self.metadata is None:
            what = "a plain ONNX file" if self.kind == "model file" else f"{KINDS[self.kind]} of a plain ONNX file"
            do = "use run() with normalised arrays, or `gossamer export` a run"
            raise rule_error(9, f"{self.path}: {what}, without preprocessing and classes", do)
        return self.metadata

    def predict_pixels(
        self, images: Sequence[tuple[str, NDArray[np.uint8], Placement]], top: int = 1, limits: DecodingLimits = OWN
    ) -> list[Prediction]:
        """The predictions for images as (name, pixels, placement), which run as one batch.

        Raises ModelFileError, SettingsError where `limits` has one for another kind of model.
        """
        metadata = self.need_metadata()
        limits.check(metadata.heads)
        raw = self.run(self.prepare(np.stack([pixels for _, pixels, _ in images])))
        return [
            postprocess(metadata.heads, image_outputs(raw, index), place, name, top, limits)
            for index, (name, _, place) in enumerate(images)
        ]

    def _predict(
        self, sources: Sequence[ImageSource], top: int, batch: int, limits: DecodingLimits
    ) -> list[Prediction]:
        metadata = self.need_metadata()
        limits.check(metadata.heads)
        check_top(top, batch)
        results: list[Prediction] = []
        for start in range(0, len(sources), batch):
            part = sources[start : start + batch]
            results += self.predict_pixels(
                [(source_name(source), *metadata.preprocess.read(source)) for source in part], top, limits
            )
        for result in results:
            if result.error:
                raise VerificationError(f"{self.path}: {result.source}: {result.error}")
        return results


def load(path: str | os.PathLike[str], *, runtime: str = AUTO, threads: int = 0) -> Model:
    """Open a model file with a runtime: "auto", or one of `RUNTIMES`.

    "auto" takes the first of the table that is installed and has the file's operators; `Model.why` says which and why.
    threads: 0 leaves the number to the runtime.
    Raises ModelFileError, MissingPackageError, UnknownNameError.
    """
    if runtime not in (AUTO, *RUNTIMES):
        raise UnknownNameError("runtime", runtime, (AUTO, *RUNTIMES))
    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= 4096:
        raise InputError(f"threads {threads!r}", "0 (the runtime decides) to 4096", "give such a number")
    kind = file_kind(path)
    if kind != "model file":
        able = runtimes_of(kind)
        if runtime not in (AUTO, *able):
            what = "a compiled network" if kind == "compiled file" else KINDS[kind]
            raise InputError(
                f"{path} with the runtime {runtime}", f"{what} with {', '.join(able)}", "leave --runtime out"
            )
        return _own(os.fspath(path), kind, able[0] if runtime == AUTO else runtime, threads)
    return open_model(read_model_file(path, several_inputs=True), runtime, threads)


def open_model(file: ModelFile, runtime: str, threads: int = 0) -> Model:
    """A model of a file that has been read. Raises ModelFileError, MissingPackageError."""
    if runtime != AUTO:
        return _model(file, runtime, threads, "requested")
    passed: list[str] = []
    refused: ModelFileError | None = None
    for name in runtimes_of("model file"):
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
    entry, kind = RUNTIMES[name], runtime_class(name)
    if len(file.onnx.inputs) > 1 and not issubclass(kind, SeveralInputs):
        inputs = counted(len(file.onnx.inputs), "input")
        raise rule_error(8, f"{file.path}: {inputs}; gossamer runs {entry.title} with one", "use another runtime")
    runtime = kind(file, threads)
    why = f"{entry.title} {runtime.version}, {reason}" + (f"; {entry.advice}" if entry.advice else "")
    shapes = {given.name: given.shape or () for given in file.onnx.inputs}
    return Model(
        file.path,
        file.metadata,
        file.sha256,
        file.onnx.opset,
        file.onnx.input.shape or (),
        name,
        runtime,
        why,
        input_shapes=shapes,
    )


def _own(path: str, kind: TargetKind, name: str, threads: int) -> Model:
    """A file of a runtime's own kind, which no other runs. Raises ModelFileError, MissingPackageError."""
    engine = own_class(name)(path, threads)
    why = f"{RUNTIMES[name].title} {engine.version}: it alone runs files of this kind"
    if isinstance(known := getattr(engine, "sha256", None), str):  # of all the files that belong together
        return Model(path, engine.metadata, known, 0, engine.input_shape, name, engine, why, kind)
    if kind == "compiled file":
        from gossamer.runtime.native import Native

        assert isinstance(engine, Native)
        why = f"the native engine, {engine.isa}, {thread_count(engine.threads)}: it alone runs compiled networks"
    try:
        # held, so that another file of this name is not hashed for it
        opened = open_descriptor(path)
    except OSError as error:
        raise rule_error(1, f"{path}: {error.strerror}") from error

    def digest() -> str:
        with open(
            opened, "rb", closefd=False
        ) as file:  # in pieces: read at once, it would double the memory of the mapped file
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()

    shapes = getattr(engine, "input_shapes", None)  # of a compiled network
    model = Model(path, engine.metadata, digest, 0, engine.input_shape, name, engine, why, kind, shapes)
    weakref.finalize(model, os.close, opened)
    return model

"""An ONNX file compiled for the native engine, and its outputs compared with those of the file."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.input_size import set_static_input_size
from gossamer.compile.write import SAME, compile_bytes
from gossamer.errors import InputError, MissingPackageError, ModelFileError, VerificationError
from gossamer.host.progress import SILENT, Progress
from gossamer.host.shown import Report
from gossamer.host.storage import write_bytes
from gossamer.host.text import counted
from gossamer.modelfile.metadata import ModelFile, ModelMetadata, read_model_file, with_metadata_of
from gossamer.predictions.head import flattened
from gossamer.runtime.interface import Batch, noise, one_by_one
from gossamer.runtime.model import Model, load, open_model
from gossamer.runtime.native import NATIVE_BFLOAT16, Native
from gossamer.runtime.predict import readable_pixels
from gossamer.runtime.steps import read_steps
from gossamer.runtime.table import AUTO
from gossamer.targets import check_result


@dataclasses.dataclass(frozen=True)
class CompileLoss:
    """What compiling changed in the outputs: largest and mean absolute difference, and how often the likeliest class stays.

    inputs: how many were tried. scale: the largest absolute output of the ONNX file. same_class: None where the outputs
    are not one score per class.
    """

    inputs: int
    largest: float
    mean: float
    same_class: int | None
    scale: float

    def beyond(self, exact: bool) -> str:
        """What in it no rounding explains, "" where all can be. exact: all arithmetic is float32."""
        most, mean = (0.01, 0.001) if exact else (0.5, 0.1)  # of the largest output
        if self.largest <= most * self.scale and self.mean <= mean * self.scale:  # false for NaN too
            return ""
        return (
            f"outputs differ by up to {self.largest:.3g}, {self.mean:.3g} in the mean, of up to {self.scale:.3g}, where "
            f"{most:g} and {mean:g} of that are allowed"
        )

    def text(self, what: str) -> str:
        """One line for people."""
        classes = "" if self.same_class is None else f"; the same class for {self.same_class} of {self.inputs}"
        return (
            f"{what}: outputs differ by at most {self.largest:.3g}, {self.mean:.3g} in the mean, "
            f"of up to {self.scale:.3g}{classes}"
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Compilation(Report):
    """A compiled file, and its outputs compared with the ONNX file's, for the check inputs (noise where there are none) and images.

    trained: compared with the outputs in the metadata, which are those of the trained network.
    """

    path: str
    bytes: int
    precision: str
    runs_with: str
    beside: str
    checks: CompileLoss
    images: CompileLoss | None = None
    unreadable: tuple[str, ...] = ()
    trained: CompileLoss | None = None

    def text(self) -> str:
        """A few lines for people."""
        lines = [f"{self.path}: {self.bytes / 1e6:.2f} MB, {self.precision}; {self.runs_with}"]
        lines.append(self.checks.text(f"{counted(self.checks.inputs, 'check input')} beside {self.beside}"))
        if self.trained is not None:
            lines.append(self.trained.text(f"{counted(self.trained.inputs, 'check input')} beside the trained network"))
        if self.images is not None:
            lines.append(self.images.text(counted(self.images.inputs, "image")))
        return "\n".join([*lines, *(f"skipped: {line}" for line in self.unreadable)])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def compile_model(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    precision: str = AUTO,
    images: Sequence[str] = (),
    progress: Progress = SILENT,
    classifier: str = SAME,
    metadata: str | os.PathLike[str] | None = None,
    input_size: tuple[int, int] | None = None,
    force: bool = False,
) -> Compilation:
    """Compile an ONNX file, compare, and write it only where the outputs agree as far as its precision lets them. images: files and folders.

    metadata: the model file that another tool, such as a quantiser, derived the ONNX file from, which says how images become its
    input and its outputs predictions. precision: as of `compile_bytes`; auto is bfloat16 where an int8 file says that its layers in
    floats were chosen for it and this processor computes in it, else float32. classifier: int8 for the weights of the last layers. In less than float32 the outputs
    expected by `verify` become those of the compiled network itself, and the result is what it lost against the
    ONNX file.
    input_size: height and width of the input, where the file leaves one of them or both open.
    force: write it all the same, to a name that says so: OUT.unverified.goss for OUT.goss.
    Raises VerificationError where the outputs differ by more, ModelFileError, InputError (an operator that the engine lacks,
    outputs of another shape than the ONNX file's), UnknownNameError, MissingPackageError, StorageError.
    """
    check_result(out, path, *([] if metadata is None else [metadata]), suffix=".goss")
    file = _read(path) if metadata is None else with_metadata_of(path, metadata)
    file = file if input_size is None else set_static_input_size(file, input_size)
    if precision == AUTO:
        precision = "bfloat16" if _wants_bfloat16(file) and _computes_bfloat16(file) else "float32"
    data, reduced = compile_bytes(file, precision, classifier)
    reduced = reduced or metadata is not None
    known = file.metadata
    if known is None and images:
        raise InputError(
            f"{path} with images",
            "a file that says how images become its input",
            "name one by --metadata, or leave --images out",
        )
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "network.goss"
        trial.write_bytes(data)
        engine = Native(trial, 1)
    reference = reference_model(file)
    batch: Batch
    if known is not None:
        batch = known.preprocess.normalise(np.stack([check.pixels for check in known.checks]))
    else:
        batch = noise(engine.input_shapes, 8)
    raw = engine.run(batch)
    outputs = flattened(raw, 0 if known is None else known.checked)
    classified = _classifies(known, engine)
    loss = _loss(reference, engine, [batch], classified)
    against_trained = None
    if metadata is not None and known is not None:
        against_trained = difference(zip((check.outputs for check in known.checks), outputs, strict=True), classified)
    if known is not None and reduced:
        checks = tuple(dataclasses.replace(check, outputs=row) for check, row in zip(known.checks, outputs))
        most = 0.01 * max(1.0, float(np.abs(outputs).max()))
        known = dataclasses.replace(known, checks=checks, tolerance=most)
        data, _ = compile_bytes(dataclasses.replace(file, metadata=known), precision, classifier)
    shown, unreadable = None, []
    if images and known is not None:
        batches: list[Batch] = []
        for pixels, problem in progress.track(readable_pixels(known.preprocess, images), None, "images"):
            if pixels is None:
                unreadable.append(problem)
            else:
                batches.append(known.preprocess.normalise(pixels[None]))
        if not batches:
            what = f"{counted(len(unreadable), 'image')}, none of which can be read, such as {unreadable[0]}"
            raise InputError(what, "one at least", "give others")
        shown = _loss(reference, engine, batches, classified)
    beside = f"{reference.runtime_name} {reference.runtime_version}"
    exact = precision == "float32" and classifier == SAME and all(s.type == "float32" for s in read_steps(data))
    disagreement = next((text for part in (loss, shown) if part and (text := part.beyond(exact))), "")
    disagreement = disagreement or _lost_nan(reference, engine, next(one_by_one(batch)))
    if disagreement and not force:
        raise VerificationError(
            f"{path}: the compiled network does not compute what {beside} does: {disagreement}; no file is written; "
            "report it, or keep the file for a look with --force"
        )
    if disagreement:
        out = Path(out).with_suffix(".unverified.goss")
    write_bytes(out, data)
    why = load(out).why
    in_bytes = any(step.type == "uint8" for step in read_steps(data))
    name = (
        "int8 as in the file" + (f", the rest {precision}" if precision != "float32" else "") if in_bytes else precision
    )
    name += "" if classifier == SAME else f", weights of the last layers in {classifier}"
    return Compilation(os.fspath(out), len(data), name, why, beside, loss, shown, tuple(unreadable), against_trained)


def _wants_bfloat16(file: ModelFile) -> bool:
    """Whether `gossamer quantize` chose the layers of an int8 file that stay in floats for bfloat16."""
    quantised = file.metadata.provenance.get("quantised") if file.metadata is not None else None
    layers = quantised.get("float_layers") if isinstance(quantised, dict) else None
    return isinstance(layers, dict) and layers.get("precision") == "bfloat16"


def _computes_bfloat16(file: ModelFile) -> bool:
    """Whether the native engine computes in bfloat16 on this processor, and does not convert. Raises as `compile_bytes`."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "network.goss"
        trial.write_bytes(compile_bytes(file)[0])
        return Native(trial, 1).isa in NATIVE_BFLOAT16


def reference_model(file: ModelFile) -> Model:
    """A model file in ONNX Runtime, or in plain numpy where that is not installed."""
    try:
        return open_model(file, "onnxruntime")
    except MissingPackageError:
        return open_model(file, "reference")


def _classifies(metadata: ModelMetadata | None, engine: Native) -> bool:
    """Whether the outputs are one score per class: as the metadata says, or by their shape."""
    if metadata is not None:
        return [head.kind for head in metadata.heads] == ["classify"]
    raw = engine.run(noise(engine.input_shapes, 1))
    return isinstance(raw, np.ndarray) and raw.ndim == 2


def _loss(reference: Model, engine: Native, batches: Sequence[Batch], classified: bool) -> CompileLoss:
    return difference(
        (
            (flattened(reference.run(one))[0], flattened(engine.run(one))[0])
            for batch in batches
            for one in one_by_one(batch)
        ),
        classified,
    )


def _lost_nan(reference: Model, engine: Native, image: Batch) -> str:
    """What is wrong with the outputs for an input with one NaN, each of several in turn, "" where nothing is: NaN where the ONNX file has NaN, or a refusal."""
    if not isinstance(image, Mapping):
        return _lost_one_nan(reference, engine, _with_nan(image))
    each = ({**image, name: _with_nan(array)} for name, array in image.items())
    return next((text for one in each if (text := _lost_one_nan(reference, engine, one))), "")


def _with_nan(image: NDArray[np.float32]) -> NDArray[np.float32]:
    image = image.copy()
    image[tuple(0 if axis < 2 else side // 2 for axis, side in enumerate(image.shape))] = np.nan
    return image


def _lost_one_nan(reference: Model, engine: Native, image: Batch) -> str:
    try:
        actual = flattened(engine.run(image))
    except InputError:  # it computes in uint8, which has no NaN
        return ""
    with np.errstate(invalid="ignore"):
        expected = np.isnan(flattened(reference.run(image)))
    lost = int((expected & ~np.isnan(actual)).sum())
    return f"for an input with NaN {lost} of {int(expected.sum())} outputs that are NaN are numbers" if lost else ""


def difference(pairs: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]], classified: bool) -> CompileLoss:
    """Of pairs of expected and actual outputs, of one input each."""
    count, largest, total, same, scale, numbers = 0, 0.0, 0.0, 0, 0.0, 0
    for expected, actual in pairs:
        if expected.shape != actual.shape:
            raise InputError(
                f"the ONNX file gives {counted(expected.size, 'number')} per image, the compiled network {actual.size}",
                "outputs of one shape in both",
                "the runtime may read an attribute of the file otherwise; export the file again with explicit padding",
            )
        # NaN and infinity agree with themselves; against a number their difference is infinite
        differing = ~((actual == expected) | (np.isnan(actual) & np.isnan(expected)))
        errors = np.zeros(expected.shape)
        errors[differing] = np.nan_to_num(
            np.abs(actual[differing].astype(np.float64) - expected[differing]), nan=np.inf, posinf=np.inf
        )
        finite = np.abs(expected[np.isfinite(expected)])
        largest, scale = max(largest, float(errors.max())), max(scale, float(finite.max(initial=0)))
        total, numbers, count = total + float(errors.sum()), numbers + errors.size, count + 1
        same += int(actual.argmax() == expected.argmax())
    return CompileLoss(count, largest, total / numbers, same if classified else None, scale)


def _read(path: str | os.PathLike[str]) -> ModelFile:
    """A model file; where another tool changed it, the error says what brings its metadata back."""
    try:
        return read_model_file(path, several_inputs=True)
    except ModelFileError as error:
        if error.rule != 10:
            raise
        do = "export the run again; if a quantiser derived it from another file, name that one by --metadata"
        raise ModelFileError(error.rule, error.given.removesuffix(" (rule 10)"), error.allowed, do) from error

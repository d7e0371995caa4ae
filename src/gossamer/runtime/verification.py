"""The check that a model file computes the outputs of the trained network on this machine."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from gossamer.errors import ImageError, VerificationError
from gossamer.host.shown import Report
from gossamer.host.text import counted
from gossamer.images.preprocess import Preprocess
from gossamer.modelfile.metadata import CheckImage, ModelMetadata, pixel_hash
from gossamer.predictions.head import flattened
from gossamer.runtime.model import Model, load
from gossamer.runtime.table import AUTO


@dataclass(frozen=True)
class OutputCheck:
    """A check input: the largest absolute difference of its outputs, and whether the likeliest class is the same.

    `same_class` is true as well where the two best outputs expected are closer than twice the tolerance, and where the
    outputs are no classes.
    """

    difference: float
    same_class: bool


@dataclass(frozen=True)
class PixelCheck:
    """A check image: whether its pixels equal those in the file; the largest difference (0 to 255).

    `problem` says why the image could not be read, where it could not.
    """

    name: str
    same: bool
    largest: int
    problem: str = ""


@dataclass(frozen=True, repr=False)
class VerificationResult(Report):
    """The result of `verify`. The file's rules and its SHA-256 hold, or `verify` would have raised."""

    path: str
    sha256: str
    runtime: str
    why: str
    opset: int
    versions: dict[str, str]
    tolerance: float
    outputs: tuple[OutputCheck, ...]
    pixels: tuple[PixelCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether all outputs agree. Pixels that differ are a warning: images still mean the same."""
        return all(check.difference <= self.tolerance and check.same_class for check in self.outputs)

    @property
    def largest_difference(self) -> float:
        """Over all outputs of all check inputs."""
        return max(check.difference for check in self.outputs)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each check image whose pixels differ."""
        return tuple(
            f"preprocessing: check image {check.name}: "
            + (
                check.problem
                or f"pixels differ by up to {check.largest} of 255 (here Pillow {self.versions['pillow']})"
            )
            for check in self.pixels
            if not check.same
        )

    def text(self) -> str:
        """A few lines for people."""
        return "\n".join(
            [
                f"{self.path}: {'verified' if self.ok else 'FAILED'} with {self.runtime} ({self.why})",
                f"outputs of {counted(len(self.outputs), 'check input')} differ by at most {self.largest_difference:.3g}; "
                f"allowed {self.tolerance:.3g}",
                f"pixels of {sum(check.same for check in self.pixels)} of {counted(len(self.pixels), 'check image')} are the same",
                *self.warnings,
                f"sha256 {self.sha256}",
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite difference is None, as JSON has no infinity."""
        values = asdict(self)
        return {
            **values,
            "outputs": [{**check, "difference": _finite(check["difference"])} for check in values["outputs"]],
            "pixels": list(values["pixels"]),
            "ok": self.ok,
            "largest_difference": _finite(self.largest_difference),
            "warnings": list(self.warnings),
        }

    def raise_if_failed(self) -> None:
        """Raises VerificationError where the outputs do not agree."""
        if not self.ok:
            wrong = [
                i for i, check in enumerate(self.outputs) if check.difference > self.tolerance or not check.same_class
            ]
            raise VerificationError(
                f"{self.path}: with {self.runtime} the outputs of check inputs {', '.join(map(str, wrong))} differ by up to "
                f"{self.largest_difference:.3g}, more than {self.tolerance:.3g}; try another runtime, or export the run again"
            )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def verify(path: str | os.PathLike[str], *, runtime: str = AUTO, threads: int = 0) -> VerificationResult:
    """Repeat the checks that a model file carries. Raises ModelFileError, MissingPackageError, UnknownNameError."""
    return verify_model(load(path, runtime=runtime, threads=threads))


def verify_model(model: Model) -> VerificationResult:
    """Repeat the checks that a loaded model's file carries. Raises ModelFileError."""
    metadata = model.need_metadata()
    return VerificationResult(
        path=model.path,
        sha256=model.sha256,
        runtime=model.runtime_name,
        why=model.why,
        opset=model.opset,
        versions={model.runtime_name: model.runtime_version, "numpy": np.__version__, "pillow": PIL.__version__},
        tolerance=metadata.tolerance,
        outputs=_check_outputs(model, metadata),
        pixels=tuple(_check_pixels(metadata.preprocess, image) for image in metadata.images),
    )


def _check_outputs(model: Model, metadata: ModelMetadata) -> tuple[OutputCheck, ...]:
    actual = flattened(
        model.run(model.prepare(np.stack([check.pixels for check in metadata.checks]))),
        metadata.checked,
    )
    classes = metadata.heads[0].kind == "classify" and len(metadata.heads) == 1
    return tuple(
        compare_outputs(check.outputs, outputs, metadata.tolerance, classes)
        for check, outputs in zip(metadata.checks, actual)
    )


def compare_outputs(
    expected: NDArray[np.float32], actual: NDArray[np.float32], tolerance: float, classes: bool = True
) -> OutputCheck:
    """Outputs (F,) against those expected; NaN or infinity is an infinite difference. classes: one output per class."""
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return OutputCheck(float("inf"), False)
    difference = float(np.abs(actual.astype(np.float64) - expected).max())
    same = not classes or actual.argmax() == expected.argmax() or margin(expected) <= 2 * tolerance
    return OutputCheck(difference, bool(same))


def margin(outputs: NDArray[np.float32]) -> float:
    """How far the best of the outputs (K,) is ahead of the next; infinite where there is one class."""
    if len(outputs) < 2:
        return float("inf")
    second, first = np.partition(outputs.astype(np.float64), -2)[-2:]
    return float(first - second)


def _check_pixels(preprocess: Preprocess, image: CheckImage) -> PixelCheck:
    try:
        pixels = preprocess.pixels(image.file)
    except ImageError as error:
        return PixelCheck(image.name, False, 255, str(error))
    if pixel_hash(pixels) == pixel_hash(image.pixels):
        return PixelCheck(image.name, True, 0)
    return PixelCheck(image.name, False, int(np.abs(pixels.astype(np.int16) - image.pixels).max()))

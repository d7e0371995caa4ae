"""From a run or a model file to a LiteRT file: the ONNX model file, written as .tflite."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gossamer.export import onnx
from gossamer.export.checked import verify_as_file
from gossamer.export.converted import ConvertedModel
from gossamer.host.progress import Progress
from gossamer.litert.runtime import LiteRtFile
from gossamer.litert.write import litert_bytes
from gossamer.modelfile.litert import SUFFIX
from gossamer.modelfile.metadata import ModelFile, parse_model_file
from gossamer.runtime.verification import VerificationResult


def convert(folder: str | Path, which: str, licence: str, images_limit: int, progress: Progress) -> ConvertedModel:
    """The LiteRT file of a run. Raises what `gossamer.export.onnx.convert` and `from_file` raise."""
    LiteRtFile.import_package()  # before the work
    converted = onnx.convert(folder, which, licence, images_limit, progress)
    progress.say("writing LiteRT")
    return dataclasses.replace(converted, data=from_file(parse_model_file(converted.data, str(folder))))


def from_file(file: ModelFile) -> bytes:
    """The LiteRT file of a model file. Raises InputError that names the operator which LiteRT lacks, MissingPackageError."""
    LiteRtFile.import_package()  # without the runtime nothing could be verified
    return litert_bytes(file)


def verify(data: bytes, path: str) -> tuple[tuple[VerificationResult, ...], tuple[str, ...]]:
    """The file's own checks, on LiteRT. Raises VerificationError."""
    return (verify_as_file(data, path, SUFFIX),), ()

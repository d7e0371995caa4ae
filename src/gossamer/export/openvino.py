"""From a run or a model file to an OpenVINO IR: the ONNX model file, read by OpenVINO and written as .xml and .bin."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from gossamer.export.checked import verify_as_file
from gossamer.export.converted import ConvertedModel, FileContents
from gossamer.host.progress import Progress
from gossamer.modelfile.metadata import ModelFile, parse_model_file
from gossamer.modelfile.openvino import SUFFIX, WEIGHTS
from gossamer.openvino.integers import precision_notes
from gossamer.openvino.runtime import OpenVino
from gossamer.openvino.write import openvino_files
from gossamer.runtime.verification import VerificationResult


def convert(
    folder: str | Path, which: str, licence: str, images_limit: int, progress: Progress, uint8: bool = False
) -> ConvertedModel:
    """The IR of a run. uint8: of uint8 images. Raises what `gossamer.export.onnx.convert` and `from_file` raise."""
    OpenVino.import_package()  # before the work
    from gossamer.export import onnx  # torch, which a model file does without

    converted = onnx.convert(folder, which, licence, images_limit, progress)
    progress.say("writing OpenVINO")
    contents = from_file(parse_model_file(converted.data, str(folder)), uint8)
    return dataclasses.replace(converted, data=contents.data, beside=contents.beside)


def from_file(file: ModelFile, uint8: bool = False) -> FileContents:
    """The IR of a model file. uint8: of uint8 images. Raises InputError where OpenVINO lacks an operator, MissingPackageError."""
    xml, weights = openvino_files(file, uint8)
    return FileContents(xml, {WEIGHTS: weights})


def verify(
    data: bytes, path: str, beside: Mapping[str, bytes]
) -> tuple[tuple[VerificationResult, ...], tuple[str, ...]]:
    """The files' own checks, on OpenVINO, and of a network in int8 how it runs here. Raises VerificationError."""
    notes = precision_notes(OpenVino.import_package(), data, beside[WEIGHTS])
    return (verify_as_file(data, path, SUFFIX, beside),), notes

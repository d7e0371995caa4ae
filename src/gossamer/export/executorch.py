"""From a run or a model file to the files of an ExecuTorch program: the ONNX model file, written as .pte and .json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from gossamer.executorch.runtime import ExecuTorchFile
from gossamer.executorch.write import executorch_files
from gossamer.export.checked import verify_as_file
from gossamer.export.converted import ConvertedModel, FileContents
from gossamer.host.progress import Progress
from gossamer.modelfile.executorch import METADATA, SUFFIX
from gossamer.modelfile.metadata import ModelFile, parse_model_file
from gossamer.runtime.verification import VerificationResult


def convert(folder: str | Path, which: str, licence: str, images_limit: int, progress: Progress) -> ConvertedModel:
    """The ExecuTorch files of a run. Raises what `gossamer.export.onnx.convert` and `from_file` raise."""
    ExecuTorchFile.import_package()  # before the work
    from gossamer.export import onnx  # torch, which a model file does without

    converted = onnx.convert(folder, which, licence, images_limit, progress)
    progress.say("writing ExecuTorch")
    contents = from_file(parse_model_file(converted.data, str(folder)))
    return dataclasses.replace(converted, data=contents.data, beside=contents.beside)


def from_file(file: ModelFile) -> FileContents:
    """The ExecuTorch files of a model file. Raises InputError that names the operator and node, MissingPackageError."""
    files = executorch_files(file)
    return FileContents(files.pte, {METADATA: files.json})


def verify(
    data: bytes, path: str, beside: Mapping[str, bytes]
) -> tuple[tuple[VerificationResult, ...], tuple[str, ...]]:
    """The files' own checks, on ExecuTorch. Raises VerificationError."""
    return (verify_as_file(data, path, SUFFIX, beside),), ()

"""From a run or a model file to a LiteRT file: the ONNX model file, written as .tflite."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from gossamer.export.checked import verify_as_file
from gossamer.export.converted import ConvertedModel
from gossamer.host.progress import Progress
from gossamer.litert.runtime import LiteRtFile, OnTheFly
from gossamer.litert.write import litert_bytes
from gossamer.modelfile.litert import SUFFIX
from gossamer.modelfile.metadata import ModelFile, parse_model_file
from gossamer.predictions.head import flattened
from gossamer.runtime.verification import VerificationResult

TOLERANCE = 0.01  # of the largest output of an int8 file: other processors round in another order


def convert(folder: str | Path, which: str, licence: str, images_limit: int, progress: Progress) -> ConvertedModel:
    """The LiteRT file of a run. Raises what `gossamer.export.onnx.convert` and `from_file` raise."""
    LiteRtFile.import_package()  # before the work
    from gossamer.export import onnx  # torch, which a model file does without

    converted = onnx.convert(folder, which, licence, images_limit, progress)
    progress.say("writing LiteRT")
    return dataclasses.replace(converted, data=from_file(parse_model_file(converted.data, str(folder))))


def from_file(file: ModelFile) -> bytes:
    """The LiteRT file of a model file. Raises InputError that names the operator which LiteRT lacks, MissingPackageError.

    Of a QDQ file the outputs that `verify` expects become those of LiteRT: it rounds some bytes one step otherwise.
    """
    LiteRtFile.import_package()  # without the runtime nothing could be verified
    known = file.metadata
    if known is None or not in_bytes(file):
        return litert_bytes(file)
    batch = known.preprocess.normalise(np.stack([check.pixels for check in known.checks]))
    outputs = flattened(OnTheFly(file)(batch), known.checked)
    checks = tuple(dataclasses.replace(check, outputs=row) for check, row in zip(known.checks, outputs, strict=True))
    tolerance = TOLERANCE * max(1.0, float(np.abs(outputs).max()))
    return litert_bytes(
        dataclasses.replace(file, metadata=dataclasses.replace(known, checks=checks, tolerance=tolerance))
    )


def in_bytes(file: ModelFile) -> bool:
    """Whether a model file is a QDQ file."""
    return any(node.op == "QuantizeLinear" for node in file.graph.nodes)


def verify(data: bytes, path: str) -> tuple[tuple[VerificationResult, ...], tuple[str, ...]]:
    """The file's own checks, on LiteRT. Raises VerificationError."""
    return (verify_as_file(data, path, SUFFIX),), ()

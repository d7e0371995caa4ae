"""From a run to a file compiled for the native engine: its ONNX model file, compiled."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from gossamer.export import onnx
from gossamer.export.checked import verify_as_file
from gossamer.export.converted import ConvertedModel
from gossamer.host.progress import Progress
from gossamer.host.text import counted
from gossamer.runtime.compilation import compile_model
from gossamer.runtime.verification import VerificationResult


def convert(folder: str | Path, which: str, licence: str, images_limit: int, progress: Progress) -> ConvertedModel:
    """The compiled file of a run, in float32. Raises what `gossamer.export.onnx.convert` and `compile_model` raise."""
    converted = onnx.convert(folder, which, licence, images_limit, progress)
    with tempfile.TemporaryDirectory() as name:
        model, compiled = Path(name) / "model.onnx", Path(name) / "model.goss"
        model.write_bytes(converted.data)
        progress.say("compiling")
        compilation = compile_model(model, compiled)
        data = compiled.read_bytes()
    note = compilation.checks.text(
        f"{counted(compilation.checks.inputs, 'check input')}, compiled and {compilation.beside}"
    )
    return dataclasses.replace(converted, data=data, notes=(note,))


def verify(data: bytes, path: str) -> tuple[tuple[VerificationResult, ...], tuple[str, ...]]:
    """The file's own checks, on the native engine. Raises VerificationError."""
    return (verify_as_file(data, path, ".goss"),), ()

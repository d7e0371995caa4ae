"""The formats that a run is exported to: all that the rest of the package knows of each is its row here.

A format is a file of its own with two functions, and a row:

    convert(folder, which, licence, images_limit, progress) -> ConvertedModel
        the bytes of the file, compared with the trained model; which: the checkpoint, "best" or "last".
        Raises VerificationError where their outputs differ, and what reading the run raises.
    verify(data, path) -> (verifications, notes)
        what a user's `gossamer verify` finds of these bytes, before the file `path` is there.
        Raises VerificationError where the numbers do not agree.
"""

from __future__ import annotations

from typing import NamedTuple


class ExportFormat(NamedTuple):
    """suffix: of its files. module: where `convert` and `verify` are. title: what people call it."""

    suffix: str
    module: str
    title: str


FORMATS: dict[str, ExportFormat] = {
    "onnx": ExportFormat(".onnx", "gossamer.export.onnx", "ONNX"),
    "goss": ExportFormat(".goss", "gossamer.export.goss", "compiled for the native engine"),
}

"""The formats that a run is exported to: all that the rest of the package knows of each is its row here.

A format is a file of its own with two functions, and a row:

    convert(folder, which, licence, images_limit, progress) -> ConvertedModel
        the bytes of the file, compared with the trained model; which: the checkpoint, "best" or "last".
        Raises VerificationError where their outputs differ, and what reading the run raises.
    verify(data, path) -> (verifications, notes)
        what a user's `gossamer verify` finds of these bytes, before the file `path` is there.
        Raises VerificationError where the numbers do not agree.

A format that model files are exported to as well, without the run, has a third:

    from_file(file) -> bytes
        the file of a model file. Raises InputError that names the operator which the format lacks, MissingPackageError.

A format of several files has the suffixes of the others in its row: `convert` fills in `ConvertedModel.beside`, `from_file` returns
`FileContents`, and `verify` takes the others as well, by their suffixes: verify(data, path, beside).

The format "c" has the suffix "/": any folder. It and "coreml" are folders: their modules have `export_run` and `export_file`.
"""

from __future__ import annotations

from typing import NamedTuple


class ExportFormat(NamedTuple):
    """suffix: of its files. module: where its functions are. title: what people call it. instead: the command for model
    files where it has no `from_file`. beside: suffixes of the files that belong to it. folder: it is a folder, whose module has
    `export_run` and `export_file`, which write it. uint8: `convert` and `from_file` take `uint8=True`, for a file of uint8 images that
    has the preprocessing inside.
    """

    suffix: str
    module: str
    title: str
    instead: str = ""
    beside: tuple[str, ...] = ()
    folder: bool = False
    uint8: bool = False


FORMATS: dict[str, ExportFormat] = {
    "onnx": ExportFormat(".onnx", "gossamer.export.onnx", "ONNX", "copy the file"),
    "goss": ExportFormat(".goss", "gossamer.export.goss", "compiled for the native engine", "gossamer compile FILE"),
    "litert": ExportFormat(".tflite", "gossamer.export.litert", "LiteRT"),
    "ncnn": ExportFormat(".param", "gossamer.export.ncnn", "ncnn", beside=(".bin", ".json")),
    "openvino": ExportFormat(".xml", "gossamer.export.openvino", "OpenVINO IR", beside=(".bin",), uint8=True),
    "executorch": ExportFormat(".pte", "gossamer.export.executorch", "ExecuTorch with XNNPACK", beside=(".json",)),
    "coreml": ExportFormat(".mlpackage", "gossamer.export.coreml", "Core ML", folder=True),
    "c": ExportFormat("/", "gossamer.export.c", "C source", folder=True),
}

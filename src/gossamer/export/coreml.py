"""From a run or a model file to a Core ML package: written anywhere, its structure checked, unverified since it runs on a Mac alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gossamer.coreml.structure import Structure
from gossamer.coreml.write import import_package, write_package
from gossamer.errors import InputError
from gossamer.export.c import check_folder
from gossamer.export.converted import Comparison
from gossamer.export.formats import check_licence
from gossamer.export.table import FORMATS
from gossamer.host.progress import SILENT, Progress, one_line
from gossamer.host.shown import Report
from gossamer.host.storage import atomic_folder
from gossamer.host.text import counted, metric_name
from gossamer.modelfile.metadata import ModelFile, parse_model_file, read_model_file

SUFFIX = FORMATS["coreml"].suffix
UNVERIFIED = (
    "not verified: Core ML runs on a Mac alone; compare its outputs there with the check vectors in its metadata"
)


@dataclass(frozen=True, repr=False)
class ExportedPackage(Report):
    """A Core ML package, which no runtime has run. size: bytes. version: of coremltools. comparison: of a run with its ONNX file."""

    path: str
    size: int
    version: str
    structure: Structure
    comparison: Comparison | None

    def text(self) -> str:
        """A few lines for people."""
        what = self.structure
        lines = [f"{one_line(self.path)}: {self.size / 1e6:.2f} MB, Core ML (ML Program, float32, iOS 16), unverified"]
        if self.comparison is not None:
            one = self.comparison
            lines.append(
                f"{metric_name(one.score)} on {counted(one.images, 'validation image')}: {one.trained[one.score]:.4f}"
            )
        lines.append(
            f"structure checked: input, outputs and shapes, {counted(what.layers, 'layer')} in {counted(what.operations, 'operation')}, "
            f"{counted(what.weights, 'weight')} as in the program"
        )
        return "\n".join([*lines, UNVERIFIED])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "format": "coreml", "verified": False, "notes": [UNVERIFIED]}


def check_package(out: str | os.PathLike[str]) -> None:
    """Refuse, before any work, a name without .mlpackage, and what `check_folder` refuses. Raises InputError."""
    check_folder(out)
    if Path(out).suffix.lower() != SUFFIX:
        raise InputError(f"{os.fspath(out)}: no name of a Core ML package", f"NAME{SUFFIX}", "rename it")


def export_file(
    path: str | os.PathLike[str], out: str | os.PathLike[str], *, progress: Progress = SILENT
) -> ExportedPackage:
    """Write a model file as a Core ML package. Raises as `export_run`."""
    check_package(out)
    import_package()
    return _write(read_model_file(path), out, None, progress)


def export_run(
    folder: str | Path,
    out: str | os.PathLike[str],
    *,
    which: str = "best",
    licence: str = "unspecified",
    images_limit: int = 5000,
    progress: Progress = SILENT,
) -> ExportedPackage:
    """Write a run as a Core ML package in float32.

    Raises InputError that names the operator which Core ML lacks, VerificationError where the package has another structure or
    other weights than the program, StorageError, MissingPackageError, and what exporting to ONNX raises.
    """
    check_package(out)
    check_licence(licence)
    import_package()  # before the work
    from gossamer.export import onnx

    converted = onnx.convert(folder, which, licence, images_limit, progress)
    return _write(parse_model_file(converted.data, str(folder)), out, converted.comparison, progress)


def _write(
    file: ModelFile, out: str | os.PathLike[str], comparison: Comparison | None, progress: Progress
) -> ExportedPackage:
    progress.say("writing Core ML")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / f"model{SUFFIX}"
        written = write_package(file, place)
        size = sum(one.stat().st_size for one in place.rglob("*") if one.is_file())
        with atomic_folder(out) as folder:
            shutil.copytree(place, folder, dirs_exist_ok=True)
    return ExportedPackage(os.fspath(out), size, written.version, written.structure, comparison)

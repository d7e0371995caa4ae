"""A run written in one of the formats of `table.py`, verified before the file is there."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gossamer.errors import SettingsError, UnknownNameError
from gossamer.export.converted import Comparison
from gossamer.export.table import FORMATS
from gossamer.host import storage
from gossamer.host.progress import SILENT, Progress
from gossamer.host.shown import Report
from gossamer.host.text import metric_name
from gossamer.runtime.verification import VerificationResult

IMAGES_LIMIT = 5000  # validation images on which the file is compared with the trained model


@dataclass(frozen=True, repr=False)
class Exported(Report):
    """A file that was written, and the comparison made before. size: bytes. format: a name in FORMATS."""

    path: str
    format: str
    size: int
    opset: int
    tolerance: float
    comparison: Comparison
    verifications: tuple[VerificationResult, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """A few lines for people."""
        comparison = self.comparison
        title = FORMATS[self.format].title
        return "\n".join(
            [
                f"{self.path}: {self.size / 2**20:.2f} MiB, {title}, operator set {self.opset}",
                f"{metric_name(comparison.score)} on {comparison.images} of {comparison.available} validation images: trained "
                f"{comparison.trained[comparison.score]:.4f}, file {comparison.file[comparison.score]:.4f}",
                f"outputs differ by at most {comparison.largest_difference:.3g} there; tolerance {self.tolerance:.3g}",
                *(f"verified with {check.runtime} ({check.largest_difference:.3g})" for check in self.verifications),
                *self.notes,
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            "verifications": [check.to_json() for check in self.verifications],
            "notes": list(self.notes),
        }


def format_of(out: str | Path, to: str = "") -> str:
    """The name of the format of the file `out`: `to`, by default that of its suffix. Raises InputError."""
    if to:
        if to not in FORMATS:
            raise UnknownNameError("export format", to, FORMATS)
        return to
    for name, entry in FORMATS.items():
        if Path(out).suffix.lower() == entry.suffix:
            return name
    allowed = ", ".join(f"{entry.suffix} ({name})" for name, entry in FORMATS.items())
    raise SettingsError(f"{out}: no export format has this suffix", allowed, "rename the file, or give --to")


def export(
    folder: str | Path,
    out: str | Path,
    *,
    to: str = "",
    which: str = "best",
    licence: str = "unspecified",
    images_limit: int = IMAGES_LIMIT,
    progress: Progress = SILENT,
) -> Exported:
    """Write a run as one verified file.

    to: a name in FORMATS, by default that of the suffix of `out`. which: the checkpoint, "best" or "last".
    images_limit: validation images to compare on, at most. Nothing is written where the file's outputs are not the
    trained model's: raises VerificationError. Also raises RunError, DataError, ModelFileError, StorageError,
    MissingPackageError, InputError.
    """
    name = format_of(out, to)
    storage.check_output(out)
    module = importlib.import_module(FORMATS[name].module)
    converted = module.convert(folder, which, licence, images_limit, progress)
    with storage.atomic_write(out, "w+b") as file:  # an error in here leaves no file, or the earlier one as it was
        file.write(converted.data)
        file.seek(0)
        verifications, notes = module.verify(file.read(), str(out))
    return Exported(
        path=str(out),
        format=name,
        size=len(converted.data),
        opset=converted.opset,
        tolerance=converted.tolerance,
        comparison=converted.comparison,
        verifications=verifications,
        notes=(*converted.notes, *notes),
    )

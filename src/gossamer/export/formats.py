"""A run or a model file written in one of the formats of `table.py`, verified before the file is there."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.errors import InputError, SettingsError, UnknownNameError, VerificationError
from gossamer.export.checked import write_trial
from gossamer.export.converted import Comparison, FileContents
from gossamer.export.table import FORMATS
from gossamer.host import storage
from gossamer.host.progress import SILENT, Progress, one_line
from gossamer.host.shown import Report
from gossamer.host.text import counted, metric_name
from gossamer.modelfile.metadata import ModelFile, read_model_file
from gossamer.predictions.head import flattened, is_plain_text
from gossamer.runtime.compilation import CompileLoss, difference, reference_model
from gossamer.runtime.model import load
from gossamer.runtime.table import RUNTIMES, runtime_class
from gossamer.runtime.verification import VerificationResult
from gossamer.targets import check_result, is_there

IMAGES_LIMIT = 5000  # validation images on which the file is compared with the trained model
FOLDER = "/"  # the suffix of formats that are folders
NOISE = 4  # inputs on which the file of a model file without check inputs is compared with it


@dataclass(frozen=True, repr=False)
class Exported(Report):
    """A file that was written, and the comparison made before. size: bytes, with the files beside it. format: a name in FORMATS."""

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
                f"{one_line(self.path)}: {self.size / 1e6:.2f} MB, {title}, operator set {self.opset}",
                f"{metric_name(comparison.score)} on {comparison.images} of {counted(comparison.available, 'validation image')}: trained "
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


@dataclass(frozen=True, repr=False)
class ExportedFile(Report):
    """A file that was written from a model file, and its outputs compared with those of the model file before.

    size: bytes, with the files beside it. format: a name in FORMATS. beside: what ran the model file. loss: over the check inputs, or noise where the
    file has none. verifications: of a file with metadata.
    """

    path: str
    format: str
    size: int
    beside: str
    loss: CompileLoss
    verifications: tuple[VerificationResult, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """A few lines for people."""
        inputs = (
            f"{self.loss.inputs} {'check inputs' if self.verifications else 'inputs of noise'} beside {self.beside}"
        )
        lines = [
            f"{one_line(self.path)}: {self.size / 1e6:.2f} MB, {FORMATS[self.format].title}",
            self.loss.text(inputs),
        ]
        lines += [f"verified with {check.runtime} ({check.largest_difference:.3g})" for check in self.verifications]
        return "\n".join([*lines, *self.notes])

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
        if Path(out).suffix.lower() == entry.suffix or (entry.suffix == FOLDER and str(out).endswith(FOLDER)):
            return name
    allowed = ", ".join(f"{entry.suffix} ({name})" for name, entry in FORMATS.items())
    raise SettingsError(f"{out}: no export format has this suffix", allowed, "rename the file, or give --to")


def _refuse_folder(name: str) -> None:
    """Raises SettingsError for a format that is a folder, which has functions of its own."""
    if FORMATS[name].folder:
        module = FORMATS[name].module
        raise SettingsError(f"the format {name}", "formats of one file", f"call {module}.export_run or export_file")


def check_licence(licence: str) -> None:
    """Refuse, before minutes of converting, what the metadata cannot hold. Raises SettingsError."""
    if not is_plain_text(licence):
        raise SettingsError(f"licence {licence[:80]!r}", "a line of text, as CC-BY-4.0", "check the licence")


def export(
    folder: str | Path,
    out: str | Path,
    *,
    to: str = "",
    which: str = "best",
    licence: str = "unspecified",
    images_limit: int = IMAGES_LIMIT,
    uint8: bool = False,
    progress: Progress = SILENT,
) -> Exported:
    """Write a run as one verified file.

    to: a name in FORMATS, by default that of the suffix of `out`. which: the checkpoint, "best" or "last". uint8: the file takes
    uint8 images, with the preprocessing inside.
    images_limit: validation images to compare on, at most. Nothing is written where the file's outputs are not the
    trained model's: raises VerificationError. Also raises RunError, DataError, ModelFileError, StorageError,
    MissingPackageError, InputError.
    """
    name = format_of(out, to)
    _refuse_folder(name)
    check_uint8(name, uint8)
    check_result(out, suffix=FORMATS[name].suffix)
    check_beside(out, name)
    check_licence(licence)
    module = importlib.import_module(FORMATS[name].module)
    converted = module.convert(folder, which, licence, images_limit, progress, **_options(uint8))
    contents = FileContents(converted.data, converted.beside)
    verifications, notes = _write(contents, out, module)
    return Exported(
        path=str(out),
        format=name,
        size=contents.size,
        opset=converted.opset,
        tolerance=converted.tolerance,
        comparison=converted.comparison,
        verifications=verifications,
        notes=(*converted.notes, *notes),
    )


def export_file(
    path: str | Path, out: str | Path, *, to: str = "", uint8: bool = False, progress: Progress = SILENT
) -> ExportedFile:
    """Write a model file in another format, compared with the model file and verified before the file is there.

    to: a name in FORMATS, by default that of the suffix of `out`. uint8: as of `export`. Raises VerificationError where the outputs differ, InputError
    (an operator that the format lacks, a format that is made from runs alone), ModelFileError, StorageError,
    MissingPackageError.
    """
    name = format_of(out, to)
    check_from_file(path, name)
    check_uint8(name, uint8)
    check_result(out, path, suffix=FORMATS[name].suffix)
    check_beside(out, name)
    file = read_model_file(path)
    contents, loss, beside = made_from(file, out, name, progress, uint8)
    module = importlib.import_module(FORMATS[name].module)
    verifications, notes = _write(contents, out, module if file.metadata is not None else None)
    return ExportedFile(str(out), name, contents.size, beside, loss, verifications, notes)


def check_from_file(path: str | Path, name: str) -> None:
    """Refuse, before any work, a format that is a folder or made from runs alone. Raises SettingsError."""
    _refuse_folder(name)
    entry = FORMATS[name]
    if entry.instead:
        allowed = ", ".join(name for name, entry in FORMATS.items() if not entry.instead)
        raise SettingsError(
            f"{path}: a model file as {entry.title}", f"formats of model files: {allowed}", entry.instead
        )


def check_uint8(name: str, uint8: bool) -> None:
    """Refuse, before any work, uint8 images of a format without them. Raises SettingsError."""
    if uint8 and not FORMATS[name].uint8:
        able = ", ".join(one for one, entry in FORMATS.items() if entry.uint8)
        raise SettingsError(f"--uint8 with --to {name}", f"--to {able} with it", "leave it out")


def _options(uint8: bool) -> dict[str, bool]:
    """Of a format's `convert` and `from_file`, beyond those that every format has."""
    return {"uint8": True} if uint8 else {}


def check_installed(name: str) -> None:
    """Refuse, before any work, a format whose runtime is not installed: nothing could be verified. Raises MissingPackageError."""
    if name in RUNTIMES:
        runtime_class(name).import_package()


def made_from(
    file: ModelFile, out: str | Path, name: str, progress: Progress, uint8: bool = False
) -> tuple[FileContents, CompileLoss, str]:
    """A model file in another format, its outputs beside those of the model file, and what ran that. Raises VerificationError."""
    entry = FORMATS[name]
    module = importlib.import_module(entry.module)
    progress.say(f"writing {entry.title}")
    made = module.from_file(file, **_options(uint8))
    contents = made if isinstance(made, FileContents) else FileContents(made, {})
    return contents, *_compared(file, contents, str(out), entry.suffix)


def verified(
    contents: FileContents, out: str | Path, module: Any
) -> tuple[tuple[VerificationResult, ...], tuple[str, ...]]:
    """What a module's `verify` says of a file and those beside it."""
    more: tuple[Mapping[str, bytes], ...] = (contents.beside,) if contents.beside else ()
    verifications, notes = module.verify(contents.data, str(out), *more)
    return verifications, notes


def check_beside(out: str | Path, name: str) -> None:
    """Refuse, before any work, files beside `out` that are not those of an earlier export to the same name. Raises InputError."""
    entry = FORMATS[name]
    if not entry.beside:
        return
    if Path(out).suffix.lower() != entry.suffix:
        raise InputError(f"{out}: no name of {entry.title}", f"FILE{entry.suffix}", "rename it")
    others = [Path(out).with_suffix(suffix) for suffix in entry.beside]
    for one in others:
        check_result(one)
    there = [one for one in others if one.is_symlink() or is_there(one)]
    if there and not (len(there) == len(others) and is_there(Path(out)) and all(one.is_file() for one in others)):
        raise InputError(
            f"{there[0]}: exists, and {Path(out).name} would be written with a file of that name beside it",
            "names without files, or the whole of an earlier export",
            "give another name",
        )


def _write(
    contents: FileContents, out: str | Path, module: Any
) -> tuple[tuple[VerificationResult, ...], tuple[str, ...]]:
    """Write a file and those beside it; what the module's `verify` says of them. module: None where they have no checks.

    An error leaves no file, or the earlier ones as they were: all are written before the first gets its name.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(storage.atomic_write(out, "w+b"))  # named last: it says that the others are there
        file.write(contents.data)
        for suffix, data in contents.beside.items():
            stack.enter_context(storage.atomic_write(Path(out).with_suffix(suffix))).write(data)
        file.seek(0)
        written = FileContents(file.read(), contents.beside)
        return verified(written, out, module) if module is not None else ((), ())


def _compared(file: ModelFile, contents: FileContents, out: str, suffix: str) -> tuple[CompileLoss, str]:
    """The outputs of a written file beside those of its model file, and what ran that. Raises VerificationError."""
    reference = reference_model(file)
    with tempfile.TemporaryDirectory() as folder:
        written = load(write_trial(folder, suffix, contents.data, contents.beside), threads=1)
    known = file.metadata
    if known is not None:
        batch = known.preprocess.normalise(np.stack([check.pixels for check in known.checks]))
    else:
        sides = [side for side in written.input_shape[1:] if isinstance(side, int)]  # such a file has no free ones
        batch = np.random.default_rng(0).standard_normal((NOISE, *sides)).astype(np.float32)
    given = batch if known is None else written.prepare(np.stack([check.pixels for check in known.checks]))
    pairs = [
        (flattened(reference.run(one[None]))[0], flattened(written.run(other[None]))[0])
        for one, other in zip(batch, given, strict=True)
    ]
    loss = difference(pairs, known is not None and [head.kind for head in known.heads] == ["classify"])
    beside = f"{reference.runtime_name} {reference.runtime_version}"
    if wrong := loss.beyond(exact=not any(node.op == "QuantizeLinear" for node in file.graph.nodes)):
        raise VerificationError(
            f"{out}: does not compute what {beside} does: {wrong}; no file is written; please report it"
        )
    return loss, beside

"""From a run or a model file to a folder of C source, verified by this machine's compiler before it is there."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gossamer.csource import compiler
from gossamer.csource.device import FILES, checks_of, files_of, network_of, preprocess_of
from gossamer.csource.limits import Needs, needs_of, parse_bytes, refuse_too_large, size
from gossamer.csource.network import BYTES
from gossamer.csource.verify import NO_COMPILER, Ran, measured_code, run_checks
from gossamer.errors import InputError, VerificationError
from gossamer.export.converted import Comparison
from gossamer.host.progress import SILENT, Progress
from gossamer.host.shown import Report
from gossamer.host.storage import atomic_folder
from gossamer.host.text import counted, metric_name
from gossamer.modelfile.metadata import ModelFile, parse_model_file, read_model_file
from gossamer.predictions.head import flattened
from gossamer.runtime.compilation import CompileLoss, difference, reference_model


@dataclass(frozen=True, repr=False)
class ExportedSource(Report):
    """A folder of C source. needs: bytes of memory. compiler: which compiled and ran it, "" for none.

    largest: difference of the outputs in C from what is expected; of int8 0. loss: of these beside `beside`, which ran the
    ONNX file. comparison: of a run with its ONNX file.
    """

    path: str
    type: str
    needs: Needs
    checks: int
    compiler: str
    largest: float
    beside: str
    loss: CompileLoss | None
    comparison: Comparison | None
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """A few lines for people."""
        needs = self.needs
        about = "measured at -Os" if needs.measured else "an estimate"
        lines = [
            f"{self.path}: {', '.join(FILES)}; {self.type}, C99 without a library",
            f"RAM {size(needs.ram)}, most of it at {needs.peaks[0].layer}",
            f"flash {size(needs.flash)}: weights {size(needs.weights)}, tables {size(needs.tables)}, code {size(needs.code)} ({about})",
        ]
        if self.comparison is not None:
            one = self.comparison
            lines.append(
                f"{metric_name(one.score)} on {counted(one.images, 'validation image')}: {one.trained[one.score]:.4f}"
            )
        if self.compiler:
            same = "every bit as the int8 reference" if self.type == BYTES else f"differ by at most {self.largest:.3g}"
            lines.append(f"verified with {self.compiler}: outputs of {counted(self.checks, 'check input')} {same}")
        if self.loss is not None:
            lines.append(self.loss.text(f"{counted(self.loss.inputs, 'check input')} beside {self.beside}"))
        return "\n".join([*lines, *self.notes])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(dataclasses.replace(self, needs=None))  # type: ignore[arg-type]
        return {**values, "format": "c", "needs": self.needs.to_json(), "notes": list(self.notes)}


def limits_of(ram: str | None, flash: str | None) -> tuple[int | None, int | None]:
    """Bytes of --ram and --flash, None where they are left out. Raises SettingsError."""
    return None if ram is None else parse_bytes(ram, "--ram"), None if flash is None else parse_bytes(flash, "--flash")


def check_folder(out: str | os.PathLike[str]) -> None:
    """Refuse, before any work, a place that is a file, or a folder with something in it. Raises InputError."""
    path, do = Path(out), "give a new name"
    if not os.fspath(out).strip():
        raise InputError("--out: the empty path", "the name of a folder to make", do)
    try:
        if path.is_dir():
            if any(path.iterdir()):
                raise InputError(f"{out}: a folder that is not empty", "a new or an empty folder", do)
        elif path.exists() or path.is_symlink():
            raise InputError(f"{out}: exists", "a new or an empty folder", do)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError):
            raise InputError(f"{os.fspath(out)[:80]!r}: no path", "the name of a folder to make", do) from error


def export_file(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    ram: str | None = None,
    flash: str | None = None,
    progress: Progress = SILENT,
) -> ExportedSource:
    """Write a model file as C source. Raises as `export_run`."""
    limits = limits_of(ram, flash)
    check_folder(out)
    return _write(read_model_file(path), out, limits, None, progress)


def export_run(
    folder: str | Path,
    out: str | os.PathLike[str],
    *,
    which: str = "best",
    licence: str = "unspecified",
    images_limit: int = 5000,
    ram: str | None = None,
    flash: str | None = None,
    progress: Progress = SILENT,
) -> ExportedSource:
    """Write a run as C source, in float32.

    Raises InputError that says what does not fit into `ram` or `flash`, or names the operator that there is no kernel for,
    VerificationError where the compiled source computes something else, StorageError, and what exporting to ONNX raises.
    """
    limits = limits_of(ram, flash)
    check_folder(out)
    from gossamer.export import onnx

    converted = onnx.convert(folder, which, licence, images_limit, progress)
    return _write(parse_model_file(converted.data, str(folder)), out, limits, converted.comparison, progress)


def _write(
    file: ModelFile,
    out: str | os.PathLike[str],
    limits: tuple[int | None, int | None],
    comparison: Comparison | None,
    progress: Progress,
) -> ExportedSource:
    progress.say("writing C")
    network = network_of(file)
    pixels = preprocess_of(file, network) is not None
    refuse_too_large(needs_of(network, 0, pixels), *limits, file.path)  # without code: before anything is compiled
    command = compiler.compiler()
    needs = needs_of(network, measured_code(file, network, command), pixels)
    refuse_too_large(needs, *limits, file.path)
    reference = reference_model(file)
    checks = checks_of(file, network, lambda values: flattened(reference.run(values)))
    beside = f"{reference.runtime_name} {reference.runtime_version}"
    texts = files_of(file, network, checks, needs)
    ran: Ran | None = None
    loss = None
    if command is not None:
        progress.say("compiling and running the check")
        ran = run_checks(file, network, checks, texts, command, os.fspath(out))
        loss = _loss(file, reference, checks.values, ran, network.type == BYTES, os.fspath(out))
    with atomic_folder(out) as folder:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    notes = () if ran is not None else (NO_COMPILER,)
    return ExportedSource(
        os.fspath(out),
        network.type,
        needs,
        len(checks.given),
        "" if ran is None else ran.compiler,
        0.0 if ran is None else ran.largest,
        beside,
        loss,
        comparison,
        notes,
    )


def _loss(file: ModelFile, reference: Any, values: Any, ran: Ran, in_bytes: bool, out: str) -> CompileLoss:
    """The outputs in C beside the ONNX file's. Raises VerificationError where no rounding explains the difference."""
    known = file.metadata
    classified = known is not None and [head.kind for head in known.heads] == ["classify"]
    pairs = [(flattened(reference.run(one[None]))[0], row) for one, row in zip(values, ran.outputs)]
    loss = difference(pairs, classified)
    if wrong := loss.beyond(exact=not in_bytes):
        beside = f"{reference.runtime_name} {reference.runtime_version}"
        raise VerificationError(
            f"{out}: does not compute what {beside} does: {wrong}; nothing was written; please report it"
        )
    return loss

"""A run or a model file in several formats at once: a folder with a file of each, all of them or none."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.errors import SettingsError, UnknownNameError
from gossamer.export import formats
from gossamer.export.c import check_folder
from gossamer.export.converted import ConvertedModel, FileContents
from gossamer.export.formats import FOLDER, IMAGES_LIMIT, Exported, ExportedFile
from gossamer.export.table import FORMATS
from gossamer.host.progress import SILENT, Progress
from gossamer.host.shown import Report
from gossamer.host.storage import atomic_folder
from gossamer.modelfile.metadata import parse_model_file, read_model_file


@dataclass(frozen=True, repr=False)
class ExportedFolder(Report):
    """The files that were written, one of each format."""

    path: str
    files: tuple[Exported | ExportedFile, ...]

    def text(self) -> str:
        """A few lines for people."""
        return "\n".join(one.text() for one in self.files)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"path": self.path, "files": [one.to_json() for one in self.files]}


def several(to: str, out: str) -> list[str]:
    """The formats that are written into the folder `out`; none where --to and --out name one file, or the folder of C source.

    They are those of `to`, with commas between them; one alone is enough for a format of several files. Raises SettingsError,
    UnknownNameError.
    """
    names = [name.strip() for name in to.split(",")]
    if len(names) == 1:
        many = to in FORMATS and bool(FORMATS[to].beside)
        return names if many and (out.endswith("/") or Path(out).is_dir()) else []
    for name in names:
        if name not in FORMATS:
            raise UnknownNameError("export format", name, FORMATS)
        if FORMATS[name].folder or names.count(name) > 1:
            what = "which is a folder of its own" if FORMATS[name].folder else "twice"
            raise SettingsError(f"--to {to}: {name}, {what}", "formats of files, each once", f"export to {name} alone")
    suffixes = {entry.suffix for entry in FORMATS.values()} - {FOLDER}
    if Path(out).suffix.lower() in suffixes and not Path(out).exists() and not out.endswith("/"):
        raise SettingsError(
            f"{out}: the name of a file for several formats", "the name of a folder", "give another name"
        )
    return names


def file_name(stem: str, name: str) -> str:
    """Of a format's file; one with others beside it says which format they belong to."""
    entry = FORMATS[name]
    return f"{stem}.{name}{entry.suffix}" if entry.beside else f"{stem}{entry.suffix}"


def export_run(
    folder: str | Path,
    out: str | Path,
    names: Sequence[str],
    *,
    which: str = "best",
    licence: str = "unspecified",
    images_limit: int = IMAGES_LIMIT,
    uint8: bool = False,
    progress: Progress = SILENT,
) -> ExportedFolder:
    """Write a run in these formats into a new or empty folder. The run is converted and compared once. uint8: as of `export`.

    Nothing is written where one of the formats refuses it. Raises as `gossamer.export.formats.export`.
    """
    check_folder(out)
    formats.check_licence(licence)
    for name in names:
        formats.check_uint8(name, uint8)
        formats.check_installed(name)
    from gossamer.export import onnx  # torch, which a model file does without

    model = onnx.convert(folder, which, licence, images_limit, progress)
    file = parse_model_file(model.data, str(folder))
    made: list[tuple[str, FileContents, Exported]] = []
    for name in names:
        place, module = (
            Path(out) / file_name(Path(folder).resolve().name, name),
            importlib.import_module(FORMATS[name].module),
        )
        converted: ConvertedModel = model
        contents = FileContents(model.data, {})
        if name != "onnx" and FORMATS[name].instead:  # made of the run itself
            converted = module.convert(folder, which, licence, images_limit, progress)
            contents = FileContents(converted.data, converted.beside)
        elif name != "onnx":
            contents, _, _ = formats.made_from(file, place, name, progress, uint8)
        verifications, notes = formats.verified(contents, place, module)
        made.append(
            (
                place.name,
                contents,
                Exported(
                    str(place),
                    name,
                    contents.size,
                    model.opset,
                    model.tolerance,
                    model.comparison,
                    verifications,
                    (*converted.notes, *notes),
                ),
            )
        )
    return _write(out, made)


def export_file(
    path: str | Path, out: str | Path, names: Sequence[str], *, uint8: bool = False, progress: Progress = SILENT
) -> ExportedFolder:
    """Write a model file in these formats into a new or empty folder. uint8: as of `export`.

    Nothing is written where one of the formats refuses it. Raises as `gossamer.export.formats.export_file`.
    """
    check_folder(out)
    for name in names:
        formats.check_from_file(path, name)
        formats.check_uint8(name, uint8)
        formats.check_installed(name)
    file = read_model_file(path)
    made: list[tuple[str, FileContents, ExportedFile]] = []
    for name in names:
        place = Path(out) / file_name(Path(path).stem, name)
        contents, loss, beside = formats.made_from(file, place, name, progress, uint8)
        module = importlib.import_module(FORMATS[name].module)
        verifications, notes = formats.verified(contents, place, module) if file.metadata is not None else ((), ())
        made.append(
            (place.name, contents, ExportedFile(str(place), name, contents.size, beside, loss, verifications, notes))
        )
    return _write(out, made)


def _write(
    out: str | Path,
    made: Sequence[tuple[str, FileContents, Exported]] | Sequence[tuple[str, FileContents, ExportedFile]],
) -> ExportedFolder:
    with atomic_folder(out) as folder:
        for name, contents, _ in made:
            (folder / name).write_bytes(contents.data)
            for suffix, data in contents.beside.items():
                (folder / name).with_suffix(suffix).write_bytes(data)
    return ExportedFolder(str(out), tuple(result for _, _, result in made))

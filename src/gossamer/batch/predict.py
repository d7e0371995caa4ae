"""`gossamer.predict_many`: answers for any number of images into a folder, by several processes, resumable."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gossamer.batch.folder import NETWORK, WORK, AnswerFolder, Record
from gossamer.batch.plan import Plan, Scan, first_plan, next_plan, scan
from gossamer.batch.rows import check_format
from gossamer.batch.workers import answer_units
from gossamer.errors import InputError, MissingPackageError, UnknownNameError
from gossamer.host.machine import usable_cores
from gossamer.host.progress import SILENT, Progress, one_line
from gossamer.host.shown import Report
from gossamer.host.storage import write_bytes
from gossamer.modelfile.metadata import read_model_file
from gossamer.predictions.classes import check_top
from gossamer.predictions.limits import DecodingLimits
from gossamer.runtime.model import load, open_model
from gossamer.runtime.table import AUTO, RUNTIMES
from gossamer.targets import FILES, file_kind, target_of

MOST_WORKERS = 1024
EVERY = 10.0  # seconds between two lines of progress

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class BatchResult(Report):
    """What is in a folder of answers when all is answered, and what this start has done for it.

    images: rows of images, of which `unreadable` have a reason in place of an answer. repeated: members of shards with the
    name of an earlier one, passed over. damaged: a line for each shard that could not be read to its end. units_now,
    images_now, seconds: of this start.
    """

    out: str
    model: str
    sha256: str
    runtime: str
    workers: int
    units: int
    images: int
    unreadable: int
    repeated: int
    damaged: tuple[str, ...]
    units_now: int
    images_now: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Of this start, its preparation included."""
        return self.images_now / self.seconds if self.seconds else 0.0

    @property
    def exit_code(self) -> int:
        """2 where no image could be read, or a shard not to its end."""
        return 2 if self.damaged or self.images == self.unreadable else 0

    def text(self) -> str:
        """Lines for a person."""
        lines = [one_line(f"damaged: {line}") for line in self.damaged]
        if self.repeated:
            lines.append(f"{self.repeated} images in shards have the name of an earlier one and are passed over")
        now = f"{self.images_now} of them now" if self.units_now else "nothing was left to do"
        speed = f" in {self.seconds:.1f} s, {self.images_per_second:.0f} images/s" if self.units_now else ""
        lines.append(
            f"{one_line(self.out)}: {self.images} images in {self.units} units, {self.unreadable} unreadable; {now}{speed}"
        )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "damaged": list(self.damaged), "images_per_second": self.images_per_second}


class _Network(NamedTuple):
    """What the workers open. compiled: the native file of an ONNX file, compiled once for all of them."""

    path: str
    runtime: str
    sha256: str
    compiled: bytes | None


def predict_many(
    model: StrPath,
    source: StrPath | Iterable[StrPath],
    out: StrPath,
    workers: int = 0,
    *,
    top: int = 1,
    batch: int = 32,
    threshold: float | None = None,
    iou: float | None = None,
    max_boxes: int | None = None,
    runtime: str = AUTO,
    threads: int = 0,
    format: str = "jsonl",
    progress: Progress = SILENT,
) -> BatchResult:
    """Answer all images of `source` into the folder `out`; called again, it does what is missing there.

    model: a model file or a compiled file. source: images, folders and .tar shards, one or several. workers: processes; 0
    is one a core. threads: of the network in each of them; 0 divides the cores among them. format: jsonl or parquet. top to
    runtime: as `Model.predict` and `load` have them. `out` holds a row an image in rows/, each key once.

    Raises DataError (a source that is missing, empty or named twice), InputError (another model, other settings or sources
    than those that began `out`, or another process that fills it), ModelFileError, StorageError, MissingPackageError,
    UnknownNameError, SettingsError.
    """
    started = time.monotonic()
    sources = [Path(each) for each in ([source] if isinstance(source, (str, os.PathLike)) else source)]
    _check_numbers(workers, threads)
    check_top(top, batch)
    check_format(format)
    limits = DecodingLimits(threshold, iou, max_boxes)
    target_of(model, FILES)
    network = _open(os.fspath(model), runtime, limits, top)
    found = scan(sources)
    asked: dict[str, Any] = {"top": top, "batch": batch, "threshold": threshold, "iou": iou, "max_boxes": max_boxes}
    asked |= {"runtime": network.runtime, "format": format}
    folder = AnswerFolder(out)
    folder.begin()
    try:
        _check_same(folder, network, os.fspath(model), asked, [str(each) for each in sources])
        plan, done = _plan(folder, found, progress)
        found.shards.clear()
        found.files.clear()
        todo = [unit for unit in plan.units if unit.number not in done]
        count = min(workers or usable_cores(), max(1, len(todo)))
        share = max(1, usable_cores() // count)
        if network.compiled is not None:
            write_bytes(folder.path / WORK / NETWORK, network.compiled)
        config = {
            "model": os.fspath(folder.path / WORK / NETWORK if network.compiled is not None else network.path),
            "runtime": AUTO if network.compiled is not None else network.runtime,
            "check": network.compiled is None,
            "sha256": network.sha256,
            "out": os.fspath(folder.path),
            "threads": threads or share,
            "decoders": share,
            "top": top,
            "limits": [threshold, iou, max_boxes],
            "batch": batch,
            "format": format,
        }
        sizes = {unit.number: unit.size for unit in plan.units}
        clock = _Clock(progress, sum(sizes[unit.number] for unit in todo), len(todo))

        def committed(record: Record) -> None:
            done[record["unit"]] = record
            clock.finished(sizes[record["unit"]])

        progress.say(
            f"{network.runtime}, {count} workers: {len(todo)} of {len(plan.units)} units to answer, "
            f"{sum(unit.size for unit in todo) / 1e6:.0f} MB"
        )
        if todo:
            answer_units(folder, todo, config, count, committed, clock.tell)
        now = [done[unit.number] for unit in todo]
        every = [done[unit.number] for unit in plan.units]
    finally:
        folder.end()
    return BatchResult(
        os.fspath(out),
        os.fspath(model),
        network.sha256,
        network.runtime,
        count,
        len(every),
        sum(record["images"] for record in every),
        sum(record["unreadable"] for record in every),
        sum(record["repeated"] for record in every),
        tuple(record["damaged"] for record in every if record["damaged"]),
        len(now),
        sum(record["images"] for record in now),
        time.monotonic() - started,
    )


class _Clock:
    """Lines of progress: images a second and the time left, by the bytes of the units."""

    def __init__(self, progress: Progress, size: int, units: int) -> None:
        self._progress, self._size, self._units = progress, size, units
        self._started = self._said = time.monotonic()
        self._images = self._done = self._bytes = 0

    def finished(self, size: int) -> None:
        """A unit of so many bytes is committed."""
        self._done += 1
        self._bytes += size

    def tell(self, images: int, line: str) -> None:
        """So many more images are answered; a line that is to be said now."""
        self._images += images
        if line:
            self._progress.say(line)
        now = time.monotonic()
        if now - self._said < EVERY:
            return
        self._said = now
        past = now - self._started
        text = f"{self._images} images, {self._done}/{self._units} units, {self._images / past:.0f} images/s"
        if self._bytes:
            text += f", {duration(past * (self._size - self._bytes) / self._bytes)} left"
        self._progress.say(text)


def duration(seconds: float) -> str:
    """About so long, for a person."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _check_numbers(workers: Any, threads: Any) -> None:
    for name, value in (("workers", workers), ("threads", threads)):
        if type(value) is not int or not 0 <= value <= MOST_WORKERS:
            raise InputError(
                f"{name} {str(value)[:40]}", f"0 (chosen by the cores) to {MOST_WORKERS}", "give such a number"
            )


def _open(path: str, runtime: str, limits: DecodingLimits, top: int) -> _Network:
    """The runtime that `load` would take, tried here before a worker starts. Raises what `load` raises."""
    if runtime not in (AUTO, *RUNTIMES):
        raise UnknownNameError("runtime", runtime, (AUTO, *RUNTIMES))
    if file_kind(path) != "model file":
        model = load(path, runtime=runtime, threads=1)
        limits.check(model.need_metadata().heads, top)
        return _Network(path, AUTO, model.sha256, None)
    file = read_model_file(path)
    if file.metadata is not None and runtime in (AUTO, "native"):
        limits.check(file.metadata.heads, top)
        try:
            from gossamer.compile.write import compile_bytes
            from gossamer.runtime.native import Native, library

            library()
            data = compile_bytes(file, "float32")[0]
            with tempfile.TemporaryDirectory() as place:
                compiled = Path(place) / NETWORK
                compiled.write_bytes(data)
                Native(compiled, 1).close()  # an engine that was built from other sources may refuse it
            return _Network(path, "native", file.sha256, data)
        except (MissingPackageError, InputError):
            pass  # `open_model` takes the next one, or says why there is none
    model = open_model(file, runtime, 1)
    limits.check(model.need_metadata().heads, top)
    return _Network(path, model.runtime_name, file.sha256, None)


def _check_same(folder: AnswerFolder, network: _Network, model: str, asked: dict[str, Any], sources: list[str]) -> None:
    """Save what is asked in a new folder. Raises InputError where another one was begun otherwise."""
    saved = folder.settings()
    if saved is None:
        folder.save_settings({"model": model, "sha256": network.sha256, "settings": asked, "sources": sources})
        return
    other = "give another --out"
    if saved["sha256"] != network.sha256:
        raise InputError(
            f"{folder.path}: holds answers of {saved['model']} with SHA-256 {str(saved['sha256'])[:12]}..., "
            f"{model} has {network.sha256[:12]}...",
            "the model file that began it",
            other,
        )
    for name, value in asked.items():
        before = saved["settings"].get(name)
        if before != value:
            raise InputError(
                f"{folder.path}: was begun with {name} {before}, not {value}", "the settings that began it", other
            )
    if sorted(saved["sources"]) != sorted(sources):
        raise InputError(
            f"{folder.path}: was begun with {', '.join(saved['sources'][:3])}{' ...' if len(saved['sources']) > 3 else ''}, not "
            f"{', '.join(sources[:3])}{' ...' if len(sources) > 3 else ''}",
            "the sources that began it",
            f"{other}; images that are added to a source are answered at the next start",
        )


def _plan(folder: AnswerFolder, found: Scan, progress: Progress) -> tuple[Plan, dict[int, Record]]:
    """The units, saved, and the lines of the log of those that need nothing."""
    records, notes = folder.committed()
    saved = folder.plan()
    if saved is None:
        plan = Plan(first_plan(found), True, [])
    else:
        plan = next_plan(saved, found, {number: record["fingerprint"] for number, record in records.items()})
    if plan.changed:
        folder.save_plan(plan.units)
    for note in [*notes, *plan.notes]:
        progress.say(note)
    fingerprints = {unit.number: unit.fingerprint for unit in plan.units}
    return plan, {
        number: record for number, record in records.items() if fingerprints.get(number) == record["fingerprint"]
    }

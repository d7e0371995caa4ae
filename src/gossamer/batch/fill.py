"""Units of work of a source answered into a folder: by processes of this machine or of a Ray cluster, what is missing only."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gossamer.batch.folder import NETWORK, WORK, AnswerFolder, Record
from gossamer.batch.plan import Plan, Scan, first_plan, next_plan
from gossamer.batch.rays import answer_on_ray
from gossamer.batch.rows import VECTORS
from gossamer.batch.workers import answer_units
from gossamer.errors import InputError, MissingPackageError, UnknownNameError
from gossamer.host.cluster import connected
from gossamer.host.machine import usable_cores
from gossamer.host.progress import Progress, one_line
from gossamer.host.storage import write_bytes
from gossamer.host.text import counted
from gossamer.modelfile.metadata import read_model_file
from gossamer.predictions.limits import OWN, DecodingLimits
from gossamer.runtime.model import load, open_model
from gossamer.runtime.table import AUTO, RUNTIMES
from gossamer.targets import file_kind

MOST_WORKERS = 1024
SHOWN = 10  # shards that may be cut off, each with a line; the others are counted
EVERY = 10.0  # seconds between two lines of progress


class Network(NamedTuple):
    """What the workers open. compiled: the native file of an ONNX file, compiled once for all of them."""

    path: str
    runtime: str
    sha256: str
    compiled: bytes | None


@dataclass(frozen=True)
class Job:
    """What is asked of a folder. out: the folder; sources: as they were given; settings: those that the rows depend on.

    top, limits: of the answers. align: files of a unit are a multiple of so many. workers: 0 is one a core, or all of the
    cluster; threads: of the network in each, 0 divides the cores. ray: the address of a cluster, "" for none.
    """

    out: os.PathLike[str] | str
    model: str
    sources: tuple[str, ...]
    settings: dict[str, Any]
    top: int = 1
    limits: DecodingLimits = OWN
    batch: int = 32
    format: str = "jsonl"
    workers: int = 0
    threads: int = 0
    ray: str = ""
    align: int = 1


class Filled(NamedTuple):
    """workers: how many there were. records: lines of the log of all units, in their order; now: of this start. failed: a line
    for each unit that was given up. folder: where they are."""

    workers: int
    records: list[Record]
    now: list[Record]
    failed: tuple[str, ...]
    folder: AnswerFolder


@contextlib.contextmanager
def filled_folder(job: Job, network: Network, found: Scan, progress: Progress) -> Iterator[Filled]:
    """Answer the units of `found` that are not in the folder yet; within the block no other process fills it.

    Raises InputError (another model, settings or sources than those that began it, or another process that fills it; a
    cluster that is not there), StorageError, MissingPackageError, and what the workers raise.
    """
    folder = AnswerFolder(job.out)
    folder.begin()
    try:
        _check_same(folder, network, job.model, job.settings, list(job.sources))
        folder.forget_failed()
        plan, done = _plan(folder, found, job, progress)
        found.shards.clear()
        found.files.clear()
        todo = [unit for unit in plan.units if unit.number not in done]
        if network.compiled is not None:
            write_bytes(folder.path / WORK / NETWORK, network.compiled)
        config = {
            "model": os.fspath(folder.path / WORK / NETWORK if network.compiled is not None else network.path),
            "runtime": AUTO if network.compiled is not None else network.runtime,
            "check": network.compiled is None,
            "sha256": network.sha256,
            "out": os.fspath(folder.path),
            "top": job.top,
            "limits": [job.limits.threshold, job.limits.iou, job.limits.max_boxes],
            "batch": job.batch,
            "format": job.format,
        }
        sizes = {unit.number: unit.size for unit in plan.units}
        clock = _Clock(progress, sum(sizes[unit.number] for unit in todo), len(todo))

        def committed(record: Record) -> None:
            done[record["unit"]] = record
            clock.finished(sizes[record["unit"]])

        def say(count: int) -> None:
            progress.say(
                f"{network.runtime}, {counted(count, 'worker')}: {len(todo)} of {counted(len(plan.units), 'unit')} to answer, "
                f"{sum(unit.size for unit in todo) / 1e6:.0f} MB"
            )

        if job.ray and todo:
            with connected(job.ray, progress) as ray:
                cores = max(1, int(ray.cluster_resources().get("CPU", 1)) // (job.threads or 1))
                count = min(job.workers or cores, cores, len(todo))
                say(count)
                config |= {"threads": job.threads or 1, "decoders": 1, "folder": os.getcwd()}
                answer_on_ray(ray, folder, todo, config, count, committed, clock.tell)
        else:
            count = min(job.workers or usable_cores(), max(1, len(todo)))
            share = max(1, usable_cores() // count)
            say(count)
            config |= {"threads": job.threads or share, "decoders": share}
            if todo:
                answer_units(folder, todo, config, count, committed, clock.tell)
        failed = folder.failed()
        if failed:
            folder.remove_unfinished()  # rows that their workers were writing
        records, now = ([done[each.number] for each in units if each.number in done] for units in (plan.units, todo))
        yield Filled(count, records, now, failed, folder)
    except BaseException:
        folder.remove_unfinished()  # of workers that were ended with the rest: a full disk has no room for them
        raise
    finally:
        folder.end()


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
        text = f"{counted(self._images, 'image')}, {self._done}/{self._units} units, {self._images / past:.0f} images/s"
        if self._bytes:
            text += f", {duration(past * (self._size - self._bytes) / self._bytes)} left"
        self._progress.say(text)


def duration(seconds: float) -> str:
    """About so long, for a person."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def failed_lines(failed: Sequence[str]) -> list[str]:
    """Lines for a person on units that were given up."""
    lines = [one_line(f"failed: {line}") for line in failed[:SHOWN]]
    if failed:
        lines.append(f"{counted(len(failed), 'unit')} failed: the same command tries them again")
    return lines


def doubtful_lines(doubtful: Sequence[str]) -> list[str]:
    """Lines for a person on shards that may be cut off."""
    lines = [one_line(f"warning: {line}") for line in doubtful[:SHOWN]]
    if doubtful:
        lines.append(
            f"{counted(len(doubtful), 'shard')} may be cut off: compare the number of images with the original's"
        )
    return lines


def check_numbers(workers: Any, threads: Any = 0) -> None:
    """Raises InputError."""
    for name, value in (("workers", workers), ("threads", threads)):
        if type(value) is not int or not 0 <= value <= MOST_WORKERS:
            raise InputError(
                f"{name} {str(value)[:40]}", f"0 (chosen by the cores) to {MOST_WORKERS}", "give such a number"
            )


def open_network(path: str, runtime: str, limits: DecodingLimits, top: int) -> Network:
    """The runtime that `load` would take, tried here before a worker starts. Raises what `load` raises."""
    if runtime not in (AUTO, *RUNTIMES):
        raise UnknownNameError("runtime", runtime, (AUTO, *RUNTIMES))
    if file_kind(path) != "model file":
        model = load(path, runtime=runtime, threads=1)
        limits.check(model.need_metadata().heads, top)
        return Network(path, AUTO, model.sha256, None)
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
            return Network(path, "native", file.sha256, data)
        except (MissingPackageError, InputError):
            pass  # `open_model` takes the next one, or says why there is none
    model = open_model(file, runtime, 1)
    limits.check(model.need_metadata().heads, top)
    return Network(path, model.runtime_name, file.sha256, None)


def _check_same(folder: AnswerFolder, network: Network, model: str, asked: dict[str, Any], sources: list[str]) -> None:
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


def _plan(folder: AnswerFolder, found: Scan, job: Job, progress: Progress) -> tuple[Plan, dict[int, Record]]:
    """The units, saved, and the lines of the log of those that need nothing."""
    records, notes = folder.committed()
    saved = folder.plan()
    # of an index the order counts, and those that changed move the ones behind them: units are known by what is in them
    if saved is None or job.format == VECTORS:
        units = first_plan(found, job.align)
        plan = Plan(units, [unit.line for unit in units] != [unit.line for unit in saved or ()], [])
    else:
        plan = next_plan(saved, found, {number: record["fingerprint"] for number, record in records.items()})
    if plan.changed:
        folder.save_plan(plan.units)
    for note in [*notes, *plan.notes]:
        progress.say(note)
    fingerprints = {unit.number: unit.fingerprint for unit in plan.units}
    sound = {number: each for number, each in records.items() if fingerprints.get(number) == each["fingerprint"]}
    # what was answered of images as they are no longer: a unit that is given up, or is gone, has no rows
    folder.remove_rows(record for number, record in records.items() if number not in sound)
    return plan, sound

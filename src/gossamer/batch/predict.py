"""`gossamer.predict_many`: answers for any number of images into a folder, by several processes, resumable."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gossamer.batch.fill import Job, check_numbers, doubtful_lines, failed_lines, filled_folder, open_network
from gossamer.batch.plan import scan
from gossamer.batch.rows import check_format
from gossamer.host.cluster import check_address
from gossamer.host.progress import SILENT, Progress, one_line
from gossamer.host.shown import Report
from gossamer.host.text import counted
from gossamer.predictions.classes import check_top
from gossamer.predictions.limits import DecodingLimits
from gossamer.runtime.table import AUTO
from gossamer.targets import FILES, target_of

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class BatchResult(Report):
    """What is in a folder of answers when all is answered, and what this start has done for it.

    images: rows of images, of which `unreadable` have a reason in place of an answer. repeated: members of shards with the
    name of an earlier one, passed over. damaged: a line for each shard that could not be read to its end. doubtful: a
    line for each that ends without the closing zeros of a tar, as one cut off between two images does, or goes on behind them.
    failed: a line for each unit that was given up, as its worker was lost twice; its images have no rows, and the same call
    tries it again. units: those that are answered. units_now, images_now, seconds: of this start.
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
    doubtful: tuple[str, ...]
    failed: tuple[str, ...]
    units_now: int
    images_now: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Of this start, its preparation included."""
        return self.images_now / self.seconds if self.seconds else 0.0

    @property
    def exit_code(self) -> int:
        """2 where no image could be read, a shard not to its end, or a unit was given up."""
        return 2 if self.damaged or self.failed or self.images == self.unreadable else 0

    def text(self) -> str:
        """Lines for a person."""
        lines = [one_line(f"damaged: {line}") for line in self.damaged]
        lines += [*doubtful_lines(self.doubtful), *failed_lines(self.failed)]
        if self.repeated:
            lines.append(f"passed over: {counted(self.repeated, 'image')} in shards with the name of an earlier one")
        now = f"{self.images_now} of them now" if self.units_now else "nothing was left to do"
        speed = f" in {self.seconds:.1f} s, {self.images_per_second:.0f} images/s" if self.units_now else ""
        lines.append(
            f"{one_line(self.out)}: {counted(self.images, 'image')} in {counted(self.units, 'unit')}, {self.unreadable} unreadable; {now}{speed}"
        )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            "damaged": list(self.damaged),
            "doubtful": list(self.doubtful),
            "failed": list(self.failed),
            "images_per_second": self.images_per_second,
        }


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
    ray: str = "",
    progress: Progress = SILENT,
) -> BatchResult:
    """Answer all images of `source` into the folder `out`; called again, it does what is missing there.

    model: a model file or a compiled file. source: images, folders and .tar shards, one or several. workers: processes; 0
    is one a core. threads: of the network in each of them; 0 divides the cores among them. format: jsonl or parquet. top to
    runtime: as `Model.predict` and `load` have them. ray: the workers are those of a Ray cluster: "auto" (a running one, or one on
    this machine), "local", or its address; they see the same paths as this process, and `workers` is at most their number
    of cores. `out` holds a row an image in rows/, each key once.

    Raises DataError (a source that is missing, empty or named twice), InputError (another model, other settings or sources
    than those that began `out`, or another process that fills it), ModelFileError, StorageError, MissingPackageError,
    UnknownNameError, SettingsError.
    """
    started = time.monotonic()
    sources = [Path(each) for each in ([source] if isinstance(source, (str, os.PathLike)) else source)]
    check_numbers(workers, threads)
    check_top(top, batch)
    check_format(format)
    check_address(ray)
    limits = DecodingLimits(threshold, iou, max_boxes)
    target_of(model, FILES)
    network = open_network(os.fspath(model), runtime, limits, top)
    asked: dict[str, Any] = {"top": top, "batch": batch, "threshold": threshold, "iou": iou, "max_boxes": max_boxes}
    asked |= {"runtime": network.runtime, "format": format}
    job = Job(out, os.fspath(model), tuple(map(str, sources)), asked, top, limits, batch, format, workers, threads, ray)
    with filled_folder(job, network, scan(sources), progress) as filled:
        count, every, now = filled.workers, filled.records, filled.now
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
        tuple(record["doubtful"] for record in every if record.get("doubtful")),
        filled.failed,
        len(now),
        sum(record["images"] for record in now),
        time.monotonic() - started,
    )

"""How far a folder of answers is, also while another process fills it."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

from gossamer.batch.fill import doubtful_lines, duration, failed_lines
from gossamer.batch.folder import ALLOWED, AnswerFolder
from gossamer.errors import DataError
from gossamer.host.progress import one_line
from gossamer.host.shown import Report
from gossamer.host.text import counted


@dataclass(frozen=True, repr=False)
class BatchStatus(Report):
    """units, images, unreadable: committed. failed: lines on units that the last start gave up. total_units: of the plan. filled_by: the process that fills it now, or None;
    images_per_second, seconds_left: of that process, or None."""

    out: str
    model: str
    units: int
    total_units: int
    images: int
    unreadable: int
    damaged: tuple[str, ...]
    doubtful: tuple[str, ...]
    failed: tuple[str, ...]
    filled_by: int | None
    images_per_second: float | None
    seconds_left: float | None

    @property
    def complete(self) -> bool:
        """Whether all units are answered."""
        return 0 < self.total_units <= self.units

    def text(self) -> str:
        """Lines for a person."""
        are = "is" if self.total_units == 1 else "are"
        share = f"{self.units} of {counted(self.total_units, 'unit')} {are} answered"
        lines = [f"{one_line(self.out)}: {share}: {counted(self.images, 'image')}, {self.unreadable} unreadable"]
        if self.filled_by is not None:
            speed = "" if self.images_per_second is None else f", {self.images_per_second:.0f} images/s"
            left = "" if self.seconds_left is None else f", {duration(self.seconds_left)} left"
            lines.append(f"process {self.filled_by} fills it{speed}{left}")
        elif not self.complete:
            lines.append("no process fills it; the same command resumes it")
        lines += [one_line(f"damaged: {line}") for line in self.damaged]
        return "\n".join([*lines, *doubtful_lines(self.doubtful), *failed_lines(self.failed)])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            "damaged": list(self.damaged),
            "doubtful": list(self.doubtful),
            "failed": list(self.failed),
            "complete": self.complete,
        }


def batch_status(out: str | os.PathLike[str]) -> BatchStatus:
    """How far the folder is. Raises DataError where it is none."""
    folder = AnswerFolder(out)
    if folder.path.exists() and not folder.path.is_dir():
        raise DataError(f"{os.fspath(out)}: is no folder", ALLOWED, "check the path")
    settings = folder.settings()
    if settings is None:
        what = "holds no batch.json" if folder.path.exists() else "no such folder"
        raise DataError(f"{os.fspath(out)}: {what}", ALLOWED, "check the path")
    units, size = folder.totals()
    # a unit whose images have changed since it was answered, or are gone, is not answered as it is planned now
    records = [each for number, each in folder.records()[0].items() if units.get(number) == each["fingerprint"]]
    filler = folder.filler()
    speed = left = None
    if filler is not None:
        mine = [record for record in records if record.get("at", 0) >= filler["started"]]
        past = time.time() - filler["started"]
        read = sum(record.get("input_bytes", 0) for record in mine)
        if read and past > 0:
            speed = sum(record["images"] for record in mine) / past
            done = sum(record.get("input_bytes", 0) for record in records)
            left = past * max(0, size - done) / read
    return BatchStatus(
        os.fspath(out),
        str(settings["model"]),
        len(records),
        len(units),
        sum(record["images"] for record in records),
        sum(record["unreadable"] for record in records),
        tuple(record["damaged"] for record in records if record["damaged"]),
        tuple(record["doubtful"] for record in records if record.get("doubtful")),
        folder.failed(),
        None if filler is None else filler["pid"],
        speed,
        left,
    )

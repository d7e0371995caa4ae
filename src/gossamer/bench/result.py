"""The result of a benchmark: rows, and the table, the JSON and the chart drawn from them."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.charts.chart_file import check_chart_path, write_chart
from gossamer.charts.intervals import Interval, interval_chart
from gossamer.charts.svg import Markup
from gossamer.errors import InputError
from gossamer.host.shown import Report
from gossamer.host.text import counted, dimensions, fixed, format_table, milliseconds, thread_count


@dataclass(frozen=True)
class Measurement:
    """One candidate: times in milliseconds per call of `batch` images, memory in bytes; None where not measured.

    p10_ms, p90_ms: a tenth of the runs was faster, a tenth slower. round_medians_ms: the median of each round, in
    order of time. file_bytes: of the file made for the runtime, with those beside it; difference: the largest of its outputs
    from those of the model file; both where every runtime had its own. import_ms: importing the runtime. load_ms: opening the model after that. first_ms: the first call.
    peak_bytes: most memory of its process; growth_bytes: how much of it came after the import. error: why there is no
    measurement. input: its shape; inputs: those of a network of several, whose `input` is ().
    """

    target: str
    runtime: str
    threads: int
    batch: int
    version: str | None = None
    note: str = ""
    input: tuple[int, ...] = ()
    inputs: tuple[tuple[int, ...], ...] = ()
    runs: int = 0
    median_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    round_medians_ms: tuple[float, ...] = ()
    images_per_second: float | None = None
    import_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_bytes: int | None = None
    growth_bytes: int | None = None
    file_bytes: int | None = None
    difference: float | None = None
    error: str = ""


@dataclass(frozen=True, repr=False)
class Benchmark(Report):
    """Rows measured together, on the machine that `machine` describes. load_average: of the minute before."""

    rows: tuple[Measurement, ...]
    machine: dict[str, Any]
    rounds: int
    seconds: float
    load_average: float | None

    @property
    def exit_code(self) -> int:
        """1 if nothing could be measured."""
        return int(all(row.error for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """A table for people, at most 100 columns wide."""
        lines = [
            f"{self.machine['cpu']}, {counted(self.machine['cores'], 'core')}; {counted(self.rounds, 'round')} in turn"
        ]
        if self.load_average is not None and self.load_average > 0.5:
            lines.append(f"this machine was busy when it began (load {self.load_average:.1f}): do not trust small gaps")
        for target in dict.fromkeys(row.target for row in self.rows):
            rows = [row for row in self.rows if row.target == target]
            lines += ["", *_table(target, [row for row in rows if not row.error])]
            for line in dict.fromkeys(f"  not measured: {row.runtime}: {row.error}" for row in rows if row.error):
                lines += textwrap.wrap(line, 100, subsequent_indent="    ", break_on_hyphens=False)
        return "\n".join(lines)

    def plot(self, path: str | Path) -> None:
        """Write the chart of the medians with their spread from p10 to p90.

        path: ends in .svg. Raises InputError for another name or where nothing was measured, StorageError.
        """
        check_chart_path(path)
        if not any(row.median_ms for row in self.rows):
            raise InputError("no candidate was measured", "at least one", "see the reasons in the table")
        write_chart(path, _chart(self))


COLUMNS = ("runtime", "threads", "median ms", "p10", "p90", "images/s", "load ms", "first ms", "peak MiB", "version")
WIDTHS = (13, 7, 9, 8, 8, 9, 8, 9, 8, 12)


def _table(target: str, rows: Sequence[Measurement]) -> Iterator[str]:
    if not rows:
        yield target
        return
    given = " and ".join(dimensions(shape) for shape in rows[0].inputs)
    yield f"{target}, inputs {given}" if given else f"{target}, input {dimensions(rows[0].input)}"
    if any(row.file_bytes is not None for row in rows):
        for line in format_table(FILE_COLUMNS, list(map(_of_files, rows)), left=(0, -1), widths=FILE_WIDTHS, gap=" "):
            yield f" {line}"
        return
    cells = [
        (
            row.runtime,
            str(row.threads),
            fixed(row.median_ms, 3),
            fixed(row.p10_ms, 3),
            fixed(row.p90_ms, 3),
            fixed(row.images_per_second, 1),
            fixed(row.load_ms, 0),
            fixed(row.first_ms, 0),
            fixed(None if row.peak_bytes is None else row.peak_bytes / 2**20, 0),
            row.version or "?",
        )
        for row in rows
    ]
    for line in format_table(COLUMNS, cells, left=(0, -1), widths=WIDTHS, gap=" "):
        yield f" {line}"


FILE_COLUMNS = (
    "runtime",
    "threads",
    "file MB",
    "peak MiB",
    "load ms",
    "median ms",
    "images/s",
    "difference",
    "version",
)
FILE_WIDTHS = (13, 7, 8, 8, 8, 9, 9, 10, 12)


def _of_files(row: Measurement) -> tuple[str, ...]:
    """The cells of a runtime with the file that was made for it."""
    return (
        row.runtime,
        str(row.threads),
        fixed(None if row.file_bytes is None else row.file_bytes / 1e6, 2),
        fixed(None if row.peak_bytes is None else row.peak_bytes / 2**20, 0),
        fixed(row.load_ms, 0),
        fixed(row.median_ms, 3),
        fixed(row.images_per_second, 1),
        "" if row.difference is None else f"{row.difference:.2g}",
        row.version or "?",
    )


# runtime -> class of its colour in chart.css
COLOURS = {
    "torch": "p1",
    "torch.compile": "p5",
    "onnxruntime": "p0",
    "openvino": "p2",
    "native": "p3",
    "litert": "p4",
    "ncnn": "p6",
    "executorch": "p7",
    "reference": "c",
}


def _chart(result: Benchmark) -> Markup:
    """The medians with their spread from p10 to p90."""
    rows = [row for row in result.rows if row.median_ms is not None]
    several = len({row.target for row in rows}) > 1
    intervals = []
    for row in rows:
        assert row.median_ms is not None and row.p10_ms is not None and row.p90_ms is not None
        name = f"{Path(row.target).name + '  ' if several else ''}{row.runtime}, {thread_count(row.threads)}"
        written = milliseconds(row.median_ms)
        intervals.append(Interval(name, row.p10_ms, row.median_ms, row.p90_ms, written, COLOURS[row.runtime]))
    images = counted(rows[0].batch, "image")
    axis = f"milliseconds per call of {images}: median, p10 to p90"
    title = f"{'' if several else Path(rows[0].target).name + ', '}{result.machine['cpu']}"
    return interval_chart("Latency", intervals, axis=axis, title=title)

"""What a benchmark found: rows, and the table, the JSON and the picture made of them."""

from __future__ import annotations

import dataclasses
import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.errors import InputError, MissingPackageError
from gossamer.host.storage import write_bytes


@dataclass(frozen=True)
class Row:
    """One candidate: times in milliseconds a call of `batch` images, memory in bytes; None where not measured.

    p10_ms, p90_ms: a tenth of the runs was faster, a tenth slower. round_medians_ms: the median of each round, in
    order of time. import_ms: importing the runtime. load_ms: opening the model after that. first_ms: the first call.
    peak_bytes: most memory of its process; growth_bytes: how much of it came after the import. error: why there is no
    measurement.
    """

    target: str
    runtime: str
    threads: int
    batch: int
    version: str | None = None
    note: str = ""
    input: tuple[int, ...] = ()
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
    error: str = ""


@dataclass(frozen=True)
class Benchmark:
    """Rows measured together, on the machine that `machine` describes. load_average: of the minute before."""

    rows: tuple[Row, ...]
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
        lines = [f"{self.machine['cpu']}, {self.machine['cores']} cores; {self.rounds} rounds in turn"]
        if self.load_average is not None and self.load_average > 0.5:
            lines.append(f"this machine was busy when it began (load {self.load_average:.1f}): do not trust small gaps")
        for target in dict.fromkeys(row.target for row in self.rows):
            rows = [row for row in self.rows if row.target == target]
            lines += ["", *_table(target, [row for row in rows if not row.error])]
            for line in dict.fromkeys(f"  not measured: {row.runtime}: {row.error}" for row in rows if row.error):
                lines += textwrap.wrap(line, 100, subsequent_indent="    ", break_on_hyphens=False)
        return "\n".join(lines)

    def plot(self, path: str | Path) -> None:
        """Draw the medians with whiskers from p10 to p90 into a .png, .svg or .pdf file.

        Raises InputError for another kind of file or where nothing was measured, MissingPackageError, StorageError.
        """
        kind = Path(path).suffix.lower().removeprefix(".")
        if kind not in ("png", "svg", "pdf"):
            raise InputError(f"{path}: a picture of type {kind!r}", ".png, .svg or .pdf", "give such a name")
        if not any(row.median_ms for row in self.rows):
            raise InputError("no candidate was measured", "at least one bar", "see the reasons in the table")
        write_bytes(path, _picture(self, kind))


COLUMNS = ("runtime", "threads", "median ms", "p10", "p90", "images/s", "load ms", "first ms", "peak MiB", "version")
WIDTHS = (13, 7, 9, 8, 8, 9, 8, 9, 8, 12)


def _table(target: str, rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        yield target
        return
    yield f"{target}, input {'x'.join(map(str, rows[0].input))}"
    yield _line(COLUMNS)
    for row in rows:
        yield _line(
            (
                row.runtime,
                str(row.threads),
                _shown(row.median_ms, 3),
                _shown(row.p10_ms, 3),
                _shown(row.p90_ms, 3),
                _shown(row.images_per_second, 1),
                _shown(row.load_ms, 0),
                _shown(row.first_ms, 0),
                _shown(None if row.peak_bytes is None else row.peak_bytes / 2**20, 0),
                row.version or "?",
            )
        )


def _line(cells: Sequence[str]) -> str:
    first, *middle, last = (
        cell.ljust(w) if i in (0, 9) else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, WIDTHS))
    )
    return " ".join(["", first, *middle, last]).rstrip()


def _shown(value: float | None, digits: int) -> str:
    return "?" if value is None else f"{value:.{digits}f}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


# Okabe and Ito's colours, told apart by people who see colours differently
COLOURS = {
    "torch": "#E69F00",
    "torch.compile": "#D55E00",
    "onnxruntime": "#0072B2",
    "openvino": "#009E73",
    "native": "#CC79A7",
    "reference": "#999999",
}


def _picture(result: Benchmark, kind: str) -> bytes:
    """Horizontal bars of the medians; bytes of a picture."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError("matplotlib", "report", "the plot of a benchmark") from error
    rows = [row for row in result.rows if row.median_ms is not None]
    figure = Figure(figsize=(8, 1.6 + 0.45 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    several = len({row.target for row in rows}) > 1
    for place, row in enumerate(rows):
        assert row.median_ms is not None and row.p10_ms is not None and row.p90_ms is not None
        whisker = [[row.median_ms - row.p10_ms], [row.p90_ms - row.median_ms]]
        axes.barh(place, row.median_ms, xerr=whisker, color=COLOURS[row.runtime], capsize=4, height=0.7)
        axes.annotate(
            f" {row.median_ms:.3g}", (row.p90_ms, place), xytext=(4, 0), textcoords="offset points", va="center"
        )
    labels = [
        f"{Path(row.target).name + '  ' if several else ''}{row.runtime}, {_threads(row.threads)}" for row in rows
    ]
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, max(row.p90_ms or 0 for row in rows) * 1.15)
    images = "1 image" if rows[0].batch == 1 else f"{rows[0].batch} images"
    axes.set_xlabel(f"milliseconds a call of {images} (median; whiskers p10 to p90); shorter is faster")
    title = "" if several else f"{Path(rows[0].target).name}, "
    axes.set_title(f"{title}{result.machine['cpu']}", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=150)
    return buffer.getvalue()

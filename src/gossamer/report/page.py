"""The report as one HTML file: `write` makes it for a run folder, `render` turns the collected values into it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gossamer.errors import MissingPackageError
from gossamer.progress import SILENT, Progress
from gossamer.report import figures, formats
from gossamer.report.contents import ExportedFile, ReportData, flat, number, settings_by_group, stages
from gossamer.report.figures import Bar, Range, Series
from gossamer.report.findings import findings
from gossamer.report.formats import THIN
from gossamer.report.scores import calibrate, confused_pairs, wilson
from gossamer.storage import write_text

if TYPE_CHECKING:
    import jinja2

FOLDER = Path(__file__).parent
PAIRS = 20
SPLITS = {"train": "training", "val": "validation"}
PLOTTED_LATENCIES = 16
PLOTTED_STAGES = 16
# what HTML forbids in text, and a lone surrogate, which a file name that is not UTF-8 brings and UTF-8 cannot carry
UNPRINTABLE = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(0xD800, 0xE000)), "\ufffd")


def write(
    run_folder: str | Path,
    out: str | Path | None = None,
    *,
    model_file: str | Path | None = None,
    bench: str | Path | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write the report of `run_folder` to `out` (default: report.html in it) and return its path.

    model_file: the exported file (default: the only .onnx file in the folder, if there is one); it is verified.
    bench: what `gossamer bench --json` printed (default: bench.json in the folder, if there).
    Raises RunError, DataError, ModelFileError, StorageError, MissingPackageError.
    """
    from gossamer.report.collect import collect
    from gossamer.run import REPORT

    _environment()  # what is missing is said before minutes of scoring, not after
    html = render(collect(run_folder, model_file=model_file, bench=bench, progress=progress))
    path = Path(out) if out is not None else Path(run_folder) / REPORT
    write_text(path, html)
    return path


def render(data: ReportData) -> str:
    """The HTML page. Raises MissingPackageError."""
    environment = _environment()
    calibration = calibrate(data.evaluation.probabilities, data.evaluation.targets)
    html = environment.get_template("template.html").render(
        data=data,
        name=run_name(data),
        size=data.settings.input_size() or ("?", "?"),
        style=(FOLDER / "style.css").read_text(encoding="utf-8"),
        keys=key_figures(data),
        findings=findings(data, calibration),
        panels=_panels(data),
        best=data.best_row(),
        matrix=figures.matrix(data.evaluation.confusion, data.classes),
        pairs=confused_pairs(data.evaluation.confusion, PAIRS),
        mistakes_total=int(data.evaluation.confusion.sum() - data.evaluation.confusion.trace()),
        rows=_class_rows(data),
        calibration=calibration,
        reliability=figures.reliability(calibration) if calibration else "",
        splits=_splits(data),
        split_names=[SPLITS.get(name, name) for name in data.counts],
        checks=_checks(data.exported) if data.exported else [],
        stages=_stages(data),
        latency_plot=_latency_plot(data),
        settings=settings_by_group(data.settings),
        machine=flat(data.machine),
        bench=flat(data.bench),
        data_facts=flat({key: value for key, value in data.data.items() if key not in ("per_class", "images")}),
        network=describe_network(data),
    )
    return html.translate(UNPRINTABLE)


def _environment() -> jinja2.Environment:
    try:
        import jinja2
    except ImportError as error:
        raise MissingPackageError("jinja2", "report", "writing a report") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=formats.percent,
        points=formats.points,
        count=formats.count,
        short=formats.short,
        size=formats.size,
        milliseconds=formats.milliseconds,
        significant=formats.significant,
        duration=formats.duration,
        setting=_setting,
    )
    return environment


class KeyFigure(NamedTuple):
    """A number of the headline; `command` measures it where `value` is empty."""

    name: str
    value: str
    note: str
    command: str = ""


def key_figures(data: ReportData) -> list[KeyFigure]:
    """The headline's numbers: only what was measured."""
    run = shlex.quote(data.run)
    file = shlex.quote(data.exported.path if data.exported else f"{run_name(data)}.onnx")
    correct, total = int(data.evaluation.confusion.trace()), int(data.evaluation.confusion.sum())
    low, high = wilson(correct, total)
    height, width = data.settings.input_size() or (0, 0)
    macs = f"multiply-adds for one image of {height} × {width}"
    if data.cost.unknown:
        macs += f", without {sum(data.cost.unknown.values())} operations of unknown cost"
    figures = [
        KeyFigure(
            "Accuracy",
            formats.percent(correct / total if total else math.nan),
            f"95{THIN}% interval {formats.points(low)} to {formats.points(high)}; "
            f"{formats.count(correct)} of {formats.count(total)} {data.split} images",
        ),
        KeyFigure("Parameters", formats.short(data.cost.params), f"{formats.count(data.cost.params)} in all"),
        KeyFigure("MACs", formats.short(data.cost.macs), macs),
    ]
    if data.exported:
        note = f"{Path(data.exported.path).name}, {'verified' if data.exported.ok else 'verification FAILED'}"
        figures.append(KeyFigure("Model file", formats.size(data.exported.size), note))
    else:
        figures.append(KeyFigure("Model file", "", "", f"gossamer export {run} --out {file}"))
    fastest = min(
        (row for row in data.latencies if row.batch == 1 and row.median > 0), key=lambda row: row.median, default=None
    )
    if fastest:
        threads = f"{fastest.threads} thread{'s' if fastest.threads != 1 else ''}"
        note = f"median of one image, {fastest.runtime}, {threads}"
        figures.append(KeyFigure("Latency", formats.milliseconds(fastest.median), note))
    else:
        figures.append(KeyFigure("Latency", "", "", f"gossamer bench {run}"))
    return figures


def run_name(data: ReportData) -> str:
    """The name of the run folder."""
    return Path(data.run).absolute().name


def describe_network(data: ReportData) -> str:
    """The network in a few words: "mobilenet_v2, width 0.5, small input"."""
    settings = data.settings
    parts = [settings.net]
    if settings.width is not None:
        parts.append(f"width {settings.width:g}")
    if settings.small_input:
        parts.append("strides for small input")
    if settings.in_chans == 1:
        parts.append("grey input")
    return ", ".join(parts)


class Panel(NamedTuple):
    """A chart with its title, its series (for the key) and a note."""

    title: str
    series: list[Series]
    form: str
    svg: str
    note: str = ""


def _panels(data: ReportData) -> list[Panel]:
    epochs = data.column("epoch")

    def line(name: str, column: str, colour: str) -> Series:
        return Series(name, epochs, data.column(column), colour)

    best = data.best_row()
    mark = (number(best["epoch"]), number(best["val_accuracy"])) if best else None
    loss = [line("training", "loss", "a"), line("validation", "val_loss", "b")]
    accuracy = [line("validation", "val_accuracy", "b")]
    if any(math.isfinite(value) for value in data.column("val_top5")):
        accuracy.append(line("top 5", "val_top5", "c"))
    rate, speed = [line("", "lr", "a")], [line("", "images_per_second", "a")]
    times = [line("steps", "step_seconds", "a"), line("waiting", "data_seconds", "b")]
    smoothed = data.settings.label_smoothing or data.settings.mixup or data.settings.cutmix
    plain = "The training loss includes label smoothing or mixing; the validation loss does not." if smoothed else ""

    def share(value: float) -> str:
        return f"{value * 100:g}%"

    return [
        Panel("Loss", loss, "significant", figures.curves("Loss", loss), plain),
        Panel(
            "Accuracy",
            accuracy,
            "percent",
            figures.curves("Accuracy", accuracy, form=share, mark=mark),
            "The ring marks the weights that were kept." if mark else "",
        ),
        Panel("Learning rate", rate, "significant", figures.curves("Learning rate", rate, from_zero=True)),
        Panel("Images per second", speed, "count", figures.curves("Training images per second", speed, from_zero=True)),
        Panel(
            "Seconds an epoch",
            times,
            "significant",
            figures.curves("Seconds an epoch", times, from_zero=True),
            "Waiting: for data that were not yet decoded.",
        ),
    ]


def _class_rows(data: ReportData) -> list[dict[str, Any]]:
    """Per-class scores, the weakest first; classes without images last."""
    train = data.counts.get("train", ())
    rows = [
        {**row, "number": index, "train": train[index] if index < len(train) else None}
        for index, row in enumerate(data.evaluation.per_class)
    ]
    return sorted(rows, key=lambda row: (not row["support"], row["f1"] if math.isfinite(row["f1"]) else 2.0))


class SplitRow(NamedTuple):
    name: str
    images: int
    smallest: str
    smallest_count: int
    largest: str
    largest_count: int


def _splits(data: ReportData) -> list[SplitRow]:
    rows = []
    for split, counts in data.counts.items():
        name = SPLITS.get(split, split)
        small, large = min(range(len(counts)), key=counts.__getitem__), max(range(len(counts)), key=counts.__getitem__)
        rows.append(SplitRow(name, sum(counts), data.classes[small], counts[small], data.classes[large], counts[large]))
    return rows


class Check(NamedTuple):
    """One row of what verifying the model file found."""

    what: str
    result: str
    ok: bool


def _checks(exported: ExportedFile) -> list[Check]:
    found = exported.verification
    if found is None:
        return [Check("format", exported.problem, False)]
    many = f"{len(found.outputs)} check input{'s' if len(found.outputs) != 1 else ''}"
    same = sum(check.same for check in found.pixels)
    return [
        Check("format and SHA-256", found.sha256, True),
        Check(
            "outputs",
            f"{many}: differ by at most {found.largest_difference:.2g}, "
            f"allowed {found.tolerance:.2g}, with {found.runtime} ({found.why})",
            found.ok,
        ),
        Check(
            "preprocessing",
            f"pixels of {same} of {len(found.pixels)} check images are the same",
            same == len(found.pixels),
        ),
    ]


def _stages(data: ReportData) -> str:
    parts = [one for one in stages(data.cost.layers) if one.macs or one.params]
    if not 1 < len(parts) <= PLOTTED_STAGES:
        return ""  # of a network without stages the table of layers says it all

    def bar(name: str, macs: int, params: int) -> Bar:
        shares = macs / max(data.cost.macs, 1), params / max(data.cost.params, 1)
        return Bar(
            name,
            shares[0],
            f"{formats.percent(shares[0])} · {formats.short(macs)}",
            shares[1],
            f"{formats.percent(shares[1])} · {formats.short(params)}",
        )

    bars = [bar(one.name, one.macs, one.params) for one in parts]
    return figures.pairs_of_bars("Cost by stage", ("multiply-adds", "parameters"), bars)


def _latency_plot(data: ReportData) -> str:
    rows = [
        Range(
            f"{row.runtime}, {row.threads} thread{'s' if row.threads != 1 else ''}, batch {row.batch}",
            row.p10,
            row.median,
            row.p90,
        )
        for row in data.latencies
        if math.isfinite(row.median)
    ]
    return figures.ranges("Milliseconds a call", rows) if 0 < len(rows) <= PLOTTED_LATENCIES else ""


def _setting(value: Any) -> str:
    """A setting's value as a reader would write it on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(_setting(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_setting(item)}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"

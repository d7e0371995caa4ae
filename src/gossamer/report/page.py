"""The report as one HTML file: `write` makes it for a run folder, `render` turns the collected values into it."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.errors import MissingPackageError
from gossamer.host.progress import SILENT, Progress
from gossamer.host.storage import write_text
from gossamer.report import formats
from gossamer.report.contents import ReportData, flat, settings_by_group
from gossamer.report.course import kept, panels
from gossamer.report.findings import findings
from gossamer.report.measured import checks, latency_plot, stage_plot
from gossamer.report.view import SPLITS, KeyFigure, View

if TYPE_CHECKING:
    import jinja2

FOLDER = Path(__file__).parent
VIEWS = {"classify": "classify", "detect": "detect", "segment": "segment", "embed": "embed"}  # task -> module
ROWS = 12  # of a table, that are shown without scrolling
NUMBERED = 32  # classes, from which their tables carry their numbers
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
    view = view_of(data)
    style = [(FOLDER / name).read_text(encoding="utf-8") for name in ("style.css", *view.styles)]
    html = (
        _environment()
        .get_template("template.html")
        .render(
            view.values,
            data=data,
            view=view,
            name=run_name(data),
            size=data.settings.input_size() or ("?", "?"),
            style="".join(style),
            keys=key_figures(data, view.headline),
            findings=findings(data, view.findings),
            panels=panels(data),
            best=data.best_row(),
            kept=kept(data),
            many=len(data.classes) > NUMBERED,
            rows_shown=ROWS,
            split_names=[SPLITS.get(name, name) for name in data.counts],
            checks=checks(data.exported) if data.exported else [],
            stages=stage_plot(data),
            latency_plot=latency_plot(data),
            settings=settings_by_group(data.settings),
            machine=flat(data.machine),
            bench=flat(data.bench),
            data_facts=flat({key: value for key, value in data.data.items() if key not in ("per_class", "images")}),
            network=describe_network(data),
        )
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


def view_of(data: ReportData) -> View:
    """The part of the page that is the task's."""
    name = VIEWS.get(data.task, "heads")
    made: View = importlib.import_module(f"gossamer.report.{name}").view(data)
    return made


def key_figures(data: ReportData, headline: KeyFigure | None = None) -> list[KeyFigure]:
    """The headline's numbers: only what was measured. headline: the task's own, by default made anew."""
    run = shlex.quote(data.run)
    file = shlex.quote(data.exported.path if data.exported else f"{run_name(data)}.onnx")
    height, width = data.settings.input_size() or (0, 0)
    macs = f"multiply-adds for one image of {height} × {width}"
    if data.cost.unknown:
        macs += f", without {sum(data.cost.unknown.values())} operations of unknown cost"
    figures = [
        headline or view_of(data).headline,
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

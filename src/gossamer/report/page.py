"""The report as one HTML file: `write_report` writes that of a run folder, `report_html` renders collected values."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.analysis.names import layer_path, operator_name
from gossamer.charts import page
from gossamer.charts.stages import stage_chart, stage_series
from gossamer.host import text
from gossamer.host.progress import SILENT, Progress
from gossamer.host.storage import write_text
from gossamer.report.classify import classification_view
from gossamer.report.contents import ReportData, flat_rows, latency_note, quoted_latency, settings_by_group, stages
from gossamer.report.detect import detection_view
from gossamer.report.embed import embedding_view
from gossamer.report.heads import heads_view
from gossamer.report.highlights import highlights
from gossamer.report.measured import file_checks, latency_chart
from gossamer.report.pick import HEADER, pick_of
from gossamer.report.segment import segmentation_view
from gossamer.report.training_curves import selected_checkpoint, training_charts
from gossamer.report.view import SPLITS, KeyFigure, TaskView
from gossamer.run import SETTINGS
from gossamer.settings import differing

if TYPE_CHECKING:
    import jinja2

FOLDER = Path(__file__).parent
# task -> what makes its part of the page; the heads' view is that of all others
VIEWS: dict[str, Callable[[ReportData], TaskView]] = {
    "classify": classification_view,
    "detect": detection_view,
    "segment": segmentation_view,
    "embed": embedding_view,
}
NO_LIMIT = ("cpu_quota", "memory_limit_bytes")  # facts of a machine that are left out where they are unknown
ROWS = 12  # of a table, that are shown without scrolling


def write_report(
    run_folder: str | Path,
    out: str | Path | None = None,
    *,
    model_file: str | Path | None = None,
    bench: str | Path | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write the report of `run_folder` to `out` (default: report.html in it) and return its path.

    model_file: the exported file (default: the newest .onnx file in the folder, if there is one); it is verified.
    bench: what `gossamer bench --json` printed (default: bench.json in the folder, if there).
    Raises RunError, DataError, ModelFileError, StorageError, MissingPackageError.
    """
    from gossamer.report.collect import collect
    from gossamer.run import REPORT

    _templates()  # a missing package is reported before minutes of scoring, not after
    html = report_html(collect(run_folder, model_file=model_file, bench=bench, progress=progress))
    path = Path(out) if out is not None else Path(run_folder) / REPORT
    write_text(path, html)
    return path


def report_html(data: ReportData) -> str:
    """The HTML page. Raises MissingPackageError."""
    view = view_of(data)
    parts = stages(data.layers or data.cost.layers)
    values = {
        **view.values,
        "version": data.version,
        "title": f"{run_name(data)} – training report",
        "data": data,
        "view": view,
        "name": run_name(data),
        "size": data.settings.input_size() or ("?", "?"),
        "keys": key_figures(data, view.headline),
        "highlights": highlights(data, view.highlights),
        "training_charts": training_charts(data),
        "best": data.best_row(),
        "selected": selected_checkpoint(data),
        "rows_shown": ROWS,
        "split_names": [SPLITS.get(name, name) for name in data.counts],
        "checks": file_checks(data.exported) if data.exported else [],
        "stages": stage_chart(parts),
        "stage_series": stage_series(parts),
        "layers": data.layer_rows(),
        "unknown": [(operator_name(name), times) for name, times in data.cost.unknown.items()],
        "latency_chart": latency_chart(data),
        "latency_rows": [row for row in data.latencies if not row.note],
        "not_measured": list(dict.fromkeys(f"{row.runtime}: {row.note}" for row in data.latencies if row.note)),
        "peak_layer": layer_path(data.cost.peak_layer),
        "latency_targets": len({row.target for row in data.latencies if not row.note}),
        "quoted": fastest.where if (fastest := quoted_latency(data.latencies)) else "",
        "settings": settings_by_group(data.settings),
        "user_settings": data.user_settings,
        "user_values": [(name, getattr(data.settings, name)) for name in _user_settings(data)],
        "settings_file": shlex.quote(str(Path(data.run) / SETTINGS)),
        "machine": flat_rows(_machine(data.machine)),
        "bench": flat_rows(data.bench),
        "data_facts": flat_rows(
            {
                "read as" if key == "how" else key: value
                for key, value in data.data.items()
                if key not in ("per_class", "images")
            }
        ),
        "network": describe_network(data),
        "pick": pick_of(data.run),
        "pick_header": HEADER,
    }
    return page.render_page(_templates(), "report.html", values, [FOLDER / name for name in view.styles])


def _templates() -> jinja2.Environment:
    templates = page.environment(FOLDER, "writing a report")
    templates.filters["setting"] = _setting
    return templates


def view_of(data: ReportData) -> TaskView:
    """The part of the page that is the task's."""
    return VIEWS.get(data.task, heads_view)(data)


def key_figures(data: ReportData, headline: KeyFigure | None = None) -> list[KeyFigure]:
    """The headline's numbers: only what was measured. headline: the task's own, by default computed anew."""
    run = shlex.quote(data.run)
    file = shlex.quote(data.exported.path if data.exported else f"{run_name(data)}.onnx")
    height, width = data.settings.input_size() or (0, 0)
    macs = f"multiply-adds for one image of {height} × {width}"
    if data.cost.unknown:
        macs += f", without {text.counted(sum(data.cost.unknown.values()), 'operation')} of unknown cost"
    figures = [
        headline or view_of(data).headline,
        KeyFigure("Parameters", text.si_number(data.cost.params), f"{text.grouped(data.cost.params)} in all"),
        KeyFigure("MACs", text.si_number(data.cost.macs), macs),
    ]
    if data.exported:
        note = f"{Path(data.exported.path).name}, {'verified' if data.exported.ok else 'verification FAILED'}"
        figures.append(KeyFigure("Model file", text.decimal_bytes(data.exported.size), note))
    else:
        figures.append(KeyFigure("Model file", "", "", f"gossamer export {run} --out {file}"))
    fastest = quoted_latency(data.latencies)
    if fastest:
        figures.append(KeyFigure("Latency", text.milliseconds(fastest.median), latency_note(fastest, data.bench)))
    else:
        figures.append(KeyFigure("Latency", "", "", f"gossamer bench {run}"))
    return figures


def run_name(data: ReportData) -> str:
    """The name of the run folder."""
    return Path(data.run).absolute().name


def _user_settings(data: ReportData) -> tuple[str, ...]:
    """The settings that the user set; of a run that does not say, those that differ from the defaults."""
    return differing(data.settings) if data.user_settings is None else data.user_settings


def _machine(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The machine with its versions in one row, without limits that it does not have."""
    hidden = {"seed"}  # shown once, with the run
    shown = {
        name: value
        for name, value in facts.items()
        if name not in hidden and (value is not None or name not in NO_LIMIT)
    }
    versions = shown.get("versions")
    if isinstance(versions, Mapping):
        shown["versions"] = [f"{name} {version}" for name, version in versions.items() if version is not None]
    return shown


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

"""Networks, files and runs side by side: their cost, their scores, and the Pareto front."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gossamer.charts import page
from gossamer.charts.chart_file import write_chart
from gossamer.charts.scatter import LabelledPoint, pareto_chart
from gossamer.charts.svg import Markup
from gossamer.errors import SettingsError
from gossamer.host.progress import SILENT, Progress
from gossamer.host.shown import Report
from gossamer.host.text import binary_bytes, compact_count, dimensions, format_table, metric_name, thread_count
from gossamer.microscope.inspection import inspect
from gossamer.report.contents import latencies, latency_note, quoted_latency, read_bench
from gossamer.run import BENCH
from gossamer.targets import COUNTED, target_of

PUBLISHED = "ImageNet-1K"  # the data of published scores
BY_CLASSES = ("classify", "detect", "segment")  # tasks whose data are told apart by their classes


class Score(NamedTuple):
    """A score: what it is called, how high it is known to be, from where, on which data, at which input (height, width)."""

    metric: str
    value: float | None = None
    source: str = ""
    on: str = ""
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Candidate:
    """One network: its task's score as a fraction of 1, called `metric`, with its source; median latency in ms with its 10
    and 90 % points and where; cost.

    front: nothing else is at least as good in score and in cost, and better in one; cost is latency where all have
    one, else MACs. None where its score is unknown, or where the scores compared are not all of one metric on data of the
    same classes. scored_on: tells these data from others, "" where they are not known.
    """

    name: str
    input_shape: tuple[int, ...]
    score: float | None
    source: str
    ms: float | None
    ms_low: float | None
    ms_high: float | None
    runtime: str
    macs: int
    params: int
    weight_bytes: int
    peak_bytes: int
    metric: str = "accuracy"
    front: bool | None = None
    scored_on: str = ""
    scored_at: tuple[int, int] | None = None

    @property
    def scored_elsewhere(self) -> str:
        """The input that the score is of, "" where it is that of the cost, or not known."""
        known = self.score is not None and self.scored_at is not None and self.scored_at != self.input_shape[-2:]
        return dimensions(self.scored_at) if known and self.scored_at else ""


@dataclass(frozen=True, repr=False)
class NetworkComparison(Report):
    """The candidates, in the order of the arguments; cost is what the front is drawn over: "ms" or "macs"."""

    candidates: tuple[Candidate, ...]
    cost: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the scores that are known, in the order of the candidates."""
        return tuple(dict.fromkeys(candidate.metric for candidate in self.candidates if candidate.score is not None))

    @property
    def not_ranked(self) -> str:
        """Why no network is marked as better although scores are known; "" where they can be compared."""
        if len(self.metrics) > 1:
            differ = f"the scores differ ({', '.join(map(metric_name, self.metrics))})"
        elif len(_data_of_scores(self.candidates)) > 1:
            differ = "the scores are of different images and classes"
        elif any(candidate.scored_elsewhere for candidate in self.candidates):
            differ = "scores are of another input than the costs"
        else:
            return ""
        return f"{differ}, so no network is marked as better"

    def to_json(self) -> dict[str, Any]:
        return {
            "cost": self.cost,
            "metrics": list(self.metrics),
            "candidates": [dataclasses.asdict(candidate) for candidate in self.candidates],
        }

    def text(self) -> str:
        """A table, the Pareto front marked with *, and where each score comes from."""
        mixed = len(self.metrics) > 1
        called = "score" if mixed or not self.metrics else metric_name(self.metrics[0])
        header = ("network", "", "input", called, "ms", "p10-p90", "MACs", "params", "weights", "peak memory")
        rows = []
        for candidate in self.candidates:
            rows.append(
                [
                    candidate.name,
                    "*" if candidate.front else "",
                    dimensions(candidate.input_shape[1:]),
                    "-"
                    if candidate.score is None
                    else f"{metric_name(candidate.metric) + ' ' if mixed else ''}{100 * candidate.score:.2f} %",
                    "-" if candidate.ms is None else f"{candidate.ms:.2f}",
                    "-" if candidate.ms_low is None else f"{candidate.ms_low:.2f}-{candidate.ms_high:.2f}",
                    compact_count(candidate.macs),
                    compact_count(candidate.params),
                    binary_bytes(candidate.weight_bytes),
                    binary_bytes(candidate.peak_bytes),
                ]
            )
        lines = format_table(header, rows, left=(0, 1))
        notes = [
            f"{metric_name(candidate.metric)} of {candidate.name}: {_source(candidate)}"
            for candidate in self.candidates
            if candidate.source
        ]
        notes += sorted({f"latency: {candidate.runtime}" for candidate in self.candidates if candidate.runtime})
        if self.not_ranked:
            notes.insert(0, self.not_ranked)
        elif any(candidate.front for candidate in self.candidates):
            notes.insert(
                0, f"* nothing here has as much {called} at {'less latency' if self.cost == 'ms' else 'fewer MACs'}"
            )
        return "\n".join([*lines, "", *notes]).rstrip()

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write the comparison as a page that stands alone. Raises StorageError, MissingPackageError."""
        from gossamer.host.storage import write_text

        write_text(path, comparison_html(self))

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write the chart of the scores, or of the parameters where no one score is known, over the cost.

        path: ends in .svg. Raises InputError, StorageError.
        """
        write_chart(path, _chart(self))


def compare(
    targets: Sequence[str],
    input_shape: Sequence[int] | None = None,
    *,
    measure: bool | None = None,
    threads: int = 1,
    progress: Progress = SILENT,
) -> NetworkComparison:
    """Compare networks by name, ONNX files and run folders at `input_shape` (C, H, W), by default each one's own.

    A run knows the score that it reached, a network the accuracy published for its default weights. measure: latency of
    each in the fastest runtime that is installed, one after the other; None: briefly, in the engine and ONNX Runtime,
    where a run is among them, unless `gossamer bench` has measured all of them. Raises what `inspect` and `bench` raise.
    """
    if len(targets) < 2:
        raise SettingsError(f"{len(targets)} to compare", "two or more", "name another network, file or run")
    times = {} if measure is not None else _saved(targets)
    if measure or (
        not times and measure is None and any(target_of(target, COUNTED).kind == "run" for target in targets)
    ):
        times = _latencies(targets, threads, progress, quick=not measure)
    candidates = []
    for target in targets:
        cost = inspect(target, input_shape).cost
        score = _score(target)
        ms, low, high, runtime = times.get(target, (None, None, None, ""))
        candidates.append(
            Candidate(
                target,
                cost.input_shape,
                score.value,
                score.source,
                ms,
                low,
                high,
                runtime,
                cost.macs,
                cost.params,
                cost.weight_bytes,
                cost.peak_bytes,
                score.metric,
                scored_on=score.on,
                scored_at=score.size,
            )
        )
    axis = "ms" if all(candidate.ms is not None for candidate in candidates) else "macs"
    return NetworkComparison(tuple(_marked(candidates, axis)), axis)


def _marked(candidates: list[Candidate], axis: str) -> list[Candidate]:
    """Each candidate with its place on the front; none has one where the metrics, or what was scored, differ."""
    if NetworkComparison(tuple(candidates), axis).not_ranked:
        return candidates
    marked = []
    for candidate in candidates:
        front = None
        if candidate.score is not None:
            mine = getattr(candidate, axis)
            front = not any(
                other.score >= candidate.score
                and getattr(other, axis) <= mine
                and (other.score > candidate.score or getattr(other, axis) < mine)
                for other in candidates
                if other.score is not None
            )
        marked.append(dataclasses.replace(candidate, front=front))
    return marked


def _source(candidate: Candidate) -> str:
    """Where a score is from, with its input where that is another."""
    at = candidate.scored_elsewhere
    return f"{candidate.source}, at {at}" if at else candidate.source


def _data_of_scores(candidates: Sequence[Candidate]) -> set[str]:
    """The data that the known scores are of."""
    return {candidate.scored_on for candidate in candidates if candidate.score is not None}


def _scored_on(task: str, classes: Sequence[str], facts: Any) -> str:
    """What tells the data of a score from others: their classes, or their fingerprint where outputs are no classes."""
    if task in BY_CLASSES and classes:
        return hashlib.sha256("\0".join(classes).encode("utf-8", "replace")).hexdigest()
    return str(facts.get("fingerprint") or "") if isinstance(facts, Mapping) else ""


def _score(target: str) -> Score:
    """What a target's score is called and how high it is known to be."""
    from gossamer.tasks.base import sized, stacked
    from gossamer.tasks.registry import TASKS, task_of

    task: str
    kind = target_of(target, COUNTED).kind
    if kind == "run":
        from gossamer.run import Run

        run = Run.open(target)
        task, size = run.settings.task, stacked(sized(run.settings), run.settings)
        metric = task_of(task).score
        best = run.best(f"val_{metric}")
        if not best:
            return Score(metric)
        source, facts = f"its run, epoch {best['epoch']:g}, val", {} if task in BY_CLASSES else run.data
        return Score(metric, best[f"val_{metric}"], source, _scored_on(task, run.classes, facts), size)
    if kind == "model file":
        from gossamer.modelfile.metadata import read_model_file

        metadata = read_model_file(target).metadata
        task = "" if metadata is None else metadata.heads[0].kind if len(metadata.heads) == 1 else "multi"
        metrics = metadata.provenance.get("metrics") if metadata else None
        if task not in TASKS or not isinstance(metrics, dict):
            return Score("accuracy")
        metric = task_of(task).score
        reached = metrics.get(metric)
        if metadata is None or not isinstance(reached, (int, float)):
            return Score(metric)
        scored_on = _scored_on(task, metadata.heads[0].classes, metadata.provenance.get("data"))
        return Score(metric, float(reached), "the file's metadata, val", scored_on, metadata.preprocess.size)
    from gossamer.networks.load import weight_sets

    known = next((weights for weights in weight_sets(target) if weights.top1 is not None), None)
    if known is None or known.top1 is None:
        return Score("accuracy")
    source = f"ImageNet top-1 published for {known.name}; not measured here"
    return Score("accuracy", known.top1 / 100, source, PUBLISHED, (known.input, known.input))


def _saved(targets: Sequence[str]) -> dict[str, tuple[float, float, float, str]]:
    """What `gossamer bench` saved in the runs, where all targets are runs that have it; else nothing: times that were
    measured in other ways are not compared."""
    times = {}
    for target in targets:
        path = Path(target).absolute()
        if target_of(target, COUNTED).kind != "run" or not (path / BENCH).is_file():
            return {}
        bench = read_bench(path / BENCH)
        row = quoted_latency(latencies(bench, {path.name}, {path.name: "float32"}))
        if row is None or not math.isfinite(row.p10 + row.p90):
            return {}
        times[target] = (row.median, row.p10, row.p90, latency_note(row, bench))
    return times


def _latencies(
    targets: Sequence[str], threads: int, progress: Progress, quick: bool
) -> dict[str, tuple[float, float, float, str]]:
    """The latency of each target in the runtime that is fastest for it; quick: of those that load in an instant."""
    from gossamer.bench import bench

    fastest: dict[str, tuple[float, float, float, str]] = {}
    runtimes, seconds = (("native", "onnxruntime"), 0.3) if quick else (None, 1.0)
    every = bench(list(targets), runtimes=runtimes, threads=(threads,), seconds=seconds, progress=progress)
    for row in every.rows:
        if row.median_ms is None or row.p10_ms is None or row.p90_ms is None:
            continue
        best = fastest.get(row.target)
        if best is None or row.median_ms < best[0]:
            cpu = every.machine.get("cpu") or ""
            named = (
                f"median of one image, {row.runtime}, {thread_count(row.threads)}, {cpu}, {seconds:g} s measured now"
            )
            fastest[row.target] = (row.median_ms, row.p10_ms, row.p90_ms, named)
    return fastest


def comparison_html(result: NetworkComparison) -> str:
    """The page as HTML text. Raises MissingPackageError."""
    import gossamer

    mixed = len(result.metrics) > 1
    known = any(candidate.score is not None for candidate in result.candidates) and not result.not_ranked
    called = metric_name(result.metrics[0]) if len(result.metrics) == 1 else "score"
    sources = [
        (f"{metric_name(candidate.metric)} of {candidate.name}", _source(candidate))
        for candidate in result.candidates
        if candidate.source
    ]
    sources += [
        (f"latency of {candidate.name}", candidate.runtime) for candidate in result.candidates if candidate.runtime
    ]
    cost = "latency" if result.cost == "ms" else "multiply-adds"
    front = f"Front: nothing here has as much {called} at {'less' if result.cost == 'ms' else 'fewer'} {cost}."
    if result.not_ranked:
        front = f"{result.not_ranked[:1].upper()}{result.not_ranked[1:]}."
    elif not known:
        front = "No score is known, so no network is marked as better."
    names = [Path(candidate.name).name for candidate in result.candidates]
    values = {
        "version": gossamer.__version__,
        "title": f"{', '.join(names[:4])}{' and more' if len(names) > 4 else ''} – comparison",
        "lead": ", ".join(candidate.name for candidate in result.candidates),
        "result": result,
        "chart": _chart(result),
        "up": f"{called[:1].upper()}{called[1:]}" if known else "Parameters",
        "score": called,
        "mixed": mixed,
        "front": front,
        "sources": sources,
    }
    templates = page.environment(Path(__file__).parent, "the page of a comparison")
    return page.render_page(templates, "comparison.html", values)


def _chart(result: NetworkComparison) -> Markup:
    """The scores, or the parameters where no one score is known of all, over the cost."""
    known = [candidate for candidate in result.candidates if candidate.score is not None and not result.not_ranked]
    points = []
    billions = max(candidate.macs for candidate in result.candidates) >= 1e9
    for candidate in known or result.candidates:
        macs = candidate.macs / (1e9 if billions else 1e6)
        x = candidate.ms if result.cost == "ms" and candidate.ms is not None else macs
        y = 100 * candidate.score if known and candidate.score is not None else candidate.params / 1e6
        spread = (math.nan, math.nan)
        if result.cost == "ms" and candidate.ms_low is not None and candidate.ms_high is not None:
            spread = candidate.ms_low, candidate.ms_high
        points.append(LabelledPoint(Path(candidate.name).name, x, y, bool(candidate.front), *spread))
    across = "latency, ms (median)" if result.cost == "ms" else f"MACs, {'billions' if billions else 'millions'}"
    up = f"{metric_name(result.metrics[0])}, %" if known else "parameters, millions"
    return pareto_chart("Networks", points, across, up, "from p10 to p90", counted_up=not known)

"""Everything the report shows, as plain values: the page is rendered from this alone, without torch or images."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from gossamer.analysis.layers import Stage, stages_of
from gossamer.analysis.names import operator_name
from gossamer.diagnosis.causes import Finding
from gossamer.errors import InputError
from gossamer.host.storage import open_regular
from gossamer.host.text import decimal_bytes, significant, thread_count
from gossamer.report.gallery import Mistake
from gossamer.settings import Settings, differing

if TYPE_CHECKING:
    from gossamer.analysis.cost import Cost, LayerCost
    from gossamer.analysis.layers import Layer
    from gossamer.runtime.verification import VerificationResult


class LayerRow(NamedTuple):
    """A row of the table of layers: what it computes in the field's words, its output (C, H, W), None for unknown MACs."""

    name: str
    what: str
    output_shape: tuple[int, ...]
    params: int
    macs: int | None


def stages(layers: Iterable[LayerCost | Layer]) -> list[Stage]:
    """The layers summed by the part of the network they belong to, in order."""
    return stages_of(
        Stage(
            layer.name,
            1,
            layer.output_shape,
            layer.params,
            layer.macs or 0,
            layer.weight_bytes + layer.read_bytes + layer.write_bytes,
        )
        for layer in layers
    )


class Latency(NamedTuple):
    """One measurement of `gossamer bench`; times in milliseconds per call, memory in bytes; nan is not measured.

    target: the name of the file or folder. precision: of the weights, "" where it is not known.
    """

    runtime: str
    threads: int
    batch: int
    median: float
    p10: float
    p90: float
    images_per_second: float
    load: float
    memory: float
    note: str = ""
    target: str = ""
    precision: str = ""

    @property
    def where(self) -> str:
        """Runtime, threads and precision: "native 1, 2 threads, float32"."""
        return ", ".join(filter(None, (self.runtime, thread_count(self.threads), self.precision)))


def read_bench(path: Path) -> dict[str, Any]:
    """What `gossamer bench --json` wrote into a file. Raises InputError."""
    try:
        with open_regular(path) as file:
            values = json.loads(file.read())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not JSON: {error}"
        raise InputError(f"{path}: {reason}", "what `gossamer bench --json` prints", "measure again") from error
    if not isinstance(values, dict):
        raise InputError(
            f"{path}: holds {type(values).__name__}", "what `gossamer bench --json` prints", "measure again"
        )
    rows = values.get("rows", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: rows without names", "what `gossamer bench --json` prints", "measure again")
    return values


def latencies(
    bench: Mapping[str, Any], names: Collection[str], precisions: Mapping[str, str] = MappingProxyType({})
) -> tuple[Latency, ...]:
    """The measurements in what the benchmark wrote, of targets whose file or folder has one of `names`.

    Other targets are left out: their times are not this network's. precisions: those of the names, where they are known.
    """
    return tuple(
        Latency(
            runtime=f"{row.get('runtime', '?')} {row.get('version') or ''}".strip(),
            threads=_as_count(row.get("threads", 0)),
            batch=_as_count(row.get("batch", 1)),
            median=as_number(row.get("median_ms")),
            p10=as_number(row.get("p10_ms")),
            p90=as_number(row.get("p90_ms")),
            images_per_second=as_number(row.get("images_per_second")),
            load=as_number(row.get("load_ms")),
            memory=as_number(row.get("peak_bytes")),
            note=str(row.get("error") or ""),
            target=Path(str(row.get("target", ""))).name,
            precision=precisions.get(Path(str(row.get("target", ""))).name, ""),
        )
        for row in bench.get("rows", ())
        if Path(str(row.get("target", ""))).name in names
    )


def quoted_latency(rows: Iterable[Latency]) -> Latency | None:
    """The one latency that is quoted of a network: the fastest median of one image; None where none was measured."""
    measured = (row for row in rows if row.batch == 1 and 0 < row.median < math.inf)
    return min(measured, key=lambda row: row.median, default=None)


def latency_note(row: Latency, bench: Mapping[str, Any]) -> str:
    """What a quoted latency is: median and spread, runtime, threads, precision, machine. bench: what the benchmark wrote."""
    machine = bench.get("machine")
    cpu = str(machine.get("cpu") or "") if isinstance(machine, Mapping) else str(bench.get("cpu") or "")
    spread = f"p10 to p90 {significant(row.p10)} to {significant(row.p90)}" if math.isfinite(row.p10) else ""
    return "; ".join(filter(None, ("median of one image (bench)", spread, row.where, cpu)))


@dataclass(frozen=True)
class ExportedFile:
    """The model file of the run: `size` in bytes, and its verification just now, or the `problem` with it."""

    path: str
    size: int
    verification: VerificationResult | None
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.verification is not None and self.verification.ok


@dataclass(frozen=True)
class ReportData:
    """A training run as the report shows it.

    run: the folder. created: when the report was written (UTC). version: of gossamer.
    split: "validation" or "test", the images of `evaluation`. metrics: rows of the run folder.
    counts: images per class, by split, in the order of `evaluation.classes`; of a detector, objects per class.
    machine: the environment of the latest start. bench: where the latencies were measured.
    data: what the run folder says about the data; `data_changed` where they are others now.
    layers: the rows of the network, convolutions with the norm and activation behind them; without any, the operations.
    causes: what `gossamer diagnose` finds.
    user_settings: names of the settings that the user set, None where the run does not say. score: the metric by which the weights were kept. images: how many, by split. details: what only the task shows.
    """

    run: str
    created: str
    version: str
    settings: Settings
    split: str
    evaluation: Any
    metrics: list[dict[str, Any]]
    counts: Mapping[str, tuple[int, ...]]
    unreadable: list[tuple[str, str]]
    mistakes: tuple[Mistake, ...]
    cost: Cost
    exported: ExportedFile | None
    latencies: tuple[Latency, ...]
    bench: Mapping[str, Any]
    machine: Mapping[str, Any]
    data: Mapping[str, Any]
    data_changed: bool = False
    task: str = "classify"
    score: str = "accuracy"
    images: Mapping[str, int] = dataclasses.field(default_factory=dict)
    details: Any = None
    layers: tuple[Layer, ...] = ()
    user_settings: tuple[str, ...] | None = None
    causes: tuple[Finding, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(getattr(self.evaluation, "classes", ()))

    @property
    def scores_loss(self) -> bool:
        """Whether the task has a validation loss."""
        return self.task == "classify" or any(math.isfinite(value) for value in self.column("val_loss"))

    def layer_rows(self) -> list[LayerRow]:
        """The rows of the table of layers."""
        if self.layers:
            return [LayerRow(row.name, row.what, row.output_shape[1:], row.params, row.macs) for row in self.layers]
        return [
            LayerRow(cost.name, operator_name(cost.op), cost.output_shape[1:], cost.params, cost.macs)
            for cost in self.cost.layers
        ]

    def column(self, name: str) -> list[float]:
        """A column of the metrics; nan where a row lacks it."""
        return [as_number(row.get(name)) for row in self.metrics]

    def best_row(self) -> dict[str, Any] | None:
        """The row of the selected checkpoint: the first with the largest validation score."""
        name = f"val_{self.score}"
        rows = [row for row in self.metrics if math.isfinite(as_number(row.get(name)))]
        return max(rows, key=lambda row: as_number(row[name])) if rows else None

    def waiting(self) -> float:
        """Fraction of the training time spent waiting for data, 0..1; nan where it was not recorded."""
        data = [value for value in self.column("data_seconds") if math.isfinite(value)]
        steps = [value for value in self.column("step_seconds") if math.isfinite(value)]
        busy = sum(data) + sum(steps)
        return sum(data) / busy if busy > 0 else math.nan


def _as_count(value: Any) -> int:
    """`value` as a whole number; 0 where it is none."""
    number = as_number(value)
    return int(number) if math.isfinite(number) else 0


def as_number(value: Any) -> float:
    """`value` as a float; nan where it is no number."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def settings_by_group(settings: Settings) -> dict[str, list[tuple[str, Any, bool]]]:
    """(name, value, differs from the default) of every setting, by group."""
    groups: dict[str, list[tuple[str, Any, bool]]] = {}
    different = set(differing(settings))
    for field in dataclasses.fields(settings):
        row = (field.name, getattr(settings, field.name), field.name in different)
        groups.setdefault(field.metadata["group"], []).append(row)
    return groups


def flat_rows(values: Mapping[str, Any], under: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (path, value) rows; empty values are left out."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{under}{key}"
        if isinstance(value, Mapping):
            rows.extend(flat_rows(value, f"{name} "))
        elif isinstance(value, (list, tuple)):
            rows.append((name, ", ".join(str(item) for item in value)))
        elif name.endswith("bytes") and math.isfinite(as_number(value)):
            rows.append((name.removesuffix("bytes").rstrip("_ "), decimal_bytes(as_number(value))))
        elif isinstance(value, float):
            rows.append((name, significant(value, 4)))
        else:
            rows.append((name, "unknown" if value is None else str(value)))
    return [(name.replace("_", " "), value) for name, value in rows if value]

"""Everything the report shows, as plain values: the page is rendered from this alone, without torch or images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from gossamer.report.gallery import Mistake
from gossamer.settings import Settings

if TYPE_CHECKING:
    from gossamer.tasks.classify import Evaluation


class Layer(NamedTuple):
    """One layer's cost for one image. macs: multiply-adds."""

    name: str
    op: str
    shape: tuple[int, ...]
    params: int
    macs: int


@dataclass(frozen=True)
class CostTable:
    """The network's cost for one image of the input size; peak_bytes: activations alive at once, float32.

    unknown: operations without a formula and how often each occurs; they are in no total.
    """

    layers: tuple[Layer, ...]
    params: int
    macs: int
    peak_bytes: int
    unknown: Mapping[str, int]

    def stages(self) -> list[Layer]:
        """The layers summed by stage, in order; `op` and `shape` are those of the stage's last layer."""
        sums: dict[str, Layer] = {}
        for layer in self.layers:
            name = stage(layer.name)
            before = sums.get(name, Layer(name, "", (), 0, 0))
            sums[name] = Layer(name, layer.op, layer.shape, before.params + layer.params, before.macs + layer.macs)
        return list(sums.values())


def stage(layer: str) -> str:
    """The part of a network a layer belongs to: "stages.2" of "stages.2.0.expand.conv", "head" of "head.fc"."""
    parts = layer.split(".")
    for index, part in enumerate(parts[:2]):
        if part.isdecimal():
            return ".".join(parts[: index + 1])
    return parts[0] or "network"


class Latency(NamedTuple):
    """One measurement; times in milliseconds a call, memory in bytes; nan is not measured."""

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


class Check(NamedTuple):
    """One thing verified of the exported file."""

    what: str
    result: str
    ok: bool


@dataclass(frozen=True)
class ExportedFile:
    """The model file beside the run: `size` in bytes, and what verifying it just now said."""

    path: str
    size: int
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class ReportData:
    """A training run as the report shows it.

    run: the folder. made: when the report was made (UTC). version: of gossamer.
    split: "validation" or "test", the images of `evaluation`. metrics: rows of the run folder.
    counts: images a class, by split, in the order of `evaluation.classes`.
    machine: the environment of the latest start. data: what the run folder says about the data.
    bench: the machine the latencies were measured on, as the benchmark describes it.
    """

    run: str
    made: str
    version: str
    settings: Settings
    split: str
    evaluation: Evaluation
    metrics: list[dict[str, Any]]
    counts: Mapping[str, tuple[int, ...]]
    unreadable: list[tuple[str, str]]
    mistakes: tuple[Mistake, ...]
    cost: CostTable
    exported: ExportedFile | None
    latencies: tuple[Latency, ...]
    bench: Mapping[str, Any]
    machine: Mapping[str, Any]
    data: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.evaluation.classes

    def column(self, name: str) -> list[float]:
        """A column of the metrics; nan where a row lacks it."""
        return [number(row.get(name)) for row in self.metrics]

    def best_row(self) -> dict[str, Any] | None:
        """The row whose weights were kept: the first with the largest validation accuracy."""
        rows = [row for row in self.metrics if math.isfinite(number(row.get("val_accuracy")))]
        return max(rows, key=lambda row: number(row["val_accuracy"])) if rows else None

    def waiting(self) -> float:
        """Share of the training time spent waiting for data, 0..1; nan where it was not recorded."""
        data = [value for value in self.column("data_seconds") if math.isfinite(value)]
        steps = [value for value in self.column("step_seconds") if math.isfinite(value)]
        busy = sum(data) + sum(steps)
        return sum(data) / busy if busy > 0 else math.nan


def number(value: Any) -> float:
    """`value` as a float; nan where it is none."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def settings_by_group(settings: Settings) -> dict[str, list[tuple[str, Any, bool]]]:
    """(name, value, differs from the default) of every setting, by group."""
    groups: dict[str, list[tuple[str, Any, bool]]] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        groups.setdefault(field.metadata["group"], []).append((field.name, value, value != field.default))
    return groups


def flat(values: Mapping[str, Any], under: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (path, value) rows."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{under}{key}"
        if isinstance(value, Mapping):
            rows.extend(flat(value, f"{name} "))
        elif isinstance(value, (list, tuple)):
            rows.append((name, ", ".join(str(item) for item in value)))
        else:
            rows.append((name, str(value)))
    return [(name.replace("_", " "), value) for name, value in rows]

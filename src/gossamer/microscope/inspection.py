"""What each layer of a network costs, as rows that a person reads: convolutions with the norm and activation behind.

Conventions are those of `gossamer.analysis.cost`: 1 MAC is 1 multiply-add, 1 MAC is 2 FLOPs, memory is that of activations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from gossamer.analysis.channels import ChannelGroup, channel_groups
from gossamer.analysis.cost import Cost, cost
from gossamer.analysis.graph import Graph, trace
from gossamer.analysis.layers import Layer, Stage, layers_of, stages_of
from gossamer.analysis.names import stage_of
from gossamer.blocks.gates import gated_layers
from gossamer.errors import InputError
from gossamer.host.shown import Brief
from gossamer.microscope.receptive import ReceptiveField, receptive_fields
from gossamer.microscope.timing import Timing, time_module, time_onnx
from gossamer.report.contents import latencies, latency_note, quoted_latency, read_bench
from gossamer.run import BENCH
from gossamer.targets import COUNTED, target_of

BOTTLENECK = 3.0  # times its fraction of the multiply-adds that a row takes of the time, to be marked
NOTICED = 0.02  # fraction of the time below which no row is marked


@dataclass(frozen=True)
class Row(Layer):
    """A layer, with what the microscope adds to its cost.

    stage: the part of the network. field: see `gossamer.microscope.receptive`. ms, ms_low, ms_high: median and quartiles
    on this machine, None where not measured.
    """

    stage: str
    field: str
    ms: float | None = None
    ms_low: float | None = None
    ms_high: float | None = None

    @property
    def moved_bytes(self) -> int:
        """Bytes of weights and activations, read and written."""
        return self.weight_bytes + self.read_bytes + self.write_bytes

    @property
    def intensity(self) -> float | None:
        """MACs per byte moved; None where an operation has no formula."""
        return None if self.macs is None else self.macs / self.moved_bytes if self.moved_bytes else 0.0

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values, but for the graph's nodes."""
        values = {name: value for name, value in vars(self).items() if name != "nodes"}
        return {**values, "intensity": self.intensity}


class BenchLatency(NamedTuple):
    """The latency that `gossamer bench` measured of a run: milliseconds of one image, and what they are."""

    ms: float
    note: str


@dataclass(frozen=True, repr=False)
class Inspection(Brief):
    """The rows of a network, their sum, and its times, where measured: see `Cost` and `Timing`.

    graph: the traced network, None for a file. gated_macs: multiply-adds of the layers that hard gates can leave out.
    latency: what `gossamer bench` last measured of a run, None where it did not.
    """

    target: str
    rows: tuple[Row, ...]
    cost: Cost
    timing: Timing | None = None
    graph: Graph | None = None
    gated_macs: int = 0
    latency: BenchLatency | None = None

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """The channels that could be removed, as far as each operation has a rule. Raises InputError where one has none."""
        return () if self.graph is None else channel_groups(self.graph)

    def stage_rows(self) -> list[Stage]:
        """The rows summed by the part of the network that they belong to, in order."""
        return stages_of(
            Stage(
                row.name,
                1,
                row.output_shape,
                row.params,
                row.macs or 0,
                row.moved_bytes,
                math.nan if row.ms is None else row.ms,
            )
            for row in self.rows
        )

    @property
    def stages(self) -> dict[str, dict[str, float | None]]:
        """For each part of the network its fraction of the parameters, MACs, bytes moved and, where measured, time."""
        rows = self.stage_rows()
        parts = {row.name: (row.params, row.macs, row.bytes, 0.0 if math.isnan(row.ms) else row.ms) for row in rows}
        totals = [sum(values) or 1.0 for values in zip(*parts.values())]
        fractions = {name: [a / b for a, b in zip(values, totals)] for name, values in parts.items()}
        return {
            stage: {"params": p, "macs": m, "bytes": b, "ms": t if self.timing else None}
            for stage, (p, m, b, t) in fractions.items()
        }

    def is_bottleneck(self, row: Row) -> bool:
        """Whether a row takes far more of the time than of the multiply-adds."""
        if row.ms is None or not self.timing or not self.timing.sum_ms:
            return False
        fraction = row.ms / self.timing.sum_ms
        return fraction > NOTICED and fraction > BOTTLENECK * ((row.macs or 0) / max(1, self.cost.macs))

    def to_json(self) -> dict[str, Any]:
        """Plain values: sizes in bytes, MACs in multiply-adds, times in milliseconds, null where unknown."""
        return {
            "target": self.target,
            "input_shape": list(self.cost.input_shape),
            "params": self.cost.params,
            "unused_params": self.cost.unused_params,
            "macs": self.cost.macs,
            "flops": 2 * self.cost.macs,
            "weight_bytes": self.cost.weight_bytes,
            "peak_bytes": self.cost.peak_bytes,
            "peak_layer": self.cost.peak_layer,
            "unknown": self.cost.unknown,
            "gated_macs": self.gated_macs,
            "stages": self.stages,
            "rows": [{**row.to_json(), "bottleneck": self.is_bottleneck(row)} for row in self.rows],
            "channel_groups": self._channel_counts(),
            "timing": dataclasses.asdict(self.timing) if self.timing else None,
            "latency": self.latency._asdict() if self.latency else None,
        }

    def _channel_counts(self) -> dict[str, Any] | None:
        """How many groups of removable channels there are, and the channels of each; None for a file."""
        if self.graph is None:
            return None
        try:
            sizes = [group.size for group in self.channel_groups()]
        except InputError as error:
            return {"count": None, "sizes": [], "error": str(error)}
        return {"count": len(sizes), "sizes": sizes, "error": None}


def inspect(
    target: str | Path | nn.Module,
    input_shape: Sequence[int] | None = None,
    *,
    measure: bool = False,
    threads: int = 1,
    **arguments: Any,
) -> Inspection:
    """Look at a network by name, an ONNX file, a run folder or any module, at `input_shape` (C, H, W).

    arguments: for a network by name, as for `create_model`. measure: also time each layer here, with `threads`.
    Without, no weights are allocated. Raises UnknownNameError, InputError, SettingsError, MissingPackageError.
    """
    shape = None if input_shape is None else (1, *input_shape)
    if isinstance(target, nn.Module):
        name, module = type(target).__name__, target
    else:
        name, kind = str(target), target_of(target, COUNTED).kind
        if kind == "model file":
            return _of_file(name, shape, measure, threads)
        module, own = network_of_run(Path(name)) if kind == "run" else network_by_name(name, arguments)
        shape = shape or own
    graph = trace(module, shape or (1, 3, 224, 224))
    timing = None
    if measure:
        real = module if isinstance(target, nn.Module) else _weighted(module)
        timing = time_module(real, graph, shape or (1, 3, 224, 224), threads)
    inspection = dataclasses.replace(inspection_of(name, graph, timing), graph=graph)
    gated = gated_layers(module)
    macs = sum(layer.macs or 0 for layer in inspection.cost.layers if gated and layer.name.startswith(gated))
    latency = None
    if not isinstance(target, nn.Module) and kind == "run":
        latency = _bench_latency(Path(name))
    return dataclasses.replace(inspection, gated_macs=macs, latency=latency)


def network_by_name(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, tuple[int, ...]]:
    """A network by name on the meta device, which holds no weights, and its own input (1, C, H, W).

    Raises UnknownNameError, SettingsError, MissingPackageError.
    """
    import torch

    from gossamer.networks import create_model
    from gossamer.networks.registry import traits

    with torch.device("meta"):
        model = create_model(name, **arguments)
    return model, (1, arguments.get("in_chans", 3), *traits(name).input[1:])


def network_of_run(path: Path) -> tuple[nn.Module, tuple[int, ...]]:
    """The trained network of a run folder, and its input (1, C, H, W). Raises RunError."""
    from gossamer.tasks.base import stacked
    from gossamer.training.restore import load_run

    network = load_run(path, takes_frames=True)
    size = stacked(network.preprocess.size, network.settings)
    return network.model, (1, network.run.settings.in_chans, *size)


def _bench_latency(path: Path) -> BenchLatency | None:
    """What the benchmark saved in the run folder says. Raises InputError where that is damaged."""
    bench = read_bench(path / BENCH) if (path / BENCH).is_file() else {}
    row = quoted_latency(latencies(bench, {path.absolute().name}, {path.absolute().name: "float32"}))
    return BenchLatency(row.median, latency_note(row, bench)) if row else None


def _of_file(path: str, shape: tuple[int, ...] | None, measure: bool, threads: int) -> Inspection:
    from gossamer.microscope.onnxgraph import read_graph

    graph = read_graph(path, shape)
    timing = None
    if measure:
        timing = time_onnx(path, graph, threads)
    return inspection_of(path, graph, timing)


def _weighted(module: nn.Module) -> nn.Module:
    """The module with weights, also where it is on the meta device: their values do not matter for time."""
    if not any(p.is_meta for p in module.parameters()):
        return module
    from gossamer.blocks.initialise import initialise

    module.to_empty(device="cpu")
    for buffer in module.buffers():
        buffer.fill_(1)
    initialise(module)
    return module


def inspection_of(name: str, graph: Graph, timing: Timing | None = None) -> Inspection:
    """The rows of a traced network or of the graph of a file; its `graph` is left to those who can change it."""
    costs = cost(graph)
    return Inspection(name, _rows(graph, costs, timing), costs, timing)


def _rows(graph: Graph, costs: Cost, timing: Timing | None) -> tuple[Row, ...]:
    """A row for each layer, and its pointwise followers in the same row."""
    fields = receptive_fields(graph)
    rows = []
    for layer in layers_of(graph, costs):
        times = [timing.nodes[node.index] for node in layer.nodes if timing and node.index in timing.nodes]
        last = layer.nodes[-1]
        field = fields.get(last.outputs[0], ReceptiveField(None, None)) if last.outputs else ReceptiveField(None, None)
        rows.append(
            Row(
                **vars(layer),
                stage=stage_of(layer.name),
                field=field.text(),
                ms=sum(t[0] for t in times) if times else None,
                ms_low=sum(t[1] for t in times) if times else None,
                ms_high=sum(t[2] for t in times) if times else None,
            )
        )
    return tuple(rows)

"""The layers of a network as people count them: an operation with the norm and the activation that only it feeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gossamer.analysis.cost import FREE, POINTWISE, Cost, LayerCost
from gossamer.analysis.graph import Graph, Node
from gossamer.analysis.names import layer_name, stage_of


@dataclass(frozen=True)
class Layer:
    """One operation and the pointwise operations behind it that only it feeds, with the cost of all.

    name: path of its module, or the node's name in an ONNX file. what: such as "conv 3x3 /2 + norm + relu6". nodes:
    the operations. inputs: numbers of the layers whose outputs it reads, -1 for the network's input. macs: None where
    an operation has no formula. live_bytes: most activation memory while it runs.
    """

    name: str
    what: str
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int
    macs: int | None
    weight_bytes: int
    read_bytes: int
    write_bytes: int
    live_bytes: int


class Stage(NamedTuple):
    """The cost of one part of the network for one image. macs: multiply-adds. bytes: moved, activations and weights.
    ms: measured time, nan where there is none."""

    name: str
    layers: int
    output_shape: tuple[int, ...]
    params: int
    macs: int
    bytes: int
    ms: float = float("nan")


def layers_of(graph: Graph, costs: Cost) -> tuple[Layer, ...]:
    """The layers of `graph`, in the order of execution. costs: those of `graph`."""
    row_of: dict[int, int] = {}  # node -> layer
    groups: list[list[tuple[Node, LayerCost]]] = []
    for node, cost in zip((node for node in graph.nodes if node.op not in FREE), costs.layers):
        sources = _sources(graph, node)
        alone = len(sources) == 1 and (source := next(iter(sources))) in row_of and _fed_by_one(graph, source, node)
        if node.op in POINTWISE and alone:
            row_of[node.index] = row_of[source]
            groups[row_of[source]].append((node, cost))
            continue
        row_of[node.index] = len(groups)
        groups.append([(node, cost)])
    layers = []
    for number, group in enumerate(groups):
        (first, first_cost), (_, last_cost) = group[0], group[-1]
        nodes = tuple(node for node, _ in group)
        inputs = {row_of.get(source, -1) for node in nodes for source in _sources(graph, node)} - {number}
        layers.append(
            Layer(
                name=first.module.removesuffix(".conv") or "(forward)",
                what=layer_name(graph, nodes),
                nodes=nodes,
                inputs=tuple(sorted(inputs)),
                output_shape=last_cost.output_shape,
                params=sum(cost.params for _, cost in group),
                macs=None if any(cost.macs is None for _, cost in group) else sum(cost.macs or 0 for _, cost in group),
                weight_bytes=sum(cost.weight_bytes for _, cost in group),
                read_bytes=first_cost.read_bytes,
                write_bytes=last_cost.write_bytes,
                live_bytes=max(cost.live_bytes for _, cost in group),
            )
        )
    return tuple(layers)


def stages_of(layers: Iterable[Stage]) -> list[Stage]:
    """Layers, each as a `Stage` named by its path, summed by the part of the network they belong to, in order."""
    sums: dict[str, Stage] = {}
    for layer in layers:
        name = stage_of(layer.name)
        if name not in sums:
            sums[name] = layer._replace(name=name)
            continue
        before = sums[name]
        # a layer without a time adds none; a stage without any keeps nan
        times = [ms for ms in (before.ms, layer.ms) if ms == ms]
        sums[name] = Stage(
            name,
            before.layers + layer.layers,
            layer.output_shape,
            before.params + layer.params,
            before.macs + layer.macs,
            before.bytes + layer.bytes,
            sum(times) if times else before.ms,
        )
    return list(sums.values())


def _sources(graph: Graph, node: Node) -> set[int]:
    """The nodes that compute what a node reads, through views; -1 for the network's input."""
    sources: set[int] = set()
    for index in node.inputs:
        value = graph.values[index]
        if value.kind == "input" and value.node < 0:
            sources.add(-1)
        elif value.node >= 0 and value.kind in ("activation", "input"):
            producer = graph.nodes[value.node]
            sources |= _sources(graph, producer) if producer.op in FREE else {producer.index}
    return sources


def _fed_by_one(graph: Graph, source: int, node: Node) -> bool:
    """Whether `node` alone reads the outputs of `source`."""
    return all(graph.consumers[out] in ((), (node.index,)) for out in graph.nodes[source].outputs)

"""What the rules read: the layers of a traced network, decoded once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.adviser.data_facts import DataFacts
from gossamer.analysis.cost import FREE, Cost
from gossamer.analysis.graph import Graph, Node, Value
from gossamer.analysis.layers import Layer
from gossamer.analysis.names import node_name, stage_of

Weights = NDArray[np.float32]
NORMS = frozenset(
    """_native_batch_norm_legit_no_training native_batch_norm native_group_norm native_layer_norm
    onnx::InstanceNormalization onnx::LayerNormalization onnx::GroupNormalization""".split()
)
BATCH_NORMS = frozenset(("_native_batch_norm_legit_no_training", "native_batch_norm"))
WINDOW_POOLS = frozenset(("max_pool2d_with_indices", "max_pool2d", "avg_pool2d"))
GLOBAL_POOLS = frozenset(("mean", "amax", "_adaptive_avg_pool2d", "adaptive_max_pool2d"))
ACTIVATIONS = frozenset(
    """_prelu_kernel celu clamp clamp_max clamp_min elu erf exp gelu hardsigmoid hardswish hardtanh leaky_relu
    log_sigmoid_forward mish relu rrelu_with_noise selu sigmoid silu softplus tanh""".split()
)
RECTIFIERS = frozenset(("relu", "hardtanh", "clamp", "clamp_min"))  # what is below 0 is lost


@dataclass(frozen=True)
class LayerFacts:
    """A layer, decoded. index: its place in `Subject.layers`.

    kind: "conv", "linear", "pool", "global pool", "concat", "add", "mul", "norm", "activation" or "other". c_in, c_out:
    channels (features of a linear layer). kernel: of a convolution or a pool, rows and columns; of another (1, 1).
    grid_in, grid_out: rows and columns of its first input and of its output, () where they are no maps. act: the ATen
    name of the last activation in it, "" for none. norm: whether a norm follows the convolution in it. bias: whether
    the convolution or linear layer has one. cut: whether all that the network knows of the image passes here.
    """

    index: int
    layer: Layer
    kind: str
    c_in: int
    c_out: int
    kernel: tuple[int, ...] = (1, 1)
    stride: int = 1
    groups: int = 1
    grid_in: tuple[int, ...] = ()
    grid_out: tuple[int, ...] = ()
    act: str = ""
    norm: bool = False
    bias: bool = False
    cut: bool = False

    @property
    def name(self) -> str:
        """Path of its module, or the node's name in a file."""
        return self.layer.name

    @property
    def macs(self) -> int:
        """Multiply-adds; 0 where an operation has no formula."""
        return self.layer.macs or 0

    @property
    def moved(self) -> int:
        """Bytes of weights and activations, read and written."""
        return self.layer.weight_bytes + self.layer.read_bytes + self.layer.write_bytes

    @property
    def size(self) -> int:
        """Values of its output."""
        return int(np.prod(self.layer.output_shape[1:]))

    @property
    def depthwise(self) -> bool:
        """A convolution of each channel by itself."""
        return self.kind == "conv" and self.groups > 1 and self.groups == self.c_in

    @property
    def pointwise(self) -> bool:
        """A 1x1 convolution over all channels of a map of more than one position."""
        return self.kind == "conv" and self.kernel == (1, 1) and self.groups == 1 and self.grid_out not in ((), (1, 1))

    @property
    def dense_kernel(self) -> bool:
        """A convolution over positions and over all channels."""
        return self.kind == "conv" and max(self.kernel) > 1 and self.groups == 1


@dataclass(frozen=True)
class Subject:
    """A network under review.

    name: as the user gave it. kind: "network", "run", "model file" or "module". network, arguments: of `create_model`, ""
    where the network is not one of ours. trained: whether its weights mean anything. read: a weight by its name, None
    where its numbers are not known. lanes: float32 numbers in a vector register of this machine. settings: of a run. data:
    of its images, None where they were not looked at.
    """

    name: str
    kind: str
    graph: Graph
    cost: Cost
    layers: tuple[LayerFacts, ...]
    network: str = ""
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    trained: bool = False
    read: Callable[[str], Weights | None] = lambda name: None
    lanes: int = 8
    settings: Any = None
    data: DataFacts | None = None

    @functools.cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each layer the layers that read it."""
        readers: list[list[int]] = [[] for _ in self.layers]
        for each in self.layers:
            for source in each.layer.inputs:
                if source >= 0:
                    readers[source].append(each.index)
        return tuple(map(tuple, readers))

    @functools.cached_property
    def moved(self) -> int:
        """Bytes that all layers move, at least 1."""
        return max(1, sum(each.moved for each in self.layers))

    @property
    def macs(self) -> int:
        """Multiply-adds of the network, at least 1."""
        return max(1, self.cost.macs)

    @property
    def params(self) -> int:
        """Parameters of the network, at least 1."""
        return max(1, self.cost.params)

    @functools.cached_property
    def cuts(self) -> tuple[LayerFacts, ...]:
        """The layers through which all passes, of maps, in order."""
        return tuple(each for each in self.layers if each.cut and each.grid_out not in ((), (1, 1)))

    @property
    def input_grid(self) -> tuple[int, ...]:
        """Rows and columns of the input."""
        return self.cost.input_shape[2:]

    def source(self, each: LayerFacts) -> LayerFacts | None:
        """The one layer that `each` reads; None where there are several, or the input alone."""
        inputs = each.layer.inputs
        return self.layers[inputs[0]] if len(inputs) == 1 and inputs[0] >= 0 else None

    def reader(self, each: LayerFacts) -> LayerFacts | None:
        """The one layer that reads `each`; None where there are several or none."""
        readers = self.consumers[each.index]
        return self.layers[readers[0]] if len(readers) == 1 else None

    def weight(self, each: LayerFacts) -> Weights | None:
        """The weight of a convolution or linear layer, (out, in, ...); None where its numbers are not known."""
        node = each.layer.nodes[0]
        for index in node.inputs:
            value = self.graph.values[index]
            while value.node >= 0 and self.graph.nodes[value.node].op in FREE and self.graph.nodes[value.node].inputs:
                value = self.graph.values[self.graph.nodes[value.node].inputs[0]]
            if value.name and value.kind == "parameter" and len(value.shape) > 1:
                numbers = self.read(value.name)
                if numbers is None or each.kind != "linear" or numbers.shape[0] == each.c_out:
                    return numbers
                return numbers.T
        return None

    def vectors(self, each: LayerFacts, node: Node) -> list[Weights]:
        """The vectors of one number per channel that a node reads, in its order: of a norm gamma, beta, mean, variance."""
        read = []
        for index in node.inputs[1:]:
            value = self.graph.values[index]
            numbers = self.read(value.name) if value.name and value.shape == (each.c_out,) else None
            if numbers is not None:
                read.append(numbers)
        return read


def decode(graph: Graph, layers: tuple[Layer, ...]) -> tuple[LayerFacts, ...]:
    """The facts of each layer of a traced network."""
    cuts = _cuts(graph, layers)
    return tuple(_facts(graph, layer, index, cuts[index]) for index, layer in enumerate(layers))


def stage(each: LayerFacts) -> str:
    """The part of the network that a layer belongs to."""
    return stage_of(each.name)


def _cuts(graph: Graph, layers: tuple[Layer, ...]) -> list[bool]:
    """For each layer whether no path leads past it: nothing made before is read behind it."""
    made = {output: number for number, layer in enumerate(layers) for node in layer.nodes for output in node.outputs}
    last = list(range(len(layers)))
    before = 0  # the last layer that reads the input
    for number, layer in enumerate(layers):
        for source in layer.inputs:
            if source < 0:
                before = max(before, number)
            else:
                last[source] = max(last[source], number)
    for index in graph.outputs:  # an output is read behind everything
        value = graph.values[index]
        while value.index not in made and value.node >= 0 and graph.nodes[value.node].inputs:
            value = graph.values[graph.nodes[value.node].inputs[0]]
        if value.index in made:
            last[made[value.index]] = len(layers)
    cuts = []
    for number in range(len(layers)):
        cuts.append(before <= number)
        before = max(before, last[number])
    return cuts


def _grid(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[2:] if len(shape) == 4 else ()


def _facts(graph: Graph, layer: Layer, index: int, cut: bool) -> LayerFacts:
    first = layer.nodes[0]
    values = [graph.values[number] for number in first.inputs]
    output = graph.values[first.outputs[0]].shape if first.outputs else ()
    source = next((value for value in values if value.kind in ("activation", "input")), None)
    shape = source.shape if source is not None else ()
    facts: dict[str, Any] = {
        "grid_in": _grid(shape),
        "grid_out": _grid(layer.output_shape),
        "c_in": shape[1] if len(shape) > 1 else 0,
        "c_out": layer.output_shape[1] if len(layer.output_shape) > 1 else 0,
        "cut": cut,
        "act": next((node.op for node in reversed(layer.nodes) if _is_activation(node)), ""),
        "norm": any(node.op in NORMS for node in layer.nodes[1:]),
    }
    kind = _kind(graph, first, values, output)
    if kind == "conv":
        weight = values[1].shape
        facts |= {"kernel": weight[2:], "stride": max(first.attributes["stride"]), "groups": first.attributes["groups"]}
        facts["bias"] = len(values) == 3 and len(values[2].shape) == 1
    elif kind == "linear":
        matrix = [value for value in values if len(value.shape) >= 2]
        facts |= {"c_in": matrix[0].shape[-1], "c_out": output[-1], "bias": any(len(v.shape) == 1 for v in values)}
    elif kind == "pool":
        kernel = _pair(first.attributes["kernel_size"])
        facts |= {"kernel": kernel, "stride": max(_pair(first.attributes.get("stride") or kernel))}
    return LayerFacts(index, layer, kind, **facts)


def _kind(graph: Graph, node: Node, values: list[Value], output: tuple[int, ...]) -> str:
    if node.op == "convolution" and len(values) > 1 and len(values[1].shape) == 4:
        return "conv" if not node.attributes["transposed"] else "other"
    if node.op in ("mm", "addmm") and any(value.kind in ("parameter", "constant") for value in values):
        return "linear"
    if node.op in WINDOW_POOLS:
        return "pool"
    if node.op in GLOBAL_POOLS and node_name(graph, node).startswith("global"):
        return "global pool"
    known = {"cat": "concat", "add": "add", "mul": "mul"}
    if node.op in known:
        return known[node.op]
    return "norm" if node.op in NORMS else "activation" if _is_activation(node) else "other"


def _is_activation(node: Node) -> bool:
    return node.op in ACTIVATIONS


def _pair(value: Any) -> tuple[int, ...]:
    if isinstance(value, int):
        return value, value
    return tuple(value) if len(value) != 1 else (value[0], value[0])

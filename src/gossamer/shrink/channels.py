"""Which channels of a graph can be rescaled together without changing what it computes.

A convolution's output channel may be divided by a positive factor where everything that reads it multiplies its weights by
the same factor. What lies between must not notice: additions scale when all they add scales alike, so that a residual
stream is one set of channels from its first projection to its last reader; ReLU, pools and layout operations pass a factor
through; a sigmoid, a clip or an output of the network pins it to 1.
Source: cross-layer equalisation, Nagel et al. 2019 (1906.04721), section 4.1, for pairs of layers; here for whole streams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.operators.table import OPERATORS
from gossamer.shrink.graph import OnnxGraph
from gossamer.shrink.ranges import Values

Ids = NDArray[np.int64]
LAYOUT = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Split", "Slice", "Concat", "Gather")
# f(s * x) = s * f(x) for s > 0, channel by channel
HOMOGENEOUS = (
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Abs",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "Dropout",
)
ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu", "Abs")  # of these
SPATIAL = ("ReduceMean", "ReduceMax", "ReduceSum", "Resize", "Upsample", "Pad")


@dataclass
class Link:
    """A layer beside one of its values: the set of each channel. kind: what of the layer holds the channels."""

    node: Any
    kind: str  # "input", "output", "added constant", "norm"
    sets: Ids
    other: Ids | None = None  # of the input, for a norm


@dataclass
class ChannelSets:
    """The sets of channels of a graph: `of` gives the set of each channel of a value; `pinned` those that must stay.

    linear: those that no activation meets, as the streams between linear bottlenecks.
    """

    of: dict[str, Ids] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    pinned: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    linear: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))


class _Builder:
    def __init__(self, graph: OnnxGraph, values: dict[str, Values]) -> None:
        self.graph, self.values = graph, values
        self.count = 0
        self.ids: dict[str, Ids] = {}  # value -> the variable of each of its numbers, (1, ...)
        self.own: dict[str, Ids] = {}  # value -> the variable of each channel, where it has variables of its own
        self.pins: list[Ids] = []
        self.edges: list[tuple[Ids, Ids]] = []
        self.links: list[Link] = []

    def new(self, name: str) -> Ids | None:
        """New variables for the channels of a value; None for what is no float map."""
        if name not in self.values:
            return None
        shape = (1, *self.values[name].shape)
        vector = np.arange(self.count, self.count + shape[1], dtype=np.int64)
        self.count += shape[1]
        self.own[name] = vector
        self.ids[name] = np.broadcast_to(vector.reshape(1, -1, *(1,) * (len(shape) - 2)), shape)
        return vector

    def vector(self, name: str) -> Ids | None:
        """The variable of each channel of a value; where a channel holds several, they are pinned and this is None."""
        if name not in self.ids:
            return None
        ids = self.ids[name]
        first = ids.reshape(ids.shape[0], ids.shape[1], -1)[:, :, :1]
        if ids.shape[0] == 1 and (ids.reshape(1, ids.shape[1], -1) == first).all():
            return np.asarray(first.reshape(-1))
        self.pin(name)
        return None

    def pin(self, name: str) -> None:
        if name in self.ids:
            self.pins.append(np.unique(self.ids[name]))

    def pinned(self, vector: Ids) -> bool:
        """Whether all of these are pinned already; only what comes before counts."""
        return bool(self.pins) and bool(np.isin(vector, np.concatenate(self.pins)).all())

    def build(self) -> ChannelSets:
        self.new(self.graph.input)
        self.pin(self.graph.input)
        for node in self.graph.nodes:
            handler = HANDLERS.get(node.op_type)
            if handler is None or not handler(self, node):
                self.give_up(node)
        for name in self.graph.outputs:
            self.pin(name)
        return self._sets()

    def give_up(self, node: Any) -> None:
        """What an unknown operator reads and makes stays as it is."""
        for name in node.input:
            self.pin(name)
        for name in node.output:
            if self.new(name) is not None:
                self.pin(name)

    def _sets(self) -> ChannelSets:
        labels = np.arange(self.count, dtype=np.int64)
        if self.edges:
            left = np.concatenate([a for a, _ in self.edges])
            right = np.concatenate([b for _, b in self.edges])
            for _ in range(self.count):  # a bound: each round but the last lowers a label
                least = np.minimum(labels[left], labels[right])
                before = labels.copy()
                np.minimum.at(labels, left, least)
                np.minimum.at(labels, right, least)
                np.minimum.at(labels, before[left], least)
                np.minimum.at(labels, before[right], least)
                labels = labels[labels]
                if (labels == before).all():
                    break
        pinned = np.zeros(self.count, np.bool_)
        if self.pins:
            pinned[labels[np.concatenate(self.pins)]] = True
        for link in self.links:
            link.sets = labels[link.sets]
            link.other = None if link.other is None else labels[link.other]
        of = {name: labels[vector] for name, vector in self.own.items()}
        linear = ~pinned
        for node in self.graph.nodes:
            if node.op_type in ACTIVATIONS and node.output[0] in of:
                linear[of[node.output[0]]] = False
        return ChannelSets(of, self.links, pinned, linear)


def channel_sets(graph: OnnxGraph, values: dict[str, Values]) -> ChannelSets:
    """The sets of channels of a graph that one factor each may rescale. values: of `measure`, for the shapes."""
    return _Builder(graph, values).build()


ChannelHandler = Callable[[_Builder, Any], bool]


def _layer(b: _Builder, node: Any) -> bool:
    """A layer with constant weights: its input and output channels scale separately. False where it is of another form."""
    graph = b.graph
    if node.input[1] not in graph.constants or node.input[0] not in b.values:
        return False
    if len(node.input) > 2 and node.input[2] and node.input[2] not in graph.constants:
        return False
    attributes, weight = graph.attributes(node), graph.constants[node.input[1]]
    rank = len(b.values[node.input[0]].shape) + 1
    if node.op_type == "ConvTranspose" and attributes.get("group", 1) != 1:
        return False
    if node.op_type == "Gemm" and (
        attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0
    ):
        return False
    if node.op_type in ("Gemm", "MatMul") and (rank != 2 or weight.ndim != 2):
        return False
    source = b.vector(node.input[0])
    if source is not None:
        b.links.append(Link(node, "input", source))
    output = b.new(node.output[0])
    if output is not None:
        bias = b.graph.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else None
        if bias is not None and bias.size != len(output):
            b.pin(node.output[0])
        b.links.append(Link(node, "output", output))
    return True


def _norm(b: _Builder, node: Any) -> bool:
    """A batch norm that no convolution could take: its weights hold one factor for its input and one for its output."""
    if any(name not in b.graph.constants for name in node.input[1:5]):
        return False
    source, output = b.vector(node.input[0]), b.new(node.output[0])
    if source is None or output is None:
        b.pin(node.output[0])
        return True
    b.links.append(Link(node, "norm", output, source))
    return True


def _homogeneous(b: _Builder, node: Any) -> bool:
    source, output = b.vector(node.input[0]), b.new(node.output[0])
    if output is None:
        return True
    if source is None or len(source) != len(output):
        b.pin(node.input[0])
        b.pin(node.output[0])
    else:
        b.edges.append((source, output))
    for name in node.output[1:]:  # indices of a pool
        b.new(name)
        b.pin(name)
    return True


def _spatial(b: _Builder, node: Any) -> bool:
    """A reduction, resize or padding that leaves the channels alone."""
    before, after = b.values.get(node.input[0]), b.values.get(node.output[0])
    if before is None or after is None or len(before.shape) != 3 or after.shape[0] != before.shape[0]:
        return False
    attributes = b.graph.attributes(node)
    if node.op_type == "Pad":
        value = b.graph.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        named = len(node.input) > 2 and node.input[2] and value is None
        constant = attributes.get("mode", b"constant") in (b"constant", "constant")
        if named or (constant and value is not None and value.size and float(value.reshape(-1)[0]) != 0):
            return False
    if node.op_type.startswith("Reduce"):
        axes = b.graph.constants.get(node.input[1]) if len(node.input) > 1 and node.input[1] else attributes.get("axes")
        if axes is None or not {int(axis) % 4 for axis in np.asarray(axes).reshape(-1)} <= {2, 3}:
            return False
    return _homogeneous(b, node)


def _add(b: _Builder, node: Any) -> bool:
    """All that is added scales alike; a constant per channel scales with it."""
    output_shape = b.values[node.output[0]].shape if node.output[0] in b.values else None
    if output_shape is None:
        return False
    moving = [name for name in node.input if name in b.ids]
    constants = [name for name in node.input if name in b.graph.constants]
    if len(moving) + len(constants) != len(node.input) or not moving:
        return False
    if any(
        b.values[name].shape[0] != output_shape[0] or len(b.values[name].shape) != len(output_shape) for name in moving
    ):
        return False
    for name in constants:
        shape = (1,) * (len(output_shape) + 1 - b.graph.constants[name].ndim) + b.graph.constants[name].shape
        if len(shape) != len(output_shape) + 1 or shape[1] != output_shape[0]:
            return False
    vectors = [b.vector(name) for name in moving]
    output = b.new(node.output[0])
    if output is None:
        return False
    for vector in vectors:
        if vector is None:
            for name in (*moving, node.output[0]):
                b.pin(name)
        else:
            b.edges.append((vector, output))
    if constants:
        b.links.append(Link(node, "added constant", output))
    return True


def _multiply(b: _Builder, node: Any) -> bool:
    """A map times something pinned, such as a gate or a constant."""
    moving = [name for name in node.input if name in b.ids]
    output_values = b.values.get(node.output[0])
    if not moving or output_values is None or (node.op_type == "Div" and node.input[0] not in b.ids):
        return False
    if len(moving) == 2:
        if node.op_type == "Div":
            return False
        first, second = (b.vector(name) for name in moving)
        if first is None or second is None or len(first) != len(second):
            return False
        if b.pinned(second):
            source = first
        elif b.pinned(first):
            source = second
        else:
            return False
    else:
        vector = b.vector(moving[0])
        if vector is None:
            return False
        source = vector
    output = b.new(node.output[0])
    if output is None or len(output) != len(source):
        b.pin(node.output[0])
        return False
    b.edges.append((source, output))
    return True


def _layout(b: _Builder, node: Any) -> bool:
    """The same numbers in another order: the operator itself says where each comes from."""
    arrays: list[Any] = []
    for name in node.input:
        value = b.ids.get(name) if name in b.ids else b.graph.constants.get(name) if name else None
        if value is None and name:
            return False
        arrays.append(value)
    if node.op_type == "Concat" and any(name not in b.ids for name in node.input):
        return False
    if not node.input or node.input[0] not in b.ids:
        return False
    try:
        output_ids = OPERATORS[node.op_type](b.graph.plain(node), *arrays)
    except (ValueError, IndexError, TypeError, KeyError):
        return False
    results = output_ids if isinstance(output_ids, tuple) else (output_ids,)
    for name, ids in zip(node.output, results, strict=False):
        if name not in b.values or ids.shape != (1, *b.values[name].shape):
            return False
        b.ids[name] = np.asarray(ids, np.int64)
    return True


HANDLERS: dict[str, ChannelHandler] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _layer),
    **dict.fromkeys(HOMOGENEOUS, _homogeneous),
    **dict.fromkeys(SPATIAL, _spatial),
    **dict.fromkeys(LAYOUT, _layout),
    "BatchNormalization": _norm,
    "Add": _add,
    "Sum": _add,
    "Sub": _add,
    "Mul": _multiply,
    "Div": _multiply,
}

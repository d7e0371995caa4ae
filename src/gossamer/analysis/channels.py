"""Which channels of a network belong together: the axes of its weights that can only lose an index at the same time.

A convolution's output channel is one with the index of its norm, of every layer that reads it, and of whatever is added
to it or multiplied with it. Each operation that the tracer sees has a rule below, which says what it does to channels.
The result holds for any pruning method; the idea of a dependency graph over parameter axes is Torch-Pruning's (Fang et
al. 2023, arXiv 2301.12900), carried out here on the traced operations, index by index.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.analysis.graph import Graph, Node, Value
from gossamer.errors import InputError

Labels = NDArray[np.int64]
"""The channel of each element: an array that broadcasts to the value's shape; 0 for what must stay."""

Member = tuple[str, int, int]
"""A parameter or buffer by name, its axis, and the index on that axis. Axis 0 is what a layer gives (or scales), axis 1
what it reads."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are alike: they touch the same axes.

    axes: (parameter or buffer, axis) of each tensor that loses an index. channels: for each channel the members that
    go with it; a channel may hold several indices of one axis, as after a flatten or in a grouped convolution.
    """

    axes: tuple[tuple[str, int], ...]
    channels: tuple[tuple[Member, ...], ...]

    @property
    def size(self) -> int:
        """How many channels can be removed one by one."""
        return len(self.channels)


def channel_groups(graph: Graph, *, strict: bool = True) -> tuple[ChannelGroup, ...]:
    """The removable channels of a traced network, those of one group in order of their first index.

    Without one of them, the tensors sliced, the network computes what it computes with the channel's readers at zero.
    Left out are channels of the input and the output, and what an operation mixes in a way that depends on how many
    there are, such as a mean over channels or group norm. strict: raise InputError for an operation without a rule; else
    the channels that it reads and writes stay.
    """
    tracker = _Tracker(graph)
    for index in graph.inputs:
        tracker.labels[index] = np.zeros([1] * len(graph.values[index].shape), dtype=np.int64)
    for node in graph.nodes:
        if not any(graph.values[index].kind in ("input", "activation") for index in node.inputs):
            continue  # a view of a weight, or a constant
        rule = RULES.get(node.op)
        if rule is None and not strict:
            rule = _stay
        if rule is None:
            raise InputError(
                f"{node.op} in {node.module or 'the network'}: no rule for its channels",
                ", ".join(sorted(RULES)),
                "leave that part out of pruning",
            )
        rule(tracker, node)
    for index in graph.outputs:
        tracker.keep(tracker.of(index))
    return tracker.groups()


class _Tracker:
    """Labels of every value so far, and which labels are one channel (union-find)."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.labels: dict[int, Labels] = {}
        self.parents = [0]
        self.members: list[list[Member]] = [[]]
        self.owners: dict[tuple[str, int], Labels] = {}

    def new(self, count: int) -> Labels:
        start = len(self.parents)
        self.parents += range(start, start + count)
        self.members += [[] for _ in range(count)]
        return np.arange(start, start + count)

    def root(self, label: int) -> int:
        while self.parents[label] != label:
            self.parents[label] = label = self.parents[self.parents[label]]
        return label

    def tie(self, first: Labels, second: Labels) -> None:
        """Make the labels at the same places one channel each."""
        count = len(self.parents)
        for pair in np.unique(first * count + second).tolist():
            low, high = sorted((self.root(pair // count), self.root(pair % count)))
            self.parents[high] = low

    def keep(self, labels: Labels) -> None:
        """What carries these labels must stay."""
        self.tie(labels, np.zeros(1, dtype=np.int64))

    def own(self, name: str, axis: int, labels: Labels) -> None:
        """The indices 0, 1, ... of a parameter's axis belong to these labels; of a layer used twice, to both uses'."""
        if (name, axis) in self.owners:
            self.tie(self.owners[name, axis], labels)
            return
        self.owners[name, axis] = labels
        for index, label in enumerate(labels.tolist()):
            self.members[label].append((name, axis, index))

    def value(self, index: int) -> Value:
        return self.graph.values[index]

    def of(self, index: int) -> Labels:
        """The labels of a value; what no channel reached, such as a constant, must stay."""
        return self.labels.get(index, np.zeros([1] * len(self.value(index).shape), dtype=np.int64))

    def along(self, index: int, axis: int) -> Labels:
        """One label per index of `axis`. Where labels differ along another axis, they all must stay."""
        labels = self.of(index)
        count = self.value(index).shape[axis]
        if labels.size != labels.shape[axis]:
            self.keep(labels)
            return np.zeros(count, dtype=np.int64)
        return np.broadcast_to(labels.reshape(-1), (count,))

    def groups(self) -> tuple[ChannelGroup, ...]:
        merged: dict[int, list[Member]] = defaultdict(list)
        for label, members in enumerate(self.members):
            merged[self.root(label)] += members
        sizes = {value.name: value.shape for value in self.graph.values if value.name and value.node < 0}
        by_axes: dict[tuple[tuple[str, int], ...], list[tuple[Member, ...]]] = {}
        for root, members in merged.items():
            counts: dict[tuple[str, int], int] = defaultdict(int)
            for name, axis, _ in members:
                counts[name, axis] += 1
            # a channel without which an axis would be empty stays
            if root == 0 or any(count == sizes[name][axis] for (name, axis), count in counts.items()):
                continue
            by_axes.setdefault(tuple(sorted(counts)), []).append(tuple(sorted(members)))
        return tuple(ChannelGroup(axes, tuple(sorted(channels))) for axes, channels in by_axes.items() if axes)


def _shaped(labels: Labels, ndim: int, axis: int) -> Labels:
    return labels.reshape([-1 if each == axis else 1 for each in range(ndim)])


def _convolution(t: _Tracker, node: Node) -> None:
    """Dense: reads on axis 1, gives on axis 0. Grouped: the same place of every group goes together. Depthwise: one."""
    image, weight, *bias = node.inputs
    name, groups, transposed = t.value(weight).name, node.attributes["groups"], node.attributes["transposed"]
    reads, gives = (0, 1) if transposed else (1, 0)
    shape, ndim = t.value(weight).shape, len(t.value(image).shape)
    read = t.along(image, 1)
    if groups == 1:
        t.own(name, reads, read)
        output = t.new(shape[gives])
        t.own(name, gives, output)
    elif shape[1] == 1 and shape[0] == groups and not transposed:
        output = read
        t.own(name, 0, output)
    elif transposed:
        t.keep(read)
        output = np.zeros(t.value(node.outputs[0]).shape[1], dtype=np.int64)
    else:
        by_group = read.reshape(groups, -1)
        t.tie(by_group, by_group[:1])
        t.own(name, 1, by_group[0])
        output = t.new(shape[0])
        t.own(name, 0, output)
        t.tie(output.reshape(groups, -1), output.reshape(groups, -1)[:1])
        if shape[1] == 1:  # one input channel per group: a group is removed as a unit, which axis 1 cannot express
            t.keep(read)
    for each in bias:
        t.own(t.value(each).name, 0, output)
    t.labels[node.outputs[0]] = _shaped(output, ndim, 1)


def _linear(t: _Tracker, node: Node) -> None:
    *bias, image, weight = node.inputs
    value = t.value(weight)
    if value.kind != "parameter" or t.graph.nodes[value.node].op != "t":
        return _stay(t, node)
    read = t.along(image, len(t.value(image).shape) - 1)
    t.own(value.name, 1, read)
    output = t.new(value.shape[1])
    t.own(value.name, 0, output)
    for each in bias:
        t.own(t.value(each).name, 0, output)
    t.labels[node.outputs[0]] = output.reshape(1, -1)
    return None


def _norm(t: _Tracker, node: Node) -> None:
    """Batch norm and PReLU: a value per channel."""
    labels = t.along(node.inputs[0], 1)
    for each in node.inputs[1:]:
        if t.value(each).shape == labels.shape and t.value(each).name:
            t.own(t.value(each).name, 0, labels)
    t.labels[node.outputs[0]] = t.of(node.inputs[0])


def _same(t: _Tracker, node: Node) -> None:
    """Activations, pools, copies: channel for channel."""
    t.labels[node.outputs[0]] = t.of(node.inputs[0])


def _elementwise(t: _Tracker, node: Node) -> None:
    """Sums and products: what meets is one channel; one value for all channels must stay."""
    values = [each for each in node.inputs if t.value(each).numel > 1] or list(node.inputs)
    if any(t.value(each).kind in ("parameter", "buffer") for each in values):
        return _stay(t, node)
    output = t.value(node.outputs[0]).shape
    arrays = []
    for each in values:
        labels = t.of(each)
        labels = labels.reshape([1] * (len(output) - labels.ndim) + list(labels.shape))
        shape = [1] * (len(output) - len(t.value(each).shape)) + list(t.value(each).shape)
        arrays.append((labels, shape))
    widest = np.broadcast_shapes(*(labels.shape for labels, _ in arrays))
    tied = None
    for labels, shape in arrays:
        if any(wide > 1 and side == 1 and full > 1 for wide, side, full in zip(widest, shape, output, strict=True)):
            t.keep(labels)
        elif tied is None:
            tied = np.broadcast_to(labels, widest)
        else:
            t.tie(tied, labels)
    t.labels[node.outputs[0]] = np.zeros([1] * len(output), dtype=np.int64) if tied is None else tied
    return None


def _dims(node: Node, ndim: int) -> tuple[int, ...]:
    dims = node.attributes.get("dim")
    dims = range(ndim) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    return tuple(sorted(dim % ndim for dim in dims))


def _reduce(t: _Tracker, node: Node) -> None:
    """Mean and maximum over places; over channels their number matters, and they must stay. A sum ties what it adds."""
    labels = t.of(node.inputs[0])
    dims = _dims(node, labels.ndim)
    first = labels[tuple(slice(0, 1) if axis in dims else slice(None) for axis in range(labels.ndim))]
    if any(labels.shape[dim] > 1 for dim in dims):
        if node.op != "sum":
            t.keep(labels)
        t.tie(labels, first)
    t.labels[node.outputs[0]] = first if node.attributes.get("keepdim") else first.squeeze(dims)


def _softmax(t: _Tracker, node: Node) -> None:
    labels = t.of(node.inputs[0])
    t.tie(labels, labels.take([0], axis=node.attributes["dim"]))
    t.labels[node.outputs[0]] = labels


def _varying(labels: Labels) -> list[int]:
    """The axes along which labels differ."""
    return [axis for axis in range(labels.ndim) if labels.shape[axis] > 1 and (labels != labels.take([0], axis)).any()]


def _view(t: _Tracker, node: Node) -> None:
    """Another shape of the same elements: shuffles, flattens.

    Where channels become rows and columns, code fixes the number of rows (the groups of a shuffle) and computes the
    columns: a column can only go as a whole.
    """
    source, target = t.value(node.inputs[0]).shape, t.value(node.outputs[0]).shape
    before = np.broadcast_to(t.of(node.inputs[0]), source)
    labels = before.reshape(target)
    varying = _varying(labels)
    if len(varying) > len(_varying(before)):
        for axis in varying[:-1]:
            t.tie(labels, labels.take([0], axis=axis))
    for axis in range(labels.ndim):
        first = labels.take([0], axis=axis)
        if (labels == first).all():
            labels = first
    t.labels[node.outputs[0]] = labels


def _transpose(t: _Tracker, node: Node) -> None:
    labels = t.of(node.inputs[0])
    if node.op == "permute":
        t.labels[node.outputs[0]] = labels.transpose([dim % labels.ndim for dim in node.attributes["dims"]])
    else:
        t.labels[node.outputs[0]] = labels.swapaxes(node.attributes["dim0"], node.attributes["dim1"])


def _widened(t: _Tracker, index: int, axis: int) -> Labels:
    labels = t.of(index)
    shape = list(labels.shape)
    shape[axis] = t.value(index).shape[axis]
    return np.broadcast_to(labels, shape)


def _cat(t: _Tracker, node: Node) -> None:
    _concatenated(t, node, [_widened(t, each, node.attributes["dim"]) for each in node.inputs], node.attributes["dim"])


def _stack(t: _Tracker, node: Node) -> None:
    dim = node.attributes["dim"]
    _concatenated(t, node, [np.expand_dims(t.of(each), dim) for each in node.inputs], dim)


def _concatenated(t: _Tracker, node: Node, arrays: Sequence[Labels], dim: int) -> None:
    shape = list(np.broadcast_shapes(*([1 if a == dim % x.ndim else n for a, n in enumerate(x.shape)] for x in arrays)))
    full = []
    for labels in arrays:
        shape[dim] = labels.shape[dim]
        full.append(np.broadcast_to(labels, shape))
    t.labels[node.outputs[0]] = np.concatenate(full, axis=dim)


def _split(t: _Tracker, node: Node) -> None:
    dim = node.attributes["dim"]
    labels, start = _widened(t, node.inputs[0], dim), 0
    counts = [t.value(each).shape[dim] for each in node.outputs]
    if sum(counts) != labels.shape[dim]:
        return _stay(t, node)  # the graph leaves out a part that nothing reads
    if dim % labels.ndim in _varying(labels) and (node.op != "split" or len(set(counts)) > 1):
        return _stay(t, node)  # parts of fixed or unequal sizes would begin at other channels
    for each, count in zip(node.outputs, counts, strict=True):
        t.labels[each] = labels.take(range(start, start + count), axis=dim)
        t.tie(t.labels[each], t.labels[node.outputs[0]])  # equal parts stay equal: each loses the same place
        start += count
    return None


def _slice(t: _Tracker, node: Node) -> None:
    dim, at = node.attributes["dim"], node.attributes
    labels = _widened(t, node.inputs[0], dim)
    if node.op == "select":
        if dim % labels.ndim in _varying(labels):
            t.keep(labels)
        t.labels[node.outputs[0]] = labels.take(at["index"], axis=dim)
    else:
        places = range(labels.shape[dim])[slice(at["start"], at["end"], at["step"])]
        t.labels[node.outputs[0]] = labels.take(places, axis=dim)
        if list(places) == list(range(len(places))):  # without the last ones: these must be the last ones still
            t.keep(labels.take(range(len(places), labels.shape[dim]), axis=dim))
        elif dim % labels.ndim in _varying(labels):
            t.keep(labels)  # a place that is counted from the front would be another channel's


def _unsqueeze(t: _Tracker, node: Node) -> None:
    t.labels[node.outputs[0]] = np.expand_dims(t.of(node.inputs[0]), node.attributes["dim"])


def _stay(t: _Tracker, node: Node) -> None:
    """Channels must stay: how many there are changes the result, or a weight is used in a way of its own."""
    for each in node.inputs:
        t.keep(t.of(each))
    for each in node.outputs:
        t.labels[each] = np.zeros([1] * len(t.value(each).shape), dtype=np.int64)


def _rules(rule: Callable[[_Tracker, Node], None], names: str) -> dict[str, Callable[[_Tracker, Node], None]]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Callable[[_Tracker, Node], Any]] = {
    "convolution": _convolution,
    **_rules(_linear, "addmm mm"),
    **_rules(_norm, "native_batch_norm _native_batch_norm_legit_no_training _prelu_kernel"),
    **_rules(
        _same,
        "_adaptive_avg_pool2d adaptive_max_pool2d alias avg_pool2d clamp clamp_max clamp_min clone detach elu gelu "
        "hardsigmoid hardswish hardtanh leaky_relu max_pool2d_with_indices mish neg pow relu sigmoid silu tanh "
        "upsample_bilinear2d upsample_nearest2d",
    ),
    **_rules(_elementwise, "add div mul sub"),
    **_rules(_reduce, "amax mean sum"),
    "_softmax": _softmax,
    **_rules(_view, "_unsafe_view view"),
    **_rules(_transpose, "permute transpose"),
    "cat": _cat,
    "stack": _stack,
    **_rules(_split, "split split_with_sizes"),
    **_rules(_slice, "select slice"),
    "unsqueeze": _unsqueeze,
    **_rules(_stay, "native_group_norm native_layer_norm"),
}

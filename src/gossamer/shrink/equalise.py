"""Cross-layer equalisation: factors per channel after which the maps quantise well, and the same function.

The factor of a set of channels makes the range of its maps and of the weights that read them alike: the square root of the
one over the other (Nagel et al. 2019, 1906.04721, equation 11, with the range of the map in place of the weights before
it, as weights have a scale per channel here). It is a power of two, so that no number of the network changes otherwise and
a network that was rescaled by powers of two comes back to the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.shrink.channels import ChannelSets, channel_sets
from gossamer.shrink.graph import OnnxGraph
from gossamer.shrink.ranges import Values

MOST = 20  # |log2| of a factor


def has_linear(graph: OnnxGraph, values: dict[str, Values]) -> bool:
    """Whether a graph has channels that may be rescaled and that no activation meets."""
    return bool(channel_sets(graph, values).linear.any())


def equalise(graph: OnnxGraph, values: dict[str, Values], strength: float = 0.5, linear: bool = False) -> int:
    """Rescale the channels of `graph`, in place; returns how many sets of channels got a factor other than 1.

    values: of `measure` on this graph; they no longer hold where channels were rescaled. strength: 0.5 shares the
    differences between maps and weights, 1 makes the maps alike and leaves all differences to the weights. linear: rescale
    those channels alone that no activation meets.
    """
    sets = channel_sets(graph, values)
    factors = _factors(graph, sets, values, strength)
    if linear:
        factors[~sets.linear] = 1.0
    for link in sets.links:
        rescale(graph, link.node, link.kind, factors[link.sets], None if link.other is None else factors[link.other])
    return int((factors != 1).sum())


def _factors(graph: OnnxGraph, sets: ChannelSets, values: dict[str, Values], strength: float) -> NDArray[np.float64]:
    """What each set's maps are divided by, powers of two; 1 where a set is pinned."""
    count = len(sets.pinned)
    maps, weights = np.zeros(count), np.zeros(count)
    for name, ids in sets.of.items():
        np.maximum.at(maps, ids, values[name].largest.astype(np.float64))
    outputs = {id(link.node): maps[link.sets] for link in sets.links if link.kind == "output"}
    for link in sets.links:
        if link.kind == "input" and not _depthwise(graph, link.node):
            np.maximum.at(weights, link.sets, _columns(graph, link.node, len(link.sets), outputs[id(link.node)]))
    with np.errstate(divide="ignore", invalid="ignore"):
        both = strength * np.log2(maps) - (1 - strength) * np.log2(weights)
        powers = np.where(weights > 0, both, np.log2(maps))  # depthwise readers have a scale of their own per channel
        dead = (maps == 0) & (weights > 0)  # never seen to be other than 0: bring its weights to the size of the others
        if dead.any():
            # of the others as they will be: in what scale they came must not matter
            others = (weights > 0) & ~dead
            usual = np.median((np.log2(weights) + np.rint(powers))[others]) if others.any() else 0.0
            powers = np.where(dead, usual - np.log2(weights), powers)
    powers = np.where(np.isfinite(powers), np.clip(np.rint(powers), -MOST, MOST), 0.0)
    return np.where(sets.pinned, 1.0, np.exp2(powers))


def _depthwise(graph: OnnxGraph, node: Any) -> bool:
    """Whether each input channel has filters of its own, which are quantised by themselves."""
    weight = graph.constants[node.input[1]]
    return bool(node.op_type == "Conv" and weight.shape[1] == 1 and graph.attributes(node).get("group", 1) > 1)


def _columns(graph: OnnxGraph, node: Any, channels: int, ranges: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest weight that meets each input channel of a layer, relative to the range of the output it is part of.

    ranges: of the output channels. Where one is 0, the largest weight of its row stands in. So a factor on an output channel
    changes nothing here.
    """
    weight = np.abs(graph.constants[node.input[1]].astype(np.float64))
    groups = 1
    if node.op_type == "Conv":
        groups = graph.attributes(node).get("group", 1)
        rows = weight.reshape(weight.shape[0], weight.shape[1], -1).max(axis=2)  # (output, input of its group)
    elif node.op_type == "ConvTranspose":
        rows = weight.reshape(weight.shape[0], weight.shape[1], -1).max(axis=2).T
    else:
        rows = weight if node.op_type == "Gemm" and graph.attributes(node).get("transB", 0) else weight.T
    largest = rows.max(axis=1)
    relative = rows / np.where(ranges > 0, ranges, np.where(largest > 0, largest, 1.0))[:, None]
    return np.asarray(relative.reshape(groups, -1, rows.shape[1]).max(axis=1).reshape(channels))


def rescale(
    graph: OnnxGraph, node: Any, kind: str, factors: NDArray[np.float64], other: NDArray[np.float64] | None
) -> None:
    """Change the constants of a layer for the factors of its input or output channels."""
    if (factors == 1).all() and (other is None or (other == 1).all()):
        return
    if kind == "added constant":
        for place, name in enumerate(node.input):
            if name in graph.constants:
                name = graph.own(node, place)
                value = graph.constants[name]
                axis = _channel_axis(value, factors)
                sides = tuple(-1 if i == axis else 1 for i in range(value.ndim))
                graph.constants[name] = (value / factors.reshape(sides)).astype(np.float32)
        return
    if kind == "norm":
        assert other is not None
        scale, shift, mean = (graph.own(node, place) for place in (1, 2, 3))
        graph.constants[mean] = (graph.constants[mean] / other).astype(np.float32)
        graph.constants[scale] = (graph.constants[scale] * other / factors).astype(np.float32)
        graph.constants[shift] = (graph.constants[shift] / factors).astype(np.float32)
        return
    name = graph.own(node, 1)
    weight = graph.constants[name]
    groups = graph.attributes(node).get("group", 1) if node.op_type == "Conv" else 1
    transposed = node.op_type == "Gemm" and graph.attributes(node).get("transB", 0)
    if kind == "output":
        axis = 0 if node.op_type == "Conv" or transposed else 1
        sides = tuple(-1 if i == axis else 1 for i in range(weight.ndim))
        graph.constants[name] = (weight / factors.reshape(sides)).astype(np.float32)
        if len(node.input) > 2 and node.input[2]:
            bias = graph.own(node, 2)
            graph.constants[bias] = (graph.constants[bias].reshape(-1) / factors).astype(np.float32)
    elif node.op_type == "Conv":
        grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        scaled = grouped * factors.reshape(groups, 1, weight.shape[1], 1)
        graph.constants[name] = scaled.reshape(weight.shape).astype(np.float32)
    else:
        axis = 1 if transposed else 0
        sides = tuple(-1 if i == axis else 1 for i in range(weight.ndim))
        graph.constants[name] = (weight * factors.reshape(sides)).astype(np.float32)


def _channel_axis(value: NDArray[Any], factors: NDArray[np.float64]) -> int:
    """The axis of a constant (C,), (C, 1, 1) or (1, C, 1, 1) that runs over the channels."""
    return 1 if value.ndim in (2, 4) and value.shape[0] == 1 and value.shape[1] == len(factors) else 0

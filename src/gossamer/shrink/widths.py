"""What a network costs at other widths: candidates of each channel group, and costs as tables over them.

A weight of a convolution costs (MACs, bytes) in proportion to the product of its two axes, and each axis is a sum of
what the groups leave of it. So a cost is exactly: a constant, a table per group (that group narrowed alone), and a
table per pair of groups that meet in a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import prod

import numpy as np
from numpy.typing import NDArray

from gossamer.analysis.channels import ChannelGroup
from gossamer.analysis.graph import Graph

Numbers = NDArray[np.float64]

STEP = 8  # widths are multiples of it: micro-kernels compute 8 or 16 channels at once
NARROW = 32  # of layers that are narrower half of it
MOST = 8  # candidates of a group
LEAST = 1 / 16  # of its width, the narrowest candidate
MOST_PAIRED = 30_000  # entries of all tables of pairs, for an integer programme of seconds


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: weight name, axes at full width, MACs per product of the two, taps, and for each
    group by its number how many indices of an axis one of its channels holds."""

    weight: str
    output: int
    input: int
    positions: int
    taps: int
    output_of: Mapping[int, int]
    input_of: Mapping[int, int]

    @property
    def groups(self) -> set[int]:
        """The channel groups by which it can become narrower."""
        return {*self.output_of, *self.input_of}


@dataclass
class CostModel:
    """base + unary[g][k_g] + pairs[g, h][k_g, k_h] for the candidate k of each group; 0 in the tables is full width."""

    base: float
    unary: list[Numbers]
    pairs: dict[tuple[int, int], Numbers] = field(default_factory=dict)

    def of(self, choice: Sequence[int]) -> float:
        """The cost of a choice of candidates."""
        alone = sum(float(table[k]) for table, k in zip(self.unary, choice, strict=True))
        return self.base + alone + sum(float(table[choice[g], choice[h]]) for (g, h), table in self.pairs.items())

    def add_pair(self, g: int, h: int, table: Numbers) -> None:
        """Add to the table of a pair, g below h."""
        known = self.pairs.get((g, h))
        self.pairs[g, h] = table if known is None else known + table


def layers_of(graph: Graph, groups: Sequence[ChannelGroup]) -> tuple[Layer, ...]:
    """The layers of a traced network, in order; one that runs several times has the sum of its positions."""
    held: dict[tuple[str, int], dict[int, int]] = {}
    for number, group in enumerate(groups):
        for name, axis in group.axes:
            per_channel = [sum(member[:2] == (name, axis) for member in channel) for channel in group.channels]
            held.setdefault((name, axis), {})[number] = max(per_channel)
    layers: dict[str, Layer] = {}
    for node in graph.nodes:
        if node.op == "convolution" and not node.attributes["transposed"]:
            weight = graph.values[node.inputs[1]]
            shape, name = weight.shape, weight.name
            output = graph.values[node.outputs[0]].shape
            positions = prod(output) // output[1]
        elif node.op in ("addmm", "mm"):
            weight = graph.values[node.inputs[-1]]
            shape, name = weight.shape[::-1], weight.name
            output = graph.values[node.outputs[0]].shape
            positions = prod(output) // output[-1]
        else:
            continue
        if not name or len(shape) < 2:
            continue
        if name in layers:
            positions += layers[name].positions
        layers[name] = Layer(
            name, shape[0], shape[1], positions, prod(shape[2:]), held.get((name, 0), {}), held.get((name, 1), {})
        )
    return tuple(layers.values())


def candidates(
    groups: Sequence[ChannelGroup], sizes: Mapping[str, Sequence[int]], most: int = MOST
) -> list[tuple[int, ...]]:
    """For each group the numbers of channels that may be kept, all of them first, then descending.

    sizes: the shape of each tensor. The width that is left of the layer is a multiple of `STEP`.
    """
    result = []
    for group in groups:
        name, axis = next((one for one in group.axes if one[1] == 0 and len(sizes[one[0]]) > 1), group.axes[0])
        held = sum(member[:2] == (name, axis) for member in group.channels[0])
        full = sizes[name][axis]
        step = STEP if full >= NARROW else max(2, STEP // 2)
        kept = [
            group.size - gone
            for gone in range(1, group.size)
            if (width := full - gone * held) % step == 0 and width >= max(step, LEAST * full)
        ]
        if len(kept) > most - 1:
            places = np.unique(np.linspace(0, len(kept) - 1, most - 1).round().astype(int))
            kept = [kept[place] for place in places]
        result.append((group.size, *kept))
    return result


def narrowed(layer: Layer, options: Sequence[Sequence[int]]) -> tuple[dict[int, Numbers], dict[int, Numbers]]:
    """For each group what its candidates take from the output axis and from the input axis of a layer, 0 or less."""

    def taken(held: Mapping[int, int]) -> dict[int, Numbers]:
        return {g: (np.asarray(options[g], np.float64) - options[g][0]) * count for g, count in held.items()}

    return taken(layer.output_of), taken(layer.input_of)


def product_tables(
    layers: Sequence[Layer], options: Sequence[Sequence[int]], factor: Callable[[Layer], float]
) -> tuple[dict[int, Numbers], dict[tuple[int, int], Numbers]]:
    """Tables per group and per pair of the sum over layers of factor * output axis * input axis."""
    unary: dict[int, Numbers] = {}
    pairs: dict[tuple[int, int], Numbers] = {}
    for layer in layers:
        output, source = narrowed(layer, options)
        scale = factor(layer)
        none = np.zeros(1)
        for g in sorted(layer.groups):
            a, b = output.get(g, none), source.get(g, none)
            change = scale * (a * layer.input + layer.output * b + a * b)
            unary[g] = unary.get(g, np.zeros(len(options[g]))) + change
        for g, h in combinations(sorted(layer.groups), 2):
            table = np.zeros((len(options[g]), len(options[h])))
            for first, second in ((output, source), (source, output)):
                if g in first and h in second:
                    table += scale * np.outer(first[g], second[h])
            if table.any():
                pairs[g, h] = pairs.get((g, h), 0) + table
    return unary, pairs


def mac_model(layers: Sequence[Layer], options: Sequence[Sequence[int]], total: int) -> CostModel:
    """Multiply-adds of an image, of a network that takes `total` at full width."""
    unary, pairs = product_tables(layers, options, lambda layer: layer.positions * layer.taps)
    return CostModel(float(total), [unary.get(g, np.zeros(len(one))) for g, one in enumerate(options)], pairs)


def size_model(
    layers: Sequence[Layer],
    groups: Sequence[ChannelGroup],
    options: Sequence[Sequence[int]],
    parameters: Mapping[str, Sequence[int]],
) -> CostModel:
    """Bytes of the parameters in float32. parameters: the shape of each."""
    unary, pairs = product_tables(layers, options, lambda layer: 4 * layer.taps)
    tables = [unary.get(g, np.zeros(len(one))) for g, one in enumerate(options)]
    for g, group in enumerate(groups):
        vectors = [name for name, axis in group.axes if axis == 0 and name in parameters and len(parameters[name]) == 1]
        held = sum(member[0] == name for name in vectors for member in group.channels[0])
        tables[g] = tables[g] + 4 * held * (np.asarray(options[g], np.float64) - options[g][0])
    return CostModel(float(4 * sum(prod(shape) for shape in parameters.values())), tables, pairs)


def fitting(
    groups: Sequence[ChannelGroup], sizes: Mapping[str, Sequence[int]], layers: Sequence[Layer]
) -> list[tuple[int, ...]]:
    """Candidates, as many as leave the tables of pairs small enough for the integer programme."""
    for most in (MOST, 6, 4, 3, 2):
        options = candidates(groups, sizes, most)
        met = {pair for layer in layers for pair in combinations(sorted(layer.groups), 2)}
        if sum(len(options[g]) * len(options[h]) for g, h in met) <= MOST_PAIRED:
            break
    return options

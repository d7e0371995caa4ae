"""A float graph as QDQ: QuantizeLinear and DequantizeLinear around what runs in int8.

Activations are uint8 with one scale and zero a tensor, weights int8, symmetric, with a scale per output channel, biases
int32. This is the form that ONNX Runtime, OpenVINO and the native engine run in integers.
Source: Jacob et al. 2018 (1712.05877), sections 2.1 and 2.4; Krishnamoorthi 2018 (1806.08342), section 2.2 for channels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.shrink.graph import WEIGHTED, OnnxGraph, packages
from gossamer.shrink.ranges import scale_and_zero

# operators whose output is a choice of their input's numbers: both keep one scale
SAME_SCALE = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Split", "Slice", "Gather")
INTEGER = (
    *WEIGHTED,
    *SAME_SCALE,
    "Add",
    "Mul",
    "Concat",
    "AveragePool",
    "GlobalAveragePool",
    "ReduceMean",
    "Resize",
    "Pad",
)
FUSED = ("Relu", "Clip")  # into the layer before them
LOWEST = "lowest.float32"  # the bound of a clip that changes nothing
BIAS_LIMIT = 2.0**30  # of an int32 bias: sums are added to it


@dataclass(frozen=True)
class QuantisationChoice:
    """How a graph is quantised. ranges: value -> (low, high). float_layers: names of layers that stay in float.

    weight_bits: 8, or 7 for processors whose products of bytes saturate at 16 bits. rounded: the bytes of weights, by their
    names, where they are not the nearest.
    """

    ranges: Mapping[str, tuple[float, float]]
    float_layers: frozenset[str] = frozenset()
    weight_bits: int = 8
    rounded: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)


def quantised_values(graph: OnnxGraph, choice: QuantisationChoice) -> dict[str, tuple[float, float]]:
    """The values that are stored in uint8, with their ranges; those of `SAME_SCALE` operators share one."""
    readers, makers = graph.readers(), graph.makers()
    chosen: list[str] = []
    for node in graph.nodes:
        if node.op_type not in INTEGER or node.name in choice.float_layers:
            continue
        if node.op_type in WEIGHTED and node.input[1] not in graph.constants:
            continue
        names = list(node.input) if node.op_type not in WEIGHTED else [node.input[0]]
        after = [_end(graph, readers, name) for name in node.output if name]
        chosen += [name for name in (*names, *after) if name in choice.ranges]
    kept = [name for name in dict.fromkeys(chosen) if name not in graph.outputs]
    ranges = {name: choice.ranges[name] for name in kept}
    groups: dict[str, list[str]] = {}
    for name, first in same_scale(graph, ranges).items():
        groups.setdefault(first, []).append(name)
    for members in groups.values():
        # the range of what is widest first: the source, of which the others are a choice
        first = next(
            (name for name in members if makers.get(name) is None or makers[name].op_type not in SAME_SCALE), members[0]
        )
        for name in members:
            ranges[name] = ranges[first]
    return ranges


def same_scale(graph: OnnxGraph, quantised: Collection[str]) -> dict[str, str]:
    """For each quantised value the first of those with which it shares its scale."""
    group = {name: name for name in quantised}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for node in graph.nodes:
        if node.op_type in SAME_SCALE and node.input[0] in group:
            for name in node.output:
                if name in group:
                    group[root(name)] = root(node.input[0])
    return {name: root(name) for name in group}


def _end(graph: OnnxGraph, readers: Mapping[str, list[tuple[Any, int]]], name: str) -> str:
    """The value behind the activation that is fused into the layer that makes `name`, or `name`."""
    following = readers.get(name, [])
    if name not in graph.outputs and len(following) == 1 and following[0][0].op_type in FUSED:
        node = following[0][0]
        if node.op_type == "Relu" or all(part in graph.constants for part in list(node.input)[1:] if part):
            return str(node.output[0])
    return name


def quantised_model(graph: OnnxGraph, choice: QuantisationChoice, extra_outputs: Collection[str] = ()) -> bytes:
    """The bytes of the QDQ model. extra_outputs: further values, as they are before they are quantised.

    A layer that stays in float has a Clip before it that changes nothing, without which ONNX Runtime would quantise it.
    """
    onnx, _ = packages()
    ranges = quantised_values(graph, choice)
    helper = onnx.helper
    constants: dict[str, NDArray[Any]] = {}
    nodes: list[Any] = []
    weighted = {id(node) for node in graph.weighted() if node.name not in choice.float_layers}

    def pair(name: str) -> list[Any]:
        low, high = ranges[name]
        scale, zero = scale_and_zero(low, high)
        constants[f"{name}.scale"], constants[f"{name}.zero"] = np.asarray(scale), np.asarray(zero, np.uint8)
        parameters = [f"{name}.scale", f"{name}.zero"]
        return [
            helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}.uint8"], f"{name}.quantise"),
            helper.make_node("DequantizeLinear", [f"{name}.uint8", *parameters], [f"{name}.dequantised"], f"{name}.dequantise"),
        ]  # fmt: skip

    if graph.input in ranges:
        nodes += pair(graph.input)
    for node in graph.nodes:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        for place, name in enumerate(new.input):
            if name in ranges:
                new.input[place] = f"{name}.dequantised"
        if id(node) in weighted and node.input[0] in ranges:
            nodes += _weights(graph, node, new, ranges[node.input[0]], choice, constants)
        elif node.op_type in WEIGHTED and node.input[0] in ranges:
            # ONNX Runtime quantises weights and biases of floats too (its WeightBiasQuantization, with one scale for all
            # weights) where a layer stands right behind a DequantizeLinear
            constants[LOWEST] = np.asarray(np.finfo(np.float32).min)
            nodes.append(helper.make_node("Clip", [new.input[0], LOWEST], [f"{node.name}.input"], f"{node.name}.clip"))
            new.input[0] = f"{node.name}.input"
        nodes.append(new)
        for name in node.output:
            if name in ranges:
                nodes += pair(name)
    saved = dict(graph.constants)
    graph.constants.update(constants)
    try:
        return graph.model(extra_outputs, nodes)
    finally:
        graph.constants.clear()
        graph.constants.update(saved)


def weight_axis(graph: OnnxGraph, node: Any) -> int:
    """The axis of a layer's weight that runs over its output channels."""
    if node.op_type == "Conv":
        return 0
    return 0 if node.op_type == "Gemm" and graph.attributes(node).get("transB", 0) else 1


def weight_scales(weight: NDArray[np.float32], axis: int, bits: int) -> NDArray[np.float32]:
    """A symmetric scale per output channel, from the largest weight of each."""
    most = 2 ** (bits - 1) - 1
    largest = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    return np.asarray(np.maximum(largest / most, 1e-12), np.float32)


def one_scale(graph: OnnxGraph, node: Any) -> bool:
    """Whether a layer's weight has one scale for all: it has no axis of all its output channels."""
    return bool(node.op_type == "ConvTranspose" and graph.attributes(node).get("group", 1) > 1)


def weight_grid(graph: OnnxGraph, node: Any, input_range: tuple[float, float], bits: int) -> NDArray[np.float32]:
    """The scale of each output channel of a layer's weight, so that its bias fits into an int32 too."""
    weight = graph.constants[node.input[1]].astype(np.float32)
    scales = weight_scales(weight, weight_axis(graph, node), bits)
    if one_scale(graph, node):
        return np.full_like(scales, scales.max())
    bias = graph.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    # where the weights are tiny beside the bias, coarser ones lose nothing
    if bias is not None and bias.size == len(scales):
        least = np.abs(bias.reshape(-1).astype(np.float64)) / (float(scale_and_zero(*input_range)[0]) * BIAS_LIMIT)
        scales = np.maximum(scales, least.astype(np.float32))
    return scales


def _weights(
    graph: OnnxGraph,
    node: Any,
    new: Any,
    input_range: tuple[float, float],
    choice: QuantisationChoice,
    constants: dict[str, NDArray[Any]],
) -> list[Any]:
    """The dequantisation of a layer's weight and bias; `new` reads them."""
    onnx, _ = packages()
    axis, name = weight_axis(graph, node), node.input[1]
    weight = graph.constants[name].astype(np.float32)
    grouped = one_scale(graph, node)
    scales = weight_grid(graph, node, input_range, choice.weight_bits)
    input_scale = float(scale_and_zero(*input_range)[0])
    bias = graph.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    per_channel = bias is not None and bias.size == len(scales) and not grouped
    sides = tuple(-1 if i == axis else 1 for i in range(weight.ndim))
    most = 2 ** (choice.weight_bits - 1) - 1
    data = choice.rounded.get(name)
    if data is None:
        data = np.clip(np.rint(weight / scales.reshape(sides)), -most, most).astype(np.int8)
    constants[f"{name}.int8"], constants[f"{name}.scale"] = data, scales
    constants[f"{name}.zero"] = np.zeros(len(scales), np.int8)
    nodes = [
        onnx.helper.make_node(
            "DequantizeLinear", [f"{name}.int8", f"{name}.scale", f"{name}.zero"], [f"{name}.dequantised"],
            f"{name}.dequantise", axis=axis,
        )
    ]  # fmt: skip
    new.input[1] = f"{name}.dequantised"
    if bias is not None and per_channel:
        bias_name = node.input[2]
        bias_scales = (scales.astype(np.float64) * input_scale).astype(np.float32)
        integers = np.rint(bias.reshape(-1) / bias_scales.astype(np.float64))
        constants[f"{bias_name}.int32"] = np.clip(integers, -(2.0**31 - 1), 2.0**31 - 1).astype(np.int32)
        constants[f"{bias_name}.scale"] = bias_scales
        constants[f"{bias_name}.zero"] = np.zeros(len(scales), np.int32)
        nodes.append(
            onnx.helper.make_node(
                "DequantizeLinear", [f"{bias_name}.int32", f"{bias_name}.scale", f"{bias_name}.zero"],
                [f"{bias_name}.dequantised"], f"{bias_name}.dequantise", axis=0,
            )
        )  # fmt: skip
        new.input[2] = f"{bias_name}.dequantised"
    return nodes

"""The milliseconds of each layer in float and in int8, by ONNX Runtime's own profile, one thread."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gossamer.runtime.ort import kernel_times
from gossamer.shrink.graph import OnnxGraph
from gossamer.shrink.qdq import QuantisationChoice, quantised_model
from gossamer.shrink.sensitivity import LayerNoise

ROUNDS, TURNS = 10, 3  # runs of a session, and turns of the two networks, so that another load hits both
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "HardSigmoid", "Sigmoid", "Tanh")  # that it computes with a convolution
WARM = 2  # runs of a session that do not count


def with_milliseconds(
    graph: OnnxGraph, choice: QuantisationChoice, layers: Sequence[LayerNoise], image: NDArray[np.float32]
) -> list[LayerNoise]:
    """The layers with their times: medians over alternating runs of the network in float and in int8.

    image: normalised (1, ...). A layer that the runtime merges with others has the time of all where it has their name, else
    none.
    """
    labels = _labels(graph)
    models = (graph.model(), quantised_model(graph, choice))
    times: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    for _ in range(TURNS):
        for model, mine in zip(models, times, strict=True):
            for name, took in _by_layer(model, labels, image).items():
                mine.setdefault(name, []).extend(took)

    def median(mine: dict[str, list[float]], name: str) -> float | None:
        return statistics.median(mine[name]) if name in mine else None

    return [
        replace(layer, float_ms=median(times[0], layer.name), int8_ms=median(times[1], layer.name)) for layer in layers
    ]


def _labels(graph: OnnxGraph) -> dict[str, str]:
    """What ONNX Runtime may call a layer -> its name: its own name, the value that it makes, or what an activation makes of it."""
    readers, labels = graph.readers(), {}
    for node in graph.weighted():
        labels[node.name] = labels[node.output[0]] = node.name
        following = readers.get(node.output[0], [])
        if len(following) == 1 and following[0][0].op_type in ACTIVATIONS:
            labels[following[0][0].output[0]] = node.name
    return labels


def _by_layer(model: bytes, labels: Mapping[str, str], image: NDArray[np.float32]) -> dict[str, list[float]]:
    """Milliseconds of each run, by the names of layers."""
    result: dict[str, list[float]] = {}
    for label, times in kernel_times(model, image, 1, WARM, ROUNDS).items():
        if name := layer_of(label, labels):
            result.setdefault(name, []).extend(times)
    return result


def layer_of(label: str, labels: Mapping[str, str]) -> str:
    """The layer that ONNX Runtime calls `label`; "" for none. labels: what a layer may be called -> its name.

    Where it merges nodes it adds to a name: "fused Conv_0", "conv_nchwc", "Conv_0_token_12".
    """
    label = label.removeprefix("fused ")
    while label not in labels:
        shorter = re.sub(r"(_nchwc|_token_\d+|_quant|_\d+)$", "", label)
        if shorter == label:
            return ""
        label = shorter
    return labels[label]

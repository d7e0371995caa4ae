"""Bias correction: what quantisation shifts a channel's mean by goes into its bias.

Source: Nagel et al. 2019 (1906.04721), section 4.2, with measured means as in its appendix D; layers in order, so that each
sees the corrected layers before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.host.progress import SILENT, Progress
from gossamer.shrink.graph import OnnxGraph, OnnxSession
from gossamer.shrink.qdq import QuantisationChoice, quantised_model

ROUNDS = 8  # parts of the network that are corrected one after the other


def correct_biases(
    graph: OnnxGraph,
    choice: QuantisationChoice,
    images: NDArray[np.float32],
    held_out: NDArray[np.float32],
    progress: Progress = SILENT,
) -> int:
    """Correct the biases of `graph`, in place; returns how many layers were corrected.

    images: normalised (N, ...), of which the means are taken. held_out: others; a part of the network keeps its correction
    only where the outputs come nearer to the float network's on them.
    """
    layers = [node for node in graph.weighted() if node.name not in choice.float_layers]
    biases = {node.name: name for node in layers if (name := graph.bias_of(node)) is not None}
    layers = [node for node in layers if node.name in biases]
    if not layers:
        return 0
    means = _means(OnnxSession(graph.model([node.output[0] for node in layers]), exact=True), layers, images)
    expected = OnnxSession(graph.model()).run(held_out)
    error = output_error(graph, choice, held_out, expected)
    corrected, size = 0, -(-len(layers) // ROUNDS)
    parts = [layers[start : start + size] for start in range(0, len(layers), size)]
    for part in progress.track(parts, len(parts), "bias correction"):
        session = OnnxSession(quantised_model(graph, choice, [node.output[0] for node in part]), exact=True)
        now = _means(session, part, images)
        before = {node.name: graph.constants[biases[node.name]].copy() for node in part}
        for node in part:
            shift = (now[node.name] - means[node.name]).reshape(before[node.name].shape)
            graph.constants[biases[node.name]] = (before[node.name] - shift).astype(np.float32)
        after = output_error(graph, choice, held_out, expected)
        if after < error:
            error, corrected = after, corrected + len(part)
        else:
            for node in part:
                graph.constants[biases[node.name]] = before[node.name]
    return corrected


def _means(session: OnnxSession, layers: Sequence[Any], images: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """The mean of each channel of the layers' outputs."""
    totals: dict[str, NDArray[np.float64]] = {}
    for start in range(0, len(images), 8):
        part = images[start : start + 8]
        values = session.run(part, [node.output[0] for node in layers])
        for node, value in zip(layers, values, strict=True):
            axes = tuple(axis for axis in range(value.ndim) if axis != 1)
            total = value.mean(axis=axes, dtype=np.float64) * len(part)
            totals[node.name] = totals.get(node.name, 0.0) + total
    return {name: total / len(images) for name, total in totals.items()}


def output_error(
    graph: OnnxGraph, choice: QuantisationChoice, images: NDArray[np.float32], expected: list[NDArray[Any]]
) -> float:
    """The squared error of the quantised outputs over the power of the float ones, summed over the outputs."""
    outputs = OnnxSession(quantised_model(graph, choice)).run(images)
    return sum(
        float(((a.astype(np.float64) - b) ** 2).sum() / max(float((b.astype(np.float64) ** 2).sum()), 1e-30))
        for a, b in zip(outputs, expected, strict=True)
    )

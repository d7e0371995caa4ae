"""How much each layer's quantisation costs: the signal-to-noise ratio of the outputs with that layer alone in int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gossamer.host.progress import SILENT, Progress
from gossamer.host.text import format_table
from gossamer.shrink.graph import Array, OnnxGraph, OnnxSession
from gossamer.shrink.qdq import QuantisationChoice, quantised_model

SPREAD = 0.25  # share of all noise above which one layer is named


@dataclass(frozen=True)
class LayerNoise:
    """A layer. alone: dB of the outputs with only it in int8. share: of the noise of all layers, each alone, added up.

    float_ms, int8_ms: milliseconds of one image; regained: points of the score that come back with it alone in floats; extra_ms:
    that the whole file takes longer then. None where they were not measured.
    """

    name: str
    op: str
    alone: float
    share: float
    precision: str = "int8"
    float_ms: float | None = None
    int8_ms: float | None = None
    regained: float | None = None
    extra_ms: float | None = None


def decibels(expected: Sequence[Array], actual: Sequence[Array]) -> float:
    """The signal-to-noise ratio of outputs in dB: power of `expected` over that of the difference; inf where they are equal."""
    noise = signal = 0.0
    for a, b in zip(expected, actual, strict=True):
        signal += float((a.astype(np.float64) ** 2).sum())
        noise += float(((b.astype(np.float64) - a) ** 2).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(max(signal, 1e-300) / noise))


def layer_noise(
    graph: OnnxGraph, choice: QuantisationChoice, images: NDArray[np.float32], progress: Progress = SILENT
) -> list[LayerNoise]:
    """Each layer with weights, in order. images: normalised (N, ...)."""
    layers = graph.weighted()
    names = frozenset(node.name for node in graph.nodes)
    expected = OnnxSession(graph.model()).run(images)
    alone = []
    for node in progress.track(layers, len(layers), "layers alone"):
        only = replace(choice, float_layers=names - {node.name})
        alone.append(decibels(expected, OnnxSession(quantised_model(graph, only)).run(images)))
    noise = np.array([10 ** (-value / 10) for value in alone])  # 0 for inf
    total = float(noise.sum()) or 1.0
    return [
        LayerNoise(
            node.name,
            node.op_type,
            value,
            float(part / total),
            "float32" if node.name in choice.float_layers else "int8",
        )
        for node, value, part in zip(layers, alone, noise, strict=True)
    ]


def verdict(layers: Sequence[LayerNoise]) -> str:
    """One line on where the noise comes from."""
    if not layers:
        return "no layer with weights"
    worst = max(layers, key=lambda layer: layer.share)
    if worst.share < SPREAD:
        return f"spread over {len(layers)} layers, no single layer; the largest is {worst.name} with {worst.share:.0%}"
    return f"{worst.name} ({worst.op}) alone makes {worst.share:.0%} of it"


def table(layers: Sequence[LayerNoise], most: int = 12) -> str:
    """Lines for people: the layers that make the most noise, with their times."""
    worst = sorted(layers, key=lambda layer: -layer.share)[:most]

    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    shown = any(one.regained is not None for one in layers)

    def gain(one: LayerNoise) -> tuple[str, ...]:
        if not shown:
            return ()
        return (
            "-" if one.regained is None else f"{one.regained:+.2f}",
            "-" if one.extra_ms is None else f"{one.extra_ms:+.3f}",
        )

    rows = [
        (
            one.name,
            one.op,
            f"{one.alone:.1f}",
            f"{one.share:.1%}",
            ms(one.float_ms),
            ms(one.int8_ms),
            one.precision,
            *gain(one),
        )
        for one in worst
    ]
    lines = format_table(
        (
            "layer",
            "operator",
            "dB alone",
            "noise",
            "ms float",
            "ms int8",
            "precision",
            *(("points back", "ms more") if shown else ()),
        ),
        rows,
        left=(0, 1, 6),
    )
    return "\n".join([*lines, *([f"and {len(layers) - most} more, see --json"] if len(layers) > most else [])])

"""Rounding weights by what a layer computes: the error of one weight goes into those that are rounded after it.

Each output of a layer is a product of a weight row w with its inputs x, so the rounded row r should make E[((w - r) x)^2]
small, which the nearest bytes do not: the inputs are correlated. The rows are rounded column by column, and what a column
loses is given to the columns behind it in the way that this error grows least (Frantar et al. 2022, OPTQ, arXiv 2210.17323,
algorithm 1, which is optimal brain surgery of Hassibi and Stork 1993 for rounding). It has the aim of AdaRound (Nagel et
al. 2020, 2004.10568, equation 15) without a training.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.host.progress import SILENT, Progress
from gossamer.shrink.correct import output_error
from gossamer.shrink.graph import OnnxGraph, OnnxSession
from gossamer.shrink.qdq import QuantisationChoice, quantised_values, weight_axis, weight_grid
from gossamer.shrink.ranges import fake_quantise

PARTS = 8  # of the network, each kept where it brings the outputs nearer to the float network's
IMAGES = 16  # of which the inputs of a layer are taken
ROWS = 4096  # inputs of a layer at most, drawn at random
DAMPING = (
    0.01  # of the mean square of an input, added to each: what was never seen stays bounded (section 4 of the paper)
)

Matrix = NDArray[np.float64]
Ranges = dict[str, tuple[float, float]]


def round_weights(
    graph: OnnxGraph,
    choice: QuantisationChoice,
    images: NDArray[np.float32],
    held_out: NDArray[np.float32],
    seconds: float,
    steps: list[str],
    progress: Progress = SILENT,
) -> QuantisationChoice:
    """The choice with bytes for the weights, as far as `seconds` reach; a line goes to `steps`.

    images: normalised (N, ...), whose values the layers read. held_out: others; a part of the network keeps its bytes only
    where its outputs come nearer to the float network's on them.
    """
    deadline = time.monotonic() + seconds
    ranges = quantised_values(graph, choice)
    layers = [node for node in graph.weighted() if node.name not in choice.float_layers and node.input[0] in ranges]
    expected = OnnxSession(graph.model()).run(held_out)
    error = output_error(graph, choice, held_out, expected)
    size = -(-len(layers) // PARTS) or 1
    parts = [layers[start : start + size] for start in range(0, len(layers), size)]
    tried = kept = 0
    for part in progress.track(parts, len(parts), "rounding"):
        if time.monotonic() >= deadline:
            break
        rounded = _round_part(graph, ranges, choice.weight_bits, part, images[:IMAGES], deadline)
        trial = replace(choice, rounded={**choice.rounded, **rounded})
        after = output_error(graph, trial, held_out, expected) if rounded else error
        tried += len(rounded)
        if after < error:
            choice, error, kept = trial, after, kept + len(rounded)
    left = (
        ""
        if tried == len(layers)
        else f"; of the others the time was up or their form is not rounded ({len(layers) - tried})"
    )
    steps.append(f"rounding by layers: tried in {tried} of {len(layers)} layers, kept in {kept}{left}")
    return choice


def _round_part(
    graph: OnnxGraph, ranges: Ranges, bits: int, part: Sequence[Any], images: NDArray[np.float32], deadline: float
) -> dict[str, NDArray[np.int8]]:
    """Bytes of the weights of some layers, by name, as many as there is time for."""
    names = [name for name in dict.fromkeys(node.input[0] for node in part) if name != graph.input]
    session = OnnxSession(graph.model(names), exact=True) if names else None
    result: dict[str, NDArray[np.int8]] = {}
    for node in part:
        if time.monotonic() >= deadline:
            break
        source = node.input[0]
        # one value at a time: those of a part together would fill the memory
        values = images if session is None or source == graph.input else session.run(images, [source])[0]
        seen = fake_quantise(values, *ranges[source]).astype(np.float32)
        inputs = layer_inputs(graph, node, seen)
        if inputs is not None:
            result[node.input[1]] = _round_layer(graph, node, ranges[source], bits, inputs)
    return result


def layer_inputs(graph: OnnxGraph, node: Any, values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """What the rows of a layer's weight are multiplied with: (groups, n, K), n at most ROWS; None for another form of layer.

    values: the layer's input (N, ...). K: the inputs of one output, in the order of the weight's columns.
    """
    draw = np.random.default_rng(0)
    if node.op_type in ("Gemm", "MatMul"):
        if values.ndim != 2 or graph.attributes(node).get("transA", 0):
            return None
        return _some(values, draw)[None]
    attributes = graph.attributes(node)
    if node.op_type != "Conv" or values.ndim != 4 or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", "NOTSET"):
        return None
    weight = graph.constants[node.input[1]]
    rows, columns = weight.shape[2:]
    (down, across), (step_y, step_x) = attributes.get("dilations", (1, 1)), attributes.get("strides", (1, 1))
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    window = (down * (rows - 1) + 1, across * (columns - 1) + 1)
    seen = np.lib.stride_tricks.sliding_window_view(padded, window, (2, 3))[:, :, ::step_y, ::step_x, ::down, ::across]
    n, channels, height, width = seen.shape[:4]
    places = _some(np.arange(n * height * width), draw)
    image, y, x = np.unravel_index(places, (n, height, width))
    patches = np.ascontiguousarray(seen[image, :, y, x])  # (places, channels, rows, columns)
    groups = attributes.get("group", 1)
    split = patches.reshape(len(places), groups, channels // groups * rows * columns)
    return np.ascontiguousarray(split.transpose(1, 0, 2))


def _some(values: NDArray[Any], draw: np.random.Generator) -> NDArray[Any]:
    """At most ROWS rows."""
    return values if len(values) <= ROWS else values[np.sort(draw.choice(len(values), ROWS, replace=False))]


def _round_layer(
    graph: OnnxGraph, node: Any, input_range: tuple[float, float], bits: int, inputs: NDArray[np.float32]
) -> NDArray[np.int8]:
    """The bytes of a layer's weight, in its shape."""
    weight = graph.constants[node.input[1]].astype(np.float32)
    axis = weight_axis(graph, node)
    scales = weight_grid(graph, node, input_range, bits).astype(np.float64)
    rows = np.moveaxis(weight, axis, 0)
    most, groups = 2 ** (bits - 1) - 1, len(inputs)
    flat = rows.reshape(groups, len(rows) // groups, -1).astype(np.float64)
    split = scales.reshape(groups, -1)
    result = np.stack([round_rows(*each, most) for each in zip(flat, split, inputs, strict=True)])
    return np.ascontiguousarray(np.moveaxis(result.reshape(rows.shape), 0, axis)).astype(np.int8)


def round_rows(rows: Matrix, scales: Matrix, inputs: NDArray[np.float32], most: int) -> Matrix:
    """Integers of -most to most for rows (R, K) of weights, row r in steps of scales[r]; inputs: (n, K).

    Never worse than the nearest integers on these inputs: each row takes the better of the two.
    """
    x = inputs.astype(np.float64)
    square = x.T @ x / max(1, len(x))
    nearest = np.clip(np.rint(rows / scales[:, None]), -most, most)
    mean = float(np.diag(square).mean())
    if mean <= 0:
        return nearest
    damped = square + DAMPING * mean * np.eye(len(square))
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, result = rows.copy(), np.empty_like(rows)
    for column in range(rows.shape[1]):
        result[:, column] = np.clip(np.rint(left[:, column] / scales), -most, most)
        lost = (left[:, column] - result[:, column] * scales) / upper[column, column]
        left[:, column + 1 :] -= lost[:, None] * upper[column, column + 1 :]

    def error(integers: Matrix) -> Matrix:
        errors = rows - integers * scales[:, None]
        return np.asarray(((errors @ square) * errors).sum(1))

    return np.where((error(result) < error(nearest))[:, None], result, nearest)

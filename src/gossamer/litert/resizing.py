"""A resize, which a program has as places between rows and columns, as LiteRT's own operator where that computes the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gossamer.litert.graph import Graph

Places = NDArray[np.float32]  # (side, 2): the first of the two rows or columns, and the way from it to the next
NEAR = 1e-5  # of a fraction: float32's last bits
MODES = ((False, True), (False, False), (True, False))  # align_corners, half_pixel_centers


def resized(graph: Graph, source: int, rows: Places, columns: Places) -> int:
    """The resized tensor: by an operator of LiteRT, else by rows and columns gathered and weighed."""
    _, height, width, channels = graph.shapes[source]
    shape = (1, len(rows), len(columns), channels)
    own = own_operator((height, width), rows, columns)
    if own is not None:
        op, align, half = own
        size, version, steps = graph.row(len(rows), len(columns)), 3 if half else 1, graph.steps.get(source)
        return graph.add(op, [source, size], shape, version, steps, align_corners=align, half_pixel_centers=half)
    return _along(graph, _along(graph, source, 1, rows), 2, columns)


def own_operator(sides: tuple[int, int], rows: Places, columns: Places) -> tuple[str, bool, bool] | None:
    """The operator of LiteRT that computes this of a map, with align_corners and half_pixel_centers; None where there is none."""
    height, width = sides
    for op, align, half, places in _own(height, len(rows)):
        other = {(own, *options): places for own, *options, places in _own(width, len(columns))}
        if _same(places, rows, height) and _same(other[op, align, half], columns, width):
            return op, align, half
    return None


def _own(side: int, wanted: int) -> Iterator[tuple[str, bool, bool, Places]]:
    """LiteRT's operators with their options, and the places that each reads of an axis.

    Source: tensorflow/lite/kernels/internal/reference/resize_bilinear.h, resize_nearest_neighbor.h.
    """
    for align, half in MODES:
        ratio = np.float32((side - 1) / (wanted - 1) if align and wanted > 1 else side / wanted)
        shift = np.float32(0.5 if half else 0)
        at = (np.arange(wanted, dtype=np.float32) + shift) * ratio
        nearest = np.clip(np.floor(at + np.float32(0.5)) if align else np.floor(at), 0, side - 1)
        yield "RESIZE_NEAREST_NEIGHBOR", align, half, np.stack([nearest, np.zeros_like(nearest)], 1)
        between = np.clip(at - shift, 0, side - 1)
        yield "RESIZE_BILINEAR", align, half, np.stack([np.floor(between), between - np.floor(between)], 1)


def _same(one: Places, other: Places, side: int) -> bool:
    """Whether two kinds of places read the same; a fraction of almost 1 is the next place."""
    difference = one.sum(1, dtype=np.float64) - other.sum(1, dtype=np.float64)
    whole = bool((other[:, 1] == 0).all()) == bool((one[:, 1] == 0).all())
    return whole and bool((np.abs(difference) <= NEAR * max(1, side)).all())


def _along(graph: Graph, source: int, axis: int, places: Places) -> int:
    """Rows (axis 1) or columns (axis 2) between those of a tensor."""
    side, shape = graph.shapes[source][axis], list(graph.shapes[source])
    shape[axis] = len(places)
    first, way = places[:, 0].astype(np.int32), places[:, 1]
    if np.array_equal(first, np.arange(side)) and not way.any():
        return source
    near = graph.add("GATHER", [source, graph.constant(first)], shape, 1, graph.steps.get(source), axis=axis)
    if not way.any():
        return near
    next_one = graph.constant(np.minimum(first + 1, side - 1).astype(np.int32))
    far = graph.add("GATHER", [source, next_one], shape, axis=axis)
    sides = [1, 1, 1, 1]
    sides[axis] = len(places)
    parts = [
        graph.add("MUL", [part, graph.constant(weight.astype(np.float32).reshape(sides))], shape, activation=0)
        for part, weight in ((near, 1 - way), (far, np.abs(way)))
    ]
    return graph.add("ADD", parts, shape, activation=0)

"""A resize, which a program has as places between rows and columns, as ncnn's own layer where that computes the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gossamer.ncnn.graph import Graph

Places = NDArray[np.float32]  # (side, 2): the first of the two rows or columns, and the way from it to the next
NEAR = 1e-5  # of a fraction: float32's last bits
NEAREST, BILINEAR = 1, 2  # of Interp


def resized(graph: Graph, source: int, rows: Places, columns: Places) -> int:
    """The resized (c, h, w): by Interp, else by products with the matrices of rows and of columns."""
    channels, height, width = graph.shapes[source]
    shape = (channels, len(rows), len(columns))
    if shape == graph.shapes[source] and _plain(rows) and _plain(columns):
        return source
    for kind, align, places in _own(height, len(rows)):
        other = {(own, option): places for own, option, places in _own(width, len(columns))}
        if (kind, align) in other and _same(places, rows) and _same(other[kind, align], columns):
            return graph.add("Interp", [source], shape, {0: kind, 3: shape[1], 4: shape[2], 6: int(align)})
    if not _plain(rows) or len(rows) != height:
        by_rows = graph.constant(_matrix(rows, height))
        source = graph.add("MatMul", [by_rows, source], (channels, len(rows), width))
    if not _plain(columns) or len(columns) != width:
        by_columns = graph.constant(np.ascontiguousarray(_matrix(columns, width).T))
        source = graph.add("MatMul", [source, by_columns], shape)
    return source


def _own(side: int, wanted: int) -> Iterator[tuple[int, bool, Places]]:
    """What Interp reads of an axis: its kind, whether corners are aligned, the places.

    Source: ncnn/src/layer/interp.cpp. A bilinear one of a single row would read a row before it.
    """
    at = np.arange(wanted, dtype=np.float32)
    nearest = np.minimum(np.floor(at * np.float32(side / wanted)), side - 1)
    yield NEAREST, False, np.stack([nearest, np.zeros_like(nearest)], 1)
    if side == 1:
        return
    for align in (False, True):
        if align and wanted == 1:
            continue
        place = at * ((side - 1) / (wanted - 1)) if align else (at + 0.5) * (side / wanted) - 0.5
        between = np.clip(place, 0, side - 1).astype(np.float32)
        yield BILINEAR, align, np.stack([np.floor(between), between - np.floor(between)], 1)


def _same(one: Places, other: Places) -> bool:
    """Whether two kinds of places read the same; a fraction of almost 1 is the next place."""
    difference = one.sum(1, dtype=np.float64) - other.sum(1, dtype=np.float64)
    whole = bool((other[:, 1] == 0).all()) == bool((one[:, 1] == 0).all())
    return whole and bool((np.abs(difference) <= NEAR * max(1.0, float(other.max()))).all())


def _plain(places: Places) -> bool:
    """Whether each place is the row or column of its own number."""
    return bool((places[:, 0] == np.arange(len(places))).all() and not places[:, 1].any())


def _matrix(places: Places, side: int) -> NDArray[np.float32]:
    """(places, side): the weights of the rows or columns of each place."""
    first, way = places[:, 0].astype(int), places[:, 1]
    matrix = np.zeros((len(places), side), np.float32)
    matrix[np.arange(len(places)), first] += 1 - way
    matrix[np.arange(len(places)), np.minimum(first + 1, side - 1)] += way
    return matrix

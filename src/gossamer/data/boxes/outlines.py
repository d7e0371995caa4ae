"""Polygons of a COCO segmentation, and the box around them."""

from __future__ import annotations

import math

from gossamer.data.boxes.records import parse_number


def polygons_of(segmentation: object) -> tuple[tuple[float, ...], ...]:
    """The polygons of an annotation, each x, y, x, y, ...; () where they are none or one of them is broken."""
    if not isinstance(segmentation, list) or not all(isinstance(each, list) for each in segmentation):
        return ()
    if not all(len(each) >= 6 and len(each) % 2 == 0 for each in segmentation):
        return ()
    if not all(
        type(value) in (int, float) and math.isfinite(parse_number(value)) for each in segmentation for value in each
    ):
        return ()
    return tuple(tuple(map(parse_number, each)) for each in segmentation)


def box_around(polygons: object) -> list[float] | None:
    """The bbox (x, y, width, height) around polygons, lists of x, y, x, y, ...; None where they are none."""
    outlines = polygons_of(polygons)
    if not outlines:
        return None
    xs, ys = [x for each in outlines for x in each[::2]], [y for each in outlines for y in each[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]

"""The layout of an ONNX tensor in a map: which part of its channels, rows and columns each axis runs over.

Reshaping splits and joins parts, transposing moves them; no number moves before it is known who reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.program import FeatureMap


@dataclass(frozen=True)
class AxisPart:
    """`size` places of a map's axis "c", "h" or "w", at a distance of `step`."""

    of: str
    step: int
    size: int


Axes = tuple[tuple[AxisPart, ...], ...]  # of a tensor, without its batch; an axis of one place has no parts


def of_map(value: FeatureMap) -> Axes:
    """Channels, height, width."""
    sides = (("c", value.c), ("h", value.h), ("w", value.w))
    return tuple((AxisPart(name, 1, size),) if size > 1 else () for name, size in sides)


def sides_of(axes: Axes) -> tuple[int, ...]:
    """The sides of the tensor."""
    return tuple(prod(part.size for part in axis) for axis in axes)


def merged(parts: Sequence[AxisPart]) -> tuple[AxisPart, ...]:
    """The same places in the same order, in as few parts as can be."""
    done: list[AxisPart] = []
    for part in parts:
        last = done[-1] if done else None
        if last is not None and last.of == part.of and last.step == part.step * part.size:
            done[-1] = AxisPart(part.of, part.step, last.size * part.size)
        else:
            done.append(part)
    return tuple(done)


def reshaped_axes(axes: Axes, sides: Sequence[int]) -> Axes | None:
    """The tensor under other sides, one of which may be -1; None where a side is no integer number of parts."""
    if list(sides).count(-1) > 1:
        return None
    count = prod(sides_of(axes))
    known = prod(side for side in sides if side != -1)
    wanted = [count // known if side == -1 and known > 0 else side for side in sides]
    if prod(wanted) != count or min(wanted, default=1) < 1:
        return None
    left, merged_axes = list(merged([part for axis in axes for part in axis])), []
    for side in wanted:
        axis = []
        while side > 1:
            part = left.pop(0)
            if side % part.size == 0:
                axis.append(part)
                side //= part.size
            elif part.size % side == 0:
                inner = part.size // side
                axis.append(AxisPart(part.of, part.step * inner, side))
                left.insert(0, AxisPart(part.of, part.step, inner))
                side = 1
            else:
                return None
        merged_axes.append(tuple(axis))
    return tuple(merged_axes)


def channels_last(axes: Axes, value: FeatureMap) -> bool | None:
    """Whether the tensor holds the map's numbers channels last, or first (so where both are the same); else None."""
    c, h, w = of_map(value)
    parts = merged([part for axis in axes for part in axis])
    if parts == merged([*c, *h, *w]):
        return False
    return True if parts == merged([*h, *w, *c]) else None


def places(axes: Axes, value: FeatureMap) -> NDArray[np.int64]:
    """Of each number of the tensor, in its order, where it lies among the map's numbers channels first."""
    distance, at = {"c": value.h * value.w, "h": value.w, "w": 1}, np.zeros(1, np.int64)
    for part in (part for axis in axes for part in axis):
        at = (at[:, None] + np.arange(part.size) * part.step * distance[part.of]).reshape(-1)
    return at


def broadcast_channel_row(constant: NDArray[Any], axes: Axes, value: FeatureMap) -> NDArray[Any] | None:
    """A constant that meets the tensor by broadcasting, as one number per channel of the map; None where it is none.

    Numbers that are the same along an axis of the tensor count as one.
    """
    row = _channel_row(constant, axes, value)
    return _channel_row(_without_repeats(constant, sides_of(axes)), axes, value) if row is None else row


def _without_repeats(constant: NDArray[Any], sides: tuple[int, ...]) -> NDArray[Any]:
    """The constant with one place in each axis along which its numbers are the same, where the tensor has as many places: along
    others, the batch too, the result has more than the tensor."""
    for axis, side in zip(range(constant.ndim - 1, -1, -1), reversed(sides)):
        if constant.size and constant.shape[axis] == side:
            first = constant.take([0], axis)
            constant = first if (constant == first).all() else constant
    return constant


def _channel_row(constant: NDArray[Any], axes: Axes, value: FeatureMap) -> NDArray[Any] | None:
    if constant.ndim > len(axes) + 1 or (constant.ndim == len(axes) + 1 and len(constant) != 1):
        return None  # another number for each place of the batch, or more axes than the tensor
    sides = (1,) * (len(axes) + 1 - constant.ndim) + constant.shape
    channel, shape = np.zeros((1,) * len(axes), np.int64), []
    for place, axis in enumerate(axes):
        rows = np.zeros(1, np.int64)
        for part in axis:
            step = part.step if part.of == "c" else 0
            rows = (rows[:, None] + np.arange(part.size if step else 1) * step).reshape(-1)
        if sides[place + 1] != 1 and (
            sides[place + 1] != prod(part.size for part in axis) or len(rows) != sides[place + 1]
        ):
            return None
        channel = channel + rows.reshape([-1 if other == place else 1 for other in range(len(axes))])
        shape.append(len(rows))
    row = np.empty(value.c, constant.dtype)
    row[channel.reshape(-1)] = np.broadcast_to(constant.reshape(sides[1:]), shape).reshape(-1)
    return row

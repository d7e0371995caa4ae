"""Anchors: the boxes that a detector's outputs are measured from. They travel in the model file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import SettingsError

Size = tuple[int, int]  # (height, width)
SIDE_LIMIT, ANCHOR_LIMIT = 4096, 1_000_000  # what a file may ask for
RATIOS = (2.0, 1 / 2, 3.0, 1 / 3)  # Liu et al. 2016, SSD (1512.02325), section 2.2, width over height
PLACES_ACROSS = 4  # steps of a map that its fitted anchors are wide
FIRST_SCALE, SCALES = 0.1, (0.2, 0.95)  # of the authors' object detection code; the paper ends at 0.9


class Level(NamedTuple):
    """One map of a detector: its (height, width), and the (width, height) in pixels of the anchors at each place."""

    size: Size
    shapes: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class AnchorSpec:
    """All anchors of a detector, in the order level, row, column, shape.

    input: (height, width) in pixels of the image that the network sees. levels: finest map first. The centres
    of a level with h x w places are ((column + 0.5) / w, (row + 0.5) / h) of the input, as the paper has them.
    variances: what the offsets of centres and the logarithms of sides are multiplied with before they are added.
    Source: Liu et al. 2016, SSD (1512.02325), section 2.2. Raises SettingsError on values that make no sense.
    """

    input: Size
    levels: tuple[Level, ...]
    variances: tuple[float, float] = (0.1, 0.2)

    def __post_init__(self) -> None:
        _check("input", self.input, _sides(self.input))
        _check("variances", self.variances, _positive(self.variances, 2))
        _check("levels", self.levels, isinstance(self.levels, tuple) and len(self.levels) > 0)
        for level in self.levels:
            good = isinstance(level, Level) and _sides(level.size) and isinstance(level.shapes, tuple)
            _check("a level", level, good and len(level.shapes) > 0 and all(_positive(s, 2) for s in level.shapes))
        _check("number of anchors", self.count, self.count <= ANCHOR_LIMIT)

    @property
    def count(self) -> int:
        """A, the number of anchors."""
        return sum(level.size[0] * level.size[1] * len(level.shapes) for level in self.levels)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads back to an equal object."""
        levels = [{"size": list(level.size), "shapes": [list(s) for s in level.shapes]} for level in self.levels]
        return {**asdict(self), "input": list(self.input), "levels": levels, "variances": list(self.variances)}

    @classmethod
    def from_json(cls, values: Any) -> AnchorSpec:
        """From `to_json`'s dictionary, which may come from a hostile file. Raises SettingsError."""
        names = {field.name for field in fields(cls)}
        _check("fields", values, isinstance(values, dict) and set(values) == names)
        _check("levels", values["levels"], isinstance(values["levels"], list))
        levels = []
        for entry in values["levels"]:
            good = isinstance(entry, dict) and set(entry) == {"size", "shapes"} and isinstance(entry["shapes"], list)
            _check("a level", entry, good)
            levels.append(Level(_tuple(entry["size"]), tuple(_tuple(shape) for shape in entry["shapes"])))
        return cls(_tuple(values["input"]), tuple(levels), _tuple(values["variances"]))


def ssd_anchors(size: Size, maps: Sequence[Size], scales: tuple[float, float] = SCALES) -> AnchorSpec:
    """The anchors of SSD for an input of `size` and maps of these (height, width), finest first.

    Scales grow evenly from the first to the last level; sides are multiples of sqrt(height * width) of the input. Each
    level has a square anchor of its scale s_k, one of sqrt(s_k * s_k+1), and RATIOS; the first has three alone, as in the
    authors' code: it has most of the places and finds small objects. Raises SettingsError.
    """
    steps = np.linspace(*scales, len(maps)).tolist() if len(maps) > 1 else [scales[0]]
    unit = math.sqrt(size[0] * size[1])
    levels = []
    for index, (scale, after, places) in enumerate(zip(steps, [*steps[1:], 1.0], maps)):
        first = index == 0 and len(maps) > 1
        square_sides = (FIRST_SCALE,) if first else (scale, math.sqrt(scale * after))
        shapes = [(unit * s, unit * s) for s in square_sides]
        for ratio in RATIOS[:2] if first else RATIOS:
            shapes.append((unit * scale * math.sqrt(ratio), unit * scale / math.sqrt(ratio)))
        levels.append(Level((places[0], places[1]), tuple(shapes)))
    return AnchorSpec((size[0], size[1]), tuple(levels))


def fitted_anchors(size: Size, maps: Sequence[Size], shapes: Sequence[tuple[float, float]]) -> AnchorSpec:
    """Anchors of these (width, height) in pixels, each on the map whose positions are a quarter of its side from each other.

    maps: (height, width) of the maps of an input of `size`, finest first. Those behind the last that has an anchor are
    left out; one before it without any takes the shape nearest to four of its steps. Raises SettingsError.
    """
    steps = [math.sqrt(size[0] * size[1] / (h * w)) for h, w in maps]

    def away(shape: tuple[float, float], step: float) -> float:
        return abs(math.log2(math.sqrt(shape[0] * shape[1]) / (PLACES_ACROSS * step)))

    of_level: list[list[tuple[float, float]]] = [[] for _ in maps]
    for shape in shapes:
        nearest = min(range(len(maps)), key=lambda index: away(shape, steps[index]))
        of_level[nearest].append((float(shape[0]), float(shape[1])))
    last = max((index for index, fitted in enumerate(of_level) if fitted), default=-1)
    levels = []
    for fitted, step, places in list(zip(of_level, steps, maps))[: last + 1]:
        fitted = fitted or [min(shapes, key=lambda shape: away(shape, step))]
        levels.append(Level((places[0], places[1]), tuple((float(w), float(h)) for w, h in sorted(fitted))))
    return AnchorSpec((size[0], size[1]), tuple(levels))


@lru_cache(maxsize=16)
def anchors(spec: AnchorSpec) -> NDArray[np.float32]:
    """(A, 4) float32: cx, cy, width, height in input pixels; read-only, since it is kept."""
    parts = []
    for (height, width), shapes in spec.levels:
        part = np.empty((height, width, len(shapes), 4), np.float64)
        part[..., 0] = ((np.arange(width) + 0.5) * spec.input[1] / width)[:, None]
        part[..., 1] = ((np.arange(height) + 0.5) * spec.input[0] / height)[:, None, None]
        part[..., 2:] = shapes
        parts.append(part.reshape(-1, 4))
    result = np.concatenate(parts).astype(np.float32)
    result.setflags(write=False)
    return result


def _check(name: str, value: Any, good: bool) -> None:
    if not good:
        allowed = "what a detector of this package writes"
        raise SettingsError(f"anchors: {name} {str(value)[:200]!r}", allowed, "export the run again")


def _tuple(value: Any) -> Any:
    """Lists, as JSON has them, as tuples; anything else is left for the checks to refuse."""
    return tuple(value) if isinstance(value, list) else value


def _sides(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(type(v) is int and 1 <= v <= SIDE_LIMIT for v in value)


def _positive(values: Any, count: int) -> bool:
    """Whether `values` is a tuple of `count` numbers above 0 that float32 can hold."""
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(type(v) in (int, float) and 1e-6 <= v <= 1e6 for v in values)
    )

"""The networks that a budget is compared with: the zoo at several widths and inputs, and how good each may be expected to be."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gossamer.networks.costs import COSTS
from gossamer.networks.published import published_top1
from gossamer.networks.registry import NETWORKS, list_models, traits
from gossamer.training.defaults import SMALL

WIDTHS = (0.25, 0.5, 0.75, 1.0)  # beside those that were published
SCALES = (1.0, 0.75, 0.5)  # of the sides of the input, where it is not given
STEP, SMALLEST = 32, 32  # pixels: inputs are multiples, and none is smaller unless the images are


@dataclass(frozen=True)
class NetworkChoice:
    """A network at a width, None for its own, and an input (height, width) in pixels."""

    net: str
    width: float | None
    size: tuple[int, int]
    channels: int = 3

    @property
    def name(self) -> str:
        """Unique, and fit for a file."""
        width = "" if self.width is None else f"-w{self.width:g}"
        return f"{self.net}{width}-{self.size[0]}x{self.size[1]}"

    @property
    def family(self) -> tuple[object, ...]:
        """What networks that differ in width alone have in common."""
        entry = NETWORKS[self.net]
        fixed = sorted((key, str(value)) for key, value in entry.arguments.items() if key != "width")
        return (entry.module, entry.function, *fixed)

    def macs(self) -> float:
        """Multiply-adds, about: those of the zoo's table in proportion to the input and to the square of the width."""
        own = traits(self.net)
        area = math.prod(self.size) / math.prod(own.input[1:])
        if own.takes_small_input and max(self.size) <= SMALL < max(own.input[1:]):
            area *= 16  # two strides of 2 are left out
        return COSTS[self.net][1] * area * self._wider()

    def params(self) -> float:
        """Parameters, about, with 1000 classes."""
        return COSTS[self.net][0] * self._wider()

    def _wider(self) -> float:
        return 1.0 if self.width is None else (self.width / own_width(self.net)) ** 2


def own_width(net: str) -> float:
    """The width multiplier of a network that is given none."""
    return float(NETWORKS[net].arguments.get("width", 1.0))


@functools.cache
def takes_width(net: str) -> bool:
    """Whether a network has a width multiplier."""
    entry = NETWORKS[net]
    build = getattr(importlib.import_module(f"gossamer.networks.{entry.module}"), entry.function)
    return "width" in inspect.signature(build).parameters


def network_names(patterns: Iterable[str]) -> list[str]:
    """The networks that match one of the patterns, each once."""
    return sorted({name for pattern in patterns for name in list_models(pattern)})


def all_choices(names: Sequence[str], sizes: Sequence[tuple[int, int]], channels: int) -> list[NetworkChoice]:
    """Each network at its own width and the other WIDTHS of its family, at each input."""
    result = []
    members: dict[tuple[object, ...], list[str]] = {}
    for name in names:
        members.setdefault(NetworkChoice(name, None, sizes[0]).family, []).append(name)
    for group in members.values():
        pairs: list[tuple[str, float | None]] = [(name, None) for name in group]
        if takes_width(group[0]):
            own = {own_width(name) for name in group}
            base = min(group, key=lambda name: abs(own_width(name) - 1.0))
            pairs += [(base, width) for width in WIDTHS if width not in own]
        result += [NetworkChoice(name, width, size, channels) for name, width in pairs for size in sizes]
    return result


def input_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The size of the images and smaller ones of its shape, the largest first."""
    result = [size]
    for scale in SCALES[1:]:
        height, width = (max(SMALLEST, STEP * round(scale * side / STEP)) for side in size)
        if (height, width) not in result and height <= size[0] and width <= size[1]:
            result.append((height, width))
    return result


@functools.cache
def points_per_doubling() -> float:
    """How many points of published top-1 a network has more than one of its family with half the multiply-adds: the median."""
    by_family: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for name in NETWORKS:
        if known := published_top1(name):
            family = NetworkChoice(name, None, (224, 224)).family
            by_family.setdefault(family, []).append((math.log2(COSTS[name][1]), known.top1))
    slopes = []
    for points in by_family.values():
        points.sort()
        slopes += [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points) if b[0] - a[0] > 0.3]
    return statistics.median(slopes)


@functools.cache
def _level() -> float:
    """The median of the published top-1 of all networks, brought to one million multiply-adds."""
    known = {name: accuracy.top1 for name in NETWORKS if (accuracy := published_top1(name))}
    return statistics.median(
        top1 - points_per_doubling() * math.log2(COSTS[name][1] / 1e6) for name, top1 in known.items()
    )


def expected_top1(choice: NetworkChoice) -> float:
    """The top-1 on ImageNet that such a network may have: decides what is tried first, and nothing else.

    The published one of the network, changed by `points_per_doubling` for width and input; for a network without one that
    of the median network of its multiply-adds.
    """
    known = published_top1(choice.net)
    slope = points_per_doubling()
    if known is None:
        return _level() + slope * math.log2(choice.macs() / 1e6)
    return known.top1 + slope * math.log2(choice.macs() / COSTS[choice.net][1])

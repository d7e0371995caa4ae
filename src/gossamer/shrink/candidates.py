"""The layers of a network that can be decomposed, the ranks that come into question, and what each saves as timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import nn

from gossamer.analysis.graph import Graph
from gossamer.errors import InputError, SettingsError, UnknownNameError
from gossamer.networks.changes import Change, decompose_layer
from gossamer.networks.factors import full_ranks, kept_energy, methods_of, ranks_fit, skeleton, spectra, why_not
from gossamer.shrink.pairs import Clock, PairTimes, layer_onnx

Ranks = tuple[int, ...]

MULTIPLES = (1, 4, 8, 16, 32)  # that a rank is rounded up to; which one is decided by timing
LADDER = (0.125, 0.25, 0.375, 0.5, 0.75)  # of the ranks at which the multiply-adds are those of the layer
FASTER = "faster alone"
LIKED = 1.02  # of the fastest time: a larger rank that takes no more is taken
WIDE_STACK = 128  # channels between the layers of a stack, more are not fitted: the systems grow with their cube
WIDE_TERMS = 512  # terms of a sum of rank-one ones


@dataclass(frozen=True)
class Layer:
    """A layer that can be decomposed. shapes: of its inputs in a forward pass, one a call."""

    name: str
    module: nn.Module
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Tried:
    """A decomposition that came into question.

    energy: the part of the layer's weights that it keeps, by squares. ms: the layer alone, before and after, with quartiles;
    None where it was not timed. drop: points of the score that it alone costs before any training, on some validation
    images; None where that was not measured. verdict: what became of it.
    """

    layer: str
    method: str
    ranks: Ranks
    energy: float | None
    ms: PairTimes | None
    drop: float | None
    verdict: str

    @property
    def change(self) -> Change:
        """The edit."""
        return decompose_layer(self.layer, self.method, self.ranks)

    @property
    def saved(self) -> float:
        """Milliseconds of the layer alone."""
        return 0.0 if self.ms is None else self.ms.saved


def layers_to_decompose(
    model: nn.Module, graph: Graph, only: Sequence[str], keep: Sequence[str], where: str
) -> tuple[Layer, ...]:
    """The layers of a traced network that take a decomposition, in order.

    only: names, all where there are none. keep: names of layers that stay. Raises UnknownNameError for a name that no layer
    has, SettingsError for one in `only` that takes none, InputError where no layer is left.
    """
    modules = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    for name in (*only, *keep):
        if name not in modules:
            raise UnknownNameError("convolution or fully connected layer", name, modules)
    shapes: dict[str, list[tuple[int, ...]]] = {}
    elsewhere: set[str] = set()  # layers whose weights are read by others, or by a function
    for node in graph.nodes:
        for value in graph.read(node, "parameter"):
            owner = value.name.rpartition(".")[0]
            if owner in modules and owner != node.module:
                elsewhere.add(owner)
        if node.module not in modules:
            continue
        if node.op == "convolution":
            shapes.setdefault(node.module, []).append(tuple(graph.values[node.inputs[0]].shape[1:]))
        elif node.op in ("addmm", "mm"):
            shape = graph.values[node.inputs[-2]].shape
            shapes.setdefault(node.module, []).append((shape[-1], prod(shape[:-1])))
    fitting: list[Layer] = []
    for name, module in modules.items():
        if name in keep or (only and name not in only):
            continue
        reason = "" if methods_of(module) else why_not(module)
        if not reason and (name in elsewhere or name not in shapes):
            reason = "a layer whose weights are read from outside it"
        if reason:
            if only:
                raise SettingsError(f"{name}: {reason}", "Conv2d of one group, Linear", "name other layers")
            continue
        fitting.append(Layer(name, module, tuple(shapes[name])))
    if not fitting:
        raise InputError(
            f"{where}: no layer that can be decomposed" + (" is left" if keep else ""),
            "convolutions of one group and fully connected layers",
            "keep fewer layers" if keep else "decompose another run",
        )
    return tuple(fitting)


def candidates(layer: Layer, methods: Sequence[str], energy: float, clock: Clock) -> Iterator[Tried]:
    """Of each method the ranks that keep `energy` of the layer's weights, with the layer timed before and after."""
    for method in methods_of(layer.module):
        if method not in methods:
            continue
        ranks = _by_energy(layer, method, energy)
        if ranks is None:
            yield Tried(layer.name, method, (), None, None, None, _no_rank(energy))
        else:
            yield timed(layer, method, ranks, clock, liked=True)


def ladder(layer: Layer, method: str) -> list[Ranks]:
    """Ranks of fewer multiply-adds than the layer has, ascending."""
    full = full_ranks(layer.module, method)
    result: list[Ranks] = []
    for part in LADDER:
        low, high = 0.0, 1.0  # the part of the full ranks that has this part of the multiply-adds
        for _ in range(20):
            middle = (low + high) / 2
            ranks = _fitting(layer, method, tuple(max(1, round(middle * rank)) for rank in full))
            low, high = (middle, high) if macs(layer, method, ranks) <= part * macs_before(layer) else (low, middle)
        ranks = _fitting(layer, method, tuple(max(1, math.floor(low * rank)) for rank in full))
        if ranks not in result and macs(layer, method, ranks) < macs_before(layer) and _solvable(method, ranks):
            result.append(ranks)
    return result


def timed(layer: Layer, method: str, ranks: Ranks, clock: Clock, liked: bool = False) -> Tried:
    """A decomposition with the layer alone timed before and after. liked: round the ranks up to what the runtime likes."""
    most = macs_before(layer)
    if macs(layer, method, ranks) >= most:
        energy = kept_energy(layer.module, method, ranks) if _solvable(method, ranks) else None
        return Tried(layer.name, method, ranks, energy, None, None, "more multiply-adds than the layer")
    options = {ranks: pair_times(layer, method, ranks, clock)}
    for multiple in MULTIPLES[1:] if liked and options[ranks].saved > -options[ranks].before.median else ():
        wider = _fitting(layer, method, tuple(-(-rank // multiple) * multiple for rank in ranks))
        if wider not in options and macs(layer, method, wider) < most and _solvable(method, wider):
            options[wider] = pair_times(layer, method, wider, clock)
    least = min(pair.after.median for pair in options.values())
    best = max(one for one, pair in options.items() if pair.after.median <= LIKED * least)
    pair = options[best]
    verdict = FASTER if pair.faster else "not faster beyond the noise" if pair.saved > 0 else "slower"
    return Tried(layer.name, method, best, kept_energy(layer.module, method, best), pair, None, verdict)


def pair_times(layer: Layer, method: str, ranks: Ranks, clock: Clock) -> PairTimes:
    """The layer alone and the layers in its place, summed over its calls."""
    pairs = [
        clock.pair(layer_onnx(*_alone([layer.module], shape)), layer_onnx(*_alone(_parts(layer, method, ranks), shape)))
        for shape in dict.fromkeys(layer.shapes)
    ]
    counts = [layer.shapes.count(shape) for shape in dict.fromkeys(layer.shapes)]

    def total(value: Callable[[PairTimes], float]) -> float:
        return sum(count * value(pair) for count, pair in zip(counts, pairs, strict=True))

    first = pairs[0]
    return PairTimes(
        replace(
            first.before,
            median=total(lambda pair: pair.before.median),
            low=total(lambda pair: pair.before.low),
            high=total(lambda pair: pair.before.high),
        ),
        replace(
            first.after,
            median=total(lambda pair: pair.after.median),
            low=total(lambda pair: pair.after.low),
            high=total(lambda pair: pair.after.high),
        ),
    )


def macs_before(layer: Layer) -> int:
    """The multiply-adds of the layer in a forward pass of one image."""
    return sum(_macs([layer.module], shape) for shape in layer.shapes)


def macs(layer: Layer, method: str, ranks: Ranks) -> int:
    """The multiply-adds of the layers in its place."""
    parts = _parts(layer, method, ranks)
    return sum(_macs(parts, shape) for shape in layer.shapes)


def _macs(parts: Sequence[nn.Module], shape: tuple[int, ...]) -> int:
    total, sides = 0, list(shape[1:])
    for part in parts:
        weight = part.weight
        assert isinstance(weight, torch.Tensor), "a convolution or a fully connected layer"
        if isinstance(part, nn.Conv2d):
            padding = (0, 0) if part.padding == "valid" else part.padding
            sides = [
                side
                if isinstance(padding, str)
                else (side + 2 * padding[axis] - part.dilation[axis] * (part.kernel_size[axis] - 1) - 1)
                // part.stride[axis]
                + 1
                for axis, side in enumerate(sides)
            ]
        total += weight.numel() * prod(sides)
    return total


def _parts(layer: Layer, method: str, ranks: Ranks) -> list[nn.Module]:
    with torch.device("meta"):
        return list(skeleton(_without_values(layer.module), method, ranks))


def _without_values(module: nn.Module) -> nn.Module:
    """The layer on the meta device: shapes alone."""
    with torch.device("meta"):
        if isinstance(module, nn.Linear):
            return nn.Linear(module.in_features, module.out_features, module.bias is not None)
        assert isinstance(module, nn.Conv2d), "methods_of was asked"
        return nn.Conv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size,  # type: ignore[arg-type]
            module.stride,  # type: ignore[arg-type]
            module.padding,  # type: ignore[arg-type]
            module.dilation,  # type: ignore[arg-type]
            bias=module.bias is not None,
            padding_mode=module.padding_mode,
        )


def _alone(parts: Sequence[nn.Module], shape: tuple[int, ...]) -> tuple[Sequence[nn.Module], tuple[int, ...]]:
    """Layers and the input they are timed with; fully connected ones of several positions as 1x1 convolutions."""
    if isinstance(parts[0], nn.Conv2d):
        return parts, shape
    if shape[1] == 1:
        return parts, shape[:1]
    with torch.device("meta"):
        same = [nn.Conv2d(one.in_features, one.out_features, 1) for one in parts if isinstance(one, nn.Linear)]
    return same, (shape[0], shape[1], 1)


def _by_energy(layer: Layer, method: str, energy: float) -> Ranks | None:
    """The least ranks that keep the energy; None where none below the layer's multiply-adds does."""
    if method in ("svd", "tucker", "spatial"):
        tables = spectra(layer.module, method)
        lost = (1 - energy) / len(tables)  # what the cuts along the axes lose adds up at most
        return tuple(_count(table, 1 - lost) for table in tables)
    if method == "cp":  # a sum of terms has no more rank along an axis than terms
        least = max(_count(table, energy) for table in spectra(layer.module, "tucker"))
        if macs(layer, method, (least,)) >= macs_before(layer):
            return None
    for ranks in ladder(layer, method):
        if method == "cp" and ranks[0] < least:
            continue
        if kept_energy(layer.module, method, ranks) >= energy:
            return ranks
    return None


def _count(table: torch.Tensor, energy: float) -> int:
    """How many of the values, the largest first, make up this part of their sum; at least one."""
    total = float(table.sum())
    if total <= 0:
        return 1
    reached = table.cumsum(0) / total >= energy - 1e-12
    return int(reached.int().argmax()) + 1 if bool(reached.any()) else len(table)


def _fitting(layer: Layer, method: str, ranks: Ranks) -> Ranks:
    """The ranks, at most the full ones."""
    full = full_ranks(layer.module, method, ranks)
    first = min(ranks[0], full[0])
    full = full_ranks(layer.module, method, (first, *ranks[1:]))
    result = tuple(min(rank, most) for rank, most in zip((first, *ranks[1:]), full, strict=True))
    assert ranks_fit(layer.module, method, result), "cut to the full ranks"
    return result


def _solvable(method: str, ranks: Ranks) -> bool:
    """Whether the least squares for it are solved in seconds."""
    return max(ranks) <= {"stack": WIDE_STACK, "cp": WIDE_TERMS}.get(method, math.inf)


def _no_rank(energy: float) -> str:
    return f"no rank of fewer multiply-adds keeps {energy:g} of the energy"

"""A QDQ program as steps on bytes, without a float."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.program import FeatureMap, LayerWeights, Operation, Program, Rounding
from gossamer.csource.arithmetic import MOST_RATIO, activated, bounds, dequantised, pair, quantised, ratios
from gossamer.csource.floats import of_conv, panels, plain
from gossamer.csource.network import BYTES, Network, Output, Pair, Step, View, refuse, written

MOST_SUM = 2**31 - 1  # of int32
LEAST, MOST = 2.0**-100, 2.0**90  # of a scale of outputs
PARTS = 128  # of a position between two of a resize
IDENTITY = np.arange(256, dtype=np.uint8)
LAYOUT = {
    "max_pool": "max_pool",
    "shuffle": "shuffle",
    "depth_to_space": "depth_to_space",
    "activation": "copy",
    "copy": "copy",
}


def byte_network(program: Program) -> Network:
    """The steps of a program whose maps are bytes; its outputs may be float32. Raises InputError that names the layer."""
    value = program.values[program.input]
    if value.type != "uint8":
        raise refuse(f"an input in {value.type} in a network in int8", "the first")
    network = Network(BYTES, program, scale=value.scale, zero=value.zero)
    network.add_input()
    _Emitter(network).run()
    return written(network)


class _Emitter:
    """Adds the step of each operation."""

    def __init__(self, network: Network) -> None:
        self.network, self.program = network, network.program
        first = 0
        self.pieces: dict[int, list[tuple[int, bool]]] = {}  # value -> where it is an output, and whether channels last
        for one in self.program.outputs:
            count = math.prod(one.shape)
            network.outputs.append(Output(one.name, one.shape, first, count))
            at = first
            for number, last in one.pieces:
                self.pieces.setdefault(number, []).append((at, last))
                piece = self.program.values[number]
                at += piece.h * piece.w * piece.c
            first += count
        self.readers = self.program.readers()

    def run(self) -> None:
        """All operations, then the outputs that are bytes."""
        for one in self.program.operations:
            self.network.steps.append(self.step(one))
        for number, places in self.pieces.items():
            value = self.program.values[number]
            if value.type != "uint8":
                continue
            view = self.network.view(number)
            count = view.h * view.w * view.c
            for at, last in places:
                scale = np.array([_word_scale(value.scale, "output")], np.float32)
                out = View(-1, at, 1, 1, count, count)
                kind = "rows" if plain(value, last) else "planes"
                self.network.steps.append(
                    Step(kind, view, out, name="output", scale=scale, zeros=(value.zero, 0), words=1)
                )

    def step(self, one: Operation) -> Step:
        """Raises InputError where its maps are floats, or it has no kernel."""
        source, out = self.program.values[one.input], self.program.values[one.out]
        other = self.program.values[one.other] if one.other >= 0 else None
        if source.type != "uint8" or (other is not None and other.type != "uint8"):
            raise refuse(f"an operation {one.kind} in float32 in a network in int8", one.name)
        base = Step(
            LAYOUT.get(one.kind, one.kind),
            self.network.view(one.input),
            View(-1, 0, out.h, out.w, out.c, out.c),
            self.network.view(one.other) if one.other >= 0 else None,
            one.name,
            one.kernel,
            one.stride,
            one.pads,
            one.dilation,
            one.groups,
            one.count_padding,
            zeros=(source.zero, 0),
        )
        if out.type == "float32":
            return self.last(one, base, source, out)
        base = replace(base, out=self.network.view(one.out))
        if one.kind in ("conv", "block"):
            return self.layer(one, base, source, other, out)
        if one.kind in ("add", "scale", "multiply") and other is not None:
            return self.pairs(one, base, source, other, out)
        if one.kind in LAYOUT:
            if one.kind in ("max_pool", "shuffle", "depth_to_space") and one.rounding != Rounding():
                raise refuse(f"an operation {one.kind} that rounds", one.name)
            table = _table(source, out, one.act, one.bound, one.rounding, one.name)
            return replace(base, table=table)
        if one.kind in ("average_pool", "global_average"):
            return self.average(one, base, source, out)
        if one.kind == "resize":
            return self.resize(one, base, source, out)
        raise refuse(f"an operation {one.kind} in int8", one.name)

    def weights(self, one: Operation, source: FeatureMap) -> tuple[NDArray[np.int8], NDArray[np.int32], LayerWeights]:
        """Weight, bias in steps of its sums, and the layer. Raises InputError where they are no bytes, or sums leave int32."""
        layer = one.weights[1 if one.kind == "block" else 0]
        if layer is None or layer.type != "uint8" or layer.scale is None:
            raise refuse("weights in float32 in a network in int8", one.name)
        rows = np.broadcast_to(np.asarray(layer.scale, np.float32).reshape(-1), (len(layer.weight),))
        steps = (np.float32(source.scale) * rows).astype(np.float64)
        bias = layer.bias.astype(np.float64).reshape(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            exact = np.where(bias == 0, 0, bias / steps)
        whole = np.rint(exact)
        if not np.isfinite(exact).all() or (np.abs(exact - whole) > 1e-3 + 2e-7 * np.abs(whole)).any():
            raise refuse("a bias that is no int32 of the scales of its input and weight", one.name)
        weight = np.asarray(layer.weight, np.int8)
        reach = np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(1) * max(source.zero, 255 - source.zero)
        if (np.abs(whole) + reach > MOST_SUM).any():
            raise refuse("sums that int32 does not hold", one.name)
        return weight, whole.astype(np.int32), LayerWeights(weight, layer.bias, rows)

    def placed(
        self, one: Operation, base: Step, weight: NDArray[np.int8], bias: NDArray[np.int32], scale: NDArray[Any]
    ) -> Step:
        """The step with its weights in the order of its kernel."""
        base = replace(base, scale=scale)
        if one.kind == "block":
            across = np.ascontiguousarray(weight.reshape(len(weight), -1).T)
            return replace(base, kind="depthwise", weight=across, bias=bias)
        return of_conv(base, panels(weight.reshape(base.out.c, -1, *one.kernel), one.groups), bias)

    def layer(self, one: Operation, base: Step, source: FeatureMap, other: FeatureMap | None, out: FeatureMap) -> Step:
        """A convolution: its sum to bytes, another map added, the activation by a table."""
        act, bound, rounding = one.act, one.bound, one.rounding
        if one.kind == "block":
            if one.weights[0] is not None or (len(one.weights) > 2 and one.weights[2] is not None):
                raise refuse("a fused block", one.name)
            act, bound, rounding = one.acts[1], one.bounds[1], one.roundings[1]
        weight, bias, layer = self.weights(one, source)
        assert layer.scale is not None
        scale, zero = rounding.sum if rounding.sum[0] else (out.scale, out.zero)
        limits, table, both = (0, 255), None, None
        middle = FeatureMap(1, 1, 1, type="uint8", scale=scale, zero=zero)
        if other is not None:
            if not rounding.sum[0]:
                raise refuse("a sum of a layer that is not rounded and a map", one.name)
            both = pair(False, (scale, other.scale, out.scale), (zero, other.zero, out.zero), act, bound, one.name)
        elif rounding.sum[0]:
            table = _table(middle, out, act, bound, rounding, one.name)
        else:
            known = bounds(act, bound, scale, zero)
            if known is None:
                raise refuse(f"an activation {act} of a sum that is not rounded before", one.name)
            limits = known
        base = replace(base, zeros=(source.zero, zero), range=limits, table=table, pair=both)
        return self.placed(one, base, weight, bias, _taken(ratios(source.scale, layer.scale, scale), one.name))

    def last(self, one: Operation, base: Step, source: FeatureMap, out: FeatureMap) -> Step:
        """A layer whose sums are an output in float32."""
        places = self.pieces.get(one.out, [])
        act, rounding = (one.acts[1], one.roundings[1]) if one.kind == "block" else (one.act, one.rounding)
        added = one.kind == "conv" and one.other >= 0 and rounding.sum[0] > 0
        alone = len(places) == 1 and not self.readers.get(one.out) and out.parent < 0
        if (
            not alone
            or one.kind not in ("conv", "block")
            or act != "none"
            or (not added and (rounding != Rounding() or one.other >= 0))
        ):
            raise refuse(f"an operation {one.kind} that makes float32 in a network in int8", one.name)
        weight, bias, layer = self.weights(one, source)
        assert layer.scale is not None
        at, last = places[0]
        steps = (np.float32(source.scale) * layer.scale).astype(np.float32)
        scale = np.array([_word_scale(float(step), one.name) for step in steps], np.float32)
        view = View(-1, at, out.h, out.w, out.c, out.c)
        base = replace(base, out=view, words=1 if plain(out, last) else 2)
        if added:  # the sum rounded to a byte, and what another byte stands for added in float32
            other, (step, zero) = self.program.values[one.other], rounding.sum
            a, b = (int(np.float32(_word_scale(part, one.name)).view(np.uint32)) for part in (step, other.scale))
            none = np.empty((0, 3), np.uint8)
            both = Pair(False, zero, other.zero, a, b, shift=0, zero=0, low=0, high=255, odd=none)
            base = replace(base, pair=both, zeros=(source.zero, zero))
            return self.placed(one, base, weight, bias, _taken(ratios(source.scale, layer.scale, step), one.name))
        return self.placed(one, base, weight, bias, scale)

    def pairs(self, one: Operation, base: Step, source: FeatureMap, other: FeatureMap, out: FeatureMap) -> Step:
        """Sums and products of maps."""
        rounding, product = one.rounding, one.kind != "add"
        act, bound, table = one.act, one.bound, None
        scale, zero = out.scale, out.zero
        if rounding.sum[0]:
            scale, zero = rounding.sum
            middle = FeatureMap(1, 1, 1, type="uint8", scale=scale, zero=zero)
            table = _table(middle, out, act, bound, rounding, one.name)
            act, bound = "none", (0.0, 0.0)
        both = pair(product, (source.scale, other.scale, scale), (source.zero, other.zero, zero), act, bound, one.name)
        return replace(base, kind="pairs", pair=both, table=table)

    def average(self, one: Operation, base: Step, source: FeatureMap, out: FeatureMap) -> Step:
        """Means: the sum times a number for each count of positions."""
        if one.rounding != Rounding():
            raise refuse(f"an operation {one.kind} that rounds before its activation", one.name)
        limits = bounds(one.act, one.bound, out.scale, out.zero)
        if limits is None:
            raise refuse(f"an activation {one.act} of a mean that is not rounded before", one.name)
        most = one.kernel[0] * one.kernel[1]
        counts = np.arange(1, most + 1) if one.kind == "average_pool" else np.full(base.out.c, source.h * source.w)
        if int(counts.max()) * max(source.zero, 255 - source.zero) > MOST_SUM:
            raise refuse("sums that int32 does not hold", one.name)
        scale = _taken(mean_scale(source.scale, out.scale, counts), one.name)
        zeros = (source.zero, out.zero)
        bias = None if one.kind == "average_pool" else np.zeros(1, np.int32)
        return replace(base, scale=scale, zeros=zeros, range=limits, bias=bias)

    def resize(self, one: Operation, base: Step, source: FeatureMap, out: FeatureMap) -> Step:
        """Between rows and columns in 128ths of the way; every other fraction is refused."""
        layer = one.weights[0]
        assert layer is not None
        if one.act != "none" or one.rounding != Rounding():
            raise refuse("a resize with an activation in int8", one.name)
        places = [np.asarray(part, np.float64).reshape(-1, 2) for part in (layer.weight, layer.bias)]
        if any((np.abs(part[:, 1] * PARTS - np.rint(part[:, 1] * PARTS)) > 1e-4).any() for part in places):
            raise refuse("a resize in int8 between places that are no 128ths", one.name)
        table = np.concatenate([np.rint(part * [1, PARTS]) for part in places]).astype(np.int32)
        scale = _taken(np.array([resize_scale(source.scale, out.scale)], np.float32), one.name)
        return replace(base, bias=table, scale=scale, zeros=(source.zero, out.zero))


def mean_scale(source: float, out: float, counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """What sums of so many bytes are multiplied with: input scale / (output scale * count), as ONNX Runtime computes it."""
    return (np.float32(source) / (np.float32(out) * counts.astype(np.float32))).astype(np.float32)


def resize_scale(source: float, out: float) -> float:
    """What sums of bytes weighed by 16384ths are multiplied with."""
    return float(np.float32(source) / np.float32(out) / np.float32(PARTS * PARTS))


def _table(
    source: FeatureMap, out: FeatureMap, act: str, bound: tuple[float, float], rounding: Rounding, name: str
) -> NDArray[np.uint8] | None:
    """For each byte that of its activation; None where all stay. A layer's sum is rounded before, and not once more here.

    Raises InputError where the activation of a byte is not a number.
    """
    x = dequantised(IDENTITY, source.scale, source.zero)
    if rounding.sum[0] and (source.scale, source.zero) != rounding.sum:
        x = dequantised(quantised(x, *rounding.sum), *rounding.sum)
    if act == "none" and (source.scale, source.zero) == (out.scale, out.zero):
        return None
    values = activated(x, act, bound, rounding)
    if np.isnan(values).any():  # which no byte stands for
        raise refuse(f"an activation {act} that is not a number for some bytes", name)
    table = quantised(values, out.scale, out.zero)
    return None if np.array_equal(table, IDENTITY) else table


def _taken(scales: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Raises InputError where products of sums and these scales may not be numbers that integers hold."""
    if not (scales <= MOST_RATIO).all():
        raise refuse("a scale far above that of its output", name)
    return scales


def _word_scale(scale: float, name: str) -> float:
    """Raises InputError where products of it are no normal float32."""
    if scale != 0 and not LEAST <= scale <= MOST:
        raise refuse(f"an output of scale {scale:g}", name)
    return scale

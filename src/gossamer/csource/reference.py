"""A QDQ program computed in numpy: the bytes and outputs that its C source must give, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from gossamer.compile.program import FeatureMap, Operation, Program
from gossamer.csource.arithmetic import activated, dequantised, layer_bytes, pair_bytes, quantised, ratios
from gossamer.csource.integers import PARTS, mean_scale, resize_scale

Bytes = NDArray[np.uint8]


def byte_outputs(program: Program, inputs: Bytes) -> NDArray[np.uint32]:
    """The outputs (N, numbers) as bits of float32 for inputs (N, numbers), bytes, channels last where they are an image."""
    return np.stack([_Run(program).run(one) for one in inputs])


class _Run:
    """All maps of one input, (height, width, channels) each."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.maps: dict[int, NDArray[np.uint8]] = {}  # of roots
        self.floats: dict[int, NDArray[np.float32]] = {}

    def run(self, numbers: Bytes) -> NDArray[np.uint32]:
        program = self.program
        value = program.values[program.input]
        if program.shape is None:
            given = numbers.reshape(value.h, value.w, value.c)
        else:
            given = numbers.reshape(value.c, value.h, value.w).transpose(1, 2, 0)
        self.write(program.input, given)
        for one in program.operations:
            out = program.values[one.out]
            made: NDArray[Any] = self.operation(one, out)
            if out.type == "uint8":
                self.write(one.out, made)
            else:
                self.floats[one.out] = made
        parts = []
        for output in program.outputs:
            for number, last in output.pieces:
                piece = program.values[number]
                one_map = (
                    self.floats[number]
                    if number in self.floats
                    else dequantised(self.read(number), piece.scale, piece.zero)
                )
                parts.append((one_map if last else one_map.transpose(2, 0, 1)).reshape(-1))
        words: NDArray[np.uint32] = np.ascontiguousarray(np.concatenate(parts), np.float32).view(np.uint32)
        return np.where(words == 0x80000000, np.uint32(0), words)  # of two zeros one

    def write(self, number: int, values: NDArray[np.uint8]) -> None:
        root, one = self.program.root(number), self.program.values[number]
        whole = self.program.values[root]
        if root not in self.maps:
            self.maps[root] = np.zeros((whole.h, whole.w, whole.c), np.uint8)
        first = one.first if one.parent >= 0 else 0
        self.maps[root][:, :, first : first + one.c] = values

    def read(self, number: int) -> Bytes:
        one = self.program.values[number]
        first = one.first if one.parent >= 0 else 0
        return self.maps[self.program.root(number)][:, :, first : first + one.c]

    def operation(self, one: Operation, out: FeatureMap) -> NDArray[Any]:
        """Bytes, or of a last layer float32."""
        source, x = self.program.values[one.input], self.read(one.input)
        other = self.program.values[one.other] if one.other >= 0 else None
        if one.kind in ("conv", "block"):
            return self.layer(one, source, x, other, out)
        if one.kind in ("add", "scale", "multiply"):
            assert other is not None
            y = np.broadcast_to(self.read(one.other), x.shape)
            scale, zero = one.rounding.sum if one.rounding.sum[0] else (out.scale, out.zero)
            act = ("none", (0.0, 0.0)) if one.rounding.sum[0] else (one.act, one.bound)
            scales, zeros = (source.scale, other.scale, scale), (source.zero, other.zero, zero)
            both = pair_bytes(x, y, one.kind != "add", scales, zeros, *act)
            return self.ended(one, both, scale, zero, out) if one.rounding.sum[0] else both
        if one.kind in ("average_pool", "global_average"):
            return self.mean(one, source, x, out)
        if one.kind == "resize":
            return self.resized(one, source, x, out)
        if one.kind == "max_pool":
            x = self.windows(one, x.astype(np.int64), out, 0).max(axis=(3, 4)).astype(np.uint8)
        elif one.kind == "shuffle":
            x = x.reshape(*x.shape[:2], one.groups, -1).transpose(0, 1, 3, 2).reshape(x.shape)
        elif one.kind == "depth_to_space":
            (rows, columns), run = one.stride, out.c // one.groups
            x = x.reshape(*x.shape[:2], one.groups, rows, columns, run).transpose(0, 3, 1, 4, 2, 5)
            x = x.reshape(source.h * rows, source.w * columns, out.c)[: out.h, : out.w]
        return self.ended(one, x, source.scale, source.zero, out)

    def ended(self, one: Operation, x: Bytes, scale: float, zero: int, out: FeatureMap) -> Bytes:
        """The activation of bytes."""
        if one.act == "none" and (scale, zero) == (out.scale, out.zero):
            return x
        values = dequantised(x, scale, zero)
        if one.rounding.sum[0] and one.rounding.sum != (scale, zero):
            values = dequantised(quantised(values, *one.rounding.sum), *one.rounding.sum)
        return quantised(activated(values, one.act, one.bound, one.rounding), out.scale, out.zero)

    def windows(self, one: Operation, x: NDArray[np.int64], out: FeatureMap, filling: int) -> NDArray[np.int64]:
        """(rows, columns, channels, kernel rows, kernel columns)."""
        (kh, kw), (sh, sw), d = one.kernel, one.stride, one.dilation
        top, left = one.pads[:2]
        bottom = max(0, (out.h - 1) * sh + (kh - 1) * d + 1 - x.shape[0] - top)
        right = max(0, (out.w - 1) * sw + (kw - 1) * d + 1 - x.shape[1] - left)
        padded = np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=filling)
        every = sliding_window_view(padded, ((kh - 1) * d + 1, (kw - 1) * d + 1), axis=(0, 1))
        picked: NDArray[np.int64] = every[::sh, ::sw, :, ::d, ::d][: out.h, : out.w]
        return picked

    def layer(
        self, one: Operation, source: FeatureMap, x: Bytes, other: FeatureMap | None, out: FeatureMap
    ) -> NDArray[Any]:
        block = one.kind == "block"
        layer = one.weights[1 if block else 0]
        assert layer is not None and layer.scale is not None
        act, bound, rounding = (
            (one.acts[1], one.bounds[1], one.roundings[1]) if block else (one.act, one.bound, one.rounding)
        )
        rows = np.broadcast_to(np.asarray(layer.scale, np.float32).reshape(-1), (out.c,))
        steps = (np.float32(source.scale) * rows).astype(np.float32)
        groups = out.c if block else one.groups
        taps = self.windows(one, x.astype(np.int64) - source.zero, out, 0).astype(np.float64)
        weight = layer.weight.astype(np.float64).reshape(groups, out.c // groups, -1)
        taps = taps.reshape(out.h, out.w, groups, -1)
        sums = np.einsum("hwgi,goi->hwgo", taps, weight, optimize=True).reshape(
            out.h, out.w, out.c
        )  # exact: below 2**53
        with np.errstate(divide="ignore", invalid="ignore"):
            bias = np.where(layer.bias == 0, 0, np.rint(layer.bias.astype(np.float64) / steps))
        exact = sums.astype(np.int64) + bias.astype(np.int64)
        if out.type == "float32" and other is not None:
            scale, zero = rounding.sum
            made = np.clip(layer_bytes(exact, ratios(source.scale, rows, scale), zero), 0, 255).astype(np.uint8)
            return dequantised(made, scale, zero) + dequantised(self.read(one.other), other.scale, other.zero)
        if out.type == "float32":
            return np.asarray(exact.astype(np.float32) * steps)
        scale, zero = rounding.sum if rounding.sum[0] else (out.scale, out.zero)
        made = np.clip(layer_bytes(exact, ratios(source.scale, rows, scale), zero), 0, 255).astype(np.uint8)
        if other is not None:
            scales, zeros = (scale, other.scale, out.scale), (zero, other.zero, out.zero)
            return pair_bytes(made, self.read(one.other), False, scales, zeros, act, bound)
        if act == "none" and (scale, zero) == (out.scale, out.zero):
            return made
        if rounding.sum[0] == 0:  # an activation that bounds: the order of rounding and bounding is one
            ends = activated(np.array([-np.inf, np.inf], np.float32), act, bound)
            low, high = quantised(ends, scale, zero)
            return np.asarray(np.clip(made, low, high))
        return quantised(activated(dequantised(made, scale, zero), act, bound, rounding), out.scale, out.zero)

    def mean(self, one: Operation, source: FeatureMap, x: Bytes, out: FeatureMap) -> Bytes:
        levels = x.astype(np.int64) - source.zero
        if one.kind == "global_average":
            sums, counts = levels.sum(axis=(0, 1), keepdims=True), np.full((1, 1, 1), source.h * source.w)
        else:
            sums = self.windows(one, levels, out, 0).sum(axis=(3, 4))
            inside = np.ones((*x.shape[:2], 1), np.int64)
            if one.count_padding:
                top, left, bottom, right = one.pads
                inside = np.ones((x.shape[0] + top + bottom, x.shape[1] + left + right, 1), np.int64)
                bare = Operation(
                    one.kind, one.input, one.out, kernel=one.kernel, stride=one.stride, dilation=one.dilation
                )
                counts = self.windows(bare, inside, out, 0).sum(axis=(3, 4))
            else:
                counts = self.windows(one, inside, out, 0).sum(axis=(3, 4))
            counts = np.maximum(counts, 1)
        made = layer_bytes(sums, mean_scale(source.scale, out.scale, counts), out.zero)
        ends = activated(np.array([-np.inf, np.inf], np.float32), one.act, one.bound)
        return np.clip(made, *quantised(ends, out.scale, out.zero).astype(np.int64)).astype(np.uint8)

    def resized(self, one: Operation, source: FeatureMap, x: Bytes, out: FeatureMap) -> Bytes:
        layer = one.weights[0]
        assert layer is not None
        levels = x.astype(np.int64) - source.zero
        for axis, part in enumerate((layer.weight, layer.bias)):
            places = np.asarray(part, np.float64).reshape(-1, 2)
            first, way = places[:, 0].astype(np.int64), np.rint(places[:, 1] * PARTS).astype(np.int64)
            after = np.minimum(first + 1, levels.shape[axis] - 1)
            way = way.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            levels = levels.take(first, axis) * (PARTS - way) + levels.take(after, axis) * way
        made = layer_bytes(levels, np.float32(resize_scale(source.scale, out.scale)), out.zero)  # type: ignore[arg-type]
        return np.clip(made, 0, 255).astype(np.uint8)

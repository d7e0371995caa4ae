"""Operations of a QDQ program as LiteRT operators on int8; what has none stays in float32 between DEQUANTIZE and QUANTIZE.

A map of uint8 is stored as int8, 128 less. Weights are int8 with a scale per output, biases int32 of the input's scale times
the weight's. Source: "LiteRT 8-bit quantization specification" (ai.google.dev/edge/litert/models/quantization_spec).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.program import Array, FeatureMap, LayerWeights, Operation, Rounding
from gossamer.litert.graph import LEAST_SCALE, MOST_NARROWING, ROWS, Graph, Int8
from gossamer.litert.operations import Emitter, dilation, window
from gossamer.litert.resizing import own_operator

SHIFT = 128  # from uint8 to int8
LEAST, MOST = -128, 127
MOST_BIAS = 2.0**30  # the sums are added to it
FINE_BIAS = 2.0**-12  # of the input's scale: the step of biases of a layer without weights
MOST_HARD_SWISH = 100.0  # of the scale that HARD_SWISH reads over that which it writes: it takes less than 128
SIGMOID, TANH = Int8(1 / 256, -128), Int8(1 / 128, 0)  # the only steps that LiteRT's operators write
CURVES = {"sigmoid": ("LOGISTIC", SIGMOID), "tanh": ("TANH", TANH)}
FINE = 0.9  # the file's steps may be narrower than those that LiteRT writes by this: the result is a step off at most
BOUNDS = {"none": (-np.inf, np.inf), "relu": (0.0, np.inf), "relu6": (0.0, 6.0)}
LAYOUT = ("max_pool", "shuffle", "depth_to_space", "activation", "copy")


class IntegerEmitter(Emitter):
    """Adds the operators of one operation of a QDQ program."""

    def __init__(self, graph: Graph, values: Sequence[FeatureMap]) -> None:
        super().__init__(graph, values)
        self.as_floats: dict[int, int] = {}  # tensors of int8 -> themselves in float32
        self.out = FeatureMap(1, 1, 1)
        self.rounding = Rounding()

    def emit(self, one: Operation, source: int, other: int) -> int:
        self.out = self.values[one.out]
        self.rounding = one.roundings[1] if one.kind == "block" else one.rounding
        made = None
        if source in self.graph.steps:
            made = super().emit(one, source, other) if one.kind in LAYOUT else self.in_bytes(one, source, other)
        if made is None:
            made = super().emit(one, self.floats(source), self.floats(other) if other >= 0 else other)
        return self.stored(made, self.out)

    def in_bytes(self, one: Operation, source: int, other: int) -> int | None:
        """The tensor of an operation on int8; None where LiteRT has none that computes the same."""
        handler = NATIVE.get(one.kind)
        return None if handler is None else handler(self, one, source, other)

    def stored(self, tensor: int, value: FeatureMap) -> int:
        if value.type == "float32":
            return self.floats(tensor)
        steps = steps_of(value)
        return tensor if self.graph.steps.get(tensor) == steps else self.quantised(tensor, steps)

    def floats(self, tensor: int) -> int:
        if tensor not in self.graph.steps:
            return tensor
        if tensor not in self.as_floats:
            self.as_floats[tensor] = self.graph.add("DEQUANTIZE", [tensor], self.graph.shapes[tensor])
        return self.as_floats[tensor]

    def quantised(self, tensor: int, steps: Int8) -> int:
        """A tensor in these steps."""
        return self.graph.add("QUANTIZE", [tensor], self.graph.shapes[tensor], steps=steps)

    def rounded(self, tensor: int, pair: tuple[float, int]) -> int:
        """A tensor of floats rounded to (scale, zero) of uint8, in float32 again."""
        return self.floats(self.quantised(tensor, Int8(pair[0], pair[1] - SHIFT)))

    # what the operations in float32 are made of

    def weighted(self, one: Operation, dense: bool = False) -> tuple[int, int]:
        """Bytes stay bytes in the file; LiteRT makes floats of them as it loads it."""
        layer = one.weights[1 if one.kind == "block" else 0]
        if layer is None or layer.type != "uint8" or layer.scale is None:
            return super().weighted(one, dense)
        bytes_of, scale = bytes_and_scale(layer)
        weight = self.ordered(one, bytes_of, dense)
        bytes_ = self.graph.rows(weight, scale, 3 if one.kind == "block" else 0)
        floats = self.graph.add("DEQUANTIZE", [bytes_], weight.shape, ROWS)
        return floats, self.graph.constant(np.asarray(layer.bias, np.float32).reshape(-1))

    def ended(self, act: str, bound: tuple[float, float], make: Callable[[int], int]) -> int:
        return super().ended(act, bound, make) if self.rounding == Rounding() else self.activate(make(0), act, bound)

    def activate(self, x: int, act: str, bound: tuple[float, float]) -> int:
        """Of int8 as of float32; what is rounded before it or within it."""
        if x in self.graph.steps:
            return self.activated(x, act, bound)
        rounding, self.rounding = self.rounding, dataclasses.replace(self.rounding, sum=(0.0, 0))
        if rounding.sum[0]:
            x = self.rounded(x, rounding.sum)
        if not rounding.gate[0] or act not in ("silu", "hard_swish"):
            return super().activate(x, act, bound)
        gate = self.rounded(super().activate(x, "sigmoid" if act == "silu" else "hard_sigmoid", bound), rounding.gate)
        return self.graph.add("MUL", [x, gate], self.graph.shapes[x], activation=0)

    def around(self, source: int, pads: Sequence[tuple[int, int]], filling: float) -> int:
        """Of int8: with its zero, or with the lowest byte."""
        steps = self.graph.steps.get(source)
        if steps is None:
            return super().around(source, pads, filling)
        sides = self.graph.shapes[source]
        shape = (1, sides[1] + sum(pads[0]), sides[2] + sum(pads[1]), sides[3])
        inputs = [source, self.graph.constant(np.array([(0, 0), *pads, (0, 0)], np.int32))]
        if filling:
            inputs.append(self.graph.constant(np.array(LEAST, np.int8), steps))
        return self.graph.add("PADV2" if filling else "PAD", inputs, shape, steps=steps)

    # on int8

    def activated(self, x: int, act: str, bound: tuple[float, float]) -> int:
        """The activation of a tensor of int8, in the steps of the operation's output."""
        if self.rounding.sum[0]:  # of a map that had other steps
            sum_steps = Int8(self.rounding.sum[0], self.rounding.sum[1] - SHIFT)
            x = x if self.graph.steps[x] == sum_steps else self.quantised(x, sum_steps)
        shape, rounding = self.graph.shapes[x], self.rounding
        if self.out.type != "uint8":
            self.rounding = dataclasses.replace(rounding, sum=(0.0, 0))
            return self.activate(self.floats(x), act, bound)
        steps = steps_of(self.out)
        if act in (*BOUNDS, "clip"):
            return self.bounded(self.stored(x, self.out), act, bound)
        if act == "hard_swish" and self.graph.steps[x].scale < MOST_HARD_SWISH * steps.scale:
            return self.graph.add("HARD_SWISH", [x], shape, steps=steps)
        if act == "leaky_relu" and bound[0] > 0:
            return self.graph.add("LEAKY_RELU", [x], shape, steps=steps, alpha=bound[0])
        if CURVES.get(act, ("", None))[1] == steps:
            return self.graph.add(CURVES[act][0], [x], shape, steps=steps)
        if act == "silu" and not 0 < rounding.gate[0] < FINE * SIGMOID.scale:
            gate = self.graph.add("LOGISTIC", [x], shape, steps=SIGMOID)
            return self.graph.add("MUL", [x, gate], shape, steps=steps, activation=0)
        self.rounding = dataclasses.replace(rounding, sum=(0.0, 0))
        return self.activate(self.floats(x), act, bound)

    def bounded(self, x: int, act: str, bound: tuple[float, float]) -> int:
        """A tensor of int8 within the bounds of its activation."""
        steps, shape = self.graph.steps[x], self.graph.shapes[x]
        low, high = limits_of(act, bound, steps)
        for op, limit, idle in (("MAXIMUM", low, LEAST), ("MINIMUM", high, MOST)):
            if limit != idle:
                number = self.graph.constant(np.array(limit, np.int8), steps)
                x = self.graph.add(op, [x, number], shape, steps=steps)
        return x

    def fused_bytes(self, act: str, bound: tuple[float, float], steps: Int8) -> int | None:
        """An activation as an option of an operator that writes these steps: 0 where the steps end as it does."""
        return 0 if limits_of(act, bound, steps) == (LEAST, MOST) else self.fused(act, bound)

    def finished(
        self,
        act: str,
        bound: tuple[float, float],
        make: Callable[[int, Int8], int],
        other: int = -1,
        options: bool = True,
    ) -> int | None:
        """What `make` makes with an activation as its option in given steps, and the activation behind it where it is none.

        other: a tensor that is added between the two. options: whether the operator has such an option. None where the file
        rounds behind the activation alone.
        """
        scale, zero = self.rounding.sum
        if scale:
            made = make(0, Int8(scale, zero - SHIFT))
            if other < 0:
                return self.activated(made, act, bound)
            self.rounding = Rounding(gate=self.rounding.gate)
            added = self.pair("ADD", act, bound, made, other)
            if added is not None:
                return added
            floats = [self.floats(made), self.floats(other)]
            return self.activate(self.graph.add("ADD", floats, self.graph.shapes[made], activation=0), act, bound)
        if self.out.type != "uint8" or other >= 0 or act not in (*BOUNDS, "clip"):
            return None
        steps = steps_of(self.out)
        option = self.fused_bytes(act, bound, steps) if options else None
        return make(option, steps) if option is not None else self.bounded(make(0, steps), act, bound)

    def layer(self, one: Operation, source: int, other: int) -> int | None:
        """A convolution; a layer over a whole map is one as well: LiteRT's dense layer is older than a scale per output."""
        layer, steps = one.weights[1 if one.kind == "block" else 0], self.graph.steps[source]
        if (
            layer is None
            or layer.type != "uint8"
            or layer.scale is None
            or (other >= 0 and other not in self.graph.steps)
        ):
            return None
        bytes_of, scale = bytes_and_scale(layer)
        weight = self.ordered(one, bytes_of, False)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            sums = np.float32(steps.scale) * scale
            exact = np.where(layer.bias.reshape(-1) == 0, 0, layer.bias.reshape(-1).astype(np.float64) / sums)
        # LiteRT's weights begin at -127
        if (
            weight.min() < -MOST
            or not np.isfinite(exact).all()
            or np.abs(exact).max() > MOST_BIAS
            or sums.min() < LEAST_SCALE
        ):
            return None
        act, bound = (one.acts[1], one.bounds[1]) if one.kind == "block" else (one.act, one.bound)

        def make(option: int, out: Int8) -> int:
            padded, padding = self.padded(one, source, 0.0)
            inputs = [
                padded,
                self.graph.rows(weight, scale, 3 if one.kind == "block" else 0),
                self.graph.rows(np.rint(exact).astype(np.int32), sums.astype(np.float32), 0),
            ]
            options = {"activation": option, **window(one, padding), **dilation(one)}
            if one.kind == "block":
                return self.graph.add(
                    "DEPTHWISE_CONV_2D", inputs, self.shape(one.out), 3, out, depth_multiplier=1, **options
                )
            return self.graph.add("CONV_2D", inputs, self.shape(one.out), 6 if one.groups > 1 else 3, out, **options)

        return self.finished(act, bound, make, other)

    def pair(self, op: str, act: str, bound: tuple[float, float], source: int, other: int) -> int | None:
        """A sum or product of two tensors."""
        if other not in self.graph.steps:
            return None
        read = max(self.graph.steps[one].scale for one in (source, other))
        if op == "ADD" and read > MOST_NARROWING * (self.rounding.sum[0] or self.out.scale):
            return None
        return self.finished(
            act,
            bound,
            lambda option, out: self.graph.add(
                op, [source, other], self.graph.shapes[source], steps=out, activation=option
            ),
        )

    def sum_or_product(self, one: Operation, source: int, other: int) -> int | None:
        return self.pair("ADD" if one.kind == "add" else "MUL", one.act, one.bound, source, other)

    def mean(self, one: Operation, source: int, _: int) -> int | None:
        return self.finished(
            one.act,
            one.bound,
            lambda option, out: self.graph.add(
                "MEAN", [source, self.graph.row(1, 2)], self.shape(one.out), steps=out, keep_dims=True
            ),
            options=False,
        )

    def averages(self, one: Operation, source: int, _: int) -> int | None:
        """A depthwise convolution by ones: LiteRT's pool writes the steps that it reads."""
        padded = any(one.pads) and not one.count_padding
        if padded or one.dilation != 1 or self._rounds_up(one):
            return None
        channels = self.values[one.input].c
        weight, bias = np.ones((1, *one.kernel, channels), np.int8), np.zeros(channels, np.int32)
        scale = np.full(channels, 1 / (one.kernel[0] * one.kernel[1]), np.float32)
        sums = np.float32(self.graph.steps[source].scale) * scale

        def make(option: int, out: Int8) -> int:
            given, padding = self.padded(one, source, 0.0)
            inputs = [given, self.graph.rows(weight, scale, 3), self.graph.rows(bias, sums, 0)]
            options = {"activation": option, "depth_multiplier": 1, **window(one, padding), **dilation(one)}
            return self.graph.add("DEPTHWISE_CONV_2D", inputs, self.shape(one.out), 3, out, **options)

        return self.finished(one.act, one.bound, make)

    def _rounds_up(self, one: Operation) -> bool:
        """Whether a window reaches over the padding: what lies there is not counted."""
        value, out = self.values[one.input], self.values[one.out]
        sides = ((value.h, out.h, one.pads[0] + one.pads[2]), (value.w, out.w, one.pads[1] + one.pads[3]))
        return any(
            (count - 1) * step + taps > side + pads
            for (side, count, pads), step, taps in zip(sides, one.stride, one.kernel)
        )

    def resized_bytes(self, one: Operation, source: int, other: int) -> int | None:
        """By LiteRT's own operator, or by rows and columns alone, where its steps are as fine as the file's."""
        value, layer = self.values[one.input], one.weights[0]
        assert layer is not None
        rows, columns = (np.asarray(part, np.float32).reshape(-1, 2) for part in (layer.weight, layer.bias))
        between = bool(rows[:, 1].any() or columns[:, 1].any())
        if between and own_operator((value.h, value.w), rows, columns) is None:
            return None
        if between and self.out.scale < FINE * value.scale:
            return None
        return self.resize(one, source, other)


def steps_of(value: FeatureMap) -> Int8:
    """The steps of a map of uint8, as int8."""
    return Int8(value.scale, value.zero - SHIFT)


def bytes_and_scale(layer: LayerWeights) -> tuple[NDArray[np.int8], Array]:
    """A layer's weight, and a scale for each output: LiteRT has no scale of 0 or next to it, which makes of all bytes 0."""
    assert layer.scale is not None
    scale = np.broadcast_to(np.asarray(layer.scale, np.float32).reshape(-1), (len(layer.weight),)).copy()
    weight = np.array(layer.weight, np.int8)
    none = scale < LEAST_SCALE
    weight[none], scale[none] = 0, FINE_BIAS if none.all() else scale[~none].max()  # the bias is in steps of it
    return weight, scale


def limits_of(act: str, bound: tuple[float, float], steps: Int8) -> tuple[int, int]:
    """The bytes that an activation bounds to."""
    with np.errstate(over="ignore"):  # a bound may be the largest number
        ends = np.array(BOUNDS.get(act, bound), np.float32) / np.float32(steps.scale)
    low, high = np.clip(np.rint(ends) + steps.zero, LEAST, MOST)
    return int(low), int(high)


NATIVE: dict[str, Callable[[IntegerEmitter, Operation, int, int], int | None]] = {
    "conv": IntegerEmitter.layer,
    "block": IntegerEmitter.layer,
    "add": IntegerEmitter.sum_or_product,
    "scale": IntegerEmitter.sum_or_product,
    "multiply": IntegerEmitter.sum_or_product,
    "average_pool": IntegerEmitter.averages,
    "global_average": IntegerEmitter.mean,
    "resize": IntegerEmitter.resized_bytes,
}

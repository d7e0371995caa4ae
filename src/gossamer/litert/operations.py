"""Operations of a program as LiteRT operators: maps are (1, height, width, channels)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.lowering import FLOAT_MOST
from gossamer.compile.program import Array, FeatureMap, Operation
from gossamer.errors import InputError
from gossamer.litert.graph import Graph
from gossamer.litert.resizing import resized

SAME, VALID = 0, 1
FUSED = {"none": 0, "relu": 1, "relu6": 3}  # activations that an operator has as an option
NEVER_BELOW_ZERO = ("relu", "relu6", "sigmoid", "hard_sigmoid", "exp")
PLAIN = {"relu": "RELU", "relu6": "RELU6", "sigmoid": "LOGISTIC", "tanh": "TANH", "hard_swish": "HARD_SWISH"}
PLAIN |= {"exp": "EXP", "log": "LOG"}
LOWEST = np.float32(np.finfo(np.float32).min)


def refuse(what: str) -> InputError:
    """The error for an operation that LiteRT has no operators for."""
    do = "export to another format, or take that layer out of the network"
    return InputError(f"{what}, which LiteRT has no operator for", "other operations", do)


class Emitter:
    """Adds the operators of one operation to a graph."""

    def __init__(self, graph: Graph, values: Sequence[FeatureMap]) -> None:
        self.graph, self.values = graph, values
        self.not_negative: set[int] = set()  # tensors without a number below zero

    def emit(self, one: Operation, source: int, other: int) -> int:
        """The tensor of an operation's output; source, other: the tensors that it reads (other -1 where there is none)."""
        made = HANDLERS[one.kind](self, one, source, other)
        if one.act in NEVER_BELOW_ZERO or (one.act == "clip" and one.bound[0] >= 0):
            self.not_negative.add(made)
        return made

    def stored(self, tensor: int, _: FeatureMap) -> int:
        """A tensor as the map is stored."""
        return tensor

    def floats(self, tensor: int) -> int:
        """A tensor in float32."""
        return tensor

    def shape(self, value: int) -> tuple[int, ...]:
        """Of a value's tensor."""
        one = self.values[value]
        return (1, one.h, one.w, one.c)

    def number(self, value: float) -> int:
        """A constant of one number."""
        return self.graph.constant(np.array(value, np.float32))

    def channels(self, row: Array) -> int:
        """A constant of one number per channel."""
        return self.graph.constant(row.astype(np.float32).reshape(1, 1, 1, -1))

    def fused(self, act: str, bound: tuple[float, float]) -> int | None:
        """The number of an activation as an option, None where it needs operators of its own."""
        return 2 if act == "clip" and bound == (-1.0, 1.0) else FUSED.get(act)

    def ended(self, act: str, bound: tuple[float, float], make: Callable[[int], int]) -> int:
        """What `make` makes with an activation as its option, and the activation behind it where it is none."""
        option = self.fused(act, bound)
        return make(option) if option is not None else self.activate(make(0), act, bound)

    def activate(self, x: int, act: str, bound: tuple[float, float]) -> int:
        """An activation by operators of its own."""
        graph, shape = self.graph, self.graph.shapes[x]
        if act == "none":
            return x
        if act in PLAIN:
            return graph.add(PLAIN[act], [x], shape)
        if act == "hard_sigmoid":
            shifted = graph.add("ADD", [x, self.number(3)], shape, activation=FUSED["relu6"])
            return graph.add("MUL", [shifted, self.number(1 / 6)], shape, activation=0)
        if act == "silu":
            return graph.add("MUL", [x, graph.add("LOGISTIC", [x], shape)], shape, activation=0)
        if act == "leaky_relu" and bound[0] == -1:
            return graph.add("ABS", [x], shape)
        if act == "leaky_relu":
            slope = bound[0]
            return graph.add("LEAKY_RELU", [x], shape, alpha=slope) if slope else graph.add("RELU", [x], shape)
        if act == "reciprocal":
            return graph.add("DIV", [self.number(1), x], shape)
        if act == "clip":
            low, high = bound
            if (low, high) == (-1.0, 1.0):
                return graph.add("RELU_N1_TO_1", [x], shape)
            if low > -FLOAT_MOST:
                x = graph.add("MAXIMUM", [x, self.number(low)], shape)
            return graph.add("MINIMUM", [x, self.number(high)], shape) if high < FLOAT_MOST else x
        raise refuse(f"an activation {act}")

    # layers

    def weighted(self, one: Operation, dense: bool = False) -> tuple[int, int]:
        """The tensors of a layer's weight, as the operator has it, and of its bias. dense: as a row for each output."""
        weight, bias = _layer(one, 1 if one.kind == "block" else 0)
        return self.graph.constant(self.ordered(one, weight, dense)), self.graph.constant(bias.reshape(-1))

    def ordered(self, one: Operation, weight: NDArray[Any], dense: bool) -> NDArray[Any]:
        """A weight as its operator has it: (outputs, rows, columns, inputs), depthwise (1, rows, columns, outputs)."""
        value, out = self.values[one.input], self.values[one.out]
        if one.kind == "block":
            return weight.reshape(1, out.c, *one.kernel).transpose(0, 2, 3, 1)
        weight = weight.reshape(out.c, value.c // one.groups, *one.kernel).transpose(0, 2, 3, 1)
        return weight.reshape(out.c, -1) if dense else weight

    def convolution(self, one: Operation, source: int, other: int) -> int:
        value, layer = self.values[one.input], one.weights[0]
        if one.act == "hard_sigmoid" and other < 0 and layer and layer.type == "float32" and not one.rounding.sum[0]:
            # relu6(x + 3) / 6: the addition goes into the bias
            shifted: Array = (np.asarray(layer.bias, np.float64) + 3).astype(np.float32)
            gate = dataclasses.replace(one, act="relu6", weights=[dataclasses.replace(layer, bias=shifted)])
            made = self.convolution(gate, source, -1)
            return self.graph.add("MUL", [made, self.number(1 / 6)], self.shape(one.out), activation=0)
        # behind an addition, where there is one
        act, bound = (one.act, one.bound) if other < 0 else ("none", (0.0, 0.0))
        whole = one.kernel == (value.h, value.w) and one.groups == 1 and one.pads == (0, 0, 0, 0)
        shape, (weight, bias) = self.shape(one.out), self.weighted(one, whole)

        def dense(activation: int) -> int:
            flat = self.graph.reshape(source, (1, 1, 1, value.h * value.w * value.c))
            inputs = [flat, weight, bias]
            return self.graph.add("FULLY_CONNECTED", inputs, shape, 5, activation=activation, keep_num_dims=True)

        def convolved(activation: int) -> int:
            padded, padding = self.padded(one, source, 0.0)
            version = 6 if one.groups > 1 else 1
            inputs = [padded, weight, bias]
            return self.graph.add(
                "CONV_2D", inputs, shape, version, activation=activation, **window(one, padding), **dilation(one)
            )

        made = self.ended(act, bound, dense if whole else convolved)
        return made if other < 0 else self.sum(one, made, other)

    def depthwise(self, one: Operation, source: int, _: int) -> int:
        """A block before it is fused with others: the depthwise layer alone."""
        if one.weights[0] is not None or one.weights[2] is not None:
            raise refuse("a fused block")
        padded, padding = self.padded(one, source, 0.0)
        inputs = [padded, *self.weighted(one)]

        def make(activation: int) -> int:
            return self.graph.add(
                "DEPTHWISE_CONV_2D",
                inputs,
                self.shape(one.out),
                1 if one.dilation == 1 else 2,
                activation=activation,
                depth_multiplier=1,
                **window(one, padding),
                **dilation(one),
            )

        made = self.ended(one.acts[1], one.bounds[1], make)
        if one.acts[1] in NEVER_BELOW_ZERO:
            self.not_negative.add(made)
        return self.activate(made, one.act, one.bound)

    def padded(self, one: Operation, source: int, filling: float) -> tuple[int, int]:
        """The tensor with an operation's padding around it, and the padding scheme that is left: SAME or VALID."""
        value, out = self.values[one.input], self.values[one.out]
        pads, same = [], True
        for axis, (side, count) in enumerate(((value.h, out.h), (value.w, out.w))):
            reach = (one.kernel[axis] - 1) * one.dilation + 1
            before = one.pads[axis]
            # the last window ends so far behind the map; padding that no window reaches is left out
            behind = max(0, (count - 1) * one.stride[axis] + reach - side - before)
            total = max(0, (-(-side // one.stride[axis]) - 1) * one.stride[axis] + reach - side)
            same = (
                same and count == -(-side // one.stride[axis]) and (before, behind) == (total // 2, total - total // 2)
            )
            pads.append((before, behind))
        if not any(pads[0] + pads[1]):
            return source, VALID
        return (source, SAME) if same else (self.around(source, pads, filling), VALID)

    def around(self, source: int, pads: Sequence[tuple[int, int]], filling: float) -> int:
        """Rows and columns of one number before and behind a tensor."""
        graph, sides = self.graph, self.graph.shapes[source]
        shape = (1, sides[1] + sum(pads[0]), sides[2] + sum(pads[1]), sides[3])
        widths = graph.constant(np.array([(0, 0), *pads, (0, 0)], np.int32))
        if filling == 0:
            return graph.add("PAD", [source, widths], shape)
        return graph.add("PADV2", [source, widths, self.number(filling)], shape)

    # pools

    def max_pool(self, one: Operation, source: int, _: int) -> int:
        if one.dilation != 1:
            raise refuse(f"a max pool of dilation {one.dilation}")
        positive = source in self.not_negative
        padded, padding = self.padded(one, source, 0.0 if positive else float(LOWEST))
        steps = self.graph.steps.get(source)
        made = self.graph.add(
            "MAX_POOL_2D", [padded], self.shape(one.out), 1, steps, **window(one, padding), **_filter(one)
        )
        if positive:
            self.not_negative.add(made)
        return self.activate(made, one.act, one.bound)

    def average_pool(self, one: Operation, source: int, _: int) -> int:
        """LiteRT leaves padding out of the count with SAME; with padding of our own it counts, which a factor corrects."""
        if one.dilation != 1:
            raise refuse(f"an average pool of dilation {one.dilation}")
        padded, padding = self.padded(one, source, 0.0)
        if padding == SAME and one.count_padding:
            value, out = self.values[one.input], self.values[one.out]
            pads = [
                (one.pads[axis], max(0, (count - 1) * one.stride[axis] + one.kernel[axis] - side - one.pads[axis]))
                for axis, (side, count) in enumerate(((value.h, out.h), (value.w, out.w)))
            ]
            padded, padding = self.around(source, pads, 0.0), VALID
        made = self.graph.add("AVERAGE_POOL_2D", [padded], self.shape(one.out), **window(one, padding), **_filter(one))
        if padded != source and not one.count_padding:
            made = self.graph.add(
                "MUL", [made, self.graph.constant(self._shares(one))], self.shape(one.out), activation=0
            )
        return self.activate(made, one.act, one.bound)

    def _shares(self, one: Operation) -> Array:
        """(1, rows, columns, 1): the places of a window over those that lie in the map."""
        value, out = self.values[one.input], self.values[one.out]
        inside = []
        for axis, (side, count) in enumerate(((value.h, out.h), (value.w, out.w))):
            first = np.arange(count) * one.stride[axis] - one.pads[axis]
            inside.append(np.minimum(first + one.kernel[axis], side) - np.maximum(first, 0))
        places = np.maximum(inside[0][:, None] * inside[1][None, :], 1)
        shares: Array = (one.kernel[0] * one.kernel[1] / places).astype(np.float32)
        return shares.reshape(1, out.h, out.w, 1)

    def global_average(self, one: Operation, source: int, _: int) -> int:
        """Of each row, then of those: sums of fewer numbers each lose less than a single one of all."""
        value, graph = self.values[one.input], self.graph
        axes: tuple[int, ...] = (1, 2)
        if value.h > 1 and value.w > 1:
            source = graph.add("MEAN", [source, graph.row(2)], (1, value.h, 1, value.c), keep_dims=True)
            axes = (1,)
        made = graph.add("MEAN", [source, graph.row(*axes)], self.shape(one.out), keep_dims=True)
        return self.activate(made, one.act, one.bound)

    # sums, products, layout

    def sum(self, one: Operation, source: int, other: int) -> int:
        shape = self.shape(one.out)
        return self.ended(
            one.act, one.bound, lambda option: self.graph.add("ADD", [source, other], shape, activation=option)
        )

    def product(self, one: Operation, source: int, other: int) -> int:
        shape = self.shape(one.out)
        return self.ended(
            one.act, one.bound, lambda option: self.graph.add("MUL", [source, other], shape, activation=option)
        )

    def affine(self, one: Operation, source: int, _: int) -> int:
        shape = self.shape(one.out)
        factor, offset = (row.reshape(-1) for row in _layer(one, 0))
        made = source
        if (factor != 1).any():
            if not offset.any():
                factors = self.channels(factor)
                return self.ended(
                    one.act,
                    one.bound,
                    lambda option: self.graph.add("MUL", [source, factors], shape, activation=option),
                )
            made = self.graph.add("MUL", [source, self.channels(factor)], shape, activation=0)
        offsets = self.channels(offset)
        return self.ended(
            one.act, one.bound, lambda option: self.graph.add("ADD", [made, offsets], shape, activation=option)
        )

    def activation(self, one: Operation, source: int, _: int) -> int:
        return self.activate(source, one.act, one.bound)

    def shuffle(self, one: Operation, source: int, _: int) -> int:
        """Channels to the front, apart and in their new order, and to the back again.

        Two transpositions of long rows, which XNNPACK has kernels for, take less time than one of `groups` channels at a time.
        """
        value, graph, places = self.values[one.input], self.graph, self.values[one.input].h * self.values[one.input].w
        apart = graph.reshape(source, (places, one.groups, value.c // one.groups))
        rows = graph.reshape(graph.transpose(apart, (2, 1, 0)), (value.c, places))
        made = graph.reshape(graph.transpose(rows, (1, 0)), self.shape(one.out))
        return self.activate(made, one.act, one.bound)

    def resize(self, one: Operation, source: int, _: int) -> int:
        rows, columns = (places.reshape(-1, 2) for places in _layer(one, 0))
        made = resized(self.graph, source, rows, columns)
        return self.activate(made, one.act, one.bound)

    def softmax(self, one: Operation, source: int, _: int) -> int:
        value, shape = self.values[one.input], self.shape(one.out)
        runs = self.graph.reshape(source, (1, value.h, value.w * one.groups, value.c // one.groups))
        made = self.graph.reshape(self.graph.add("SOFTMAX", [runs], self.graph.shapes[runs], beta=1.0), shape)
        return self.activate(made, one.act, one.bound)

    def depth_to_space(self, one: Operation, source: int, _: int) -> int:
        value, out, (rows, columns) = self.values[one.input], self.values[one.out], one.stride
        run, graph = out.c // one.groups, self.graph
        whole = (1, value.h * rows, value.w * columns, out.c)
        if one.groups == 1 and rows == columns:
            steps = graph.steps.get(source)
            made = graph.add("DEPTH_TO_SPACE", [source], whole, 1, steps, block_size=rows) if rows > 1 else source
        else:
            apart = graph.reshape(source, (value.h, value.w, one.groups, rows, columns, run))
            made = graph.reshape(graph.transpose(apart, (0, 3, 1, 4, 2, 5)), whole)
        return self.activate(graph.cut(made, (0, 0, 0, 0), self.shape(one.out)), one.act, one.bound)


def _layer(one: Operation, place: int) -> tuple[Array, Array]:
    """A layer's weight and bias. Raises InputError where they are bytes."""
    layer = one.weights[place]
    if layer is None or layer.type != "float32":
        raise refuse(f"a layer of {'no' if layer is None else layer.type} weights")
    return np.asarray(layer.weight, np.float32), np.asarray(layer.bias, np.float32)


def window(one: Operation, padding: int) -> dict[str, Any]:
    return {"padding": padding, "stride_h": one.stride[0], "stride_w": one.stride[1]}


def dilation(one: Operation) -> dict[str, Any]:
    return {"dilation_h": one.dilation, "dilation_w": one.dilation}


def _filter(one: Operation) -> dict[str, Any]:
    return {"filter_height": one.kernel[0], "filter_width": one.kernel[1]}


HANDLERS: dict[str, Callable[[Emitter, Operation, int, int], int]] = {
    "conv": Emitter.convolution,
    "block": Emitter.depthwise,
    "max_pool": Emitter.max_pool,
    "average_pool": Emitter.average_pool,
    "global_average": Emitter.global_average,
    "add": Emitter.sum,
    "scale": Emitter.product,
    "multiply": Emitter.product,
    "affine": Emitter.affine,
    "activation": Emitter.activation,
    "copy": Emitter.activation,
    "shuffle": Emitter.shuffle,
    "resize": Emitter.resize,
    "softmax": Emitter.softmax,
    "depth_to_space": Emitter.depth_to_space,
}

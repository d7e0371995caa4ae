"""Operations of a program as ncnn layers: maps are (channels, height, width), one of a single place may be (channels,)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from gossamer.compile.lowering import FLOAT_MOST
from gossamer.compile.program import Array, FeatureMap, Operation
from gossamer.errors import InputError
from gossamer.ncnn.graph import Graph, Number, floats, tagged
from gossamer.ncnn.resizing import resized

ADD, MULTIPLY = 0, 2  # of BinaryOp
UNARY = {"exp": 7, "log": 8, "reciprocal": 15}  # of UnaryOp
ABS = 0
PLAIN = {"relu": "ReLU", "sigmoid": "Sigmoid", "tanh": "TanH", "silu": "Swish"}
SIXTH = 1 / 6
MOST_SUMMED = 64  # places of a map whose average is one sum: ncnn adds one after the other, in float32
BY_CHANNELS, CHANNELS_LAST = 0, 1  # orders of PixelShuffle: of torch, and of TensorFlow


def refuse(what: str, node: str) -> InputError:
    """The error for an operation that ncnn has no layer for; `node`: of the ONNX file."""
    do = "export to another format, or take that layer out of the network"
    where = f"node {node!r}: " if node else ""
    return InputError(f"{where}{what}, which ncnn has no layer for", "other operations", do)


def _ends(bound: tuple[float, float]) -> tuple[float, float]:
    """The bounds of a clip as ncnn's text can say them: a large number where there is none."""
    low, high = (min(max(float(end), -FLOAT_MOST), FLOAT_MOST) for end in bound)
    return low, high


class Emitter:
    """Adds the layers of one operation to a graph."""

    def __init__(self, graph: Graph, values: Sequence[FeatureMap]) -> None:
        self.graph, self.values = graph, values

    def emit(self, one: Operation, source: int, other: int) -> int:
        """The blob of an operation's output; source, other: the blobs that it reads (other -1 where there is none)."""
        for act, bound in ((one.act, one.bound), *zip(one.acts, one.bounds)):
            if act == "leaky_relu" and not math.isfinite(bound[0]):
                raise refuse(f"a leaky ReLU of the slope {bound[0]}", one.name)
        return HANDLERS[one.kind](self, one, source, other)

    def shape(self, value: int) -> tuple[int, int, int]:
        """Of a value's map."""
        one = self.values[value]
        return one.c, one.h, one.w

    def map(self, blob: int) -> int:
        """The blob as (channels, height, width)."""
        shape = self.graph.shapes[blob]
        return blob if len(shape) == 3 else self.graph.reshape(blob, (math.prod(shape), 1, 1))

    def flat(self, blob: int) -> int:
        """The blob as one row of numbers, channels first."""
        return self.graph.reshape(blob, (math.prod(self.graph.shapes[blob]),))

    def fused(self, act: str, bound: tuple[float, float]) -> dict[int, Number] | None:
        """The parameters of an activation that a layer has as an option, None where it needs a layer of its own."""
        if act == "none":
            return {}
        if act == "relu":
            return {9: 1}
        if act == "leaky_relu":
            return {9: 2, 10: [float(bound[0])]}
        if act == "relu6":
            return {9: 3, 10: [0.0, 6.0]}
        if act == "clip":
            return {9: 3, 10: [*_ends(bound)]}
        if act == "sigmoid":
            return {9: 4}
        return {9: 6, 10: [SIXTH, 0.5]} if act == "hard_swish" else None

    def ended(
        self, one: Operation, act: str, bound: tuple[float, float], make: Callable[[dict[int, Number]], int]
    ) -> int:
        """What `make` makes with an activation as its option, and the activation behind it where it is none."""
        option = self.fused(act, bound)
        return make(option) if option is not None else self.activate(one, make({}), act, bound)

    def activate(self, one: Operation, x: int, act: str, bound: tuple[float, float]) -> int:
        """An activation by a layer of its own."""
        graph, shape = self.graph, self.graph.shapes[x]
        if act == "none":
            return x
        if act in PLAIN:
            return graph.add(PLAIN[act], [x], shape)
        if act in UNARY:
            return graph.add("UnaryOp", [x], shape, {0: UNARY[act]})
        if act == "relu6":
            return graph.add("Clip", [x], shape, {0: 0.0, 1: 6.0})
        if act in ("hard_swish", "hard_sigmoid"):
            kind = "HardSwish" if act == "hard_swish" else "HardSigmoid"
            return graph.add(kind, [x], shape, {0: SIXTH, 1: 0.5})
        if act == "leaky_relu" and bound[0] == -1:
            return graph.add("UnaryOp", [x], shape, {0: ABS})
        if act == "leaky_relu":
            return graph.add("ReLU", [x], shape, {0: float(bound[0])} if bound[0] else {})
        if act == "clip":
            low, high = _ends(bound)
            return graph.add("Clip", [x], shape, {0: low, 1: high})
        raise refuse(f"an activation {act}", one.name)

    # layers

    def convolution(self, one: Operation, source: int, other: int) -> int:
        weight, bias = self.layer(one, 0)
        value, out = self.values[one.input], self.values[one.out]
        # behind an addition, where there is one
        act, bound = (one.act, one.bound) if other < 0 else ("none", (0.0, 0.0))
        whole = one.kernel == (value.h, value.w) and one.groups == 1 and one.pads == (0, 0, 0, 0)
        weights = [tagged(weight.reshape(-1)), floats(bias.reshape(-1))]

        def dense(option: dict[int, Number]) -> int:
            params: dict[int, Number] = {0: out.c, 1: 1, 2: weight.size}
            return self.graph.add("InnerProduct", [self.flat(source)], (out.c,), params | option, weights)

        def convolved(option: dict[int, Number]) -> int:
            params = self.window(one) | {5: 1, 6: weight.size} | ({7: one.groups} if one.groups > 1 else {})
            kind = "Convolution" if one.groups == 1 else "ConvolutionDepthWise"
            return self.graph.add(kind, [self.map(source)], self.shape(one.out), params | option, weights)

        made = self.ended(one, act, bound, dense if whole and out.h * out.w == 1 else convolved)
        return made if other < 0 else self.sum(one, made, other)

    def depthwise(self, one: Operation, source: int, _: int) -> int:
        """A block before it is fused with others: the depthwise layer alone."""
        if one.weights[0] is not None or one.weights[2] is not None:
            raise refuse("a fused block", one.name)
        (weight, bias), out = self.layer(one, 1), self.values[one.out]
        weights = [tagged(weight.reshape(-1)), floats(bias.reshape(-1))]
        params = self.window(one) | {5: 1, 6: weight.size, 7: out.c}
        if out.c == 1:  # a group of one channel is a plain convolution, which ncnn takes for one alone
            params.pop(7)
        kind = "Convolution" if out.c == 1 else "ConvolutionDepthWise"
        source = self.map(source)

        def make(option: dict[int, Number]) -> int:
            return self.graph.add(kind, [source], self.shape(one.out), params | option, weights)

        made = self.ended(one, one.acts[1], one.bounds[1], make)
        return self.activate(one, made, one.act, one.bound)

    def layer(self, one: Operation, place: int) -> tuple[Array, Array]:
        """A layer's weight and bias. Raises InputError where they are bytes."""
        layer = one.weights[place]
        if layer is None or layer.type != "float32":
            raise refuse(f"a layer of {'no' if layer is None else layer.type} weights", one.name)
        return np.asarray(layer.weight, np.float32), np.asarray(layer.bias, np.float32)

    def behind(self, one: Operation) -> tuple[int, int]:
        """Rows and columns of padding that windows reach behind the map."""
        value, out = self.values[one.input], self.values[one.out]
        reach = [(kernel - 1) * one.dilation + 1 for kernel in one.kernel]
        rows = max(0, (out.h - 1) * one.stride[0] + reach[0] - value.h - one.pads[0])
        return rows, max(0, (out.w - 1) * one.stride[1] + reach[1] - value.w - one.pads[1])

    def window(self, one: Operation) -> dict[int, Number]:
        """The parameters of a convolution's window."""
        (top, left), (bottom, right) = one.pads[:2], self.behind(one)
        (kh, kw), (sh, sw), d = one.kernel, one.stride, one.dilation
        sizes = {0: self.values[one.out].c, 1: kw, 11: kh, 2: d, 12: d, 3: sw, 13: sh}
        return {**sizes, 4: left, 15: right, 14: top, 16: bottom}

    # pools

    def pool(self, one: Operation, source: int, kind: int, count_padding: bool = False) -> int:
        (top, left), (bottom, right) = one.pads[:2], self.behind(one)
        (kh, kw), (sh, sw) = one.kernel, one.stride
        if one.dilation != 1:
            raise refuse(f"a pool of dilation {one.dilation}", one.name)
        params: dict[int, Number] = {0: kind, 1: kw, 11: kh, 2: sw, 12: sh, 3: left, 14: right, 13: top, 15: bottom}
        params |= {5: 1} | ({6: int(count_padding)} if kind else {})  # 5: exactly this padding
        return self.graph.add("Pooling", [self.map(source)], self.shape(one.out), params)

    def max_pool(self, one: Operation, source: int, _: int) -> int:
        return self.activate(one, self.pool(one, source, 0), one.act, one.bound)

    def average_pool(self, one: Operation, source: int, _: int) -> int:
        """ncnn counts all of its padding or none; windows behind the file's own padding are corrected by a factor."""
        made = self.pool(one, source, 1, one.count_padding)
        factors = self.shares(one) if one.count_padding else None
        if factors is not None:
            factors_map = np.broadcast_to(factors, self.shape(one.out))
            made = self.binary(MULTIPLY, made, self.graph.constant(factors_map.astype(np.float32)))
        return self.activate(one, made, one.act, one.bound)

    def shares(self, one: Operation) -> Array | None:
        """(1, rows, columns): the places of a window over those in the map and its padding; None where they are all 1."""
        value, out = self.values[one.input], self.values[one.out]
        inside = []
        for axis, (side, count) in enumerate(((value.h, out.h), (value.w, out.w))):
            first = np.arange(count) * one.stride[axis] - one.pads[axis]
            inside.append(np.minimum(first + one.kernel[axis], side + one.pads[axis + 2]) - first)
        places = np.maximum(inside[0][:, None] * inside[1][None, :], 1)
        if (places == one.kernel[0] * one.kernel[1]).all():
            return None
        shares: Array = (one.kernel[0] * one.kernel[1] / places).astype(np.float32)[None]
        return shares

    def global_average(self, one: Operation, source: int, _: int) -> int:
        """Of large maps that of each row, then of those: sums of fewer numbers each lose less than a single one of all."""
        value, source = self.values[one.input], self.map(source)
        if min(value.h, value.w) > 1 and value.h * value.w > MOST_SUMMED:
            rows: dict[int, Number] = {
                0: 1,
                1: value.w,
                11: 1,
                2: value.w,
                12: 1,
                3: 0,
                14: 0,
                13: 0,
                15: 0,
                5: 1,
                6: 0,
            }
            source = self.graph.add("Pooling", [source], (value.c, value.h, 1), rows)
        made = self.graph.add("Pooling", [source], self.shape(one.out)[:1], {0: 1, 4: 1})
        return self.activate(one, made, one.act, one.bound)

    # sums, products, layout

    def binary(self, kind: int, a: int, b: int) -> int:
        if self.graph.shapes[a] != self.graph.shapes[b]:
            a, b = self.map(a), self.map(b)
        return self.graph.add("BinaryOp", [a, b], self.graph.shapes[a], {0: kind})

    def sum(self, one: Operation, source: int, other: int) -> int:
        return self.activate(one, self.binary(ADD, source, other), one.act, one.bound)

    def product(self, one: Operation, source: int, other: int) -> int:
        return self.activate(one, self.binary(MULTIPLY, source, other), one.act, one.bound)

    def affine(self, one: Operation, source: int, _: int) -> int:
        factor, offset = self.layer(one, 0)
        weights = [floats(factor.reshape(-1)), floats(offset.reshape(-1))]
        made = self.graph.add("Scale", [self.map(source)], self.shape(one.out), {0: factor.size, 1: 1}, weights)
        return self.activate(one, made, one.act, one.bound)

    def activation(self, one: Operation, source: int, _: int) -> int:
        return self.activate(one, source, one.act, one.bound)

    def shuffle(self, one: Operation, source: int, _: int) -> int:
        made = self.graph.add("ShuffleChannel", [self.map(source)], self.shape(one.out), {0: one.groups})
        return self.activate(one, made, one.act, one.bound)

    def resize(self, one: Operation, source: int, _: int) -> int:
        rows, columns = (places.reshape(-1, 2) for places in self.layer(one, 0))
        return self.activate(one, resized(self.graph, self.map(source), rows, columns), one.act, one.bound)

    def softmax(self, one: Operation, source: int, _: int) -> int:
        graph, value = self.graph, self.values[one.input]
        if one.groups == 1:
            made = graph.add("Softmax", [source], graph.shapes[source], {0: 0, 1: 1})
        else:
            runs = graph.reshape(source, (one.groups, value.c // one.groups, value.h * value.w))
            made = graph.add("Softmax", [runs], graph.shapes[runs], {0: 1, 1: 1})
            made = graph.reshape(made, self.shape(one.out))
        return self.activate(one, made, one.act, one.bound)

    def depth_to_space(self, one: Operation, source: int, _: int) -> int:
        """Channels are groups x rows x columns x run, of which rows and columns become places."""
        value, out, (rows, columns) = self.values[one.input], self.values[one.out], one.stride
        graph, run, source = self.graph, out.c // one.groups, self.map(source)
        whole = (out.c, value.h * rows, value.w * columns)
        if rows == columns and 1 in (one.groups, run):
            order = CHANNELS_LAST if one.groups == 1 else BY_CHANNELS
            made = graph.add("PixelShuffle", [source], whole, {0: rows, 1: order}) if rows > 1 else source
        else:
            apart = graph.reshape(source, (one.groups, rows * columns, run, value.h * value.w))
            apart = graph.transpose(apart, (0, 2, 1, 3))
            apart = graph.reshape(apart, (out.c * rows, columns, value.h, value.w))
            apart = graph.transpose(apart, (0, 2, 3, 1))
            apart = graph.reshape(apart, (out.c, rows, value.h, value.w * columns))
            made = graph.reshape(graph.transpose(apart, (0, 2, 1, 3)), whole)
        return self.activate(one, graph.cut(made, (0, 0, 0), self.shape(one.out)), one.act, one.bound)


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

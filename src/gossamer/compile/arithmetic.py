"""Elementwise operators composed of the activations, sums and products that the engine has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gossamer.compile import layout, padding, reductions
from gossamer.compile.attributes import normalized_axes, text_attribute
from gossamer.compile.layout import Axes
from gossamer.compile.lowering import NO_BOUND, Lowering
from gossamer.compile.program import MOST_SIDE, MOST_STRIDE, FeatureMap, LayerWeights
from gossamer.compile.scaling import Row
from gossamer.compile.slices import cropped
from gossamer.modelfile.onnx import FLOAT, OnnxNode

MOST_POWER = 16
ERF_STEP, ERF = 0.3275911, (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
MOST_IN_A_ROW = 1000  # where float32 still has four places behind the point
FAR = 1e38  # whatever is over a number of usual size in float32 is so by at least one over this
MISH_ONE = 20.0  # from which on mish(x) is x in float32
STEEP = 1e6  # tanh of so many times a number is its sign, but within 1e-5 of 0
SMALLEST = float(np.finfo(np.float32).tiny)
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875  # of ONNX's definition


class ElementwiseOps:
    """Maps of one size, computed number by number; each method gives the number of a new value."""

    def __init__(self, low: Lowering) -> None:
        self.low = low

    def affine(self, source: int, factor: Row | float, offset: Row | float = 0.0, act: str = "none") -> int:
        """source * factor + offset, each one number or one per channel."""
        value = self.low.program.values[source]
        rows = [np.ascontiguousarray(np.broadcast_to(one, (value.c,)), np.float32) for one in (factor, offset)]
        out = FeatureMap(value.h, value.w, value.c)
        return self.low.emit("affine", source, out, act=act, weights=[LayerWeights(*rows)])

    def act(self, source: int, act: str, low: float = 0.0, high: float = 0.0) -> int:
        return self.low.activation(source, act, (low, high))

    def add(self, a: int, b: int) -> int:
        return self._pair("add", a, b)

    def times(self, a: int, b: int) -> int:
        return self._pair("multiply", a, b)

    def _pair(self, kind: str, a: int, b: int) -> int:
        value = self.low.program.values[a]
        return self.low.emit(kind, a, FeatureMap(value.h, value.w, value.c), other=b)

    def negative(self, source: int) -> int:
        return self.affine(source, -1)

    def magnitude(self, source: int) -> int:
        return self.act(source, "leaky_relu", -1)

    def square_root(self, source: int) -> int:
        """exp(log(x) / 2)."""
        return self.act(self.affine(self.act(source, "log"), 0.5), "exp")

    def elu(self, source: int, alpha: float, gamma: float = 1.0, of: float = 1.0) -> int:
        """gamma * (max(x, 0) + alpha * (exp(min(x, 0) / of) - 1))."""
        below = self.act(source, "clip", -NO_BOUND, 0)
        power = self.act(below if of == 1 else self.affine(below, 1 / of), "exp")
        above = self.act(source, "relu")
        above = above if gamma == 1 else self.affine(above, gamma)
        return self.add(self.affine(power, gamma * alpha, -gamma * alpha), above)

    def softplus(self, source: int) -> int:
        """log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)), which never overflows."""
        power = self.act(self.negative(self.magnitude(source)), "exp")
        return self.add(self.act(self.affine(power, 1, 1), "log"), self.act(source, "relu"))

    def erf(self, source: int) -> int:
        """By Abramowitz and Stegun 7.1.26, to 1.5e-7: 1 - p(t) exp(-x^2) for x from 0 up, with t = 1 / (1 + 0.3275911 x)."""
        t = self.act(self.affine(self.magnitude(source), ERF_STEP, 1), "reciprocal")
        sum_ = self.affine(t, ERF[0], ERF[1])
        for number in ERF[2:]:
            sum_ = self.affine(self.times(sum_, t), 1, number)
        below = self.act(self.negative(self.times(source, source)), "exp")
        half = self.affine(self.times(self.times(sum_, t), below), -1, 1)
        return self.times(half, self.act(self.affine(source, STEEP), "tanh"))  # times its sign

    def gelu(self, source: int, tanh: bool) -> int:
        """x / 2 * (1 + erf(x / sqrt(2))), or by its approximation with tanh."""
        if tanh:  # tanh(sqrt(2 / pi) * (x + 0.044715 x^3))
            inner = self.times(self.affine(self.times(source, source), 0.044715, 1), source)
            part = self.act(self.affine(inner, math.sqrt(2 / math.pi)), "tanh")
        else:
            part = self.erf(self.affine(source, math.sqrt(0.5)))
        return self.times(self.affine(part, 0.5, 0.5), source)

    def largest(self, maps: Sequence[int]) -> int:
        """The largest number of each place of some maps: a max pool over maps that are interleaved as rows."""
        values = self.low.program.values
        left = list(maps)
        while len(left) > 1:
            some, left = left[:MOST_STRIDE], left[MOST_STRIDE:]
            count, (h, w, c) = len(some), _sides(self.low, some[0])
            values.append(FeatureMap(h, w, c * count))
            joined = len(values) - 1
            for place, one in enumerate(some):
                part = values[self.low.emit("copy", one, FeatureMap(h, w, c))]
                part.parent, part.first = joined, place * c
            rows = self.low.emit("depth_to_space", joined, FeatureMap(h * count, w, c), stride=(count, 1))
            pooled = FeatureMap(h, w, c)
            left.append(self.low.emit("max_pool", rows, pooled, kernel=(count, 1), stride=(count, 1)))
        return left[0]

    def signed_logarithm(self, source: int) -> int:
        """log(|x|) of 0, of numbers above it and of both infinities; NaN of the others, as C's pow takes a fraction.

        The logarithm of 1 / x is NaN for these alone, as 1 / -infinity is -0. x + 0 makes -0 0.
        """
        over = self.act(self.affine(source, 1, 0, "reciprocal"), "log")
        return self.add(self.act(self.magnitude(source), "log"), self.act(over, "clip"))  # between 0 and 0

    def power(self, source: int, exponent: int) -> int:
        """By repeated squaring; exponent from 1 up."""
        result, square = -1, source
        while exponent:
            if exponent & 1:
                result = square if result < 0 else self.times(result, square)
            exponent >>= 1
            square = self.times(square, square) if exponent else square
        return result

    def log_softmax(self, source: int) -> int:
        """x - log(sum(exp(x))) over the channels.

        That logarithm is x - log(p) for each probability p; their mean, weighted by p, knows no small p. First x is taken less
        its own mean, which changes no difference: near 10,000 a float32 has but three places behind the point.
        """
        value = self.low.program.values[source]
        probability = self.low.emit("softmax", source, FeatureMap(value.h, value.w, value.c), groups=1)
        logarithm = self.act(self.act(probability, "clip", SMALLEST, 1), "log")
        near = self._less_mean(source, source, probability)
        return self._less_mean(near, self.add(self.negative(logarithm), near), probability)

    def _less_mean(self, source: int, of: int, probability: int) -> int:
        """A map less the mean of another over the channels, weighted by their probabilities."""
        value = self.low.program.values[source]
        layer = LayerWeights(np.full((1, value.c, 1, 1), -1, np.float32), np.zeros(1, np.float32))
        each = self.times(of, probability)
        total = self.low.emit("conv", each, FeatureMap(value.h, value.w, 1), weights=[layer])
        return self.add(reductions.to_channels(self.low, total, value.c), source)


def _mish(to: ElementwiseOps, source: int, _: OnnxNode) -> int:
    """x * tanh(log(1 + e)) with e = exp(x), which is x * n / (n + 2) with n = e * (e + 2): to its last bits where e is small."""
    power = to.act(to.act(source, "clip", -NO_BOUND, MISH_ONE), "exp")
    above = to.times(to.affine(power, 1, 2), power)
    return to.times(to.times(to.affine(above, 1, 2, "reciprocal"), above), source)


def _selu(to: ElementwiseOps, source: int, node: OnnxNode) -> int:
    at = node.attributes
    return to.elu(source, at.get("alpha", SELU_ALPHA), at.get("gamma", SELU_GAMMA))


def _celu(to: ElementwiseOps, source: int, node: OnnxNode) -> int:
    alpha = node.attributes.get("alpha", 1.0)
    if not alpha > 0:
        to.low.refuse(node, "its alpha is not over 0")
    return to.elu(source, alpha, of=alpha)


def _thresholded(to: ElementwiseOps, source: int, node: OnnxNode) -> int:
    """x above alpha, else 0: x, not below alpha, times 1 or 0."""
    alpha = node.attributes.get("alpha", 1.0)
    if not math.isfinite(alpha):
        to.low.refuse(node, f"its alpha is {alpha}")
    above = to.act(to.affine(to.affine(source, 1, -alpha), FAR), "clip", 0, 1)
    return to.times(above, to.act(source, "clip", alpha, NO_BOUND))


def _softsign(to: ElementwiseOps, source: int, _: OnnxNode) -> int:
    return to.times(to.act(to.affine(to.magnitude(source), 1, 1), "reciprocal"), source)


def _gelu(to: ElementwiseOps, source: int, node: OnnxNode) -> int:
    kind = text_attribute(node, "approximate", "none")
    if kind not in ("none", "tanh"):
        to.low.refuse(node, f"its approximate is {kind[:60]}")
    return to.gelu(source, kind == "tanh")


def _swish(to: ElementwiseOps, source: int, node: OnnxNode) -> int:
    alpha = node.attributes.get("alpha", 1.0)
    if not math.isfinite(alpha):
        to.low.refuse(node, f"its alpha is {alpha}")
    return to.times(to.act(to.affine(source, alpha), "sigmoid"), source)


UNARY: dict[str, Callable[[ElementwiseOps, int, OnnxNode], int]] = {
    "Celu": _celu,
    "Elu": lambda to, source, node: to.elu(source, node.attributes.get("alpha", 1.0)),
    "Erf": lambda to, source, node: to.erf(source),
    "Exp": lambda to, source, node: to.act(source, "exp"),
    "Gelu": _gelu,
    "Log": lambda to, source, node: to.act(source, "log"),
    "Mish": _mish,
    "Neg": lambda to, source, node: to.negative(source),
    "Reciprocal": lambda to, source, node: to.act(source, "reciprocal"),
    "Selu": _selu,
    "Softplus": lambda to, source, node: to.softplus(source),
    "Softsign": _softsign,
    "ThresholdedRelu": _thresholded,
    "Swish": _swish,
    "Sqrt": lambda to, source, node: to.square_root(source),
}


def unary(low: Lowering, node: OnnxNode) -> None:
    low.each(node, lambda source, _: UNARY[node.op](ElementwiseOps(low), source, node))


def absolute(low: Lowering, node: OnnxNode) -> None:
    """Abs: a leaky ReLU of slope -1."""
    low.activate(node, "leaky_relu", bound=(-1.0, 0.0))


def cast(low: Lowering, node: OnnxNode) -> None:
    """Cast of a map to float32, which it is."""
    if node.attributes.get("to") != FLOAT:
        low.refuse(node, f"its to is {node.attributes.get('to')}, a type other than float32 (1)")
    low.pass_on(node)


def cast_like(low: Lowering, node: OnnxNode) -> None:
    """CastLike of a map to the type of another input, float32, which it is."""
    other = low.onnx.tensors.get(node.inputs[1])
    is_float = other.dtype == np.float32 if other is not None else node.inputs[1] not in low.shapes
    if not is_float:
        low.refuse(node, "the type of its input 1 is not float32")
    low.pass_on(node)


def power(low: Lowering, node: OnnxNode) -> None:
    """Pow of a map with one constant number."""
    exponent = low.tensor(node, 1)
    if exponent is None or exponent.size != 1 or exponent.dtype.kind not in "fiu":
        low.refuse(node, "an exponent that is not one number")
    wanted, to = float(exponent.reshape(())), ElementwiseOps(low)

    def one(source: int, _: Axes) -> int:
        if wanted == 1:
            return low.emit("copy", source, FeatureMap(*_sides(low, source)))
        if not 0 < abs(wanted) <= MOST_POWER:
            low.refuse(node, f"an exponent of {wanted:g}, which is 0 or not within {MOST_POWER}")
        if wanted != int(wanted):  # NaN of a negative number, as log has it
            positive = padding.from_zero_up(low, source)
            logarithm = to.act(source, "log") if positive else to.signed_logarithm(source)
            return to.act(to.affine(logarithm, wanted), "exp")
        power = to.power(source, int(abs(wanted)))
        return power if wanted > 0 else to.act(power, "reciprocal")

    low.each(node, one)


def _sides(low: Lowering, source: int) -> tuple[int, int, int]:
    value = low.program.values[source]
    return value.h, value.w, value.c


def extreme(low: Lowering, node: OnnxNode) -> None:
    """Min and Max of maps, numbers, and rows of a number per channel."""
    least = node.op == "Min"
    constants = [low.onnx.tensors[name] for name in node.inputs if low.onnx.tensors.get(name) is not None]
    names = [name for name in node.inputs if low.onnx.tensors.get(name) is None]
    if not names:
        low.refuse(node, "constants alone")
    first, *others = names
    if not others and all(one is not None and one.dtype == np.float32 and one.size == 1 for one in constants):
        rank = max((one.ndim for one in constants if one is not None), default=0)
        if rank > (low.rank(first) or 0):
            low.refuse(node, "a number of more axes than the map")
        numbers = [float(one.reshape(())) for one in constants if one is not None]
        if np.isnan(numbers).any():
            low.refuse(node, "a constant that is not a number")
        bound = (min(numbers) if least else max(numbers)) if numbers else None
        one = OnnxNode(node.op, node.name, (first,), node.outputs, {})
        if bound is None:
            low.pass_on(one)
        elif least:
            low.activate(one, "clip", bound=(-NO_BOUND, bound))
        elif bound == 0:
            low.activate(one, "relu")
        else:
            low.activate(one, "clip", bound=(bound, NO_BOUND))
        return
    to, source, axes = ElementwiseOps(low), low.read(node, node.inputs.index(first)), low.axes_of(first)
    maps = [source]
    for name in others:
        other = low.read(node, node.inputs.index(name))
        if low.axes_of(name) != axes or _sides(low, other) != _sides(low, source):
            low.refuse(node, "maps of two sizes")
        maps.append(other)
    if len(maps) > 1:
        source = to.negative(to.largest([to.negative(one) for one in maps])) if least else to.largest(maps)
    for constant in constants:
        row: Any = (
            None if constant is None else layout.broadcast_channel_row(constant, axes, low.program.values[source])
        )
        if row is None or row.dtype != np.float32 or not np.isfinite(row).all():
            low.refuse(node, "a constant that is neither one number nor one per channel")
        if (row == row.flat[0]).all():
            bound = float(row.flat[0])
            source = to.act(source, "clip", *((-NO_BOUND, bound) if least else (bound, NO_BOUND)))
            continue
        if np.abs(row).max() > MOST_IN_A_ROW:
            low.refuse(node, f"numbers per channel beyond {MOST_IN_A_ROW}, from which a difference loses places")
        sign = -1 if least else 1
        source = to.affine(to.affine(source, sign, -sign * row, "relu"), sign, row)
    low.bind(node, source, axes)


def reciprocal(low: Lowering, name: str) -> str:
    """A name for one over a map."""
    source, result = low.names[name], f"{name}\0over one"  # as no name of a file is
    if result not in low.names:
        low.names[result] = ElementwiseOps(low).act(source, "reciprocal")
        low.axes[result] = low.axes_of(name)
        low.value_uses[low.names[result]] = MANY
    return result


def negated(low: Lowering, name: str) -> str:
    """A name for a map times -1."""
    source, result = low.names[name], f"{name}\0negated"
    if result not in low.names:
        low.names[result] = ElementwiseOps(low).negative(source)
        low.axes[result] = low.axes_of(name)
        low.value_uses[low.names[result]] = MANY
    return result


MANY = 2**20  # readers: nothing is to be fused into such a map, as others may read it


def log_softmax(low: Lowering, node: OnnxNode) -> None:
    """LogSoftmax over the channels of a map or a row."""
    source, axes = low.read(node), low.axes_of(node.inputs[0])
    value = low.program.values[source]
    last = 1 if low.onnx.opset < 13 else -1
    (place,) = normalized_axes(low, node, [node.attributes.get("axis", last)], len(axes) + 1)
    flat = low.onnx.opset < 13 and any(axes[place:])
    channels = layout.of_map(value)[0]
    if place == 0 or flat or layout.merged(axes[place - 1]) != channels:
        low.refuse(node, "its axis is other than the channels, or begins several before operator set 13")
    low.bind(node, ElementwiseOps(low).log_softmax(reductions.floats(low, source)), axes)


def expand(low: Lowering, node: OnnxNode) -> None:
    """Expand of a map to its own sides, or of one number per channel or per position to those of a map."""
    source, axes, sides = low.read(node), low.axes_of(node.inputs[0]), low.shape_of(node, 1)
    rank, fixed = len(axes) + 1, (low.onnx.input.shape or (None,))[0]
    if sides is None or len(sides) > rank:
        low.refuse(node, "a shape of more axes than its input")
    wanted = [1] * (rank - len(sides)) + [1 if side is None else side for side in sides]
    if wanted[0] not in (1, fixed):
        low.refuse(node, "the batch made larger")
    own = layout.sides_of(axes)
    target = [max(a, b) for a, b in zip(own, wanted[1:])]
    if any(min(a, b) != 1 and a != b for a, b in zip(own, wanted[1:])) or min(wanted) < 1:
        low.refuse(node, f"sides of {str(own)[:60]} as {str(sides)[:60]}")
    if max(target, default=1) > MOST_SIDE:
        low.refuse(node, f"a side of more than {MOST_SIDE}")
    if list(own) == target:
        low.alias(node, source)
        return
    value = low.program.values[source]
    if axes != layout.of_map(value)[: len(axes)] or (
        len(axes) not in (1, 3) or (len(axes) == 1 and value.h * value.w > 1)
    ):
        low.refuse(node, "its input has other axes than channels, height, width")
    c, h, w = (*target, 1, 1)[:3]
    if c > value.c:
        source = reductions.to_channels(low, source, c)
    if (h, w) != (value.h, value.w):
        rows = [0] * h if value.h == 1 else list(range(h))
        columns = [0] * w if value.w == 1 else list(range(w))
        source = cropped(low, source, rows, columns)
    low.bind(node, source, layout.of_map(low.program.values[source])[: len(axes)])

"""The shape that each operator makes of those that it reads; LiteRT goes by the stated ones in places, and by its own in others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest

Shape = tuple[int, ...]
Options = dict[str, int]
Integers = Callable[[int], Shape]  # the numbers of the constant at a place of the inputs, none where it is no short one
SAME_PADDING = 0
ALIKE = "ABS DEQUANTIZE EXP HARD_SWISH LEAKY_RELU LOG LOGISTIC QUANTIZE RELU RELU6 RELU_N1_TO_1 SOFTMAX TANH".split()
PAIRS = "ADD DIV MAXIMUM MINIMUM MUL".split()
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
LAYERS = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 4, "FULLY_CONNECTED": 2}  # axes of their weights


def made_shape(name: str, options: Options, read: Sequence[Shape], integers: Integers) -> Shape:
    """The shape of the output of an operator. Raises ValueError, and IndexError where it reads too few tensors."""
    first = read[0]
    if name in ALIKE:
        return first
    if name in PAIRS:
        return _broadcast(first, read[1])
    if name in LAYERS:
        return _layer(name, options, read)
    if name.endswith("POOL_2D"):
        _need(len(first) == 4)
        return (first[0], *_window(options, first, (options["filter_height"], options["filter_width"])), first[3])
    return OTHERS[name](options, read, integers)


def _need(right: bool) -> None:
    """Raises ValueError."""
    if not right:
        raise ValueError("operands that do not fit")


def _broadcast(a: Shape, b: Shape) -> Shape:
    sides = [*zip_longest(reversed(a), reversed(b), fillvalue=1)]
    _need(all(x == y or 1 in (x, y) for x, y in sides))
    return tuple(max(pair) for pair in reversed(sides))


def _window(options: Options, given: Shape, kernel: tuple[int, int]) -> Shape:
    """Rows and columns behind a window."""
    sides = []
    for side, taps, axis in zip(given[1:3], kernel, "hw"):
        stride, reach = options[f"stride_{axis}"], (taps - 1) * options.get(f"dilation_{axis}", 1) + 1
        if options["padding"] == SAME_PADDING:
            sides.append(-(-side // stride))
        else:
            _need(side >= reach)
            sides.append((side - reach) // stride + 1)
    return tuple(sides)


def _layer(name: str, options: Options, read: Sequence[Shape]) -> Shape:
    """Of a weight (outputs, rows, columns, inputs), depthwise (1, rows, columns, outputs), dense (outputs, inputs)."""
    given, weight, bias = read
    _need(len(given) == 4 and len(weight) == LAYERS[name])
    depthwise = name == "DEPTHWISE_CONV_2D"
    outputs, inputs = (weight[-1], weight[-1]) if depthwise else (weight[0], weight[-1])
    groups = given[3] // inputs
    _need(groups >= 1 and groups * inputs == given[3] and outputs % groups == 0 and bias == (outputs,))
    _need((groups == 1 or name == "CONV_2D") and (weight[0] == 1 or not depthwise))
    if name not in CONVOLUTIONS:
        return (*given[:3], outputs)
    return (given[0], *_window(options, given, (weight[1], weight[2])), outputs)


def _reshape(_: Options, read: Sequence[Shape], integers: Integers) -> Shape:
    shape = integers(1)
    _need(min(shape, default=0) >= 1 and math.prod(shape) == math.prod(read[0]))
    return shape


def _transpose(_: Options, read: Sequence[Shape], integers: Integers) -> Shape:
    order = integers(1)
    _need(sorted(order) == [*range(len(read[0]))])
    return tuple(read[0][axis] for axis in order)


def _slice(_: Options, read: Sequence[Shape], integers: Integers) -> Shape:
    first, sides = integers(1), integers(2)
    _need(len(first) == len(sides) == len(read[0]))
    _need(all(at >= 0 and side >= 1 and at + side <= most for at, side, most in zip(first, sides, read[0])))
    return sides


def _pad(_: Options, read: Sequence[Shape], integers: Integers) -> Shape:
    widths = integers(1)
    _need(len(widths) == 2 * len(read[0]) and min(widths, default=0) >= 0)
    return tuple(side + sum(widths[2 * axis : 2 * axis + 2]) for axis, side in enumerate(read[0]))


def _resize(_: Options, read: Sequence[Shape], integers: Integers) -> Shape:
    sides = integers(1)
    _need(len(read[0]) == 4 and len(sides) == 2)
    return (read[0][0], *sides, read[0][3])


def _mean(options: Options, read: Sequence[Shape], integers: Integers) -> Shape:
    axes = integers(1)
    _need(bool(axes) and options["keep_dims"] == 1 and all(0 <= axis < len(read[0]) for axis in axes))
    return tuple(1 if axis in axes else side for axis, side in enumerate(read[0]))


def _concatenation(options: Options, read: Sequence[Shape], _: Integers) -> Shape:
    shape, axis = [*read[0]], options["axis"]
    _need(0 <= axis < len(shape))
    _need(
        all(
            len(one) == len(shape) and (*one[:axis], *one[axis + 1 :]) == (*shape[:axis], *shape[axis + 1 :])
            for one in read
        )
    )
    shape[axis] = sum(one[axis] for one in read)
    return tuple(shape)


def _gather(options: Options, read: Sequence[Shape], _: Integers) -> Shape:
    shape, places, axis = read[0], read[1], options["axis"]
    _need(0 <= axis < len(shape) and len(places) == 1)
    return (*shape[:axis], *places, *shape[axis + 1 :])


def _depth_to_space(options: Options, read: Sequence[Shape], _: Integers) -> Shape:
    _need(len(read[0]) == 4)
    (batch, height, width, channels), times = read[0], options["block_size"]
    _need(channels % times**2 == 0)
    return batch, height * times, width * times, channels // times**2


OTHERS: dict[str, Callable[[Options, Sequence[Shape], Integers], Shape]] = {
    "CONCATENATION": _concatenation,
    "DEPTH_TO_SPACE": _depth_to_space,
    "GATHER": _gather,
    "MEAN": _mean,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "SLICE": _slice,
    "TRANSPOSE": _transpose,
}

"""What each layer of a .param file makes of the shapes that it reads; ncnn itself reads past a blob that is smaller than that.

Shapes are those of `graph.py`, and the layers and parameters those that `operations.py` and `resizing.py` write: any others are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gossamer.compile.program import MOST_NUMBERS
from gossamer.ncnn.graph import PERMUTE, Shape

Params = dict[int, int]  # those that are whole numbers
SIDES: tuple[Shape, ...] = ((0,), (1, 0), (2, 1, 0), (2, 11, 1, 0))  # the keys of a shape, the first side first
TURNED = {(len(order), number): order for order, number in PERMUTE.items()}
BILINEAR = 2  # of Interp


class LayerRule(NamedTuple):
    """make: the shape of an output. inputs: how many, -1 for two and more. whole, real: keys that may be set to such numbers."""

    make: Callable[[Params, Sequence[Shape]], Shape]
    inputs: int
    whole: tuple[int, ...] = ()
    real: tuple[int, ...] = ()


def made_shape(kind: str, params: Params, read: Sequence[Shape]) -> Shape:
    """The shape of each output of a layer. Raises ValueError, and KeyError for a parameter that is missing."""
    shape = LAYERS[kind].make(params, read)
    if min(shape) < 1 or math.prod(shape) > MOST_NUMBERS:
        raise ValueError(f"a layer {kind} that makes {shape} of {', '.join(map(str, read))[:80]}")
    return shape


def _need(right: bool) -> None:
    """Raises ValueError."""
    if not right:
        raise ValueError("parameters that do not fit what it reads")


def _sides(p: Params, _: Sequence[Shape]) -> Shape:
    keys = next((keys for keys in SIDES if set(keys) == set(p)), ())
    _need(bool(keys) and all(p[key] >= 1 for key in keys))
    return tuple(p[key] for key in keys)


def _reshape(p: Params, read: Sequence[Shape]) -> Shape:
    shape = _sides(p, read)
    _need(math.prod(shape) == math.prod(read[0]))
    return shape


def _same(_: Params, read: Sequence[Shape]) -> Shape:
    return read[0]


def _unary(p: Params, read: Sequence[Shape]) -> Shape:
    _need(0 <= p[0] < 16)
    return read[0]


def _softmax(p: Params, read: Sequence[Shape]) -> Shape:
    _need(0 <= p[0] < len(read[0]) and p[1] == 1)
    return read[0]


def _places(side: int, pads: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """How many places a window has along a padded side."""
    reach = (kernel - 1) * dilation + 1
    _need(min(kernel, stride, dilation) >= 1 and side + pads >= reach)
    return (side + pads - reach) // stride + 1


def _convolution(p: Params, read: Sequence[Shape]) -> Shape:
    (channels, height, width), outputs, groups = read[0], p[0], p.get(7, 1)
    pads = [p[key] for key in (14, 16, 4, 15)]
    _need(min(outputs, groups) >= 1 and min(pads) >= 0 and p[5] == 1 and not channels % groups and not outputs % groups)
    _need(p[6] == outputs * (channels // groups) * p[1] * p[11])
    _need(channels * (height + sum(pads[:2])) * (width + sum(pads[2:])) <= MOST_NUMBERS)
    rows = _places(height, sum(pads[:2]), p[11], p[13], p[12])
    return outputs, rows, _places(width, sum(pads[2:]), p[1], p[3], p[2])


def _dense(p: Params, read: Sequence[Shape]) -> Shape:
    _need(len(read[0]) == 1 and p[0] >= 1 and p[1] == 1 and p[2] == p[0] * read[0][0])
    return (p[0],)


def _scale(p: Params, read: Sequence[Shape]) -> Shape:
    _need(len(read[0]) == 3 and p[0] == read[0][0] and p[1] == 1)
    return read[0]


def _binary(p: Params, read: Sequence[Shape]) -> Shape:
    a, b = read
    _need(p[0] in (0, 2) and len(a) == len(b) and all(x == y or 1 in (x, y) for x, y in zip(a, b)))
    shape = tuple(map(max, a, b))
    _need(shape in (a, b))
    return shape


def _concat(p: Params, read: Sequence[Shape]) -> Shape:
    _need(p[0] == 0 and all(len(one) == len(read[0]) and one[1:] == read[0][1:] for one in read))
    return (sum(one[0] for one in read), *read[0][1:])


def _crop(p: Params, read: Sequence[Shape]) -> Shape:
    first, sides = (p[2], p[1], p[0]), (p[5], p[4], p[3])
    _need(len(read[0]) == 3 and min(first) >= 0 and min(sides) >= 1)
    _need(all(begin + side <= most for begin, side, most in zip(first, sides, read[0])))
    return sides


def _interp(p: Params, read: Sequence[Shape]) -> Shape:
    (channels, height, width), aligned = read[0], p[6]
    _need(p[0] in (1, BILINEAR) and aligned in (0, 1))
    _need(p[0] != BILINEAR or (min(height, width) > 1 and (not aligned or min(p[3], p[4]) > 1)))
    return channels, p[3], p[4]


def _matmul(_: Params, read: Sequence[Shape]) -> Shape:
    a, b = read
    _need((len(a), len(b)) in ((2, 3), (3, 2)) and a[-1] == b[-2])
    return (b[0], a[0], b[2]) if len(a) == 2 else (a[0], a[1], b[1])


def _permute(p: Params, read: Sequence[Shape]) -> Shape:
    order = TURNED.get((len(read[0]), p[0]), ())
    _need(bool(order))
    return tuple(read[0][axis] for axis in order)


def _pixel_shuffle(p: Params, read: Sequence[Shape]) -> Shape:
    (channels, height, width), times = read[0], p[0]
    _need(times >= 1 and channels % times**2 == 0 and p[1] in (0, 1))
    return channels // times**2, height * times, width * times


def _pooling(p: Params, read: Sequence[Shape]) -> Shape:
    channels, height, width = read[0]
    if 4 in p:
        _need(p == {0: 1, 4: 1})
        return (channels,)
    pads = [p[key] for key in (13, 15, 3, 14)]
    _need(p[0] in (0, 1) and min(pads) >= 0 and p[5] == 1 and p.get(6, 0) in (0, 1))
    _need(channels * (height + sum(pads[:2])) * (width + sum(pads[2:])) <= MOST_NUMBERS)
    return channels, _places(height, sum(pads[:2]), p[11], p[12]), _places(width, sum(pads[2:]), p[1], p[2])


def _shuffle(p: Params, read: Sequence[Shape]) -> Shape:
    _need(len(read[0]) == 3 and p[0] >= 1 and read[0][0] % p[0] == 0)
    return read[0]


_WINDOW = (0, 1, 11, 2, 12, 3, 13, 4, 15, 14, 16, 5, 6, 9)
LAYERS: dict[str, LayerRule] = {
    "Input": LayerRule(_sides, 0, (0, 1, 2, 11)),
    "MemoryData": LayerRule(_sides, 0, (0, 1, 2, 11)),
    "Convolution": LayerRule(_convolution, 1, _WINDOW, (10,)),
    "ConvolutionDepthWise": LayerRule(_convolution, 1, (*_WINDOW, 7), (10,)),
    "InnerProduct": LayerRule(_dense, 1, (0, 1, 2, 9), (10,)),
    "Scale": LayerRule(_scale, 1, (0, 1)),
    "BinaryOp": LayerRule(_binary, 2, (0,)),
    "Clip": LayerRule(_same, 1, (), (0, 1)),
    "Concat": LayerRule(_concat, -1, (0,)),
    "Crop": LayerRule(_crop, 1, (0, 1, 2, 3, 4, 5)),
    "HardSigmoid": LayerRule(_same, 1, (), (0, 1)),
    "HardSwish": LayerRule(_same, 1, (), (0, 1)),
    "Interp": LayerRule(_interp, 1, (0, 3, 4, 6)),
    "MatMul": LayerRule(_matmul, 2),
    "Noop": LayerRule(_same, 1),
    "Permute": LayerRule(_permute, 1, (0,)),
    "PixelShuffle": LayerRule(_pixel_shuffle, 1, (0, 1)),
    "Pooling": LayerRule(_pooling, 1, (0, 1, 11, 2, 12, 3, 14, 13, 15, 4, 5, 6)),
    "ReLU": LayerRule(_same, 1, (), (0,)),
    "Reshape": LayerRule(_reshape, 1, (0, 1, 2, 11)),
    "ShuffleChannel": LayerRule(_shuffle, 1, (0,)),
    "Sigmoid": LayerRule(_same, 1),
    "Slice": LayerRule(_same, 1),  # of several shapes, which layers.py finds
    "Softmax": LayerRule(_softmax, 1, (0, 1)),
    "Split": LayerRule(_same, 1),
    "Swish": LayerRule(_same, 1),
    "TanH": LayerRule(_same, 1),
    "UnaryOp": LayerRule(_unary, 1, (0,)),
}

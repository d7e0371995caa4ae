"""A check of a .param file before ncnn, which trusts its files, is given it."""

from __future__ import annotations

import math
from collections.abc import Callable

from gossamer.ncnn.graph import ARRAY, MAGIC

MOST_LAYERS, MOST_SIDE = 2**17, 2**28
FLOAT, TAG = 4, 4  # bytes of a number; in front of weights
Params = dict[int, float]


def _none(_: Params) -> int:
    return 0


def _weights(count: int, outputs: int) -> int:
    return TAG + FLOAT * (count + outputs)


# kinds of layers that gossamer writes -> the bytes of their weights
KINDS: dict[str, Callable[[Params], int]] = {
    "Input": _none,
    "MemoryData": lambda p: FLOAT * math.prod(int(p.get(key, 1)) or 1 for key in (0, 1, 2, 11)),
    "Convolution": lambda p: _weights(int(p[6]), int(p[0])),
    "ConvolutionDepthWise": lambda p: _weights(int(p[6]), int(p[0])),
    "InnerProduct": lambda p: _weights(int(p[2]), int(p[0])),
    "Scale": lambda p: 2 * FLOAT * int(p[0]),
} | dict.fromkeys(
    "BinaryOp Clip Concat Crop HardSigmoid HardSwish Interp MatMul Noop Permute PixelShuffle Pooling ReLU Reshape "
    "ShuffleChannel Sigmoid Softmax Split Swish TanH UnaryOp".split(),
    _none,
)


def check_layers(text: str, weights: int) -> set[str]:
    """The names of the blobs of a .param file. `weights`: the bytes of its .bin file.

    Raises ValueError with the line where a layer is none that gossamer writes, reads what is not there, or has other
    weights than there are.
    """
    lines = text.splitlines()
    if len(lines) < 3 or lines[0] != MAGIC:
        raise ValueError("no layers: it is cut off")
    counts = lines[1].split()
    if len(counts) != 2 or not all(one.isdigit() and len(one) < 9 for one in counts):
        raise ValueError(f"line 2: {lines[1][:60]!r}, not two numbers")
    layers, blobs = map(int, counts)
    if layers != len(lines) - 2 or layers > MOST_LAYERS:
        raise ValueError(f"{len(lines) - 2} layers of {layers}: it is cut off")
    known: set[str] = set()
    taken: set[str] = set()
    expected = 0
    for number, line in enumerate(lines[2:], 3):
        try:
            expected += _line(line.split(), known, taken)
        except (ValueError, KeyError, IndexError, OverflowError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
            raise ValueError(f"line {number}: {reason[:200]}") from error
    if blobs != len(known):
        raise ValueError(f"{len(known)} blobs of {blobs}")
    if expected != weights:
        raise ValueError(f"layers with {expected} bytes of weights, a .bin file of {weights}")
    return known


def _line(words: list[str], known: set[str], taken: set[str]) -> int:
    """One layer, whose outputs are then known and whose inputs are taken; the bytes of its weights."""
    kind, _, inputs, outputs = *words[:2], int(words[2]), int(words[3])
    if kind not in KINDS:
        raise ValueError(f"a layer {kind[:40]!r}, which gossamer does not write")
    if not 0 <= inputs <= len(words) or not 1 <= outputs <= len(words) or len(words) < 4 + inputs + outputs:
        raise ValueError("fewer blobs than it says")
    for name in words[4 : 4 + inputs]:
        if name not in known or name in taken:
            raise ValueError(f"a layer {kind} that reads {name[:80]!r}, which no layer before it makes for it")
        taken.add(name)
    made = words[4 + inputs : 4 + inputs + outputs]
    if known & set(made) or len(set(made)) < len(made):
        raise ValueError(f"a layer {kind} that makes {made[0][:80]!r} again")
    known.update(made)
    params: Params = {}
    for word in words[4 + inputs + outputs :]:
        key, _, value = word.partition("=")
        if int(key) <= ARRAY:
            length, *numbers = value.split(",")
            if int(length) != len(numbers) or not all(math.isfinite(float(one)) for one in numbers):
                raise ValueError(f"parameters {word[:60]!r}")
            continue
        params[int(key)] = float(value)
        if not 0 <= int(key) < 32 or not math.isfinite(params[int(key)]):
            raise ValueError(f"a parameter {word[:60]!r}")
        if "." not in value and not -MOST_SIDE <= int(value) <= MOST_SIDE:
            raise ValueError(f"a parameter {word[:60]!r}")
    size = KINDS[kind](params)
    if size < 0:
        raise ValueError(f"a layer {kind} with {size} bytes of weights")
    return size

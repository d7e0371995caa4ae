"""A check of a .param file before ncnn, which trusts its files, is given it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from gossamer.host.text import counted
from gossamer.ncnn.graph import ARRAY, MAGIC, Shape
from gossamer.ncnn.shapes import LAYERS, Params, made_shape

MOST_LAYERS, MOST_SIDE = 2**17, 2**28
MOST_LETTERS = 255  # of a word: ncnn would end a longer one there
FLOAT, TAG = 4, 4  # bytes of a number; in front of weights
TEXT = re.compile(r"[ -~\n]*")  # ncnn ends words at other places than Python where there are other characters
WHOLE, REAL = re.compile(r"-?[0-9]{1,9}"), re.compile(r"-?[0-9]\.[0-9]{9}e[+-][0-9]{2}")
ACTIVATION, ACTIVATION_PARAMS = 9, 10  # keys
ACTIVATIONS = {
    0: 0,
    1: 0,
    2: 1,
    3: 2,
    4: 0,
    6: 2,
}  # kinds of an activation that a layer has as an option -> its numbers


def _weights(count: int, outputs: int) -> int:
    return TAG + FLOAT * (count + outputs)


# kinds of layers that have weights -> their bytes; the last one's are as many as its shape says
WEIGHTS: dict[str, Callable[[Params], int]] = {
    "Convolution": lambda p: _weights(p[6], p[0]),
    "ConvolutionDepthWise": lambda p: _weights(p[6], p[0]),
    "InnerProduct": lambda p: _weights(p[2], p[0]),
    "Scale": lambda p: 2 * FLOAT * p[0],
    "MemoryData": lambda p: FLOAT * math.prod(p.values()),
}


def check_layers(text: str, weights: int) -> dict[str, Shape]:
    """The shapes of the blobs of a .param file, that of its one input first. `weights`: the bytes of its .bin file.

    Raises ValueError with the line where a layer is none that gossamer writes, reads what is not there or of another shape, or
    has other weights than there are.
    """
    lines = text.splitlines()
    if len(lines) < 3 or lines[0] != MAGIC:
        raise ValueError("no layers: it is cut off")
    if not TEXT.fullmatch(text):
        raise ValueError("characters that are no letters, digits or signs of ASCII")
    counts = lines[1].split()
    if len(counts) != 2 or not all(one.isdigit() and len(one) < 9 for one in counts):
        raise ValueError(f"line 2: {lines[1][:60]!r}, not two numbers")
    layers, blobs = map(int, counts)
    if layers != len(lines) - 2 or layers > MOST_LAYERS:
        raise ValueError(f"{counted(len(lines) - 2, 'layer')} of {layers}: it is cut off")
    known: dict[str, Shape] = {}
    taken: set[str] = set()
    expected = 0
    for number, line in enumerate(lines[2:], 3):
        try:
            if line.startswith("Input ") != (number == 3):
                raise ValueError("an input that is not the first layer, or another layer there")
            expected += _line(line.split(" "), known, taken)
        except (ValueError, KeyError, IndexError, OverflowError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
            raise ValueError(f"line {number}: {reason[:200]}") from error
    if blobs != len(known):
        raise ValueError(f"{len(known)} blobs of {blobs}")
    if expected != weights:
        raise ValueError(f"layers with {expected} bytes of weights, a .bin file of {weights}")
    return known


def _line(words: list[str], known: dict[str, Shape], taken: set[str]) -> int:
    """One layer, whose outputs are then known and whose inputs are taken; the bytes of its weights."""
    if not all(0 < len(word) <= MOST_LETTERS for word in words):
        raise ValueError("words that are empty or too long")
    kind, _, inputs, outputs = *words[:2], _whole(words[2]), _whole(words[3])
    if kind not in LAYERS:
        raise ValueError(f"a layer {kind[:40]!r}, which gossamer does not write")
    if not 0 <= inputs <= len(words) or not 1 <= outputs <= len(words) or len(words) < 4 + inputs + outputs:
        raise ValueError("fewer blobs than it says")
    rule = LAYERS[kind]
    if (inputs < 2 if rule.inputs < 0 else inputs != rule.inputs) or (outputs > 1 and kind not in ("Split", "Slice")):
        raise ValueError(f"a layer {kind} of {counted(inputs, 'input')} and {counted(outputs, 'output')}")
    read = words[4 : 4 + inputs]
    for name in read:
        if name not in known or name in taken:
            raise ValueError(f"a layer {kind} that reads {name[:80]!r}, which no layer before it makes for it")
        taken.add(name)
    made = words[4 + inputs : 4 + inputs + outputs]
    if known.keys() & set(made) or len(set(made)) < len(made):
        raise ValueError(f"a layer {kind} that makes {made[0][:80]!r} again")
    if kind == "Slice":
        known.update(zip(made, _parts(words[4 + inputs + outputs :], known[read[0]], len(made)), strict=True))
        return 0
    params = _params(words[4 + inputs + outputs :], rule.whole, rule.real)
    shape = made_shape(kind, params, [known[name] for name in read])
    known.update(dict.fromkeys(made, shape))
    return WEIGHTS[kind](params) if kind in WEIGHTS else 0


def _parts(words: list[str], source: Shape, count: int) -> list[Shape]:
    """The shapes of the parts of a Slice, which are all channels of the map that it reads."""
    key, _, value = words[0].partition("=")
    stated, *sizes = map(_whole, value.split(","))
    if key != str(ARRAY) or words[1:] != ["1=0"] or not stated == len(sizes) == count or min(sizes) < 1:
        raise ValueError(f"a Slice of the parameters {' '.join(words)[:60]!r}")
    if len(source) != 3 or sum(sizes) != source[0]:
        raise ValueError(f"a Slice of {sum(sizes)} channels from {source}")
    return [(size, *source[1:]) for size in sizes]


def _whole(word: str) -> int:
    if not WHOLE.fullmatch(word) or abs(int(word)) > MOST_SIDE:
        raise ValueError(f"{word[:60]!r}, not a whole number")
    return int(word)


def _params(words: list[str], whole: tuple[int, ...], real: tuple[int, ...]) -> Params:
    """The whole numbers among the parameters of a layer; the others are checked. whole, real: keys that it may have."""
    params: Params = {}
    numbers = 0  # of the activation
    for word in words:
        key, _, value = word.partition("=")
        place = _whole(key)
        if place == ARRAY - ACTIVATION_PARAMS and ACTIVATION_PARAMS in real:
            count, *rest = value.split(",")
            numbers = _whole(count)
            good = numbers == len(rest) and all(REAL.fullmatch(one) for one in rest)
        elif place in real and place != ACTIVATION_PARAMS:
            good = bool(REAL.fullmatch(value))
        else:
            good = place in whole and place not in params
            params[place] = _whole(value)
        if not good:
            raise ValueError(f"a parameter {word[:60]!r}")
    if numbers != ACTIVATIONS[params.get(ACTIVATION, 0)]:
        raise ValueError(f"an activation of {numbers} numbers")
    return params

"""A graph of ncnn layers as it is built up: blobs, layers, weights; and its two files.

Source: ncnn's wiki, "param and model file structure" and "operation param weight table".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MAGIC = "7767517"
ARRAY = -23300  # the key of a parameter that is an array is this minus its number
FP32 = b"\0\0\0\0"  # in front of weights that may be stored in fewer bits: these are float32
Shape = tuple[int, ...]
Number = int | float | Sequence[int | float]
# axes of (c, h, w) or (c, d, h, w) -> order_type of Permute
PERMUTE: dict[Shape, int] = {(1, 2, 0): 3, (0, 2, 3, 1): 3, (0, 2, 1, 3): 2}


@dataclass
class Layer:
    """A layer; its inputs and its output are numbers of blobs."""

    kind: str
    inputs: list[int]
    out: int
    params: dict[int, Number] = field(default_factory=dict)
    weights: list[bytes] = field(default_factory=list)


class Graph:
    """Blobs by number, each with its shape: (c, d, h, w), (c, h, w), (h, w) or (w,), without a batch."""

    def __init__(self) -> None:
        self.shapes: list[Shape] = []
        self.layers: list[Layer] = []
        self.names: dict[int, str] = {}
        self.known: dict[tuple[bytes, Shape], int] = {}

    def add(
        self,
        kind: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        params: dict[int, Number] | None = None,
        weights: Sequence[bytes] = (),
    ) -> int:
        """A layer that makes a blob of this shape; the blob's number."""
        self.shapes.append(tuple(shape))
        self.layers.append(Layer(kind, list(inputs), len(self.shapes) - 1, params or {}, list(weights)))
        return len(self.shapes) - 1

    def input(self, shape: Sequence[int]) -> int:
        """The blob of the input."""
        return self.add("Input", [], shape, _sides(shape, depth=11))

    def constant(self, values: NDArray[np.float32]) -> int:
        """A blob of numbers; the same numbers are in the file once."""
        data = floats(values)
        key = (data, values.shape)
        if key not in self.known:
            self.known[key] = self.add("MemoryData", [], values.shape, _sides(values.shape, depth=11), [data])
        return self.known[key]

    def reshape(self, source: int, shape: Sequence[int]) -> int:
        """The same numbers under another shape."""
        if self.shapes[source] == tuple(shape):
            return source
        return self.add("Reshape", [source], shape, _sides(shape, depth=11))

    def transpose(self, source: int, order: tuple[int, ...]) -> int:
        """Axis `order[i]` becomes axis i; one of the orders of PERMUTE."""
        shape = [self.shapes[source][axis] for axis in order]
        return self.add("Permute", [source], shape, {0: PERMUTE[order]})

    def cut(self, source: int, first: Sequence[int], sides: Sequence[int]) -> int:
        """The part of a (c, h, w) that begins at `first` and has these sides."""
        if self.shapes[source] == tuple(sides):
            return source
        channel, row, column = first
        params: dict[int, Number] = {0: column, 1: row, 2: channel, 3: sides[2], 4: sides[1], 5: sides[0]}
        return self.add("Crop", [source], sides, params)

    def concatenate(self, parts: Sequence[int]) -> int:
        """Blobs behind each other along the first axis."""
        if len(parts) == 1:
            return parts[0]
        shape = (sum(self.shapes[part][0] for part in parts), *self.shapes[parts[0]][1:])
        return self.add("Concat", parts, shape, {0: 0})

    def name(self, blob: int, name: str) -> None:
        """Give a blob its name."""
        self.names[blob] = name

    def encoded(self, outputs: Sequence[int]) -> tuple[str, bytes]:
        """The text of the .param file and the bytes of the .bin file.

        A blob has one reader in ncnn: behind one that several read comes a Split, or a Slice where they part its channels.
        """
        uses: dict[int, int] = {}
        for blob in (*(one for layer in self.layers for one in layer.inputs), *outputs):
            uses[blob] = uses.get(blob, 0) + 1
        taken: dict[int, int] = {}

        def written(blob: int) -> str:
            return self.names.get(blob, f"b{blob}")

        def read(blob: int) -> str:
            if uses[blob] == 1:
                return written(blob)
            taken[blob] = taken.get(blob, 0) + 1
            return f"b{blob}_{taken[blob]}"

        lines: list[str] = []
        blobs, sliced = 0, self._sliced(outputs)
        inside = {part.out for parts in sliced.values() for part in parts}

        def split(blob: int, name: str) -> int:
            """The Split behind a blob, where there is one; the blobs so far."""
            count = uses.get(blob, 0)
            if count > 1 and blob not in sliced:
                copies = [f"b{blob}_{number + 1}" for number in range(count)]
                lines.append(" ".join(["Split", name, "1", str(count), written(blob), *copies]))
            return 1 + (count if count > 1 and blob not in sliced else 0)

        for place, layer in enumerate(self.layers):
            if layer.out in inside:
                continue
            inputs = [read(blob) for blob in layer.inputs]
            params = [_param(key, value) for key, value in layer.params.items()]
            counts = [str(len(inputs)), "1"]
            lines.append(" ".join([layer.kind, f"l{place}", *counts, *inputs, written(layer.out), *params]))
            blobs += split(layer.out, f"s{place}")
            if parts := sliced.get(layer.out, []):
                names = [written(part.out) for part in parts]
                params = [_param(0, [self.shapes[part.out][0] for part in parts]), _param(1, 0)]
                lines.append(
                    " ".join(["Slice", f"s{place}", "1", str(len(parts)), written(layer.out), *names, *params])
                )
                blobs += sum(split(part.out, f"s{place}_{number}") for number, part in enumerate(parts))
        text = "\n".join([MAGIC, f"{len(lines)} {blobs}", *lines, ""])
        return text, b"".join(part for layer in self.layers for part in layer.weights)

    def _sliced(self, outputs: Sequence[int]) -> dict[int, list[Layer]]:
        """Blobs that are read by Crops alone which part all of their channels, with these in order: a Slice does it at once."""
        readers: dict[int, list[Layer]] = {}
        for layer in self.layers:
            for blob in layer.inputs:
                readers.setdefault(blob, []).append(layer)
        found = {}
        for blob, layers in readers.items():
            if len(layers) < 2 or blob in outputs or any(layer.kind != "Crop" for layer in layers):
                continue
            shape, parts = self.shapes[blob], sorted(layers, key=lambda layer: (layer.params[2], layer.out))
            sizes = [self.shapes[part.out] for part in parts]
            firsts = [sum(one[0] for one in sizes[:place]) for place in range(len(sizes) + 1)]
            if [*(part.params[2] for part in parts), shape[0]] == firsts and all(one[1:] == shape[1:] for one in sizes):
                found[blob] = parts
        return found


def floats(values: NDArray[np.float32]) -> bytes:
    """Numbers as the .bin file has them."""
    return np.ascontiguousarray(values, "<f4").tobytes()


def tagged(values: NDArray[np.float32]) -> bytes:
    """Weights that might be stored in fewer bits, as float32."""
    return FP32 + floats(values)


def _sides(shape: Sequence[int], depth: int) -> dict[int, Number]:
    """Parameters of a shape; `depth`: the key of d."""
    keys = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, depth, 1, 0)}[len(shape)]
    return dict(sorted(zip(keys, shape, strict=True)))


def _param(key: int, value: Number) -> str:
    if isinstance(value, Sequence):
        return f"{ARRAY - key}={len(value)},{','.join(map(_number, value))}"
    return f"{key}={_number(value)}"


def _number(value: int | float) -> str:
    """A whole number, or a float32 of all its digits, which the point distinguishes."""
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        raise ValueError(value)
    return f"{np.float32(value):.9e}"

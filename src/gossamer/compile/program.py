"""A compiled network before it is written: values, operations and their weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Weight = NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.int8]  # uint16: the upper half of a float32, bfloat16
QDQ_OPS = ("QuantizeLinear", "DequantizeLinear")  # operators that say what bytes stand for
MOST_SIDE, MOST_NUMBERS = 2**16, 2**28  # of a map
MOST_KERNEL, MOST_TAPS, MOST_STRIDE, MOST_DILATION, MOST_PAD = 64, 128, 16, 64, 64  # of an operation
MOST_AXES, MOST_OUTPUTS, LONGEST_NAME = 4, 64, 63  # of an output, behind its batch; of a network; in bytes


@dataclass
class FeatureMap:
    """A map of height x width positions; `first` is its first channel within its parent, where it has one.

    type: float32, bfloat16 or uint8, and then a number is (byte - zero) * scale.
    """

    h: int
    w: int
    c: int
    parent: int = -1
    first: int = 0
    type: str = "float32"
    scale: float = 1.0
    zero: int = 0

    def like(self, h: int, w: int, c: int) -> FeatureMap:
        """A value of other sides and the same type and scale."""
        return FeatureMap(h, w, c, type=self.type, scale=self.scale, zero=self.zero)

    def fits(self) -> bool:
        """Whether the engine takes a map of such sides."""
        sides = all(1 <= side <= MOST_SIDE for side in (self.h, self.w, self.c))
        return sides and self.h * self.w * (self.c + 15) <= MOST_NUMBERS


@dataclass
class LayerWeights:
    """Weight and bias of one layer; scale: of an int8 weight, a number a row."""

    weight: Weight
    bias: Array
    scale: Array | None = None

    @property
    def type(self) -> str:
        """float32, bfloat16 or uint8: of the maps that the weights meet."""
        return {"float32": "float32", "uint16": "bfloat16", "int8": "uint8"}[self.weight.dtype.name]


@dataclass(frozen=True)
class Rounding:
    """What is rounded within a layer, as (scale, zero) of uint8; a scale of 0: nothing.

    sum: the layer's sum, before another map is added and before the activation. gate: the sigmoid or hard-sigmoid within a
    SiLU or hard-swish.
    """

    sum: tuple[float, int] = (0.0, 0)
    gate: tuple[float, int] = (0.0, 0)


@dataclass
class Operation:
    """One operation; see the native file's table for what each kind reads.

    name: of the ONNX node that it was made for. bound, bounds: of clips (the first number is a leaky ReLU's slope). expanded, middle: (scale, zero) of a block's expanded
    map and of its depthwise output where they are uint8; a scale of 0 for an expanded map of floats.
    """

    kind: str
    input: int
    out: int
    other: int = -1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilation: int = 1
    groups: int = 1
    mid: int = 0
    act: str = "none"
    acts: tuple[str, str] = ("none", "none")  # of a block's expansion and depthwise layer
    count_padding: bool = False
    weights: list[LayerWeights | None] = field(default_factory=list)
    bound: tuple[float, float] = (0.0, 0.0)  # of the operation's own clip
    bounds: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))  # of a block's first two layers
    middle: tuple[float, int] = (1.0, 0)
    expanded: tuple[float, int] = (0.0, 0)
    rounding: Rounding = Rounding()
    roundings: tuple[Rounding, Rounding] = (Rounding(), Rounding())  # of a block's first two layers
    name: str = ""

    def fits(self) -> bool:
        """Whether the engine takes such a window."""
        (kh, kw), taps = self.kernel, MOST_TAPS if self.kind == "conv" else MOST_KERNEL**2
        window = min(kh, kw) >= 1 and max(kh, kw) <= MOST_KERNEL and kh * kw <= taps
        moved = min(self.stride) >= 1 and max(self.stride) <= MOST_STRIDE and 1 <= self.dilation <= MOST_DILATION
        return window and moved and min(self.pads) >= 0 and max(self.pads) <= MOST_PAD


@dataclass(frozen=True)
class ProgramInput:
    """One of several inputs of the network: its ONNX name, its shape behind the batch, and the value that its numbers fill in their order."""

    name: str
    shape: tuple[int, ...]
    value: int


@dataclass
class ProgramOutput:
    """An output of the network: its ONNX name, its shape behind the batch, and the maps whose concatenation fills it.

    pieces: (value, whether its channels are the last axis) each.
    """

    name: str
    shape: tuple[int, ...]
    pieces: list[tuple[int, bool]]


@dataclass
class Program:
    """Values, operations in order, which value is the network's input, and its outputs.

    shape: of the input behind its batch, where it is not channels, height, width of that value: then its numbers are the
    value's, channels first, in this order. inputs: of a network of several, all of them; `input` and `shape` are the first's.
    """

    values: list[FeatureMap]
    operations: list[Operation]
    input: int
    outputs: list[ProgramOutput]
    shape: tuple[int, ...] | None = None
    inputs: tuple[ProgramInput, ...] = ()

    def input_values(self) -> set[int]:
        """The values that inputs fill."""
        return {self.input, *(one.value for one in self.inputs)}

    def in_bytes(self) -> bool:
        """Whether a map is bytes, or is rounded to bytes within an operation (QDQ)."""
        rounded = any(
            one.rounding != Rounding() or one.roundings != (Rounding(), Rounding()) for one in self.operations
        )
        return rounded or any(value.type == "uint8" for value in self.values)

    def output_values(self) -> set[int]:
        """The values that are pieces of outputs."""
        return {value for output in self.outputs for value, _ in output.pieces}

    def root(self, value: int) -> int:
        """The map that a value is a slice of: its parent, or itself."""
        parent = self.values[value].parent
        return value if parent < 0 else parent

    def readers(self) -> dict[int, list[int]]:
        """For each value the operations that read it."""
        readers: dict[int, list[int]] = {}
        for index, operation in enumerate(self.operations):
            for value in (operation.input, operation.other):
                if value >= 0:
                    readers.setdefault(value, []).append(index)
        return readers


@dataclass
class Quantised:
    """A constant in int8: what it stands for is data * scale, scale being one number or one a place of `axis`."""

    data: NDArray[np.int8]
    scale: Array
    axis: int

    def rows(self, axis: int) -> Array | None:
        """A scale for each place of an axis, or None where the scales belong to another axis."""
        count = self.data.shape[axis]
        if self.scale.size == 1:
            return np.full(count, self.scale.reshape(()), np.float32)
        return self.scale.astype(np.float32) if self.axis % self.data.ndim == axis % self.data.ndim else None

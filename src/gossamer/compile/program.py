"""A compiled network before it is written: values, operations and their weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# the numbers are those of FORMAT.md, "The native file"
KINDS = {
    name: number
    for number, name in enumerate(
        (
            "conv",
            "block",
            "max_pool",
            "average_pool",
            "global_average",
            "add",
            "scale",
            "affine",
            "activation",
            "copy",
            "shuffle",
        )
    )
}
ACTS = {
    name: number
    for number, name in enumerate(("none", "relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "silu", "tanh"))
}


@dataclass
class Value:
    """A map of height x width positions; `first` is its first channel within its parent, where it has one."""

    h: int
    w: int
    c: int
    parent: int = -1
    first: int = 0


@dataclass
class Operation:
    """One operation; see the native file's table for what each kind reads. weights: (weight, bias) of its layers."""

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
    weights: list[tuple[Array, Array] | None] = field(default_factory=list)


@dataclass
class Program:
    """Values, operations in order, and which values are the network's input and output."""

    values: list[Value]
    operations: list[Operation]
    input: int
    output: int

    def readers(self) -> dict[int, list[int]]:
        """For each value the operations that read it."""
        found: dict[int, list[int]] = {}
        for index, one in enumerate(self.operations):
            for value in (one.input, one.other):
                if value >= 0:
                    found.setdefault(value, []).append(index)
        return found

"""A network as steps over maps in one arena: what the C source is written from, in float32 or in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from gossamer.compile.program import Operation, Program
from gossamer.errors import InputError

FLOAT, BYTES = "float32", "int8"
# the output may take the place of an input of the same numbers: each number is read before it is written
IN_PLACE = ("copy", "add", "multiply", "affine", "softmax", "pairs", "conv", "pointwise")
MOST_NUMBERS = 2**31 - 1


@dataclass
class Buffer:
    """Numbers that live from step `first` to step `last`; `at`: where in the arena, in numbers."""

    count: int
    first: int = -1
    last: int = -1
    at: int = 0


@dataclass(frozen=True)
class View:
    """A map of h x w positions of c channels within a buffer, `ld` numbers from one position to the next."""

    buffer: int
    first: int
    h: int
    w: int
    c: int
    ld: int

    def flat(self) -> View:
        """All positions in one row."""
        return replace(self, h=1, w=self.h * self.w)


@dataclass
class Pair:
    """Two bytes to one: their product, or the sum of each times its own number, in steps of 2**-(32 + shift).

    odd: rows of two bytes and the byte that float32 arithmetic makes of them, where that is another.
    """

    product: bool
    zero_a: int
    zero_b: int
    a: int
    b: int
    shift: int
    zero: int
    low: int
    high: int
    odd: NDArray[Any]


@dataclass
class Step:
    """One call of a kernel. kind: its function. name: of the ONNX node. The others are the fields of its record in C."""

    kind: str
    input: View
    out: View
    other: View | None = None
    name: str = ""
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: int = 1
    groups: int = 1
    count_padding: bool = False
    act: str = "none"
    bound: tuple[float, float] = (0.0, 0.0)
    weight: NDArray[Any] | None = None
    bias: NDArray[Any] | None = None
    scale: NDArray[Any] | None = None  # of bytes: float32
    table: NDArray[Any] | None = None  # of bytes: 256 bytes
    pair: Pair | None = None
    zeros: tuple[int, int] = (0, 0)  # of bytes: of the input, and of what the sum is rounded to
    range: tuple[int, int] = (0, 255)  # that it is bounded to
    sides: tuple[int, int] = (0, 0)  # of the output, where it is computed as one row
    words: int = 0  # of bytes: float32 into an output, 1 channels last, 2 first

    def text(self) -> str:
        """For people: conv 3x3, 8 to 16 channels, 48 x 48."""
        kernel = (
            f" {self.kernel[0]}x{self.kernel[1]}"
            if self.kind in ("conv", "depthwise", "max_pool", "average_pool")
            else ""
        )
        channels = f"{self.input.c} to {self.out.c}" if self.input.c != self.out.c else f"{self.out.c}"
        channels += " channel" if channels == "1" else " channels"
        name = f"{self.name[:60]}: " if self.name else ""
        return f"{name}{self.kind.replace('_', ' ')}{kernel}, {channels}"

    def constants(self) -> list[NDArray[Any]]:
        """Its arrays."""
        every = (self.weight, self.bias, self.scale, self.table, None if self.pair is None else self.pair.odd)
        return [one for one in every if one is not None and one.size]


@dataclass(frozen=True)
class Output:
    """An output of the network: its ONNX name, its shape behind the batch, and where among all output numbers it begins."""

    name: str
    shape: tuple[int, ...]
    first: int
    count: int


@dataclass
class Network:
    """type: of its numbers, FLOAT or BYTES. input: the map that the caller fills. scale, zero: of its bytes.

    output: the buffer of all outputs, of BYTES in an array of its own. shape: of the input, where it is no image.
    """

    type: str
    program: Program
    buffers: list[Buffer] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    input: View = View(0, 0, 1, 1, 1, 1)
    output: int = -1
    scale: float = 1.0
    zero: int = 0
    roots: dict[int, int] = field(default_factory=dict)  # value -> buffer

    @property
    def output_count(self) -> int:
        """Numbers of all outputs."""
        return sum(one.count for one in self.outputs)

    def new(self, count: int) -> int:
        """A new buffer's number. Raises InputError."""
        if count > MOST_NUMBERS:
            raise InputError(f"a map of {count} numbers", f"{MOST_NUMBERS} at most", "take a smaller input")
        self.buffers.append(Buffer(count))
        return len(self.buffers) - 1

    def view(self, value: int) -> View:
        """The place of a value of the program."""
        one, root = self.program.values[value], self.program.root(value)
        whole = self.program.values[root]
        if root not in self.roots:
            self.roots[root] = self.new(whole.h * whole.w * whole.c)
        return View(self.roots[root], one.first if one.parent >= 0 else 0, one.h, one.w, one.c, whole.c)

    def add_input(self) -> None:
        """The input's view, and the step that brings its channels to the back where they are in front."""
        view = self.view(self.program.input)
        self.input = view
        if self.program.shape is not None and view.c > 1 and view.h * view.w > 1:
            self.input = replace(view, buffer=self.new(view.h * view.w * view.c))
            self.steps.append(Step("first", self.input, view, name="input"))

    def whole(self, view: View) -> bool:
        """Whether a view is all of its buffer."""
        return view.first == 0 and view.ld == view.c and view.h * view.w * view.c == self.buffers[view.buffer].count


def sum_inputs(one: Operation) -> bool:
    """Whether an operation reads a second map."""
    return one.other >= 0


def refuse(what: str, name: str) -> InputError:
    """The error for an operation that the C source has no kernel for."""
    where = f"layer {name[:100]!r}: " if name else ""
    return InputError(
        f"{where}{what}",
        "operations that C source has kernels for (docs/devices.md)",
        "take that layer out of the network",
    )


def written(network: Network) -> Network:
    """The network with the lives of its buffers, those that can be in one place put together, and all placed.

    The first step at which a buffer lives is that which writes it, 0 for the input's; outputs live to the end. Raises
    InputError.
    """
    buffers, steps = network.buffers, network.steps
    for number, step in enumerate(steps):
        if step.kind in ("max_pool", "average_pool") and reads_padding_alone(step):
            raise refuse("a pool with a window on padding alone", step.name)
        for view in (step.input, step.other, step.out):
            if view is None or (view is step.out and step.words):
                continue
            one = buffers[view.buffer]
            one.first = number if one.first < 0 else one.first
            one.last = number
    buffers[network.input.buffer].first = 0
    if network.output >= 0:
        buffers[network.output].last = len(steps)
    place = list(range(len(buffers)))  # buffer -> the one whose place it takes
    for number, step in enumerate(steps):
        if step.kind not in IN_PLACE or step.words or not network.whole(step.out):
            continue
        candidates = (step.other,) if step.kind in ("conv", "pointwise") else (step.input, step.other)
        for view in candidates:
            if view is None or not network.whole(view) or view.buffer == step.out.buffer:
                continue
            if step.kind in ("conv", "pointwise") and place[view.buffer] == place[step.input.buffer]:
                continue
            old, new = buffers[place[view.buffer]], buffers[step.out.buffer]
            if old.last == number and new.first == number and old.count == new.count:
                place[step.out.buffer] = place[view.buffer]
                old.last = new.last
                break
    used = [number for number in range(len(buffers)) if place[number] == number and buffers[number].first >= 0]
    lay_out([buffers[number] for number in used], 4)
    if max((buffers[number].at + buffers[number].count for number in used), default=0) > MOST_NUMBERS:
        raise InputError(f"maps of over {MOST_NUMBERS} numbers at once", "fewer", "take a smaller input")
    for number, one in enumerate(buffers):
        root = buffers[place[number]]
        one.at, one.first, one.last = root.at, root.first, root.last
    network.roots = {}
    return network


def reads_padding_alone(step: Step) -> bool:
    """Whether a window has no position of the map in it, as a dilated one can step over the map."""
    sides = ((step.input.h, step.out.h), (step.input.w, step.out.w))
    return any(
        not any(0 <= at * stride - before + tap * step.dilation < side for tap in range(kernel))
        for (side, count), kernel, stride, before in zip(sides, step.kernel, step.stride, step.pads[:2])
        for at in range(count)
    )


def lay_out(buffers: Sequence[Buffer], step: int) -> None:
    """Places at multiples of `step`, no two that live at once overlapping: the better of two orders.

    Source: Pisarchyk and Lee 2020 (2001.03288), section 5.2, greedy by size.
    """
    best: tuple[int, list[int]] | None = None
    for key in (lambda one: (-one.count, one.first), lambda one: (one.first, -one.count)):
        placed: list[Buffer] = []
        for one in sorted(buffers, key=key):
            at = 0
            for other in sorted((o for o in placed if o.first <= one.last and one.first <= o.last), key=lambda o: o.at):
                if at + one.count <= other.at:
                    break
                at = max(at, -(-(other.at + other.count) // step) * step)
            one.at = at
            placed.append(one)
        end = max((one.at + one.count for one in buffers), default=0)
        if best is None or end < best[0]:
            best = end, [one.at for one in buffers]
    for one, at in zip(buffers, best[1] if best else []):
        one.at = at


def arena_numbers(network: Network) -> int:
    """How many numbers the arena has: a multiple of 4."""
    end = max((one.at + one.count for one in network.buffers if one.first >= 0), default=1)
    return -(-end // 4) * 4


def live_numbers(network: Network) -> list[int]:
    """Numbers of the arena that live at each step."""
    lives = {(one.at, one.first, one.last): one.count for one in network.buffers if one.first >= 0}
    return [
        sum(count for (_, first, last), count in lives.items() if first <= number <= last)
        for number in range(len(network.steps))
    ]

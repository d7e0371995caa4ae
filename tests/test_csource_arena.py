"""The arena of C source: in networks drawn at random, each step reads the numbers that were written for it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gossamer.compile.program import FeatureMap, LayerWeights, Operation, Program, ProgramOutput
from gossamer.csource.floats import float_network
from gossamer.csource.network import Network, View, arena_numbers

Token = tuple[int, int, int]  # the map that is no slice, position, channel
ELEMENTWISE = ("copy", "add", "multiply", "affine", "softmax")  # which may write where they read


class Drawn:
    """A program of random layers, sums, slices and concatenated maps, all of one size."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.sides = self.draw.choice([(1, 1), (1, 2), (2, 2)])
        self.values = [self.map(self.draw.randint(1, 4))]
        self.operations: list[Operation] = []
        self.ready = [0]
        while len(self.operations) < 8:
            self.draw.choice([self.concat, self.part, self.both, self.conv, self.conv, self.alone])()
        shape = None if self.draw.random() < 0.7 else (self.values[0].c, *self.sides)
        outputs = [self.output(place) for place in range(self.draw.randint(1, 3))]
        self.program = Program(self.values, self.operations, 0, outputs, shape)

    def map(self, channels: int, parent: int = -1, first: int = 0) -> FeatureMap:
        return FeatureMap(*self.sides, channels, parent=parent, first=first)

    def emit(self, kind: str, source: int, out: FeatureMap, rows: int = 0, other: int = -1, kernel: int = 1) -> None:
        shape = (rows, self.values[source].c, kernel, kernel) if kind == "conv" else (out.c,)
        weights = [LayerWeights(np.ones(shape, np.float32), np.zeros(out.c, np.float32))]
        self.values.append(out)
        self.ready.append(len(self.values) - 1)
        more = {"other": other, "kernel": (kernel, kernel), "pads": (kernel // 2,) * 4, "weights": weights}
        self.operations.append(Operation(kind, source, self.ready[-1], **more))  # type: ignore[arg-type]

    def like(self, channels: int) -> int:
        """A map of so many channels, -1 where there is none."""
        return self.draw.choice([one for one in self.ready if self.values[one].c == channels] or [-1])

    def concat(self) -> None:
        parts = [self.draw.choice(self.ready) for _ in range(self.draw.randint(2, 3))]
        root, first = len(self.values), 0
        self.values.append(self.map(sum(self.values[part].c for part in parts)))
        for part in parts:
            count = self.values[part].c
            self.emit(self.draw.choice(["activation", "affine"]), part, self.map(count, root, first))
            first += count
        self.ready.append(root)

    def part(self) -> None:
        source = self.draw.choice(self.ready)
        one = self.values[source]
        begin = self.draw.randrange(one.c)
        root = source if one.parent < 0 else one.parent
        self.values.append(self.map(self.draw.randint(1, one.c - begin), root, one.first + begin))
        self.ready.append(len(self.values) - 1)

    def both(self) -> None:
        source = self.draw.choice(self.ready[-4:])
        count = self.values[source].c
        self.emit(self.draw.choice(["add", "multiply"]), source, self.map(count), other=self.like(count))

    def conv(self) -> None:
        count = self.draw.randint(1, 4)
        other = self.like(count) if self.draw.random() < 0.7 else -1
        kernel = self.draw.choice([1, 3])
        self.emit("conv", self.draw.choice(self.ready[-4:]), self.map(count), count, other, kernel)

    def alone(self) -> None:
        source = self.draw.choice(self.ready[-4:])
        kind = self.draw.choice(["activation", "softmax", "affine"])
        self.emit(kind, source, self.map(self.values[source].c))

    def output(self, place: int) -> ProgramOutput:
        value = self.draw.choice(self.ready[-5:])
        count = self.sides[0] * self.sides[1] * self.values[value].c
        return ProgramOutput(f"y{place}", (count,), [(value, self.draw.random() < 0.5)])

    def tokens(self, value: int) -> list[Token]:
        """What the numbers of a map are, in the order of positions and channels."""
        one, positions = self.values[value], range(self.sides[0] * self.sides[1])
        root = self.program.root(value)
        first = one.first if one.parent >= 0 else 0
        return [(root, position, first + channel) for position in positions for channel in range(one.c)]


def cells(network: Network, view: View) -> list[int]:
    """The places of a view in the arena."""
    start = network.buffers[view.buffer].at + view.first
    return [start + position * view.ld + channel for position in range(view.h * view.w) for channel in range(view.c)]


@pytest.mark.parametrize("seed", range(20))
def test_each_step_reads_what_was_written_for_it(seed: int) -> None:
    for number in range(10):
        drawn = Drawn(10 * seed + number)
        network = float_network(drawn.program)
        steps, arena = list(network.steps), {}
        if steps[0].kind == "first":
            step = steps.pop(0)
            assert not set(cells(network, step.input)) & set(cells(network, step.out))
            arena = dict(zip(cells(network, step.out), drawn.tokens(0)))
        else:
            arena = dict(zip(cells(network, network.input), drawn.tokens(0)))
        for one, step in zip(drawn.operations, steps):
            read, written = cells(network, step.input), cells(network, step.out)
            assert max(*read, *written) < arena_numbers(network)
            assert [arena.get(cell) for cell in read] == drawn.tokens(one.input)
            if step.other is not None:
                added = cells(network, step.other)
                assert [arena.get(cell) for cell in added] == drawn.tokens(one.other)
                assert added == written or not set(added) & set(written)
            assert not set(read) & set(written) or (read == written and step.kind in ELEMENTWISE)
            arena.update(zip(written, drawn.tokens(one.out)))
        outputs = network.buffers[network.output].at
        pieces = [piece for output in drawn.program.outputs for piece, _ in output.pieces]
        copies = steps[len(drawn.operations) :]
        wanted = [token for piece in pieces for token in drawn.tokens(piece)]
        for piece, step in zip(pieces, copies):
            read = cells(network, step.input)
            assert [arena.get(cell) for cell in read] == drawn.tokens(piece)
            written = [outputs + step.out.first + place for place in range(step.out.c)]
            assert not set(read) & set(written)
            arena.update(zip(written, drawn.tokens(piece)))  # channels first or last
        assert [arena.get(outputs + place) for place in range(network.output_count)] == wanted

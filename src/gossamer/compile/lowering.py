"""What the lowering of ONNX nodes to operations of the engine knows while it goes from node to node."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gossamer.compile import input_layout, layout
from gossamer.compile.input_layout import InputLayout
from gossamer.compile.layout import Axes
from gossamer.compile.program import (
    LONGEST_NAME,
    MOST_AXES,
    QDQ_OPS,
    FeatureMap,
    LayerWeights,
    Operation,
    Program,
    ProgramInput,
    ProgramOutput,
    Quantised,
    Rounding,
)
from gossamer.errors import InputError
from gossamer.host.text import counted
from gossamer.modelfile.onnx import OnnxModel, OnnxNode

FLOAT_MOST = 3.4e38
NO_BOUND = math.inf  # of a clip, above; below it is minus that
MOST_PIECES, LONGEST_SHOWN = 4096, 200
BATCHES = (1, 2, 1009)  # for which what depends on the batch is computed
FUSES_ACTIVATION = ("conv", "add", "scale", "affine")  # and a block, behind its last layer

Handler = Callable[["Lowering", OnnxNode], None]
Pads = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass(frozen=True)
class Window:
    """Rows (axis 2) or columns (axis 3) `first` to `end` of a map; mean: their mean, not they themselves."""

    source: int
    axis: int
    first: int
    end: int
    mean: bool = False


class Lowering:
    """The state of one lowering: the program so far, and which value each of the file's names is."""

    def __init__(self, onnx: OnnxModel, handlers: dict[str, Handler], others: Collection[str] = ()) -> None:
        """others: operators of constants and sides of maps alone."""
        self.onnx, self.handlers, self.others = onnx, handlers, others
        input_layout.check_batches(onnx)
        layouts = {given.name: input_layout.layout_of_input(onnx, given) for given in onnx.inputs}
        self.program = Program([one.value for one in layouts.values()], [], 0, [], layouts[onnx.input.name].shape)
        self.names: dict[str, int] = {name: value for value, name in enumerate(layouts)}
        self.axes: dict[str, Axes] = {
            name: one.axes for name, one in layouts.items()
        }  # of names whose axes are not channels, height, width
        self.series: dict[str, list[tuple[int, Axes]]] = {}  # names of several maps' rows, concatenated
        self.windows: dict[str, Window] = {}  # names of rows or columns of a map, or their mean
        self.padded: dict[str, Pads] = {}  # names of maps with padding around them, which their readers take as theirs
        self.shapes: dict[
            str, tuple[NDArray[Any], ...]
        ] = {}  # names of what is computed from sides, for each of BATCHES
        self.uses: dict[str, int] = {output.name: 1 for output in onnx.outputs}
        self.users: dict[str, list[OnnxNode]] = {}
        self.producer = {name: node for node in onnx.nodes for name in node.outputs}
        for node in onnx.nodes:
            for name in node.inputs if node.op != "Shape" else ():  # which reads no number
                self.uses[name] = self.uses.get(name, 0) + 1
                self.users.setdefault(name, []).append(node)
        self.maker: dict[int, Operation] = {}  # value -> the operation that writes it
        self.value_uses: dict[int, int] = {value: self.uses.get(name, 0) for name, value in self.names.items()}
        self.quantised: dict[str, Quantised] = {}  # constants that are bytes
        self.bytes: dict[
            str, np.dtype[Any]
        ] = {}  # names of bytes between a QuantizeLinear and a DequantizeLinear: int8, uint8
        self.channel_scales: dict[
            str, NDArray[np.float32]
        ] = {}  # names of maps of bytes whose channels have scales of their own: of each, relative to the map's
        self.skip: set[int] = set()  # nodes that an earlier one has fused
        if len(layouts) > 1:
            self.program.inputs = tuple(
                _program_input(name, one, value) for value, (name, one) in enumerate(layouts.items())
            )
        for name, one in layouts.items():
            if one.pixels is not None:
                self._channels_first(name, one.pixels, one.value.h)

    def _channels_first(self, name: str, pixels: tuple[int, int], height: int) -> None:
        """An input with its channels last as a map: one row of pixels is a row of numbers, each pixel a window of its own."""
        (c, width), value = pixels, self.names[name]
        layer = LayerWeights(np.eye(c, dtype=np.float32).reshape(c, 1, 1, c), np.zeros(c, np.float32))
        emitted = self.emit("conv", value, FeatureMap(height, width, c), kernel=(1, c), stride=(1, c), weights=[layer])
        self.names[name], self.value_uses[emitted] = emitted, self.value_uses[value]

    def output(self, name: str) -> ProgramOutput:
        """An output as the maps that fill it. Raises InputError where its numbers lie in no order that the engine gives."""
        parts = self.series.get(name) or ([(self.names[name], self.axes_of(name))] if name in self.names else [])
        pieces, shapes = [], [layout.sides_of(axes) for _, axes in parts]
        for value, axes in parts:
            last = layout.channels_last(axes, self.program.values[value])
            if last is None:
                break
            pieces.append((value, last))
        named = 0 < len(name.encode()) <= LONGEST_NAME and "\0" not in name
        alike = len({one[1:] for one in shapes}) == 1 and len(pieces) == len(parts) <= MOST_PIECES
        if not named or not alike or not 1 <= len(shapes[0]) <= MOST_AXES:
            raise InputError(
                f"an output {name[:LONGEST_NAME]!r} of {counted(len(shapes), 'map')}, the first {shapes[:1]}",
                f"maps channels first or last, of up to {MOST_AXES} axes, with a name of up to {LONGEST_NAME} bytes",
                "give the head's maps as they are",
            )
        return ProgramOutput(name, (sum(sides[0] for sides in shapes), *shapes[0][1:]), pieces)

    def refuse(self, node: OnnxNode, why: str) -> NoReturn:
        """Raises InputError that names the node and its attributes."""
        plain = {key: value for key, value in node.attributes.items() if isinstance(value, (int, float, list))}
        shown = f" {str(plain)[:LONGEST_SHOWN]}" if plain else ""
        known = node.op in self.handlers or node.op in self.others  # then it is the form that is refused
        raise InputError(
            f"node {node.name[:LONGEST_SHOWN]!r}, operator {node.op[:LONGEST_SHOWN]}{shown}: {why}",
            f"other forms of {node.op}" if known else f"operators {', '.join(sorted(self.handlers))}",
            "run the ONNX file with ONNX Runtime, or take that layer out of the network",
        )

    def value(self, node: OnnxNode, place: int = 0) -> int:
        """The map that a node reads. Raises InputError where its axes are not channels, height, width."""
        number = self.read(node, place)
        axes, one = self.axes_of(node.inputs[place]), self.program.values[number]
        if axes != layout.of_map(one) and (one.h * one.w > 1 or len(axes) != 1):
            self.refuse(node, f"its input {place} has other axes than channels, height, width")
        return number

    def read(self, node: OnnxNode, place: int = 0) -> int:
        """The value that a node reads, under whatever axes. Raises InputError where it is a constant or several maps."""
        name = node.inputs[place] if place < len(node.inputs) else ""
        if name in self.series:
            self.refuse(node, f"its input {place} is rows of several maps, which only an output may be")
        if name not in self.names:
            self.refuse(node, f"its input {place} is no map of the network")
        return self.names[name]

    def axes_of(self, name: str) -> Axes:
        """How the axes of a name's tensor, without the batch, lie in its map."""
        return self.axes[name] if name in self.axes else layout.of_map(self.program.values[self.names[name]])

    def rank(self, name: str) -> int | None:
        """How many axes a name's tensor has, its batch among them; None where it is no map."""
        if name in self.windows:
            return 4
        if name in self.series:
            return len(self.series[name][0][1]) + 1
        return len(self.axes_of(name)) + 1 if name in self.names else None

    def shape_of(self, node: OnnxNode, place: int) -> list[int | None] | None:
        """A shape that a node reads, constant or computed from known ones, None for the batch; None where it is left out."""
        name = node.inputs[place] if place < len(node.inputs) else ""
        if name in self.shapes:
            values = self.shapes[name]
            if values[0].ndim != 1 or values[0].dtype.kind != "i":
                self.refuse(node, f"its input {place} is not a row of integers")
            sides: list[int | None] = []
            for numbers in zip(*(one.tolist() for one in values)):
                if len(set(numbers)) > 1 and numbers != BATCHES:
                    self.refuse(node, f"its input {place} has a side that is neither fixed nor the batch")
                sides.append(None if numbers == BATCHES else numbers[0])
            return sides
        known_sides = self.ints(node, place)
        return [*known_sides] if known_sides else None

    def constant(self, node: OnnxNode, place: int) -> Any:
        """As `tensor`, and None too where it has no numbers."""
        values = self.tensor(node, place)
        return values if values is not None and values.size else None

    def pass_on(self, node: OnnxNode) -> None:
        """The node's output is what it reads, a map or several."""
        if node.inputs[0] in self.series:
            self.series[node.outputs[0]] = self.series[node.inputs[0]]
        else:
            self.alias(node, self.read(node))

    def each(self, node: OnnxNode, make: Callable[[int, Axes], int]) -> None:
        """The node's output is `make` of the map that it reads, or of each of several; axes stay."""
        name = node.inputs[0]
        if name in self.series:
            self.series[node.outputs[0]] = [(make(value, axes), axes) for value, axes in self.series[name]]
        else:
            source, axes = self.read(node), self.axes_of(name)
            self.bind(node, make(source, axes), axes)

    def tensor(self, node: OnnxNode, place: int) -> Any:
        """A constant input, or None where it is left out. Raises InputError where it is computed."""
        name = node.inputs[place] if place < len(node.inputs) else ""
        if not name:
            return None
        tensor = self.onnx.tensors.get(name)
        if tensor is None:
            self.refuse(node, f"its input {place} is not constant")
        return tensor

    def ints(self, node: OnnxNode, place: int, name: str = "") -> list[int] | None:
        """Integers that are a constant input, or an attribute in other operator sets; None where they are left out."""
        values = node.attributes.get(name)
        if values is None and (tensor := self.tensor(node, place)) is not None:
            if tensor.dtype.kind not in "iu" or tensor.ndim > 1:
                self.refuse(node, f"its input {place} is not a row of integers")
            values = tensor.reshape(-1).tolist()
        return values

    def emit(self, kind: str, source: int, out: FeatureMap, **more: Any) -> int:
        """Add an operation with a new value; its number."""
        self.program.values.append(out)
        number = len(self.program.values) - 1
        operation = Operation(kind, source, number, **more)
        self.program.operations.append(operation)
        self.maker[number] = operation
        return number

    def bind(self, node: OnnxNode, value: int, axes: Axes | None = None) -> None:
        """The node's output is this value, its axes channels, height, width where no others are given."""
        name = node.outputs[0]
        self.names[name] = value
        if axes is None and len(self.axes.get(node.inputs[0], ())) == 1:  # one axis stays one
            axes = layout.of_map(self.program.values[value])[:1]
        if axes is not None:
            self.axes[name] = axes
        self.value_uses[value] = self.uses.get(name, 0)

    def alias(self, node: OnnxNode, value: int, axes: Axes | None = None) -> None:
        """The node's output is its input under another name, and other axes where they are given."""
        self.names[node.outputs[0]] = value
        self.axes[node.outputs[0]] = self.axes_of(node.inputs[0]) if axes is None else axes
        self.value_uses[value] = self.value_uses.get(value, 0) - 1 + self.uses.get(node.outputs[0], 0)

    def take_rounding(self, value: int, operation: Operation) -> bool:
        """Let the operation that makes a value of bytes round within itself, so that the next one runs with it.

        Whether that can be: the sum of a layer is rounded before a map is added to it and before its activation.
        """
        one = self.program.values[value]
        if one.type != "uint8":
            return True
        if operation.kind == "conv" and operation.other >= 0:
            return False
        rounding = Rounding(sum=(one.scale, one.zero))
        if operation.kind == "block":
            operation.roundings = (operation.roundings[0], rounding)
        else:
            operation.rounding = rounding
        one.type, one.scale, one.zero = "float32", 1.0, 0
        return True

    def match_gate_product(self, node: OnnxNode) -> list[OnnxNode]:
        """From a node to the product of its output, rounded to bytes or not, with its input, if nothing else reads that."""
        chain = [node]
        while len(chain) < 4 and len(users := self.users.get(name := chain[-1].outputs[0], [])) == 1 == self.uses[name]:
            chain.append(users[0])
            if chain[-1].op == "Mul":
                break
        if [one.op for one in chain[1:]] not in (["Mul"], [*QDQ_OPS, "Mul"]):
            return []
        end = chain[-2].outputs[0]
        others = [name for name in chain[-1].inputs if name != end]
        if len(others) != 1 or self._stored(others[0]) != self._stored(node.inputs[0]):
            return []
        return chain

    def _stored(self, name: str) -> str:
        """The bytes that a name is read from, or itself: each reader may have a DequantizeLinear of its own."""
        maker = self.producer.get(name)
        return maker.inputs[0] if maker is not None and maker.op == "DequantizeLinear" else name

    def map_name(self, name: str) -> str:
        """The name of the map that a name is, rounded to bytes or not."""
        while name in self.producer and self.producer[name].op in QDQ_OPS:
            name = self.producer[name].inputs[0]
        return name

    def free_to_take(self, value: int, uses: int = 1) -> Operation | None:
        """The operation that makes a value, where `uses` readers at most would see it changed and it has no activation."""
        operation = self.maker.get(value)
        if operation is None or self.value_uses.get(value, 0) > uses or self.program.values[value].parent >= 0:
            return None
        if any(other.parent == value for other in self.program.values):
            return None
        return operation

    def activate(
        self,
        node: OnnxNode,
        act: str,
        uses: int = 1,
        bound: tuple[float, float] = (0.0, 0.0),
        gate: tuple[float, int] = (0.0, 0),
    ) -> None:
        """An activation, fused into the operation before it where that can be. gate: what is rounded within it."""
        if node.inputs[0] in self.series:
            self.each(node, lambda source, _: self.activation(source, act, bound, gate))
            return
        source, axes = self.read(node), self.axes_of(node.inputs[0])
        operation = self.free_to_take(source, uses)
        if operation is not None and operation.kind == "depth_to_space" and operation.act == "none":
            # as well before it, but not before bytes are
            floats = self.program.values[source].type == self.program.values[operation.input].type == "float32"
            operation = self.free_to_take(operation.input) if floats else None
        simple = operation is not None and operation.kind in FUSES_ACTIVATION and operation.act == "none"
        block = operation is not None and operation.kind == "block" and operation.acts[1] == "none"
        if operation is not None and (simple or block) and self.take_rounding(source, operation):
            if simple:
                operation.act, operation.bound = act, bound
                operation.rounding = dataclasses.replace(operation.rounding, gate=gate)
            else:
                first, second = operation.roundings
                operation.acts, operation.bounds = (operation.acts[0], act), (operation.bounds[0], bound)
                operation.roundings = (first, dataclasses.replace(second, gate=gate))
            self.bind(node, source, axes)
        else:
            self.bind(node, self.activation(source, act, bound, gate), axes)

    def activation(self, source: int, act: str, bound: tuple[float, float], gate: tuple[float, int] = (0.0, 0)) -> int:
        """An operation of its own; its value."""
        value, rounding = self.program.values[source], Rounding(gate=gate)
        out = FeatureMap(value.h, value.w, value.c)
        return self.emit("activation", source, out, act=act, bound=bound, rounding=rounding)


def _program_input(name: str, of: InputLayout, value: int) -> ProgramInput:
    """Raises InputError for a name that the native file cannot hold."""
    if not 0 < len(name.encode()) <= LONGEST_NAME or "\0" in name:
        raise InputError(
            f"an input {name[:LONGEST_NAME]!r}", f"a name of up to {LONGEST_NAME} bytes", "rename it in the ONNX file"
        )
    return ProgramInput(name, of.shape or (of.value.c, of.value.h, of.value.w), value)

"""The graph of a .tflite file checked before LiteRT reads it: LiteRT itself ends the process on some files that are damaged."""

from __future__ import annotations

import math
import struct
from typing import Any, NoReturn

from gossamer.compile.program import MOST_NUMBERS, MOST_SIDE
from gossamer.host.text import counted
from gossamer.litert.flat import FIELDS, OPERATORS, OPTIONS
from gossamer.litert.graph import FLOAT32, INT8, INT32, LEAST_SCALE, MOST_NARROWING
from gossamer.litert.reading import TableReader
from gossamer.litert.shapes import LAYERS, Options, made_shape

WIDTHS = {FLOAT32: 4, INT32: 4, INT8: 1}  # bytes of a number
NAMES = {number: name for name, (number, _) in OPERATORS.items()}
KINDS = {"Int8": "b", "Uint8": "B", "Int32": "i", "Uint32": "I", "Bool": "B"}
AT_LEAST_ONE = ("stride_w", "stride_h", "dilation_w", "dilation_h", "filter_width", "filter_height", "block_size")
MOST_AXES = 8
KINDS_OF_LAYERS = ((FLOAT32, FLOAT32, FLOAT32), (INT8, INT8, INT32))  # input, weight, bias
ACTIVATIONS, PADDINGS = 4, 2  # of the schema's enumerations, those that are written


def structure_problem(data: bytes) -> str:
    """What LiteRT could not run of a file that gossamer did not write so; "" where there is nothing."""
    try:
        _Graph(TableReader.root(data)).check()
    except (struct.error, IndexError, OverflowError):
        return "an offset leads out of the file, or a list is too long"
    except _Problem as problem:
        return str(problem)
    return ""


class _Problem(Exception):
    pass


def _refuse(what: str) -> NoReturn:
    raise _Problem(what)


class _Graph:
    """The tables of a file, and which tensors have numbers at each operator."""

    def __init__(self, model: TableReader) -> None:
        graphs = model.tables(2)
        if len(graphs) != 1:
            _refuse(f"{len(graphs)} graphs")
        self.graph, self.tensors = graphs[0], graphs[0].tables(0)
        self.codes = [max(one.number(0, "b"), one.number(3, "i")) for one in model.tables(1)]
        self.sizes = [end - begin for begin, end in (one.content(0) for one in model.tables(4))]
        self.places = [one.content(0)[0] for one in model.tables(4)]
        self.left = len(
            model.data
        )  # numbers that are still read: each lies in the file once, but lists may lie in each other
        self.fixed: set[int] = set()  # constants, and what DEQUANTIZE makes of them
        self.shapes = [self.numbers(one, 0, "i") for one in self.tensors]

    def check(self) -> None:
        """Raises _Problem."""
        known = {place for place, one in enumerate(self.tensors) if self.tensor(place, one)}
        self.fixed = set(known)
        inputs, outputs = (self.numbers(self.graph, field, "i") for field in (1, 2))
        self.indices(inputs + outputs)
        if len(inputs) != 1 or not outputs or inputs[0] in known:
            _refuse(f"{counted(len(inputs), 'input')} and {counted(len(outputs), 'output')}")
        known.add(inputs[0])
        for one in self.graph.tables(3):
            self.operator(one, known)
        if not known.issuperset(outputs):
            _refuse("an output that no operator writes")

    def numbers(self, one: TableReader, field: int, kind: str) -> tuple[Any, ...]:
        """A list of numbers of a table."""
        row = one.numbers(field, kind)
        self.left -= len(row)
        if self.left < 0:
            _refuse("lists that lie in each other")
        return row

    def indices(self, numbers: tuple[int, ...]) -> None:
        if not all(0 <= one < len(self.tensors) for one in numbers):
            _refuse(f"a tensor that is not there, of {len(self.tensors)}")

    def tensor(self, place: int, one: TableReader) -> bool:
        """Whether it is a constant."""
        kind, buffer, shape = one.number(1, "b"), one.number(2, "I"), self.shapes[place]
        if kind not in WIDTHS or buffer >= len(self.sizes):
            _refuse(f"tensor {place} of type {kind} in buffer {buffer}")
        if len(shape) > MOST_AXES or min(shape, default=1) < 1 or math.prod(shape) > MOST_NUMBERS:
            _refuse(f"tensor {place} of the shape {str(shape[: MOST_AXES + 1])[:60]}")
        count = math.prod(shape)
        size = self.sizes[buffer]
        if size and size != count * WIDTHS[kind]:
            _refuse(f"tensor {place} of {counted(count, 'number')} in {counted(size, 'byte')}")
        self.steps(place, one, kind, bool(size))
        return bool(size)

    def steps(self, place: int, one: TableReader, kind: int, constant: bool) -> None:
        """Scales and zero points."""
        about = one.table(4)
        scales, zeros = ((), ()) if about is None else (self.numbers(about, 2, "f"), self.numbers(about, 3, "q"))
        if kind == FLOAT32 or (kind == INT32 and not scales):
            if scales or zeros:
                _refuse(f"tensor {place} of float32 with scales")
            return
        axis = 0 if about is None else about.number(6, "i")
        shape = self.shapes[place]
        rows = shape[axis] if 0 <= axis < len(shape) else 1
        single = len(scales) == 1 and all(-128 <= zero <= 127 for zero in zeros)
        by_row = constant and len(scales) == rows and not any(zeros)
        positive = all(scale >= LEAST_SCALE and math.isfinite(scale) for scale in scales)
        if not (single or by_row) or not positive or len(zeros) != len(scales) or (about and about.table(5)):
            _refuse(
                f"tensor {place} with {len(scales)} scales from {min(scales, default=0):.3g} and {len(zeros)} zero points"
            )

    def operator(self, one: TableReader, known: set[int]) -> None:
        place, inputs, outputs = one.number(0, "I"), self.numbers(one, 1, "i"), self.numbers(one, 2, "i")
        code = self.codes[place] if place < len(self.codes) else -1
        if code not in NAMES:
            _refuse(f"an operator {code}, which is not among those that are written")
        name = NAMES[code]
        self.indices(inputs + outputs)
        if not inputs or len(outputs) != 1 or outputs[0] in known or not known.issuperset(inputs):
            _refuse(f"an operator {name} that reads what is not there, or writes what is")
        known.add(outputs[0])
        kind = OPERATORS[name][1]
        self.operands(name, self.options(name, kind, one) if kind else {}, inputs, outputs[0])

    def options(self, name: str, kind: str, one: TableReader) -> Options:
        """Those that are whole numbers."""
        options = one.table(4)
        if one.number(3, "B") != OPTIONS[kind] or options is None:
            _refuse(f"an operator {name} with options of another")
        values = {}
        for field, (number, type_) in FIELDS[kind].items():
            if type_ not in KINDS:
                continue
            value = options.number(number, KINDS[type_])
            most = {"activation": ACTIVATIONS, "padding": PADDINGS}.get(field, MOST_SIDE) - 1
            least = 1 if field in AT_LEAST_ONE else -3 if field == "axis" else 0
            if field == "depth_multiplier":
                least = most = 1
            if not least <= value <= most:
                _refuse(f"an operator {name} with {field} {value}")
            values[field] = value
        return values

    def operands(self, name: str, options: Options, inputs: tuple[int, ...], out: int) -> None:
        """What an operator reads fits, and makes the output."""
        try:
            shape = made_shape(
                name, options, [self.shapes[one] for one in inputs], lambda at: self.integers(inputs[at])
            )
        except (ValueError, IndexError):
            _refuse(f"an operator {name} that reads what does not fit")
        if shape != self.shapes[out]:
            _refuse(f"an operator {name} that makes {shape}, where its output is {self.shapes[out]}")
        if name in LAYERS:
            kinds = tuple(self.tensors[one].number(1, "b") for one in inputs)
            if kinds not in KINDS_OF_LAYERS or not self.fixed.issuperset(inputs[1:]):
                _refuse(f"an operator {name} with a weight or bias of type {kinds[1:]} for {kinds[0]}, or no constant")
        if name == "DEQUANTIZE" and inputs[0] in self.fixed:
            self.fixed.add(out)
        if name == "ADD" and self.tensors[out].number(1, "b") == INT8:
            read, made = max(map(self.scale, inputs)), self.scale(out)
            if read > MOST_NARROWING * made:
                _refuse(f"an operator {name} from a scale of {read:.3g} to one of {made:.3g}")

    def scale(self, place: int) -> float:
        """The scale of a tensor of int8, 0 where it has none."""
        about = self.tensors[place].table(4)
        return 0.0 if about is None else max(self.numbers(about, 2, "f"), default=0.0)

    def integers(self, place: int) -> tuple[int, ...]:
        """The numbers of a short constant of int32, none where it is no such."""
        one, buffer = self.tensors[place], self.tensors[place].number(2, "I")
        if one.number(1, "b") != INT32 or self.sizes[buffer] > 8 * MOST_AXES:
            return ()
        return struct.unpack_from(f"<{self.sizes[buffer] // 4}i", one.data, self.places[buffer])

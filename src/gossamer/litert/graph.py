"""A graph of LiteRT operators as it is built up: tensors, constants, operators."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.litert.flat import OPERATORS, OPTIONS, SCHEMA_VERSION, Table, encode, table

FLOAT32, INT32, INT8 = 0, 2, 9  # of the schema's TensorType
TYPES = {"float32": FLOAT32, "int32": INT32, "int8": INT8}
# the version from which an operator takes int8; source: tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc
INT8_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "DEQUANTIZE": 2}
INT8_VERSIONS |= dict.fromkeys(
    "ADD CONCATENATION DEPTH_TO_SPACE GATHER LEAKY_RELU LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PAD PADV2 RELU RELU6 "
    "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SLICE SOFTMAX TANH TRANSPOSE".split(),
    2,
)
ROWS = 5  # the version from which DEQUANTIZE takes a scale per row
LEAST_SCALE = 2.0**-126  # the least of float32 in full: LiteRT ends the process on a smaller one
MOST_NARROWING = 2.0**19  # of the larger scale that ADD reads over that which it writes: on more as well
LAST_OLD_CODE = 127  # of the field that operator numbers had when they were bytes
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Int8:
    """A tensor of int8: a byte stands for (byte - zero) * scale."""

    scale: float
    zero: int

    def as_table(self) -> Table:
        return table("QuantizationParameters", scale=[self.scale], zero_point=[self.zero])


class Graph:
    """Tensors by number, each with its shape, the batch of 1 first. steps: of those that are int8."""

    def __init__(self) -> None:
        self.shapes: list[Shape] = []
        self.tensors: list[dict[str, Any]] = []
        self.buffers: list[bytes] = [b""]  # the first is that of tensors without numbers
        self.codes: dict[tuple[str, int], int] = {}
        self.operators: list[Table] = []
        self.known: dict[tuple[bytes, Shape, str, object], int] = {}
        self.steps: dict[int, Int8] = {}

    def tensor(self, shape: Sequence[int], name: str = "", kind: int = FLOAT32, buffer: int = 0) -> int:
        """A new tensor; its number."""
        number = len(self.tensors)
        self.shapes.append(tuple(shape))
        self.tensors.append({"shape": list(shape), "type": kind, "buffer": buffer, "name": name or f"t{number}"})
        return number

    def constant(self, values: NDArray[Any], steps: Int8 | None = None) -> int:
        """A tensor of numbers, float32, int32 or int8; the same numbers are in the file once. steps: of int8."""
        return self._constant(values, steps, None if steps is None else steps.as_table(), steps)

    def rows(self, values: NDArray[Any], scale: NDArray[np.float32], axis: int) -> int:
        """A constant of int8 or int32 with a scale for each place of an axis, and zero points of 0."""
        scales = [float(one) for one in scale]
        about = table("QuantizationParameters", scale=scales, zero_point=[0] * len(scales), quantized_dimension=axis)
        return self._constant(values, (scale.tobytes(), axis), about, None)

    def _constant(self, values: NDArray[Any], key: object, about: Table | None, steps: Int8 | None) -> int:
        data = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()
        whole = (hashlib.sha256(data).digest(), values.shape, values.dtype.kind, key)
        if whole not in self.known:
            self.buffers.append(data)
            made = self.known[whole] = self.tensor(values.shape, "", TYPES[values.dtype.name], len(self.buffers) - 1)
            if about is not None:
                self.tensors[made]["quantization"] = about
            if steps is not None:
                self.steps[made] = steps
        return self.known[whole]

    def row(self, *numbers: int) -> int:
        """A constant row of int32."""
        return self.constant(np.array(numbers, np.int32))

    def add(
        self,
        op: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        version: int = 1,
        steps: Int8 | None = None,
        **options: Any,
    ) -> int:
        """An operator that makes a tensor of this shape, of int8 where `steps` is given; the tensor's number."""
        kind = OPERATORS[op][1]
        if any(one in self.steps for one in inputs):
            version = max(version, INT8_VERSIONS.get(op, 1))
        code = self.codes.setdefault((op, version), len(self.codes))
        out = self.tensor(shape, kind=FLOAT32 if steps is None else INT8)
        if steps is not None:
            self.steps[out], self.tensors[out]["quantization"] = steps, steps.as_table()
        fields: dict[str, Any] = {"opcode_index": code, "inputs": list(inputs), "outputs": [out]}
        if kind:
            fields |= {"builtin_options_type": OPTIONS[kind], "builtin_options": table(kind, **options)}
        self.operators.append(table("Operator", **fields))
        return out

    def reshape(self, source: int, shape: Sequence[int]) -> int:
        """The same numbers under another shape."""
        if self.shapes[source] == tuple(shape):
            return source
        steps = self.steps.get(source)
        return self.add("RESHAPE", [source, self.row(*shape)], shape, steps=steps, new_shape=list(shape))

    def transpose(self, source: int, order: Sequence[int]) -> int:
        """Axis `order[i]` becomes axis i."""
        shape = [self.shapes[source][axis] for axis in order]
        version = 1 if len(order) < 5 else 4 if len(order) == 5 else 6
        return self.add("TRANSPOSE", [source, self.row(*order)], shape, version, self.steps.get(source))

    def cut(self, source: int, first: Sequence[int], sides: Sequence[int]) -> int:
        """The part of a tensor that begins at `first` and has these sides."""
        if self.shapes[source] == tuple(sides):
            return source
        return self.add("SLICE", [source, self.row(*first), self.row(*sides)], sides, steps=self.steps.get(source))

    def concatenate(self, parts: Sequence[int], axis: int) -> int:
        """Tensors behind each other along an axis."""
        if len(parts) == 1:
            return parts[0]
        shape = list(self.shapes[parts[0]])
        shape[axis] = sum(self.shapes[part][axis] for part in parts)
        return self.add("CONCATENATION", parts, shape, steps=self.steps.get(parts[0]), axis=axis)

    def name(self, number: int, name: str) -> None:
        """Give a tensor its name."""
        self.tensors[number]["name"] = name

    def encoded(self, inputs: Sequence[int], outputs: Sequence[int], metadata: dict[str, bytes]) -> bytes:
        """The file, with buffers of metadata by their names."""
        codes = [
            table(
                "OperatorCode",
                deprecated_builtin_code=min(OPERATORS[op][0], LAST_OLD_CODE),
                version=version,
                builtin_code=OPERATORS[op][0],
            )
            for op, version in self.codes
        ]
        graph = table(
            "SubGraph",
            tensors=[table("Tensor", **one) for one in self.tensors],
            inputs=list(inputs),
            outputs=list(outputs),
            operators=self.operators,
            name="main",
        )
        maps = [
            [table("TensorMap", name=self.tensors[one]["name"], tensor_index=one) for one in numbers]
            for numbers in (inputs, outputs)
        ]
        signature = table(
            "SignatureDef", inputs=maps[0], outputs=maps[1], signature_key="serving_default", subgraph_index=0
        )
        named = [table("Metadata", name=name, buffer=len(self.buffers) + place) for place, name in enumerate(metadata)]
        buffers = [table("Buffer", **({"data": data} if data else {})) for data in (*self.buffers, *metadata.values())]
        return encode(
            table(
                "Model",
                version=SCHEMA_VERSION,
                operator_codes=codes,
                subgraphs=[graph],
                description="gossamer",
                buffers=buffers,
                metadata=named,
                signature_defs=[signature],
            )
        )

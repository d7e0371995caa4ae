"""A graph of LiteRT operators as it is built up: tensors, constants, operators."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.litert.flat import OPERATORS, OPTIONS, SCHEMA_VERSION, Table, encode, table

FLOAT32, INT32 = 0, 2  # of the schema's TensorType
LAST_OLD_CODE = 127  # of the field that operator numbers had when they were bytes
Shape = tuple[int, ...]


class Graph:
    """Tensors by number, each with its shape, the batch of 1 first."""

    def __init__(self) -> None:
        self.shapes: list[Shape] = []
        self.tensors: list[dict[str, Any]] = []
        self.buffers: list[bytes] = [b""]  # the first is that of tensors without numbers
        self.codes: dict[tuple[str, int], int] = {}
        self.operators: list[Table] = []
        self.known: dict[tuple[bytes, Shape, str], int] = {}

    def tensor(self, shape: Sequence[int], name: str = "", kind: int = FLOAT32, buffer: int = 0) -> int:
        """A new tensor; its number."""
        number = len(self.tensors)
        self.shapes.append(tuple(shape))
        self.tensors.append({"shape": list(shape), "type": kind, "buffer": buffer, "name": name or f"t{number}"})
        return number

    def constant(self, values: NDArray[Any]) -> int:
        """A tensor of numbers, float32 or int32; the same numbers are in the file once."""
        data = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()
        key = (hashlib.sha256(data).digest(), values.shape, values.dtype.kind)
        if key not in self.known:
            self.buffers.append(data)
            kind = FLOAT32 if values.dtype == np.float32 else INT32
            self.known[key] = self.tensor(values.shape, "", kind, len(self.buffers) - 1)
        return self.known[key]

    def row(self, *numbers: int) -> int:
        """A constant row of int32."""
        return self.constant(np.array(numbers, np.int32))

    def add(self, op: str, inputs: Sequence[int], shape: Sequence[int], version: int = 1, **options: Any) -> int:
        """An operator that makes a tensor of this shape; the tensor's number."""
        kind = OPERATORS[op][1]
        code = self.codes.setdefault((op, version), len(self.codes))
        out = self.tensor(shape)
        fields: dict[str, Any] = {"opcode_index": code, "inputs": list(inputs), "outputs": [out]}
        if kind:
            fields |= {"builtin_options_type": OPTIONS[kind], "builtin_options": table(kind, **options)}
        self.operators.append(table("Operator", **fields))
        return out

    def reshape(self, source: int, shape: Sequence[int]) -> int:
        """The same numbers under another shape."""
        if self.shapes[source] == tuple(shape):
            return source
        return self.add("RESHAPE", [source, self.row(*shape)], shape, new_shape=list(shape))

    def transpose(self, source: int, order: Sequence[int]) -> int:
        """Axis `order[i]` becomes axis i."""
        shape = [self.shapes[source][axis] for axis in order]
        version = 1 if len(order) < 5 else 4 if len(order) == 5 else 6
        return self.add("TRANSPOSE", [source, self.row(*order)], shape, version)

    def cut(self, source: int, first: Sequence[int], sides: Sequence[int]) -> int:
        """The part of a tensor that begins at `first` and has these sides."""
        if self.shapes[source] == tuple(sides):
            return source
        return self.add("SLICE", [source, self.row(*first), self.row(*sides)], sides)

    def concatenate(self, parts: Sequence[int], axis: int) -> int:
        """Tensors behind each other along an axis."""
        if len(parts) == 1:
            return parts[0]
        shape = list(self.shapes[parts[0]])
        shape[axis] = sum(self.shapes[part][axis] for part in parts)
        return self.add("CONCATENATION", parts, shape, axis=axis)

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

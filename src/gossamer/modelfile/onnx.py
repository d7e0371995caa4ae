"""An ONNX file as plain values, without the onnx package; every value is checked.

Source: the messages of onnx/onnx.proto, IR version 10. The numbers of the rules are those of FORMAT.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import ModelFileError
from gossamer.host.text import counted
from gossamer.modelfile import protobuf
from gossamer.modelfile.protobuf import FieldSpec

FILE_LIMIT = 2**31 - 1  # protobuf's own

ONNX_RULES = {
    1: "a file that can be read, of 1 byte to 2 GiB",
    2: protobuf.WELL_FORMED,
    3: "an ONNX model: IR version 3 or later, one ONNX operator set, a graph with nodes",
    4: "tensors whose data are in the file, or in a file of its folder",
    5: "tensors with as many values as their shape says",
    6: "a graph in which each value is computed once, before it is used",
    7: "one float32 input (compiled or run on arrays: 1 to 64) and 1 to 64 outputs, of known rank",
}

REPEATED = True
MESSAGES: dict[str, dict[int, FieldSpec]] = {
    "Model": {
        1: FieldSpec("ir_version", "int"),
        2: FieldSpec("producer_name", "text"),
        3: FieldSpec("producer_version", "text"),
        7: FieldSpec("graph", "Graph"),
        8: FieldSpec("opset_import", "OperatorSet", REPEATED),
        14: FieldSpec("metadata_props", "Entry", REPEATED),
        25: FieldSpec("functions", "Function", REPEATED),
    },
    "OperatorSet": {1: FieldSpec("domain", "text"), 2: FieldSpec("version", "int")},
    "Entry": {1: FieldSpec("key", "text"), 2: FieldSpec("value", "text")},
    "Function": {7: FieldSpec("node", "Node", REPEATED)},
    "Graph": {
        1: FieldSpec("node", "Node", REPEATED),
        2: FieldSpec("name", "text"),
        5: FieldSpec("initializer", "Tensor", REPEATED),
        11: FieldSpec("input", "ValueInfo", REPEATED),
        12: FieldSpec("output", "ValueInfo", REPEATED),
        15: FieldSpec("sparse_initializer", "SparseTensor", REPEATED),
    },
    "Node": {
        1: FieldSpec("input", "text", REPEATED),
        2: FieldSpec("output", "text", REPEATED),
        3: FieldSpec("name", "text"),
        4: FieldSpec("op_type", "text"),
        5: FieldSpec("attribute", "Attribute", REPEATED),
        7: FieldSpec("domain", "text"),
    },
    "Attribute": {
        1: FieldSpec("name", "text"),
        2: FieldSpec("f", "float"),
        3: FieldSpec("i", "int"),
        4: FieldSpec("s", "bytes"),
        5: FieldSpec("t", "Tensor"),
        6: FieldSpec("g", "Graph"),
        7: FieldSpec("floats", "float", REPEATED),
        8: FieldSpec("ints", "int", REPEATED),
        9: FieldSpec("strings", "bytes", REPEATED),
        10: FieldSpec("tensors", "Tensor", REPEATED),
        11: FieldSpec("graphs", "Graph", REPEATED),
        20: FieldSpec("type", "int"),
        22: FieldSpec("sparse_tensor", "SparseTensor"),
        23: FieldSpec("sparse_tensors", "SparseTensor", REPEATED),
    },
    "SparseTensor": {1: FieldSpec("values", "Tensor"), 2: FieldSpec("indices", "Tensor")},
    "Tensor": {
        1: FieldSpec("dims", "int", REPEATED),
        2: FieldSpec("data_type", "int"),
        4: FieldSpec("float_data", "float", REPEATED),
        5: FieldSpec("int32_data", "int", REPEATED),
        7: FieldSpec("int64_data", "int", REPEATED),
        8: FieldSpec("name", "text"),
        9: FieldSpec("raw_data", "bytes"),
        10: FieldSpec("double_data", "double", REPEATED),
        11: FieldSpec("uint64_data", "int", REPEATED),
        13: FieldSpec("external_data", "Entry", REPEATED),
        14: FieldSpec("data_location", "int"),
    },
    "ValueInfo": {1: FieldSpec("name", "text"), 2: FieldSpec("type", "Type")},
    "Type": {1: FieldSpec("tensor_type", "TensorType")},
    "TensorType": {1: FieldSpec("elem_type", "int"), 2: FieldSpec("shape", "Shape")},
    "Shape": {1: FieldSpec("dim", "Dimension", REPEATED)},
    "Dimension": {1: FieldSpec("dim_value", "int"), 2: FieldSpec("dim_param", "text")},
}

# Tensor.data_type -> (numpy type, the field that holds values where raw_data does not)
TYPES: dict[int, tuple[str, str]] = {
    1: ("<f4", "float_data"),
    2: ("u1", "int32_data"),
    3: ("i1", "int32_data"),
    4: ("<u2", "int32_data"),
    5: ("<i2", "int32_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("?", "int32_data"),
    10: ("<f2", "int32_data"),
    11: ("<f8", "double_data"),
    12: ("<u4", "uint64_data"),
    13: ("<u8", "uint64_data"),
}
FLOAT = 1
MOST_INPUTS, MOST_OUTPUTS = 64, 64
# Attribute.type -> the field that holds the value
ATTRIBUTES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings", 9: "tensors"}


@dataclass(frozen=True)
class OnnxValue:
    """An input or output: `shape` holds a number, a name (a free dimension) or None (unknown) an axis."""

    name: str
    type: int
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class OnnxNode:
    """One operation. Attributes are int, float, bytes, numpy arrays, or lists of them; others are None."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class OnnxModel:
    """The contents of an ONNX file. `tensors` maps names to arrays, or to None where numpy has no such type."""

    ir_version: int
    opset: int
    producer: str
    metadata: tuple[tuple[str, str], ...]
    inputs: tuple[OnnxValue, ...]
    outputs: tuple[OnnxValue, ...]
    nodes: tuple[OnnxNode, ...]
    tensors: dict[str, NDArray[Any] | None]

    @property
    def input(self) -> OnnxValue:
        """The first input, and the only one but where a file was read with `several_inputs`."""
        return self.inputs[0]

    @property
    def output(self) -> OnnxValue:
        """The first output."""
        return self.outputs[0]


def subgraph(onnx: OnnxModel, names: tuple[str, ...]) -> OnnxModel:
    """The part of a graph on which these of its outputs depend, in this order."""
    wanted, kept = set(names), []
    for node in reversed(onnx.nodes):
        if wanted & set(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    declared = {value.name: value for value in onnx.outputs}
    return replace(onnx, nodes=tuple(reversed(kept)), outputs=tuple(declared[name] for name in names))


def onnx_rule_error(rule: int, problem: str) -> ModelFileError:
    """The error for a rule of this file that does not hold."""
    return ModelFileError(rule, problem, ONNX_RULES[rule], "fetch or export the file again")


def parse_onnx(data: bytes, several_inputs: bool = False) -> OnnxModel:
    """Read an ONNX model. several_inputs: whether it may have more than one.

    Raises ModelFileError (rules 1 to 7), and no other error whatever the bytes.
    """
    if not 0 < len(data) <= FILE_LIMIT:
        raise onnx_rule_error(1, f"{len(data)} bytes")
    model = protobuf.MessageReader(MESSAGES).message(memoryview(data), "Model")
    # "" and "ai.onnx" are one domain; a few exporters name it twice
    opsets = {entry.get("version", 0) for entry in model["opset_import"] if entry.get("domain", "") in ("", "ai.onnx")}
    graph = model.get("graph")
    if model.get("ir_version", 0) < 3 or len(opsets) != 1 or min(opsets) < 1 or not graph or not graph["node"]:
        raise onnx_rule_error(
            3,
            f"IR version {model.get('ir_version', 'none')}, ONNX operator sets {sorted(opsets)[:8]}, "
            f"{counted(len(graph['node']), 'node') if graph else 'no graph, no nodes'}",
        )
    for function in model["functions"]:
        for node in function["node"]:
            _node(node)
    tensors, nodes = _graph(graph)
    inputs = [_value(item) for item in graph["input"]]
    outputs = [_value(item) for item in graph["output"]]
    _check_order(nodes, tensors, inputs, outputs)
    inputs = [value for value in inputs if value.name not in tensors]  # IR version 3 lists tensors as inputs too
    for kind, values, most in (("input", inputs, MOST_INPUTS), ("output", outputs, MOST_OUTPUTS)):
        known = all(value.shape is not None for value in values)
        floats = all(value.type == FLOAT for value in (values if kind == "input" else values[:1]))
        if not 1 <= len(values) <= most or not known or not floats:
            raise onnx_rule_error(7, _shown(kind, values))
    if len(inputs) > 1 and not several_inputs:
        do = "compile it, or run it on arrays (gossamer.load), or export a network of one input"
        raise ModelFileError(7, _shown("input", inputs), ONNX_RULES[7], do)
    producer = f"{model.get('producer_name', '')} {model.get('producer_version', '')}".strip()
    metadata = tuple((entry.get("key", ""), entry.get("value", "")) for entry in model["metadata_props"])
    return OnnxModel(
        model["ir_version"], opsets.pop(), producer, metadata, tuple(inputs), tuple(outputs), nodes, tensors
    )


def _shown(kind: str, values: list[OnnxValue]) -> str:
    shown = ", ".join(f"{value.name[:60]} (type {value.type}, shape {value.shape})" for value in values[:4])
    return f"{counted(len(values), kind)}: {shown}"


def _value(message: dict[str, Any]) -> OnnxValue:
    tensor = message.get("type", {}).get("tensor_type", {})
    shape = tensor.get("shape")
    axes = None if shape is None else tuple(axis.get("dim_value", axis.get("dim_param")) for axis in shape["dim"])
    if axes is not None:  # a few exporters write a free side as -1
        axes = tuple(None if isinstance(side, int) and side < 0 else side for side in axes)
    return OnnxValue(message.get("name", ""), tensor.get("elem_type", 0), axes)


def _graph(message: dict[str, Any]) -> tuple[dict[str, NDArray[Any] | None], tuple[OnnxNode, ...]]:
    """The named tensors and the nodes of a graph. Raises ModelFileError (rules 4 to 6)."""
    tensors: dict[str, NDArray[Any] | None] = {}
    for item in message["initializer"]:
        name = item.get("name", "")
        if name in tensors:
            raise onnx_rule_error(6, f"two tensors are called {name!r}")
        tensors[name] = _tensor(item)
    for item in message["sparse_initializer"]:
        _sparse(item)
        tensors[item.get("values", {}).get("name", "")] = None
    return tensors, tuple(_node(item) for item in message["node"])


def _node(message: dict[str, Any]) -> OnnxNode:
    attributes = {item.get("name", ""): _attribute(item) for item in message["attribute"]}
    if len(attributes) < len(message["attribute"]):
        raise onnx_rule_error(6, f"node {message.get('name', '')[:200]!r} has two attributes of one name")
    domain = message.get("domain", "")
    op = message.get("op_type", "")
    return OnnxNode(
        op if domain in ("", "ai.onnx") else f"{domain}:{op}",
        message.get("name", "") or (message["output"][0] if message["output"] else "unnamed"),
        tuple(message["input"]),
        tuple(message["output"]),
        attributes,
    )


def _attribute(message: dict[str, Any]) -> Any:
    """The value of an attribute; every tensor in it is checked, also in graphs below it."""
    for graph in [*message["graphs"], *([message["g"]] if "g" in message else [])]:
        _graph(graph)
    for sparse in [*message["sparse_tensors"], *([message["sparse_tensor"]] if "sparse_tensor" in message else [])]:
        _sparse(sparse)
    if "t" in message:
        message["t"] = _tensor(message["t"])
    message["tensors"] = [_tensor(item) for item in message["tensors"]]
    value = message.get(ATTRIBUTES.get(message.get("type", 0), ""))
    if isinstance(value, memoryview):
        return bytes(value)
    return [bytes(item) for item in value] if message.get("type") == 8 and isinstance(value, list) else value


def _sparse(message: dict[str, Any]) -> None:
    for part in ("values", "indices"):
        if part in message:
            _tensor(message[part])


def _tensor(message: dict[str, Any]) -> NDArray[Any] | None:
    """The array of a tensor, sharing the file's bytes; None for a type that numpy lacks. Raises ModelFileError."""
    name = message.get("name", "")
    if message["external_data"] or message.get("data_location", 0) != 0:
        raise onnx_rule_error(4, f"tensor {name!r} has its data outside the file")
    shape = message["dims"]
    kind = message.get("data_type", 0)
    count = 1
    for side in shape:
        count *= side
        if not 0 <= side <= FILE_LIMIT or count > FILE_LIMIT * 8 or len(shape) > 16:
            raise onnx_rule_error(5, f"tensor {name!r} has the shape {shape[:8]}")
    if kind not in TYPES:
        if not 0 < kind < 64:
            raise onnx_rule_error(5, f"tensor {name!r} has the type {kind}")
        return None  # bfloat16, strings, ...: for the runtimes that know them
    dtype, field = np.dtype(TYPES[kind][0]), TYPES[kind][1]
    if "raw_data" in message:
        raw = message["raw_data"]
        if len(raw) != count * dtype.itemsize:
            raise onnx_rule_error(
                5, f"tensor {name!r} holds {counted(len(raw), 'byte')} where {shape[:8]} need {count * dtype.itemsize}"
            )
        return _shaped(np.frombuffer(raw, dtype), shape, name)
    if len(message[field]) != count:
        values = counted(len(message[field]), "value")
        raise onnx_rule_error(5, f"tensor {name!r} holds {values} where {shape[:8]} need {count}")
    return _shaped(_typed(message[field], dtype, name), shape, name)


def _typed(values: list[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    try:
        if dtype == np.float16:  # int32_data holds the bits of float16
            return np.array(values, np.uint16).view(np.float16)
        if dtype == np.uint64:  # the reader reads every number as signed
            return np.array(values, np.int64).view(np.uint64)
        return np.array(values, dtype)
    except (OverflowError, ValueError) as error:
        raise onnx_rule_error(5, f"tensor {name!r} holds a value outside its type: {error}") from error


def _shaped(values: NDArray[Any], shape: list[int], name: str) -> NDArray[Any]:
    try:
        return values.reshape(shape)
    except ValueError as error:  # an empty tensor can have sides that numpy cannot hold
        raise onnx_rule_error(5, f"tensor {name!r} has the shape {shape}") from error


def _check_order(
    nodes: tuple[OnnxNode, ...],
    tensors: dict[str, NDArray[Any] | None],
    inputs: list[OnnxValue],
    outputs: list[OnnxValue],
) -> None:
    """Each value is computed once and before its use, and so are the outputs. Raises ModelFileError (rule 6)."""
    known = {*tensors, *(value.name for value in inputs)}
    if len({value.name for value in inputs}) < len(inputs):
        raise onnx_rule_error(6, "two inputs have one name")
    for node in nodes:
        for name in node.inputs:
            if name and name not in known:
                raise onnx_rule_error(
                    6, f"node {node.name!r} ({node.op}) uses {name!r}, which no node before it computes"
                )
        for name in node.outputs:
            if name and name in known:
                raise onnx_rule_error(6, f"node {node.name!r} ({node.op}) computes {name!r} a second time")
            known.add(name)
    if len({value.name for value in outputs}) < len(outputs):
        raise onnx_rule_error(6, "two outputs have one name")
    for value in outputs:
        if not value.name or value.name not in known:
            raise onnx_rule_error(6, f"no node computes the output {value.name!r}")

"""An ONNX graph that can be edited: its nodes in order, its constants as numpy arrays, and its values for a batch.

It is the float graph that quantisation starts from: identities and dropout are gone, batch norms are folded into the
convolution or fully connected layer before them, and no constant is shared by two layers.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import InputError, MissingPackageError
from gossamer.modelfile.metadata import without_metadata
from gossamer.modelfile.onnx import OnnxNode
from gossamer.runtime.ort import open_session

Array = NDArray[Any]
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
LEAST_OPSET = 13  # the first that quantises per channel
QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")


def packages() -> tuple[Any, Any]:
    """onnx and onnxruntime. Raises MissingPackageError."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError(str(error.name or "onnx"), "train", "quantising") from error
    onnxruntime.disable_telemetry_events()
    return onnx, onnxruntime


class OnnxGraph:
    """The part of an ONNX model that makes `outputs`.

    nodes: onnx.NodeProto, each after those that it reads. constants: name -> array; weights and biases are changed here.
    """

    def __init__(self, data: bytes, outputs: Sequence[str], name: str) -> None:
        """Raises InputError for a model that is quantised already, or whose operator set cannot be quantised."""
        onnx, _ = packages()
        self.name = name
        self.proto = onnx.load_from_string(without_metadata(data))
        for domain in self.proto.opset_import:
            if domain.domain in ("", "ai.onnx") and domain.version < LEAST_OPSET:
                raise InputError(
                    f"{name}: operator set {domain.version}",
                    f"{LEAST_OPSET} or later, which quantises weights per channel",
                    "export it again, or convert it with onnx.version_converter",
                )
        graph = self.proto.graph
        done = sorted({node.op_type for node in graph.node} & set(QUANTISED))
        if done:
            raise InputError(f"{name}: quantised already ({', '.join(done)})", "a float file", "give its float source")
        self.constants: dict[str, Array] = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self.input = next(value.name for value in graph.input if value.name not in self.constants)
        self._check_types(onnx)
        self.outputs = list(outputs)
        self.nodes: list[Any] = []
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
            else:
                self.nodes.append(copy.deepcopy(node))
        for field in (
            "node",
            "initializer",
            "value_info",
        ):  # held above; the bytes of a form of it are made from this often
            del getattr(graph, field)[:]
        self._drop_unused()
        self._drop_identities()
        self._own_constants()
        self._fold_norms()
        self._drop_unused()
        for number, node in enumerate(self.nodes):
            node.name = node.name or f"{node.op_type}_{number}"

    def _check_types(self, onnx: Any) -> None:
        """Raises InputError for a model whose input or weights are no float32, such as one in half precision."""
        names = dict(onnx.TensorProto.DataType.items())
        kinds = {number: name.lower() for name, number in names.items()}
        value = next(one for one in self.proto.graph.input if one.name == self.input)
        kind = value.type.tensor_type.elem_type
        weights = {
            str(self.constants[node.input[1]].dtype)
            for node in self.proto.graph.node
            if node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in self.constants
        }
        others = sorted({kinds.get(kind, str(kind))} - {"float"} | weights - {"float32"})
        if others:
            raise InputError(
                f"{self.name}: computes in {', '.join(others)}", "a network in float32", "export it again in float32"
            )

    def makers(self) -> dict[str, Any]:
        """Value -> the node that makes it."""
        return {name: node for node in self.nodes for name in node.output if name}

    def readers(self) -> dict[str, list[tuple[Any, int]]]:
        """Value -> the nodes that read it, each with the place among its inputs."""
        result: dict[str, list[tuple[Any, int]]] = defaultdict(list)
        for node in self.nodes:
            for place, name in enumerate(node.input):
                if name:
                    result[name].append((node, place))
        return result

    def weighted(self) -> list[Any]:
        """The layers whose weights are constants, in order."""
        return [
            node
            for node in self.nodes
            if node.op_type in WEIGHTED and node.input[1] in self.constants and node.input[0] not in self.constants
        ]

    def activations(self) -> list[str]:
        """The values that depend on the input, in order: the input first."""
        known, result = {self.input}, [self.input]
        for node in self.nodes:
            if any(name in known for name in node.input):
                for name in node.output:
                    if name:
                        known.add(name)
                        result.append(name)
        return result

    def model(self, extra_outputs: Iterable[str] = (), nodes: Sequence[Any] | None = None) -> bytes:
        """The bytes of the model, with further values as outputs. nodes: in place of its own."""
        onnx, _ = packages()
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        graph = proto.graph
        kept = {value.name: copy.deepcopy(value) for value in graph.output}
        del graph.output[:]
        graph.node.extend(self.nodes if nodes is None else nodes)
        used = {name for node in graph.node for name in node.input}
        graph.initializer.extend(
            onnx.numpy_helper.from_array(np.asarray(value, order="C"), name)
            for name, value in self.constants.items()
            if name in used or name in self.outputs
        )
        inputs = [value for value in graph.input if value.name == self.input]
        del graph.input[:]
        graph.input.extend(inputs)
        graph.output.extend(kept.get(name) or onnx.ValueInfoProto(name=name) for name in self.outputs)
        seen = set(self.outputs)
        for name in extra_outputs:
            if name not in seen:
                seen.add(name)
                graph.output.append(onnx.ValueInfoProto(name=name))
        return bytes(proto.SerializeToString(deterministic=True))

    def own(self, node: Any, place: int) -> str:
        """The name of a constant input of a node, which no other node reads from here on."""
        name = node.input[place]
        if sum(list(other.input).count(name) for other in self.nodes) > 1:
            number = 0
            while f"{name}.{number}" in self.constants:
                number += 1
            self.constants[f"{name}.{number}"] = self.constants[name].copy()
            node.input[place] = name = f"{name}.{number}"
        return str(name)

    def attributes(self, node: Any) -> dict[str, Any]:
        """Attribute name -> value."""
        onnx, _ = packages()
        return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}

    def plain(self, node: Any) -> OnnxNode:
        """The node as the numpy operators take it."""
        return OnnxNode(node.op_type, node.name, tuple(node.input), tuple(node.output), self.attributes(node))

    def bias_of(self, node: Any) -> str | None:
        """The name of the bias of a layer, made of zeros where it has none; None where it cannot have one."""
        if node.op_type == "MatMul":
            return None
        if len(node.input) > 2 and node.input[2]:
            return self.own(node, 2) if node.input[2] in self.constants else None
        weight = self.constants[node.input[1]]
        attributes = self.attributes(node)
        if node.op_type == "Conv":
            count = weight.shape[0]
        elif node.op_type == "ConvTranspose":
            count = weight.shape[1] * attributes.get("group", 1)
        else:
            count = weight.shape[0 if attributes.get("transB", 0) else 1]
        name = f"{node.input[1]}.bias"
        self.constants[name] = np.zeros(count, np.float32)
        del node.input[2:]
        node.input.append(name)
        return name

    def _drop_unused(self) -> None:
        """Keep the nodes that the outputs need."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]

    def _drop_identities(self) -> None:
        alias: dict[str, str] = {}
        kept = []
        for node in self.nodes:
            for place, name in enumerate(node.input):
                node.input[place] = alias.get(name, name)
            drop = node.op_type == "Identity" or (
                node.op_type == "Dropout" and not (len(node.input) > 2 and node.input[2])
            )
            if drop and node.output[0] not in self.outputs and not any(node.output[1:]):
                alias[node.output[0]] = node.input[0]
            else:
                kept.append(node)
        self.nodes = kept

    def _own_constants(self) -> None:
        for node in self.nodes:
            if node.op_type in (*WEIGHTED, "BatchNormalization"):
                for place, name in enumerate(node.input):
                    if name in self.constants:
                        self.own(node, place)

    def _fold_norms(self) -> None:
        """Fold each batch norm into the convolution before it, where nothing else reads that one."""
        makers, readers = self.makers(), self.readers()
        kept = []
        for node in self.nodes:
            before = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
            constant = all(name in self.constants for name in node.input[1:5])
            foldable = (
                before is not None
                and constant
                and before.op_type == "Conv"
                and before.input[1] in self.constants
                and len(readers[node.input[0]]) == 1
                and node.input[0] not in self.outputs
                and not self.attributes(node).get("training_mode", 0)
            )
            if before is None or not foldable:
                kept.append(node)
                continue
            scale, shift, mean, variance = (self.constants[name].astype(np.float64) for name in node.input[1:5])
            factor = scale / np.sqrt(variance + self.attributes(node).get("epsilon", 1e-5))
            bias = self.bias_of(before)
            if bias is None:
                kept.append(node)
                continue
            weight = self.constants[before.input[1]]
            sides = (-1, *(1,) * (weight.ndim - 1))
            self.constants[before.input[1]] = (weight * factor.reshape(sides)).astype(np.float32)
            self.constants[bias] = ((self.constants[bias] - mean) * factor + shift).astype(np.float32)
            before.output[0] = node.output[0]
        self.nodes = kept


class OnnxSession:
    """A model in ONNX Runtime; `exact` leaves the graph as it is, so that every value can be read."""

    def __init__(self, data: bytes, exact: bool = False, threads: int = 0) -> None:
        self.session = open_session(data, threads, exact=exact)
        (self.input,) = self.session.get_inputs()
        first = self.input.shape[0] if self.input.shape else None
        self.batch = first if isinstance(first, int) else 0  # 0: any
        self.names = [value.name for value in self.session.get_outputs()]

    def run(self, batch: NDArray[np.float32], names: Sequence[str] | None = None) -> list[Array]:
        """The values of `names`, by default all outputs, for a batch (N, ...)."""
        wanted = list(self.names if names is None else names)
        size = self.batch or len(batch)
        parts = [
            self.session.run(wanted, {self.input.name: batch[start : start + size]})
            for start in range(0, len(batch), size)
        ]
        return [np.concatenate(column) if len(column) > 1 else column[0] for column in zip(*parts, strict=True)]

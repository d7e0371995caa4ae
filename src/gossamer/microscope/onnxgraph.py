"""An ONNX file as the graph that a traced module gives, so that one set of formulas counts both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gossamer.analysis.graph import Graph, Node, Value
from gossamer.errors import InputError, MissingPackageError
from gossamer.host.storage import open_regular

# ONNX operator -> the ATen operation that does the same work; those that are missing are counted as unknown
OPERATIONS = {
    "Abs": "abs",
    "Add": "add",
    "AveragePool": "avg_pool2d",
    "BatchNormalization": "native_batch_norm",
    "Cast": "_to_copy",
    "Clip": "clamp",
    "Concat": "cat",
    "Constant": "alias",
    "ConstantOfShape": "alias",
    "Conv": "convolution",
    "ConvInteger": "convolution",
    "ConvTranspose": "convolution",
    "DeformConv": "torchvision::deform_conv2d",
    "DepthToSpace": "pixel_shuffle",
    "DequantizeLinear": "_to_copy",
    "Div": "div",
    "Dropout": "alias",
    "Elu": "elu",
    "Erf": "erf",
    "Exp": "exp",
    "Expand": "alias",
    "Flatten": "view",
    "Gather": "index_select",
    "Gelu": "gelu",
    "Gemm": "mm",
    "GlobalAveragePool": "mean",
    "GlobalMaxPool": "amax",
    "GridSample": "grid_sampler_2d",
    "HardSigmoid": "hardsigmoid",
    "HardSwish": "hardswish",
    "Identity": "alias",
    "LeakyRelu": "leaky_relu",
    "MatMul": "mm",
    "MatMulInteger": "mm",
    "Max": "maximum",
    "MaxPool": "max_pool2d_with_indices",
    "Min": "minimum",
    "Mish": "mish",
    "Mul": "mul",
    "Neg": "neg",
    "PRelu": "_prelu_kernel",
    "Pad": "constant_pad_nd",
    "Pow": "pow",
    "QLinearConv": "convolution",
    "QuantizeLinear": "_to_copy",
    "ReduceMax": "amax",
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "Relu": "relu",
    "Reshape": "view",
    "Resize": "upsample_nearest2d",
    "Shape": "alias",
    "Sigmoid": "sigmoid",
    "Slice": "clone",
    "Softmax": "_softmax",
    "Softplus": "softplus",
    "Split": "clone",
    "Sqrt": "sqrt",
    "Squeeze": "view",
    "Sub": "sub",
    "Tanh": "tanh",
    "Transpose": "clone",
    "Unsqueeze": "view",
    "Upsample": "upsample_nearest2d",
}
VIEWS = frozenset({"alias", "view"})
# positions of an operator's image and weight among its inputs
OPERANDS = {"QLinearConv": (0, 3)}
SPATIAL = [2, 3]


def read_graph(path: str, input_shape: Sequence[int] | None = None) -> Graph:
    """The graph of an ONNX file at `input_shape`, by default the file's own with 1 and 224 for what it leaves open.

    `Value.name` and a node's `module` are the names in the file.
    Raises InputError for a file that onnx cannot read or with a shape that does not fit, MissingPackageError.
    """
    model, onnx = _model(path, input_shape)
    graph = model.graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    numbers = _single_numbers(onnx, graph)
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    shapes = dict(weights)
    for info in (*graph.input, *graph.value_info, *graph.output):
        dims = info.type.tensor_type.shape.dim
        shapes[info.name] = tuple(d.dim_value for d in dims) if info.type.tensor_type.HasField("shape") else ()
        # a map without a position is what onnx infers where a window is larger than its input; vectors may be empty
        if len(dims) > 2 and any(d.HasField("dim_value") and d.dim_value < 1 for d in dims):
            size = "x".join(str(d.dim_value) for d in graph.input[0].type.tensor_type.shape.dim)
            raise InputError(
                f"{path}: does not run at an input of {size}: {info.name} would be "
                f"{'x'.join(map(str, shapes[info.name]))}",
                "an input that all layers take",
                "give a larger --input CxHxW",
            )
        kinds.setdefault(info.name, info.type.tensor_type.elem_type)
    values: list[Value] = []
    at: dict[str, int] = {}

    def add(
        name: str, kind: str, memory: int | None = None, node: int = -1, shape: tuple[int, ...] | None = None
    ) -> int:
        index = len(values)
        dtype = _dtype(onnx, kinds.get(name, 1))
        values.append(
            Value(
                index,
                kind,
                shapes.get(name, ()) if shape is None else shape,
                dtype,
                index if memory is None else memory,
                node,
                name,
            )
        )
        at[name] = index
        return index

    for name in weights:
        # int64 vectors are shapes and axes, single numbers bounds; weights are the rest, quantised ones too
        learnt = len(weights[name]) > 1 or (weights[name] and _dtype(onnx, kinds[name]).is_floating_point)
        add(name, "parameter" if learnt else "constant")
    inputs = tuple(add(info.name, "input") for info in graph.input if info.name not in weights)
    nodes: list[Node] = []
    sparse = {tensor.values.name for tensor in graph.sparse_initializer}
    for proto in graph.node:
        onnx_attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        op = OPERATIONS.get(proto.op_type, f"onnx::{proto.op_type}")
        _check_inputs(path, proto, at, values, onnx_attributes, sparse)
        read = [at[name] for name in proto.input if name in at]
        if proto.op_type in OPERANDS:
            first = [read[place] for place in OPERANDS[proto.op_type]]
            read = first + [index for index in read if index not in first]
        if proto.op_type == "Gemm" and onnx_attributes.get("transB", 0):
            weight = values[read[1]]  # the formula wants (k, n)
            read[1] = add(proto.input[1], weight.kind, weight.memory, len(nodes), weight.shape[::-1])
            at[proto.input[1]] = weight.index
        index = len(nodes)
        first_read = values[read[0]] if read else None
        view = op in VIEWS and first_read is not None
        outputs = []
        for name in proto.output:
            if not name:
                continue
            kind = "activation"
            if all(values[i].kind in ("parameter", "constant") for i in read):
                kind = "constant"
            if view and first_read is not None:
                kind = first_read.kind if first_read.kind != "input" else "activation"
            outputs.append(add(name, kind, first_read.memory if view and first_read is not None else None, index))
        attributes = _attributes(proto.op_type, onnx_attributes)
        if proto.op_type == "Clip":  # bounds are attributes before operator set 11, then inputs
            inputs_of = (*proto.input, "", "")[1:3]
            attributes |= {
                side: onnx_attributes.get(side, numbers.get(name)) for side, name in zip(("min", "max"), inputs_of)
            }
        nodes.append(Node(index, op, proto.name or f"{proto.op_type}_{index}", tuple(read), tuple(outputs), attributes))
    return Graph(tuple(nodes), tuple(values), inputs, tuple(at[info.name] for info in graph.output if info.name in at))


def _check_inputs(
    path: str, proto: Any, at: dict[str, int], values: list[Value], onnx_attributes: dict[str, Any], sparse: set[str]
) -> None:
    """What the inference of shapes lets pass. Raises InputError for a node that reads what nothing makes, or weights that
    do not fit the map."""
    where = f"{path}: {proto.op_type} {proto.name or proto.output[0]}"
    for name in proto.input:
        if name and name not in at and name not in sparse:
            raise InputError(
                f"{where} reads {name!r}, which nothing makes",
                "inputs that a node or a weight gives",
                "export it again",
            )
    if proto.op_type == "Conv" and all(name in at for name in proto.input[:2]):
        image, weight = (values[at[name]].shape for name in proto.input[:2])
        groups = onnx_attributes.get("group", 1)
        if len(image) > 2 and len(weight) == len(image) and image[1] and image[1] != weight[1] * groups:
            raise InputError(
                f"{where}: a map of {image[1]} channels, weights for {weight[1] * groups}",
                "weights that fit",
                "export it again",
            )


def _model(path: str, input_shape: Sequence[int] | None) -> tuple[Any, Any]:
    """The file with all shapes filled in, and the onnx package."""
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError("onnx", "train", "inspecting an ONNX file") from error
    try:
        with open_regular(path):  # which refuses a pipe or a device
            model = onnx.load(path)
        weights = {tensor.name for tensor in model.graph.initializer}
        images = [info for info in model.graph.input if info.name not in weights]
        if not images:
            raise InputError(f"{path}: has no input", "a network with an image as its input", "give another file")
        dims = images[0].type.tensor_type.shape.dim
        wanted = tuple(input_shape or ())
        if wanted and len(wanted) != len(dims):
            wanted = (1,) * (len(dims) - len(wanted)) + wanted
        sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims]
        channels_last = len(sizes) == 4 and not sizes[1] and not sizes[2] and sizes[3] in (1, 3, 4)
        usual = (1, 224, 224, 3) if channels_last else (1, 3, *(224 for _ in sizes[2:]))
        for place, (dim, fixed) in enumerate(zip(dims, sizes, strict=True)):
            size = wanted[place] if wanted else fixed or usual[place]
            if fixed and size != fixed:
                raise InputError(
                    f"{path}: input of {'x'.join(map(str, wanted))}",
                    f"{'x'.join(str(d.dim_value or '?') for d in dims)}, as the file fixes it",
                    "leave --input out",
                )
            dim.dim_value = size
        del model.graph.value_info[:]
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True), onnx
    except InputError:
        raise
    except Exception as error:  # protobuf and onnx raise what they like on a broken file
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: {reason or type(error).__name__}", "a valid ONNX file", "export it again") from error


def _attributes(op: str, onnx_attributes: dict[str, Any]) -> dict[str, Any]:
    """ATen's names of what the formulas read."""
    attributes: dict[str, Any] = {
        "stride": list(onnx_attributes.get("strides", (1, 1))),
        "dilation": list(onnx_attributes.get("dilations", (1, 1))),
        "groups": onnx_attributes.get("group", 1),
        "transposed": op == "ConvTranspose",
    }
    if "kernel_shape" in onnx_attributes and op.endswith("Pool"):
        attributes["kernel_size"] = list(onnx_attributes["kernel_shape"])
    if op == "GridSample":
        mode = onnx_attributes.get("mode", b"linear")
        attributes["interpolation_mode"] = {b"nearest": 1, b"cubic": 2, b"bicubic": 2}.get(mode, 0)
    if op in ("GlobalAveragePool", "GlobalMaxPool"):
        attributes["dim"] = SPATIAL
    if op.startswith("Reduce"):
        attributes["dim"] = list(onnx_attributes.get("axes", SPATIAL))
    return attributes


def _single_numbers(onnx: Any, graph: Any) -> dict[str, float]:
    """The constants of a graph that are one number, by name."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output and node.attribute and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    numbers = {}
    for name, tensor in tensors.items():
        if all(side == 1 for side in tensor.dims) and _dtype(onnx, tensor.data_type).is_floating_point:
            try:
                numbers[name] = float(onnx.numpy_helper.to_array(tensor).reshape(()))
            except (
                TypeError,
                ValueError,
            ):  # without its data: the bound, which only names the operation, stays unknown
                continue
    return numbers


def _dtype(onnx: Any, number: int) -> torch.dtype:
    """torch's type of ONNX's number; those that torch lacks count as bytes."""
    names = {
        onnx.TensorProto.FLOAT: torch.float32,
        onnx.TensorProto.FLOAT16: torch.float16,
        onnx.TensorProto.BFLOAT16: torch.bfloat16,
        onnx.TensorProto.DOUBLE: torch.float64,
        onnx.TensorProto.INT64: torch.int64,
        onnx.TensorProto.INT32: torch.int32,
    }
    return names.get(number, torch.uint8)

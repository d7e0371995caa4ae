"""Every operator of the reference against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.modelfile.metadata import parse_model_file
from gossamer.modelfile.onnx import MESSAGES, OnnxNode, _node, protobuf
from gossamer.operators import OPERATORS
from gossamer.runtime.model import open_model
from tests.arrays import Array, f32


def i64(*values: int) -> Array:
    return np.array(values, np.int64)


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


X = f32(2, 6, 7, 9)  # distinct sides, so that a transposed axis cannot pass
POSITIVE = np.abs(f32(3, 4, 5)) + np.float32(0.1)
# operator, inputs, attributes: at least one row an operator
CASES: list[tuple[str, list[Array | None], dict[str, Any]]] = [
    ("Conv", [X, f32(5, 6, 1, 1)], {}),
    ("Conv", [X, f32(5, 6, 3, 2), f32(5)], {"pads": [1, 0, 2, 1]}),
    ("Conv", [X, f32(4, 6, 3, 3)], {"strides": [2, 3], "pads": [1, 1, 1, 1]}),
    ("Conv", [X, f32(4, 6, 3, 3)], {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    ("Conv", [X, f32(9, 2, 3, 3), f32(9)], {"group": 3, "pads": [1, 1, 1, 1]}),
    ("Conv", [X, f32(6, 1, 3, 3), f32(6)], {"group": 6, "pads": [1, 1, 1, 1]}),
    ("Conv", [X, f32(12, 1, 3, 2)], {"group": 6, "strides": [2, 1], "dilations": [1, 2]}),
    ("Conv", [X, f32(4, 6, 3, 4)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", [X, f32(4, 6, 4, 3)], {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
    ("Conv", [X, f32(4, 6, 3, 3)], {"auto_pad": "VALID"}),
    ("MaxPool", [X], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    ("MaxPool", [X], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1, "pads": [1, 1, 1, 1]}),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    ("AveragePool", [X], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [X], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("GlobalAveragePool", [X], {}),
    ("GlobalMaxPool", [X], {}),
    ("Gemm", [f32(3, 4), f32(4, 5)], {}),
    ("Gemm", [f32(4, 3), f32(5, 4), f32(5)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("MatMul", [f32(2, 3, 4), f32(4, 5)], {}),
    ("BatchNormalization", [X, f32(6), f32(6), f32(6), np.abs(f32(6))], {"epsilon": 1e-3}),
    ("Softmax", [X], {"axis": 1}),
    ("Softmax", [f32(3, 4) * 100], {}),
    ("QuantizeLinear", [X, scalar(0.02), np.array(7, np.uint8)], {}),
    ("QuantizeLinear", [np.array([0.5, 1.5, 2.5, -0.5, 300], np.float32), scalar(1)], {}),
    ("QuantizeLinear", [X, scalar(0.01), np.array(-3, np.int8)], {}),
    ("QuantizeLinear", [X, np.abs(f32(6)) + np.float32(0.01), np.arange(6, dtype=np.int8)], {"axis": 1}),
    ("DequantizeLinear", [np.arange(256, dtype=np.uint8), scalar(0.3), np.array(128, np.uint8)], {}),
    (
        "DequantizeLinear",
        [np.arange(-6, 6, dtype=np.int8).reshape(3, 4), f32(4), np.arange(4, dtype=np.int8)],
        {"axis": -1},
    ),
    ("DequantizeLinear", [np.array([2**24 + 1, -5], np.int32), scalar(0.5)], {}),
    ("Relu", [X], {}),
    ("LeakyRelu", [X], {"alpha": 0.2}),
    ("PRelu", [X, f32(6, 1, 1)], {}),
    ("Clip", [X, scalar(-0.5), scalar(0.7)], {}),
    ("Clip", [X, None, scalar(0.7)], {}),
    ("Clip", [X, scalar(0.1)], {}),
    ("HardSwish", [X * 3], {}),
    ("HardSigmoid", [X * 3], {}),
    ("HardSigmoid", [X * 3], {"alpha": 1 / 6, "beta": 0.5}),
    ("Sigmoid", [X * 40], {}),
    ("Tanh", [X], {}),
    ("Add", [X, f32(6, 1, 9)], {}),
    ("Sub", [X, f32(9)], {}),
    ("Mul", [X, f32(2, 6, 1, 1)], {}),
    ("Div", [X, POSITIVE[0, 0, :1]], {}),
    ("Div", [i64(-7, 7, -9, 9), i64(2, -2, -4, 4)], {}),
    ("Pow", [POSITIVE, scalar(0.75)], {}),
    ("Sqrt", [POSITIVE], {}),
    ("Exp", [X], {}),
    ("Neg", [X], {}),
    ("Abs", [X], {}),
    ("Max", [f32(3, 4), f32(4), f32(3, 1)], {}),
    ("Min", [f32(3, 4), f32(4), f32(3, 1)], {}),
    ("ReduceMean", [X, i64(2, 3)], {"keepdims": 0}),
    ("ReduceMean", [X, i64(-1)], {}),
    ("ReduceMean", [X], {}),
    ("ReduceMean", [X], {"noop_with_empty_axes": 1}),
    ("ReduceSum", [X, i64(1)], {}),
    ("ReduceMax", [X, i64(0, 2)], {"keepdims": 0}),
    ("Flatten", [X], {}),
    ("Flatten", [X], {"axis": -1}),
    ("Flatten", [X], {"axis": 0}),
    ("Reshape", [X, i64(0, 2, 3, -1)], {}),
    ("Reshape", [f32(0, 3), i64(3, 0)], {"allowzero": 1}),
    ("Resize", [X, None, np.array([1, 1, 2, 0.5], np.float32)], {"mode": "linear"}),
    ("Resize", [X, None, np.array([1, 1, 2, 3], np.float32)], {"mode": "nearest", "nearest_mode": "floor"}),
    ("Transpose", [X], {"perm": [0, 3, 1, 2]}),
    ("Transpose", [X], {}),
    ("Concat", [f32(2, 3, 4), f32(2, 5, 4)], {"axis": 1}),
    ("Concat", [f32(2, 3, 4), f32(2, 3, 1)], {"axis": -1}),
    ("Split", [X, i64(1, 3, 2)], {"axis": 1}),
    ("Split", [X], {"axis": 3, "num_outputs": 2}),
    ("Slice", [X, i64(1, -4), i64(6, 100), i64(1, 3)], {}),
    ("Slice", [X, i64(-1), i64(-100), i64(3), i64(-2)], {}),
    ("Slice", [X, i64(5), i64(1), i64(1), i64(-1)], {}),
    ("Slice", [X, i64(0, 2), i64(1, 5)], {}),
    ("Shape", [X], {}),
    ("Shape", [X], {"start": 1, "end": -1}),
    ("Gather", [X, i64(3, -1, 0)], {"axis": 1}),
    ("Gather", [i64(4, 5, 6), np.array(1, np.int64)], {}),
    ("Squeeze", [f32(2, 1, 3, 1), i64(1)], {}),
    ("Squeeze", [f32(2, 1, 3, 1)], {}),
    ("Unsqueeze", [f32(2, 3), i64(0, 3)], {}),
    ("Pad", [X, i64(0, 1, 2, 0, 0, 0, 1, 3), scalar(0.5)], {}),
    ("Pad", [X, i64(2, 1, 1, 3), None, i64(2, 3)], {"mode": "reflect"}),
    ("Pad", [X, i64(0, 0, 2, 1, 0, 0, 1, 0)], {"mode": "edge"}),
    ("Expand", [f32(3, 1), i64(2, 1, 4)], {}),
    ("Constant", [], {"value": f32(2, 3)}),
    ("Constant", [], {"value_floats": [0.5, 2.0]}),
    ("Constant", [], {"value_int": 7}),
    ("ConstantOfShape", [i64(2, 3)], {"value": i64(5)}),
    ("ConstantOfShape", [i64(2, 3)], {}),
    ("Cast", [X * 10], {"to": 7}),
    ("Cast", [i64(0, 2, -1)], {"to": 1}),
    ("Identity", [X], {}),
    ("Dropout", [X], {}),
]
PARTS = {"Split": 3}


def one_node(op: str, inputs: list[Array | None], attributes: dict[str, Any], parts: int, opset: int = 18) -> bytes:
    """An ONNX model of one node, whose inputs are the graph's and whose outputs (of any type) are too."""
    onnx = pytest.importorskip("onnx")
    named = {f"i{n}": value for n, value in enumerate(inputs) if value is not None}
    names = [f"i{n}" if value is not None else "" for n, value in enumerate(inputs)]
    plain = {k: onnx.numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for k, v in attributes.items()}
    node = onnx.helper.make_node(op, names, [f"o{n}" for n in range(parts)], **plain)
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in named.items()
        ],
        [onnx.helper.make_empty_tensor_value_info(f"o{n}") for n in range(parts)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    return bytes(model.SerializeToString())


def ours_and_onnxruntime(
    op: str, inputs: list[Array | None], attributes: dict[str, Any], parts: int, opset: int = 18
) -> tuple[list[Array], list[Array]]:
    onnxruntime = pytest.importorskip("onnxruntime")
    data = one_node(op, inputs, attributes, parts, opset)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    expected = session.run(None, {f"i{n}": value for n, value in enumerate(inputs) if value is not None})
    message = protobuf.MessageReader(MESSAGES).message(memoryview(data), "Model")
    node = _node(message["graph"]["node"][0])
    with np.errstate(all="ignore"):
        outputs = OPERATORS[op](node, *inputs)
    return list(outputs) if isinstance(outputs, tuple) else [outputs], expected


@pytest.mark.parametrize("op,inputs,attributes", CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_an_operator_gives_what_onnxruntime_gives(
    op: str, inputs: list[Array | None], attributes: dict[str, Any]
) -> None:
    parts = attributes.get("num_outputs", PARTS.get(op, 1))
    outputs, expected = ours_and_onnxruntime(op, inputs, attributes, parts)
    assert len(outputs) == len(expected)
    for one, other in zip(outputs, expected):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_every_operator_has_a_case() -> None:
    assert {op for op, _, _ in CASES} == set(OPERATORS)


def test_axes_as_attributes_of_older_operator_sets_are_read() -> None:
    for op, attributes in (("ReduceMean", {"axes": [2, 3], "keepdims": 0}), ("ReduceMax", {"axes": [1]})):
        outputs, expected = ours_and_onnxruntime(op, [X], attributes, 1, opset=13)
        np.testing.assert_allclose(outputs[0], expected[0], rtol=1e-5, atol=1e-6)


@settings(max_examples=60)
@given(
    st.sampled_from(["Conv", "MaxPool", "AveragePool"]),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(5, 9), st.integers(5, 9)),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
)
def test_windows_of_any_kind_give_what_onnxruntime_gives(
    op: str,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    sides: tuple[int, int],
    group: int,
    flag: bool,
) -> None:
    pads = tuple(min(pad, kernel[i % 2] - 1) for i, pad in enumerate(pads))  # type: ignore[assignment]
    inputs: list[Array | None] = [f32(2, 4, *sides)]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if op == "Conv":
        inputs += [f32(8, 4 // group, *kernel)]
        attributes["group"] = group
    elif op == "AveragePool":
        attributes["count_include_pad"] = int(flag)
    else:
        attributes["ceil_mode"] = int(flag)
    outputs, expected = ours_and_onnxruntime(op, inputs, attributes, 1)
    assert outputs[0].shape == expected[0].shape
    np.testing.assert_allclose(outputs[0], expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "op,inputs,attributes,reason",
    [
        ("Conv", [f32(1, 2, 5), f32(3, 2, 3)], {}, "3 axes"),
        ("Conv", [X, f32(4, 5, 1, 1)], {}, "do not fit 6 channels"),
        ("Conv", [f32(1, 6, 2, 2), f32(4, 6, 3, 3)], {}, "does not fit 2"),
        ("MaxPool", [X], {}, "kernel_shape None"),
        ("MaxPool", [X], {"kernel_shape": [2, 2], "pads": [-1, 0, 0, 0]}, "pads"),
        ("BatchNormalization", [X, f32(6), f32(6), f32(6), f32(6)], {"training_mode": 1}, "training_mode"),
        ("Dropout", [X, scalar(0.5), np.array(True)], {}, "training_mode"),
        ("Pad", [X, i64(*[2**30] * 8)], {}, "a result of shape"),
        ("Pad", [X, i64(0, 0, 0, 0, 0, 0, 0, -1)], {}, "pads"),
        ("Expand", [f32(1), i64(2**40)], {}, "a result of shape"),
        ("ConstantOfShape", [i64(2**20, 2**20)], {}, "a result of shape"),
        ("Cast", [X], {"to": 16}, "type 16"),
        ("Constant", [], {"value_string": b"x"}, "value_string"),
    ],
)
def test_what_an_operator_does_not_know_it_refuses(
    op: str, inputs: list[Array], attributes: dict[str, Any], reason: str
) -> None:
    node = OnnxNode(op, "n", ("x",), ("y",), attributes)
    with pytest.raises(ValueError, match=reason):
        OPERATORS[op](node, *inputs)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("where", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("to", [(7, 11), (2, 3), (4, 5), (1, 1)])
def test_resize_is_what_onnx_runtime_computes(mode: str, where: str, to: tuple[int, int]) -> None:
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": where}
    nodes = [onnx.helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **options)]
    inputs = [onnx.helper.make_tensor_value_info("x", 1, ["n", 3, 4, 5])]
    outputs_info = [onnx.helper.make_tensor_value_info("y", 1, ["n", 3, *to])]
    sizes = onnx.numpy_helper.from_array(np.array([2, 3, *to], np.int64), "sizes")
    graph = onnx.helper.make_graph(nodes, "resize", inputs, outputs_info, [sizes])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    data = model.SerializeToString()
    expected = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    outputs = open_model(parse_model_file(data), "reference").run(x)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)

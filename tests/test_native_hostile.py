"""ONNX corrupt files, compiled: one clear line for each, and never another error, whatever is changed in a good file."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gossamer.cli.main import main
from gossamer.compile.lower import lower
from gossamer.compile.write import compile_bytes
from gossamer.errors import InputError
from gossamer.modelfile.metadata import parse_model_file

pytest.importorskip("onnx")
from onnx import helper, numpy_helper

from tests.hostilenodes import MODELS, change, int64, model, noise

NAN, INFINITY = float("nan"), float("inf")


def node(op: str, *constants: Any, opset: int = 18, gives: str = "y", **attributes: Any) -> Any:
    """A model of one operator over a map of 8 channels, 12 x 14; None: an input left out; a ReLU behind it."""
    names = ["x", *("" if one is None else f"c{place}" for place, one in enumerate(constants))]
    tensors = {f"c{place}": one for place, one in enumerate(constants) if one is not None}
    nodes = [(op, ",".join(names), gives, attributes), ("Relu", "x", "other", {})]
    return model(nodes, tensors, f"{gives.split(',')[0]},other", opset)


def shape(*nodes: Any, **tensors: Any) -> Any:
    """A model that reshapes by what nodes make of its input's sides."""
    return model([("Shape", "x", "s", {}), *nodes, ("Reshape", "x,sides", "y", {})], tensors, "y")


def row(op: str, *constants: Any, **attributes: Any) -> Any:
    """As `node`, over the 8 numbers of a pooled and flattened map."""
    names = ["row", *(f"c{place}" for place in range(len(constants)))]
    nodes = [("GlobalAveragePool", "x", "m", {}), ("Flatten", "m", "row", {}), (op, ",".join(names), "y", attributes)]
    return model(nodes, {f"c{place}": one for place, one in enumerate(constants)}, "y")


def texts(file: Any, name: str, text: bytes) -> Any:
    file.graph.node[0].attribute.append(helper.make_attribute(name, text))
    return file


def sides(c: int, h: int, w: int) -> Any:
    file = node("Relu")
    for axis, side in zip(file.graph.input[0].type.tensor_type.shape.dim[1:], (c, h, w)):
        axis.dim_value = side
    return file


def gone(file: Any, what: str) -> Any:
    del getattr(file.graph.node[0], what)[:]
    return file


def conv(**more: Any) -> Any:
    return node("Conv", noise(6, 8, 3, 3), noise(6), **more)


def pool(**more: Any) -> Any:
    return node("MaxPool", **{"kernel_shape": [3, 3], **more})


def around(*numbers: int, **more: Any) -> Any:
    return node("Pad", int64(*numbers), **{"mode": "edge", **more})


def norm(*constants: Any) -> Any:
    return node("BatchNormalization", *constants)


def up(*constants: Any) -> Any:
    return node("Resize", None, *constants, mode="linear")


def transposed(weight: Any = None, **more: Any) -> Any:
    return node("ConvTranspose", noise(8, 5, 3, 3) if weight is None else weight, **more)


REFUSED = {
    # sides of maps
    "Gather beyond the shape": shape(("Gather", "s,at", "sides", {}), at=int64(0, 4)),
    "Gather along another axis": shape(("Gather", "s,at", "sides", {"axis": 1}), at=int64(0)),
    "Gather by floats": shape(("Gather", "s,at", "sides", {}), at=np.array([NAN], np.float32)),
    "Gather without places": shape(("Gather", "s", "sides", {})),
    "Slice without an end": shape(("Slice", "s,at", "sides", {}), at=int64(0)),
    "Slice from nothing": shape(("Slice", "s,at,at", "sides", {}), at=np.zeros(0, np.int64)),
    "Slice of a NaN": shape(("Slice", "s,at,at", "sides", {}), at=np.array([NAN], np.float32)),
    "Slice by steps of 0": shape(("Slice", "s,at,end,at,at", "sides", {}), at=int64(0), end=int64(4)),
    "Slice along axis 1": shape(("Slice", "s,at,end,end", "sides", {}), at=int64(0), end=int64(1)),
    "Concat of sides along axis 1": shape(("Concat", "s,at", "sides", {"axis": 1}), at=int64(0)),
    "Concat with floats": shape(("Concat", "s,at", "sides", {"axis": 0}), at=np.array([NAN], np.float32)),
    "Concat of nothing": gone(node("Concat", axis=1), "input"),
    "Reshape by floats": node("Reshape", np.array([0, NAN], np.float32)),
    "Reshape to 0": node("Reshape", int64(0, 0, 0, 0, 0)),
    "Reshape to two unknowns": node("Reshape", int64(0, -1, -1)),
    "Reshape to less": node("Reshape", int64(0, -2, 7)),
    "Reshape without a shape": node("Reshape"),
    "an input without channels": sides(0, 12, 14),
    "an input of negative sides": sides(8, -12, 14),
    "an input too large": sides(8, 2**40, 14),
    "no operation": model([("Identity", "x", "y", {})], {}, "y"),
    "no output": gone(node("Relu"), "output"),
    "no input": gone(node("Relu"), "input"),
    # windows
    "a convolution of two pads": conv(pads=[1, 1]),
    "a convolution of negative pads": conv(pads=[-1, 0, 0, 0]),
    "a convolution of far too many pads": conv(pads=[2**40, 0, 0, 0]),
    "a convolution of 70 pads": conv(pads=[70, 0, 0, 0]),
    "a convolution of three strides": conv(strides=[1, 1, 1]),
    "a convolution of no stride": conv(strides=[0, 1]),
    "a convolution of strides in floats": conv(strides=[1.0, 1.0]),
    "a convolution of strides in text": conv(strides="two"),
    "a convolution of no dilation": conv(dilations=[0, 0]),
    "a convolution larger than its map": conv(dilations=[9, 9]),
    "a convolution of another kernel": conv(kernel_shape=[5, 5]),
    "a convolution of no group": conv(group=0),
    "a convolution of -1 groups": conv(group=-1),
    "a convolution of a text of groups": conv(group="all"),
    "a convolution that says how to pad in bytes": texts(conv(), "auto_pad", b"\xff\xfe"),
    "a convolution that pads as nothing does": conv(auto_pad="SAME"),
    "a convolution of three axes": node("Conv", noise(6, 8, 3)),
    "a convolution without a weight": node("Conv"),
    "a convolution of a short bias": node("Conv", noise(6, 8, 3, 3), noise(5)),
    "a convolution of a bias in float64": node("Conv", noise(6, 8, 3, 3), np.zeros(6)),
    "a convolution of nothing": node("Conv", np.zeros((0, 8, 3, 3), np.float32)),
    "a pool of six pads": pool(pads=[0, 0, 1, 1, 1, 1]),
    "a pool of pads alone": pool(pads=[3, 0, 0, 0]),
    "a pool without a kernel": node("MaxPool"),
    "a pool of an empty kernel": pool(kernel_shape=[0, 0]),
    "a pool of one side": pool(kernel_shape=[3]),
    "a pool of strides of -1": pool(strides=[-1, -1], ceil_mode=1),
    "a pool larger than its map": pool(kernel_shape=[13, 13]),
    "a mean that keeps a tensor of axes": node(
        "ReduceMean", int64(2, 3), keepdims=numpy_helper.from_array(int64(1, 1))
    ),
    "a pool of half a ceil_mode": pool(ceil_mode=7),
    "a transposed convolution of no stride": transposed(strides=[0, 0]),
    "a transposed convolution of one stride": transposed(strides=[2]),
    "a transposed convolution spread too far": transposed(dilations=[60000, 60000]),
    "a transposed convolution of no group": transposed(group=0),
    "a transposed convolution of three groups": transposed(group=3),
    "a transposed convolution of a short bias": node("ConvTranspose", noise(8, 5, 3, 3), noise(4)),
    "a transposed convolution of much padding": transposed(pads=[50, 50, 50, 50]),
    # padding of its own
    "Pad of NaN": node("Pad", np.full(8, NAN, np.float32)),
    "Pad of two numbers": around(1, 1),
    "Pad of no numbers": node("Pad"),
    "Pad of a negative number": around(0, 0, -1, 0, 0, 0, 0, 0),
    "Pad along axis 7": node("Pad", int64(1, 1), None, int64(7), mode="edge"),
    "Pad along one axis twice": node("Pad", int64(1, 1, 1, 1), None, int64(2, -2), mode="edge"),
    "Pad that mirrors more than there is": around(0, 0, 12, 0, 0, 0, 0, 0, mode="reflect"),
    "Pad that repeats more than there is": around(0, 0, 0, 15, 0, 0, 0, 0, mode="wrap"),
    "Pad in a mode of bytes": texts(node("Pad", int64(*[0] * 8)), "mode", b"\xff\xfe"),
    "Pad in an unknown mode": around(*[0] * 8, mode="twice"),
    "Pad with an empty tensor": node("Pad", int64(*[0] * 8), np.zeros(0, np.float32)),
    "Pad with a NaN": node("Pad", int64(*[0] * 8), np.float32(NAN)),
    "Pad with a text": node("Pad", pads=[0] * 8, value="zero", opset=10),
    # axes
    "Transpose of one axis": node("Transpose", perm=[0]),
    "Transpose that moves the batch": node("Transpose", perm=[1, 0, 2, 3]),
    "Transpose of an axis twice": node("Transpose", perm=[0, 1, 1, 3]),
    "Transpose of an axis beyond": node("Transpose", perm=[0, 1, 2, 9]),
    "Softmax over the batch": node("Softmax", axis=0),
    "Softmax over axis 9": node("Softmax", axis=9),
    "Softmax over a text": node("Softmax", axis="last"),
    "ReduceMean over axis 9": node("ReduceMean", int64(9)),
    "ReduceMean over an axis twice": node("ReduceMean", int64(2, 2)),
    "ReduceMean over half an axis": node("ReduceMean", np.array([1.5], np.float32)),
    "ReduceMax over nothing": node("ReduceMax", np.zeros(0, np.int64)),
    "Squeeze of axis 9": node("Squeeze", int64(9)),
    "Unsqueeze at axis 9": node("Unsqueeze", int64(9)),
    "Unsqueeze at an axis twice": node("Unsqueeze", int64(1, 1)),
    "Concat without an axis": node("Concat", noise(1, 8, 12, 14)),
    "Split into more than there is": node("Split", int64(5, 5), gives="y,z", axis=1),
    "Split into less than nothing": node("Split", int64(-1, 9), gives="y,z", axis=1),
    "Split into three of two": node("Split", int64(2, 2, 4), gives="y,z", axis=1),
    "Split into thirds": node("Split", gives="y,z,v", axis=1),
    "Slice of channels that are not there": node("Slice", int64(8), int64(9), int64(1)),
    "Slice backwards": node("Slice", int64(0), int64(8), int64(1), int64(-1)),
    "Slice of more starts than ends": node("Slice", int64(0, 0), int64(8), int64(1)),
    # numbers
    "Resize by 0": up(np.array([1, 1, 0, 1], np.float32)),
    "Resize by NaN": up(np.array([1, 1, NAN, 1], np.float32)),
    "Resize by infinity": up(np.array([1, 1, INFINITY, 1], np.float32)),
    "Resize of channels": up(np.array([1, 2, 1, 1], np.float32)),
    "Resize by two scales": up(np.array([2, 2], np.float32)),
    "Resize to no rows": up(None, int64(1, 8, 0, 4)),
    "Resize to far too much": up(None, int64(1, 8, 2**60, 4)),
    "Resize to other channels": up(None, int64(1, 9, 4, 4)),
    "Resize by nothing": up(),
    "Resize by a mode of bytes": texts(node("Resize", None, np.ones(4, np.float32)), "mode", b"\xff"),
    "Clip from more to less": node("Clip", np.float32(1), np.float32(0)),
    "Clip from NaN": node("Clip", np.float32(NAN)),
    "Clip of a row": node("Clip", noise(3)),
    "Clip of nothing": node("Clip", np.zeros(0, np.float32)),
    "Clip of a text": node("Clip", min="none", opset=9),
    "LeakyRelu of a text": node("LeakyRelu", alpha="text"),
    "LeakyRelu of NaN": node("LeakyRelu", alpha=NAN),
    "BatchNormalization without a mean": norm(noise(8), noise(8)),
    "BatchNormalization of fewer channels": norm(noise(8), noise(8), noise(7), noise(7)),
    "BatchNormalization in float64": norm(*[np.ones(8)] * 4),
    "DepthToSpace of 0": node("DepthToSpace", blocksize=0),
    "DepthToSpace in an unknown mode": node("DepthToSpace", blocksize=2, mode="ABC"),
    "Add of five axes": node("Add", np.ones((1, 1, 1, 1, 1), np.float32)),
    "Add of another row": node("Add", noise(1, 7, 1, 1)),
    "Add of one input": node("Add"),
    "Mul of three": node("Mul", noise(1), noise(1)),
    "Div by zero": node("Div", np.float32(0)),
    "Gemm of a text of alpha": row("Gemm", noise(8, 5), alpha="one"),
    "Gemm of a short bias": row("Gemm", noise(8, 5), noise(4)),
    "Gemm of three axes": row("Gemm", noise(1, 8, 5)),
    "Gemm of another height": row("Gemm", noise(7, 5)),
    "Gemm of nothing": row("Gemm", noise(8, 0)),
    "MatMul of one input": row("MatMul"),
    # bytes
    "a scale of 0": node("QuantizeLinear", np.float32(0), np.uint8(0)),
    "a scale of NaN": node("QuantizeLinear", np.float32(NAN), np.uint8(0)),
    "a scale of two numbers": node("QuantizeLinear", noise(2), np.uint8(0)),
    "a zero of 16 bits": node("QuantizeLinear", np.float32(1), np.int16(0)),
    "scales of another axis": model(
        [("DequantizeLinear", "q,s", "w", {"axis": 9}), ("Conv", "x,w", "y", {})],
        {"q": np.ones((6, 8, 1, 1), np.int8), "s": np.ones(6, np.float32)},
        "y",
    ),
    "more scales than rows": model(
        [("DequantizeLinear", "q,s", "w", {"axis": 0}), ("Conv", "x,w", "y", {})],
        {"q": np.ones((6, 8, 1, 1), np.int8), "s": np.ones(7, np.float32)},
        "y",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_node_that_no_file_can_have_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError) as refused:
        compile_bytes(parse_model_file(REFUSED[name].SerializeToString()))
    assert len(str(refused.value)) < 2000
    assert refused.value.exit_code == 2


def test_a_hostile_file_is_one_line_of_the_command(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(REFUSED["Gather beyond the shape"].SerializeToString())
    assert main(["compile", str(tmp_path / "m.onnx"), "--out", str(tmp_path / "m.goss")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "operator Gather" in error
    assert not (tmp_path / "m.goss").exists()


@pytest.mark.parametrize("name", MODELS)
def test_the_files_that_are_changed_compile(name: str) -> None:
    for precision in ("float32", "bfloat16"):
        compile_bytes(parse_model_file(MODELS[name]().SerializeToString()), precision)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(MODELS)), st.integers(0, 2**32), st.integers(1, 3), st.sampled_from(["float32", "bfloat16"])
)
def test_a_changed_file_compiles_or_is_refused(name: str, seed: int, changes: int, precision: str) -> None:
    file, rng = MODELS[name](), random.Random(seed)
    for _ in range(changes):
        change(file, rng)
    try:
        compile_bytes(parse_model_file(file.SerializeToString()), precision)
    except InputError as error:
        assert len(str(error)) < 2000


def test_an_output_within_what_becomes_one_operation_stays_what_it_is() -> None:
    """x * sigmoid(x), a shuffle and distances are one operation each, but not where the file gives away a part of them."""
    gate = [("Sigmoid", "x", "s", {}), ("Mul", "x,s", "y", {})]
    program = lower(parse_model_file(model(gate, {}, "s,y").SerializeToString()).onnx)
    assert [one.act for one in program.operations] == ["sigmoid", "none"]
    assert program.outputs[0].pieces != program.outputs[1].pieces

"""Pad before a MaxPool: what the compiled file computes is what the ONNX specification says, as `onnx.reference` computes it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from gossamer.compile.write import compile_bytes
from gossamer.errors import InputError
from gossamer.modelfile.metadata import parse_model_file
from gossamer.runtime.native import LIBRARY, Native

pytestmark = pytest.mark.skipif(not LIBRARY.is_file(), reason="the native engine is not built")

LEAST = float(np.finfo(np.float32).min)
X = np.random.default_rng(0).standard_normal((1, 3, 5, 6)).astype(np.float32) - np.float32(0.5)


def model(fill: float, around: tuple[int, ...], relu: bool = True, **pool: object) -> onnx.ModelProto:
    """Relu where asked, Pad by `around` (top, left, bottom, right), MaxPool with the attributes `pool`."""
    top, left, bottom, right = around
    nodes = [helper.make_node("Relu" if relu else "Identity", ["x"], ["r"])]
    nodes += [helper.make_node("Pad", ["r", "pads", "fill"], ["p"]), helper.make_node("MaxPool", ["p"], ["y"], **pool)]
    tensors = [
        helper.make_tensor("pads", TensorProto.INT64, [8], [0, 0, top, left, 0, 0, bottom, right]),
        helper.make_tensor("fill", TensorProto.FLOAT, [], [fill]),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, None, None])
    graph = helper.make_graph(nodes, "g", [image], [result], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


def compiled(network: onnx.ModelProto, folder: Path) -> NDArray[np.float32]:
    data, _ = compile_bytes(parse_model_file(network.SerializeToString(), "m.onnx"), "float32")
    path = folder / "m.goss"
    path.write_bytes(data)
    return np.asarray(Native(path, 1)(X))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "VALID", "NOTSET"])
@pytest.mark.parametrize("relu", [True, False])
def test_pad_before_a_max_pool_is_what_the_specification_says(auto_pad: str, relu: bool, tmp_path: Path) -> None:
    kernels, strides = [(2, 2), (3, 3), (3, 2)], [(1, 1), (2, 2)]
    fills, around = [0.0, 7.0, LEAST, -np.inf], [(1, 1, 1, 1), (0, 0, 1, 1), (2, 1, 0, 2)]
    done, refused = 0, []
    for kernel, stride, fill, pads in itertools.product(kernels, strides, fills, around):
        network = model(fill, pads, relu, kernel_shape=kernel, strides=stride, auto_pad=auto_pad)
        expected = ReferenceEvaluator(network).run(None, {"x": X})[0]
        try:
            actual = compiled(network, tmp_path)
        except InputError as error:
            refused.append((fill, str(error)))
            continue
        np.testing.assert_allclose(actual, expected, 0, 2e-6, err_msg=f"{kernel} {stride} {fill} {pads}")  # 7 is added
        done += 1
    assert done >= 40
    # 0 that ONNX Runtime takes as -infinity, and the least number where a window lies in it alone
    assert all(
        fill == LEAST or (fill == 0 and auto_pad == "NOTSET" and "ONNX Runtime" in text) for fill, text in refused
    )


@pytest.mark.parametrize("pool", [{"dilations": (2, 3)}, {"ceil_mode": 1}, {"pads": (1, 0, 1, 1)}, {"strides": (3, 4)}])
@pytest.mark.parametrize("pads", [(0, 0, 1, 1), (1, 1, 1, 1), (3, 2, 2, 3)])
@pytest.mark.parametrize("fill", [0.0, LEAST])
def test_no_window_of_padding_alone_is_taken_for_the_pools_own(
    fill: float, pads: tuple[int, ...], pool: dict[str, object], tmp_path: Path
) -> None:
    network = model(fill, pads, kernel_shape=(2, 2), **{"strides": (1, 1), **pool})
    expected = ReferenceEvaluator(network).run(None, {"x": X})[0]
    try:
        actual = compiled(network, tmp_path)
    except InputError:
        return
    np.testing.assert_array_equal(actual, expected)

"""Forms that other exporters and older operator sets give a network, on the native engine beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.compile.write import compile_file
from gossamer.errors import InputError
from gossamer.modelfile.metadata import parse_model_file
from gossamer.runtime import native
from gossamer.runtime.compilation import compile_model
from tests.test_native_heads import SIZE, agree, images, native_outputs, noise, onnx_outputs

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper


def test_a_classifier_may_be_a_product_and_a_sum(tmp_path: Path) -> None:
    """As other frameworks write a fully connected layer; the sum costs no operation."""
    rng, onnx, out = np.random.default_rng(0), tmp_path / "m.onnx", tmp_path / "m.goss"
    constants = {"first": noise((12, 3, 3, 3), rng), "weight": noise((12, 7), rng), "bias": noise((7,), rng)}
    nodes = [
        helper.make_node("Conv", ["input", "first"], ["map"], strides=[2, 2], auto_pad="SAME_UPPER"),
        helper.make_node("GlobalAveragePool", ["map"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["row"]),
        helper.make_node("MatMul", ["row", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["y"]),
    ]
    input_info = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, *SIZE])
    output_info = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 7])
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "classifier", [input_info], [output_info], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.write_bytes(model.SerializeToString())
    compile_file(onnx, out)
    agree(native_outputs(native.Native(out, 1), images(2)), onnx_outputs(onnx))
    assert [one.kind for one in fuse(lower(parse_model_file(onnx.read_bytes()).onnx)).operations] == [
        "conv",
        "global_average",
        "conv",
    ]
    assert compile_model(onnx, tmp_path / "8.goss", classifier="int8").checks.largest > 0


@pytest.mark.parametrize("opset", [9, 10])
def test_files_of_old_operator_sets_agree_with_onnx_runtime(opset: int, tmp_path: Path) -> None:
    """What is an input now was an attribute then, and a softmax went over all axes from one on."""
    rng, onnx, out = np.random.default_rng(0), tmp_path / "m.onnx", tmp_path / "m.goss"
    constants = {
        "first": noise((12, 3, 3, 3), rng),
        "weight": noise((7, 12), rng),
        "twice": np.array([1, 1, 2, 2], np.float32),
    }
    larger = helper.make_node("Upsample" if opset < 10 else "Resize", ["most", "twice"], ["large"], mode="nearest")
    nodes = [
        helper.make_node("Pad", ["input"], ["wide"], pads=[0, 0, 0, 1, 0, 0, 2, 0]),
        helper.make_node("Conv", ["wide", "first"], ["map"], strides=[2, 2]),
        helper.make_node("Clip", ["map"], ["clipped"], min=0.0, max=6.0),
        helper.make_node("MaxPool", ["clipped"], ["most"], kernel_shape=[3, 3], strides=[2, 2]),
        larger,
        helper.make_node("Clip", ["large"], ["high"], min=0.5),
        helper.make_node("GlobalAveragePool", ["high"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["row"]),
        helper.make_node("Gemm", ["row", "weight", "bias"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["y"]),
    ]
    input_info = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, *SIZE])
    output_info = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 7])
    tensors = [numpy_helper.from_array(v, name) for name, v in {**constants, "bias": noise((7,), rng)}.items()]
    graph = helper.make_graph(nodes, "old", [input_info], [output_info], tensors)
    onnx.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4).SerializeToString()
    )
    compile_file(onnx, out)
    agree(native_outputs(native.Native(out, 1), images(2)), onnx_outputs(onnx))


def test_constants_are_computed_and_sides_of_maps_followed(tmp_path: Path) -> None:
    """As torch's older exporter writes a file: constants as nodes, shared weights, shapes from the batch's own."""
    rng, onnx, out = np.random.default_rng(0), tmp_path / "m.onnx", tmp_path / "m.goss"
    tensors = {
        "first": noise((12, 3, 3, 3), rng),
        "weight": noise((7, 12), rng),
        "bias": noise((7,), rng),
        "two": np.float32(2.0),
        "at": np.array(0),
        "axes": np.array([0]),
        "split": np.array([3, 4, 10, 13]),
        "together": np.array([12, 10, 13]),
        "rest": np.array([-1]),
    }

    def sides(source: str, rest: str) -> list[Any]:
        """The shape (batch of `source`, *rest), called shape-SOURCE."""
        return [
            helper.make_node("Shape", [source], [f"sides-{source}"]),
            helper.make_node("Gather", [f"sides-{source}", "at"], [f"batch-{source}"], axis=0),
            helper.make_node("Unsqueeze", [f"batch-{source}", "axes"], [f"one-{source}"]),
            helper.make_node("Concat", [f"one-{source}", rest], [f"shape-{source}"], axis=0),
        ]

    nodes = [
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Constant", [], ["six"], value=numpy_helper.from_array(np.float32(6))),
        helper.make_node("Identity", ["first"], ["again"]),
        helper.make_node("Mul", ["bias", "two"], ["larger"]),
        helper.make_node("Conv", ["input", "again"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["map", "zero", "six"], ["clipped"]),
        *sides("clipped", "split"),
        helper.make_node("Reshape", ["clipped", "shape-clipped"], ["groups"]),
        helper.make_node("Transpose", ["groups"], ["turned"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Concat", ["one-clipped", "together"], ["shape-turned"], axis=0),
        helper.make_node("Reshape", ["turned", "shape-turned"], ["shuffled"]),
        helper.make_node("GlobalAveragePool", ["shuffled"], ["mean"]),
        *sides("mean", "rest"),
        helper.make_node("Reshape", ["mean", "shape-mean"], ["row"]),
        helper.make_node("Gemm", ["row", "weight", "larger"], ["y"], transB=1),
    ]
    input_info = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, *SIZE])
    output_info = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 7])
    graph = helper.make_graph(
        nodes,
        "older",
        [input_info],
        [output_info],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.write_bytes(model.SerializeToString())
    compile_file(onnx, out)
    agree(native_outputs(native.Native(out, 1), images(2)), onnx_outputs(onnx))
    kinds = [one.kind for one in fuse(lower(parse_model_file(onnx.read_bytes()).onnx)).operations]
    assert kinds == ["conv", "shuffle", "global_average", "conv"]


def test_constants_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["three", "two"], ["never"]),
        helper.make_node("Mul", ["input", "never"], ["y"]),
    ]
    input_info = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, *SIZE])
    output_info = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, *SIZE])
    tensors = [numpy_helper.from_array(np.ones(count, np.float32), name) for count, name in ((3, "three"), (2, "two"))]
    graph = helper.make_graph(nodes, "wrong", [input_info], [output_info], tensors)
    onnx = tmp_path / "wrong.onnx"
    onnx.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )
    with pytest.raises(InputError, match=r"operator Add: .*cannot be computed.*; allowed: other forms of Add; "):
        compile_file(onnx, tmp_path / "wrong.goss")


@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("slope", [{}, {"alpha": 1 / 6}, {"alpha": 1 / 6, "beta": 0.4}, {"alpha": 0.25, "beta": 0.75}])
def test_hard_sigmoids_of_any_slope_agree_with_onnx_runtime(
    slope: dict[str, float], times: bool, tmp_path: Path
) -> None:
    """Other frameworks have a slope of 0.2; alone and as a gate of what it reads, of a map and of rows of it."""
    onnx, out = tmp_path / "m.onnx", tmp_path / "m.goss"
    tensors = [
        numpy_helper.from_array(3 * noise((12, 3, 3, 3), np.random.default_rng(0)), "first"),
        numpy_helper.from_array(np.array([0, 12, -1]), "rows"),
    ]
    nodes = [helper.make_node("Conv", ["input", "first"], ["map"])]
    if not times:
        nodes.append(helper.make_node("Reshape", ["map", "rows"], ["flat"]))
    nodes.append(helper.make_node("HardSigmoid", ["map" if times else "flat"], ["gate" if times else "y"], **slope))
    if times:
        nodes.append(helper.make_node("Mul", ["map", "gate"], ["y"]))
    input_info = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, *SIZE])
    output_info = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 12, *[None] * (2 if times else 1)])
    graph = helper.make_graph(nodes, "gates", [input_info], [output_info], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.write_bytes(model.SerializeToString())
    compile_file(onnx, out)
    agree(native_outputs(native.Native(out, 1), images(2)), onnx_outputs(onnx))


def test_batch_norms_go_into_the_convolutions_before_them(tmp_path: Path) -> None:
    """As files have them whose exporter did not; one behind a sum, or behind an activation, stays."""
    rng, onnx, out = np.random.default_rng(0), tmp_path / "m.onnx", tmp_path / "m.goss"
    tensors = {
        "first": noise((12, 3, 3, 3), rng),
        "deep": noise((12, 1, 3, 3), rng),
        "last": noise((12, 12, 1, 1), rng),
    }
    nodes: list[Any] = []

    def layer(op: str, source: str, name: str, **more: Any) -> None:
        rows = {f"{name}-{one}": noise((12,), rng) for one in ("scale", "shift", "mean")}
        tensors.update(rows | {f"{name}-variance": rng.uniform(0.5, 2, 12).astype(np.float32)})
        if op == "Conv":
            nodes.append(helper.make_node("Conv", [source, name], [f"{name}-map"], **more))
            source = f"{name}-map"
        normed = [source, *rows, f"{name}-variance"]
        nodes.append(helper.make_node("BatchNormalization", normed, [f"{name}-normed"]))

    layer("Conv", "input", "first", strides=[2, 2])
    nodes.append(helper.make_node("Relu", ["first-normed"], ["a"]))
    layer("Conv", "a", "deep", group=12, pads=[1, 1, 1, 1])
    nodes.append(helper.make_node("HardSwish", ["deep-normed"], ["b"]))
    layer("Conv", "b", "last")
    nodes.append(helper.make_node("Add", ["last-normed", "a"], ["sum"]))
    layer("Norm", "sum", "behind")
    nodes.append(helper.make_node("Identity", ["behind-normed"], ["y"]))
    input_info = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, *SIZE])
    output_info = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 12, None, None])
    graph = helper.make_graph(
        nodes,
        "norms",
        [input_info],
        [output_info],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.write_bytes(model.SerializeToString())
    compile_file(onnx, out)
    agree(native_outputs(native.Native(out, 1), images(2)), onnx_outputs(onnx))
    kinds = [one.kind for one in fuse(lower(parse_model_file(onnx.read_bytes()).onnx)).operations]
    assert kinds == ["conv", "block", "affine"]

"""The native engine rounds where the QDQ file does: within fused blocks, before fused additions and activations, ties to even."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.compile.program import Operation
from gossamer.compile.write import compile_bytes, compile_file
from gossamer.modelfile.metadata import parse_model_file
from gossamer.runtime import native
from gossamer.shrink.graph import OnnxGraph, OnnxSession
from gossamer.shrink.qdq import QuantisationChoice, quantised_model
from gossamer.shrink.ranges import best_range, measure_ranges
from tests.runs import with_isa

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)
helper = onnx.helper
SIDE, CHANNELS = 11, 5  # no multiple of a register


def images(count: int = 3, width: int = SIDE) -> NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal((count, CHANNELS, SIDE, width)).astype(np.float32)


class Graph:
    """Float nodes and their weights, drawn at random."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.draw = np.random.default_rng(3)

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        out = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], out, **attributes))
        return out

    def conv(self, source: str, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> str:
        name = f"conv{len(self.nodes)}"
        shape = (c_out, c_in // groups, kernel, kernel)
        self.constants[f"{name}.w"] = (self.draw.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(
            np.float32
        )
        self.constants[f"{name}.b"] = (0.3 * self.draw.standard_normal(c_out)).astype(np.float32)
        pads = [kernel // 2] * 4
        return self.add("Conv", source, f"{name}.w", f"{name}.b", strides=[stride] * 2, pads=pads, group=groups)

    def relu6(self, source: str) -> str:
        self.constants |= {"zero": np.float32(0), "six": np.float32(6)}
        return self.add("Clip", source, "zero", "six")

    def quantised(self, out: str, channels: int, width: int = SIDE) -> bytes:
        """The QDQ file, calibrated with `images`, that ends in a layer of floats over all positions."""
        self.constants["last.w"] = self.draw.standard_normal((channels, 4)).astype(np.float32)
        flat = self.add("Flatten", self.add("GlobalAveragePool", out), axis=1)
        y = self.add("MatMul", flat, "last.w")
        tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()]
        made = helper.make_graph(
            self.nodes, "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", CHANNELS, SIDE, width])],
            [helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, ["n", 4])],
            tensors,
        )  # fmt: skip
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        graph = OnnxGraph(model.SerializeToString(), [y], "net")
        ranges = measure_ranges(graph, [images(16, width)])
        return quantised_model(
            graph, QuantisationChoice({name: best_range(value) for name, value in ranges.items()}, weight_bits=7)
        )


def inverted_residual(kernel: int, stride: int, act: str, width: int = SIDE, project: bool = True) -> bytes:
    g = Graph()

    def activated(name: str) -> str:
        return g.relu6(name) if act == "Clip" else g.add(act, name)

    stem = g.conv("x", CHANNELS, 12)
    wide = activated(g.conv(stem, 12, 37))
    depthwise = activated(g.conv(wide, 37, 37, kernel, stride, 37))
    if not project:
        return g.quantised(depthwise, 37, width)
    narrow = g.conv(depthwise, 37, 12)
    return g.quantised(g.add("Add", stem, narrow) if stride == 1 else narrow, 12, width)


def separable(kernel: int, stride: int, channels: int, project: bool, width: int = SIDE) -> bytes:
    """A depthwise layer without expansion, whose input is a map of bytes with a zero of its own."""
    g = Graph()
    stem = g.conv("x", CHANNELS, channels)
    depthwise = g.add("Relu", g.conv(stem, channels, channels, kernel, stride, channels))
    return g.quantised(g.conv(depthwise, channels, 7) if project else depthwise, 7 if project else channels, width)


def residual() -> bytes:
    g = Graph()
    stem = g.add("Relu", g.conv("x", CHANNELS, 16, 3))
    body = g.conv(g.add("Relu", g.conv(stem, 16, 16, 3)), 16, 16, 3)
    return g.quantised(g.add("Relu", g.add("Add", body, stem)), 16)


def silu() -> bytes:
    g = Graph()
    first = g.conv("x", CHANNELS, 9, 3)
    first = g.add("Mul", first, g.add("Sigmoid", first))
    second = g.conv(first, 9, 9, 3, 1, 9)
    return g.quantised(g.conv(g.add("Mul", g.add("HardSigmoid", second, alpha=1 / 6), second), 9, 7), 7)


def branches() -> bytes:
    """Concatenated parts of other scales, a pool, and a gate."""
    g = Graph()
    stem = g.add("Relu", g.conv("x", CHANNELS, 12))
    parts = [
        g.conv(stem, 12, 6),
        g.add("Relu", g.conv(stem, 12, 10, 3)),
        g.add("MaxPool", stem, kernel_shape=[3, 3], pads=[1] * 4),
    ]
    joined = g.add("Concat", *parts, axis=1)
    gate = g.add("HardSigmoid", g.conv(g.add("GlobalAveragePool", joined), 28, 28), alpha=1 / 6)
    return g.quantised(g.conv(g.add("Mul", joined, gate), 28, 9), 9)


def shuffled() -> bytes:
    g = Graph()
    g.constants |= {"grouped": np.array([0, 2, 6, SIDE, SIDE]), "flat": np.array([0, 12, SIDE, SIDE])}
    stem = g.add("Relu", g.conv("x", CHANNELS, 12))
    rows = g.add("Transpose", g.add("Reshape", stem, "grouped"), perm=[0, 2, 1, 3, 4])
    return g.quantised(g.conv(g.add("Reshape", rows, "flat"), 12, 12, 3, 2, 12), 12)


NETWORKS = {
    **{f"inverted residual {kernel}x{kernel} /{stride}, {act}": (inverted_residual, (kernel, stride, act))
       for kernel, stride, act in ((3, 1, "Clip"), (3, 2, "Relu"), (5, 1, "HardSwish"), (5, 2, "Relu"), (7, 1, "Relu"))},
    **{f"separable {kernel}x{kernel} /{stride}, {channels} channels": (separable, (kernel, stride, channels, project))
       for kernel, stride, channels, project in ((3, 1, 37, True), (3, 2, 16, True), (5, 1, 21, False), (5, 2, 40, True))},
    "residual": (residual, ()), "silu": (silu, ()), "branches": (branches, ()), "shuffled": (shuffled, ()),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, made = tmp_path_factory.mktemp("rounding"), {}
    for number, (name, (build, arguments)) in enumerate(NETWORKS.items()):
        made[name] = folder / f"{number}.onnx"
        made[name].write_bytes(build(*arguments))
        compile_file(made[name], made[name].with_suffix(".goss"))
    return made


@pytest.mark.parametrize("name", NETWORKS)
def test_the_outputs_are_those_of_onnx_runtime(name: str, files: dict[str, Path]) -> None:
    """To what the last layer, in floats, rounds: no byte between is another."""
    data = files[name].read_bytes()
    (expected,) = OnnxSession(data, threads=1).run(images())
    for threads in (1, 2):
        actual = native.Native(files[name].with_suffix(".goss"), threads)(images())
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * float(np.abs(expected).max()))


CODE = """
import sys, numpy as np
from gossamer.runtime.native import Native
for path in sys.argv[1:]:
    np.save(path + '.npy', Native(path, 1)(np.load(sys.argv[1] + '.images.npy')))
"""


@pytest.mark.parametrize("isa", ["reference", "portable", "avx2", "avx512", "avx512_vnni", "amx"])
def test_every_isa_rounds_alike(isa: str, files: dict[str, Path]) -> None:
    paths = [path.with_suffix(".goss") for path in files.values()]
    np.save(f"{paths[0]}.images.npy", images())
    with_isa(isa, CODE, *paths)
    for path in files.values():
        (expected,) = OnnxSession(path.read_bytes(), threads=1).run(images())
        # plain loops round sums in another order: one step of a byte now and then
        most = 2e-3 if isa == "reference" else 2e-6
        actual = np.load(f"{path.with_suffix('.goss')}.npy")
        np.testing.assert_allclose(actual, expected, rtol=0, atol=most * float(np.abs(expected).max()))


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_rows_of_any_width_are_those_of_onnx_runtime(
    kernel: int, stride: int, isa: str, tmp_path: Path
) -> None:
    """Bytes of four neighbouring positions are a word where an ISA multiplies words: rows end within one."""
    expected = {}
    for width in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 17, 23, 69, 131):
        act, project = ("Clip", "Relu", "HardSwish")[width % 3], width % 2 == 0
        for name, data in (
            ("expanded", inverted_residual(kernel, stride, act, width, project)),
            ("in place", separable(kernel, stride, 21, project, width)),
        ):
            (tmp_path / "net.onnx").write_bytes(data)
            path = compile_file(tmp_path / "net.onnx", tmp_path / f"{name} {width}.goss")
            np.save(f"{path}.images.npy", images(width=width))
            (expected[path],) = OnnxSession(data, threads=1).run(images(width=width))
    with_isa(isa, CODE.replace("sys.argv[1] +", "path +"), *expected)
    for path, wanted in expected.items():
        np.testing.assert_allclose(
            np.load(f"{path}.npy"), wanted, rtol=0, atol=2e-6 * float(np.abs(wanted).max()), err_msg=path.name
        )


def operations(data: bytes) -> list[Operation]:
    return fuse(lower(parse_model_file(data, "net.onnx").graph)).operations


def test_what_is_rounded_is_fused_all_the_same() -> None:
    block = next(one for one in operations(inverted_residual(5, 1, "HardSwish")) if one.kind == "block")
    assert [layer is not None and layer.scale is not None for layer in block.weights] == [True] * 3
    assert block.expanded[0] > 0 and block.other >= 0
    sums = [one.sum[0] for one in (*block.roundings, block.rounding)]
    assert all(scale > 0 for scale in sums)
    gates = [one for one in operations(silu()) if one.act == "silu" or "hard_swish" in one.acts]
    assert len(gates) == 2
    assert gates[0].rounding.gate[0] > 0 and gates[1].roundings[1].gate[0] > 0


def qdq(x: str, out: str, scale: float, zero: int) -> tuple[list[Any], list[Any]]:
    tensors = [
        onnx.numpy_helper.from_array(np.asarray(scale, np.float32), f"{out}.s"),
        onnx.numpy_helper.from_array(np.asarray(zero, np.uint8), f"{out}.z"),
    ]
    names = [f"{out}.s", f"{out}.z"]
    nodes = [helper.make_node("QuantizeLinear", [x, *names], [f"{out}.q"]), helper.make_node("DequantizeLinear", [f"{out}.q", *names], [out])]  # fmt: skip
    return nodes, tensors


@pytest.mark.parametrize("zero", [0, 1, 3, 128, 255])
@pytest.mark.parametrize("channels", [1, 3, 17])
def test_ties_go_to_the_even_step_before_the_zero_is_added(zero: int, channels: int, tmp_path: Path) -> None:
    """Of the input, of a sum, and behind an activation; what is outside the range is the nearest byte."""
    first, tensors = qdq("x", "a", 0.5, zero)
    second, more = qdq("b", "y", 2.0, zero)
    nodes = [*first, helper.make_node("Add", ["a", "a"], ["b"]), *second]
    sides = ["n", channels, 3, 4]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, sides)],
        [*tensors, *more],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "ties.onnx"
    onnx.save(model, path)
    x = np.random.default_rng(zero).integers(-600, 600, (2, channels, 3, 4)).astype(np.float32) / 4

    def rounded(values: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
        steps = np.clip(np.rint(values / scale) + zero, 0, 255) - zero
        return (steps * scale).astype(np.float32)

    expected = rounded(2 * rounded(x, 0.5), 2.0)
    np.testing.assert_array_equal(native.Native(compile_file(path, tmp_path / "ties.goss"), 1)(x), expected)


@pytest.mark.parametrize("field", ["sum_scale", "sum_scale0", "gate_scale1", "expanded_scale"])
@pytest.mark.parametrize("number", [float("nan"), -1.0, float("inf")])
def test_a_scale_that_is_none_is_refused(field: str, number: float, tmp_path: Path) -> None:
    import struct

    from gossamer.compile.records import HEADER, OPERATION
    from gossamer.errors import ModelFileError
    from tests.test_native import with_checksum

    data = bytearray(compile_bytes(parse_model_file(residual(), "net.onnx"))[0])
    at = HEADER.unpack(data)["ops"] + OPERATION.offset(field)
    data[at : at + 4] = struct.pack("<f", number)
    path = tmp_path / "bad.goss"
    path.write_bytes(with_checksum(bytes(data)))
    with pytest.raises(ModelFileError, match="N7"):
        native.Native(path, 1)


def extremes(values: Sequence[float]) -> NDArray[np.float32]:
    return np.resize(np.asarray(values, np.float32), (2, CHANNELS, SIDE, SIDE))


@pytest.mark.parametrize("name", ["inverted residual 3x3 /1, Clip", "residual", "branches"])
def test_inputs_outside_every_range_saturate_alike(name: str, files: dict[str, Path]) -> None:
    x = extremes((-1e9, 3e38, 1e-30, -np.inf, np.inf, 0.0, 7.0))
    (expected,) = OnnxSession(files[name].read_bytes(), threads=1).run(x)
    actual = native.Native(files[name].with_suffix(".goss"), 1)(x)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * float(np.abs(expected).max()))

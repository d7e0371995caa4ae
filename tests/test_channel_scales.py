"""Files of bytes with a scale for each channel before depthwise layers, as NNCF writes them, compiled for the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.cli.main import main
from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.errors import InputError
from gossamer.modelfile.metadata import parse_model_file, read_model_file
from gossamer.runtime import native
from gossamer.runtime.model import open_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper = onnx.helper
# NNCF 3.4.0, `nncf.quantize` of a network of two depthwise layers, one behind a ReLU6 and one behind a ReLU
NNCF = Path(__file__).parent / "files" / "nncf_depthwise.onnx"
engine = pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native engine is not built: make engine")
CHANNELS = 4
SCALES = (np.array([0.004, 0.013, 0.09, 0.021], np.float32)) / 2


ZEROS = np.zeros(CHANNELS, np.uint8)


def images(shape: tuple[int, ...], count: int = 12, seed: int = 3) -> Any:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def network(
    act: str = "Relu",
    scales: Any = SCALES,
    zero: Any = ZEROS,
    axis: int | None = 1,
    readers: str = "depthwise",
    quantised_weight: bool = True,
    quantised_before: bool = False,
    multiplier: int = 1,
    added: bool = False,
    their_scales: Any = None,
) -> bytes:
    """x (N, 4, 6, 6) -> Conv -> act -> bytes by channel -> depthwise -> y, with a padded window."""
    draw = np.random.default_rng(1)
    wide = CHANNELS * multiplier
    constants: dict[str, Any] = {
        "w": draw.standard_normal((CHANNELS, 4, 1, 1)).astype(np.float32),
        "b": draw.standard_normal(CHANNELS).astype(np.float32),
        "d": draw.standard_normal((wide, 1, 3, 3)).astype(np.float32),
        "e": draw.standard_normal(wide).astype(np.float32),
        "s": np.asarray(scales, np.float32), "z": zero, "six": np.float32(6), "zero": np.float32(0),
        "s2": np.asarray(scales if their_scales is None else their_scales, np.float32),
        "d8": draw.integers(-127, 128, (wide, 1, 3, 3)).astype(np.int8), "ds": np.linspace(0.01, 0.03, wide).astype(np.float32),
        "w8": draw.integers(-127, 128, (CHANNELS, 4, 1, 1)).astype(np.int8), "ws": np.linspace(0.01, 0.03, CHANNELS).astype(np.float32),
        "wz": np.zeros(CHANNELS, np.int8),
        "dz": np.zeros(wide, np.int8),
        "xs": np.float32(0.03), "xz": np.uint8(128), "p": draw.standard_normal((2, CHANNELS, 1, 1)).astype(np.float32),
    }  # fmt: skip
    if quantised_before:  # ONNX Runtime rounds a bias of floats beside a weight of bytes
        step = constants["xs"] * constants["ws"]
        constants["b"] = (np.rint(constants["b"] / step) * step).astype(np.float32)
    at = {} if axis is None else {"axis": axis}
    nodes = []
    first = ["x", "w", "b"]
    if quantised_before:
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["x8"], "q_x"),
            helper.make_node("DequantizeLinear", ["x8", "xs", "xz"], ["xd"], "dq_x"),
        ]
        nodes += [helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["wd"], "dq_w", axis=0)]
        first = ["xd", "wd", "b"]
    nodes += [helper.make_node("Conv", first, ["c"], "conv")]
    value = "c"
    if act:
        nodes += [helper.make_node(act, ["c", "zero", "six"] if act == "Clip" else ["c"], ["r"], "act")]
        value = "r"
    nodes += [
        helper.make_node("QuantizeLinear", [value, "s", "z"], ["r8"], "q", **at),
        helper.make_node("DequantizeLinear", ["r8", "s2", "z"], ["rd"], "dq", **at),
    ]
    weight = "d"
    if quantised_weight:
        nodes += [helper.make_node("DequantizeLinear", ["d8", "ds", "dz"], ["dd"], "dq_d", axis=0)]
        weight = "dd"
    if readers == "conv":
        nodes += [helper.make_node("Conv", ["rd", "p"], ["y"], "plain")]
    else:
        nodes += [
            helper.make_node(
                "Conv", ["rd", weight, "e"], ["y" if not added else "t"], "depthwise", group=CHANNELS, pads=[1] * 4
            )
        ]
    if added:  # the float map is read beside
        nodes += [helper.make_node("Add", ["t", value], ["y"], "sum")]
    if readers == "both":
        nodes += [helper.make_node("Relu", ["rd"], ["y2"], "beside")]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, ["n", 4, 6, 6])],
        [helper.make_tensor_value_info(name, 1, ["n", "c", 6, 6]) for name in (["y", "y2"] if readers == "both" else ["y"])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(proto.SerializeToString())


def kinds(data: bytes) -> list[str]:
    return [one.kind for one in fuse(lower(parse_model_file(data, "net.onnx").graph)).operations]


def compared(data: bytes, shape: tuple[int, ...] = (4, 6, 6)) -> float:
    """The largest difference of the engine to ONNX Runtime, relative to the largest output."""
    file, x = parse_model_file(data, "net.onnx"), images(shape)
    expected, actual = (np.asarray(open_model(file, name).run(x)) for name in ("onnxruntime", "native"))
    return float(np.abs(expected - actual).max() / np.abs(expected).max())


@engine
def test_a_file_of_nncf_computes_as_in_onnxruntime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = read_model_file(NNCF)
    vectors = [
        node.name for node in file.onnx.nodes
        if node.op == "QuantizeLinear" and file.onnx.tensors[node.inputs[1]].size > 1
    ]  # fmt: skip
    assert vectors == ["QuantizeLinear_r0_1", "QuantizeLinear_r2_1"]
    x = images((3, 16, 16), 24)
    models = {name: open_model(file, name) for name in ("onnxruntime", "native", "reference")}
    outputs = {name: np.concatenate([np.asarray(model.run(one[None])) for one in x]) for name, model in models.items()}
    scale = np.abs(outputs["onnxruntime"]).max()
    for name in ("native", "reference"):
        assert np.abs(outputs[name] - outputs["onnxruntime"]).max() < 0.01 * scale
    assert (outputs["native"].argmax(1) == outputs["onnxruntime"].argmax(1)).all()
    assert main(["compile", str(NNCF), "--out", str(tmp_path / "n.goss")]) == 0
    assert "int8 as in the file" in capsys.readouterr().out


@engine
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["block"]),  # all in one
        ({"act": ""}, ["block"]),
        ({"act": "LeakyRelu", "zero": np.zeros(4, np.int8)}, ["block"]),
        ({"act": "Relu", "zero": np.full(4, 7, np.uint8)}, ["block"]),
        ({"axis": None}, ["block"]),
        ({"axis": -3}, ["block"]),
        ({"act": "Clip"}, None),  # bytes end after the clip in some channels: the scales are a layer of their own
        ({"act": "Clip", "scales": np.array([1, 2, 3, 4], np.float32) / 255}, ["block"]),  # and before it in all of them
        ({"act": "HardSwish"}, None),
        ({"quantised_weight": False}, None),
        ({"quantised_before": True}, ["block"]),
        ({"quantised_before": True, "act": "Clip"}, None),
        ({"multiplier": 2}, None),
        ({"multiplier": 2, "quantised_weight": False}, None),
        ({"added": True}, None),
        ({"scales": np.array([1e-6, 1.0, 1e3, 1e-3], np.float32)}, None),
        ({"scales": np.full(4, 0.02, np.float32), "readers": "conv"}, None),  # alike: one scale for the map
    ],
)  # fmt: skip
def test_scales_of_channels_go_into_the_layers_around(options: dict[str, Any], expected: list[str] | None) -> None:
    data = network(**options)
    if options.get("act") == "HardSwish":  # of operator set 14
        proto = onnx.load_from_string(data)
        proto.opset_import[0].version = 14
        data = proto.SerializeToString()
    assert compared(data) < 1e-5
    if expected is not None:
        assert kinds(data) == expected


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"readers": "conv"}, "something but depthwise convolutions reads"),
        ({"readers": "both"}, "something but depthwise convolutions reads"),
        ({"zero": np.arange(4).astype(np.uint8)}, "a zero point for each channel"),
        ({"axis": 2}, "neither one for the map nor one for each of its channels"),
        ({"scales": SCALES[:3]}, "neither one for the map nor one for each of its channels"),
        ({"scales": SCALES.reshape(1, 4)}, "neither one for the map nor one for each of its channels"),
        ({"scales": np.array([0.0, 1, 1, 1], np.float32)}, "a scale that is not from"),
        ({"scales": np.array([-1.0, 1, 1, 1], np.float32)}, "a scale that is not from"),
        ({"scales": np.array([np.nan, 1, 1, 1], np.float32)}, "a scale that is not from"),
        ({"scales": np.array([np.inf, 1, 1, 1], np.float32)}, "a scale that is not from"),
        ({"their_scales": SCALES[::-1].copy()}, "scales other than those of the map"),
        ({"their_scales": np.float32(0.1)}, "scales other than those of the map"),
    ],
)
def test_other_forms_are_refused_by_their_node(options: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        lower(parse_model_file(network(**options), "net.onnx").graph)
    assert "node 'q'" in str(caught.value) or "node 'dq'" in str(caught.value)

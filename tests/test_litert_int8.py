"""LiteRT files in int8: each kind of operation between bytes beside ONNX Runtime, what stays in float32, networks and commands."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gossamer import runtime
from gossamer.cli.main import main
from gossamer.litert.flat import OPERATORS
from gossamer.litert.write import litert_bytes
from gossamer.modelfile.metadata import ModelFile, parse_model_file, read_model_file
from gossamer.predictions.head import flattened
from gossamer.runtime.model import open_model
from gossamer.shrink.graph import OnnxGraph
from gossamer.shrink.qdq import QuantisationChoice, quantised_model
from gossamer.shrink.ranges import best_range, measure_ranges
from gossamer.shrink.scoring import int8_file

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")
import onnx

from tests.exports import EXPORTED
from tests.onnxcases import INPUT, expected, node, noise, save, weight
from tests.test_litert import CASES, one
from tests.test_native_rounding import NETWORKS, images

OLD = Path(__file__).parent / "compat" / "0.1"
IMAGE = OLD / "classes" / "val" / "class0" / "000.png"
LAYERS = ("Conv", "ConvTranspose", "Gemm")
# what moves bytes has one scale; the constants of others are no maps
SAME_SCALE = (
    "MaxPool",
    "Reshape",
    "Transpose",
    "Split",
    "Concat",
    "Flatten",
    "DepthToSpace",
    "SpaceToDepth",
    "Identity",
)
MORE: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "max pool behind bytes of another scale": (one("MaxPool", kernel_shape=[2, 2], pads=[1, 1, 0, 0]), {}),
}


def rounded(nodes: list[Any], constants: dict[str, Any], kind: type = np.uint8) -> tuple[list[Any], dict[str, Any]]:
    """Nodes with a QuantizeLinear and a DequantizeLinear behind the input and every map; weights with a scale per output."""
    values = _values(nodes, constants)
    made: list[Any] = []
    known = {"w": weight(8, 3, 3, 3), **constants}
    limits = np.iinfo(kind)

    def pair(name: str, source: str, out: str, like: str) -> None:
        low, high = min(float(values[like].min()), 0.0), max(float(values[like].max()), 0.0)
        scale = np.float32((high - low) / 255 or 1)
        known[f"{name}.s"], known[f"{name}.z"] = scale, kind(np.rint(-low / scale) + limits.min)
        made.append(node("QuantizeLinear", [source, f"{name}.s", f"{name}.z"], [f"{name}.q"]))
        made.append(node("DequantizeLinear", [f"{name}.q", f"{name}.s", f"{name}.z"], [out]))

    pair("x", "x", "x.d", "x")
    names = {"x": "x.d"}
    like = {"x": "x"}
    for number, each in enumerate(nodes):
        new = onnx.NodeProto()
        new.CopyFrom(each)
        for place, name in enumerate(each.input):
            new.input[place] = names.get(name, name)
        if each.op_type in LAYERS:
            axis = 1 if each.op_type == "ConvTranspose" or (each.op_type == "Gemm" and not _transposed(each)) else 0
            name = f"w{number}"
            known |= _weight(name, known[each.input[1]], axis)
            made.append(node("DequantizeLinear", [f"{name}.q", f"{name}.s", f"{name}.z"], [name], axis=axis))
            new.input[1] = name
        for place, name in enumerate(each.output):
            new.output[place] = f"{name}.f"
        made.append(new)
        for name in each.output:
            like[name] = like[each.input[0]] if each.op_type in SAME_SCALE else name
            names[name] = "y" if name == "y" else f"{name}.d"
            pair(name, f"{name}.f", names[name], like[name])
    return made, known


def _transposed(each: Any) -> bool:
    return any(part.name == "transB" and part.i for part in each.attribute)


def _weight(name: str, values: Any, axis: int) -> dict[str, Any]:
    others = tuple(place for place in range(values.ndim) if place != axis)
    scale = (np.abs(values).max(axis=others, keepdims=True) / 63).astype(np.float32)  # 7 bits: no processor saturates
    return {
        f"{name}.q": np.rint(values / scale).astype(np.int8),
        f"{name}.s": scale.reshape(-1),
        f"{name}.z": np.zeros(scale.size, np.int8),
    }


def _values(nodes: list[Any], constants: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Every map of the float file."""
    names = [name for each in nodes for name in each.output]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        proto = onnx.load(save(path, nodes, constants, outputs=names))
        for value in proto.graph.output:  # of any rank
            value.type.tensor_type.ClearField("shape")
        onnx.save(proto, path)
        return {"x": noise(INPUT), **expected(path, noise(INPUT))}


def quantised(file: ModelFile, images: NDArray[np.float32]) -> bytes:
    """The QDQ file, calibrated with these images."""
    graph = OnnxGraph(file.data, list(file.outputs), "net")
    ranges = {name: best_range(values) for name, values in measure_ranges(graph, [images]).items()}
    return quantised_model(graph, QuantisationChoice(ranges, weight_bits=7))


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with classify.onnx in int8 and the .tflite file that the command wrote of it."""
    folder = tmp_path_factory.mktemp("litert-int8")
    file = read_model_file(OLD / "classify.onnx")
    assert file.metadata is not None
    batch = file.metadata.preprocess.normalise(np.stack([check.pixels for check in file.metadata.checks]))
    (folder / "int8.onnx").write_bytes(int8_file(file, quantised(file, batch)))
    assert main(["export", str(folder / "int8.onnx"), "--out", str(folder / "int8.tflite")]) == 0
    return folder


def operators(data: bytes) -> Counter[str]:
    """How often a file has each operator."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    names = {number: name for name, (number, _) in OPERATORS.items()}
    codes = [names[max(one.builtinCode, one.deprecatedBuiltinCode)] for one in model.operatorCodes]
    return Counter(codes[one.opcodeIndex] for one in model.subgraphs[0].operators)


QUICK = (
    "convolution of padding on one side",
    "depthwise convolution of stride 2",
    "max pool with padding",
    "average pool that counts padding",
    "SiLU",
    "clip of two bounds",
    "squeeze and excite",
    "concat",
    "classifier",
    "linear half_pixel to (12, 18)",
)


def tiered(names: Iterable[str], quick: Collection[str]) -> list[Any]:
    """Names as parameters of a test; those that are not quick are of the full tier."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.full) for name in names]


@pytest.mark.parametrize("name", tiered([*CASES, *MORE], QUICK))
def test_an_operation_is_within_a_step_of_onnx_runtime(name: str, tmp_path: Path) -> None:
    nodes, constants = rounded(*{**CASES, **MORE}[name])
    file, x = save(tmp_path / "m.onnx", nodes, constants, opset=17), noise(INPUT)
    (wanted,) = expected(file, x).values()
    if name == "scores":  # ONNX Runtime's softmax of bytes wraps around where a byte would be above 255
        wanted = runtime.load(file, runtime="reference").run(x)
    outputs = runtime.load(file, runtime="litert", threads=1).run(x)
    assert outputs.shape == wanted.shape
    steps = np.abs(outputs - wanted) / constants["y.s"]
    assert steps.max() <= 1.01 and steps.mean() <= 0.25


# a layer's last bit may be LiteRT's own; what it rounds otherwise (HARD_SWISH, a gate's steps) is a step of a map
WIDER = ("inverted residual 5x5 /1, HardSwish", "silu", "branches")


@pytest.mark.parametrize("name", tiered(NETWORKS, ("silu", "branches", "residual")))
def test_a_network_agrees_with_onnx_runtime(name: str) -> None:
    build, arguments = NETWORKS[name]
    file = parse_model_file(build(*arguments), "net.onnx")
    wanted, given = (open_model(file, one).run(images(4)) for one in ("onnxruntime", "litert"))
    most = 0.02 if name in WIDER else 1e-6
    assert np.abs(given - wanted).max() <= most * np.abs(wanted).max()
    counted = operators(litert_bytes(file))
    # the input's, and the last layer's in float32: its input and its weight
    assert counted["QUANTIZE"] >= 1 and counted["DEQUANTIZE"] == (3 if name == "branches" else 2)


# the largest difference allowed, of the largest output: SqueezeNet's concatenated maps are rounded to a common scale; in
# MobileNetV2 a sum at half a step is rounded up by one and down by the other, which the layers behind carry on
ZOO = {"mobilenet_v2": 0.03, "squeezenet1_1": 0.05}


@pytest.mark.full
@pytest.mark.parametrize("name", ZOO)
def test_a_network_of_the_zoo_in_int8(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    network = EXPORTED[name]
    images = network.images(4)
    file = parse_model_file(quantised(read_model_file(network.file(tmp_path_factory)), images), "int8.onnx")
    wanted, given = (flattened(open_model(file, one).run(images)) for one in ("onnxruntime", "litert"))
    apart = np.abs(given - wanted).max(1) / np.abs(wanted).max()
    assert apart.max() <= ZOO[name]
    assert name != "mobilenet_v2" or np.median(apart) <= 1e-5, apart  # most images meet no such sum
    np.testing.assert_array_equal(given.argmax(1), wanted.argmax(1))


@pytest.mark.parametrize("name", ["multi", "embed", pytest.param("segment", marks=pytest.mark.full)])
def test_a_model_of_each_task_in_int8(name: str) -> None:
    plain = read_model_file(OLD / f"{name}.onnx")
    assert plain.metadata is not None
    images = plain.metadata.preprocess.normalise(np.stack([check.pixels for check in plain.metadata.checks]))
    file = parse_model_file(quantised(plain, images), "int8.onnx")
    wanted, given = (flattened(open_model(file, one).run(images)) for one in ("onnxruntime", "litert"))
    assert np.abs(given - wanted).max() <= 0.05 * np.abs(wanted).max()


def test_the_commands_take_the_file(int8: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exported, and then verified, predicted with and scored as every other file."""
    file = int8 / "int8.tflite"
    capsys.readouterr()
    for words in (["verify", str(file)], ["eval", str(file), str(OLD / "classes" / "val")]):
        assert main(words) == 0
    assert "verified with litert" in capsys.readouterr().out
    ours, theirs = (runtime.load(int8 / f"int8.{end}").predict(str(IMAGE)) for end in ("tflite", "onnx"))
    assert ours.classes[0] == theirs.classes[0]
    assert abs(ours.scores[0] - theirs.scores[0]) < 0.02


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_signed_and_unsigned_bytes_are_int8_in_the_file(kind: type, tmp_path: Path) -> None:
    nodes, constants = rounded(*CASES["convolution of padding on all sides"], kind)
    file, x = save(tmp_path / "m.onnx", nodes, constants), noise(INPUT)
    (wanted,) = expected(file, x).values()
    np.testing.assert_array_equal(runtime.load(file, runtime="litert").run(x), wanted)
    from ai_edge_litert.interpreter import Interpreter

    reader = Interpreter(model_content=litert_bytes(read_model_file(file)))
    details = reader.get_tensor_details()
    zero = int(constants["y.z"]) - (128 if kind is np.uint8 else 0)
    out = [one for one in details if one["quantization"][0] == constants["y.s"] and one["dtype"] == np.int8]
    assert {one["quantization"][1] for one in out} == {zero}
    weights = [one["quantization_parameters"] for one in details if len(one["quantization_parameters"]["scales"]) == 5]
    np.testing.assert_array_equal(weights[0]["scales"], constants["w1.s"])
    assert not weights[0]["zero_points"].any()


def test_a_layer_that_litert_has_no_bytes_for_stays_in_float32(tmp_path: Path) -> None:
    """A weight of -128, which LiteRT's are never: the layer reads floats, its weight stays int8 in the file."""
    nodes, constants = rounded(*CASES["convolution of padding on all sides"])
    constants["w1.q"][0, 0, 0, 0] = -128
    file, x = save(tmp_path / "m.onnx", nodes, constants), noise(INPUT)
    (wanted,) = expected(file, x).values()
    given = runtime.load(file, runtime="litert").run(x)
    assert np.abs(given - wanted).max() <= 1.01 * constants["y.s"]
    counted = operators(litert_bytes(read_model_file(file)))
    assert counted["CONV_2D"] == 2 and counted["DEQUANTIZE"] == 3


def test_a_scale_of_zero_makes_zeros(tmp_path: Path) -> None:
    """In bytes, and of a layer that stays in float32."""
    for least in (-127, -128):
        nodes, constants = rounded(*CASES["convolution of padding on all sides"])
        constants["w1.s"][2], constants["w1.q"][0, 0, 0, 0] = 0, least
        file, x = save(tmp_path / "m.onnx", nodes, constants), noise(INPUT)
        (wanted,) = expected(file, x).values()
        given = runtime.load(file, runtime="litert").run(x)
        assert np.abs(given - wanted).max() <= 1.01 * constants["y.s"] and np.ptp(given[:, 2]) == 0


def test_a_scale_of_zero_leaves_the_bias(tmp_path: Path) -> None:
    """In steps as fine as those of the other outputs. ONNX Runtime itself leaves it out."""
    small = {"v": weight(8, 3, 3, 3, scale=0.01), "c": np.linspace(-0.05, 0.05, 8, dtype=np.float32)}
    for zeros in (slice(2, 3), slice(None)):
        nodes, constants = rounded([node("Conv", ["x", "v", "c"], ["y"])], small)
        constants["w0.s"][zeros] = 0
        file, x = save(tmp_path / "m.onnx", nodes, constants), noise(INPUT)
        wanted, given = (runtime.load(file, runtime=one).run(x) for one in ("reference", "litert"))
        assert np.abs(given - wanted).max() <= 1.01 * constants["y.s"]


def test_scales_that_end_litert_are_kept_from_it(tmp_path: Path) -> None:
    """A sum of a far smaller scale, a hard swish of a smaller one, a weight's scale next to 0.

    ONNX Runtime adds in float32, where such a sum has no bits left.
    """
    added = [node("Conv", ["x", "w"], ["a"], pads=[1] * 4), node("Add", ["a", "a"], ["y"])]
    swish = [node("Conv", ["x", "w"], ["a"], pads=[1] * 4), node("HardSwish", ["a"], ["y"])]
    for nodes, small, factor in (
        (added, "y.s", 1e-8),
        (swish, "y.s", 1e-3),
        (added, "w0.s", 1e-39),
    ):
        made, constants = rounded(nodes, {})
        constants[small] = np.full_like(constants[small], factor)
        file, x = save(tmp_path / "m.onnx", made, constants), noise(INPUT)
        wanted, given = (runtime.load(file, runtime=one).run(x) for one in ("reference", "litert"))
        assert np.abs(given - wanted).max() <= 1.01 * constants["y.s"]


def test_a_bias_beyond_int32_stays_in_float32(tmp_path: Path) -> None:
    nodes, constants = rounded(*CASES["classifier"])
    constants["c"] = np.full_like(constants["c"], 1e9)
    file, x = save(tmp_path / "m.onnx", nodes, constants), noise(INPUT)
    wanted = runtime.load(file, runtime="reference").run(x)  # in ONNX Runtime the bias wraps around
    np.testing.assert_array_equal(runtime.load(file, runtime="litert").run(x), wanted)


def test_a_leaky_relu_between_bytes_is_one_operation(tmp_path: Path) -> None:
    file = save(tmp_path / "m.onnx", *rounded(*CASES["leaky ReLU"]), opset=17)
    counted = operators(litert_bytes(read_model_file(file)))
    assert counted["LEAKY_RELU"] == counted["QUANTIZE"] == counted["DEQUANTIZE"] == 1, "of the input and of the output"

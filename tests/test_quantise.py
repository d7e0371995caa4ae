"""Quantisation to int8: what may be rescaled, what is corrected, and the file that comes out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gossamer
from gossamer.cli import main as cli
from gossamer.errors import InputError, UnknownNameError, VerificationError
from gossamer.host.progress import Progress
from gossamer.modelfile.metadata import parse_model_file
from gossamer.runtime import native
from gossamer.runtime.model import open_model
from gossamer.shrink import equalise as equalisation
from gossamer.shrink import quantise as quantisation
from gossamer.shrink.channels import channel_sets
from gossamer.shrink.correct import correct_biases
from gossamer.shrink.equalise import equalise
from gossamer.shrink.graph import OnnxGraph, OnnxSession
from gossamer.shrink.qdq import QuantisationChoice, quantised_model, weight_scales
from gossamer.shrink.ranges import Values, best_range, measure_ranges
from gossamer.shrink.sensitivity import LayerNoise, decibels, layer_noise, verdict

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
COMPAT = Path(__file__).parent / "compat" / "0.1"
helper = onnx.helper


def model(nodes: list[Any], constants: dict[str, NDArray[Any]], output: str, opset: int = 18) -> bytes:
    """A model with the input x (N, 4, 8, 8) and one float output."""
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4, 8, 8])],
        [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["n", "k"])],
        tensors,
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return bytes(proto.SerializeToString())


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(seed)
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def images(count: int = 6, seed: int = 5) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 4, 8, 8)).astype(np.float32)


def node(op: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), output.split(), f"{op}_{output.split()[0]}", **attributes)


def residual() -> bytes:
    """A stem, two residual blocks with depthwise layers, a squeeze-excite gate, and a classifier."""
    nodes = [
        node("Conv", "x w0 b0", "s0"),
        node("Conv", "s0 w1 b1", "a1"), node("Relu", "a1", "r1"),
        node("Conv", "r1 d1 c1", "a2", group=12, pads=[1, 1, 1, 1]), node("Relu", "a2", "r2"),
        node("GlobalAveragePool", "r2", "g1"), node("Conv", "g1 e1 f1", "g2"), node("Relu", "g2", "g3"),
        node("Conv", "g3 e2 f2", "g4"), node("HardSigmoid", "g4", "g5"), node("Mul", "r2 g5", "r3"),
        node("Conv", "r3 p1 q1", "a3"), node("Add", "a3 s0", "s1"),
        node("Conv", "s1 w2 b2", "a4"), node("Clip", "a4 zero six", "r4"),
        node("Conv", "r4 p2 q2", "a5"), node("Add", "s1 a5", "s2"),
        node("GlobalAveragePool", "s2", "v0"), node("Flatten", "v0", "v1"), node("Gemm", "v1 wl bl", "y", transB=1),
    ]  # fmt: skip
    constants = weights(
        w0=(8, 4, 1, 1), b0=(8,), w1=(12, 8, 1, 1), b1=(12,), d1=(12, 1, 3, 3), c1=(12,), e1=(4, 12, 1, 1), f1=(4,),
        e2=(12, 4, 1, 1), f2=(12,), p1=(8, 12, 1, 1), q1=(8,), w2=(16, 8, 1, 1), b2=(16,), p2=(8, 16, 1, 1), q2=(8,),
        wl=(5, 8), bl=(5,),
    )  # fmt: skip
    return model(nodes, {**constants, "zero": np.float32(0), "six": np.float32(6)}, "y")


def shuffled() -> bytes:
    """Split, two branches, concat and a channel shuffle; a grouped convolution; a flattened map before the last layer."""
    nodes = [
        node("Conv", "x w0 b0", "s0"), node("Relu", "s0", "s1"),
        node("Split", "s1 halves", "left right", axis=1),
        node("Conv", "right w1 b1", "r1"), node("Relu", "r1", "r2"),
        node("Concat", "left r2", "c0", axis=1),
        node("Reshape", "c0 five", "c1"), node("Transpose", "c1", "c2", perm=[0, 2, 1, 3, 4]), node("Reshape", "c2 four", "c3"),
        node("Conv", "c3 w2 b2", "d0", group=2), node("LeakyRelu", "d0", "d1"),
        node("MaxPool", "d1", "d2", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "d2", "f"), node("Gemm", "f wl bl", "y", transB=1),
    ]  # fmt: skip
    constants: dict[str, NDArray[Any]] = {
        **weights(w0=(8, 4, 1, 1), b0=(8,), w1=(4, 4, 1, 1), b1=(4,), w2=(6, 4, 1, 1), b2=(6,), wl=(3, 96), bl=(3,)),
        "halves": np.array([4, 4]),
        "five": np.array([-1, 2, 4, 8, 8]),
        "four": np.array([-1, 8, 8, 8]),
    }
    return model(nodes, constants, "y")


def dense() -> bytes:
    """Concats of concats, batch norms before convolutions, a scalar that is added, a padded pool."""
    nodes = [
        node("Conv", "x w0", "s0"),
        node("BatchNormalization", "s0 n1 n2 n3 n4", "m0"), node("Relu", "m0", "m1"), node("Conv", "m1 w1 b1", "g1"),
        node("Concat", "s0 g1", "s1", axis=1),
        node("BatchNormalization", "s1 k1 k2 k3 k4", "m2"), node("Relu", "m2", "m3"), node("Conv", "m3 w2 b2", "g2"),
        node("Concat", "s1 g2", "s2", axis=1),
        node("Add", "s2 shift", "s3"), node("AveragePool", "s3", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("ReduceMean", "p axes", "v", keepdims=0), node("Add", "v one", "u"), node("Gemm", "u wl", "y"),
    ]  # fmt: skip
    positive = {name: np.abs(value) + 0.1 for name, value in weights(1, n4=(4,), k4=(6,)).items()}
    constants: dict[str, NDArray[Any]] = {
        **weights(
            w0=(4, 4, 1, 1), n1=(4,), n2=(4,), n3=(4,), w1=(2, 4, 1, 1), b1=(2,), k1=(6,), k2=(6,), k3=(6,),
            w2=(2, 6, 1, 1), b2=(2,), shift=(1, 8, 1, 1), wl=(8, 3),
        ),
        **positive,
        "axes": np.array([2, 3]),
        "one": np.float32(1),
    }  # fmt: skip
    return model(nodes, constants, "y")


GRAPHS = {"residual": residual, "shuffled": shuffled, "dense": dense}
FREE = {"residual": 8, "shuffled": 8, "dense": 4}  # sets at least that may be rescaled


def rescaled(graph: OnnxGraph, values: dict[str, Values], seed: int) -> OnnxGraph:
    """The graph with every set of channels that is free rescaled by a random power of two from 2^-3 to 2^3."""
    result = OnnxGraph(graph.model(), graph.outputs, graph.name)
    sets = channel_sets(result, values)
    powers = np.random.default_rng(seed).integers(-3, 4, len(sets.pinned))
    factors = np.where(sets.pinned, 1.0, np.exp2(powers))
    for link in sets.links:
        other = None if link.other is None else factors[link.other]
        equalisation.rescale(result, link.node, link.kind, factors[link.sets], other)
    return result


@pytest.mark.parametrize("name", GRAPHS)
def test_rescaled_channels_compute_the_same_bits(name: str) -> None:
    graph = OnnxGraph(GRAPHS[name](), ["y"], name)
    values = measure_ranges(graph, [images()])
    sets = channel_sets(graph, values)
    free = {int(label) for ids in sets.of.values() for label in ids if not sets.pinned[label]}
    assert len(free) >= FREE[name]
    expected = OnnxSession(graph.model(), exact=True).run(images(seed=6))
    for seed in range(3):
        other = rescaled(graph, values, seed)
        assert any(not np.array_equal(other.constants[key], value) for key, value in graph.constants.items())
        actual = OnnxSession(other.model(), exact=True).run(images(seed=6))
        np.testing.assert_array_equal(actual[0], expected[0])


@pytest.mark.parametrize("name", GRAPHS)
def test_equalisation_undoes_a_rescaling_to_the_bit(name: str) -> None:
    graph = OnnxGraph(GRAPHS[name](), ["y"], name)
    values = measure_ranges(graph, [images()])
    trapped = rescaled(graph, values, seed=1)
    trapped_values = measure_ranges(trapped, [images()])
    assert equalise(graph, values) and equalise(trapped, trapped_values)
    for key, value in graph.constants.items():
        np.testing.assert_array_equal(trapped.constants[key], value, err_msg=key)


def test_what_meets_a_clip_a_gate_or_an_output_is_pinned() -> None:
    graph = OnnxGraph(residual(), ["y"], "residual")
    sets = channel_sets(graph, measure_ranges(graph, [images()]))
    for name in ("x", "a4", "r4", "g4", "g5", "y"):
        assert sets.pinned[sets.of[name]].all(), name
    for name in ("s0", "s1", "s2", "a3", "a5", "a1", "r2", "r3", "g2"):
        assert not sets.pinned[sets.of[name]].any(), name
    np.testing.assert_array_equal(sets.of["s0"], sets.of["s2"])  # one stream
    np.testing.assert_array_equal(sets.of["r2"], sets.of["r3"])  # through the gate
    assert not set(sets.of["r1"]) & set(sets.of["r2"])  # a depthwise layer has a factor on either side


def test_a_norm_without_a_convolution_keeps_its_place_and_others_are_folded() -> None:
    nodes = [
        node("Conv", "x w", "a"), node("BatchNormalization", "a n1 n2 n3 n4", "b", epsilon=1e-3),
        node("Relu", "b", "c"), node("BatchNormalization", "c n1 n2 n3 n4", "y"),
    ]  # fmt: skip
    constants = weights(w=(4, 4, 1, 1), n1=(4,), n2=(4,), n3=(4,)) | {"n4": np.full(4, 0.5, np.float32)}
    data = model(nodes, constants, "y")
    graph = OnnxGraph(data, ["y"], "norms")
    assert [one.op_type for one in graph.nodes] == ["Conv", "Relu", "BatchNormalization"]
    expected, actual = OnnxSession(data).run(images()), OnnxSession(graph.model()).run(images())
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-4, atol=1e-5)


def free_channels(nodes: list[Any], constants: dict[str, NDArray[Any]], name: str = "a") -> list[bool]:
    """Whether each channel of `a`, the output of a first convolution of four channels, may be rescaled."""
    nodes = [node("Conv", "x w b", "a"), *nodes, node("Flatten", "z", "y")]
    graph = OnnxGraph(model(nodes, {**weights(w=(4, 4, 1, 1), b=(4,)), **constants}, "y"), ["y"], "channels")
    sets = channel_sets(graph, measure_ranges(graph, [images()]))
    return [not pinned for pinned in sets.pinned[sets.of[name]]]


LAST = node("Conv", "c w2", "z")
W2 = weights(w2=(2, 4, 1, 1))


@pytest.mark.parametrize(
    ("nodes", "constants", "free"),
    [
        ([node("ReduceMean", "a axes", "c"), LAST], {"axes": np.array([2, 3])}, True),
        ([node("ReduceMean", "a axes", "c"), LAST], {"axes": np.array([-1])}, True),
        ([node("ReduceMax", "a axes", "c"), LAST], {"axes": np.array([-2, -1])}, True),
        ([node("ReduceMean", "a axes", "c"), node("Mul", "c four", "z")], {"axes": np.array([1]), "four": np.float32(4)}, False),
        ([node("ReduceMean", "a axes", "c"), node("Neg", "c", "z")], {"axes": np.array([1, 2])}, False),
        ([node("Pad", "a pads", "c"), LAST], {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, True),
        ([node("Pad", "a pads one", "c"), LAST], {"pads": np.array([0, 0, 1, 1] * 2), "one": np.float32(1)}, False),
        ([node("Pad", "a pads one", "c", mode="edge"), LAST], {"pads": np.array([0, 0, 1, 1] * 2), "one": np.float32(1)}, True),
        ([node("Mul", "a two", "c"), LAST], {"two": np.float32(2)}, True),
        ([node("Mul", "a row", "c"), LAST], weights(row=(1, 4, 1, 1)), True),
        ([node("Div", "a two", "c"), LAST], {"two": np.float32(2)}, True),
        ([node("Div", "two a", "c"), LAST], {"two": np.float32(2)}, False),
        ([node("Mul", "a a", "c"), LAST], {}, False),
        ([node("Sigmoid", "a", "s"), node("Mul", "a s", "c"), LAST], {}, False),
        ([node("Add", "a row", "c"), LAST], weights(row=(4, 1, 1)), True),
        ([node("Add", "a two", "c"), LAST], {"two": np.float32(2)}, False),
    ],
    ids=lambda value: " ".join(one.name for one in value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_factor_passes_what_does_not_notice_it(
    nodes: list[Any], constants: dict[str, NDArray[Any]], free: bool
) -> None:
    assert free_channels(nodes, {**W2, **constants}) == [free] * 4


def test_a_channel_that_is_multiplied_into_several_is_pinned() -> None:
    nodes = [node("Conv", "a w1", "one"), node("Mul", "one row", "c"), LAST]
    constants = {**W2, **weights(w1=(1, 4, 1, 1), row=(1, 4, 1, 1))}
    assert free_channels(nodes, constants, "one") == [False]
    assert free_channels(nodes, constants) == [True] * 4


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (7, 63)])
def test_a_weight_is_scaled_by_the_largest_of_its_output_channel(bits: int, most: int) -> None:
    weight = np.array([[1.0, -4.0, 0.0], [2.0, 3.0, 0.0]], np.float32)
    assert weight_scales(weight, 0, bits).tolist() == pytest.approx([4 / most, 3 / most])
    assert weight_scales(weight, 1, bits).tolist() == pytest.approx([2 / most, 4 / most, 1e-12])
    assert weight_scales(weight.reshape(2, 3, 1, 1), 0, bits).tolist() == pytest.approx([4 / most, 3 / most])


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("bits", [7, 8])
def test_the_quantised_graph_is_near_the_float_one(name: str, bits: int) -> None:
    graph = OnnxGraph(GRAPHS[name](), ["y"], name)
    values = measure_ranges(graph, [images(16)])
    choice = QuantisationChoice({key: best_range(value) for key, value in values.items()}, weight_bits=bits)
    data = quantised_model(graph, choice)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    proto = onnx.load_from_string(data)
    types = [tensor.data_type for tensor in proto.graph.initializer]
    assert types.count(onnx.TensorProto.INT8) >= 2 * len(graph.weighted())  # weights, and their zeros
    most = max(
        np.abs(onnx.numpy_helper.to_array(t)).max()
        for t in proto.graph.initializer
        if t.data_type == onnx.TensorProto.INT8
    )
    assert most <= 2 ** (bits - 1) - 1
    expected, actual = OnnxSession(graph.model()).run(images(seed=7)), OnnxSession(data).run(images(seed=7))
    assert decibels(expected, actual) > (18 if bits == 7 else 22)


def test_bias_correction_brings_the_outputs_nearer_and_is_not_kept_where_it_does_not() -> None:
    graph = OnnxGraph(residual(), ["y"], "residual")
    values = measure_ranges(graph, [images(16)])
    choice = QuantisationChoice({name: best_range(value) for name, value in values.items()}, weight_bits=7)
    graph.constants["w1"] = graph.constants["w1"].copy()
    expected = OnnxSession(graph.model()).run(images(32, seed=8))
    before = decibels(expected, OnnxSession(quantised_model(graph, choice)).run(images(32, seed=8)))
    corrected = correct_biases(graph, choice, images(32, seed=9), images(32, seed=8))
    after = decibels(expected, OnnxSession(quantised_model(graph, choice)).run(images(32, seed=8)))
    assert after >= before
    assert corrected == 0 or after > before


def test_layers_that_stay_in_float_are_not_quantised_and_cost_nothing() -> None:
    graph = OnnxGraph(residual(), ["y"], "residual")
    values = measure_ranges(graph, [images(16)])
    ranges = {name: best_range(value) for name, value in values.items()}
    every = frozenset(one.name for one in graph.nodes)
    none = OnnxSession(quantised_model(graph, QuantisationChoice(ranges, every))).run(images())
    np.testing.assert_allclose(none[0], OnnxSession(graph.model()).run(images())[0], rtol=1e-5, atol=1e-5)
    layers = layer_noise(graph, QuantisationChoice(ranges), images())
    assert [layer.name for layer in layers] == [one.name for one in graph.weighted()]
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    assert "layer" in verdict(layers) or "alone" in verdict(layers)


def quantise(tmp_path: Path, **options: Any) -> Any:
    defaults: dict[str, Any] = {"images": str(COMPAT / "classes"), "count": 12}
    return gossamer.quantize(COMPAT / "classify.onnx", tmp_path / "q.onnx", **{**defaults, **options})


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return quantise(tmp_path_factory.mktemp("quantised"), layers=True)


def test_a_model_file_becomes_a_verified_int8_file(quantised: Any, tmp_path: Path) -> None:
    assert quantised.decibels > 25 and quantised.agreement == 1
    assert len(quantised.layers) == 28 and not quantised.float_layers
    assert "dB" in quantised.text() and quantised.to_json()["weight_bits"] == 8
    for runtime in ("onnxruntime", "reference"):
        assert gossamer.verify(quantised.file, runtime=runtime).ok
    assert cli.main(["predict", quantised.file, str(COMPAT / "classes" / "val"), "--json"]) == 0
    assert gossamer.load(quantised.file).metadata.provenance["quantised"]["weights"] == "int8"


@pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native engine is not built: make engine")
def test_the_engine_agrees_with_onnxruntime(quantised: Any, tmp_path: Path) -> None:
    assert cli.main(["compile", quantised.file, "--out", str(tmp_path / "q.goss")]) == 0
    batch = np.random.default_rng(0).standard_normal((4, 3, 24, 24)).astype(np.float32)
    expected = gossamer.load(quantised.file, runtime="onnxruntime").run(batch)
    actual = gossamer.load(tmp_path / "q.goss").run(batch)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native engine is not built: make engine")
def test_what_the_engine_makes_of_the_file_is_told(quantised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = (step for step in quantised.steps if step.startswith("native engine: "))
    assert re.match(r"native engine: \d+\.\d dB; its outputs differ from ONNX Runtime's by up to [\d.e-]+$", line)
    # an addition at once after a convolution, whose output is rounded before it
    graph = OnnxGraph(residual(), ["y"], "net")
    ranges = measure_ranges(graph, [images(64)])
    choice = QuantisationChoice({name: best_range(value) for name, value in ranges.items()})
    data, batch = quantised_model(graph, choice), images(16, seed=5)
    expected, actual = (OnnxSession(one).run(batch) for one in (residual(), data))
    file = parse_model_file(data, "net.onnx")
    line = quantisation._in_engine(file, batch, expected, actual)
    difference = float(np.abs(open_model(file, "native").run(batch) - actual[0]).max())
    assert f"by up to {difference:.3g}" in line
    assert ("--runtime onnxruntime" in line) == (difference > 0.01 * max(1.0, float(np.abs(actual[0]).max())))

    def refuse(*_: Any) -> Any:
        raise InputError("operator Foo", "others", "leave it out")

    monkeypatch.setattr(quantisation, "open_model", refuse)
    assert "not tried: operator Foo" in quantisation._in_engine(file, batch, expected, actual)


def test_the_same_images_give_the_same_bytes(quantised: Any, tmp_path: Path) -> None:
    assert Path(quantise(tmp_path).file).read_bytes() == Path(quantised.file).read_bytes()


def test_bad_input_is_one_line_and_leaves_no_file(
    quantised: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder, out = str(COMPAT / "classify.onnx"), str(COMPAT / "classes"), tmp_path / "out.onnx"
    (tmp_path / "empty").mkdir()
    old = tmp_path / "old.onnx"
    old.write_bytes(model([node("Relu", "x", "y")], {}, "y", opset=11))
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(residual())
    for arguments, text in [
        ([source], "without images"),
        ([source, "--images", str(tmp_path / "empty")], "images"),
        ([source, "--images", str(tmp_path / "missing")], "0 images"),
        ([source, "--images", folder, "--count", "3"], "3 images"),
        ([source, "--images", folder, "--keep", "Conv_00"], "did you mean Conv_0"),
        ([source, "--images", folder, "--max-drop", "1"], "a run folder"),
        ([source, "--images", folder, "--max-drop", "nan"], "nan points"),
        ([source, "--images", str(next((COMPAT / "classes" / "val").rglob("*.*")))], "1 image to calibrate with"),
        ([quantised.file, "--images", folder], "quantised already"),
        ([str(old), "--images", folder], "says nothing of how an image"),
        ([str(plain), "--images", folder], "says nothing of how an image"),
        ([str(COMPAT / "classify.goss"), "--images", folder], "a compiled file"),
    ]:
        assert cli.main(["quantize", *arguments, "--out", str(out)]) == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert text in error and "Traceback" not in error, error
        assert not out.exists()


def test_an_operator_set_without_channels_is_refused() -> None:
    with pytest.raises(InputError, match="operator set 11"):
        OnnxGraph(model([node("Relu", "x", "y")], {}, "y", opset=11), ["y"], "old")


def test_a_layer_to_keep_is_named() -> None:
    from gossamer.shrink.quantise import _kept

    graph = OnnxGraph(residual(), ["y"], "residual")
    assert _kept(graph, ["Conv_a1"]) == {"Conv_a1"}
    with pytest.raises(UnknownNameError, match="did you mean Conv_a"):
        _kept(graph, ["Conv_a"])


class Scoring:
    """Stands for scores of files: of each set of layers in float an accuracy; the float file has 0.9."""

    precision = "float32"
    images = tuple(range(7))
    unreadable: Sequence[tuple[str, str]] = ()

    def __init__(self, accuracy: Callable[[frozenset[str]], float], extra: Callable[[str], float]) -> None:
        self.accuracy, self.extra = accuracy, extra
        self.tried: list[frozenset[str]] = []

    def before(self) -> dict[str, float]:
        return {"accuracy": 0.9}

    def after(self, graph: OnnxGraph, choice: QuantisationChoice) -> dict[str, float]:
        return {"accuracy": self.accuracy(choice.float_layers)}

    def least(self, graph: OnnxGraph, choice: QuantisationChoice) -> float:
        self.tried.append(choice.float_layers)
        return self.accuracy(choice.float_layers)

    def ms(self, graph: OnnxGraph, choices: Sequence[QuantisationChoice]) -> list[float]:
        return [1.0 + sum(self.extra(name) for name in sorted(choice.float_layers)) for choice in choices]


def target(**changes: Any) -> Any:
    file = type("File", (), {"path": "net.onnx"})()
    return quantisation.Target(**{"file": file, "run": object(), "score": "accuracy", "data": object(), **changes})


NAMES = ("a", "b", "c", "d", "e")
KEPT = frozenset({"Conv_c"})


def scored(
    monkeypatch: pytest.MonkeyPatch,
    max_drop: float | None,
    accuracy: Callable[[frozenset[str]], float],
    extra: Callable[[str], float] = lambda name: 0.1,
    kind: type[Scoring] = Scoring,
) -> tuple[Any, list[str], list[frozenset[str]]]:
    """What `_scored` gives where `Conv_c` stays in float; the noise of the layers grows from the first to the last."""
    graph = OnnxGraph(model([node("Relu", "x", "y")], {}, "y"), ["y"], "net")
    graph.nodes = [*(node("Conv", "x w", name) for name in NAMES), node("Relu", "e", "y")]
    scoring = kind(accuracy, extra)
    monkeypatch.setattr(quantisation, "Scoring", lambda target, progress: scoring)
    noise = [LayerNoise(f"Conv_{name}", "Conv", 0.0, share) for share, name in enumerate(NAMES)]
    steps: list[str] = []
    result = quantisation._scored(target(), graph, QuantisationChoice({}, KEPT), noise, max_drop, steps, Progress())
    return result, steps, scoring.tried


def by_points(**points: float) -> Callable[[frozenset[str]], float]:
    """An accuracy of 0.8 with `Conv_c` alone in float, and what each other layer adds, in points of 100."""
    return lambda names: min(0.9, 0.8 + sum(points.get(name.removeprefix("Conv_"), 0.0) for name in names) / 100)


def test_layers_go_back_to_float_by_score_regained_for_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    # e regains the most, but takes long; of three that do nothing alone none is needed
    ms = {"Conv_a": 0.1, "Conv_b": 0.1, "Conv_d": 0.1, "Conv_e": 10.0, "Conv_c": 0.0}
    result, steps, tried = scored(monkeypatch, 1.5, by_points(a=3, b=6, d=-1, e=8), ms.__getitem__)
    assert result.choice.float_layers == KEPT | {"Conv_b", "Conv_a"}
    assert tried[:4] == [KEPT | {f"Conv_{name}"} for name in "edba"]  # each alone, the noisiest first
    assert tried[4] == KEPT | {"Conv_b", "Conv_a"}  # 60 and 30 points a millisecond, before 0.8
    assert steps == [
        "a drop of 1.5 points is finer than 7 validation images tell: one image is 14 points",
        "fallback: the 4 noisiest of 4 layers tried alone, score and milliseconds",
        "fallback: 2 of 4 layers in float, 1.00 points lost",
        "layers in float: float32 in every runtime",
    ]
    assert (
        result.scores == {"accuracy": (0.9, pytest.approx(0.89))}
        and result.images == 7
        and result.precision == "float32"
    )
    known = {one.name: (one.regained, one.extra_ms) for one in result.noise}
    assert known["Conv_e"] == (pytest.approx(8), pytest.approx(10)) and known["Conv_c"] == (None, None)


def test_one_layer_is_enough_where_one_is_and_the_fastest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ms = {"Conv_a": 0.5, "Conv_b": 0.2, "Conv_d": 0.1, "Conv_e": 0.3, "Conv_c": 0.0}
    result, steps, _ = scored(monkeypatch, 1.0, by_points(a=9, b=9.5, d=5, e=10), ms.__getitem__)
    assert result.choice.float_layers == KEPT | {"Conv_b"}
    assert steps[-2] == "fallback: 1 of 4 layers in float, 0.50 points lost"


def test_no_more_layers_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _, tried = scored(monkeypatch, 1.5, by_points(a=3, b=3, d=3, e=1))
    assert result.choice.float_layers == KEPT | {"Conv_a", "Conv_b", "Conv_d"}  # four were enough, and three as well
    assert [len(names) - 1 for names in tried] == [1, 1, 1, 1, 2, 4, 3]


@pytest.mark.parametrize("max_drop", [None, 15.0])
def test_a_drop_within_the_limit_changes_no_layer(max_drop: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    result, steps, tried = scored(monkeypatch, max_drop, lambda names: 0.805)
    assert (
        result.scores == {"accuracy": (0.9, 0.805)} and result.choice.float_layers == KEPT and not steps and not tried
    )


def test_a_drop_that_stays_in_float_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        VerificationError, match=r"in float it loses 40\.00 points of top-1 accuracy where 0 are allowed"
    ):
        scored(monkeypatch, 0.0, lambda names: 0.5)
    everything = frozenset(f"Conv_{name}" for name in NAMES)
    result, steps, tried = scored(monkeypatch, 0.0, lambda names: 0.9 if "Relu_y" in names else math.nan)
    assert tried[-2] == everything and tried[-1] == everything | {"Relu_y"} == result.choice.float_layers
    assert steps[-2] == "fallback: 4 of 4 layers in float, 0.00 points lost, and all that has no weights"


class InBfloat16(Scoring):
    """The processor computes in bfloat16, which costs a point."""

    bfloat16 = True

    @property
    def precision(self) -> str:  # type: ignore[override]
        return "bfloat16" if self.bfloat16 else "float32"

    def least(self, graph: OnnxGraph, choice: QuantisationChoice) -> float:
        return super().least(graph, choice) - (0.01 if self.bfloat16 else 0.0)


def test_layers_go_back_to_float32_where_bfloat16_cannot_hold_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy = by_points(b=10)
    result, steps, tried = scored(monkeypatch, 0.5, accuracy, kind=InBfloat16)
    assert result.precision == "float32" and result.choice.float_layers == KEPT | {"Conv_b"}
    again = "fallback: not even all layers in bfloat16 hold the limit; again in float32"
    assert steps.count(again) == 1 and steps[-1] == "layers in float: float32 in every runtime"
    assert "Relu_y" in tried[6] and tried[7:] == tried[:4], "all of them in bfloat16, then each alone again"
    result, steps, _ = scored(monkeypatch, 1.5, accuracy, kind=InBfloat16)
    assert result.precision == "bfloat16" and again not in steps
    with pytest.raises(VerificationError, match="in float it loses"):
        scored(monkeypatch, 0.5, lambda names: 0.5, kind=InBfloat16)


class SomeLost(Scoring):
    unreadable = (("a\nb.png", "is truncated"), ("c.png", "is empty"))


def test_validation_images_that_cannot_be_read_are_told_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    result, steps, _ = scored(monkeypatch, None, lambda names: 0.8, kind=SomeLost)
    assert result.images == 5 and steps == [
        r"2 of 7 validation images cannot be read and are left out, such as a\nb.png (is truncated)"
    ]


def test_a_limit_needs_labelled_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantisation, "_calibration", lambda *arguments: pytest.fail("minutes before the refusal"))
    with pytest.raises(InputError, match="--max-drop for"):
        gossamer.quantize(COMPAT / "classify.onnx", tmp_path / "q.onnx", images=[COMPAT / "classes"], max_drop=1.0)
    graph: Any = None
    choice = QuantisationChoice({})
    for missing in ("run", "data"):
        without = target(**{missing: None})
        assert quantisation._scored(without, graph, choice, [], None, [], Progress())[:3] == ({}, 0, choice)
        with pytest.raises(InputError, match=r"--max-drop for net\.onnx, a file without labelled images"):
            quantisation._scored(without, graph, choice, [], 1.0, [], Progress())

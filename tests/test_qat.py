"""Training with the roundings of the int8 file: the torch network is the file, its gradients, and what becomes of it."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import gossamer
from gossamer.cli.main import main
from gossamer.errors import InputError, SettingsError
from gossamer.export.convert import to_onnx
from gossamer.modelfile.metadata import parse_model_file, read_model_file
from gossamer.modelfile.onnx import OnnxNode
from gossamer.operators.table import OPERATORS as NUMPY
from gossamer.operators.windows import Unsupported
from gossamer.run import Run
from gossamer.runtime import native
from gossamer.runtime.model import open_model
from gossamer.shrink import qat
from gossamer.shrink.fake_quant import FakeQuantised, TorchGraph, arrays, round_activation
from gossamer.shrink.graph import OnnxGraph, OnnxSession
from gossamer.shrink.qat import QatSettings, train_quantised
from gossamer.shrink.qdq import QuantisationChoice, quantised_model, weight_axis
from gossamer.shrink.ranges import best_range, fake_quantise, in_batches, measure_ranges
from gossamer.shrink.torch_operators import OPERATORS
from gossamer.training.restore import load_run, run_data
from tests.conftest import write_image_folder
from tests.test_quantise import COMPAT, GRAPHS, images, model, node, residual, weights
from tests.trained import SHORT, TASKS, runs_of_tasks

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
CPU = torch.device("cpu")
X = np.random.default_rng(3).standard_normal((2, 4, 6, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def choice_of(graph: OnnxGraph, **changes: Any) -> QuantisationChoice:
    values = measure_ranges(graph, in_batches(images(16)))
    return QuantisationChoice({name: best_range(value) for name, value in values.items()}, **changes)


def trained_a_little(network: FakeQuantised, updates: int = 3) -> None:
    """Moves weights, biases and ranges a few steps towards random outputs."""
    batch = torch.from_numpy(images(6))
    wanted = {name: torch.randn_like(value) for name, value in network(batch).items()}
    parameters = [*network.parameters(), *network.factors.values()]
    optimizer = torch.optim.Adam(parameters, lr=0.1, eps=1e-12)
    for _ in range(updates):
        loss = torch.stack([(value - wanted[name]).square().mean() for name, value in network(batch).items()]).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


# the network in torch is the file


@pytest.mark.parametrize(("name", "bits"), [("residual", 8), ("shuffled", 7), ("dense", 8)])
def test_the_file_answers_as_the_network_that_was_trained(name: str, bits: int) -> None:
    torch.manual_seed(0)
    graph, x = OnnxGraph(GRAPHS[name](), ["y"], name), images(12, seed=9)
    first = graph.weighted()[1].name  # one layer stays in float
    network = FakeQuantised(graph, choice_of(graph, weight_bits=bits, float_layers=frozenset({first})), CPU)
    before = network.state()
    for trained in (False, True):
        if trained:
            trained_a_little(network)
            assert all(not torch.equal(a, b) for a, b in zip(before, network.state(), strict=True) if a.numel() > 8)
        written, choice = network.written()
        assert choice.float_layers == {first} and choice.weight_bits == bits
        data = quantised_model(written, choice)
        (expected,) = arrays(network(torch.from_numpy(x)))
        runs = [OnnxSession(data).run(x)[0], OnnxSession(data, exact=True).run(x)[0]]
        if native.LIBRARY.is_file():
            runs.append(np.asarray(open_model(parse_model_file(data, "net.onnx"), "native").run(x)))
        step = float(expected.max() - expected.min()) / 255
        for actual in runs:
            assert (actual.argmax(1) == expected.argmax(1)).all()
            assert np.abs(actual - expected).max() < step
    network.restore(before)
    assert all(torch.equal(a, b) for a, b in zip(before, network.state(), strict=True))


@pytest.mark.parametrize("name", GRAPHS)
def test_the_teacher_is_the_float_graph(name: str) -> None:
    graph = OnnxGraph(GRAPHS[name](), ["y"], name)
    (expected,), (actual,) = (
        OnnxSession(graph.model()).run(images()),
        arrays(TorchGraph(graph, CPU).run(torch.from_numpy(images()))),
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_an_operator_without_gradients_names_its_node() -> None:
    graph = OnnxGraph(model([node("Relu", "x", "r"), node("Sinh", "r", "y")], {}, "y"), ["y"], "net")
    with pytest.raises(InputError, match="net: node Sinh_y, operator Sinh: training has no such operator"):
        TorchGraph(graph, CPU)
    graph = OnnxGraph(
        model([node("Conv", "x w", "y", auto_pad="SAME_UPPER")], {"w": np.ones((2, 4, 3, 3), np.float32)}, "y"),
        ["y"],
        "net",
    )
    with pytest.raises(InputError, match="node Conv_y, operator Conv: auto_pad"):
        TorchGraph(graph, CPU).run(torch.from_numpy(images()))


def test_what_torch_itself_refuses_names_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reflection longer than the map is torch's error; too little memory is no fault of a node."""
    constants = {"pads": np.array([0, 0, 9, 0, 0, 0, 0, 0], np.int64)}
    graph = OnnxGraph(model([node("Pad", "x pads", "y", mode="reflect")], constants, "y"), ["y"], "net")
    with pytest.raises(InputError, match=r"net: node Pad_y, operator Pad: .*[Pp]adding.*quantise it without") as caught:
        TorchGraph(graph, CPU).run(torch.from_numpy(images()[..., :5, :5]))
    assert "\n" not in str(caught.value)

    def full(*inputs: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setitem(OPERATORS, "Pad", full)
    with pytest.raises(RuntimeError, match="allocate memory"):
        TorchGraph(graph, CPU).run(torch.from_numpy(images()))


# gradients


def test_rounding_is_half_to_even_and_passes_gradients_within_its_range() -> None:
    x = torch.tensor([-1.0, 0.25, 0.75, 1.25, 3.4, 200.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    y = round_activation(x, scale, 0, 10)
    assert y.tolist() == [0.0, 0.0, 1.0, 1.0, 3.5, 5.0]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 1, 1, 1, 1, 0]
    # LSQ, equation 3: the clipped level, or the nearest level less the place between levels
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(0 - 0.5 + 0.5 - 0.5 + 0.2 + 10)
    values = np.linspace(-3, 9, 1001).astype(np.float32)
    expected = fake_quantise(values, -2.0, 6.0)
    from gossamer.shrink.ranges import scale_and_zero

    step, zero = scale_and_zero(-2.0, 6.0)
    actual = round_activation(torch.from_numpy(values), torch.tensor(float(step)), -zero, 255 - zero)
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-6)


def test_one_learning_rate_moves_channels_of_any_scale_alike() -> None:
    graph = OnnxGraph(residual(), ["y"], "net")
    name = graph.weighted()[0].input[1]
    factors = np.float32(2.0) ** np.arange(-4, 4).reshape(-1, 1, 1, 1).astype(np.float32)
    graph.constants[name] = graph.constants[name] * factors
    network = FakeQuantised(graph, choice_of(graph), CPU)
    layer = network.layers[0]
    assert layer.weight_name == name
    largest = layer.weight.detach().abs().amax((1, 2, 3))
    np.testing.assert_allclose(largest.numpy(), np.full(8, 127), rtol=1e-5)


def test_the_length_of_zeros_has_a_gradient() -> None:
    for axes, keep in (([1], 1), ([-1, 1], 0)):
        length = OPERATORS["ReduceL2"](op("ReduceL2", 1, axes=axes, keepdims=keep), torch.from_numpy(X))
        expected = np.sqrt((X**2).sum(tuple(axes), keepdims=bool(keep)))
        np.testing.assert_allclose(length.numpy(), expected, rtol=1e-5)
    x = torch.zeros(2, 3, requires_grad=True)
    OPERATORS["ReduceL2"](op("ReduceL2", 2), x, np.array([1], np.int64)).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0] * 3] * 2


def transposed() -> bytes:
    """Transposed convolutions, of one group and of two, around a depthwise one."""
    nodes = [
        node("ConvTranspose", "x w0 b0", "s0", strides=[2, 2]), node("Relu", "s0", "s1"),
        node("Conv", "s1 d0 b1", "s2", group=6, pads=[1, 1, 1, 1]), node("Relu", "s2", "s3"),
        node("ConvTranspose", "s3 w1 b2", "s4", group=2), node("Relu", "s4", "s5"),
        node("GlobalAveragePool", "s5", "v0"), node("Flatten", "v0", "v1"), node("Gemm", "v1 wl bl", "y"),
    ]  # fmt: skip
    shapes = weights(w0=(4, 6, 2, 2), b0=(6,), d0=(6, 1, 3, 3), b1=(6,), w1=(6, 4, 1, 1), b2=(8,), wl=(8, 3), bl=(3,))
    for name, axis in (("w0", 1), ("d0", 0), ("w1", 1)):  # channels that differ by far: a scale on another axis shows
        value = shapes[name]
        shapes[name] = value * (4.0 ** np.arange(value.shape[axis], dtype=np.float32)).reshape(
            [-1 if place == axis else 1 for place in range(4)]
        )
    return model(nodes, dict(shapes), "y")


def test_transposed_and_depthwise_layers_have_the_scales_of_the_file() -> None:
    graph, x = OnnxGraph(transposed(), ["y"], "transposed"), images(12, seed=9)
    network = FakeQuantised(graph, choice_of(graph), CPU)
    trained_a_little(network)
    data = quantised_model(*network.written())
    (expected,), (actual,) = arrays(network(torch.from_numpy(x))), OnnxSession(data, exact=True).run(x)
    assert np.abs(actual - expected).max() < float(expected.max() - expected.min()) / 255
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load_from_string(data).graph.initializer}
    weights_now = network.layers[2].values(network.scale(network.group[network.layers[2].source]).detach())
    scale, axis = stored["w1.scale"], weight_axis(graph, graph.weighted()[2])
    assert axis == 1 and len(set(scale.tolist())) == 1, "a group has no axis of all its channels"
    np.testing.assert_allclose(
        stored["w1.int8"] * scale.reshape(1, -1, 1, 1), weights_now["w1"].detach().numpy(), rtol=1e-6
    )


def test_the_learning_rate_falls_to_zero_and_stays_there() -> None:
    assert [qat._rate(0.02, done) for done in (0.0, 0.5, 1.0, 1.5, 2.0, 100.0)] == pytest.approx(
        [0.02, 0.01, 0, 0, 0, 0]
    )


# operators in torch against numpy


def op(name: str, inputs: int, outputs: int = 1, **attributes: Any) -> OnnxNode:
    return OnnxNode(
        name, name, tuple(f"i{n}" for n in range(inputs)), tuple(f"o{n}" for n in range(outputs)), attributes
    )


i64 = np.int64
CASES: list[tuple[OnnxNode, list[Any]]] = [
    (op("Conv", 3, pads=[1, 0, 1, 2], strides=[2, 1]), [X, X[:, :2, :3, :3].reshape(2, 2, 3, 3)[:, [0, 1, 0, 1]], np.ones(2, np.float32)]),
    (op("Conv", 2, group=4, dilations=[2, 2], pads=[2, 2, 2, 2]), [X, X[0, :, None, :3, :3]]),
    (op("Conv", 2, group=4, strides=[2, 2], pads=[1, 1, 1, 1]), [X, X[0, :, None, :3, :3]]),
    (op("MaxPool", 1, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]), [X]),
    (op("MaxPool", 1, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), [X]),
    (op("AveragePool", 1, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), [X]),
    (op("AveragePool", 1, kernel_shape=[2, 2], pads=[1, 0, 0, 1], count_include_pad=1), [X]),
    # torch's own windows pad by half a window at most, alike on both sides
    (op("MaxPool", 1, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1]), [X]),
    (op("MaxPool", 1, kernel_shape=[3, 3], pads=[2, 2, 2, 2]), [X]),
    (op("MaxPool", 1, kernel_shape=[3, 2], pads=[2, 0, 1, 1], dilations=[1, 2]), [X]),
    (op("MaxPool", 1, kernel_shape=[2, 2], strides=[2, 2], auto_pad=b"SAME_LOWER"), [X[..., :5, :5]]),
    (op("MaxPool", 1, kernel_shape=[2, 2], strides=[3, 3], pads=[0, 0, 1, 1], ceil_mode=1), [X]),
    (op("MaxPool", 1, kernel_shape=[1, 1], strides=[2, 2], ceil_mode=1), [X[..., :5, :6]]),
    (op("AveragePool", 1, kernel_shape=[3, 3], pads=[2, 2, 2, 2]), [X]),
    (op("AveragePool", 1, kernel_shape=[2, 2], pads=[1, 0, 0, 1]), [X]),
    (op("AveragePool", 1, kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1, count_include_pad=1), [X[..., :5, :6]]),
    (op("AveragePool", 1, kernel_shape=[3, 3], strides=[2, 2], auto_pad=b"SAME_UPPER"), [X]),
    (op("GlobalAveragePool", 1), [X]), (op("GlobalMaxPool", 1), [X]),
    (op("Gemm", 3, transB=1, alpha=0.5, beta=2.0), [X[0, 0], X[1, 0], X[0, 1, 0]]),
    (op("MatMul", 2), [X, X[0, 0]]),
    (op("BatchNormalization", 5, epsilon=0.1), [X, X[0, :, 0, 0], X[0, :, 0, 1], X[0, :, 0, 2], X[0, :, 0, 3] ** 2]),
    (op("Softmax", 1, axis=1), [X]), (op("Relu", 1), [X]), (op("LeakyRelu", 1, alpha=0.2), [X]),
    (op("PRelu", 2), [X, X[0, :, :1, :1]]), (op("Clip", 3), [X, np.float32(-0.5), np.float32(0.5)]),
    (op("Clip", 3), [X, None, np.array([0.5], np.float32)]), (op("HardSwish", 1), [X]),
    (op("HardSigmoid", 1, alpha=0.3), [X]), (op("Sigmoid", 1), [X]), (op("Tanh", 1), [X]),
    (op("Add", 2), [X, X[0, :, :1, :1]]), (op("Sub", 2), [np.float32(2), X]), (op("Mul", 2), [X, X]), (op("Div", 2), [X, np.float32(3)]),
    (op("Pow", 2), [X, np.float32(2)]), (op("Max", 2), [X, np.float32(0.1)]), (op("Min", 3), [X, -X, np.float32(0.1)]),
    (op("Sqrt", 1), [X**2]), (op("Exp", 1), [X]), (op("Neg", 1), [X]), (op("Abs", 1), [X]),
    (op("ReduceMean", 2, keepdims=0), [X, np.array([2, 3], i64)]), (op("ReduceSum", 1, axes=[1]), [X]),
    (op("ReduceMax", 1), [X]), (op("ReduceMean", 1, noop_with_empty_axes=1), [X]),
    (op("Resize", 4, mode=b"linear"), [X, None, None, np.array([2, 4, 9, 11], i64)]),
    (op("Resize", 3, mode=b"linear", coordinate_transformation_mode=b"align_corners"), [X, None, np.array([1, 1, 2, 2], np.float32)]),
    (op("Resize", 3, mode=b"nearest", coordinate_transformation_mode=b"asymmetric", nearest_mode=b"floor"), [X, None, np.array([1, 1, 2, 3], np.float32)]),
    (op("Resize", 3, mode=b"nearest"), [X, None, np.array([1, 1, 2, 2], np.float32)]),
    (op("Resize", 3, mode=b"nearest", nearest_mode=b"round_prefer_ceil"), [X, None, np.array([1, 1, 2, 3], np.float32)]),
    (op("Resize", 4, mode=b"nearest", coordinate_transformation_mode=b"pytorch_half_pixel"), [X, None, None, np.array([2, 4, 18, 6], i64)]),
    (op("Resize", 3, mode=b"linear"), [X, None, np.array([1, 1, 4 / 3, 1.5], np.float32)]),
    (op("Flatten", 1, axis=-2), [X]), (op("Reshape", 2), [X, np.array([0, 2, -1, 6], i64)]),
    (op("Transpose", 1, perm=[0, 2, 3, 1]), [X]), (op("Concat", 2, axis=1), [X, X[:, :1]]),
    (op("Split", 1, 3, axis=2), [X]), (op("Split", 2, 2, axis=1), [X, np.array([1, 3], i64)]),
    (op("Slice", 5), [X, np.array([1, -3], i64), np.array([99, -1], i64), np.array([1, 3], i64), np.array([2, 1], i64)]),
    (op("Gather", 2, axis=1), [X, np.array([[2, -1], [0, 0]], i64)]), (op("Gather", 2, axis=-1), [X, np.array(1, i64)]),
    (op("Squeeze", 2), [X[:, :, :1, :1], np.array([2, 3], i64)]), (op("Unsqueeze", 2), [X, np.array([0, -1], i64)]),
    (op("Pad", 2, mode=b"reflect"), [X, np.array([0, 0, 1, 2, 0, 0, 3, 0], i64)]),
    (op("Pad", 3), [X, np.array([0, 1, 1, 0, 0, 0, 0, 2], i64), np.float32(0.5)]),
    (op("Pad", 2, mode=b"edge"), [X, np.array([0, 0, 1, 2, 0, 0, 3, 0], i64)]),
    (op("Expand", 2), [X[:, :, :1], np.array([1, 4, 5, 6], i64)]), (op("Shape", 1, start=1), [X]),
    (op("Cast", 1, to=1), [X]), (op("Identity", 1), [X]), (op("Dropout", 1), [X]),
]  # fmt: skip


@pytest.mark.parametrize(("one", "inputs"), CASES, ids=[f"{n}-{one.op}" for n, (one, _) in enumerate(CASES)])
def test_an_operator_in_torch_is_the_one_in_numpy(one: OnnxNode, inputs: list[Any]) -> None:
    expected = NUMPY[one.op](one, *inputs)
    tensors = [
        torch.from_numpy(v) if isinstance(v, np.ndarray) and v.dtype == np.float32 and v.ndim else v for v in inputs
    ]
    actual = OPERATORS[one.op](one, *tensors)
    pairs = zip(expected, actual, strict=True) if isinstance(expected, tuple) else [(expected, actual)]
    for theirs, ours in pairs:
        assert tuple(ours.shape) == theirs.shape
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("one", "inputs"),
    [
        (op("AveragePool", 1, kernel_shape=[2, 2], dilations=[2, 2]), [X]),
        (op("Resize", 3, mode=b"cubic"), [X, None, np.array([1, 1, 2, 2], np.float32)]),
        (op("Resize", 3, mode=b"linear"), [X, None, np.array([1, 2, 2, 2], np.float32)]),
        (op("Resize", 3, mode=b"linear"), [X, None, np.array([1, 1, 1.25, 2], np.float32)]),
        *(
            (
                op("Resize", 3, mode=b"nearest", coordinate_transformation_mode=where, nearest_mode=rounding),
                [X, None, np.array([1, 1, 3, 3], np.float32)],
            )
            for where, rounding in (
                (b"asymmetric", b"round_prefer_floor"),
                (b"asymmetric", b"ceil"),
                (b"half_pixel", b"floor"),
                (b"align_corners", b"floor"),
            )
        ),
        (op("Slice", 5), [X, np.array([3], i64), np.array([0], i64), np.array([1], i64), np.array([-1], i64)]),
        (op("BatchNormalization", 5, training_mode=1), [X, *[X[0, :, 0, 0]] * 4]),
        (op("Pad", 2, mode=b"reflect"), [X, np.array([0, 1, 1, 0, 0, 0, 0, 0], i64)]),
        (op("Cast", 1, to=3), [X]),
        (op("Reshape", 2), [X, torch.ones(2)]),
    ],
)
def test_a_form_without_gradients_is_refused(one: OnnxNode, inputs: list[Any]) -> None:
    with pytest.raises(Unsupported):
        OPERATORS[one.op](
            one, *(torch.from_numpy(v) if isinstance(v, np.ndarray) and v.dtype == np.float32 else v for v in inputs)
        )


# the training


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a classifier of a few seconds."""
    folder = tmp_path_factory.mktemp("qat")
    write_image_folder(folder / "photos", classes=2, each=8)
    assert main(["train", str(folder / "photos"), *SHORT, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def calibrated(run: Path) -> tuple[bytes, QuantisationChoice]:
    """The ONNX model of the run, and how it is quantised."""
    loaded = load_run(run)
    data = to_onnx(loaded.model, loaded.preprocess.size, 3)
    values = measure_ranges(
        OnnxGraph(data, ["logits"], "run"),
        [np.random.default_rng(0).standard_normal((8, 3, 32, 32)).astype(np.float32)],
    )
    return data, QuantisationChoice({name: best_range(value) for name, value in values.items()})


def begin(
    run: Path, calibrated: tuple[bytes, QuantisationChoice], settings: QatSettings, score: Callable[..., float]
) -> Any:
    """`train_quantised` of the run, with its int8 file scored by `score`."""
    data, choice = calibrated
    parent, graph = (OnnxGraph(data, ["logits"], "run") for _ in range(2))
    whole = run_data(Run.open(run))
    return graph, choice, *train_quantised(parent, graph, choice, load_run(run, data=whole), whole, settings, score)


@pytest.mark.full
def test_the_best_state_is_kept_and_only_where_it_is_no_worse(
    run: Path, calibrated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    values = iter([0.5, 0.4, 0.5, 0.3])  # before training, then after each of three updates

    def score(graph: OnnxGraph, choice: QuantisationChoice) -> float:
        seen.append(quantised_model(graph, choice))
        return next(values)

    settings = QatSettings(epochs=1.5)  # of two updates
    graph, choice, new, how, result = begin(run, calibrated, settings, score)
    assert (result.before, result.after, result.kept, result.steps, result.images) == (0.5, 0.5, True, 3, 24)
    assert result.scores == (0.4, 0.5, 0.3) and len(result.losses) == 3 and len(set(seen)) == 4
    assert quantised_model(new, how) == seen[2]  # as many points as without are no loss
    assert quantised_model(graph, choice) == seen[0]  # what was given is as it was
    assert "top-1 accuracy of the int8 file 0.5000 -> 0.5000, kept" in result.text("accuracy")
    values = iter([0.5, 0.4, math.nan, 0.49])
    graph, choice, new, how, result = begin(run, calibrated, settings, score)
    assert new is graph and how is choice and not result.kept and result.after == 0.49
    values = iter([math.nan, math.nan, 0.2, 0.1])  # a score that nothing defines is none
    *_, other = begin(run, calibrated, settings, score)
    assert other.kept and other.after == 0.2
    assert result.text("accuracy").endswith("0.5000 -> 0.4900, not kept, as it is lower")
    monkeypatch.setattr(qat, "_loss", lambda network, *rest: next(network.parameters()).sum() * math.nan)
    values = iter([0.5])
    graph, choice, new, how, result = begin(run, calibrated, settings, score)
    assert new is graph and not result.kept and result.steps == 0 and result.after == 0.5
    assert result.text("accuracy").endswith("0.5000 -> 0.5000, not kept, as no state has a score")
    # a root at 0: the loss is a number, its gradient is none
    monkeypatch.setattr(qat, "_loss", lambda network, *rest: (next(network.parameters()) * 0).abs().sqrt().sum())
    values = iter([0.5])
    graph, choice, new, how, result = begin(run, calibrated, settings, score)
    assert new is graph and not result.kept and result.steps == 0


@pytest.mark.full
def test_minutes_end_the_training_and_leave_most_of_them_to_it(
    run: Path, calibrated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(qat.time, "perf_counter", lambda: now[0])

    def score(graph: OnnxGraph, choice: QuantisationChoice) -> float:
        now[0] += 3.0
        return 0.5

    def slow(network: FakeQuantised, *rest: Any) -> torch.Tensor:
        now[0] += 1.0
        return next(network.parameters()).sum() * 0

    monkeypatch.setattr(qat, "_loss", slow)
    *_, result = begin(run, calibrated, QatSettings(minutes=0.5), score)
    assert result.scores == (0.5, 0.5) and result.steps == 21 and result.seconds == 30  # 3 + 21 + 2 x 3: 30 s
    *_, result = begin(run, calibrated, QatSettings(minutes=0.001), score)
    assert result.steps == 1 and len(result.scores) == 1  # one step is taken, however short the time


@pytest.mark.full
def test_epochs_depend_on_no_clock(run: Path, calibrated: Any) -> None:
    files = []
    for _ in range(2):
        _, _, new, how, result = begin(run, calibrated, QatSettings(epochs=1), lambda graph, choice: 0.5)
        files.append(quantised_model(new, how))
    assert result.steps == 2 and files[0] == files[1]


def test_settings_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (
        {},
        {"minutes": 1, "epochs": 1},
        {"minutes": 0},
        {"epochs": math.nan},
        {"minutes": 1, "lr": 0},
        {"epochs": True},
    ):
        with pytest.raises(SettingsError):
            QatSettings(**wrong)
    out, run = str(tmp_path / "out.onnx"), COMPAT / "runs" / "classify"
    file = str(COMPAT / "classify.onnx")
    for words, expected in (
        ([file, "--images", str(COMPAT / "classes"), "--qat-minutes", "1"], "QAT for"),
        ([str(run), "--qat-minutes", "0"], "0.001 to"),
        ([str(run), "--qat-minutes", "1", "--qat-epochs", "1"], "one of them"),
        ([str(run), "--qat-epochs", "1", "--qat-lr", "-1"], "1e-06 to 10"),
        ([str(run), "--qat-minutes", "much"], "much"),
        ([str(run), "--qat-lr", "0.1"], "--qat-lr without --qat-minutes or --qat-epochs"),
    ):
        assert main(["quantize", *words, "--out", out]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert expected in error and "Traceback" not in error, error
    loaded = load_run(run)
    other = dataclasses.replace(loaded, settings=dataclasses.replace(loaded.settings, head_weights="gradnorm"))
    with pytest.raises(InputError, match="gradnorm, which compares gradients within the network"):
        qat.check_loss(other)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_a_run_is_quantised_with_training_and_the_file_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = gossamer.quantize(run, tmp_path / "a.onnx", count=16, qat_epochs=1)
    assert first.qat is not None
    assert any(line.startswith("QAT: 2 updates") for line in first.steps)
    assert first.to_json()["qat"]["settings"] == {"minutes": None, "epochs": 1, "lr": 0.02}
    assert first.scores["accuracy"][1] == max(first.qat.before, first.qat.after)
    metadata = read_model_file(tmp_path / "a.onnx").metadata
    assert metadata is not None
    trained = metadata.provenance["quantised"].get("qat")
    assert trained == (
        {"minutes": None, "epochs": 1, "lr": 0.02, "updates": 2, "images": 16} if first.qat.kept else None
    )

    def interrupt(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(qat, "_loss", interrupt)
    with pytest.raises(KeyboardInterrupt):
        gossamer.quantize(run, tmp_path / "b.onnx", count=16, qat_epochs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx"]

    def refuse(*arguments: Any) -> Any:
        raise Unsupported("a form of it")

    monkeypatch.setitem(OPERATORS, "Conv", refuse)
    monkeypatch.setattr("gossamer.shrink.quantise._calibration", interrupt)  # before any of it
    with pytest.raises(InputError, match=r"operator Conv: a form of it.*without --qat-minutes"):
        gossamer.quantize(run, tmp_path / "b.onnx", count=16, qat_epochs=1)


@pytest.mark.full
@pytest.mark.parametrize("task", TASKS)
def test_every_task_trains_its_int8_file(task: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = runs_of_tasks(tmp_path_factory)
    shutil.copytree(source / task, tmp_path / "run")
    photos = [str(path) for path in sorted((source / TASKS[task]).rglob("*.png")) if "masks" not in path.parts]
    result = gossamer.quantize(tmp_path / "run", tmp_path / "q.onnx", images=photos, count=8, qat_epochs=1)
    assert result.qat is not None and result.qat.steps >= 1
    assert all(math.isfinite(loss) and loss > 0 for loss in result.qat.losses)
    assert (tmp_path / "q.onnx").is_file()


def test_an_epoch_without_a_batch_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no image of it can be read: the next one would have none either."""
    monkeypatch.setattr(qat, "_epoch", lambda *given: given)
    monkeypatch.setattr(qat, "prefetch", lambda *given, **more: (one for one in ()))
    loaded = SimpleNamespace(settings=SimpleNamespace(workers=0), run=SimpleNamespace(path="run"))
    with pytest.raises(InputError, match="no image that can be read"):
        next(qat._batches(loaded, None))  # type: ignore[arg-type]

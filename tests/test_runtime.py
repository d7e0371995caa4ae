"""The runtimes: numpy operator by operator against ONNX Runtime, whole models, predictions, verification."""

from __future__ import annotations

import builtins
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from gossamer import modelfile, onnxfile, runtime
from gossamer.answers.classes import softmax
from gossamer.errors import (
    ImageError,
    InputError,
    MissingPackageError,
    ModelFileError,
    UnknownNameError,
    VerificationError,
)
from gossamer.runtime import native
from gossamer.runtime.operators import OPERATORS
from gossamer.runtime.verification import OutputCheck, compare, margin
from tests.hostile import make_models as make

FOLDER = Path(__file__).parent / "hostile" / "models"
GOOD, PLAIN = FOLDER / "good.onnx", FOLDER / "plain.onnx"
RNG = np.random.default_rng(11)
Array = NDArray[Any]


def f32(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


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
    message = onnxfile.protobuf.Reader(onnxfile.MESSAGES).message(memoryview(data), "Model")
    node = onnxfile._node(message["graph"]["node"][0])
    with np.errstate(all="ignore"):
        found = OPERATORS[op](node, *inputs)
    return list(found) if isinstance(found, tuple) else [found], expected


@pytest.mark.parametrize("op,inputs,attributes", CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_an_operator_gives_what_onnxruntime_gives(
    op: str, inputs: list[Array | None], attributes: dict[str, Any]
) -> None:
    parts = attributes.get("num_outputs", PARTS.get(op, 1))
    found, expected = ours_and_onnxruntime(op, inputs, attributes, parts)
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_every_operator_has_a_case() -> None:
    assert {op for op, _, _ in CASES} == set(OPERATORS)


def test_axes_as_attributes_of_older_operator_sets_are_read() -> None:
    for op, attributes in (("ReduceMean", {"axes": [2, 3], "keepdims": 0}), ("ReduceMax", {"axes": [1]})):
        found, expected = ours_and_onnxruntime(op, [X], attributes, 1, opset=13)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)


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
    found, expected = ours_and_onnxruntime(op, inputs, attributes, 1)
    assert found[0].shape == expected[0].shape
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)


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
    node = onnxfile.Node(op, "n", ("x",), ("y",), attributes)
    with pytest.raises(ValueError, match=reason):
        OPERATORS[op](node, *inputs)


# loading


def installed() -> list[str]:
    return [name for name in runtime.RUNTIMES if name == "reference" or importlib.util.find_spec(name)]


def no_packages(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Importing these fails, as where they are not installed."""
    real: Callable[..., Any] = builtins.__import__

    def guarded(name: str, *rest: Any, **options: Any) -> Any:
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **options)

    for name in missing:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(builtins, "__import__", guarded)


def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the native engine is not built."""
    monkeypatch.setattr(native, "LIBRARY", Path("nowhere.so"))
    monkeypatch.setattr(native, "_library", None)


@pytest.mark.parametrize("name", installed())
def test_every_runtime_gives_what_was_computed_by_hand(name: str) -> None:
    model = runtime.load(GOOD, runtime=name, threads=1)
    pixels = np.stack([make.pixels_of(seed) for seed in range(5)])
    assert model.card is not None
    found = model.run(model.card.preprocess.normalise(pixels))
    assert found.dtype == np.float32 and model.runtime_name == name
    np.testing.assert_allclose(found, [make.outputs_of(one) for one in pixels], atol=1e-6)


@pytest.mark.parametrize("name", installed())
def test_results_stay_as_they_are_when_the_model_runs_again(name: str) -> None:
    model = runtime.load(PLAIN, runtime=name)
    first = model.run(np.ones((2, 3, 8, 8), np.float32))
    kept = first.copy()
    model.run(np.zeros((2, 3, 8, 8), np.float32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", installed())
def test_a_model_can_be_called_from_several_threads(name: str) -> None:
    model = runtime.load(PLAIN, runtime=name, threads=1)
    inputs = [np.full((1 + i % 3, 3, 8, 8), i, np.float32) for i in range(12)]
    expected = [model.run(one) for one in inputs]
    wrong: list[int] = []

    def work(start: int) -> None:
        for _ in range(20):
            for i in range(start, len(inputs), 2):
                if not np.array_equal(model.run(inputs[i]), expected[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_auto_takes_the_first_that_is_installed_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    no_engine(monkeypatch)
    no_packages(monkeypatch, "onnxruntime", "openvino")
    model = runtime.load(GOOD)
    assert model.runtime_name == "reference"
    assert "native is not installed; onnxruntime is not installed; openvino is not installed" in model.why
    assert 'pip install "gossamer[onnx]"' in model.why and "slow" in model.why


def test_auto_passes_over_a_runtime_that_cannot_run_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: modelfile.ModelFile, threads: int) -> Any:
        raise modelfile.broken(8, "no such operator")

    for name in ("native", "onnxruntime"):
        monkeypatch.setitem(runtime.RUNTIMES, name, (refuse, "", ""))
    no_packages(monkeypatch, "openvino")
    model = runtime.load(GOOD)
    assert model.runtime_name == "reference" and "no such operator" in model.why


def test_a_file_that_no_runtime_can_run_is_refused_with_the_first_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    no_engine(monkeypatch)
    no_packages(monkeypatch, "onnxruntime", "openvino")
    with pytest.raises(ModelFileError, match="no operator Gemm2"):
        runtime.load(FOLDER / "08_unknown_operator.onnx")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_runtime_that_is_not_installed_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    no_packages(monkeypatch, name)
    with pytest.raises(MissingPackageError, match=r'pip install "gossamer\[(onnx|openvino)\]"'):
        runtime.load(GOOD, runtime=name)


def test_an_unknown_runtime_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean onnxruntime"):
        runtime.load(GOOD, runtime="onnx-runtime")


@pytest.mark.parametrize("threads", [-1, 1.5, True, 5000])
def test_a_number_of_threads_that_makes_no_sense_is_refused(threads: Any) -> None:
    with pytest.raises(InputError, match="threads"):
        runtime.load(GOOD, threads=threads)


@pytest.mark.parametrize(
    "batch",
    [
        np.ones((2, 3, 8, 8)),
        np.ones((2, 8, 8, 3), np.float32),
        np.ones((3, 8, 8), np.float32),
        np.ones((0, 3, 8, 8), np.float32),
        np.ones((1, 3, 16, 16), np.float32),
        [[1.0]],
        None,
    ],
)
def test_an_input_of_another_shape_or_type_is_one_clear_error(batch: Any) -> None:
    with pytest.raises(InputError, match=r"allowed: a float32 array \(any, 3, 8, 8\)") as caught:
        runtime.load(GOOD, runtime="reference").run(batch)
    assert "\n" not in str(caught.value)


def test_an_input_in_another_memory_order_gives_the_same() -> None:
    batch = f32(2, 8, 8, 3)
    for name in installed():
        model = runtime.load(PLAIN, runtime=name)
        turned = batch.transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(model.run(turned), model.run(np.ascontiguousarray(turned)))


def test_a_node_that_fails_is_named() -> None:
    body = make.model(make.graph(tensors=(make.tensor("w", f32(2, 4)), make.TENSORS[1])))
    model = runtime.model.open_model(modelfile.parse(body, "odd.onnx"), "reference")
    with pytest.raises(ModelFileError, match=r"odd.onnx: node 'logits' \(Gemm\): .*\(rule 8\)"):
        model.run(np.ones((1, 3, 8, 8), np.float32))


def test_the_reference_refuses_operator_sets_it_does_not_know() -> None:
    with pytest.raises(ModelFileError, match="operator set 12"):
        runtime.model.open_model(modelfile.parse(make.model(opset=12)), "reference")


def test_importing_and_running_the_deployment_half_loads_nothing_heavy() -> None:
    code = (
        "import sys; from gossamer import runtime; "
        f"model = runtime.load({str(GOOD)!r}, runtime='reference'); "
        f"runtime.verify({str(GOOD)!r}, runtime='reference'); "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'openvino', 'matplotlib', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and not done.stderr


def test_openvino_is_loaded_without_its_telemetry(tmp_path: Path) -> None:
    if "openvino" not in installed():
        pytest.skip("openvino is not installed")
    code = (
        "import socket, sys; "
        "socket.socket.connect = lambda *a: sys.exit('network'); "
        "from gossamer import runtime; import numpy; "
        f"runtime.load({str(GOOD)!r}, runtime='openvino').run(numpy.ones((1, 3, 8, 8), 'float32')); "
        "print('openvino_telemetry' in sys.modules)"
    )
    environment = {"HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "False", "")
    assert not list(tmp_path.iterdir())


# predictions


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(make.pixels_of(1)).save(path)
    return path


def test_one_source_gives_one_prediction_and_a_list_gives_a_list(picture: Path) -> None:
    model = runtime.load(GOOD)
    expected = softmax(make.outputs_of(make.pixels_of(1)))
    order = np.argsort(-expected)
    one = model.predict(picture, top=5)
    assert one.source == str(picture) and one.classes == tuple(("cat", "dog")[i] for i in order)
    np.testing.assert_allclose(one.scores, expected[order], atol=1e-6)
    several = model.predict([str(picture), picture.read_bytes(), make.pixels_of(1), Image.open(picture)], batch=3)
    assert [item.classes for item in several] == [one.classes[:1]] * 4
    assert [item.source for item in several] == [str(picture), "<bytes>", "<ndarray>", "<PngImageFile>"]
    assert model.predict([]) == []


def test_predictions_refuse_bad_images_and_numbers(picture: Path, tmp_path: Path) -> None:
    model = runtime.load(GOOD)
    with pytest.raises(ImageError, match=r"none\.png"):
        model.predict(tmp_path / "none.png")
    for options in ({"top": 0}, {"batch": 0}, {"top": True}):
        with pytest.raises(InputError, match="a whole number from 1"):
            model.predict(picture, **options)


def test_a_plain_onnx_file_can_be_run_but_not_predict(picture: Path) -> None:
    model = runtime.load(PLAIN)
    assert model.card is None and model.run(np.ones((1, 3, 8, 8), np.float32)).shape == (1, 2)
    for call in (
        lambda: model.predict(picture),
        lambda: runtime.predict_files(model, [picture]),
        lambda: runtime.verify(PLAIN),
    ):
        with pytest.raises(ModelFileError, match="a plain ONNX file: it does not say") as caught:
            call()
        assert caught.value.rule == 9


def test_folders_are_walked_in_order_and_bad_images_set_aside(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for name in ("b/2.png", "b/10.png", "a/deep/x.PNG", "c.png", ".hidden/y.png", "b/.z.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make.pixels_of(len(name))).save(root / name, "PNG")
    (root / "b" / "3.png").write_bytes(b"no image")
    (root / "notes.txt").write_text("not looked at")
    (tmp_path / "empty").mkdir()
    model = runtime.load(GOOD)
    asked = [root, tmp_path / "empty", tmp_path / "none.png", root / "c.png"]
    for batch in (1, 2, 32):
        found = list(runtime.predict_files(model, asked, batch=batch))
        names = [str(Path(item.source).relative_to(tmp_path)) for item in found]
        assert names == [
            "images/c.png",
            "images/a/deep/x.PNG",
            "images/b/10.png",
            "images/b/2.png",
            "images/b/3.png",
            "empty",
            "none.png",
            "images/c.png",
        ]
        bad = [name for name, item in zip(names, found) if item.error]
        assert bad == ["images/b/3.png", "empty", "none.png"]
        assert all("\n" not in item.error and not item.classes for item in found if item.error)
        for name, item in zip(names, found):
            if not item.error:
                assert item == model.predict(tmp_path / name)


def test_a_prediction_is_plain_json(picture: Path) -> None:
    values = runtime.load(GOOD).predict(picture).to_json()
    assert json.loads(json.dumps(values)) == values and values["error"] == ""


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=9))
def test_softmax_is_a_distribution_whatever_the_size_of_its_input(values: list[float]) -> None:
    scores = softmax(np.array(values, np.float32))
    assert scores.dtype == np.float32 and abs(float(scores.sum()) - 1) < 1e-5
    assert scores[int(np.argmax(values))] == scores.max()


def not_finite(value: float) -> bytes:
    """A good file whose network answers `value` where the first pixel's channel is above its middle."""
    weights = np.array([[value, 0, 0], [0, 0, 0]], np.float32)
    return make.file(make.model(make.graph(tensors=(make.tensor("w", weights), make.TENSORS[1]))))


def test_outputs_that_are_not_finite_are_an_error_and_no_class(tmp_path: Path, picture: Path) -> None:
    path = tmp_path / "nan.onnx"
    path.write_bytes(not_finite(float("nan")))
    model = runtime.load(path)
    with pytest.raises(VerificationError, match="not finite"):
        model.predict(picture)
    assert "not finite" in next(iter(runtime.predict_files(model, [picture]))).error
    found = runtime.verify(path)
    assert not found.ok and json.loads(json.dumps(found.to_json(), allow_nan=False))["largest_difference"] is None


# verification


@pytest.mark.parametrize("name", ["auto", *installed()])
def test_a_good_file_verifies_with_every_runtime(name: str) -> None:
    found = runtime.verify(GOOD, runtime=name)
    assert found.ok and not found.warnings and 0 <= found.largest_difference < 1e-6
    found.raise_if_failed()
    values = json.loads(json.dumps(found.to_json()))
    assert values["ok"] and values["tolerance"] == 0.0001 and len(values["outputs"]) == 2
    assert found.sha256 in found.text() and "verified" in found.text()


def test_other_weights_fail_verification(tmp_path: Path) -> None:
    weights = make.WEIGHTS + np.float32(0.01)
    path = tmp_path / "other.onnx"
    path.write_bytes(make.file(make.model(make.graph(tensors=(make.tensor("w", weights), make.TENSORS[1])))))
    found = runtime.verify(path)
    assert not found.ok and found.largest_difference > found.tolerance and "FAILED" in found.text()
    with pytest.raises(VerificationError, match="check inputs 0, 1 differ by up to") as caught:
        found.raise_if_failed()
    assert caught.value.exit_code == 1


def test_other_pixels_are_a_warning_with_the_largest_difference(tmp_path: Path) -> None:
    pixels = make.pixels_of(3)
    pixels[2, 3, 1] -= 7
    digest = make.hashlib.sha256(pixels.tobytes()).hexdigest()
    changed = make.changed(1, pixels=make.text64(make.png(pixels)), sha256=digest)
    path = tmp_path / "pixels.onnx"
    path.write_bytes(make.file(images=changed))
    found = runtime.verify(path)
    assert found.ok and not found.pixels[0].same and found.pixels[0].largest == 7
    assert "differ by up to 7 of 255" in found.warnings[0]
    path.write_bytes(make.file(images=make.changed(1, file=make.text64(b"no image"))))
    assert runtime.verify(path).ok and runtime.verify(path).pixels[0].problem


def test_comparing_outputs_looks_at_size_class_and_sense() -> None:
    expected = np.array([1, 3, 2], np.float32)
    assert compare(expected, expected, 1e-4) == OutputCheck(0.0, True)
    assert compare(expected, np.array([1, 3, 3.5], np.float32), 1e-4).difference == 1.5
    assert not compare(expected, np.array([1, 3, 3.5], np.float32), 1e-4).same_class
    assert compare(np.array([1, 1], np.float32), np.array([1, 1.00001], np.float32), 1e-4).same_class
    for wrong in (np.array([1, np.nan, 2], np.float32), np.zeros(2, np.float32)):
        assert compare(expected, wrong, 1e-4).difference == float("inf")
    assert margin(expected) == 1 and margin(expected[:1]) == float("inf")


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("where", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("to", [(7, 11), (2, 3), (4, 5), (1, 1)])
def test_resize_is_what_onnx_runtime_computes(mode: str, where: str, to: tuple[int, int]) -> None:
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": where}
    nodes = [onnx.helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **options)]
    given = [onnx.helper.make_tensor_value_info("x", 1, ["n", 3, 4, 5])]
    made = [onnx.helper.make_tensor_value_info("y", 1, ["n", 3, *to])]
    sizes = onnx.numpy_helper.from_array(np.array([2, 3, *to], np.int64), "sizes")
    graph = onnx.helper.make_graph(nodes, "resize", given, made, [sizes])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    data = model.SerializeToString()
    expected = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    found = runtime.model.open_model(modelfile.parse(data), "reference").run(x)
    np.testing.assert_allclose(found, expected, atol=1e-6)

"""The runtimes: models, predictions, verification."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gossamer import runtime
from gossamer.errors import (
    ImageError,
    InputError,
    MissingPackageError,
    ModelFileError,
    UnknownNameError,
    VerificationError,
)
from gossamer.modelfile.metadata import ModelFile, parse_model_file, rule_error
from gossamer.predictions.classes import softmax
from gossamer.runtime import model as runtime_model
from gossamer.runtime import native, reference, steps, table
from gossamer.runtime.ort import kernel_times, open_session
from gossamer.runtime.steps import Step
from gossamer.runtime.verification import OutputCheck, PixelCheck, compare_outputs, margin
from tests.arrays import f32
from tests.hostile import make_models as make
from tests.runs import installed_runtimes

FOLDER = Path(__file__).parent / "hostile" / "models"
GOOD, PLAIN = FOLDER / "good.onnx", FOLDER / "plain.onnx"


# loading


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


@pytest.mark.parametrize("name", installed_runtimes())
def test_every_runtime_gives_what_was_computed_by_hand(name: str) -> None:
    model = runtime.load(GOOD, runtime=name, threads=1)
    pixels = np.stack([make.pixels_of(seed) for seed in range(5)])
    assert model.metadata is not None
    outputs = model.run(model.metadata.preprocess.normalise(pixels))
    assert outputs.dtype == np.float32 and model.runtime_name == name
    np.testing.assert_allclose(outputs, [make.outputs_of(one) for one in pixels], atol=1e-6)


def test_bytes_in_onnxruntime_do_not_saturate(tmp_path: Path) -> None:
    """255 * 127 twice is more than 16 bits hold, in which processors without VNNI add up two products by default."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    one, zero, none = np.float32(1), np.uint8(0), np.int8(0)
    weights = np.full((8, 64, 1, 1), 127, np.int8)
    tensors = {"one": one, "zero": zero, "none": none, "weights": weights, "wide": np.float32(256)}
    nodes = [
        ("QuantizeLinear", ["x", "one", "zero"], "bytes"),
        ("DequantizeLinear", ["bytes", "one", "zero"], "numbers"),
        ("DequantizeLinear", ["weights", "one", "none"], "kernel"),
        ("Conv", ["numbers", "kernel"], "sums"),
        ("QuantizeLinear", ["sums", "wide", "zero"], "few"),
        ("DequantizeLinear", ["few", "wide", "zero"], "y"),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes],
        "saturates",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 64, 4, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 8, 4, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    path = tmp_path / "saturates.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    batch = np.zeros((1, 64, 4, 4), np.float32)
    batch[:, :2] = 255  # 64770 in two products; 32767 if saturated
    assert (runtime.load(path, runtime="onnxruntime").run(batch) == 253 * 256).all()
    # every session has these options, one that reads inner values and one that is profiled too
    for exact in (False, True):
        (outputs,) = open_session(str(path), 1, exact=exact).run(None, {"x": batch})
        assert (outputs == 253 * 256).all()
    times = kernel_times(path.read_bytes(), batch, 1, warm=2, runs=3)
    assert times and all(len(each) == 3 and min(each) >= 0 for each in times.values())
    package = Path(runtime.__file__).parents[1]
    assert [path.name for path in package.rglob("*.py") if "InferenceSession" in path.read_text("utf-8")] == ["ort.py"]


@pytest.mark.parametrize("name", installed_runtimes())
def test_results_stay_as_they_are_when_the_model_runs_again(name: str) -> None:
    model = runtime.load(PLAIN, runtime=name)
    first = model.run(np.ones((2, 3, 8, 8), np.float32))
    kept = first.copy()
    model.run(np.zeros((2, 3, 8, 8), np.float32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", installed_runtimes())
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
    def refuse(file: ModelFile, threads: int) -> Any:
        raise rule_error(8, "no such operator")

    runtime_class = table.runtime_class
    refusing = ("native", "onnxruntime")
    monkeypatch.setattr(
        runtime_model, "runtime_class", lambda name: refuse if name in refusing else runtime_class(name)
    )
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
    for name in installed_runtimes():
        model = runtime.load(PLAIN, runtime=name)
        turned = batch.transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(model.run(turned), model.run(np.ascontiguousarray(turned)))


def test_a_node_that_fails_is_named() -> None:
    body = make.model(make.graph(tensors=(make.tensor("w", f32(2, 4)), make.TENSORS[1])))
    model = runtime_model.open_model(parse_model_file(body, "odd.onnx"), "reference")
    with pytest.raises(ModelFileError, match=r"odd.onnx: node 'logits' \(Gemm\): .*\(rule 8\)"):
        model.run(np.ones((1, 3, 8, 8), np.float32))


def test_the_reference_refuses_operator_sets_it_does_not_know() -> None:
    with pytest.raises(ModelFileError, match="operator set 12"):
        runtime_model.open_model(parse_model_file(make.model(opset=12)), "reference")


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
    if "openvino" not in installed_runtimes():
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
def image_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(make.pixels_of(1)).save(path)
    return path


def test_one_source_gives_one_prediction_and_a_list_gives_a_list(image_file: Path) -> None:
    model = runtime.load(GOOD)
    expected = softmax(make.outputs_of(make.pixels_of(1)))
    order = np.argsort(-expected)
    one = model.predict(image_file, top=5)
    assert one.source == str(image_file) and one.classes == tuple(("cat", "dog")[i] for i in order)
    np.testing.assert_allclose(one.scores, expected[order], atol=1e-6)
    several = model.predict(
        [str(image_file), image_file.read_bytes(), make.pixels_of(1), Image.open(image_file)], batch=3
    )
    assert [item.classes for item in several] == [one.classes[:1]] * 4
    assert [item.source for item in several] == [str(image_file), "<bytes>", "<ndarray>", "<PngImageFile>"]
    assert model.predict([]) == []


def test_predictions_refuse_bad_images_and_numbers(image_file: Path, tmp_path: Path) -> None:
    model = runtime.load(GOOD)
    with pytest.raises(ImageError, match=r"none\.png"):
        model.predict(tmp_path / "none.png")
    for options in ({"top": 0}, {"batch": 0}, {"top": True}):
        with pytest.raises(InputError, match="a whole number from 1"):
            model.predict(image_file, **options)


def test_a_plain_onnx_file_can_be_run_but_not_predict(image_file: Path) -> None:
    model = runtime.load(PLAIN)
    assert model.metadata is None and model.run(np.ones((1, 3, 8, 8), np.float32)).shape == (1, 2)
    for call in (
        lambda: model.predict(image_file),
        lambda: runtime.predict_files(model, [image_file]),
        lambda: runtime.verify(PLAIN),
    ):
        with pytest.raises(ModelFileError, match="a plain ONNX file, without preprocessing and classes") as caught:
            call()
        assert caught.value.rule == 9


def test_what_brings_the_engine_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No extra does: it is built."""
    no_engine(monkeypatch)
    with pytest.raises(MissingPackageError) as caught:
        runtime.load(GOOD, runtime="native")
    assert "needs the native engine, which is not installed; " in str(caught.value) and "make engine" in str(
        caught.value
    )
    assert "pip install" not in str(caught.value)


@pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native engine is not built: make engine")
def test_an_instruction_set_that_is_none_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOSSAMER_ISA", "sse9")
    with pytest.raises(InputError, match="unset GOSSAMER_ISA") as caught:
        runtime.load(GOOD)
    assert not isinstance(caught.value, ModelFileError) and "rule" not in str(caught.value)


def test_folders_are_walked_in_order_and_bad_images_skipped(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for name in ("b/2.png", "b/10.png", "a/deep/x.PNG", "c.png", ".hidden/y.png", "b/.z.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make.pixels_of(len(name))).save(root / name, "PNG")
    (root / "b" / "3.png").write_bytes(b"no image")
    (root / "notes.txt").write_text("not looked at")
    (tmp_path / "empty").mkdir()
    model = runtime.load(GOOD)
    sources = [root, tmp_path / "empty", tmp_path / "none.png", root / "c.png"]
    for batch in (1, 2, 32):
        predictions = list(runtime.predict_files(model, sources, batch=batch))
        names = [str(Path(item.source).relative_to(tmp_path)) for item in predictions]
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
        bad = [name for name, item in zip(names, predictions) if item.error]
        assert bad == ["images/b/3.png", "empty", "none.png"]
        assert all("\n" not in item.error and not item.classes for item in predictions if item.error)
        for name, item in zip(names, predictions):
            if not item.error:
                assert item == model.predict(tmp_path / name)


def test_a_prediction_is_plain_json(image_file: Path) -> None:
    values = runtime.load(GOOD).predict(image_file).to_json()
    assert json.loads(json.dumps(values)) == values and values["error"] == ""


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=9))
def test_softmax_is_a_distribution_whatever_the_size_of_its_input(values: list[float]) -> None:
    scores = softmax(np.array(values, np.float32))
    assert scores.dtype == np.float32 and abs(float(scores.sum()) - 1) < 1e-5
    assert scores[int(np.argmax(values))] == scores.max()


def not_finite(value: float) -> bytes:
    """A good file whose network returns `value` where the first pixel's channel is above its middle."""
    weights = np.array([[value, 0, 0], [0, 0, 0]], np.float32)
    return make.file(make.model(make.graph(tensors=(make.tensor("w", weights), make.TENSORS[1]))))


def test_outputs_that_are_not_finite_are_an_error_and_no_class(tmp_path: Path, image_file: Path) -> None:
    path = tmp_path / "nan.onnx"
    path.write_bytes(not_finite(float("nan")))
    model = runtime.load(path)
    with pytest.raises(VerificationError, match="not finite"):
        model.predict(image_file)
    assert "not finite" in next(iter(runtime.predict_files(model, [image_file]))).error
    result = runtime.verify(path)
    assert not result.ok and json.loads(json.dumps(result.to_json(), allow_nan=False))["largest_difference"] is None


# verification


@pytest.mark.parametrize("name", ["auto", *installed_runtimes()])
def test_a_good_file_verifies_with_every_runtime(name: str) -> None:
    result = runtime.verify(GOOD, runtime=name)
    assert result.ok and not result.warnings and 0 <= result.largest_difference < 1e-6
    result.raise_if_failed()
    values = json.loads(json.dumps(result.to_json()))
    assert values["ok"] and values["tolerance"] == 0.0001 and len(values["outputs"]) == 2
    assert result.sha256 in result.text() and "verified" in result.text()


def test_other_weights_fail_verification(tmp_path: Path) -> None:
    weights = make.WEIGHTS + np.float32(0.01)
    path = tmp_path / "other.onnx"
    path.write_bytes(make.file(make.model(make.graph(tensors=(make.tensor("w", weights), make.TENSORS[1])))))
    result = runtime.verify(path)
    assert not result.ok and result.largest_difference > result.tolerance and "FAILED" in result.text()
    with pytest.raises(VerificationError, match="check inputs 0, 1 differ by up to") as caught:
        result.raise_if_failed()
    assert caught.value.exit_code == 1


def test_other_pixels_are_a_warning_with_the_largest_difference(tmp_path: Path) -> None:
    pixels = make.pixels_of(3)
    pixels[2, 3, 1] -= 7
    digest = make.hashlib.sha256(pixels.tobytes()).hexdigest()
    changed = make.changed(1, pixels=make.text64(make.png(pixels)), sha256=digest)
    path = tmp_path / "pixels.onnx"
    path.write_bytes(make.file(images=changed))
    result = runtime.verify(path)
    assert result.ok and not result.pixels[0].same and result.pixels[0].largest == 7
    assert "differ by up to 7 of 255" in result.warnings[0]
    path.write_bytes(make.file(images=make.changed(1, file=make.text64(b"no image"))))
    assert runtime.verify(path).ok and runtime.verify(path).pixels[0].problem


def test_comparing_outputs_looks_at_size_class_and_sense() -> None:
    expected = np.array([1, 3, 2], np.float32)
    assert compare_outputs(expected, expected, 1e-4) == OutputCheck(0.0, True)
    assert compare_outputs(expected, np.array([1, 3, 3.5], np.float32), 1e-4).difference == 1.5
    assert not compare_outputs(expected, np.array([1, 3, 3.5], np.float32), 1e-4).same_class
    assert compare_outputs(np.array([1, 1], np.float32), np.array([1, 1.00001], np.float32), 1e-4).same_class
    for wrong in (np.array([1, np.nan, 2], np.float32), np.zeros(2, np.float32)):
        assert compare_outputs(expected, wrong, 1e-4).difference == float("inf")
    assert margin(expected) == 1 and margin(expected[:1]) == float("inf")


# the table


def test_every_row_names_a_class_that_says_what_the_table_says() -> None:
    for name, entry in table.RUNTIMES.items():
        assert "model file" in entry.targets and entry.title and entry.purpose
        if table.missing(entry):
            continue
        kind = table.runtime_class(name)
        kind.import_package()
        model = runtime.load(GOOD, runtime=name)
        assert isinstance(model._runtime, kind) and model.why.startswith(entry.title)


def test_what_is_missing_is_told_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino, native_entry = table.RUNTIMES["openvino"], table.RUNTIMES["native"]
    absent = openvino._replace(package="no-such-package")
    assert table.missing(absent) == 'no-such-package is not installed; pip install "gossamer[openvino]"'
    assert "make engine" in table.missing(native_entry._replace(library="none.so"))
    assert table.missing(table.RUNTIMES["reference"]) == ""


def test_the_table_is_read_without_numpy() -> None:
    code = "import sys, gossamer.runtime.table; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_reference_lets_go_of_what_nothing_reads_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [make.node("Relu", [before], [after]) for before, after in zip(["input", *"abcdef"], [*"abcdef", "logits"])]
    body = make.graph(nodes, (), outputs=[make.value_info("logits", ["batch", 3, 8, 8])])
    alive: list[weakref.ref[Any]] = []
    counts = []

    def relu(node: Any, x: Any) -> Any:
        counts.append(sum(each() is not None for each in alive))
        result = np.maximum(x, 0)
        alive.append(weakref.ref(result))
        return result

    monkeypatch.setitem(reference.OPERATORS, "Relu", relu)
    model = runtime_model.open_model(parse_model_file(make.model(body), "chain.onnx"), "reference")
    batch = np.ones((1, 3, 8, 8), np.float32)
    assert np.array_equal(model.run(batch), batch)
    assert counts == [0, 1, 1, 1, 1, 1, 1]


def test_checks_are_values_that_stay_as_they_are() -> None:
    for check in (PixelCheck("a.png", True, 0), OutputCheck(0.5, True)):
        assert len({check, type(check)(*vars(check).values())}) == 1
        with pytest.raises(FrozenInstanceError):
            check.difference = 1.0  # type: ignore[union-attr,misc]


def test_operations_are_listed_with_their_shares_of_the_time() -> None:
    conv = Step("convolution 3x3", (8, 8, 16), (8, 8, 32), "float32", 3_000_000, 0.75, (6, 4))
    text = steps.table([conv, Step("softmax", (1, 1, 32), (1, 1, 32), "uint8", 0, 0.25)], "avx2", 2)
    first, heads, *rows = text.splitlines()
    assert first == "avx2, 2 threads: 1.000 ms per image, 3.0 GMAC/s"
    assert heads.split() == ["operation", "input", "output", "type", "MMACs", "ms", "%", "GMAC/s"]
    assert [row.split() for row in rows] == [
        ["convolution", "3x3", "by", "6x4", "8x8x16", "8x8x32", "float32", "3.00", "0.750", "75.0", "4.0"],
        ["softmax", "1x1x32", "1x1x32", "uint8", "0.00", "0.250", "25.0", "-"],
    ]


def test_what_onnx_runtime_says_is_one_line_of_the_message(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from gossamer.runtime import ort

    assert ort._reason(ValueError("two\n  lines " + "x" * 400)) == "two lines " + "x" * 290
    body = make.graph([make.node("Nonsense", ["input"], ["logits"])], ())
    with pytest.raises(ModelFileError, match=r"ONNX Runtime .*Nonsense"):
        runtime_model.open_model(parse_model_file(make.model(body), "odd.onnx"), "onnxruntime")

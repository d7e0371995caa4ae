"""Quantisation: what is refused or told, what is left behind, how much memory it takes."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import gossamer
from gossamer.cli.main import main
from gossamer.data.open import open_source
from gossamer.errors import InputError
from gossamer.host import storage
from gossamer.images.preprocess import Preprocess
from gossamer.runtime import native
from gossamer.shrink import calibration as images_room
from gossamer.shrink import quantise as room
from gossamer.shrink import scoring
from gossamer.shrink.calibration import calibration, files_to_read, images_to_read, shared_with
from gossamer.shrink.graph import OnnxGraph, OnnxSession
from gossamer.shrink.qdq import QuantisationChoice, quantised_model
from gossamer.shrink.ranges import best_range, measure_ranges
from gossamer.shrink.rounding import layer_inputs, round_rows, round_weights
from gossamer.shrink.sensitivity import LayerNoise, decibels, table
from gossamer.shrink.times import in_turns
from gossamer.shrink.timing import layer_of, with_milliseconds
from tests.test_quantise import COMPAT, images, model, node, quantise, residual, shuffled, weights

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
CLASSIFIER, PHOTOS = COMPAT / "classify.onnx", COMPAT / "classes"
RUN = COMPAT / "runs" / "classify"


def write_images(folder: Path, count: int, seed: int | None = None, size: int = 24) -> Path:
    """PNG files of noise; without a seed all alike."""
    folder.mkdir()
    for index in range(count):
        draw = np.random.default_rng(None if seed is None else seed + index) if seed is not None else None
        pixels = draw.integers(0, 256, (size, size, 3), np.uint8) if draw else np.full((size, size, 3), 7, np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:04}.png")
    return folder


def with_weights(change: Any) -> bytes:
    """The graph `residual` with its first weight changed."""
    proto = onnx.load_from_string(residual())
    first = next(tensor for tensor in proto.graph.initializer if tensor.name == "w1")
    first.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(first).copy()), "w1"))
    return bytes(proto.SerializeToString())


# what is refused, in one line, with nothing written


def test_bad_arguments_are_one_line_and_leave_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, photos, out = str(CLASSIFIER), str(PHOTOS), tmp_path / "out.onnx"
    alike, broken = write_images(tmp_path / "alike", 12), tmp_path / "broken"
    broken.mkdir()
    for index in range(9):
        (broken / f"{index}.png").write_bytes(b"no image")
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    cases: list[tuple[list[str], str]] = [
        ([source, "--images", str(alike)], "all alike"),
        ([source, "--images", str(broken)], "0 images to calibrate with ("),
        ([source, "--images", str(tmp_path / "no")], "0 images to calibrate with ("),
        ([source, "--images", photos, "--count", "0"], "is not a number from 1"),
        ([source, "--images", photos, "--count", "100001"], "8 to 100000"),
        ([source, "--images", photos, "--max-drop", "-1"], "0 to 100"),
        ([source, "--images", photos, "--max-drop", "101"], "0 to 100"),
        ([source, "--images", photos, "--round-seconds", "-1"], "0 to 86400"),
        ([source, "--images", photos, "--round-seconds", "inf"], "0 to 86400"),
        ([source, "--images", photos, "--weight-bits", "4"], "7, 8"),
        ([source, "--images", photos, "--keep", "Conv_O"], "did you mean"),
        ([str(text), "--images", photos], "text.onnx"),
        ([str(tmp_path / "none.onnx"), "--images", photos], "no such file"),
        ([str(tmp_path), "--images", photos], "settings.yaml"),
        (["mobilenet_v2", "--images", photos], "allowed"),
        ([str(COMPAT / "embed.index"), "--images", photos], "an index"),
    ]  # fmt: skip
    for arguments, expected in cases:
        assert main(["quantize", *arguments, "--out", str(out)]) == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert expected in error and "Traceback" not in error, error
        assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alike", "broken", "text.onnx"]


def test_the_place_of_the_file_is_checked_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.onnx"
    shutil.copy(CLASSIFIER, copy)
    monkeypatch.setattr(room, "_source", lambda *arguments: pytest.fail("the work has begun"))
    for out, expected in ((tmp_path, "is a folder"), (copy, "would replace the file that it is made from")):
        assert main(["quantize", str(copy), "--images", str(PHOTOS), "--out", str(out)]) == 2
        assert expected in capsys.readouterr().err
    assert copy.read_bytes() == CLASSIFIER.read_bytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_name_their_layer(bad: float) -> None:
    def spoil(weight: NDArray[np.float32]) -> NDArray[np.float32]:
        weight[3, 2] = bad
        return weight

    graph = OnnxGraph(with_weights(spoil), ["y"], "spoilt")
    with pytest.raises(InputError, match="spoilt: Conv Conv_a1 gives NaN or infinity"):
        measure_ranges(graph, [images()])


def test_half_and_double_precision_are_refused() -> None:
    with pytest.raises(InputError, match="computes in float16"):
        OnnxGraph(with_weights(lambda weight: weight.astype(np.float16)), ["y"], "half")
    with pytest.raises(InputError, match="computes in float64"):
        OnnxGraph(with_weights(lambda weight: weight.astype(np.float64)), ["y"], "double")
    proto = onnx.load_from_string(model([node("Relu", "x", "y")], {}, "y"))
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    with pytest.raises(InputError, match="computes in float16"):
        OnnxGraph(proto.SerializeToString(), ["y"], "half")


def test_dead_channels_stay_dead_and_harm_no_other() -> None:
    def kill(weight: NDArray[np.float32]) -> NDArray[np.float32]:
        weight[:4] = 0
        return weight

    data = with_weights(kill)
    graph = OnnxGraph(data, ["y"], "dead")
    values = measure_ranges(graph, [images(16)])
    choice = QuantisationChoice({name: best_range(value) for name, value in values.items()})
    choice = round_weights(graph, choice, images(16), images(8, seed=3), 60, [])
    actual = OnnxSession(quantised_model(graph, choice)).run(images(seed=7))
    assert np.isfinite(actual[0]).all() and decibels(OnnxSession(data).run(images(seed=7)), actual) > 20


# what is told


@pytest.mark.full
@pytest.mark.timeout(900)
def test_few_and_shared_images_and_a_fine_limit_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "in_turns", functools.partial(in_turns, rounds=1, seconds=0.01))
    run = run_with_data(tmp_path)
    result = gossamer.quantize(run, tmp_path / "q.onnx", images=str(PHOTOS), count=12, max_drop=16.0)
    validation = result.scored_on
    assert "calibrated on 12 images only" in result.text()
    assert f"finer than {validation} validation images tell: one image is" in result.text()
    assert "of the images to calibrate with are validation or test images of the run" in result.text()


def run_with_data(tmp_path: Path) -> Path:
    """A copy of the run whose data lie where its settings say."""
    shutil.copytree(RUN, tmp_path / "run")
    settings = tmp_path / "run" / "settings.yaml"
    settings.write_text(settings.read_text().replace("data: classes\n", f"data: {PHOTOS}\n"))
    return tmp_path / "run"


def test_images_shared_with_those_that_decide_are_counted(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "own", 4, seed=1)
    source = open_source(str(PHOTOS), ("class0", "class1", "class2"), "val")
    assert shared_with(files_to_read([folder]), [source]) == 0
    shutil.copy(next((PHOTOS / "val").rglob("*.png")), folder / "borrowed.png")
    assert shared_with(files_to_read([folder]), [source]) == 1
    assert shared_with(images_to_read(source), [source]) == len({source.read(i) for i in range(len(source))})


def test_images_of_another_size_are_brought_to_the_input(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "wide", 16, seed=3, size=51)
    assert quantise(tmp_path, images=str(folder), count=16).calibrated_on == 12


def test_unreadable_images_are_counted_and_a_few_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "some", 16, seed=3)
    for index in range(9):
        (folder / f"bad{index}.png").write_bytes(b"no image")
    notes: list[str] = []
    seen = calibration(files_to_read([folder]), Preprocess((24, 24)), 25, notes)
    assert len(seen.used) == 12 and len(seen.held) == 4
    assert len([line for line in notes if line.startswith("skipped: ")]) == 6
    assert "skipped: 4 more images that cannot be read" in notes


# what is left behind


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_and_an_interruption_leave_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    out = tmp_path / "q.onnx"
    out.write_bytes(b"before")

    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    arguments = ["quantize", str(CLASSIFIER), "--images", str(PHOTOS), "--count", "12", "--out", str(out)]
    assert main(arguments) == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert out.read_bytes() == b"before" and list(tmp_path.iterdir()) == [out]


def test_an_interruption_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "correct_biases", stop)
    out = tmp_path / "q.onnx"
    assert main(["quantize", str(CLASSIFIER), "--images", str(PHOTOS), "--count", "12", "--out", str(out)]) == 130
    assert not list(tmp_path.iterdir())


def test_two_that_write_one_file_leave_a_whole_one(tmp_path: Path) -> None:
    contents = [bytes([number]) * (1 << 20) for number in range(4)]
    threads = [threading.Thread(target=storage.write_bytes, args=(tmp_path / "q.onnx", data)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "q.onnx").read_bytes() in contents and len(list(tmp_path.iterdir())) == 1


# memory


def test_many_images_are_read_when_their_turn_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any number only KEPT stay in memory: the others are decoded batch by batch."""
    monkeypatch.setattr(images_room, "KEPT", 16)
    file = next((PHOTOS / "train").rglob("*.png")).read_bytes()
    draw, opened = np.random.default_rng(0), []

    def reader(index: int) -> Any:
        def read() -> bytes:
            opened.append(index)
            return file

        return read

    monkeypatch.setattr(Preprocess, "pixels", lambda self, source: draw.integers(0, 256, (24, 24, 3)).astype(np.uint8))
    seen = calibration([(str(i), reader(i)) for i in range(1000)], Preprocess((24, 24)), 400, [])
    assert len(opened) == 16 and seen.later == 384 and len(seen.used) + len(seen.held) == 16
    batches = seen.rest()
    assert next(batches).shape == (8, 3, 24, 24) and len(opened) == 24
    assert sum(map(len, batches)) == 376 and len(set(opened)) == 400


def test_the_samples_of_any_number_of_batches_are_bounded_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossamer.shrink.ranges.MOST_SAMPLED", 20_000)
    graph = OnnxGraph(residual(), ["y"], "residual")
    batches = [np.full((2, 4, 8, 8), float(number), np.float32) for number in range(200)]
    values = measure_ranges(graph, batches)
    sample = values["x"].sample
    assert 5_000 <= sample.size <= 20_000
    assert abs(float(sample.mean()) - 99.5) < 5 and len(np.unique(sample)) > 150  # none of the batches is preferred
    assert (values["x"].low, values["x"].high) == (0, 199)


# rounding


def test_rounded_rows_are_never_worse_than_the_nearest_and_better_on_correlated_inputs() -> None:
    draw = np.random.default_rng(0)
    rows, mixing = draw.standard_normal((6, 24)), draw.standard_normal((8, 24))
    inputs = (draw.standard_normal((300, 8)) @ mixing).astype(np.float32)  # of 8 dimensions only
    scales = np.abs(rows).max(1) / 7
    nearest = np.clip(np.rint(rows / scales[:, None]), -7, 7)
    result = round_rows(rows, scales, inputs, 7)

    def error(integers: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((((rows - integers * scales[:, None]) @ inputs.T) ** 2).mean(1))

    assert (error(result) <= error(nearest) + 1e-9).all() and error(result).sum() < 0.5 * error(nearest).sum()
    assert np.abs(result).max() <= 7 and (result == np.rint(result)).all()
    np.testing.assert_array_equal(round_rows(rows, scales, np.zeros((5, 24), np.float32), 7), nearest)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 0, 2, 1]},
        {"strides": [2, 1], "dilations": [1, 2]},
        {"group": 2},
        {"group": 4, "pads": [1, 1, 1, 1]},
    ],
)
def test_the_inputs_of_a_layer_times_its_weight_are_its_outputs(attributes: dict[str, Any]) -> None:
    group = attributes.get("group", 1)
    constants = weights(w=(8, 4 // group, 3, 3))
    graph = OnnxGraph(model([node("Conv", "x w", "y", **attributes)], constants, "y"), ["y"], "one")
    (layer,) = graph.weighted()
    batch = images(3)
    inputs = layer_inputs(graph, layer, batch)
    assert inputs is not None and inputs.shape[0] == group
    weight = constants["w"].reshape(group, 8 // group, -1)
    product = np.concatenate([inputs[g] @ weight[g].T for g in range(group)], 1)  # (places, 8)
    expected = OnnxSession(graph.model()).run(batch)[0].transpose(0, 2, 3, 1).reshape(-1, 8)
    np.testing.assert_allclose(product, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [residual, shuffled])
def test_rounding_by_layers_brings_seven_bits_nearer_or_is_not_kept(make: Any) -> None:
    graph = OnnxGraph(make(), ["y"], "graph")
    values = measure_ranges(graph, [images(16)])
    choice = QuantisationChoice({name: best_range(value) for name, value in values.items()}, weight_bits=7)
    held, steps = images(32, seed=8), []
    rounded = round_weights(graph, choice, images(16, seed=9), held, 60, steps)
    expected = OnnxSession(graph.model()).run(held)
    before, after = (
        decibels(expected, OnnxSession(quantised_model(graph, one)).run(held)) for one in (choice, rounded)
    )
    assert after >= before and (after > before) == bool(rounded.rounded)
    assert "rounding by layers: tried in" in steps[0]
    none = round_weights(graph, choice, images(16, seed=9), held, 1e-9, steps)
    assert not none.rounded and "tried in 0" in steps[1]


# times


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Conv_1", "Conv_1"), ("value_nchwc", "Conv_2"), ("fused Conv_1", "Conv_1"), ("Conv_1_nchwc", "Conv_1"), ("Conv_1_token_12", "Conv_1"),
        ("Conv_1_token_12_quant", "Conv_1"), ("x.quantise", ""), ("Conv_21", ""),
    ],
)  # fmt: skip
def test_layers_are_found_by_what_the_runtime_calls_them(label: str, name: str) -> None:
    assert layer_of(label, {"Conv_1": "Conv_1", "Conv_2": "Conv_2", "value": "Conv_2"}) == name


def test_each_layer_has_its_time_in_float_and_in_int8() -> None:
    graph = OnnxGraph(residual(), ["y"], "residual")
    values = measure_ranges(graph, [images(16)])
    choice = QuantisationChoice({name: best_range(value) for name, value in values.items()})
    layers = [LayerNoise(one.name, one.op_type, 20.0, 0.1) for one in graph.weighted()]
    timed = with_milliseconds(graph, choice, layers, images(1))
    assert all(one.int8_ms is not None and one.int8_ms >= 0 for one in timed)
    assert sum(one.float_ms is not None for one in timed) >= len(timed) - 2
    lines = table(timed).splitlines()
    assert lines[0].split()[:2] == ["layer", "operator"] and len(lines) == 1 + len(timed)
    assert "-" in table(layers)


# the alias


def test_the_british_spelling_is_the_same_command_and_function(capsys: pytest.CaptureFixture[str]) -> None:
    assert gossamer.quantise is gossamer.quantize
    with pytest.raises(SystemExit):
        main(["quantise", "--help"])
    assert "gossamer quantize" in capsys.readouterr().out
    assert main(["quantise", "missing.onnx", "--out", "q.onnx"]) == 2
    assert "missing.onnx" in capsys.readouterr().err


# the engine beside ONNX Runtime


@pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native engine is not built: make engine")
def test_the_engine_rounds_an_expanded_map_as_the_graph_does(tmp_path: Path) -> None:
    """A graph that does not round the map within a block gives something else."""
    nodes = [
        node("Conv", "x w0 b0", "s"), node("Conv", "s w1 b1", "a"), node("Relu", "a", "wide"),
        node("Conv", "wide d c", "e", group=32, pads=[1, 1, 1, 1]), node("Relu", "e", "f"),
        node("Conv", "f w2 b2", "g"), node("GlobalAveragePool", "g", "p"), node("Flatten", "p", "y"),
    ]  # fmt: skip
    shapes = {"w0": (8, 4, 1, 1), "b0": (8,), "w1": (32, 8, 1, 1), "b1": (32,), "d": (32, 1, 3, 3), "c": (32,)}
    data = model(nodes, weights(**shapes, w2=(8, 32, 1, 1), b2=(8,)), "y")
    graph = OnnxGraph(data, ["y"], "block")
    ranges = {name: best_range(value) for name, value in measure_ranges(graph, [images(32)]).items()}
    as_written = quantised_model(graph, QuantisationChoice(ranges))
    depthwise = graph.constants["d"]
    scale = np.abs(depthwise).max(axis=(1, 2, 3), keepdims=True) / 127
    graph.constants["d"] = (np.rint(depthwise / scale) * scale).astype(np.float32)  # bytes in the engine too
    wide = {name: pair for name, pair in ranges.items() if name not in ("a", "wide")}
    unrounded = quantised_model(graph, QuantisationChoice(wide))
    (tmp_path / "q.onnx").write_bytes(as_written)
    assert main(["compile", str(tmp_path / "q.onnx"), "--out", str(tmp_path / "q.goss")]) == 0
    batch = images(32, seed=3)
    actual = gossamer.load(tmp_path / "q.goss").run(batch)

    def apart(file: bytes) -> float:
        return float(np.sqrt(np.mean((OnnxSession(file, exact=True).run(batch)[0] - actual) ** 2)))

    assert apart(as_written) == 0 < apart(unrounded)

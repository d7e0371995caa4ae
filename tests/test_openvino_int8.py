"""OpenVINO files in int8, on processors whose products of bytes saturate too, and files of uint8 images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gossamer import runtime
from gossamer.cli.main import main
from gossamer.errors import ModelFileError
from gossamer.export.formats import export_file
from gossamer.modelfile.metadata import ModelFile, parse_model_file, read_model_file
from gossamer.predictions.head import flattened
from gossamer.runtime.model import open_model
from gossamer.shrink.graph import OnnxGraph
from gossamer.shrink.qdq import QuantisationChoice, quantised_model
from gossamer.shrink.ranges import best_range, measure_ranges
from gossamer.shrink.scoring import int8_file

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
from gossamer.openvino.core import core_of
from gossamer.openvino.integers import REMARK, exact_settings, layers_in_int8, may_overflow, saturates
from gossamer.openvino.metadata import read_network
from gossamer.openvino.runtime import OpenVino, OpenVinoFile
from gossamer.openvino.write import openvino_files
from tests.onnxcases import CONV, node, save
from tests.test_litert_int8 import rounded

OLD = Path(__file__).parent / "compat" / "0.1"
HOSTILE = Path(__file__).parent / "hostile" / "openvino"
IMAGE = OLD / "classes" / "val" / "class0" / "000.png"
CLASSIFY = OLD / "classify.onnx"


def model_of(file: ModelFile) -> Any:
    """An ONNX file as OpenVINO's model."""
    import io

    return core_of(OpenVino.import_package()).read_model(io.BytesIO(file.data))


def in_int8(name: str, bits: int) -> ModelFile:
    """A model file of the old version, quantised on its own check inputs."""
    file = read_model_file(OLD / f"{name}.onnx")
    assert file.metadata is not None
    batch = file.metadata.preprocess.normalise(np.stack([check.pixels for check in file.metadata.checks]))
    graph = OnnxGraph(file.data, list(file.outputs), "net")
    ranges = {one: best_range(values) for one, values in measure_ranges(graph, [batch]).items()}
    data = quantised_model(graph, QuantisationChoice(ranges, weight_bits=bits))
    return parse_model_file(int8_file(file, data), f"{name}.onnx")


def large(path: Path, most: int) -> tuple[Path, NDArray[np.float32]]:
    """A QDQ file of a convolution whose weights are all `most`, and an image of the largest bytes."""
    nodes, constants = rounded([node("Conv", ["x", "w"], ["y"])], {})
    constants["w0.q"] = np.full_like(constants["w0.q"], most)
    sums = 27 * abs(most) * constants["w0.s"].max() * 255 * constants["x.s"]
    constants |= {"x.z": np.uint8(0), "y.z": np.uint8(0), "y.s": np.float32(sums / 255)}
    image = np.full((1, 3, 8, 8), 255 * constants["x.s"], np.float32)
    return save(path, nodes, constants), image


@pytest.mark.parametrize("most", [64, 127])
def test_products_of_bytes_are_exact_on_every_processor(most: int, tmp_path: Path) -> None:
    """Where OpenVINO's own int8 is not, it is told to compute in float32, and that is said."""
    openvino = OpenVino.import_package()
    path, image = large(tmp_path / "m.onnx", most)
    file = read_model_file(path)
    wanted = open_model(file, "onnxruntime").run(image)  # told to be exact, which its default is not either
    assert isinstance(wanted, np.ndarray)
    scale = float(wanted.max())
    own = core_of(openvino).compile_model(model_of(file), "CPU", {})
    off = float(np.abs(own([image])[own.output(0)] - wanted).max()) / scale
    assert (off > 0.1) == (most > 64 and saturates(openvino))
    export_file(path, tmp_path / "m.xml")
    for one in (OpenVino(file, 1), OpenVinoFile(tmp_path / "m.xml", 1)):
        np.testing.assert_allclose(one(image), wanted, atol=scale / 255 * 1.01)
        assert one.remark == (REMARK if off > 0.1 else "")


def test_what_may_overflow_is_told_from_what_cannot(tmp_path: Path) -> None:
    plain = read_model_file(save(tmp_path / "plain.onnx", [node("Conv", ["x", "w"], ["y"])]))
    signed, constants = rounded([node("Conv", ["x", "w"], ["y"])], {}, np.int8)
    files = {"plain": plain, "signed": read_model_file(save(tmp_path / "signed.onnx", signed, constants))}
    for most in (-65, -64, 64, 65):
        files[str(most)] = read_model_file(large(tmp_path / f"{most}.onnx", most)[0])
    told = {name: may_overflow(model_of(file)) for name, file in files.items()}
    assert told == {"plain": False, "signed": True, "-65": True, "-64": False, "64": False, "65": True}


def test_weights_of_7_bits_run_in_int8(tmp_path: Path) -> None:
    """By OpenVINO's own account of its kernels; the answers are those of ONNX Runtime, as the file's tolerance has them."""
    openvino, file = OpenVino.import_package(), in_int8("classify", 7)
    xml, weights = openvino_files(file)
    numbers = np.frombuffer(weights, np.uint8).copy()  # which OpenVINO does not keep
    model = core_of(openvino).read_model(xml, openvino.Tensor(numbers, shared_memory=True))
    assert exact_settings(openvino, model) == {}
    inside, layers = layers_in_int8(core_of(openvino).compile_model(model, "CPU", {}))
    assert inside == layers == sum(one.op in ("Conv", "Gemm") for one in file.graph.nodes)
    (tmp_path / "int8.onnx").write_bytes(file.data)
    result = export_file(tmp_path / "int8.onnx", tmp_path / "m.xml")
    assert [check.ok for check in result.verifications] == [True]
    assert result.notes == (f"{layers} of {layers} layers with weights run in int8 on this processor",)
    assert len(weights) < len(openvino_files(read_model_file(CLASSIFY))[1])


@pytest.mark.parametrize("name", ["classify", "segment", "embed", "multi"])
def test_weights_of_8_bits_answer_on_this_processor(name: str, tmp_path: Path) -> None:
    file = in_int8(name, 8)
    (tmp_path / "int8.onnx").write_bytes(file.data)
    result = export_file(tmp_path / "int8.onnx", tmp_path / "m.xml")
    assert [check.ok for check in result.verifications] == [True]
    exact = saturates(OpenVino.import_package())
    assert (REMARK in result.notes[0]) == exact and (REMARK in result.verifications[0].why) == exact
    assert not exact or result.loss.largest <= 1e-4 * result.loss.scale


# uint8 images


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files of uint8 images, which the command wrote."""
    folder = tmp_path_factory.mktemp("uint8")
    for name in ("classify", "embed"):
        assert main(["export", str(OLD / f"{name}.onnx"), "--uint8", "--out", str(folder / f"{name}.xml")]) == 0
    return folder


def test_a_file_takes_uint8_images(pixels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As OpenVINO alone runs it, and as gossamer does."""
    path = pixels / "classify.xml"
    onnx, ours = runtime.load(CLASSIFY), runtime.load(path)
    metadata = onnx.need_metadata()
    images = np.stack([check.pixels for check in metadata.checks])
    wanted = flattened(onnx.run(onnx.prepare(images)))
    openvino = OpenVino.import_package()
    alone = core_of(openvino).compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert alone.input(0).get_element_type() == openvino.Type.u8
    np.testing.assert_allclose(alone([images])[alone.output(0)], wanted, atol=1e-4)
    assert ours.pixels and ours.input_shape == (None, *images.shape[1:])
    assert ours.need_metadata().to_json() == metadata.to_json()
    assert ours.prepare(images) is images
    np.testing.assert_allclose(flattened(ours.run(images)), wanted, atol=1e-4)
    with pytest.raises(Exception, match=r"an input of float32 .*; allowed: a uint8 array \(any, \d+, \d+, 3\)"):
        ours.run(onnx.prepare(images))
    assert main(["verify", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] < 1e-4
    assert ours.predict(str(IMAGE)).classes == onnx.predict(str(IMAGE)).classes


@pytest.mark.full
def test_the_commands_take_a_file_of_uint8_images(
    pixels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, words = str(pixels / "classify.xml"), ["--seconds", "0.05", "--threads", "1", "--json"]
    answers = []
    for command in (["eval", file, str(OLD / "classes" / "val"), "--json"], ["bench", file, *words]):
        assert main(command) == 0
        answers.append(json.loads(capsys.readouterr().out))
    scored, timed = answers
    assert main(["eval", str(CLASSIFY), str(OLD / "classes" / "val"), "--json"]) == 0
    onnx = json.loads(capsys.readouterr().out)
    assert scored["images"] == 6 and scored["accuracy"] == onnx["accuracy"]
    (result,) = timed["rows"]
    assert result["note"] == "uint8 images" and result["input"][1:] == [3, *runtime.load(file).input_shape[1:3]]
    assert main(["index", str(pixels / "embed.xml"), str(OLD / "classes" / "val"), "--out", str(tmp_path / "i")]) == 0


def test_embeddings_of_uint8_images(pixels: Path) -> None:
    ours, onnx = (runtime.load(one).predict(str(IMAGE)).vector for one in (pixels / "embed.xml", OLD / "embed.onnx"))
    np.testing.assert_allclose(ours, onnx, atol=1e-5)


def test_uint8_images_that_cannot_be_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = save(tmp_path / "m.onnx", [*CONV, node("Relu", ["a"], ["y"])])
    for words, named in (
        ([str(CLASSIFY), "--to", "litert", "--uint8", "--out", str(tmp_path / "m.tflite")], "--uint8 with --to litert"),
        ([str(CLASSIFY), "--to", "c", "--uint8", "--out", str(tmp_path / "c")], "--uint8 with --to c"),
        (
            [str(CLASSIFY), "--to", "openvino,ncnn", "--uint8", "--out", str(tmp_path / "several")],
            "--uint8 with --to ncnn",
        ),
        ([str(plain), "--uint8", "--out", str(tmp_path / "m.xml")], "does not say how an image becomes its input"),
    ):
        assert main(["export", *words]) == 2
        error = capsys.readouterr().err
        assert named in error.splitlines()[-1]
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]


def test_pixels_without_their_preprocessing_break_a_rule() -> None:
    with pytest.raises(ModelFileError, match=r"uint8 images without their preprocessing.*rule 5"):
        read_network(HOSTILE / "05_pixels_without_preprocessing.xml")
    assert not read_network(HOSTILE / "good.xml").pixels

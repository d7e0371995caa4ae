"""Networks of the zoo and the models of each task as C source, in float32 and int8, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gossamer.csource import compiler
from gossamer.csource.network import BYTES
from gossamer.csource.reference import byte_outputs
from gossamer.csource.source import ram_bytes
from gossamer.export.convert import to_onnx
from gossamer.export.fit import fit, run_graph
from gossamer.host.progress import SILENT
from gossamer.modelfile.metadata import ModelFile, parse_model_file, read_model_file
from gossamer.networks import create_model
from gossamer.predictions.head import flattened
from gossamer.runtime.model import open_model
from gossamer.shrink.graph import OnnxGraph
from gossamer.shrink.qdq import QuantisationChoice, quantised_model
from gossamer.shrink.ranges import best_range, measure_ranges
from tests.csources import built, input_bytes, outputs_of
from tests.exports import EXPORTED, randomised

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if compiler.compiler() is None:
    pytest.skip("no C compiler", allow_module_level=True)

OLD = Path(__file__).parent / "compat" / "0.1"
NAMES = ("mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_1", "mobilenetv3_small_050")
LARGEST = 1e-5  # difference, relative to the largest output
MOST_CODE = 8192  # bytes at -Os


def quantised(file: ModelFile, images: NDArray[np.float32]) -> ModelFile:
    """The QDQ file, calibrated with these images."""
    graph = OnnxGraph(file.data, list(file.outputs), "net")
    ranges = {name: best_range(values) for name, values in measure_ranges(graph, [images]).items()}
    return parse_model_file(quantised_model(graph, QuantisationChoice(ranges, weight_bits=7)), "int8.onnx")


def compared(file: ModelFile, images: NDArray[np.float32], folder: Path) -> int:
    """Compare, and give the bytes of RAM: float32 within LARGEST, int8 to the last bit of the reference."""
    network = built(file, folder, "-Os")
    sizes = compiler.elf_sizes((folder / "net.o").read_bytes())
    assert sizes is None or (sizes.code <= MOST_CODE and sizes.ram == ram_bytes(network))
    outputs = outputs_of(network, folder, images)
    wanted = flattened(open_model(file, "onnxruntime").run(images))
    scale = float(np.abs(wanted).max())
    if network.type != BYTES:
        assert np.abs(outputs - wanted).max() <= LARGEST * max(1.0, scale)
        return ram_bytes(network)
    given = input_bytes(network, np.ascontiguousarray(images.transpose(0, 2, 3, 1)).reshape(len(images), -1))
    np.testing.assert_array_equal(outputs.view(np.uint32), byte_outputs(network.program, given))
    assert np.abs(outputs - wanted).max() <= 0.1 * scale  # layers that ONNX Runtime runs in floats round otherwise
    return ram_bytes(network)


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_the_zoo(name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    network = EXPORTED[name]
    file, images = read_model_file(network.file(tmp_path_factory)), network.images(2)
    floats = compared(file, images, tmp_path / "float32")
    assert compared(quantised(file, images), images, tmp_path / "int8") < floats / 2


@pytest.mark.full
def test_resnet_of_a_quarter_width(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = randomised(create_model("resnet18", num_classes=10, width=0.25, small_input=True)).eval()
    file = parse_model_file(to_onnx(model, (32, 32)), "resnet.onnx")
    images = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)
    compared(file, images, tmp_path / "float32")
    compared(quantised(file, images), images, tmp_path / "int8")


@pytest.mark.parametrize("name", [pytest.param("segment", marks=pytest.mark.full), "multi"])
def test_a_model_of_each_task(name: str, tmp_path: Path) -> None:
    """A segmenter, and several heads."""
    file = read_model_file(OLD / f"{name}.onnx")
    assert file.metadata is not None
    images = file.metadata.preprocess.normalise(np.stack([check.pixels for check in file.metadata.checks[:2]]))
    compared(file, images, tmp_path / "float32")
    compared(quantised(file, images), images, tmp_path / "int8")


@pytest.mark.full
def test_the_raw_heads_of_a_detector(tmp_path: Path) -> None:
    run = OLD / "runs" / "detect"
    file, images = run_graph(run, "best", SILENT), np.random.default_rng(1).random((2, 3, 32, 32), np.float32)
    assert len(file.outputs) == 2
    needed = compared(file, images, tmp_path / "float32")
    assert fit(run, is_run=True).needs.ram == needed
    compared(quantised(file, images), images, tmp_path / "int8")


@pytest.mark.full
def test_a_mobilenet_in_int8_fits_into_a_chip(tmp_path: Path) -> None:
    """MobileNetV2 0.35 at 96 x 96 in 256 KB of RAM and 1 MB of flash."""
    torch.manual_seed(0)
    model = randomised(create_model("mobilenetv2_035", num_classes=10)).eval()
    images = np.random.default_rng(1).standard_normal((1, 3, 96, 96)).astype(np.float32)
    file = quantised(parse_model_file(to_onnx(model, (96, 96)), "mobilenet.onnx"), images)
    assert compared(file, images, tmp_path / "int8") <= 256 * 1024

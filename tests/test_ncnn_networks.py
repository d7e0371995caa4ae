"""The networks of the zoo and the models of each task as ncnn files, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gossamer import runtime
from gossamer.export import several
from gossamer.export.formats import export_file
from gossamer.targets import target_of
from tests.exports import EXPORTED
from tests.trained import TASKS, runs_of_tasks

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("ncnn")

OLD = Path(__file__).parent / "compat" / "0.1"
LARGEST = 1e-5  # difference, relative to the largest output
FAMILIES = ("mobilenet_v2", "mobilenetv3_small_050", "shufflenet_v2_x0_5", "squeezenet1_1", "resnet18", "googlenet")


@pytest.mark.full
@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_the_zoo_agrees_with_onnx_runtime(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    network = EXPORTED[name]
    file, images = network.file(tmp_path_factory), network.images(2)
    expected = runtime.load(file, runtime="onnxruntime", threads=1).run(images)
    outputs = runtime.load(file, runtime="ncnn", threads=1).run(images)
    assert outputs.shape == expected.shape == (2, 7)
    # by how much two orders of the same sums differ in this network: processors choose theirs
    rounding = float(np.abs(expected - runtime.load(file, runtime="reference").run(images)).max())
    assert np.abs(outputs - expected).max() <= max(LARGEST * max(1.0, float(np.abs(expected).max())), 4 * rounding)


@pytest.mark.full
@pytest.mark.parametrize("name", ["segment", "embed", "multi"])
def test_a_model_file_of_each_task(name: str, tmp_path: Path) -> None:
    result = export_file(OLD / f"{name}.onnx", tmp_path / "m.param")
    assert result.loss.largest <= LARGEST * max(1.0, result.loss.scale)
    assert [check.ok for check in result.verifications] == [True]
    written, original = (runtime.load(file).need_metadata() for file in (result.path, OLD / f"{name}.onnx"))
    assert written.heads == original.heads


@pytest.mark.full
@pytest.mark.parametrize("task", TASKS)
def test_a_run_of_each_task(task: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In both formats at once: the run is converted and compared once."""
    pytest.importorskip("openvino")
    root = runs_of_tasks(tmp_path_factory)
    result = several.export_run(root / task, tmp_path / "shipped", ["onnx", "ncnn", "openvino"], images_limit=4)
    assert sorted(one.name for one in (tmp_path / "shipped").iterdir()) == sorted(
        f"{task}.{suffix}" for suffix in ("onnx", "ncnn.param", "ncnn.bin", "ncnn.json", "openvino.xml", "openvino.bin")
    )
    image = next((root / {"detect": "signs", "segment": "street", "embed": "people"}[task]).rglob("*.png"))
    theirs = runtime.load(root / f"{task}.onnx").predict(str(image))
    for one, kind in zip(result.files, ("model file", "ncnn file", "OpenVINO file"), strict=True):
        assert target_of(one.path).kind == kind
        assert all(check.ok and check.largest_difference <= check.tolerance for check in one.verifications)
        assert type(runtime.load(one.path).predict(str(image))) is type(theirs)

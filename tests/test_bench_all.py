"""`bench --runtimes all`: each runtime with the file made for it, verified before it is measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gossamer.bench import measure
from gossamer.bench.files import make_file, own_file, own_kind
from gossamer.bench.measure import bench
from gossamer.errors import UnknownNameError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.onnxcases import CONV, node, save

OLD = Path(__file__).parent / "compat" / "0.1"
OWN = {"native": ".goss", "litert": ".tflite", "ncnn": ".param", "openvino": ".xml", "onnxruntime": ".onnx"}


def test_the_file_of_each_runtime() -> None:
    for name, suffix in OWN.items():
        assert own_file(Path("folder"), 3, name) == Path(f"folder/3-{name}{suffix}")
    assert own_kind("torch") == own_kind("reference") == "model file"


def test_all_is_not_one_of_several_names() -> None:
    with pytest.raises(UnknownNameError, match="all"):
        bench(str(OLD / "classify.onnx"), runtimes=["all", "ncnn"])


@pytest.mark.full
def test_a_file_is_made_and_compared(tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    job = {"target": str(OLD / "classify.onnx"), "runtime": "ncnn", "out": str(tmp_path / "0-ncnn.param")}
    made = make_file(job)
    assert made["file_bytes"] == sum(one.stat().st_size for one in tmp_path.iterdir())
    assert 0 < made["difference"] < 1e-4
    size = (OLD / "classify.onnx").stat().st_size
    assert make_file({**job, "runtime": "onnxruntime"}) == {"file_bytes": size, "difference": None}


@pytest.mark.full
def test_every_runtime_is_measured_with_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("openvino", "ncnn", "ai_edge_litert"):
        pytest.importorskip(package)
    nodes = [*CONV, node("MaxPool", ["a"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])]
    dilated = save(tmp_path / "dilated.onnx", nodes)
    missing = 'ai-edge-litert is not installed; pip install "gossamer[litert]"'
    plain = measure.missing
    monkeypatch.setattr(measure, "missing", lambda entry: missing if entry.extra == "litert" else plain(entry))
    monkeypatch.setattr(measure, "DEFAULT", ("onnxruntime", "openvino", "litert", "ncnn"))
    result = bench([str(OLD / "classify.onnx"), str(dilated)], runtimes=["all"], seconds=0, rounds=1)
    rows = {(Path(row.target).stem, row.runtime): row for row in result.rows}
    for name in ("onnxruntime", "openvino", "ncnn"):
        row = rows["classify", name]
        assert not row.error and row.file_bytes and row.median_ms and row.load_ms and row.peak_bytes
        assert name == "onnxruntime" or 0 < (row.difference or 0) < 1e-4
    assert rows["classify", "litert"].error == missing
    assert "its file: " in rows["dilated", "ncnn"].error and "dilation 2" in rows["dilated", "ncnn"].error
    text = result.text()
    assert "file MB" in text and "not measured: litert: ai-edge-litert is not installed" in text
    result.plot(tmp_path / "all.svg")
    assert "ncnn" in (tmp_path / "all.svg").read_text()


def test_the_cells_of_a_file_are_megabytes_and_milliseconds() -> None:
    from gossamer.bench.result import Measurement, _of_files

    row = Measurement("m.onnx", "ncnn", 2, 1, version="1.0", file_bytes=1_500_000, peak_bytes=5 << 20)
    row = dataclasses.replace(row, load_ms=12.6, median_ms=1.23456, images_per_second=810.04, difference=1.234e-6)
    assert _of_files(row) == ("ncnn", "2", "1.50", "5", "13", "1.235", "810.0", "1.2e-06", "1.0")
    assert _of_files(Measurement("m.onnx", "ncnn", 1, 1)) == ("ncnn", "1", *"?????", "", "?")

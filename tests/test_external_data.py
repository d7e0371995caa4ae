"""Tensors whose data lie in a file beside the ONNX file: read from its folder, and from nowhere else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gossamer
from gossamer.cli.main import main
from gossamer.errors import ModelFileError
from gossamer.modelfile import external
from gossamer.modelfile.metadata import parse_model_file, read_model_file

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from tests.onnxcases import INPUT, check, expected, int64, node, noise, weight  # noqa: E402
from tests.onnxcases import save as save_in_one_file  # noqa: E402

NODES = [
    node("Conv", ["x", "w"], ["a"]),
    node("Constant", [], ["shape"], value=numpy_helper.from_array(int64(0, 288))),
    node("Reshape", ["a", "shape"], ["b"]),
    node("MatMul", ["b", "w2"], ["y"]),
]


def save(folder: Path, name: str = "m.onnx", data: str = "m.onnx.data") -> Path:
    """A network whose two weights lie in a second file."""
    path = save_in_one_file(folder / name, NODES, {"w2": weight(288, 5)}, rank=2)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=data, size_threshold=0)
    return path


def change(path: Path, **entries: str | None) -> Path:
    """The file with other entries in the external_data of its first weight, or without one."""
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    known = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in known.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def refused(path: Path, message: str, rule: int = 4) -> None:
    with pytest.raises(ModelFileError, match=message) as caught:
        read_model_file(path)
    assert caught.value.rule == rule
    assert "\n" not in str(caught.value)


def test_two_files_are_read_as_one(tmp_path: Path) -> None:
    path = save(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    known = read_model_file(path).onnx.tensors
    np.testing.assert_array_equal(known["w"], weight(8, 3, 3, 3))
    np.testing.assert_array_equal(known["w2"], weight(288, 5))
    check(path, noise(INPUT))


def test_every_reader_takes_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """compile, the runtimes, and inspect; from another folder than the file's."""
    path = save(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    x = noise(INPUT)
    wanted = expected(path, x)["y"]
    for runtime in ("onnxruntime", "reference", "native"):
        assert np.abs(gossamer.load(path, runtime=runtime).run(x) - wanted).max() < 1e-5
    assert main(["compile", "../m.onnx", "--out", "m.goss"]) == 0
    assert np.abs(gossamer.load("m.goss").run(x) - wanted).max() < 1e-5


def test_one_file_is_what_it_was(tmp_path: Path) -> None:
    path = save_in_one_file(tmp_path / "location.onnx", NODES, {"w2": weight(288, 5)}, rank=2)
    assert read_model_file(path).data == path.read_bytes()


def test_a_constant_of_a_node_may_lie_elsewhere(tmp_path: Path) -> None:
    path = save(tmp_path)
    model = onnx.load(path, load_external_data=False)
    shape = model.graph.node[1].attribute[0].t
    (tmp_path / "shape.bin").write_bytes(b"head" + shape.raw_data)
    shape.ClearField("raw_data")
    shape.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "shape.bin"), ("offset", "4"), ("length", "16")):
        shape.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    constant = read_model_file(path).onnx.nodes[1].attributes["value"]
    assert constant.tolist() == [0, 288]


def test_a_folder_below_and_a_link_within_are_read(tmp_path: Path) -> None:
    path = save(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "m.onnx.data").rename(tmp_path / "data" / "weights")
    change(path, location="data/weights")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[1].external_data[0].value = "link"
    (tmp_path / "link").symlink_to("data/weights")
    path.write_bytes(model.SerializeToString())
    check_weights(path)


def check_weights(path: Path) -> None:
    known = read_model_file(path).onnx.tensors
    np.testing.assert_array_equal(known["w2"], weight(288, 5))


@pytest.mark.parametrize(
    "location", ["../m.onnx.data", "a/../../m.onnx.data", "..", "C:\\m.onnx.data", "a\\b", "\0", "", "x" * 5000]
)
def test_paths_out_of_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = save(tmp_path / "in")
    (tmp_path / "in" / "m.onnx.data").rename(tmp_path / "m.onnx.data")
    refused(change(path, location=location), "external_data" if not location else "no path within the folder")


def test_absolute_paths_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path)
    refused(change(path, location=str(tmp_path / "m.onnx.data")), "no path within the folder")


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = save(tmp_path / "in")
    (tmp_path / "in" / "m.onnx.data").rename(tmp_path / "weights")
    (tmp_path / "in" / "m.onnx.data").symlink_to(tmp_path / "weights")
    refused(path, "link out of the folder")
    (tmp_path / "in" / "m.onnx.data").unlink()
    (tmp_path / "in" / "there").symlink_to(tmp_path)
    refused(change(path, location="there/weights"), "link out of the folder")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path)
    data = tmp_path / "m.onnx.data"
    data.unlink()
    refused(path, "No such file")
    data.mkdir()
    refused(path, "no file")
    data.rmdir()
    os.mkfifo(data)  # which would never be at its end
    refused(path, "no file")
    data.unlink()
    data.symlink_to(data)
    refused(path, "m.onnx.data")


@pytest.mark.parametrize(
    ("entries", "message", "rule"),
    [
        ({"offset": "-1"}, "has offset '-1'", 4),
        ({"offset": "1e3"}, "has offset", 4),
        ({"offset": "9" * 30}, "has offset", 4),
        ({"offset": "999999999"}, "from 999999999 on", 4),
        ({"length": "0"}, "0 bytes of external_data", 5),
        ({"length": "863"}, "863 bytes", 5),
        ({"length": "x"}, "has length 'x'", 4),
        ({"location": None}, "has external_data", 4),
        ({"basepath": "/etc"}, "has external_data", 4),
        ({"checksum": "0" * 40}, "SHA-1", 4),
    ],
)
def test_entries_that_do_not_fit_are_refused(
    entries: dict[str, str | None], message: str, rule: int, tmp_path: Path
) -> None:
    refused(change(save(tmp_path), **entries), message, rule)


def test_a_checksum_and_no_length_are_read(tmp_path: Path) -> None:
    path = save(tmp_path)
    digest = hashlib.sha1((tmp_path / "m.onnx.data").read_bytes()).hexdigest()
    check_weights(change(path, checksum=digest, length=None))


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path, data = save(tmp_path), tmp_path / "m.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    refused(path, "which has")


def test_data_here_and_elsewhere_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].raw_data = weight(8, 3, 3, 3).tobytes()
    path.write_bytes(model.SerializeToString())
    refused(path, "do not fit")


def test_more_than_a_file_may_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One piece of data may be named by any number of tensors."""
    path = save(tmp_path)
    monkeypatch.setattr(external, "FILE_LIMIT", 864 + 5759)
    refused(path, "bytes with the data beside the file", 1)


def test_bytes_without_a_folder_have_none_beside_them(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="outside the file"):
        parse_model_file(save(tmp_path).read_bytes())


def test_the_command_ends_with_2_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path)
    (tmp_path / "m.onnx.data").unlink()
    assert main(["compile", str(path), "--out", str(tmp_path / "m.goss")]) == 2
    lines: Any = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "copy both files to one folder" in lines[0]
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]


def test_types_that_numpy_lacks_are_read_too(tmp_path: Path) -> None:
    """bfloat16: for the runtimes that know it."""
    path = save(tmp_path)
    model = onnx.load(path, load_external_data=False)
    extra = helper.make_tensor("unused", TensorProto.BFLOAT16, [4], b"\0" * 8, raw=True)
    extra.ClearField("raw_data")
    extra.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "m.onnx.data"), ("length", "8")):
        extra.external_data.add(key=key, value=value)
    model.graph.initializer.append(extra)
    path.write_bytes(model.SerializeToString())
    assert read_model_file(path).onnx.tensors["unused"] is None

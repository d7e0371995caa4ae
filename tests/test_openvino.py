"""OpenVINO files: the commands on one, the models of each task, and files that break a rule; several formats at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gossamer import runtime
from gossamer.cli.main import main
from gossamer.errors import InputError, ModelFileError
from gossamer.export.formats import export_file
from gossamer.export.several import file_name
from gossamer.export.table import FORMATS
from gossamer.openvino.core import core_of
from gossamer.openvino.metadata import read_network
from gossamer.targets import target_of

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.onnxcases import CONV, INPUT, expected, node, noise, save, weight

OLD = Path(__file__).parent / "compat" / "0.1"
HOSTILE = Path(__file__).parent / "hostile" / "openvino"
BROKEN = sorted(one.stem for one in HOSTILE.glob("0*.xml"))
IMAGE = OLD / "classes" / "val" / "class0" / "000.png"
CLASSIFY = str(OLD / "classify.onnx")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one file of each format, which the command wrote from a model file."""
    for package in ("openvino", "ncnn", "ai_edge_litert"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("several") / "shipped"
    assert main(["export", CLASSIFY, "--to", "litert,ncnn,openvino", "--out", f"{folder}/"]) == 0
    return folder


def test_several_formats_are_one_folder(made: Path) -> None:
    names = ["classify.ncnn.bin", "classify.ncnn.json", "classify.ncnn.param"]
    names += ["classify.openvino.bin", "classify.openvino.xml", "classify.tflite"]
    assert sorted(one.name for one in made.iterdir()) == names
    kinds = {name: target_of(made / file_name("classify", name)).kind for name in ("litert", "ncnn", "openvino")}
    assert kinds == {"litert": "LiteRT file", "ncnn": "ncnn file", "openvino": "OpenVINO file"}
    onnx = runtime.load(CLASSIFY).predict(str(IMAGE))
    for name in kinds:
        assert runtime.load(made / file_name("classify", name)).predict(str(IMAGE)).classes[0] == onnx.classes[0]


def test_all_of_several_formats_or_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ncnn")
    dilated = save(tmp_path / "d.onnx", [*CONV, node("MaxPool", ["a"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_bytes(b"")
    out = str(tmp_path / "out")
    for words, named in (
        ([str(dilated), "--to", "openvino,ncnn", "--out", out], "a pool of dilation 2, which ncnn"),
        ([CLASSIFY, "--to", "ncnn,tflite", "--out", out], "tflite"),
        ([CLASSIFY, "--to", "ncnn,ncnn", "--out", out], "ncnn, twice"),
        ([CLASSIFY, "--to", "ncnn,c", "--out", out], "a folder of its own"),
        ([CLASSIFY, "--to", "ncnn,onnx", "--out", out], "copy the file"),
        ([CLASSIFY, "--to", "ncnn,litert", "--out", str(tmp_path / "full")], "a folder that is not empty"),
        ([CLASSIFY, "--to", "ncnn", "--out", str(tmp_path / "full")], "a folder that is not empty"),
        ([CLASSIFY, "--to", "ncnn,litert", "--out", str(dilated)], "exists"),
        ([CLASSIFY, "--to", "ncnn,litert", "--out", str(tmp_path / "new.tflite")], "the name of a file for several"),
        ([CLASSIFY, "--to", "openvino,litert", "--out", str(tmp_path / "new.XML")], "the name of a file for several"),
        ([CLASSIFY, "--to", "ncnn,litert", "--ram", "1K", "--out", out], "--to c with them"),
    ):
        assert main(["export", *words]) == 2
        assert named in capsys.readouterr().err.splitlines()[-1]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["d.onnx", "full"]


@pytest.mark.parametrize("missing", ["openvino", "ncnn", "executorch"])
def test_a_missing_package_is_named_before_any_work(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever its format stands in the list, of a model file and of a run."""
    from gossamer.export import litert, onnx

    def work(*_: object) -> None:
        raise AssertionError("work before the check")

    for module, name in ((litert, "from_file"), (onnx, "convert")):
        monkeypatch.setattr(module, name, work)
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setitem(sys.modules, missing, None)
    for given in (CLASSIFY, str(OLD / "runs" / "classify")):
        assert main(["export", given, "--to", f"litert,{missing}", "--out", str(tmp_path / "new")]) == 2
        assert capsys.readouterr().err.splitlines()[-1].endswith(f'pip install "gossamer[{missing}]"')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_the_commands_take_the_file(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(made / "classify.openvino.xml")
    answers = []
    for words in (["verify", file], ["predict", file, str(IMAGE)], ["eval", file, str(OLD / "classes" / "val")]):
        assert main([*words, "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    verified, predicted, scored = answers
    assert verified["ok"] and verified["runtime"] == "openvino" and verified["largest_difference"] < 1e-4
    onnx = runtime.load(CLASSIFY).predict(str(IMAGE))
    assert predicted["predictions"][0]["classes"][0] == onnx.classes[0]
    assert scored["images"] == 6
    metadata = runtime.load(file).need_metadata()
    assert metadata.preprocess == runtime.load(CLASSIFY).need_metadata().preprocess


@pytest.mark.full
@pytest.mark.parametrize("name", ["segment", "embed", "multi"])
def test_a_model_file_of_each_task(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    result = export_file(OLD / f"{name}.onnx", tmp_path / "m.xml")
    assert result.loss.largest <= 1e-5 * max(1.0, result.loss.scale)
    assert [check.ok for check in result.verifications] == [True]


def test_the_operator_that_failed_is_named_and_not_the_one_behind_it(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pool = node("MaxPool", ["p"], ["small"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    nodes = [node("GlobalAveragePool", ["x"], ["p"]), pool, node("Conv", ["small", "k"], ["y"])]
    file = save(tmp_path / "m.onnx", nodes, {"k": weight(2, 3, 1, 1)})
    with pytest.raises(InputError, match=r"OpenVINO [0-9.]+: MaxPool: Kernel after dilation has size"):
        export_file(file, tmp_path / "m.xml")


def test_a_plain_onnx_file_of_two_outputs(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    nodes = [*CONV, node("Relu", ["a"], ["r"]), node("GlobalAveragePool", ["r"], ["mean"])]
    file, x = save(tmp_path / "m.onnx", nodes, outputs=("r", "mean")), noise(INPUT)
    wanted = expected(file, x)
    export_file(file, tmp_path / "m.xml")
    outputs = runtime.load(tmp_path / "m.xml").run(x)
    assert list(outputs) == ["r", "mean"]
    for name, values in wanted.items():
        np.testing.assert_allclose(outputs[name], values, atol=1e-5)


def test_without_the_package_one_line_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    for words in (["export", CLASSIFY, "--out", str(tmp_path / "m.xml")], ["verify", str(HOSTILE / "good.xml")]):
        assert main(words) == 2
        assert capsys.readouterr().err.splitlines()[-1].endswith('pip install "gossamer[openvino]"')
    assert list(tmp_path.iterdir()) == []


def test_there_are_files_for_each_rule() -> None:
    assert {name[:2] for name in BROKEN} == {f"0{rule}" for rule in range(1, 7)}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_breaks_a_rule_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name.startswith("06"):
        pytest.importorskip("openvino")
    assert main(["verify", str(HOSTILE / f"{name}.xml")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"(rule {int(name[:2])})" in error and name in error


def test_the_small_file_is_good(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    x = noise((2, 3, 2, 2))
    np.testing.assert_allclose(runtime.load(HOSTILE / "good.xml").run(x), np.maximum(x, 0), rtol=1e-6)
    shutil.copy(HOSTILE / "good.xml", tmp_path / "m.xml")
    with pytest.raises(ModelFileError, match=r"m\.bin: No such file.*rule 1"):
        read_network(tmp_path / "m.xml")


def test_every_format_of_several_files_has_names_that_do_not_meet() -> None:
    names = []
    for name, entry in FORMATS.items():
        file = Path(file_name("flowers", name))
        names += [file.name, *(file.with_suffix(suffix).name for suffix in entry.beside)]
    assert len(set(names)) == len(names)


INTERRUPTED = """
import os, signal, sys
from gossamer.runtime import load
first = load(sys.argv[1], runtime="openvino")
second = load(sys.argv[1], runtime="openvino")
del first
del second
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_after_two_networks_does_not_end_the_process() -> None:
    """A core of OpenVINO for each left the process with a freed stack for its signal handlers."""
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, CLASSIFY], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_threads_that_come_at_once_have_one_core() -> None:
    package: Any = ModuleType("openvino of this test")

    def made() -> object:
        time.sleep(0.05)
        return object()

    package.Core = made
    with ThreadPoolExecutor(4) as threads:
        assert len({id(core) for core in threads.map(core_of, [package] * 4)}) == 1

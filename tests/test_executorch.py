"""ExecuTorch files: the commands on one, operations and heads beside ONNX Runtime, and files that break a rule."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from gossamer import runtime
from gossamer.cli.main import main
from gossamer.errors import InputError, ModelFileError
from gossamer.executorch.metadata import read_program
from gossamer.executorch.write import ExecuTorchFiles, metadata_bytes
from gossamer.targets import target_of

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.hostile.make_executorch import CASES as BROKEN
from tests.onnxcases import CONV, INPUT, expected, node, noise, save, weight
from tests.test_litert import one

OLD = Path(__file__).parent / "compat" / "0.1"
HOSTILE = Path(__file__).parent / "hostile" / "executorch"
IMAGE = OLD / "classes" / "val" / "class0" / "000.png"
there = importlib.util.find_spec("executorch") is not None
needs_executorch = pytest.mark.skipif(
    not there, reason="ExecuTorch is an extra of its own that development does without"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with classify.pte and classify.json, which the command wrote."""
    folder = tmp_path_factory.mktemp("executorch")
    assert (
        main(["export", str(OLD / "classify.onnx"), "--to", "executorch", "--out", str(folder / "classify.pte")]) == 0
    )
    return folder


@pytest.mark.full
@needs_executorch
def test_the_commands_take_the_file(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(made / "classify.pte")
    assert target_of(file).kind == "ExecuTorch file"
    assert sorted(one.name for one in made.iterdir()) == ["classify.json", "classify.pte"]
    answers = []
    for words in (["verify", file], ["predict", file, str(IMAGE)], ["eval", file, str(OLD / "classes" / "val")]):
        assert main([*words, "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    verified, predicted, scored = answers
    assert verified["ok"] and verified["runtime"] == "executorch" and verified["largest_difference"] < 1e-4
    onnx = runtime.load(OLD / "classify.onnx").predict(str(IMAGE))
    assert predicted["predictions"][0]["classes"][0] == onnx.classes[0]
    assert scored["images"] == 6


@pytest.mark.full
@needs_executorch
def test_operations_agree_with_onnx_runtime(tmp_path: Path) -> None:
    """Two dozen operations in one file, since each file costs seconds; an output of each."""
    outputs, nodes = [], list(CONV)
    for op in ("Sigmoid", "Tanh", "HardSwish", "Abs", "Exp", "Relu", "GlobalAveragePool"):
        nodes.append(node(op, ["a"], [op]))
        outputs.append(op)
    window = {"kernel_shape": [3, 3], "strides": [2, 2]}
    nodes += [
        node("LeakyRelu", ["a"], ["leaky"], alpha=0.1),
        node("HardSigmoid", ["a"], ["hard"], alpha=1 / 6, beta=0.5),
        node("Clip", ["a", "zero", "six"], ["relu6"]),
        node("Clip", ["a", "zero"], ["above"]),
        node("Reciprocal", ["Exp"], ["reciprocal"]),
        node("Log", ["Exp"], ["log"]),
        node("MaxPool", ["a"], ["max"], pads=[1, 1, 1, 1], **window),
        node("AveragePool", ["a"], ["mean"], pads=[1, 0, 1, 1], **window),
        node("Conv", ["a", "d"], ["depthwise"], group=8, pads=[1, 1, 1, 1]),
        node("Conv", ["a", "g"], ["groups"], group=2, pads=[0, 0, 1, 1]),
        node("Conv", ["a", "f"], ["whole"]),
        node("Mul", ["a", "Sigmoid"], ["silu"]),
        node("Add", ["a", "Tanh"], ["sum"]),
        node("Concat", ["Tanh", "Abs"], ["both"], axis=1),
        node("Softmax", ["a"], ["softmax"], axis=1),
        node("DepthToSpace", ["a"], ["space"], blocksize=2),
        node("Resize", ["a", "", "twice"], ["bilinear"], mode="linear"),
        node("Resize", ["a", "", "twice"], ["nearest"], mode="nearest", coordinate_transformation_mode="asymmetric"),
    ]
    outputs += (
        "leaky hard relu6 above reciprocal log max mean depthwise groups whole silu sum both softmax space".split()
    )
    outputs += ["bilinear", "nearest"]
    constants = {
        "zero": np.float32(0),
        "six": np.float32(6),
        "d": weight(8, 1, 3, 3),
        "g": weight(6, 4, 3, 3),
        "f": weight(5, 8, 6, 6),
        "twice": np.array([1, 1, 2, 2], np.float32),
    }
    file, x = save(tmp_path / "m.onnx", nodes, constants, outputs=outputs), noise(INPUT)
    model, wanted = runtime.load(file, runtime="executorch", threads=1), expected(file, x)
    made = model.run(x)
    assert isinstance(made, dict) and list(made) == outputs
    for name, values in wanted.items():
        atol = 1e-5 * max(1.0, float(np.abs(values).max()))
        np.testing.assert_allclose(made[name], values, rtol=0, atol=atol, err_msg=name)
    with pytest.raises(InputError, match="2 threads where an ExecuTorch file is open with 1"):
        runtime.load(file, runtime="executorch", threads=2)


@pytest.mark.full
@needs_executorch
@pytest.mark.parametrize("name", ["segment", "multi"])
def test_raw_heads(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"{name}.pte"
    assert main(["export", str(OLD / f"{name}.onnx"), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert "verified with executorch" in captured.out and "cpuinfo" not in captured.err
    model = runtime.load(out)
    assert model.metadata is not None
    assert [head.kind for head in model.metadata.heads] == [
        head.kind for head in runtime.load(OLD / f"{name}.onnx").metadata.heads
    ]
    x = model.metadata.preprocess.normalise(np.stack([one.pixels for one in model.metadata.checks]))
    made, wanted = model.run(x), expected(OLD / f"{name}.onnx", x)
    for key, values in (made if isinstance(made, dict) else {next(iter(wanted)): made}).items():
        np.testing.assert_allclose(values, wanted[key], rtol=0, atol=1e-5 * max(1.0, float(np.abs(values).max())))


@pytest.mark.full
@needs_executorch
def test_metadata_of_another_network_are_refused(made: Path, tmp_path: Path) -> None:
    """Heads of other outputs, an output of other sides than the program makes: stated where all digests are right."""
    pte, own = (made / "classify.pte").read_bytes(), json.loads((made / "classify.json").read_bytes())
    entry = {key: own[key] for key in ("input", "outputs", "metadata")}
    longer = [{**entry["outputs"][0], "shape": [own["outputs"][0]["shape"][0] + 1]}]
    for data, changed, reason in (
        (pte, {"outputs": longer}, "of other sizes than its heads read"),
        (pte, {"outputs": longer, "metadata": None}, "not those stated"),
        (pte, {"input": [3, 20, 20]}, "preprocessing that does not make an input"),
        (pte[: len(pte) // 2], {}, "ExecuTorch"),
    ):
        _write(tmp_path / "m.pte", ExecuTorchFiles(data, metadata_bytes(data, entry | changed)))
        with pytest.raises(ModelFileError, match=reason):
            runtime.load(tmp_path / "m.pte")


@needs_executorch
def test_what_executorch_lacks_is_named_and_no_file_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for nodes, named in (
        (one("AveragePool", kernel_shape=[2, 2], dilations=[2, 2], name="pool7"), "pool7"),
        (one("Sin"), "operator Sin"),
    ):
        file = save(tmp_path / "m.onnx", nodes)
        assert main(["export", str(file), "--out", str(tmp_path / "m.pte")]) == 2
        error = capsys.readouterr().err.splitlines()
        assert named in error[-1] and [one.name for one in tmp_path.iterdir()] == ["m.onnx"]
        with pytest.raises(ModelFileError, match=rf"{named}.*rule 8"):
            runtime.load(file, runtime="executorch")


def test_without_the_runtime_one_line_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "executorch", None)
    for words in (
        ["export", str(OLD / "classify.onnx"), "--out", str(tmp_path / "m.pte")],
        ["verify", str(OLD / "classify.onnx"), "--runtime", "executorch"],
        ["verify", str(HOSTILE / "05_no_program.pte")],
    ):
        assert main(words) == 2
        assert capsys.readouterr().err.splitlines()[-1].endswith('pip install "gossamer[executorch]"')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_breaks_a_rule_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name.startswith("05") and not there:
        pytest.skip("ExecuTorch is an extra of its own that development does without")
    for words in (["verify", str(HOSTILE / f"{name}.pte")], ["predict", str(HOSTILE / f"{name}.pte"), str(IMAGE)]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"(rule {int(name[:2])})" in error and name in error


def test_the_hostile_files_are_those_of_their_table() -> None:
    assert {one.name for one in HOSTILE.iterdir()} == {f"{name}{end}" for name in BROKEN for end in (".pte", ".json")}
    for name, files in BROKEN.items():
        assert (HOSTILE / f"{name}.pte").read_bytes() == files.pte
        assert (HOSTILE / f"{name}.json").read_bytes() == files.json


@pytest.mark.parametrize("missing", [".pte", ".json"])
def test_both_files_must_be_together(missing: str, tmp_path: Path) -> None:
    for suffix in (".pte", ".json"):
        if suffix != missing:
            shutil.copy(HOSTILE / f"05_no_program{suffix}", tmp_path / f"m{suffix}")
    with pytest.raises(ModelFileError, match=rf"m\{missing}: No such file.*rule 1"):
        read_program(tmp_path / "m.pte")


def _write(place: Path, files: ExecuTorchFiles) -> None:
    place.write_bytes(files.pte)
    place.with_suffix(".json").write_bytes(files.json)

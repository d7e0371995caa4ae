"""Core ML packages: their structure beside the program's, the commands, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from gossamer.cli.main import main
from gossamer.coreml.write import ENTRY, feature_names
from gossamer.errors import InputError, VerificationError
from gossamer.targets import target_of

pytest.importorskip("onnx")
from tests.onnxcases import CONV, node, save, weight

OLD = Path(__file__).parent / "compat" / "0.1"
there = importlib.util.find_spec("coremltools") is not None
needs_coreml = pytest.mark.skipif(not there, reason="coremltools is an extra of its own that development does without")


def spec_of(place: Path) -> Any:
    """The description of a package."""
    from gossamer.coreml.write import import_package

    return import_package().models.MLModel(str(place), skip_model_load=True).get_spec()


@pytest.mark.full
@needs_coreml
@pytest.mark.parametrize("name", ["classify", "multi"])
def test_a_model_file_becomes_a_package(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.mlpackage"
    assert main(["export", str(OLD / f"{name}.onnx"), "--to", "coreml", "--out", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    made = json.loads(captured.out)
    assert made["verified"] is False and made["structure"]["layers"] > 3 and made["structure"]["weights"] > 1000
    assert "Converting" not in captured.err and "scikit" not in captured.err
    description = spec_of(out).description
    entry = json.loads(description.metadata.userDefined[ENTRY])
    assert entry["verified"] is False and entry["metadata"]["checks"]
    assert [one["feature"] for one in entry["outputs"]] == [one.name for one in description.output]
    assert entry["input"]["feature"] == description.input[0].name
    for words in (["verify", str(out)], ["predict", str(out), str(OLD)], ["bench", str(out)]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "runs on a Mac alone" in error


@pytest.mark.full
@needs_coreml
def test_operations_have_a_form_in_core_ml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several in one file; an output whose name Core ML does not take. No copy of the package is left."""
    import tempfile

    from gossamer.coreml.write import write_package
    from gossamer.modelfile.metadata import read_model_file

    window = {"kernel_shape": [3, 3], "strides": [2, 2]}
    nodes = [*CONV, node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["silu"])]
    nodes += [node("HardSwish", ["a"], ["hard"]), node("MaxPool", ["a"], ["max.1"], pads=[1, 1, 1, 1], **window)]
    nodes += [node("AveragePool", ["a"], ["mean"], pads=[1, 0, 1, 1], **window), node("Exp", ["a"], ["exp"])]
    nodes += [node("Conv", ["a", "d"], ["depthwise"], group=8), node("Conv", ["a", "f"], ["whole"])]
    nodes += [node("DepthToSpace", ["a"], ["space"], blocksize=2), node("GlobalAveragePool", ["a"], ["max_1"])]
    outputs = "silu hard max.1 mean exp depthwise whole space max_1".split()
    constants = {"d": weight(8, 1, 3, 3), "f": weight(5, 8, 6, 6)}
    file = read_model_file(save(tmp_path / "m.onnx", nodes, constants, outputs=outputs))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    written = write_package(file, tmp_path / "m.mlpackage")
    assert not list(temporary.rglob("*.mlpackage"))
    assert written.features == ("x", *"silu hard max_1 mean exp depthwise whole space max_1_2".split())
    assert written.structure.layers == 3 and written.structure.operations > 9


@pytest.mark.full
@needs_coreml
def test_a_package_of_other_weights_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gossamer.coreml.structure as structure

    file, plain = save(tmp_path / "m.onnx", [*CONV, node("Relu", ["a"], ["y"])]), structure._constants
    changed = lambda *given: [row * 2 for row in plain(*given)]  # noqa: E731
    monkeypatch.setattr(structure, "_constants", changed)
    assert main(["export", str(file), "--out", str(tmp_path / "m.mlpackage")]) == 1
    assert "are not in it" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]
    monkeypatch.setattr(structure, "LAYERS", ("linear",))
    with pytest.raises(VerificationError, match="0 layers, not 1"):
        from gossamer.export.coreml import export_file

        export_file(file, tmp_path / "m.mlpackage")


@pytest.mark.full
def test_no_reciprocal_is_left_to_coremltools(tmp_path: Path) -> None:
    """Of version 9.0 it would be 1 / (x + 0.0001)."""
    torch = pytest.importorskip("torch")
    from gossamer.coreml.write import exported_program
    from gossamer.modelfile.metadata import read_model_file
    from gossamer.torch_program.module import module_of

    nodes = [node("Abs", ["x"], ["a"]), node("Reciprocal", ["a"], ["y"])]
    module = module_of(read_model_file(save(tmp_path / "m.onnx", nodes, shape=("N", 1, 1, 4))))
    x = torch.tensor([1e-4, -2e-4, 0.5, -3.0]).reshape(1, 1, 1, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's of its own, which `write_package` leaves out
        program = exported_program(module, x)
    targets = {str(one.target) for one in program.graph.nodes if one.op == "call_function"}
    assert "aten.reciprocal.default" not in targets and "aten.div.Tensor" in targets
    assert torch.equal(program.module()(x)[0], 1 / x.abs())


def test_names_that_core_ml_takes() -> None:
    assert feature_names(["x", "a.b", "a_b", "1", "ö", ""]) == ["x", "a_b", "a_b_2", "_1", "_", "__2"]


def test_what_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    model = str(OLD / "classify.onnx")
    (tmp_path / "file.mlpackage").write_bytes(b"")
    (tmp_path / "full.mlpackage").mkdir()
    (tmp_path / "full.mlpackage" / "Manifest.json").write_text("{}")
    for words, named in (
        (["--out", str(tmp_path / "m.mlpackage")], 'pip install "gossamer[coreml]"'),
        (["--out", str(tmp_path / "m"), "--to", "coreml"], "NAME.mlpackage"),
        (["--out", str(tmp_path / "file.mlpackage")], "exists"),
        (["--out", str(tmp_path / "full.mlpackage")], "a folder that is not empty"),
        (["--out", str(tmp_path / "m.mlpackage"), "--ram", "1M"], "--to c with them"),
        (["--out", str(tmp_path / "new"), "--to", "coreml,onnx"], "a folder of its own"),
    ):
        assert main(["export", model, *words]) == 2
        assert named in capsys.readouterr().err.splitlines()[-1]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file.mlpackage", "full.mlpackage"]
    with pytest.raises(InputError, match="runs on a Mac alone"):
        target_of(tmp_path / "full.mlpackage")

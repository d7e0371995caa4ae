"""Hostile .tflite files: one line that names the file and the rule, exit code 2, whatever the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gossamer import runtime
from gossamer.cli.main import main
from gossamer.errors import ModelFileError
from gossamer.litert.metadata import read_metadata
from gossamer.litert.structure import structure_problem
from gossamer.modelfile.metadata import read_model_file
from tests.hostile import make_litert as make

FOLDER = Path(__file__).parent / "hostile" / "litert"
FILES = sorted(path.stem for path in FOLDER.glob("*.tflite"))
OLD = Path(__file__).parent / "compat" / "0.1"
IMAGE = OLD / "classes" / "val" / "class0" / "000.png"


def test_the_files_are_those_that_the_script_writes() -> None:
    assert {name: (FOLDER / f"{name}.tflite").read_bytes() for name in FILES} == make.files()
    assert {name[0] for name in FILES if name != "good"} == set("123456")


@pytest.mark.parametrize("name", [name for name in FILES if name != "good"])
def test_one_line_names_the_file_and_the_rule(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "6_another_input":  # which LiteRT itself finds
        pytest.importorskip("ai_edge_litert")
    file = str(FOLDER / f"{name}.tflite")
    for words in (["verify", file], ["predict", file, str(IMAGE)]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"(rule {name[0]})" in error and f"{name}.tflite" in error


def test_the_good_file_runs() -> None:
    pytest.importorskip("ai_edge_litert")
    x = np.random.default_rng(0).standard_normal((2, 3, 2, 2)).astype(np.float32)
    outputs = runtime.load(FOLDER / "good.tflite").run(x)
    np.testing.assert_array_equal(outputs, np.maximum(x, 0).transpose(0, 2, 3, 1))


def test_a_file_of_another_exporter_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(FOLDER / "3_another_exporter.tflite")
    for words in (["verify", file], ["predict", file, str(IMAGE)]):
        assert main(words) == 2
        assert "no metadata of gossamer" in capsys.readouterr().err


def test_a_file_without_preprocessing_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ai_edge_litert")
    assert main(["predict", str(FOLDER / "good.tflite"), str(IMAGE)]) == 2
    assert "use run() with normalised arrays" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", ["classify", "segment", "multi"])
def test_what_is_written_has_no_problem(name: str) -> None:
    pytest.importorskip("flatbuffers")
    from gossamer.litert.write import litert_bytes

    assert structure_problem(litert_bytes(read_model_file(OLD / f"{name}.onnx"))) == ""


def test_small_files_of_long_lists_are_refused_at_once() -> None:
    """Of 3,000 tensors that are one of 3,000 sides; of more tables than a network has."""
    assert "lists that lie in each other" in structure_problem(make.shared(3000))
    with pytest.raises(ModelFileError, match=r"a list is too long.*rule 2"):
        read_metadata(make.flat({4: ("[i]", [0] * (2**17 + 1)), 6: ("[i]", [])}), "m.tflite")

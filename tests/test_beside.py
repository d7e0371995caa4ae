"""What files that lie beside one another, or are made of an ONNX file, are refused with."""

from __future__ import annotations

from pathlib import Path

import pytest

from gossamer.errors import GossamerError, InputError, MissingPackageError, ModelFileError
from gossamer.modelfile.beside import bytes_of, made_from, values_of
from gossamer.modelfile.digest_json import with_digest
from gossamer.ncnn.metadata import ncnn_error


@pytest.mark.parametrize(
    "error",
    [
        InputError("a.onnx: a node", "others", "leave it out"),
        InputError("a node", "others", "leave it out"),
        GossamerError("a node"),
    ],
)
def test_what_a_format_refuses_names_the_file_once(error: GossamerError) -> None:
    with pytest.raises(ModelFileError) as caught, made_from("a.onnx"):
        raise error
    assert caught.value.rule == 8 and str(caught.value).count("a.onnx: ") == 1 and "a node" in str(caught.value)


def test_a_package_that_is_missing_stays_so() -> None:
    with pytest.raises(MissingPackageError), made_from("a.onnx"):
        raise MissingPackageError("ncnn", "ncnn", "the runtime ncnn")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ModelFileError, match="check the path, and that both files are together") as caught:
        bytes_of(str(path), 10, ncnn_error, "both files")
    assert caught.value.rule == 1
    path.write_bytes(b"x" * 11)
    with pytest.raises(ModelFileError):
        bytes_of(str(path), 10, ncnn_error, "both files")
    assert bytes_of(str(path), 11, ncnn_error, "both files") == b"x" * 11


def test_entries_are_those_that_were_written() -> None:
    data = with_digest({"format": "gossamer ncnn", "n": 1})
    assert values_of(data, "a.json", "gossamer ncnn", "an ncnn network", ncnn_error)["n"] == 1
    for other, text in (
        (data.replace(b'"n": 1', b'"n": 2'), "not as it was written"),
        (b"{}", "not a file of gossamer"),
    ):
        with pytest.raises(ModelFileError, match=text) as caught:
            values_of(other, "a.json", "gossamer ncnn", "an ncnn network", ncnn_error)
        assert caught.value.rule == 2
    with pytest.raises(ModelFileError, match=r"not the \.json file of an ExecuTorch program"):
        values_of(data, "a.json", "gossamer executorch", "an ExecuTorch program", ncnn_error)

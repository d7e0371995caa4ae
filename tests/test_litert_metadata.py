"""LiteRT's own metadata, read back by the field numbers of its schema; tflite-support 0.4.4 shows the same of these files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gossamer.compile.program import ProgramOutput
from gossamer.errors import ModelFileError
from gossamer.litert.metadata import _metadata, read_metadata
from gossamer.litert.reading import TableReader
from gossamer.litert.tool_metadata import tool_metadata
from gossamer.litert.write import litert_bytes
from gossamer.modelfile.metadata import ModelFile, read_model_file
from gossamer.predictions.head import OutputHead

pytest.importorskip("flatbuffers")

OLD = Path(__file__).parent / "compat" / "0.1"
SUBGRAPHS, INPUTS, OUTPUTS, FILES = 3, 2, 3, 6  # fields of ModelMetadata, SubGraphMetadata, TensorMetadata


def tool_part(data: bytes) -> TableReader:
    """The root of the buffer that LiteRT's tools read."""
    ((begin, end),) = [(begin, end) for name, begin, end in _metadata(data) if name == b"TFLITE_METADATA"]
    part = data[begin:end]
    assert part[4:8] == b"M001"
    return TableReader.root(part)


def text(table: TableReader, number: int) -> str:
    begin, end = table.content(number)
    return table.data[begin:end].decode()


def inner(table: TableReader, number: int) -> TableReader:
    found = table.table(number)
    assert found is not None
    return found


def written(name: str) -> tuple[ModelFile, bytes]:
    file = read_model_file(OLD / f"{name}.onnx")
    return file, litert_bytes(file)


def test_normalisation_image_and_labels_are_read_back() -> None:
    file, data = written("classify")
    assert file.metadata is not None
    root = tool_part(data)
    assert text(root, 5) == file.metadata.licence and text(root, 7) == "1.0.0"
    (graph,) = root.tables(SUBGRAPHS)
    (image,), (scores,) = graph.tables(INPUTS), graph.tables(OUTPUTS)
    content = inner(image, 3)
    assert content.number(0, "B") == 2  # ImageProperties
    picture, (unit,) = inner(content, 1), image.tables(4)
    assert picture.number(0, "b") == 1  # RGB
    size = inner(picture, 1)
    assert (size.number(1, "I"), size.number(0, "I")) == file.metadata.preprocess.size
    assert unit.number(0, "B") == 1  # NormalizationOptions
    normalisation = inner(unit, 1)
    assert normalisation.numbers(0, "f") == pytest.approx(tuple(255 * one for one in file.metadata.preprocess.mean))
    assert normalisation.numbers(1, "f") == pytest.approx(tuple(255 * one for one in file.metadata.preprocess.std))
    assert text(scores, 0) == "logits"
    (labels,) = scores.tables(FILES)
    assert text(labels, 0) == "labels.txt" and labels.number(2, "b") == 2  # TENSOR_AXIS_LABELS
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(file.metadata.classes)
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED


def test_each_output_has_the_names_of_its_head() -> None:
    file, data = written("multi")
    assert file.metadata is not None
    (graph,) = tool_part(data).tables(SUBGRAPHS)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for head, output in zip(file.metadata.heads, graph.tables(OUTPUTS), strict=True):
            assert text(output, 0) == head.outputs[0]
            (labels,) = output.tables(FILES)
            assert archive.read(text(labels, 0)).decode().splitlines() == list(head.classes)


def test_an_embedding_has_no_labels() -> None:
    _, data = written("embed")
    assert not zipfile.is_zipfile(io.BytesIO(data))
    (graph,) = tool_part(data).tables(SUBGRAPHS)
    (output,) = graph.tables(OUTPUTS)
    assert text(output, 0) == "embedding" and not output.place(FILES)


def test_offsets_of_boxes_have_no_labels() -> None:
    """Where a detector has as many classes as a box has offsets, as well."""
    file = read_model_file(OLD / "classify.onnx")
    assert file.metadata is not None
    head = OutputHead("detect", tuple("abcd"))
    metadata: Any = SimpleNamespace(format=2, heads=(head,), preprocess=file.metadata.preprocess, licence="none")
    outputs = [ProgramOutput("deltas", (9, 4), []), ProgramOutput("logits", (9, 4), [])]
    _, files = tool_metadata(metadata, outputs)
    assert files == {"labels.txt": b"a\nb\nc\nd\n"}
    assert tool_metadata(metadata, outputs[:1])[1] == {}


def test_the_digest_covers_the_labels() -> None:
    """A class renamed in the archive alone: the file is not as it was written."""
    _, data = written("classify")
    at = data.rindex(b"class1\n")
    with pytest.raises(ModelFileError, match="not as it was written"):
        read_metadata(data[:at] + b"other1\n" + data[at + 7 :], "m.tflite")


def test_the_same_model_gives_the_same_bytes_with_its_archive() -> None:
    file, data = written("classify")
    assert litert_bytes(file) == data

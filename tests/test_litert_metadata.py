"""LiteRT's own metadata, read back by the field numbers of its schema; tflite-support 0.4.4 shows the same of these files."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest

from gossamer.litert.metadata import _field, _metadata, _offset, _vector, read_metadata
from gossamer.litert.write import litert_bytes
from gossamer.modelfile.metadata import ModelFile, read_model_file

pytest.importorskip("flatbuffers")

OLD = Path(__file__).parent / "compat" / "0.1"
SUBGRAPHS, INPUTS, OUTPUTS, FILES = 3, 2, 3, 6  # fields of ModelMetadata, SubGraphMetadata, TensorMetadata


class Table:
    """A table of a FlatBuffer, read by field numbers."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def place(self, number: int) -> int:
        at = _field(self.data, self.at, number)
        assert at, f"no field {number}"
        return at

    def table(self, number: int) -> Table:
        return Table(self.data, _offset(self.data, self.place(number)))

    def tables(self, number: int) -> list[Table]:
        at = _offset(self.data, self.place(number))
        (count,) = struct.unpack_from("<I", self.data, at)
        return [Table(self.data, _offset(self.data, at + 4 + 4 * place)) for place in range(count)]

    def text(self, number: int) -> str:
        begin, end = _vector(self.data, _offset(self.data, self.place(number)))
        return self.data[begin:end].decode()

    def floats(self, number: int) -> list[float]:
        at = _offset(self.data, self.place(number))
        (count,) = struct.unpack_from("<I", self.data, at)
        return list(struct.unpack_from(f"<{count}f", self.data, at + 4))

    def number(self, number: int, kind: str) -> int:
        return int(struct.unpack_from(kind, self.data, self.place(number))[0])


def tool_part(data: bytes) -> Table:
    """The root of the buffer that LiteRT's tools read."""
    ((begin, end),) = [(begin, end) for name, begin, end in _metadata(data) if name == b"TFLITE_METADATA"]
    part = data[begin:end]
    assert part[4:8] == b"M001"
    return Table(part, _offset(part, 0))


def written(name: str) -> tuple[ModelFile, bytes]:
    file = read_model_file(OLD / f"{name}.onnx")
    return file, litert_bytes(file)


def test_normalisation_image_and_labels_are_read_back() -> None:
    file, data = written("classify")
    assert file.metadata is not None
    root = tool_part(data)
    assert root.text(5) == file.metadata.licence and root.text(7) == "1.0.0"
    (graph,) = root.tables(SUBGRAPHS)
    (image,), (scores,) = graph.tables(INPUTS), graph.tables(OUTPUTS)
    content = image.table(3)
    assert content.number(0, "<B") == 2  # ImageProperties
    picture, (unit,) = content.table(1), image.tables(4)
    assert picture.number(0, "<b") == 1  # RGB
    size = picture.table(1)
    assert (size.number(1, "<I"), size.number(0, "<I")) == file.metadata.preprocess.size
    assert unit.number(0, "<B") == 1  # NormalizationOptions
    normalisation = unit.table(1)
    assert normalisation.floats(0) == pytest.approx([255 * one for one in file.metadata.preprocess.mean])
    assert normalisation.floats(1) == pytest.approx([255 * one for one in file.metadata.preprocess.std])
    assert scores.text(0) == "logits"
    (labels,) = scores.tables(FILES)
    assert labels.text(0) == "labels.txt" and labels.number(2, "<b") == 2  # TENSOR_AXIS_LABELS
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(file.metadata.classes)
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED


def test_each_output_has_the_names_of_its_head() -> None:
    file, data = written("multi")
    assert file.metadata is not None
    (graph,) = tool_part(data).tables(SUBGRAPHS)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for head, output in zip(file.metadata.heads, graph.tables(OUTPUTS), strict=True):
            assert output.text(0) == head.outputs[0]
            (labels,) = output.tables(FILES)
            assert archive.read(labels.text(0)).decode().splitlines() == list(head.classes)


def test_an_embedding_has_no_labels() -> None:
    _, data = written("embed")
    assert not zipfile.is_zipfile(io.BytesIO(data))
    (graph,) = tool_part(data).tables(SUBGRAPHS)
    (output,) = graph.tables(OUTPUTS)
    assert output.text(0) == "embedding" and not _field(output.data, output.at, FILES)


def test_the_digest_covers_the_labels() -> None:
    """A class renamed in the archive alone: the file is not as it was written."""
    from gossamer.errors import ModelFileError

    _, data = written("classify")
    at = data.rindex(b"class1\n")
    with pytest.raises(ModelFileError, match="not as it was written"):
        read_metadata(data[:at] + b"other1\n" + data[at + 7 :], "m.tflite")


def test_the_same_model_gives_the_same_bytes_with_its_archive() -> None:
    file, data = written("classify")
    assert litert_bytes(file) == data

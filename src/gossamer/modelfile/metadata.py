"""The model file: an ONNX file with metadata, by the rules of FORMAT.md.

The metadata describes the outputs, the preprocessing, and the expected outputs of a few check inputs. It is written as
metadata entries `gossamer.*`, which every ONNX reader ignores.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gossamer.errors import InputError, ModelFileError
from gossamer.host.shown import Brief
from gossamer.host.storage import open_regular
from gossamer.host.text import counted
from gossamer.images.preprocess import Preprocess
from gossamer.modelfile import protobuf
from gossamer.modelfile.external import inline
from gossamer.modelfile.onnx import FILE_LIMIT, FLOAT, ONNX_RULES, OnnxModel, parse_onnx, subgraph
from gossamer.predictions.head import KINDS, MOST_HEADS, OutputHead, is_plain_text, outputs_of
from gossamer.predictions.postprocess import check_options

FORMATS = (1, 2)  # 1: one classifier; 2: any heads
PREFIX = "gossamer."
FIRST_OPSET = 17
JSON_DEPTH = 32
COMMON_KEYS = ("preprocess", "licence", "provenance", "tolerance", "checks", "images")
METADATA_KEYS = {1: ("task", "classes", *COMMON_KEYS), 2: ("heads", *COMMON_KEYS)}
CHECKED = 4096  # a check holds at most so many numbers of an output
DIGEST_KEY = f"{PREFIX}sha256"

# 1 to 7 are the rules of any ONNX file; 8 is checked by the runtime that is to run the graph
RULES = {
    **ONNX_RULES,
    8: "operators and attributes that the runtime knows",
    9: "each entry gossamer.{format, preprocess, licence, provenance, tolerance, checks, images, sha256} once, "
    "task and classes (format 1) or heads (format 2), and no other gossamer.*",
    10: "a last entry gossamer.sha256 over all bytes before it",
    11: f"format {' or '.join(map(str, FORMATS))}",
    12: f"JSON, nested {JSON_DEPTH} deep at most, without NaN, infinity or a repeated name",
    13: f"format 1: the task classify; format 2: 1 to {MOST_HEADS} heads of the kinds {', '.join(KINDS)}",
    14: "preprocessing that makes the input of the graph: float32 (free batch, channels, height, width)",
    15: "float32 outputs (batch, ...) as the heads read them, one name for each class: texts, not empty, all different, "
    "without control characters",
    16: "licence: a text; provenance: an object",
    17: f"ONNX operator set {FIRST_OPSET} or later",
    18: "1 to 64 check inputs, 8-bit PNG of the input size, each with as many finite outputs as the heads have",
    19: "1 to 16 check images, each with the pixels it becomes as PNG of the input size, and their SHA-256",
    20: "a tolerance above 0 and at most a hundredth of the largest check output, or of 1 where that is larger",
}


@dataclass(frozen=True, repr=False)
class CheckInput(Brief):
    """A check input: pixels uint8 (H, W, C) after resize and crop, and the outputs expected of it, float32 (K,)."""

    pixels: NDArray[np.uint8]
    outputs: NDArray[np.float32]


@dataclass(frozen=True, repr=False)
class CheckImage(Brief):
    """An image file with the pixels, uint8 (H, W, C), that it became where the model file was exported."""

    name: str
    file: bytes
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, repr=False)
class ModelMetadata(Brief):
    """All that a model file holds besides the graph. `tolerance` is the absolute difference allowed in a check output."""

    heads: tuple[OutputHead, ...]
    preprocess: Preprocess
    licence: str
    provenance: dict[str, Any]
    checks: tuple[CheckInput, ...]
    images: tuple[CheckImage, ...]
    tolerance: float

    @property
    def format(self) -> int:
        """1 for a single classifier, so that every gossamer reads it, 2 for all else."""
        first = self.heads[0]
        return 1 if len(self.heads) == 1 and (first.kind, first.name, first.options) == ("classify", "", {}) else 2

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the first head."""
        return self.heads[0].classes

    @property
    def checked(self) -> int:
        """The most numbers of each output that a check holds; 0 is all."""
        return CHECKED if self.format > 1 else 0

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs that the heads read."""
        return outputs_of(self.heads)

    def to_json(self) -> dict[str, Any]:
        """Plain values by the names of FORMAT.md."""
        first: dict[str, Any] = {"heads": [head.to_json() for head in self.heads]}
        if self.format == 1:
            first = {"task": "classify", "classes": list(self.classes)}
        return {
            **first,
            "preprocess": self.preprocess.to_json(),
            "licence": self.licence,
            "provenance": self.provenance,
            "tolerance": self.tolerance,
            "checks": [
                {"pixels": _text64(_png(check.pixels)), "outputs": _text64(check.outputs.astype("<f4").tobytes())}
                for check in self.checks
            ],
            "images": [
                {
                    "name": image.name,
                    "file": _text64(image.file),
                    "pixels": _text64(_png(image.pixels)),
                    "sha256": pixel_hash(image.pixels),
                }
                for image in self.images
            ],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelMetadata:
        """Metadata from the values of `to_json`. Raises ModelFileError (rules 13 to 20)."""
        heads, preprocess = _heads(values), _preprocess(values["preprocess"])
        licence, provenance, tolerance = values["licence"], values["provenance"], values["tolerance"]
        if not is_plain_text(licence) or not isinstance(provenance, dict):
            raise rule_error(16, f"licence {licence!r}, provenance of type {type(provenance).__name__}")
        checks = _list(values["checks"], 64, 18, lambda item: _check(item, preprocess))
        images = _list(values["images"], 16, 19, lambda item: _image_check(item, preprocess))
        if len({len(check.outputs) for check in checks}) > 1:
            raise rule_error(18, "check inputs with different numbers of outputs")
        most = 0.01 * max(1.0, *(float(np.abs(check.outputs).max()) for check in checks))
        if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 < tolerance <= most:
            raise rule_error(20, f"tolerance {str(tolerance)[:20]} where at most {most:.3g} makes sense")
        return cls(heads, preprocess, licence, provenance, checks, images, float(tolerance))


@dataclass(frozen=True, repr=False)
class ModelFile(Brief):
    """A valid model file. A plain ONNX file has no metadata: it can only be run on arrays."""

    path: str
    data: bytes
    onnx: OnnxModel
    metadata: ModelMetadata | None
    sha256: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs to compute: those that the heads read; all of a plain ONNX file."""
        if self.metadata is None or self.metadata.format == 1:
            return tuple(value.name for value in self.onnx.outputs)
        return self.metadata.outputs

    @property
    def graph(self) -> OnnxModel:
        """The part of the graph that makes `outputs`."""
        return subgraph(self.onnx, self.outputs)


def rule_error(rule: int, problem: str, do: str = "export the run again") -> ModelFileError:
    """The error for a rule of FORMAT.md that does not hold."""
    return ModelFileError(rule, problem, RULES[rule], do)


def read_model_file(path: str | os.PathLike[str], several_inputs: bool = False) -> ModelFile:
    """Read a model file, and the files beside it that hold data of its tensors.

    several_inputs: whether the caller can do with a plain ONNX file of more than one.
    Raises ModelFileError, and no other error whatever the file holds.
    """
    return parse_model_file(_bytes(path), os.fspath(path), several_inputs)


def with_metadata_of(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> ModelFile:
    """An ONNX file that a tool derived from the model file `other`, with the metadata of `other` in place of its own.

    Raises ModelFileError, InputError where `other` has no metadata, or one for another input or other outputs.
    """
    source, data = read_model_file(other), _bytes(path)
    if source.metadata is None:
        raise InputError(
            f"metadata of {source.path}, which has none", "a file that `gossamer export` wrote", "name that one"
        )
    name = os.fspath(path)
    file = parse_model_file(without_metadata(data), name)
    ours, theirs = _interface(file.onnx), _interface(source.onnx)
    if ours != theirs:
        raise InputError(
            f"{name} with {ours}, and metadata for {theirs}",
            "metadata of the same",
            "name the file that it was derived from",
        )
    return parse_model_file(model_file_bytes(file.data, source.metadata), name)


def _interface(onnx: OnnxModel) -> str:
    sides = "x".join(map(str, (onnx.input.shape or ())[1:]))
    return f"input {sides} and output {', '.join(value.name for value in onnx.outputs)}"


def _bytes(path: str | os.PathLike[str]) -> bytes:
    name = os.fspath(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > FILE_LIMIT:
                raise rule_error(1, f"{name}: {size} bytes")
            data = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise rule_error(1, f"{name}: {reason}", "check the path") from error
    try:
        return inline(data, Path(path).parent)
    except ModelFileError as error:
        raise _of_file(error, name) from error


def parse_model_file(data: bytes, name: str = "model file", several_inputs: bool = False) -> ModelFile:
    """Check the bytes of a model file against every rule. Raises ModelFileError, whose line starts with `name`.

    several_inputs: as of `read_model_file`; a file with metadata has one all the same.
    """
    try:
        onnx = parse_onnx(data, several_inputs)
        has_metadata = any(key.startswith(PREFIX) for key, _ in onnx.metadata)
        onnx = parse_onnx(data) if has_metadata and len(onnx.inputs) > 1 else onnx  # which refuses it
        metadata = _metadata(data, onnx) if has_metadata else None
    except ModelFileError as error:
        raise _of_file(error, name) from error
    return ModelFile(name, data, onnx, metadata, hashlib.sha256(data).hexdigest())


def _of_file(error: ModelFileError, name: str) -> ModelFileError:
    """The same error, its line starting with the name of the file."""
    message = error.given.removesuffix(f" (rule {error.rule})")
    return ModelFileError(error.rule, f"{name}: {message}", error.allowed, error.do)


def model_file_bytes(onnx_bytes: bytes, metadata: ModelMetadata) -> bytes:
    """The bytes of a model file: the ONNX model with `metadata` in place of any that it has. Raises ModelFileError."""
    try:
        entries = {"format": metadata.format, **metadata.to_json()}
        texts = {key: json.dumps(value, ensure_ascii=False, allow_nan=False) for key, value in entries.items()}
        body = without_metadata(onnx_bytes) + b"".join(_entry(PREFIX + key, text) for key, text in texts.items())
    except (TypeError, ValueError) as error:
        raise rule_error(12, f"the metadata cannot be written as JSON: {error}", "check the metadata") from error
    data = body + _entry(DIGEST_KEY, hashlib.sha256(body).hexdigest())
    parse_model_file(data)  # what is written can be read
    return data


def without_metadata(data: bytes) -> bytes:
    """An ONNX model without its gossamer.* entries; all else stays byte for byte. Raises ModelFileError."""
    view = memoryview(data)
    kept = []
    for number, _, value, start, end in protobuf.scan(view):
        if number == 14 and isinstance(value, memoryview):
            key = next((item for field, _, item, _, _ in protobuf.scan(value) if field == 1), b"")
            if isinstance(key, (bytes, memoryview)) and bytes(key).startswith(PREFIX.encode()):
                continue
        kept.append(view[start:end])
    return b"".join(kept)


def pixel_hash(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of pixels (H, W, C), row by row."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _entry(key: str, value: str) -> bytes:
    """A ModelProto.metadata_props entry (field 14, of two texts) in protobuf's wire format."""
    parts = b"".join(
        bytes([tag]) + _varint(len(text)) + text for tag, text in ((10, key.encode()), (18, value.encode()))
    )
    return bytes([14 << 3 | protobuf.DELIMITED]) + _varint(len(parts)) + parts


def _varint(number: int) -> bytes:
    result = bytearray()
    while number > 127:
        result.append(number & 127 | 128)
        number >>= 7
    return bytes(result) + bytes([number])


def _metadata(data: bytes, onnx: OnnxModel) -> ModelMetadata:
    """The metadata of a file that has one. Raises ModelFileError (rules 9 to 20)."""
    digest_length = len(_entry(DIGEST_KEY, "0" * 64))
    body = data[:-digest_length]
    if data[-digest_length:] != _entry(DIGEST_KEY, hashlib.sha256(body).hexdigest()):
        raise rule_error(
            10,
            "the file is not as it was written",
            "fetch it again; if it was changed on purpose, export the run again",
        )
    entries = [(key.removeprefix(PREFIX), text) for key, text in onnx.metadata if key.startswith(PREFIX)]
    texts = dict(entries)
    if texts.get("format", "1") not in map(str, FORMATS):
        raise rule_error(11, f"format {texts['format'][:20]}", "install the gossamer that wrote it, or a later one")
    keys = METADATA_KEYS[int(texts.get("format", "1"))]
    expected = {"format", "sha256", *keys}
    if len(texts) < len(entries) or set(texts) != expected:
        wrong = {key for key, _ in entries if [name for name, _ in entries].count(key) > 1} | (set(texts) ^ expected)
        raise rule_error(9, f"missing, unknown or repeated: {', '.join(PREFIX + key for key in sorted(wrong)[:8])}")
    metadata = ModelMetadata.from_json({key: _json(key, texts[key]) for key in keys})
    shape = onnx.input.shape or ()
    expected_shape = (metadata.preprocess.channels, *metadata.preprocess.size)
    if len(shape) != 4 or shape[1:] != expected_shape or isinstance(shape[0], int):
        raise rule_error(
            14, f"the graph's input is {list(shape)}, the preprocessing makes {['batch', *expected_shape]}"
        )
    _check_outputs(metadata, onnx)
    if onnx.opset < FIRST_OPSET:
        raise rule_error(17, f"operator set {onnx.opset}")
    return metadata


def _json(key: str, text: str) -> Any:
    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"{digits} is not finite")
        return value

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(items)) < len(items):
            raise ValueError("a name is repeated")
        return dict(items)

    try:
        value = json.loads(text, parse_constant=number, parse_float=number, object_pairs_hook=pairs)
        _check_depth(value, JSON_DEPTH)
        return value
    except (ValueError, RecursionError) as error:
        raise rule_error(12, f"{PREFIX}{key}: {error}") from error


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise ValueError(f"nested deeper than {JSON_DEPTH}")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


def _check_outputs(metadata: ModelMetadata, onnx: OnnxModel) -> None:
    """Raises ModelFileError (rules 15 and 18) where the graph does not give what the heads read."""
    if metadata.format == 1:
        shapes = [onnx.output.shape or ()]
        if len(onnx.outputs) > 1 or len(shapes[0]) != 2 or shapes[0][1] != len(metadata.classes):
            names, outputs = counted(len(metadata.classes), "name"), counted(len(onnx.outputs), "output")
            raise rule_error(15, f"{names} for {outputs}, the first {list(shapes[0])}")
    else:
        declared = {value.name: value for value in onnx.outputs}
        missing = [name for name in metadata.outputs if name not in declared or declared[name].type != FLOAT]
        if missing:
            raise rule_error(15, f"no float32 output {', '.join(missing)[:200]}")
        shapes = [declared[name].shape or () for name in metadata.outputs]
    sides = [side for shape in shapes for side in shape[1:]]
    if any(len(shape) < 2 or isinstance(shape[0], int) for shape in shapes) or not all(_is_side(s) for s in sides):
        raise rule_error(15, f"outputs of the shapes {[list(shape) for shape in shapes]}")
    counts = [math.prod(side for side in shape[1:] if isinstance(side, int)) for shape in shapes]
    expected = sum(min(count, CHECKED) if metadata.format > 1 else count for count in counts)
    if len(metadata.checks[0].outputs) != expected:
        raise rule_error(
            18, f"checks of {counted(len(metadata.checks[0].outputs), 'output')} where there are {expected}"
        )


def _is_side(value: int | str | None) -> bool:
    return isinstance(value, int) and value > 0


def _heads(values: Mapping[str, Any]) -> tuple[OutputHead, ...]:
    if "heads" not in values:
        if values["task"] != "classify":
            raise rule_error(13, f"task {str(values['task'])[:40]!r}", "install a gossamer that knows this task")
        return (OutputHead("classify", _classes(values["classes"])),)
    items = values["heads"]
    if not isinstance(items, list) or not 1 <= len(items) <= MOST_HEADS:
        raise rule_error(
            13, f"{len(items)} heads" if isinstance(items, list) else f"heads of type {type(items).__name__}"
        )
    try:
        heads = tuple(OutputHead.from_json(item) for item in items)
        for head in heads:
            check_options(head)
    except InputError as error:
        raise rule_error(13, error.given) from error
    names = [head.name for head in heads]
    if len(set(names)) < len(names) or (len(names) > 1 and "" in names):
        raise rule_error(13, "heads of one name, or several of which one has none")
    return heads


def _classes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(is_plain_text(name) for name in value):
        raise rule_error(15, "classes: not a list of such texts")
    if len(set(value)) < len(value):
        raise rule_error(15, f"{len(value) - len(set(value))} of {len(value)} class names are repeated")
    return tuple(value)


def _preprocess(value: Any) -> Preprocess:
    try:
        return Preprocess.from_json(value)
    except InputError as error:
        raise rule_error(14, error.given) from error


def _list(value: Any, most: int, rule: int, item: Callable[[Any], Any]) -> tuple[Any, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise rule_error(rule, f"{len(value)} items" if isinstance(value, list) else f"a {type(value).__name__}")
    return tuple(item(entry) for entry in value)


def _check(value: Any, preprocess: Preprocess) -> CheckInput:
    values = _texts(value, ("pixels", "outputs"), 18)
    outputs = _bytes64(values["outputs"], 18)
    if not outputs or len(outputs) % 4 or not np.isfinite(np.frombuffer(outputs, "<f4")).all():
        raise rule_error(18, f"{counted(len(outputs), 'byte')} of outputs, or outputs that are not finite")
    pixels = _unpng(_bytes64(values["pixels"], 18), preprocess, 18)
    return CheckInput(pixels, np.frombuffer(outputs, "<f4").astype(np.float32))


def _image_check(value: Any, preprocess: Preprocess) -> CheckImage:
    values = _texts(value, ("name", "file", "pixels", "sha256"), 19)
    pixels = _unpng(_bytes64(values["pixels"], 19), preprocess, 19)
    if pixel_hash(pixels) != values["sha256"]:
        raise rule_error(19, f"check image {values['name'][:40]!r}: its pixels have another SHA-256")
    return CheckImage(values["name"], _bytes64(values["file"], 19), pixels)


def _texts(value: Any, names: tuple[str, ...], rule: int) -> dict[str, str]:
    if (
        not isinstance(value, dict)
        or set(value) != set(names)
        or not all(isinstance(value[name], str) for name in names)
    ):
        raise rule_error(rule, f"an entry that is not an object of the texts {', '.join(names)}")
    return value


def _text64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes64(text: str, rule: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise rule_error(rule, f"not base64: {error}") from error


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", compress_level=9)
    return file.getvalue()


def _unpng(data: bytes, preprocess: Preprocess, rule: int) -> NDArray[np.uint8]:
    """The pixels (H, W, C) of a PNG, whose header must say the input's size before anything is unpacked."""
    (height, width), colour = preprocess.size, {1: 0, 3: 2}.get(preprocess.channels)
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBB", width, height, 8, colour or 0)
    if not data.startswith(header):
        raise rule_error(rule, f"not an 8-bit PNG of {width} x {height} pixels and {preprocess.channels} channels")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels = np.array(image, np.uint8).reshape(height, width, preprocess.channels)
    except Exception as error:  # Pillow's PNG reader raises many kinds on damaged data; each means the same here
        raise rule_error(rule, f"a damaged PNG: {type(error).__name__}: {error}") from error
    return pixels

"""The model file: an ONNX file that carries a card, by the rules of FORMAT.md.

The card says what the outputs mean, how an image becomes the input, and what the network must answer to a few inputs.
It is written as metadata entries `gossamer.*`, which every ONNX reader passes over.
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
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gossamer import onnxfile, protobuf
from gossamer.errors import InputError, ModelFileError
from gossamer.images import Preprocess
from gossamer.onnxfile import Onnx
from gossamer.storage import write_bytes

FORMAT = 1
PREFIX = "gossamer."
TASKS = ("classify",)
FIRST_OPSET = 17
JSON_DEPTH = 32
CARD_KEYS = ("task", "preprocess", "classes", "licence", "provenance", "tolerance", "checks", "images")
SEAL = f"{PREFIX}sha256"

# 1 to 7 are the rules of any ONNX file; 8 is checked by the runtime that is to run the graph
RULES = {
    **onnxfile.RULES,
    8: "operators and attributes that the runtime knows",
    9: "each entry gossamer.{format, task, preprocess, classes, licence, provenance, tolerance, checks, images, "
    "sha256} once, and no other gossamer.*",
    10: "a last entry gossamer.sha256 over all bytes before it",
    11: f"format {FORMAT}",
    12: f"JSON, nested {JSON_DEPTH} deep at most, without NaN, infinity or a name given twice",
    13: " or ".join(TASKS),
    14: "preprocessing that makes the input of the graph: float32 (free batch, channels, height, width)",
    15: "one name for each output: texts, not empty, all different, without control characters",
    16: "licence: a text; provenance: an object",
    17: f"ONNX operator set {FIRST_OPSET} or later",
    18: "1 to 64 check inputs, 8-bit PNG of the input size, each with one finite output a class",
    19: "1 to 16 check images, each with the pixels it becomes as PNG of the input size, and their SHA-256",
    20: "a tolerance above 0 and at most a hundredth of the largest check output, or of 1 where that is larger",
}


@dataclass(frozen=True)
class Check:
    """An input with the answer expected: pixels uint8 (H, W, C) behind the geometry, outputs float32 (K,)."""

    pixels: NDArray[np.uint8]
    outputs: NDArray[np.float32]


@dataclass(frozen=True)
class ImageCheck:
    """An image file with the pixels, uint8 (H, W, C), that it became where the model file was made."""

    name: str
    file: bytes
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Card:
    """What belongs to a network besides its graph. `tolerance` is the absolute difference allowed in a check output."""

    task: str
    preprocess: Preprocess
    classes: tuple[str, ...]
    licence: str
    provenance: dict[str, Any]
    checks: tuple[Check, ...]
    images: tuple[ImageCheck, ...]
    tolerance: float

    def to_json(self) -> dict[str, Any]:
        """Plain values by the names of FORMAT.md."""
        return {
            "task": self.task,
            "preprocess": self.preprocess.to_json(),
            "classes": list(self.classes),
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
    def from_json(cls, values: Mapping[str, Any]) -> Card:
        """A card from the values of `to_json`. Raises ModelFileError (rules 13 to 20)."""
        if values["task"] not in TASKS:
            raise broken(13, f"task {values['task']!r}", "install a gossamer that knows this task")
        classes, preprocess = _classes(values["classes"]), _preprocess(values["preprocess"])
        licence, provenance, tolerance = values["licence"], values["provenance"], values["tolerance"]
        if not _is_plain_text(licence) or not isinstance(provenance, dict):
            raise broken(16, f"licence {licence!r}, provenance of type {type(provenance).__name__}")
        checks = _list(values["checks"], 64, 18, lambda item: _check(item, preprocess, len(classes)))
        images = _list(values["images"], 16, 19, lambda item: _image_check(item, preprocess))
        most = 0.01 * max(1.0, *(float(np.abs(check.outputs).max()) for check in checks))
        if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 < tolerance <= most:
            raise broken(20, f"tolerance {str(tolerance)[:20]} where at most {most:.3g} makes sense")
        return cls(values["task"], preprocess, classes, licence, provenance, checks, images, float(tolerance))


@dataclass(frozen=True)
class ModelFile:
    """A model file that holds all rules. A plain ONNX file has no card; it can be run, and not more."""

    path: str
    data: bytes
    onnx: Onnx
    card: Card | None
    sha256: str


def broken(rule: int, given: str, do: str = "export the run again") -> ModelFileError:
    """The error for a rule of FORMAT.md that does not hold."""
    return ModelFileError(rule, given, RULES[rule], do)


def read(path: str | os.PathLike[str]) -> ModelFile:
    """Read a model file. Raises ModelFileError, and no other error whatever the file holds."""
    name = os.fspath(path)
    try:
        if Path(path).is_file() and Path(path).stat().st_size > onnxfile.FILE_LIMIT:
            raise broken(1, f"{name}: {Path(path).stat().st_size} bytes")
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise broken(1, f"{name}: {reason}", "check the path") from error
    return parse(data, name)


def parse(data: bytes, name: str = "model file") -> ModelFile:
    """Check the bytes of a model file against every rule. Raises ModelFileError, whose line starts with `name`."""
    try:
        onnx = onnxfile.parse(data)
        sealed = any(key.startswith(PREFIX) for key, _ in onnx.metadata)
        card = _card(data, onnx) if sealed else None
    except ModelFileError as error:
        given = error.given.removesuffix(f" (rule {error.rule})")
        raise ModelFileError(error.rule, f"{name}: {given}", error.allowed, error.do) from error
    return ModelFile(name, data, onnx, card, hashlib.sha256(data).hexdigest())


def to_bytes(onnx_bytes: bytes, card: Card) -> bytes:
    """The bytes of a model file: the ONNX model with the card in place of any that it had. Raises ModelFileError."""
    try:
        entries = {"format": FORMAT, **card.to_json()}
        texts = {key: json.dumps(value, ensure_ascii=False, allow_nan=False) for key, value in entries.items()}
        body = without_card(onnx_bytes) + b"".join(_entry(PREFIX + key, text) for key, text in texts.items())
    except (TypeError, ValueError) as error:
        raise broken(12, f"the card cannot be written as JSON: {error}", "mend the card") from error
    data = body + _entry(SEAL, hashlib.sha256(body).hexdigest())
    parse(data)  # what is written can be read
    return data


def write(path: str | os.PathLike[str], onnx_bytes: bytes, card: Card) -> None:
    """Write a model file in one step. Raises ModelFileError where it would break a rule, StorageError."""
    write_bytes(path, to_bytes(onnx_bytes, card))


def without_card(data: bytes) -> bytes:
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


def _card(data: bytes, onnx: Onnx) -> Card:
    """The card of a file that has one. Raises ModelFileError (rules 9 to 20)."""
    seal_length = len(_entry(SEAL, "0" * 64))
    body = data[:-seal_length]
    if data[-seal_length:] != _entry(SEAL, hashlib.sha256(body).hexdigest()):
        raise broken(
            10,
            "the file is not as it was written",
            "fetch it again; if it was changed on purpose, export the run again",
        )
    entries = [(key.removeprefix(PREFIX), text) for key, text in onnx.metadata if key.startswith(PREFIX)]
    texts = dict(entries)
    if texts.get("format", str(FORMAT)) != str(FORMAT):
        raise broken(11, f"format {texts['format'][:20]}", "install the gossamer that wrote it, or a later one")
    expected = {"format", "sha256", *CARD_KEYS}
    if len(texts) < len(entries) or set(texts) != expected:
        wrong = {key for key, _ in entries if [name for name, _ in entries].count(key) > 1} | (set(texts) ^ expected)
        raise broken(9, f"missing, unknown or repeated: {', '.join(PREFIX + key for key in sorted(wrong)[:8])}")
    card = Card.from_json({key: _json(key, texts[key]) for key in CARD_KEYS})
    shape = onnx.input.shape or ()
    expected_shape = (card.preprocess.channels, *card.preprocess.size)
    if len(shape) != 4 or shape[1:] != expected_shape or isinstance(shape[0], int):
        raise broken(14, f"the graph's input is {list(shape)}, the preprocessing makes {['batch', *expected_shape]}")
    if len(onnx.outputs) > 1 or len(onnx.output.shape or ()) != 2 or (onnx.output.shape or ())[1] != len(card.classes):
        raise broken(15, f"{len(card.classes)} names for the output {list(onnx.output.shape or ())}")
    if onnx.opset < FIRST_OPSET:
        raise broken(17, f"operator set {onnx.opset}")
    return card


def _json(key: str, text: str) -> Any:
    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"{digits} is not finite")
        return value

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(items)) < len(items):
            raise ValueError("a name is given twice")
        return dict(items)

    try:
        value = json.loads(text, parse_constant=number, parse_float=number, object_pairs_hook=pairs)
        _check_depth(value, JSON_DEPTH)
        return value
    except (ValueError, RecursionError) as error:
        raise broken(12, f"{PREFIX}{key}: {error}") from error


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise ValueError(f"nested deeper than {JSON_DEPTH}")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


def _is_plain_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and not any(unicodedata.category(c) in ("Cc", "Cs") for c in value)


def _classes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(_is_plain_text(name) for name in value):
        raise broken(15, "classes: not a list of such texts")
    if len(set(value)) < len(value):
        raise broken(15, f"{len(value) - len(set(value))} of {len(value)} class names are repeated")
    return tuple(value)


def _preprocess(value: Any) -> Preprocess:
    try:
        return Preprocess.from_json(value)
    except InputError as error:
        raise broken(14, error.given) from error


def _list(value: Any, most: int, rule: int, item: Callable[[Any], Any]) -> tuple[Any, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise broken(rule, f"{len(value)} items" if isinstance(value, list) else f"a {type(value).__name__}")
    return tuple(item(entry) for entry in value)


def _check(value: Any, preprocess: Preprocess, classes: int) -> Check:
    values = _texts(value, ("pixels", "outputs"), 18)
    outputs = _bytes64(values["outputs"], 18)
    if len(outputs) != 4 * classes or not np.isfinite(np.frombuffer(outputs, "<f4")).all():
        raise broken(18, f"{len(outputs)} bytes of outputs for {classes} classes, or outputs that are not finite")
    pixels = _unpng(_bytes64(values["pixels"], 18), preprocess, 18)
    return Check(pixels, np.frombuffer(outputs, "<f4").astype(np.float32))


def _image_check(value: Any, preprocess: Preprocess) -> ImageCheck:
    values = _texts(value, ("name", "file", "pixels", "sha256"), 19)
    pixels = _unpng(_bytes64(values["pixels"], 19), preprocess, 19)
    if pixel_hash(pixels) != values["sha256"]:
        raise broken(19, f"check image {values['name'][:40]!r}: its pixels have another SHA-256")
    return ImageCheck(values["name"], _bytes64(values["file"], 19), pixels)


def _texts(value: Any, names: tuple[str, ...], rule: int) -> dict[str, str]:
    if (
        not isinstance(value, dict)
        or set(value) != set(names)
        or not all(isinstance(value[name], str) for name in names)
    ):
        raise broken(rule, f"an entry that is not an object of the texts {', '.join(names)}")
    return value


def _text64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes64(text: str, rule: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise broken(rule, f"not base64: {error}") from error


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", compress_level=9)
    return file.getvalue()


def _unpng(data: bytes, preprocess: Preprocess, rule: int) -> NDArray[np.uint8]:
    """The pixels (H, W, C) of a PNG, whose header must say the input's size before anything is unpacked."""
    (height, width), colour = preprocess.size, {1: 0, 3: 2}.get(preprocess.channels)
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBB", width, height, 8, colour or 0)
    if not data.startswith(header):
        raise broken(rule, f"not an 8-bit PNG of {width} x {height} pixels and {preprocess.channels} channels")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels = np.array(image, np.uint8).reshape(height, width, preprocess.channels)
    except Exception as error:  # Pillow's PNG reader raises many kinds on damaged data; each means the same here
        raise broken(rule, f"a damaged PNG: {type(error).__name__}: {error}") from error
    return pixels

"""Writes tests/hostile/models: a good model file and, for each rule of FORMAT.md, files that break it and nothing else.

    python tests/hostile/make_models.py

A file's name starts with the number of the rule. Everything is written by hand, byte by byte: no package that is tested
here has a say, and the files come out the same everywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "models"
FLOAT, INT64 = 1, 7
SIDE = 8
WEIGHTS = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]], np.float32)
BIAS = np.array([0.125, -0.375], np.float32)
PREPROCESS = {
    "size": [SIDE, SIDE],
    "resize": "crop",
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "channels": 3,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "pixel_limit": 1000000,
}


# protobuf


def varint(number: int) -> bytes:
    number %= 2**64
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def field(number: int, value: int | str | bytes) -> bytes:
    """One field: an int as varint, a text or message with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


# ONNX: the numbers are those of onnx.proto


def tensor(name: str, values: np.ndarray[Any, Any], kind: int = FLOAT, extra: bytes = b"", dims: Any = None) -> bytes:
    shape = values.shape if dims is None else dims
    head = b"".join(field(1, side) for side in shape) + field(2, kind) + field(8, name)
    return head + field(9, values.tobytes()) + extra


def value_info(name: str, shape: Iterable[int | str], kind: int = FLOAT) -> bytes:
    axes = b"".join(field(1, field(1, side) if isinstance(side, int) else field(2, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, axes)))


def node(op: str, inputs: Iterable[str], outputs: Iterable[str], attributes: bytes = b"", domain: str = "") -> bytes:
    names = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in outputs)
    return names + field(4, op) + attributes + (field(7, domain) if domain else b"")


def attribute(name: str, value: int) -> bytes:
    return field(5, field(1, name) + field(3, value) + field(20, 2))


POOL = node("GlobalAveragePool", ["input"], ["pooled"])
FLAT = node("Flatten", ["pooled"], ["flat"], attribute("axis", 1))
GEMM = node("Gemm", ["flat", "w", "b"], ["logits"], attribute("transB", 1))
NODES = (POOL, FLAT, GEMM)
TENSORS = (tensor("w", WEIGHTS), tensor("b", BIAS))
INPUT, OUTPUT = value_info("input", ["batch", 3, SIDE, SIDE]), value_info("logits", ["batch", 2])


def graph(
    nodes: Iterable[bytes] = NODES,
    tensors: Iterable[bytes] = TENSORS,
    inputs: Iterable[bytes] = (INPUT,),
    outputs: Iterable[bytes] = (OUTPUT,),
    extra: bytes = b"",
) -> bytes:
    parts = ((1, nodes), (5, tensors), (11, inputs), (12, outputs))
    return field(2, "tiny") + b"".join(field(n, item) for n, items in parts for item in items) + extra


def model(body: bytes | None = None, opset: int = 18, ir: int = 8, extra: bytes = b"") -> bytes:
    body = graph() if body is None else body
    return field(1, ir) + field(2, "hand") + field(8, field(1, "") + field(2, opset)) + field(7, body) + extra


# the metadata


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """An 8-bit PNG whose data are stored, not compressed: the same bytes from every zlib."""
    height, width, channels = pixels.shape
    lines = b"".join(b"\0" + pixels[row].tobytes() for row in range(height))
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(lines), len(lines) ^ 0xFFFF) + lines
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", stored + struct.pack(">I", zlib.adler32(lines))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def text64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pixels_of(seed: int, side: int = SIDE) -> np.ndarray[Any, Any]:
    numbers = np.arange(side * side * 3, dtype=np.int64) * 7919 + seed * 104729
    return (numbers % 251).astype(np.uint8).reshape(side, side, 3)


def outputs_of(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the network outputs, in float64."""
    mean = ((pixels / 255 - 0.5) / 0.25).mean(axis=(0, 1))
    return np.asarray(mean @ WEIGHTS.T.astype(np.float64) + BIAS, np.float32)


def check(seed: int) -> dict[str, str]:
    pixels = pixels_of(seed)
    return {"pixels": text64(png(pixels)), "outputs": text64(outputs_of(pixels).astype("<f4").tobytes())}


def image_check(seed: int) -> dict[str, str]:
    pixels = pixels_of(seed)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return {"name": "png", "file": text64(png(pixels)), "pixels": text64(png(pixels)), "sha256": digest}


METADATA: dict[str, Any] = {
    "format": 1,
    "task": "classify",
    "preprocess": PREPROCESS,
    "classes": ["cat", "dog"],
    "licence": "Apache-2.0",
    "provenance": {"made by": "hand"},
    "tolerance": 0.0001,
    "checks": [check(1), check(2)],
    "images": [image_check(3)],
}


def entry(key: str, value: str) -> bytes:
    return field(14, field(1, key) + field(2, value))


def with_digest(body: bytes) -> bytes:
    return body + entry("gossamer.sha256", hashlib.sha256(body).hexdigest())


def file(onnx: bytes | None = None, without: str = "", extra: bytes = b"", **changes: Any) -> bytes:
    """A model file; `changes` replace values of the metadata (a bytes value is the JSON text itself)."""
    body = model() if onnx is None else onnx
    for key, value in {**METADATA, **changes}.items():
        text = value.decode("utf-8") if isinstance(value, bytes) else json.dumps(value)
        body += b"" if key == without else entry(f"gossamer.{key}", text)
    return with_digest(body + extra)


def changed(index: int, **changes: Any) -> list[dict[str, Any]]:
    """The metadata's first check (0) or image (1) with other values."""
    return [{**METADATA["checks" if index == 0 else "images"][0], **changes}]


HEAD = {"kind": "classify", "name": "", "classes": ["cat", "dog"], "options": {}}
MULTI = {**HEAD, "kind": "multilabel", "options": {"threshold": 0.5}}
ANCHORS = {"input": [8, 8], "levels": [{"size": [4096, 4096], "shapes": [[1, 1]]}], "variances": [0.1, 0.2]}
DECODING = {"score": "softmax", "threshold": 0.1, "candidates": 9, "iou": 0.5, "limit": 9}


def headed(heads: Any, **changes: Any) -> bytes:
    """A model file of format 2."""
    body = model()
    values = {
        "format": 2,
        "heads": heads,
        **{key: METADATA[key] for key in METADATA if key not in ("format", "task", "classes")},
    }
    for key, value in {**values, **changes}.items():
        body += entry(f"gossamer.{key}", json.dumps(value))
    return with_digest(body)


def nested(depth: int) -> bytes:
    """A graph within a node's attribute within a graph, and so on."""
    body = graph()
    for _ in range(depth):
        body = graph(nodes=(node("If", [], [], field(5, field(1, "body") + field(6, body) + field(20, 5))), *NODES))
    return model(body)


EXTERNAL = field(13, field(1, "location") + field(2, "../secret")) + field(14, 1)
PIXELS_9 = text64(png(pixels_of(1, SIDE + 1)))
BOMB = png(pixels_of(1))[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + png(pixels_of(1))[24:]
IF = node(
    "If",
    ["flag"],
    ["x"],
    field(5, field(1, "then_branch") + field(20, 5) + field(6, graph(tensors=(tensor("w", WEIGHTS, extra=EXTERNAL),)))),
)
CONSTANT = node(
    "Constant", [], ["c"], field(5, field(1, "value") + field(20, 4) + field(5, tensor("", BIAS, extra=EXTERNAL)))
)

MODELS: dict[str, bytes] = {
    "good": file(),
    "good_2": headed([MULTI]),
    "plain": model(),
    "01_empty": b"",
    "02_not_protobuf": b"this is no model, but a line of text\n",
    "02_cut_off": file()[:-200],
    "02_length_past_the_end": model() + varint(7 << 3 | 2) + varint(2**40) + b"x",
    "02_endless_number": b"\x08" + b"\xff" * 30,
    "02_number_of_65_bits": b"\x08" + b"\xff" * 9 + b"\x02" + model()[2:],
    "02_group": model() + varint(99 << 3 | 3) + varint(99 << 3 | 4),
    "02_field_zero": model() + b"\x00\x01",
    "02_wrong_wire_type": field(1, "eight") + model()[2:],
    "02_two_graphs": model(extra=field(7, graph())),
    "02_text_not_utf8": model(extra=entry("a", "b").replace(b"b", b"\xff")),
    "02_nested_too_deep": nested(40),
    "02_packed_floats_of_five_bytes": model(graph(tensors=(tensor("w", WEIGHTS) + field(4, b"12345"), TENSORS[1]))),
    "03_no_graph": field(1, 8) + field(8, field(2, 18)),
    "03_no_nodes": model(graph(nodes=())),
    "03_no_operator_set": field(1, 8) + field(7, graph()),
    "03_two_operator_sets": model(extra=field(8, field(2, 17))),
    "03_no_ir_version": model(ir=0),
    "04_tensor_elsewhere": model(graph(tensors=(tensor("w", WEIGHTS, extra=EXTERNAL), TENSORS[1]))),
    "04_location_only": model(graph(tensors=(tensor("w", WEIGHTS, extra=field(14, 2**32 + 1)), TENSORS[1]))),
    "04_in_a_branch": model(graph(nodes=(IF, *NODES), inputs=(INPUT, value_info("flag", [1], 9)))),
    "04_in_a_constant": model(graph(nodes=(CONSTANT, *NODES))),
    "04_in_a_function": model(extra=field(25, field(1, "f") + field(7, CONSTANT))),
    "05_too_few_bytes": model(graph(tensors=(tensor("w", WEIGHTS[:1], dims=(2, 3)), TENSORS[1]))),
    "05_negative_side": model(graph(tensors=(tensor("w", WEIGHTS, dims=(-2, 3)), TENSORS[1]))),
    "05_enormous_shape": model(graph(tensors=(tensor("w", WEIGHTS, dims=(2**40, 2**40)), TENSORS[1]))),
    "05_sides_that_overflow": model(
        graph(tensors=(tensor("w", WEIGHTS[:0], dims=(0, 2**31 - 1, 2**31 - 1, 2**31 - 1)), TENSORS[1]))
    ),
    "05_unknown_type": model(graph(tensors=(tensor("w", WEIGHTS, kind=999), TENSORS[1]))),
    "05_value_outside_its_type": model(
        graph(tensors=(*TENSORS, field(1, 1) + field(2, 2) + field(8, "u") + field(5, 999)))
    ),
    "06_value_from_nowhere": model(graph(nodes=(POOL, FLAT, node("Gemm", ["flat", "w", "ghost"], ["logits"])))),
    "06_used_before_it_is_made": model(graph(nodes=(FLAT, POOL, GEMM))),
    "06_made_twice": model(graph(nodes=(*NODES, GEMM))),
    "06_tensor_twice": model(graph(tensors=(*TENSORS, TENSORS[0]))),
    "06_output_never_made": model(graph(nodes=(POOL, FLAT))),
    "06_output_twice": model(graph(outputs=(OUTPUT, OUTPUT))),
    "07_second_input_of_int64": model(graph(inputs=(INPUT, value_info("more", ["batch", 3], INT64)))),
    "07_65_inputs": model(graph(inputs=(INPUT, *(value_info(f"i{i}", ["batch", 2]) for i in range(64))))),
    "07_two_inputs_with_metadata": file(model(graph(inputs=(INPUT, value_info("more", ["batch", 3]))))),
    "07_65_outputs": model(
        graph(
            nodes=(*NODES, *(node("Identity", ["logits"], [f"o{i}"]) for i in range(64))),
            outputs=(OUTPUT, *(value_info(f"o{i}", ["batch", 2]) for i in range(64))),
        )
    ),
    "07_second_output_without_shape": model(
        graph(outputs=(OUTPUT, field(1, "flat") + field(2, field(1, field(1, FLOAT)))))
    ),
    "07_int64_input": model(graph(inputs=(value_info("input", ["batch", 3, SIDE, SIDE], INT64),))),
    "07_input_without_shape": model(graph(inputs=(field(1, "input") + field(2, field(1, field(1, FLOAT))),))),
    "08_unknown_operator": file(model(graph(nodes=(POOL, FLAT, node("Gemm2", ["flat", "w", "b"], ["logits"]))))),
    "08_foreign_domain": file(
        model(graph(nodes=(POOL, FLAT, node("Gemm", ["flat", "w", "b"], ["logits"], domain="evil"))))
    ),
    "09_key_missing": file(without="classes"),
    "09_key_twice": file(extra=entry("gossamer.licence", '"MIT"')),
    "09_key_unknown": file(extra=entry("gossamer.surprise", "1")),
    "10_one_byte_changed": file().replace(b"Apache-2.0", b"Apache-2.1"),
    "10_no_seal": model(extra=entry("gossamer.format", "1")),
    "10_bytes_after_the_seal": file() + entry("note", "added later"),
    "11_format_3": file(format=3),
    "12_not_json": file(licence=b"Apache-2.0"),
    "12_nan": file(tolerance=b"NaN"),
    "12_infinity_by_size": file(tolerance=b"1e999"),
    "12_name_twice": file(provenance=b'{"a": 1, "a": 2}'),
    "12_nested_too_deep": file(provenance=b"[" * 40 + b"]" * 40),
    "13_unknown_task": file(task="divine"),
    "13_unknown_kind": headed([{**HEAD, "kind": "divine"}]),
    "13_no_heads": headed([]),
    "13_17_heads": headed([{**HEAD, "name": f"h{i}"} for i in range(17)]),
    "13_heads_of_one_name": headed([HEAD, HEAD]),
    "13_heads_no_list": headed({"logits": 1}),
    "13_field_missing": headed([{key: HEAD[key] for key in ("kind", "name", "classes")}]),
    "13_name_of_a_path": headed([{**HEAD, "name": "../x"}]),
    "13_threshold_of_two": headed([{**HEAD, "kind": "multilabel", "options": {"threshold": 2}}]),
    "13_options_unknown": headed([{**HEAD, "options": {"surprise": 1}}]),
    "13_anchors_without_end": headed(
        [{**HEAD, "kind": "detect", "options": {"anchors": ANCHORS, "decoding": DECODING}}]
    ),
    "13_size_of_zero": headed([{**HEAD, "kind": "segment", "options": {"size": [0, 8]}}]),
    "13_std_of_three": headed([{**HEAD, "kind": "regress", "options": {"mean": [0, 0], "std": [1, 1, 1]}}]),
    "14_size_unlike_the_input": file(
        preprocess={**PREPROCESS, "size": [SIDE + 1, SIDE + 1]},
        checks=changed(0, pixels=PIXELS_9),
        images=changed(1, pixels=PIXELS_9, sha256=hashlib.sha256(pixels_of(1, SIDE + 1).tobytes()).hexdigest()),
    ),
    "14_std_of_zero": file(preprocess={**PREPROCESS, "std": [0.25, 0.25, 0]}),
    "14_field_missing": file(preprocess={key: value for key, value in PREPROCESS.items() if key != "mean"}),
    "14_a_list": file(preprocess=[1, 2]),
    "14_fixed_batch": file(model(graph(inputs=(value_info("input", [1, 3, SIDE, SIDE]),)))),
    "15_names_repeated": file(classes=["cat", "cat"]),
    "15_too_many_names": file(
        classes=["cat", "dog", "eel"], checks=changed(0, outputs=text64(np.zeros(3, "<f4").tobytes()))
    ),
    "15_name_with_control_character": file(classes=["cat", "dog\u001b[2J"]),
    "15_empty_name": file(classes=["cat", ""]),
    "15_numbers": file(classes=[1, 2]),
    "15_output_of_a_head_missing": headed([{**HEAD, "name": "more"}]),
    "15_two_outputs_of_a_classifier": file(model(graph(outputs=(OUTPUT, value_info("flat", ["batch", 3]))))),
    "16_licence_missing": file(licence=""),
    "16_provenance_is_a_text": file(provenance="me"),
    "17_operator_set_16": file(model(opset=16)),
    "18_no_checks": file(checks=[]),
    "18_other_size": file(checks=changed(0, pixels=PIXELS_9)),
    "18_decompression_bomb": file(checks=changed(0, pixels=text64(BOMB))),
    "18_damaged_png": file(checks=changed(0, pixels=text64(png(pixels_of(1))[:80]))),
    "18_not_base64": file(checks=changed(0, pixels="***")),
    "18_too_few_outputs": file(checks=changed(0, outputs=text64(np.zeros(1, "<f4").tobytes()))),
    "18_checks_of_different_lengths": headed(
        [MULTI], checks=[check(1), changed(0, outputs=text64(np.zeros(3, "<f4").tobytes()))[0]]
    ),
    "18_nan_expected": file(checks=changed(0, outputs=text64(np.array([np.nan, 1], "<f4").tobytes()))),
    "18_field_unknown": file(checks=changed(0, surprise="x")),
    "19_no_images": file(images=[]),
    "19_wrong_hash": file(images=changed(1, sha256="0" * 64)),
    "19_other_size": file(images=changed(1, pixels=PIXELS_9)),
    "20_tolerance_of_zero": file(tolerance=0),
    "20_tolerance_too_large": file(tolerance=1000),
    "20_tolerance_true": file(tolerance=True),
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.onnx"):
        old.unlink()
    for name, data in MODELS.items():
        (FOLDER / f"{name}.onnx").write_bytes(data)


if __name__ == "__main__":
    main()

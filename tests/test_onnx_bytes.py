"""QuantizeLinear and DequantizeLinear as other tools write them, each beside ONNX Runtime or by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.compile.quantised import MOST_TERMS
from gossamer.compile.write import compile_file
from gossamer.errors import InputError
from gossamer.runtime import native

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)
from tests.onnxcases import check, node, save, weight

UINT8, INT8, INT16, FLOAT16 = 2, 3, 5, 10  # ONNX's numbers of types
STEP = np.float32(0.05)
SHAPE = ("N", 3, 4, 4)
SAME = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
X = (np.random.default_rng(1).standard_normal((2, 3, 4, 4)) * 6).astype(np.float32)
CONV = node("Conv", ["d", "same"], ["y"])
CONSTANTS: dict[str, Any] = {
    "same": SAME,
    "s": STEP,
    "i5": np.int8(5),
    "i0": np.int8(0),
    "u100": np.uint8(100),
    "u0": np.uint8(0),
    "s3": np.array([0.1, 0.05, 0.2], np.float32),
    "w4": weight(4, 3, 1, 1),
    "s4": np.array([0.01, 0.02, 0.03, 0.04], np.float32),
    "s0": np.array([0.01, 0.02, 0.0, 0.04], np.float32),
    "z4": np.array([0, 3, -7, 1], np.int8),
    "i4": np.clip(np.rint(weight(4, 3, 1, 1) * 100), -128, 127).astype(np.int8),
    **{f"h{kind}": np.arange(-6, 6).reshape(4, 3, 1, 1).astype(kind) * 9 for kind in ("int16", "uint16")},
    "hz": np.array([300, 0, 2, 60_000], np.uint16),
    "blocks": np.array([[0.01, 0.02], [0.03, 0.04], [0.05, 0.06], [0.07, 0.08]], np.float32).reshape(4, 2, 1, 1),
    "rows": np.arange(1, 7, dtype=np.float32).reshape(2, 3, 1, 1) / 100,
    "zeros": np.array([[1, -2, 3], [4, -5, 6]], np.int8).reshape(2, 3, 1, 1),
    "u4": np.abs(np.rint(weight(4, 3, 1, 1) * 100)).astype(np.uint8),
}


def pair(zero: str = "", other_zero: str | None = None, **attributes: Any) -> list[Any]:
    """Bytes and back: x to d."""
    other_zero = zero if other_zero is None else other_zero
    return [
        node("QuantizeLinear", ["x", "s", *([zero] if zero else [])], ["q"], **attributes),
        node("DequantizeLinear", ["q", "s", *([other_zero] if other_zero else [])], ["d"]),
    ]


def file(tmp_path: Path, nodes: list[Any], opset: int = 21) -> Path:
    return save(tmp_path / "m.onnx", nodes, CONSTANTS, SHAPE, opset=opset)


@pytest.mark.parametrize(
    ("zero", "attributes", "least", "most", "middle"),
    [
        ("", {"output_dtype": INT8}, -128, 127, 0),
        ("", {"output_dtype": UINT8}, 0, 255, 0),
        ("", {}, 0, 255, 0),
        ("i0", {}, -128, 127, 0),
        ("i5", {}, -128, 127, 5),
        ("u0", {}, 0, 255, 0),
        ("u100", {"output_dtype": UINT8}, 0, 255, 100),
        ("i5", {"saturate": 0}, -128, 127, 5),
    ],
)
def test_bytes_are_of_the_type_that_the_file_says(
    zero: str, attributes: dict[str, Any], least: int, most: int, middle: int, tmp_path: Path
) -> None:
    path = file(tmp_path, [*pair(zero, **attributes), CONV])
    check(path, X)
    x = np.linspace(-40, 40, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    by_hand = (np.clip(np.rint(x / STEP) + middle, least, most) - middle) * STEP
    np.testing.assert_allclose(native.Native(path.with_suffix(".goss"), 1)(x), by_hand, atol=1e-5)


FORMS: dict[str, tuple[list[Any], int]] = {
    "a zero in the second alone": ([*pair(other_zero="i0", output_dtype=INT8), CONV], 21),
    "before output_dtype": ([*pair("i5"), CONV], 13),
    "moved between": (
        [
            node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=INT8),
            node("Transpose", ["q"], ["t"], perm=[0, 2, 3, 1]),
            node("DequantizeLinear", ["t", "s"], ["u"]),
            node("Transpose", ["u"], ["d"], perm=[0, 3, 1, 2]),
            CONV,
        ],
        21,
    ),
    "weights quantised in the network, a scale a row": (
        [
            *pair(output_dtype=INT8),
            node("QuantizeLinear", ["w4", "s4", "z4"], ["wq"], axis=0),
            node("DequantizeLinear", ["wq", "s4", "z4"], ["w8"], axis=0),
            node("Conv", ["d", "w8"], ["y"]),
        ],
        21,
    ),
    "weights quantised by output_dtype": (
        [
            *pair(output_dtype=INT8),
            node("QuantizeLinear", ["w4", "s4"], ["wq"], axis=-4, output_dtype=INT8),
            node("DequantizeLinear", ["wq", "s4"], ["w8"], axis=-4),
            node("Conv", ["d", "w8"], ["y"]),
        ],
        21,
    ),
    "int8 weights, a scale a row from the last axis": (
        [
            *pair(output_dtype=INT8),
            node("DequantizeLinear", ["i4", "s4"], ["w8"], axis=-4),
            node("Conv", ["d", "w8"], ["y"]),
        ],
        21,
    ),
    "int8 weights, a scale a column": (
        [
            *pair(output_dtype=INT8),
            node("DequantizeLinear", ["i4", "s3"], ["w8"], axis=1),
            node("Conv", ["d", "w8"], ["y"]),
        ],
        21,
    ),
    "int16 weights": (
        [*pair(), node("DequantizeLinear", ["hint16", "s3"], ["w8"], axis=1), node("Conv", ["d", "w8"], ["y"])],
        21,
    ),
    "uint16 weights with zeros beyond bytes": (
        [
            *pair(),
            node("DequantizeLinear", ["huint16", "s4", "hz"], ["w8"], axis=0),
            node("Conv", ["d", "w8"], ["y"]),
        ],
        21,
    ),
    "weights with a scale for each two channels, the last alone": (
        [
            *pair(),
            node("DequantizeLinear", ["i4", "blocks"], ["w8"], axis=-3, block_size=2),
            node("Conv", ["d", "w8"], ["y"]),
        ],
        21,
    ),
    "weights with a scale and a zero for each two rows": (
        [
            *pair(),
            node("DequantizeLinear", ["i4", "rows", "zeros"], ["w8"], axis=0, block_size=2),
            node("Conv", ["d", "w8"], ["y"]),
        ],
        21,
    ),
    "uint8 weights without a zero": (
        [
            *pair(output_dtype=INT8),
            node("DequantizeLinear", ["u4", "s"], ["w8"]),
            node("Conv", ["d", "w8"], ["y"]),
        ],
        21,
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_answers_as_onnx_runtime(name: str, tmp_path: Path) -> None:
    nodes, opset = FORMS[name]
    check(file(tmp_path, nodes, opset), X, 1e-3)


REFUSED: dict[str, tuple[list[Any], str]] = {
    "16 bits": ([*pair(output_dtype=INT16), CONV], "output_dtype"),
    "two types": ([*pair("u0", output_dtype=INT8), CONV], "output_dtype"),
    "two types of zeros": ([*pair("i0", "u0"), CONV], "another type than the bytes"),
    "another zero": ([*pair("i5", "i0"), CONV], "a scale other than"),
    "a scale per channel of a map": (
        [
            node("QuantizeLinear", ["x", "s3"], ["q"], axis=1),
            node("DequantizeLinear", ["q", "s3"], ["d"], axis=1),
            CONV,
        ],
        "something but depthwise convolutions reads",
    ),
    "weights quantised with a scale of 0": (
        [
            *pair(output_dtype=INT8),
            node("QuantizeLinear", ["w4", "s0"], ["wq"], axis=0, output_dtype=INT8),
            node("DequantizeLinear", ["wq", "s4"], ["w8"], axis=0),
            node("Conv", ["d", "w8"], ["y"]),
        ],
        "a scale that is not over 0",
    ),
    "blocks": (
        [
            *pair(),
            node("DequantizeLinear", ["i4", "s4"], ["w8"], block_size=2),
            node("Conv", ["d", "w8"], ["y"]),
        ],
        "its scales are not finite numbers in float32 in the shape",
    ),
    "blocks of a map": (
        [
            node("QuantizeLinear", ["x", "s"], ["q"]),
            node("DequantizeLinear", ["q", "s"], ["d"], block_size=2),
            CONV,
        ],
        "block_size is not 0",
    ),
    "a ReLU of bytes": (
        [
            node("QuantizeLinear", ["x", "s", "i5"], ["q"]),
            node("Relu", ["q"], ["r"]),
            node("DequantizeLinear", ["r", "s", "i5"], ["d"]),
            CONV,
        ],
        "reads bytes as they are",
    ),
    "a sum of bytes": (
        [
            node("QuantizeLinear", ["x", "s"], ["q"]),
            node("Add", ["q", "q"], ["r"]),
            node("DequantizeLinear", ["r", "s"], ["d"]),
            CONV,
        ],
        "reads bytes as they are",
    ),
    "bytes as an output": ([node("QuantizeLinear", ["x", "s"], ["y"])], "an output 'y'"),
    "an attribute of a later set": ([*pair(precision=1), CONV], "an attribute 'precision'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bytes_that_the_engine_lacks_are_refused_by_name(name: str, tmp_path: Path) -> None:
    nodes, message = REFUSED[name]
    path = file(tmp_path, nodes)
    with pytest.raises(InputError, match=message):
        compile_file(path, tmp_path / "m.goss")
    assert not (tmp_path / "m.goss").exists()


@pytest.mark.parametrize(("kind", "message"), [(FLOAT16, "output_dtype that is not float32"), (INT16, "output_dtype")])
def test_other_types_behind_bytes_are_refused(kind: int, message: str, tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", ["x", "s"], ["q"]),
        node("DequantizeLinear", ["q", "s"], ["d"], output_dtype=kind),
        CONV,
    ]
    with pytest.raises(InputError, match=message):
        compile_file(file(tmp_path, nodes, 23), tmp_path / "m.goss")


def test_a_layer_of_bytes_has_as_many_terms_as_their_sum_fits_into_int32() -> None:
    assert MOST_TERMS * 255 * 128 <= 2**31 - 1 < (MOST_TERMS + 1) * 255 * 128

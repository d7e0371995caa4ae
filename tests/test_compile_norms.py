"""Norms, one-axis convolutions and maps that are repeated along axes, as other exporters write them, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from gossamer.compile.write import compile_file  # noqa: E402
from gossamer.errors import InputError  # noqa: E402
from gossamer.runtime import native  # noqa: E402
from tests.onnxcases import CONV, check, int64, node, noise, save, weight  # noqa: E402

if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

TO_LAST = node("Transpose", ["a"], ["l"], perm=[0, 2, 3, 1])
TO_FIRST = node("Transpose", ["m"], ["y"], perm=[0, 3, 1, 2])
ROW = weight(8)
LAYER_NORM = [  # as torch's exporter of operator set 13 writes it, on channels last
    node("ReduceMean", ["l"], ["mean"], axes=[-1]),
    node("Sub", ["l", "mean"], ["d"]),
    node("Pow", ["d", "two"], ["d2"]),
    node("ReduceMean", ["d2"], ["v"], axes=[-1]),
    node("Add", ["v", "eps"], ["ve"]),
    node("Sqrt", ["ve"], ["s"]),
    node("Div", ["d", "s"], ["n"]),
    node("Mul", ["n", "g"], ["ng"]),
    node("Add", ["ng", "b"], ["m"]),
]
# name: nodes behind a (N, 8, 6, 6), constants, operator set
CASES: dict[str, tuple[list[Any], dict[str, Any], int]] = {
    "LayerNormalization over the last axis": (
        [TO_LAST, node("LayerNormalization", ["l", "g", "b"], ["m"], epsilon=1e-6), TO_FIRST],
        {"g": 1 + ROW, "b": weight(8)},
        17,
    ),
    "LayerNormalization without a shift, axis counted from the first": (
        [TO_LAST, node("LayerNormalization", ["l", "g"], ["m"], axis=3), TO_FIRST],
        {"g": 1 + ROW},
        18,
    ),
    "LayerNormalization over all of the map": (
        [node("LayerNormalization", ["a", "g"], ["y"], axis=1)],
        {"g": np.full((8, 6, 6), 1.5, np.float32)},
        17,
    ),
    "a layer norm of plain operators": (
        [TO_LAST, *LAYER_NORM, TO_FIRST],
        {"two": np.float32(2), "eps": np.float32(1e-6), "g": 1 + ROW, "b": ROW},
        13,
    ),
    "InstanceNormalization": (
        [node("InstanceNormalization", ["a", "g", "b"], ["y"], epsilon=1e-3)],
        {"g": 1 + ROW, "b": ROW},
        11,
    ),
    "InstanceNormalization of groups (torch's GroupNorm)": (
        [
            node("Reshape", ["a", "grouped"], ["r"]),
            node("InstanceNormalization", ["r", "g", "b"], ["i"]),
            node("Reshape", ["i", "whole"], ["u"]),
            node("Mul", ["u", "scale"], ["s"]),
            node("Add", ["s", "shift"], ["y"]),
        ],
        {
            "grouped": int64(0, 2, -1),
            "whole": int64(-1, 8, 6, 6),
            "g": np.ones(2, np.float32),
            "b": np.zeros(2, np.float32),
            "scale": 1 + weight(8, 1, 1),
            "shift": weight(8, 1, 1),
        },
        13,
    ),
    "GroupNormalization, one number per group": (
        [node("GroupNormalization", ["a", "g", "b"], ["y"], num_groups=4)],
        {"g": 1 + weight(4), "b": weight(4)},
        18,
    ),
    "GroupNormalization, one number per channel": (
        [node("GroupNormalization", ["a", "g", "b"], ["y"], num_groups=2, epsilon=1e-4)],
        {"g": 1 + ROW, "b": ROW},
        21,
    ),
    "LRN": ([node("LRN", ["a"], ["y"], size=5, alpha=0.2, beta=0.75, bias=2.0)], {}, 11),
    "LpNormalization over the channels": ([node("LpNormalization", ["a"], ["y"], axis=1)], {}, 13),
    "LpNormalization by magnitudes": ([TO_LAST, node("LpNormalization", ["l"], ["m"], p=1), TO_FIRST], {}, 13),
    "ECA": (
        [
            node("ReduceMean", ["a"], ["p"], axes=[2, 3], keepdims=0),
            node("Reshape", ["p", "sequence"], ["r"]),
            node("Conv", ["r", "k"], ["c"], kernel_shape=[3], pads=[1, 1], strides=[1], dilations=[1]),
            node("Sigmoid", ["c"], ["s"]),
            node("Reshape", ["s", "map"], ["g"]),
            node("Mul", ["a", "g"], ["y"]),
        ],
        {"sequence": int64(-1, 1, 8), "map": int64(-1, 8, 1, 1), "k": weight(1, 1, 3)},
        13,
    ),
    "ECA by Squeeze, Transpose and Unsqueeze": (
        [
            node("GlobalAveragePool", ["a"], ["p"]),
            node("Squeeze", ["p", "three"], ["q"]),
            node("Transpose", ["q"], ["r"], perm=[0, 2, 1]),
            node("Conv", ["r", "k", "bias"], ["c"], pads=[2, 2], dilations=[2], strides=[1]),
            node("Transpose", ["c"], ["t"], perm=[0, 2, 1]),
            node("Unsqueeze", ["t", "three"], ["u"]),
            node("Mul", ["a", "u"], ["y"]),
        ],
        {"three": int64(3), "k": weight(1, 1, 3), "bias": weight(1)},
        15,
    ),
    "one axis: a depthwise convolution along the columns": (
        [
            node("ReduceMean", ["a"], ["r"], axes=[2], keepdims=0),
            node("Conv", ["r", "k"], ["c"], group=8, pads=[1, 0], strides=[2], kernel_shape=[3]),
            node("Relu", ["c"], ["d"]),
            node("Conv", ["d", "q"], ["e"], pads=[0, 1], dilations=[2]),
            node("Unsqueeze", ["e", "two"], ["y"]),
        ],
        {"k": weight(8, 1, 3), "q": weight(5, 8, 2), "two": int64(2)},
        13,
    ),
    "one axis: along the rows": (
        [
            node("ReduceMean", ["a"], ["r"], axes=[3], keepdims=0),
            node("Conv", ["r", "k"], ["c"], auto_pad="SAME_UPPER"),
            node("Unsqueeze", ["c", "three"], ["y"]),
        ],
        {"k": weight(4, 8, 3), "three": int64(3)},
        13,
    ),
    "numbers per row and per channel, channels last": (
        [
            TO_LAST,
            node("ReduceMax", ["l"], ["r"], axes=[2]),
            node("ReduceMean", ["l"], ["q"], axes=[1, 2]),
            node("Sub", ["l", "r"], ["s"]),
            node("Mul", ["q", "s"], ["t"]),
            node("Div", ["t", "e"], ["m"]),
            TO_FIRST,
        ],
        {"e": np.float32(2)},
        13,
    ),
    "one number per image": (
        [
            node("ReduceMax", ["a"], ["r"], axes=[1, 2, 3]),
            node("Sub", ["a", "r"], ["s"]),
            node("Mul", ["r", "s"], ["y"]),
        ],
        {},
        13,
    ),
    "rows by columns": (
        [
            node("ReduceMean", ["a"], ["r"], axes=[1, 3]),
            node("ReduceMean", ["a"], ["q"], axes=[2]),
            node("Mul", ["r", "q"], ["s"]),
            node("Add", ["q", "r"], ["t"]),
            node("Add", ["s", "t"], ["y"]),
        ],
        {},
        13,
    ),
    "ReduceProd over channels, rows and columns": (
        [
            node("ReduceProd", ["a"], ["c"], axes=[1]),
            node("ReduceProd", ["a"], ["rows"], axes=[2]),
            node("ReduceProd", ["a"], ["columns"], axes=[-1]),
            node("Add", ["rows", "columns"], ["hw"]),
            node("Add", ["c", "hw"], ["y"]),
        ],
        {},
        13,
    ),
    "a power that is no integer": (
        [
            node("Relu", ["a"], ["r"]),
            node("Pow", ["r", "e"], ["p"]),
            node("Pow", ["r", "f"], ["q"]),
            node("Add", ["p", "q"], ["y"]),
        ],
        {"e": np.float32(1 / 3), "f": np.float32(2.5)},
        13,
    ),
    "half_pixel_symmetric": (
        [
            node("Resize", ["a", "", "s"], ["y"], mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
        ],
        {"s": np.array([1, 1, 1.3, 0.7], np.float32)},
        19,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_form_agrees_with_onnx_runtime(case: str, tmp_path: Path) -> None:
    nodes, constants, opset = CASES[case]
    check(save(tmp_path / "m.onnx", [*CONV, *nodes], constants, opset=opset), noise((2, 3, 8, 8)), 2e-5)


def test_local_response_of_an_even_size_has_one_more_neighbour_behind(tmp_path: Path) -> None:
    """By the specification; ONNX Runtime does not take one."""
    path, x = save(tmp_path / "m.onnx", [node("LRN", ["x"], ["y"], size=2, alpha=1.0, beta=0.5)]), noise((2, 3, 8, 8))
    compile_file(path, tmp_path / "m.goss")
    squares = x * x
    squares[:, :-1] += x[:, 1:] ** 2
    outputs: Any = native.Native(tmp_path / "m.goss", 1)(x)
    assert np.abs(outputs - x / np.sqrt(1 + squares / 2)).max() < 1e-5


REFUSED: dict[str, tuple[list[Any], dict[str, Any], int, str]] = {
    "over height and width": (
        [node("LayerNormalization", ["a", "g"], ["y"], axis=2)],
        {"g": np.ones((6, 6), np.float32)},
        17,
        "neither the channels nor all of the map",
    ),
    "a deviation as an output": (
        [TO_LAST, node("LayerNormalization", ["l", "g"], ["m", "", "s"]), TO_FIRST],
        {"g": ROW},
        17,
        "mean or deviation as an output",
    ),
    "groups that do not divide": (
        [node("GroupNormalization", ["a", "g", "g"], ["y"], num_groups=3)],
        {"g": weight(3)},
        18,
        "3 groups of 8 channels",
    ),
    "a norm along the columns": ([node("LpNormalization", ["a"], ["y"], axis=3)], {}, 13, "other than the channels"),
    "a bias of 0": ([node("LRN", ["a"], ["y"], size=3, bias=0.0)], {}, 13, "a bias of 0"),
    "one axis over a map": (
        [node("Conv", ["a", "k"], ["y"])],
        {"k": weight(4, 8, 3)},
        13,
        "a map of one row or column",
    ),
    "numbers of one axis": (
        [node("Conv", ["a", "k"], ["y"], strides=[2])],
        {"k": weight(4, 8, 3, 3)},
        13,
        "strides is not 2 numbers",
    ),
    "pads of one axis for a map": (
        [node("Conv", ["a", "k"], ["y"], pads=[1, 1])],
        {"k": weight(4, 8, 3, 3)},
        13,
        "pads is not 4",
    ),
    "strides of two axes for a sequence": (
        [node("ReduceMean", ["a"], ["r"], axes=[2], keepdims=0), node("Conv", ["r", "k"], ["y"], strides=[1, 1])],
        {"k": weight(4, 8, 3)},
        13,
        "strides is not 1 number",
    ),
    "a kernel of more than 64 places along the channels": (
        [
            node("ReduceMean", ["a"], ["p"], axes=[2, 3], keepdims=0),
            node("Reshape", ["p", "sequence"], ["r"]),
            node("Conv", ["r", "k"], ["y"], pads=[32, 32]),
        ],
        {"sequence": int64(-1, 1, 8), "k": weight(1, 1, 65)},
        13,
        "outside what the engine has",
    ),
    "rows by the batch": (
        [node("Mul", ["a", "r"], ["y"])],
        {"r": weight(8, 6, 6)},
        13,
        "neither one number nor one per",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_form_is_refused_by_name(case: str, tmp_path: Path) -> None:
    nodes, constants, opset, why = REFUSED[case]
    path = save(tmp_path / "m.onnx", [*CONV, *nodes], constants, opset=opset)
    with pytest.raises(InputError, match=why):
        compile_file(path, tmp_path / "m.goss")

"""Maps that others read too: nodes that leave them as they are, constants of more places, sums of parts that come later."""

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
from tests.onnxcases import CONV, check, expected, int64, node, noise, save, weight  # noqa: E402

if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

KERNELS = {"k1": weight(8, 8, 1, 1), "j1": weight(4, 8, 1, 1), "k6": weight(8, 8, 6, 6)}
ONE = [*CONV, node("Conv", ["a", "k6"], ["c"])]  # to (N, 8, 1, 1)
# nodes that make "r" of "c" and change no number of it
NOTHING: dict[str, Any] = {
    **{f"{op} of one position": node(op, ["c"], ["r"], axes=[2, 3]) for op in ("ReduceMax", "ReduceMin", "ReduceMean")},
    "ReduceProd of one position": node("ReduceProd", ["c"], ["r"], axes=[2, 3]),
    "ReduceSum of one position": node("ReduceSum", ["c", "both"], ["r"]),
    "ReduceMean of one row": node("ReduceMean", ["c"], ["r"], axes=[2]),
    "ReduceMean of one column": node("ReduceMean", ["c"], ["r"], axes=[3]),
    "padding by nothing": node("Pad", ["c", "eight"], ["r"]),
    "another name": node("Identity", ["c"], ["r"]),
}
REST = [node("Relu", ["r"], ["s"]), node("Sigmoid", ["c"], ["t"]), node("Add", ["s", "t"], ["y"])]


@pytest.mark.parametrize("case", NOTHING)
def test_an_activation_behind_such_a_node_is_of_its_output_alone(case: str, tmp_path: Path) -> None:
    constants = {**KERNELS, "both": int64(2, 3), "eight": int64(*[0] * 8)}
    check(save(tmp_path / "m.onnx", [*ONE, NOTHING[case], *REST], constants, opset=13), noise((2, 3, 8, 8)))


LATER: dict[str, list[Any]] = {
    "side by side": [node("Concat", ["p", "q"], ["l"], axis=1)],
    "a part": [
        node("Concat", ["p", "q", "p"], ["o"], axis=1),
        node("Split", ["o", "eights"], ["l", "rest"], axis=1),
        node("Relu", ["rest"], ["z"]),
    ],
}


@pytest.mark.parametrize("case", LATER)
@pytest.mark.parametrize("first", [True, False])
def test_a_sum_with_parts_that_are_computed_later(case: str, first: bool, tmp_path: Path) -> None:
    parts = [
        node("Conv", ["a", "j1"], ["d"]),
        node("Relu", ["d"], ["p"]),
        node("Tanh", ["d"], ["q"]),
        *LATER[case],
        node("Add", ["c", "l"] if first else ["l", "c"], ["y"]),
    ]
    nodes = [*CONV, node("Conv", ["a", "k1"], ["c"]), *parts]
    check(save(tmp_path / "m.onnx", nodes, {**KERNELS, "eights": int64(8, 4)}, opset=13), noise((2, 3, 8, 8)))


LARGER = {
    "ones, by whom a map of one position is repeated": ("Mul", np.ones((1, 1, 6, 6), np.float32)),
    "zeros of fewer axes": ("Add", np.zeros((6, 6), np.float32)),
    "the larger of": ("Max", np.zeros((1, 8, 6, 6), np.float32)),
    "several images": ("Add", np.ones((2, 8, 1, 1), np.float32)),
}


@pytest.mark.parametrize("case", LARGER)
def test_a_constant_of_more_places_than_the_map_is_refused(case: str, tmp_path: Path) -> None:
    op, constant = LARGER[case]
    path = save(tmp_path / "m.onnx", [*ONE, node(op, ["c", "o"], ["y"])], {**KERNELS, "o": constant})
    with pytest.raises(InputError, match="neither one number nor one per channel"):
        compile_file(path, tmp_path / "m.goss")
    assert not (tmp_path / "m.goss").exists()


def test_a_group_norm_of_rows_gives_rows(tmp_path: Path) -> None:
    nodes = [*ONE, node("Flatten", ["c"], ["f"]), node("GroupNormalization", ["f", "g", "g"], ["y"], num_groups=2)]
    path = save(tmp_path / "m.onnx", nodes, {**KERNELS, "g": weight(8)}, opset=21, rank=2)
    check(path, noise((2, 3, 8, 8)), 2e-5)


def test_a_group_with_nan_leaves_the_others(tmp_path: Path) -> None:
    nodes = [node("Mul", ["x", "two"], ["a"]), node("GroupNormalization", ["a", "g", "g"], ["y"], num_groups=4)]
    constants = {"two": np.float32(2), "g": 1 + weight(8)}
    path, x = save(tmp_path / "m.onnx", nodes, constants, ("N", 8, 4, 4), opset=21), noise((2, 8, 4, 4))
    x[0, 2, 1, 1] = np.nan
    compile_file(path, tmp_path / "m.goss")
    outputs: Any = native.Native(tmp_path / "m.goss", 1)(x)
    assert np.isnan(outputs[0, 2:4]).all() and np.isnan(outputs).sum() == 2 * 16
    np.testing.assert_allclose(outputs, expected(path, x)["y"], atol=2e-5)


def test_a_layer_norm_of_a_long_row_and_norms_of_too_many_channels(tmp_path: Path) -> None:
    row = {"g": np.ones(2**12, np.float32), "two": np.float32(2)}
    double = node("Mul", ["x", "two"], ["a"])
    nodes = [double, node("LayerNormalization", ["a", "g"], ["y"])]
    check(save(tmp_path / "m.onnx", nodes, row, ("N", 2**12), rank=2), noise((2, 2**12)), 2e-5)
    many = {"g": np.ones(1, np.float32), "two": np.float32(2)}
    grouped = node("GroupNormalization", ["a", "g", "g"], ["y"], num_groups=1)
    for norm in (grouped, node("LRN", ["a"], ["y"], size=3)):
        path = save(tmp_path / "m.onnx", [double, norm], many, ("N", 2**16, 1, 1), opset=18)
        with pytest.raises(InputError, match="65536 channels"):
            compile_file(path, tmp_path / "m.goss")

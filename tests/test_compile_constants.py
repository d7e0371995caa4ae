"""What the compile step knows before anything runs: constants of constants, types of attributes, types of maps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.compile import attributes
from gossamer.compile.bfloat16 import convert_to_bfloat16
from gossamer.compile.lower import lower
from gossamer.compile.program import Program
from gossamer.errors import InputError
from gossamer.modelfile.metadata import parse_model_file

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.onnxcases import CONV, ROW, node, save, weight


def lowered(path: Path) -> Program:
    return lower(parse_model_file(path.read_bytes()).onnx)


@pytest.mark.parametrize("columns", [5, 8200])
@pytest.mark.parametrize(
    ("shape", "nodes"),
    [
        ((), [node("Unsqueeze", ["k"], ["m"], axes=[0]), node("Squeeze", ["m"], ["g"], axes=[0])]),
        ((1,), [node("Squeeze", ["k"], ["g"], axes=[-3])]),
        ((1, 1), [node("Squeeze", ["k"], ["m"], axes=[1, 0]), node("Identity", ["m"], ["g"])]),
    ],
)
def test_axes_of_a_constant_may_be_an_attribute(
    shape: tuple[int, ...], nodes: list[Any], columns: int, tmp_path: Path
) -> None:
    """Before operator set 13: of constants of any size, of few numbers those of sides are computed."""
    stored = weight(8, columns)
    nodes = [*nodes, *ROW, node("Gemm", ["b", "g"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, {"k": stored.reshape(*shape, 8, columns)}, opset=11, rank=2)
    layer = lowered(path).operations[-1].weights[0]
    assert layer is not None and layer.weight.shape[0] == columns
    np.testing.assert_array_equal(layer.weight.reshape(columns, 8), stored.T)


@pytest.mark.parametrize("columns", [5, 8200])
def test_axes_that_a_constant_does_not_have_are_refused(columns: int, tmp_path: Path) -> None:
    nodes = [node("Squeeze", ["k"], ["g"], axes=[0]), *ROW, node("Gemm", ["b", "g"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, {"k": weight(8, columns)}, opset=11, rank=2)
    with pytest.raises(InputError, match=r"operator Squeeze.*cannot be computed"):
        lowered(path)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("an integer", (0, -3, True), (1.0, b"1", [1], None)),
        ("0 or 1", (0, 1), (2, -1, 1.0, b"1", [1])),
        ("integers", ([], [1, -2]), (1, [1.0], [1, b"2"], (1,))),
        ("numbers", ([], [1.0, -math.inf]), (1.0, [1], [1.0, math.nan], (1.0,))),
        ("a number", (1.0, -math.inf), (1, math.nan, b"1", [1.0])),
        ("a text", (b"", b"linear"), ("linear", b"\xff", 1, [b"a"], None)),
    ],
)
def test_an_attribute_is_of_the_type_of_its_name(kind: str, good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    assert kind in attributes.KIND.values()
    assert [attributes._is(kind, value) for value in (*good, *bad)] == [True] * len(good) + [False] * len(bad)


def test_an_output_stays_float32_in_a_bfloat16_program_and_so_do_weights_that_meet_it(tmp_path: Path) -> None:
    nodes = [*CONV, node("Conv", ["a", "v"], ["y"]), node("Conv", ["y", "v"], ["z"])]
    path = save(tmp_path / "m.onnx", nodes, {"v": weight(8, 8, 1, 1)}, outputs=("y", "z"))
    program = convert_to_bfloat16(lowered(path))
    types = [program.values[value].type for one in program.operations for value in (one.input, one.out)]
    assert types == ["bfloat16", "bfloat16", "bfloat16", "float32", "float32", "float32"]
    layers = [one.weights[0] for one in program.operations]
    assert [layer.type for layer in layers if layer is not None] == ["bfloat16", "bfloat16", "float32"]
    assert all(layer.bias.dtype == np.float32 for layer in layers if layer is not None)


@pytest.mark.parametrize(
    ("groups", "kinds"),
    [
        (1, ("conv", 0, 1, 1)),
        (3, ("block", 3, 1, 3)),
    ],
)
def test_a_convolution_of_one_channel_a_group_is_a_block(
    groups: int, kinds: tuple[str, int, int, int], tmp_path: Path
) -> None:
    nodes = [node("Conv", ["x", "v"], ["y"], group=groups)]
    (one,) = lowered(save(tmp_path / "m.onnx", nodes, {"v": weight(3, 3 // groups, 3, 3)})).operations
    assert (one.kind, one.mid, one.groups, len(one.weights)) == kinds

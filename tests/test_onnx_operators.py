"""Operators of other exporters that become operations of the engine, each beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.compile.write import compile_file
from gossamer.errors import InputError
from gossamer.runtime import native

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)
from tests.onnxcases import CONV, INPUT, ROW, check, int64, node, noise, refused, save, weight

EVERY_ROW = weight(8, 1, 1)
SCALAR = {"k": np.float32(0.3), "two": np.float32(2), "six": np.float32(6), "zero": np.float32(0)}

# nodes behind a map a (N, 8, 6, 6), or a row b (N, 8); constants; rank of the output
Case = tuple[list[Any], dict[str, Any], int]


def on_map(*nodes: Any, rank: int = 4, **constants: Any) -> Case:
    return [*CONV, *nodes], constants, rank


def on_row(*nodes: Any, **constants: Any) -> Case:
    return [*ROW, *nodes], constants, 2


def behind_relu(op: str, *names: str) -> Case:
    return on_map(node("Relu", ["a"], ["r"]), node("Neg", ["a"], ["n"]), node(op, list(names), ["y"]), **SCALAR)


CASES: dict[str, Case] = {
    "Min as relu6": on_map(node("Relu", ["a"], ["b"]), node("Min", ["b", "six"], ["y"]), **SCALAR),
    "Min with the number first": on_map(node("Min", ["six", "a"], ["y"]), **SCALAR),
    "Max as relu": on_map(node("Max", ["a", "zero"], ["y"]), **SCALAR),
    "Max of one": on_map(node("Max", ["a"], ["y"])),
    "Max of two maps": behind_relu("Max", "r", "n"),
    "Min of two maps": behind_relu("Min", "n", "r"),
    "Max of maps and a number": behind_relu("Max", "a", "k", "n"),
    "Max with a row": on_map(node("Max", ["a", "row"], ["y"]), row=EVERY_ROW),
    "Min with a row": on_map(node("Min", ["row", "a"], ["y"]), row=EVERY_ROW),
    "Max with a row of no bounds": on_map(node("Max", ["a", "row"], ["y"]), row=np.full((8, 1, 1), -3e38, np.float32)),
    "Min with a row of one number": on_map(node("Min", ["row", "a"], ["y"]), row=np.full((8, 1, 1), 0.2, np.float32)),
    "CastLike of a number": on_map(node("CastLike", ["a", "k"], ["y"]), **SCALAR),
    "CastLike of a map": on_map(node("Relu", ["a"], ["r"]), node("CastLike", ["a", "r"], ["y"])),
    "Mean": behind_relu("Mean", "a", "r", "n"),
    "Sum": behind_relu("Sum", "a", "r", "n"),
    "Abs": on_map(node("Abs", ["a"], ["y"])),
    "Neg": on_map(node("Neg", ["a"], ["y"])),
    "Exp": on_map(node("Exp", ["a"], ["y"])),
    "Log": on_map(node("Abs", ["a"], ["b"]), node("Log", ["b"], ["y"])),
    "Sqrt": on_map(node("Relu", ["a"], ["b"]), node("Sqrt", ["b"], ["y"])),
    "Reciprocal": on_map(node("Exp", ["a"], ["b"]), node("Reciprocal", ["b"], ["y"])),
    "Erf": on_map(node("Erf", ["a"], ["y"])),
    "GELU as PyTorch writes it": on_map(
        node("Div", ["a", "root"], ["b"]),
        node("Erf", ["b"], ["c"]),
        node("Add", ["c", "one"], ["d"]),
        node("Mul", ["a", "d"], ["e"]),
        node("Mul", ["e", "half"], ["y"]),
        root=np.float32(2**0.5),
        one=np.float32(1),
        half=np.float32(0.5),
    ),
    "Elu": on_map(node("Elu", ["a"], ["y"])),
    "Elu with alpha": on_map(node("Elu", ["a"], ["y"], alpha=0.3)),
    "Selu": on_map(node("Selu", ["a"], ["y"])),
    "Celu": on_map(node("Celu", ["a"], ["y"], alpha=2.0)),
    "Softplus": on_map(node("Softplus", ["a"], ["y"])),
    "Softsign": on_map(node("Softsign", ["a"], ["y"])),
    "Mish spelt out": on_map(
        node("Softplus", ["a"], ["b"]), node("Tanh", ["b"], ["c"]), node("Mul", ["a", "c"], ["y"])
    ),
    "HardSigmoid": on_map(node("HardSigmoid", ["a"], ["y"], alpha=0.2, beta=0.4)),
    "Pow 2": on_map(node("Pow", ["a", "two"], ["y"]), **SCALAR),
    "Pow of an integer": on_map(node("Pow", ["a", "e"], ["y"]), e=np.array(5, np.int64)),
    "Pow 1": on_map(node("Pow", ["a", "e"], ["y"]), e=np.float32(1)),
    "Pow -1": on_map(node("Exp", ["a"], ["b"]), node("Pow", ["b", "e"], ["y"]), e=np.float32(-1)),
    "Pow of a half": on_map(node("Exp", ["a"], ["b"]), node("Pow", ["b", "e"], ["y"]), e=np.float32(0.5)),
    "Pow of a half below": on_map(node("Exp", ["a"], ["b"]), node("Pow", ["b", "e"], ["y"]), e=np.float32(-0.5)),
    "Sub of two maps": behind_relu("Sub", "r", "n"),
    "Sub of a number per channel": on_map(node("GlobalAveragePool", ["a"], ["p"]), node("Sub", ["a", "p"], ["y"])),
    "Div of two maps": on_map(node("Exp", ["a"], ["b"]), node("Div", ["a", "b"], ["y"])),
    "Div of a number": on_map(node("Exp", ["a"], ["b"]), node("Div", ["k", "b"], ["y"]), **SCALAR),
    "Cast to what it is": on_map(node("Cast", ["a"], ["b"], to=1), node("Relu", ["b"], ["y"])),
    "LogSoftmax": on_map(node("LogSoftmax", ["a"], ["y"], axis=-3)),
    "LogSoftmax of a row": on_row(node("LogSoftmax", ["b"], ["y"], axis=1)),
    "LogSoftmax of large numbers": on_row(
        node("Mul", ["b", "large"], ["c"]), node("LogSoftmax", ["c"], ["y"]), large=np.float32(1e4)
    ),
    "Gemm with alpha and beta": on_row(
        node("Gemm", ["b", "g", "c"], ["y"], alpha=0.5, beta=2.0), g=weight(8, 5), c=weight(5)
    ),
    "Dropout": on_map(node("Dropout", ["a", "k", "no"], ["y"]), no=np.array(False), **SCALAR),
    "L2 normalisation": on_row(
        node("ReduceL2", ["b"], ["n"], axes=[1], keepdims=1),
        node("Clip", ["n", "least"], ["m"]),
        node("Shape", ["b"], ["s"]),
        node("Expand", ["m", "s"], ["e"]),
        node("Div", ["b", "e"], ["y"]),
        least=np.float32(1e-12),
    ),
    "L2 normalisation of each position": on_map(
        node("ReduceL2", ["a"], ["n"], axes=[-3], keepdims=1), node("Div", ["a", "n"], ["y"])
    ),
    "Expand to a map": on_map(
        node("GlobalAveragePool", ["a"], ["p"]),
        node("Shape", ["a"], ["s"]),
        node("Expand", ["p", "s"], ["e"]),
        node("Add", ["e", "a"], ["y"]),
    ),
    "Gather of channels": on_map(node("Gather", ["a", "at"], ["y"], axis=-3), at=int64(7, 0, 1, 2, -1)),
    "Gather of rows": on_map(node("Gather", ["a", "at"], ["y"], axis=-2), at=int64(-1, 0, 3)),
    "Gather of one place": on_map(node("Gather", ["a", "at"], ["y"], axis=1), rank=3, at=np.array(2, np.int64)),
    "Gather of a row": on_row(node("Gather", ["b", "at"], ["y"], axis=-1), at=int64(7, 0, 1)),
    "channels turned around": on_map(
        node("Slice", ["a", "from", "to", "axis", "step"], ["y"]),
        **{"from": int64(-1), "to": int64(-9), "axis": int64(1), "step": int64(-1)},
    ),
    "every second channel": on_map(
        node("Slice", ["a", "from", "to", "axis", "step"], ["y"]),
        **{"from": int64(1), "to": int64(8), "axis": int64(-3), "step": int64(2)},
    ),
    "SpaceToDepth 2": on_map(node("SpaceToDepth", ["a"], ["y"], blocksize=2)),
    "SpaceToDepth 3": on_map(node("SpaceToDepth", ["a"], ["y"], blocksize=3)),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_agrees_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    nodes, constants, rank = CASES[name]
    check(save(tmp_path / "m.onnx", nodes, constants, rank=rank), noise(INPUT))


AXES = ((2, 3), (1,), (2,), (-1,), (1, 2, 3), (-3, -1), (3, 1))
REDUCTIONS = [(op, axes, 1) for op in ("Mean", "Max", "Min", "Sum", "L1", "L2", "SumSquare", "LogSum") for axes in AXES]
REDUCTIONS += [(op, axes, 0) for op in ("Mean", "Max") for axes in AXES if len(axes) < 3]


@pytest.mark.parametrize(("op", "axes", "keepdims"), REDUCTIONS)
def test_a_reduction_agrees_with_onnx_runtime(op: str, axes: tuple[int, ...], keepdims: int, tmp_path: Path) -> None:
    """The axes are an attribute, or, of a sum, an input."""
    more: dict[str, Any] = {"axes": list(axes)} if op != "Sum" else {}
    reads = ["a", "axes"] if op == "Sum" else ["a"]
    before = [*CONV[:-1], node("Conv", ["x", "w"], ["c"]), node("Exp", ["c"], ["a"])] if op == "LogSum" else CONV
    nodes = [*before, node(f"Reduce{op}", reads, ["y"], keepdims=keepdims, **more)]
    rank = 4 if keepdims else 4 - len(axes)
    check(save(tmp_path / "m.onnx", nodes, {"axes": int64(*axes)}, rank=rank), noise(INPUT), 1e-4)


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("op", ["Elu", "Softplus", "Softsign", "Exp", "LogSoftmax"])
def test_large_numbers_agree_with_onnx_runtime(op: str, scale: float, tmp_path: Path) -> None:
    nodes = [node(op, ["x"], ["y"], **({"axis": 1} if op == "LogSoftmax" else {}))]
    x = noise(INPUT) * np.float32(scale)
    x = np.clip(x, -400, 80) if op == "Exp" else x
    check(save(tmp_path / "m.onnx", nodes), x)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 50.0])
@pytest.mark.parametrize("kind", ["none", "tanh"])
def test_gelu_answers_as_onnx_runtime(kind: str, scale: float, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [node("Gelu", ["x"], ["y"], approximate=kind)], opset=20)
    check(path, noise(INPUT) * np.float32(scale))


ONE = (1, *INPUT[1:])
FLAT = node("Reshape", ["a", "all"], ["r"])


@pytest.mark.parametrize("sides", [(1, 8, 6, 6), (1, 288), (1, 8, 36), (1, 2, 4, 6, 6)])
def test_all_numbers_in_their_order_by_gather_are_a_reshape(sides: tuple[int, ...], tmp_path: Path) -> None:
    """As torch's exporter writes `as_strided`, two readers of it included."""
    places = np.arange(288).reshape(sides)
    nodes = [*CONV, FLAT, node("Gather", ["r", "at"], ["g"]), node("Gather", ["r", "at"], ["h"])]
    nodes += [node("Relu", ["g"], ["p"]), node("Add", ["p", "h"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, {"all": int64(-1), "at": places}, ONE, rank=len(sides))
    check(path, noise(ONE))


@pytest.mark.parametrize(
    "shape, places",
    [
        (ONE, np.arange(288)[::-1].reshape(1, 8, 6, 6)),
        (ONE, np.arange(252).reshape(1, 7, 6, 6)),
        (ONE, np.arange(288).reshape(8, 1, 6, 6)),
        (INPUT, np.arange(288).reshape(1, 8, 6, 6)),
        ((2, *INPUT[1:]), np.arange(576).reshape(2, 8, 6, 6)),
    ],
)
def test_other_numbers_by_gather_are_refused(shape: Any, places: Any, tmp_path: Path) -> None:
    nodes = [*CONV, FLAT, node("Gather", ["r", "at"], ["y"])]
    refused(save(tmp_path / "m.onnx", nodes, {"all": int64(-1), "at": places}, shape), "mixes axes or the batch")


def test_mish_is_an_operator_from_18_on(tmp_path: Path) -> None:
    check(save(tmp_path / "m.onnx", [*CONV, node("Mish", ["a"], ["y"])], opset=18), noise(INPUT))


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_logarithm_of_sums_in_other_operator_sets(opset: int, keepdims: int, tmp_path: Path) -> None:
    """Its axes are an input from 18 on; those of a sum from 13."""
    axes: dict[str, Any] = {"axes": [2, 3]} if opset < 18 else {}
    reads = ["e"] if opset < 18 else ["e", "axes"]
    nodes = [*CONV, node("Exp", ["a"], ["e"]), node("ReduceLogSum", reads, ["y"], keepdims=keepdims, **axes)]
    path = save(tmp_path / "m.onnx", nodes, {"axes": int64(2, 3)}, opset=opset, rank=4 if keepdims else 2)
    check(path, noise(INPUT))


@pytest.mark.parametrize("more", [{}, {"alpha": 1.5}, {"alpha": -0.25}])
def test_swish_is_an_operator_from_24_on(more: dict[str, float], tmp_path: Path) -> None:
    check(save(tmp_path / "m.onnx", [*CONV, node("Swish", ["a"], ["y"], **more)], opset=24), noise(INPUT))


@pytest.mark.parametrize("scales", [(2.0, 2.0), (1.5, 3.0), (0.4, 0.6)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_of_operator_set_10_agrees_with_onnx_runtime(
    mode: str, scales: tuple[float, float], tmp_path: Path
) -> None:
    factors = np.array([1, 1, *scales], np.float32)
    nodes = [*CONV, node("Resize", ["a", "s"], ["y"], mode=mode)]
    check(save(tmp_path / "m.onnx", nodes, {"s": factors}, opset=10), noise(INPUT))


@pytest.mark.parametrize("opset", [8, 9])
def test_upsample_agrees_with_onnx_runtime(opset: int, tmp_path: Path) -> None:
    """Its scales were an attribute before operator set 9."""
    factors = [1.0, 1.0, 2.0, 3.0]
    last = node("Upsample", ["a"], ["y"], scales=factors) if opset < 9 else node("Upsample", ["a", "s"], ["y"])
    path = save(tmp_path / "m.onnx", [*CONV, last], {"s": np.array(factors, np.float32)}, opset=opset)
    check(path, noise(INPUT))


REFUSED: dict[str, tuple[Case, str]] = {
    "Pow of a map": (on_map(node("Pow", ["a", "a"], ["y"])), "not constant"),
    "Cast to integers": (on_map(node("Cast", ["a"], ["b"], to=7), node("Cast", ["b"], ["y"], to=1)), "float32"),
    "Dropout that trains": (on_map(node("Dropout", ["a", "k", "yes"], ["y"]), yes=np.array(True), **SCALAR), "true"),
    "Gather of the batch": (on_map(node("Gather", ["a", "at"], ["y"], axis=0), at=int64(0)), "the batch"),
    "Gather out of range": (on_map(node("Gather", ["a", "at"], ["y"], axis=1), at=int64(8)), "do not have"),
    "a maximum with a row of large numbers": (
        on_map(node("Max", ["a", "row"], ["y"]), row=np.linspace(-1e6, 1, 8, dtype=np.float32).reshape(8, 1, 1)),
        "beyond 1000",
    ),
    "CastLike of integers": (on_map(node("CastLike", ["a", "e"], ["y"]), e=int64(1)), "not float32"),
    "a maximum of two sizes": (
        on_map(node("GlobalAveragePool", ["a"], ["p"]), node("Max", ["a", "p"], ["y"])),
        "two sizes",
    ),
    "a mean of the batch": (on_map(node("ReduceMean", ["a"], ["y"], axes=[0])), "axes that are not"),
    "a logarithm of sums over columns": (
        on_map(node("ReduceLogSumExp", ["a"], ["y"], axes=[3])),
        "other than the channels",
    ),
    "HardMax": (on_map(node("Hardmax", ["a"], ["y"])), "no such operator"),
    "LogSoftmax of columns": (on_map(node("LogSoftmax", ["a"], ["y"], axis=-1)), "other than the channels"),
    "Expand of the batch": (on_map(node("Expand", ["a", "s"], ["y"]), s=int64(4, 1, 1, 1)), "batch made larger"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_engine_lacks_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (nodes, constants, rank), message = REFUSED[name]
    path = save(tmp_path / "m.onnx", nodes, constants, rank=rank)
    with pytest.raises(InputError, match=message) as caught:
        compile_file(path, tmp_path / "m.goss")
    assert nodes[-1].op_type in str(caught.value) or "Cast" in str(caught.value)
    assert not (tmp_path / "m.goss").exists()

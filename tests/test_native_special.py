"""Elementwise operators over special numbers: zeros of both signs, infinities, NaN, the largest and smallest of float32.

The engine on each ISA, and the operators in plain numpy, beside ONNX Runtime.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gossamer.compile.write import compile_file
from gossamer.errors import InputError
from gossamer.modelfile.onnx import parse_onnx
from gossamer.operators import OPERATORS
from gossamer.runtime import native

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)
from tests.isas import ISAS
from tests.onnxcases import expected, node, save
from tests.runs import with_isa

Array = NDArray[np.float32]
INF, NAN, LARGEST = float("inf"), float("nan"), float(np.finfo(np.float32).max)
# numbers and the same below zero; those below the normal ones are none, as one over them is infinite
ABOVE = [0.0, 0.5, 1, 2, 3, 5, 7, 20, 86.9, 88, 88.5, 88.72, 88.8, 100, 104, 1e-38 * 2, 1e-20, 1e20, 1e38, LARGEST, INF]
NUMBERS = np.array([*ABOVE, *[-one for one in ABOVE], NAN], np.float32)
CHANNELS = 12  # more than a vector holds on some ISAs, and no multiple of it
ONES = np.ones((CHANNELS, 1, 1, 1), np.float32)

PLAIN = (
    "Abs Celu Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Log Mish Neg Reciprocal Relu Selu Sigmoid Softplus Softsign "
    "Sqrt Tanh ThresholdedRelu"
).split()
WITH: list[tuple[str, dict[str, Any]]] = [
    ("Gelu", {"approximate": "tanh"}),
    ("Elu", {"alpha": 0.3}),
    ("Celu", {"alpha": 2.0}),
    ("Selu", {"alpha": 1.0, "gamma": 2.0}),
    ("LeakyRelu", {"alpha": -0.5}),
    ("LeakyRelu", {"alpha": 2.0}),
    ("ThresholdedRelu", {"alpha": -2.0}),
    ("ThresholdedRelu", {"alpha": 5.0}),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
]
FUSED = "HardSigmoid HardSwish LeakyRelu Relu Sigmoid Tanh".split()  # as the last layer of a depthwise convolution
POWERS = [1, 2, 3, 4, 5, 16, -1, -2, -3, 0.5, -0.5, 1 / 3, -1 / 3, 1.5, -1.5, 2.5, 0.25, 0.001, 15.5]
EDGES = [0.0, -0.0, 1, -2, 1e38, LARGEST, -LARGEST, INF, -INF]
CLIPS = [(0, 6), (0, INF), (-INF, 0), (-1, 1), (-INF, INF), (INF, INF), (-INF, -INF), (0, LARGEST), (-LARGEST, INF)]


def _constant(values: dict[str, Any], number: float) -> str:
    values[f"k{len(values)}"] = np.float32(number)
    return f"k{len(values) - 1}"


def _cases() -> tuple[list[Any], dict[str, Any], list[str]]:
    """Nodes that read x, constants, and a name for what each case makes."""
    nodes: list[Any] = []
    values: dict[str, Any] = {"ones": ONES}
    names: list[str] = []

    def case(name: str, op: str, *inputs: str, **attributes: Any) -> None:
        nodes.append(node(op, inputs, [name], **attributes))
        names.append(name)

    for op in PLAIN:
        case(op, op, "x")
    for op, attributes in WITH:
        case(f"{op} {attributes}", op, "x", **attributes)
    nodes.append(node("Sigmoid", ["x"], ["gate"]))
    case("x * sigmoid(x)", "Mul", "x", "gate")
    for op in FUSED:
        nodes.append(node("Conv", ["x", "ones"], [f"conv {op}"], group=CHANNELS))
        case(f"{op} behind a layer", op, f"conv {op}")
    for power in POWERS:
        case(f"x ** {power:.3g}", "Pow", "x", _constant(values, power))
    nodes.append(node("Relu", ["x"], ["from zero"]))
    for power in (1 / 3, -0.5):
        case(f"relu(x) ** {power:.3g}", "Pow", "from zero", _constant(values, power))
    for low, high in CLIPS:
        case(f"Clip {low:g} {high:g}", "Clip", "x", _constant(values, low), _constant(values, high))
    for number in EDGES:
        for op in ("Add", "Sub", "Mul", "Max", "Min", *(["Div"] if number else [])):
            case(f"{op} of x and {number:g}", op, "x", _constant(values, number))
        for op in ("Sub", "Div"):
            case(f"{op} of {number:g} and x", op, _constant(values, number), "x")
    return nodes, values, names


def _pairs() -> tuple[list[Any], dict[str, Any], list[str]]:
    ops = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum")
    nodes = [node("Split", ["x", "parts"], ["a", "b"], axis=1)]
    nodes += [node(op, ["a", "b"], [op]) for op in ops]
    nodes += [node("Max", ["a", "b", "x1", "a"], ["Max of four"]), node("Min", ["b", "x1", "a"], ["Min of three"])]
    nodes.insert(1, node("Neg", ["a"], ["x1"]))
    return nodes, {"parts": np.array([1, 1], np.int64)}, [*ops, "Max of four", "Min of three"]


def numbers() -> Array:
    return np.tile(NUMBERS.reshape(1, 1, 1, -1), (1, CHANNELS, 1, 1)).copy()


def pairs() -> Array:
    both = np.stack(np.meshgrid(NUMBERS, NUMBERS))
    return np.ascontiguousarray(both[None], np.float32)


MOST = 60  # outputs of a file


@functools.cache
def files(folder: Path) -> list[tuple[Path, Array, dict[str, Any]]]:
    """Compiled files, what they read, and what ONNX Runtime gives."""
    written = []
    for make, x in ((_cases, numbers()), (_pairs, pairs())):
        nodes, values, names = make()
        for start in range(0, len(names), MOST):
            wanted = names[start : start + MOST]
            path = folder / f"{len(written)}.onnx"
            needed = _needed(nodes, wanted)
            save(path, needed, values, ("N", *x.shape[1:]), wanted, opset=20)
            written.append((compile_file(path, path.with_suffix(".goss")), x, expected(path, x)))
    return written


def _needed(nodes: list[Any], names: list[str]) -> list[Any]:
    """The nodes that make these names, in their order."""
    wanted = set(names)
    for one in reversed(nodes):
        if wanted.intersection(one.output):
            wanted.update(one.input)
    return [one for one in nodes if wanted.intersection(one.output)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("special")


def wrong(actual: Any, wanted: Any, x: Array) -> str:
    """Where two outputs differ, each with what it is computed from; "" where they do not."""
    with np.errstate(all="ignore"):
        close = np.abs(actual - wanted) <= 2e-5 * np.abs(wanted) + 1e-7
    same = (
        (np.isnan(actual) & np.isnan(wanted)) | (actual == wanted) | (np.isfinite(actual) & np.isfinite(wanted) & close)
    )
    places = np.argwhere(~same)
    return "; ".join(
        f"{x[n, :2, h, w]}: {actual[n, c, h, w]:g}, not {wanted[n, c, h, w]:g}" for n, c, h, w in places[:8]
    )


def disagreements(outputs: list[Any], folder: Path) -> dict[str, str]:
    texts = {}
    for actual, (_, x, wanted) in zip(outputs, files(folder), strict=True):
        assert actual.keys() == wanted.keys()
        for name, one in wanted.items():
            # NaN stays NaN as in PyTorch, where ONNX Runtime asks whether it is above alpha
            kept = np.where(np.isnan(x), x, one) if name.startswith("ThresholdedRelu") else one
            texts |= {name: text} if (text := wrong(actual[name], kept, x)) else {}
    return texts


def test_special_numbers_are_those_of_onnx_runtime(folder: Path) -> None:
    outputs = [native.Native(path, 1)(x) for path, x, _ in files(folder)]
    assert not disagreements(outputs, folder)


CODE = """
import sys, numpy as np
from gossamer.runtime.native import Native
for path in sys.argv[1:]:
    np.savez(path + '.npz', *Native(path, 1)(np.load(path + '.x.npy')).values())
"""


@pytest.mark.full
@pytest.mark.parametrize("isa", ["reference", *ISAS])
def test_special_numbers_on_every_isa(isa: str, folder: Path) -> None:
    for path, x, _ in files(folder):
        np.save(f"{path}.x.npy", x)
    with_isa(isa, CODE, *(path for path, _, _ in files(folder)))
    outputs = [dict(zip(wanted, np.load(f"{path}.npz").values())) for path, _, wanted in files(folder)]
    assert not disagreements(outputs, folder)


def test_special_numbers_of_the_operators_in_numpy(folder: Path) -> None:
    texts, seen = {}, set()
    for path, x, wanted in files(folder):
        graph = parse_onnx(path.with_suffix(".onnx").read_bytes())
        values: dict[str, Any] = {**graph.tensors, "x": x}
        with np.errstate(all="ignore"):
            for one in graph.nodes:
                if one.op not in OPERATORS or any(name not in values for name in one.inputs):
                    continue
                made = OPERATORS[one.op](one, *(values[name] for name in one.inputs))
                values.update(zip(one.outputs, made if isinstance(made, tuple) else (made,)))
                seen.add(one.op)
        texts |= {name: text for name in wanted if name in values and (text := wrong(values[name], wanted[name], x))}
    assert seen >= set(
        "Abs Add Clip Conv Div Exp HardSigmoid HardSwish LeakyRelu Max Min Mul Neg Pow Relu Sigmoid".split()
    )
    assert not texts


@pytest.mark.parametrize(
    ("op", "numbers", "message"),
    [
        ("Pow", [0], "an exponent of 0, which is 0 or not within 16"),
        ("Pow", [INF], "an exponent of inf"),
        ("Pow", [NAN], "an exponent of nan"),
        ("Pow", [17], "an exponent of 17"),
        ("Max", [NAN], "a constant that is not a number"),
        ("Min", [1, NAN], "a constant that is not a number"),
        ("Clip", [NAN, 1], "its input 1 is not one number"),
        ("Clip", [0, NAN], "its input 2 is not one number"),
        ("Clip", [1, 0], "from 1 to 0"),
        ("Div", [0], "a division by zero"),
        ("Div", [-0.0], "a division by zero"),
        ("Div", [1e-42], "a division by zero, or by less than"),
    ],
)
def test_numbers_that_are_refused_by_name(op: str, numbers: list[float], message: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {}
    names = [_constant(values, one) for one in numbers]
    path = save(tmp_path / "m.onnx", [node(op, ["x", *names], ["y"])], values)
    with pytest.raises(InputError, match=message):
        compile_file(path, tmp_path / "m.goss")

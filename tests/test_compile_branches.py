"""Parallel linear layers whose outputs are added: one layer, of equal outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from gossamer.compile.fuse import fuse  # noqa: E402
from gossamer.compile.lower import lower  # noqa: E402
from gossamer.compile.program import Program  # noqa: E402
from gossamer.modelfile.metadata import read_model_file  # noqa: E402
from gossamer.runtime import native  # noqa: E402
from tests.onnxcases import CONV, check, node, noise, save, weight  # noqa: E402

if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

BN = {"g": 1 + weight(8), "b": weight(8), "m": weight(8), "v": 1 + weight(8) ** 2}


def norm(source: str, out: str) -> Any:
    return node("BatchNormalization", [source, "g", "b", "m", "v"], [out])


def conv(weights: str, out: str, **attributes: Any) -> Any:
    return node("Conv", ["a", weights], [out], **attributes)


# nodes behind "a" (N, 8, 6, 6); constants; the operations that are left behind the first convolution
MERGED: dict[str, tuple[list[Any], dict[str, Any], list[str]]] = {
    "RepVGG: 3x3, 1x1 and a batch norm": (
        [
            conv("k3", "p", pads=[1, 1, 1, 1]),
            conv("k1", "q"),
            norm("a", "r"),
            node("Add", ["p", "q"], ["s"]),
            node("Add", ["s", "r"], ["t"]),
            node("Relu", ["t"], ["y"]),
        ],
        {"k3": weight(8, 8, 3, 3), "k1": weight(8, 8, 1, 1), **BN},
        ["conv"],
    ),
    "the batch norm first": (
        [
            norm("a", "r"),
            conv("k3", "p", pads=[1, 1, 1, 1]),
            conv("k1", "q"),
            node("Add", ["r", "p"], ["s"]),
            node("Add", ["s", "q"], ["y"]),
        ],
        {"k3": weight(8, 8, 3, 3), "k1": weight(8, 8, 1, 1), **BN},
        ["conv"],
    ),
    "MobileOne: depthwise 3x3 twice, depthwise 1x1 and a batch norm": (
        [
            conv("k3", "p", pads=[1, 1, 1, 1], group=8),
            conv("j3", "q", pads=[1, 1, 1, 1], group=8),
            conv("k1", "o", group=8),
            norm("a", "r"),
            node("Sum", ["r", "o", "p", "q"], ["s"]),
            node("Clip", ["s", "zero", "six"], ["y"]),
        ],
        {
            "k3": weight(8, 1, 3, 3),
            "j3": weight(8, 1, 3, 3, scale=0.5),
            "k1": weight(8, 1, 1, 1),
            "zero": np.float32(0),
            "six": np.float32(6),
            **BN,
        },
        ["block"],
    ),
    "of stride 2 in groups": (
        [
            conv("k3", "p", pads=[1, 1, 1, 1], strides=[2, 2], group=2),
            conv("k1", "q", strides=[2, 2], group=2),
            node("Add", ["p", "q"], ["y"]),
        ],
        {"k3": weight(8, 4, 3, 3), "k1": weight(8, 4, 1, 1)},
        ["conv"],
    ),
    "a depthwise one beside one in groups": (
        [
            conv("k3", "p", pads=[1, 1, 1, 1], group=8),
            conv("k5", "q", pads=[2, 2, 2, 2], group=2),
            node("Add", ["p", "q"], ["y"]),
        ],
        {"k3": weight(8, 1, 3, 3), "k5": weight(8, 4, 5, 5)},
        ["conv"],
    ),
    "dilated, padded unevenly": (
        [
            conv("k3", "p", pads=[2, 2, 2, 2], dilations=[2, 2]),
            conv("k2", "q", pads=[0, 2, 2, 0], dilations=[2, 2]),
            node("Add", ["p", "q"], ["y"]),
        ],
        {"k3": weight(8, 8, 3, 3), "k2": weight(8, 8, 2, 2)},
        ["conv"],
    ),
}
KEPT: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "an activation between": (
        [conv("k1", "p"), node("Relu", ["p"], ["q"]), conv("j1", "r"), node("Add", ["q", "r"], ["y"])],
        {"k1": weight(8, 8, 1, 1), "j1": weight(8, 8, 1, 1, scale=0.5)},
    ),
    "another reader": (
        [conv("k1", "p"), conv("j1", "r"), node("Add", ["p", "r"], ["s"]), node("Mul", ["s", "p"], ["y"])],
        {"k1": weight(8, 8, 1, 1), "j1": weight(8, 8, 1, 1, scale=0.5)},
    ),
    "kernels that only a larger one covers": (
        [conv("h", "p", pads=[0, 2, 0, 2]), conv("v", "q", pads=[2, 0, 2, 0]), node("Add", ["p", "q"], ["y"])],
        {"h": weight(8, 8, 1, 5), "v": weight(8, 8, 5, 1)},
    ),
    "two dilations": (
        [
            conv("k3", "p", pads=[1, 1, 1, 1]),
            conv("j3", "q", pads=[2, 2, 2, 2], dilations=[2, 2]),
            node("Add", ["p", "q"], ["y"]),
        ],
        {"k3": weight(8, 8, 3, 3), "j3": weight(8, 8, 3, 3, scale=0.5)},
    ),
    "weights that are not finite": (
        [conv("k1", "p"), conv("j1", "r"), node("Add", ["p", "r"], ["y"])],
        {"k1": np.full((8, 8, 1, 1), 3e38, np.float32), "j1": np.full((8, 8, 1, 1), 3e38, np.float32)},
    ),
    "a map of one position, which is repeated": (
        [conv("k1", "p"), conv("k6", "q"), node("Add", ["p", "q"], ["y"])],
        {"k1": weight(8, 8, 1, 1), "k6": weight(8, 8, 6, 6)},
    ),
    "a depthwise one of one position beside a batch norm": (
        [norm("a", "p"), conv("k6", "q", group=8), node("Add", ["q", "p"], ["y"])],
        {"k6": weight(8, 1, 6, 6), **BN},
    ),
    "two maps": (
        [node("Relu", ["a"], ["b"]), conv("k1", "p"), node("Conv", ["b", "j1"], ["r"]), node("Add", ["p", "r"], ["y"])],
        {"k1": weight(8, 8, 1, 1), "j1": weight(8, 8, 1, 1, scale=0.5)},
    ),
}


def program(path: Path) -> Program:
    return fuse(lower(read_model_file(path).graph))


@pytest.mark.parametrize("case", MERGED)
def test_parallel_layers_are_one(case: str, tmp_path: Path) -> None:
    nodes, constants, kinds = MERGED[case]
    path = save(tmp_path / "m.onnx", [*CONV, *nodes], constants)
    assert [one.kind for one in program(path).operations][1:] == kinds
    check(path, noise((2, 3, 8, 8)))


@pytest.mark.parametrize("case", KEPT)
def test_what_is_no_such_sum_stays(case: str, tmp_path: Path) -> None:
    nodes, constants = KEPT[case]
    path = save(tmp_path / "m.onnx", [*CONV, *nodes], constants)
    graph = lower(read_model_file(path).graph)
    assert len(fuse(lower(read_model_file(path).graph)).operations) == len(graph.operations)
    if "finite" not in case:
        check(path, noise((2, 3, 8, 8)))

"""Small ONNX files of other exporters, node by node, each compiled and run beside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gossamer.compile.write import compile_file
from gossamer.errors import InputError, ModelFileError
from gossamer.runtime.native import Native

node = helper.make_node
CONV = [node("Conv", ["x", "w"], ["a"])]  # (N, 3, 8, 8) to (N, 8, 6, 6)
ROW = [*CONV, node("GlobalAveragePool", ["a"], ["p"]), node("Flatten", ["p"], ["b"])]  # to (N, 8)
INPUT = ("N", 3, 8, 8)


def weight(*shape: int, scale: float = 0.3) -> Any:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * scale).astype(np.float32)


def int64(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def save(
    path: Path,
    nodes: Sequence[Any],
    constants: dict[str, Any] | None = None,
    shape: Sequence[Any] = INPUT,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    domains: Sequence[tuple[str, int]] | None = None,
    rank: int = 4,
) -> Path:
    """The file: one input x of `shape`, a constant w (8, 3, 3, 3) and `constants`; sides of outputs are left open."""
    values = {"w": weight(8, 3, 3, 3), **(constants or {})}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "case",
        [value("x", TensorProto.FLOAT, list(shape))],
        [value(name, TensorProto.FLOAT, ["N", *[None] * (rank - 1)]) for name in outputs],
        [numpy_helper.from_array(np.asarray(one), name) for name, one in values.items()],
    )
    sets = [helper.make_opsetid(*one) for one in domains or [("", opset)]]
    onnx.save(
        helper.make_model(graph, opset_imports=sets, ir_version=11 if opset > 22 else 10 if opset > 19 else 8), path
    )
    return path


def noise(shape: Sequence[Any]) -> Any:
    sides = [2 if isinstance(side, str) else side for side in shape]
    return np.random.default_rng(0).standard_normal(sides).astype(np.float32)


def expected(path: Path, x: Any) -> dict[str, Any]:
    """What ONNX Runtime gives."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: x})))


def check(path: Path, x: Any, tolerance: float = 1e-5) -> None:
    """That the compiled file agrees with ONNX Runtime, to `tolerance` of the largest output."""
    wanted, out = expected(path, x), path.with_suffix(".goss")
    compile_file(path, out)
    outputs: Any = Native(out, 1)(x)
    outputs = outputs if isinstance(outputs, dict) else {next(iter(wanted)): outputs}
    assert outputs.keys() == wanted.keys()
    for name, one in wanted.items():
        assert outputs[name].shape == one.shape
        assert np.abs(outputs[name] - one).max() <= tolerance * max(1, float(np.abs(one).max()))


def refused(path: Path, message: str) -> None:
    """That compilation ends with this message and leaves no file."""
    with pytest.raises((InputError, ModelFileError), match=message):
        compile_file(path, path.with_suffix(".goss"))
    assert not path.with_suffix(".goss").exists()

"""The tests of single operators that the onnx package brings: each is answered as it asks, or refused, never another way."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from gossamer.compile.write import compile_file
from gossamer.errors import GossamerError
from gossamer.modelfile.metadata import read_model_file
from gossamer.runtime import native
from gossamer.runtime.reference import Reference

cases = pytest.importorskip("onnx.backend.test.case.node")

# file of the package -> how many of its tests the engine and plain numpy must answer, those of other forms are refused
LEAST = {
    "averagepool": (10, 10),
    "batch_normalization": (2, 2),
    "conv": (4, 4),
    "convtranspose": (6, 0),
    "depthtospace": (2, 0),
    "gemm": (6, 6),
    "globalaveragepool": (2, 2),
    "globalmaxpool": (2, 2),
    "layernormalization": (3, 0),
    "logsoftmax": (6, 0),
    "maxpool": (8, 8),
    "reducemax": (2, 2),
    "softmax": (6, 6),
}


@functools.cache
def cases_of(module: str) -> tuple[tuple[str, Any, Any, Any], ...]:
    """The name, model, input and outputs of each test of a file."""
    return tuple(_cases_of(module))


def _cases_of(module: str) -> Iterator[tuple[str, Any, Any, Any]]:
    """Of each test whose first input is float32; the other inputs become constants."""
    before = len(cases._NodeTestCases)
    importlib.import_module(f"{cases.__name__}.{module}")
    for case in cases._NodeTestCases[before:]:  # importing a file adds its tests
        ((given, wanted),) = case.data_sets[:1]
        if case.model is None or not given or np.asarray(given[0]).dtype != np.float32:
            continue
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        names = [value.name for value in model.graph.input]
        del model.graph.input[1:]
        for name, value in zip(names[1:], given[1:], strict=True):
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        yield case.name, model, given[0], wanted


def answered(run: Any, x: Any, wanted: Any) -> bool:
    """Whether it answers, and then equally; False where it refuses."""
    try:
        raw = run()(x)
    except GossamerError:
        return False
    arrays = list(raw.values()) if isinstance(raw, dict) else [raw]
    for array, right in zip(arrays, wanted, strict=True):
        np.testing.assert_allclose(array, right, rtol=1e-4, atol=1e-4 * max(1e-3, float(np.abs(right).max())))
    return True


SLOW = ("averagepool", "maxpool")  # which the package computes place by place


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, as the package makes its tests
@pytest.mark.parametrize(
    "module", [pytest.param(name, marks=pytest.mark.full) if name in SLOW else name for name in LEAST]
)
def test_the_tests_of_an_operator_are_answered_or_refused(module: str, tmp_path: Path) -> None:
    counts = [0, 0]
    for name, model, x, wanted in cases_of(module):
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        runs = (
            lambda path=path: native.Native(compile_file(path, path.with_suffix(".goss")), 1),
            lambda path=path: Reference(read_model_file(path)),
        )
        for place, run in enumerate(runs):
            counts[place] += answered(run, x, wanted)
    assert counts[0] >= LEAST[module][0] and counts[1] >= LEAST[module][1], counts

"""Attributes and inputs that an operator does not have in its operator set: refused, never ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gossamer.compile import schema
from gossamer.compile.write import compile_file
from gossamer.errors import InputError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.onnxcases import CONV, node, save, weight


@pytest.mark.parametrize(
    ("last", "opset", "message"),
    [
        (node("Relu", ["a"], ["y"], alpha=0.5), 17, "an attribute 'alpha'"),
        (node("Clip", ["a"], ["y"], min=0.0, max=1.0), 17, "an attribute 'm.*operator set 17"),
        (node("Concat", ["a", "a"], ["y"], axis=1, new_axis=1), 17, "an attribute 'new_axis'"),
        (node("AveragePool", ["a"], ["y"], kernel_shape=[2, 2], dilation=2), 17, "an attribute 'dilation'"),
        (node("ReduceMean", ["a"], ["y"], axes=[2, 3]), 18, "an attribute 'axes'"),
        (node("Add", ["a", "w1"], ["y"], axis=1, broadcast=1), 6, "an attribute 'axis'"),
        (node("Relu", ["a", "a"], ["y"]), 17, "2 inputs"),
        (node("Dropout", ["a"], ["y"]), 6, "is_test"),
        (node("Dropout", ["a"], ["y"], is_test=0), 6, "its is_test is not 1|is_test is not 1"),
    ],
)
def test_what_an_operator_does_not_have_is_refused_and_not_ignored(
    last: Any, opset: int, message: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "m.onnx", [*CONV, last], {"w1": weight(8)}, opset=opset)
    with pytest.raises(InputError, match=message):
        compile_file(path, tmp_path / "m.goss")
    assert not (tmp_path / "m.goss").exists()


# attributes that only an operator which nothing here reads has, or of which only the default means anything
ELSEWHERE = {
    "Constant": {"sparse_value", "value_string", "value_strings"},
    "Range": {"stash_type"},
    "SpaceToDepth": {"mode"},
}


@pytest.mark.parametrize("op", schema.SCHEMA)
def test_the_table_of_attributes_is_that_of_onnx(op: str) -> None:
    """From the operator set 7 on, the first that ONNX Runtime promises to run."""
    from onnx import defs

    (least, most), attributes = schema.SCHEMA[op]
    versions = {one.since_version for one in defs.get_all_schemas_with_history() if one.name == op and not one.domain}
    assert versions
    for opset in range(7, min(schema.LATEST_OPSET, defs.onnx_opset_version()) + 1):
        if min(versions) > opset:
            continue
        theirs = defs.get_schema(op, opset, "")
        if theirs.deprecated:
            continue
        ours = {name for name, one in attributes.items() if one.first <= opset < one.behind}
        assert ours <= set(theirs.attributes)
        assert set(theirs.attributes) - ours <= ELSEWHERE.get(op, set())
        assert least <= theirs.min_input <= theirs.max_input
        assert theirs.max_input <= most or theirs.max_input > 2**30

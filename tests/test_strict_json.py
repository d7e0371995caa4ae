"""Every JSON file and --json output is JSON: numbers that are not finite are null."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.cli import main as cli
from gossamer.host.strict_json import dumps, strict
from gossamer.run import Run
from gossamer.settings import Settings

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def refuse(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


@given(VALUES)
def test_any_value_is_written_as_strict_json(value: Any) -> None:
    for ascii_only in (False, True):
        text = dumps(value, ascii_only=ascii_only)
        assert json.loads(text, parse_constant=refuse) == json.loads(json.dumps(strict(value)))
        assert not ascii_only or text.isascii()


def test_a_finite_number_keeps_all_its_digits() -> None:
    assert json.loads(dumps([0.1, 1e300, -0.0, 5e-324])) == [0.1, 1e300, -0.0, 5e-324]
    assert dumps({"é": ["ü", 1]}) == '{"é": ["ü", 1]}' and dumps("é", ascii_only=True) == '"\\u00e9"'
    assert dumps((math.nan, {"a": math.inf}, -math.inf)) == '[null, {"a": null}, null]'


def test_metrics_that_are_not_finite_come_back_as_nan(tmp_path: Path) -> None:
    run = Run.create(Settings(data="x", out=str(tmp_path / "run")))
    run.save_metrics([{"epoch": 1.0, "val_loss": math.nan, "val_accuracy": 0.5}, {"epoch": 2.0, "val_loss": math.inf}])
    for line in (run.path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    first, second = run.metrics()
    assert math.isnan(first["val_loss"]) and math.isnan(second["val_loss"])
    assert run.best("val_accuracy")["epoch"] == 1 and run.best("val_loss") == {}
    run.unlock()


def test_metrics_of_before_with_nan_in_them_are_read(tmp_path: Path) -> None:
    run = Run.create(Settings(data="x", out=str(tmp_path / "run")))
    (run.path / "metrics.jsonl").write_text('{"epoch": 1.0, "val_loss": NaN}\n[1]\n{"epoch": 2.0}\n')
    assert [row["epoch"] for row in run.metrics()] == [1.0]
    run.unlock()


def test_a_result_of_the_command_line_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    cli._print({"score": math.nan, "name": "é"}, as_json=True)
    assert json.loads(capsys.readouterr().out, parse_constant=refuse) == {"score": None, "name": "é"}

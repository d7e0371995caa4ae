"""Times against width: which operation holds which layer, tables of pairs, the cache, and a limit in milliseconds.

The clock is replaced by the multiply-adds of each operation, so that what a table should say is known.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import gossamer
from gossamer.analysis.channels import channel_groups
from gossamer.analysis.cost import cost
from gossamer.analysis.graph import trace
from gossamer.errors import SettingsError, VerificationError
from gossamer.host.progress import SILENT
from gossamer.networks import create_model
from gossamer.runtime import native
from gossamer.runtime.steps import read_steps
from gossamer.shrink import narrow, times
from gossamer.shrink.edits import removable
from gossamer.shrink.widths import candidates, layers_of, mac_model
from gossamer.training.loop import train
from tests.test_trainer import Messages, small

pytest.importorskip("scipy")
pytest.importorskip("onnx")
pytestmark = pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the engine is not built")


def by_macs(data: bytes, path: Path, threads: int, turns: int) -> list[float]:
    """A millisecond a million multiply-adds."""
    return [step.macs / 1e6 for step in read_steps(data)]


def whole_by_macs(files: Sequence[bytes], *_: Any) -> list[float]:
    return [sum(step.macs for step in read_steps(data)) / 1e6 for data in files]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(times, "_profile", by_macs)
    monkeypatch.setattr(narrow, "alternating_ms", whole_by_macs)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def setting(name: str, **arguments: Any) -> tuple[Any, ...]:
    model = create_model(name, num_classes=5, **arguments).eval()
    graph = trace(model, (1, 3, 32, 32))
    groups = removable(model, channel_groups(graph, strict=False))
    layers = layers_of(graph, groups)
    options = candidates(groups, {key: tuple(value.shape) for key, value in model.state_dict().items()}, 3)
    return model, graph, layers, options


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("squeezenet1_1", 0.25),
        *(pytest.param(name, 0.5, marks=pytest.mark.full) for name in ("mobilenet_v2", "resnet18")),
    ],
)
def test_the_table_of_a_clock_that_counts_multiply_adds_counts_them(name: str, width: float, clock: None) -> None:
    model, graph, layers, options = setting(name, width=width, small_input=True)
    table, notes = times.time_model(model, (32, 32), 3, ("logits",), layers, options, 1, SILENT)
    counted = mac_model(layers, options, cost(graph).macs)
    draw = random.Random(0)
    for _ in range(5):
        choice = [draw.randrange(len(one)) for one in options]
        assert table.of(choice) == pytest.approx(counted.of(choice) / 1e6, rel=0.02)
    assert "operations" in notes[-1] and " 0 widths" not in notes[-1]
    again, notes = times.time_model(model, (32, 32), 3, ("logits",), layers, options, 1, SILENT)
    assert " 0 widths timed" in notes[-1]
    assert again.of(choice) == pytest.approx(table.of(choice))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": 2, "machines": {}}', b'{"format": 1, "machines": {"a": {"b": NaN}}}',
     b'{"format": 1, "machines": {"a": {"b": -1.0}}}', b'{"format": 1, "machines": {"a": 3}}', b"\xff\xfe", b"[" * 99_999],
)  # fmt: skip
def test_a_damaged_cache_is_said_and_written_anew(content: bytes, clock: None, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "gossamer" / times.NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    machines, line = times._read()
    assert machines == {} and "measured anew" in line
    assert times._keep(machines, "here", {"op": 1.5}) == ""
    assert times._read() == ({"here": {"op": 1.5}}, "")


def test_the_cache_keeps_the_newest_times(clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "MOST", 3)
    times._keep({}, "old", {"a": 1.0, "b": 2.0})
    machines, _ = times._read()
    times._keep(machines, "new", {"c": 3.0, "d": 4.0})
    assert times._read()[0] == {"old": {"b": 2.0}, "new": {"c": 3.0, "d": 4.0}}


@pytest.fixture(scope="module")
def parent(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prune_times")
    return train(small(image_folder, root / "run", width=0.5, epochs=1)).path


@pytest.mark.full
def test_a_limit_in_milliseconds_holds_as_measured(parent: Path, tmp_path: Path, clock: None) -> None:
    messages = Messages()
    result = gossamer.prune(parent, tmp_path / "out", latency=0.6, minutes=0.01, importance="norm", progress=messages)
    before, after = result.ms
    assert 0.5 * before < after <= 0.6 * before
    assert after == pytest.approx(result.macs[1] / 1e6, rel=0.05)
    assert json.loads(json.dumps(result.to_json()))["ms"] == {"before": before, "after": after}
    assert "latency in the native engine, 1 thread" in result.text()
    assert any(line.startswith("attempt 1: ") for line in messages.lines)


@pytest.mark.full
def test_a_limit_in_milliseconds_that_is_met_or_out_of_reach(parent: Path, tmp_path: Path, clock: None) -> None:
    with pytest.raises(SettingsError, match="keeps as it is"):
        gossamer.prune(parent, tmp_path / "out", latency="900ms", importance="norm")
    with pytest.raises(VerificationError, match=r"cannot be reached.*the nearest is .* ms"):
        gossamer.prune(parent, tmp_path / "out", latency=0.001, importance="norm")
    assert not (tmp_path / "out").exists()


@pytest.mark.full
def test_a_whole_network_that_is_slower_than_its_table_is_narrowed_further(
    parent: Path, tmp_path: Path, clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the table does not see: a fifth of the original's time that stays whatever the widths are."""

    def slower(files: Sequence[bytes], *_: Any) -> list[float]:
        first, *others = whole_by_macs(files)
        return [first, *(other + 0.2 * first for other in others)]

    monkeypatch.setattr(narrow, "alternating_ms", slower)
    result = gossamer.prune(parent, tmp_path / "out", latency=0.6, minutes=0.01, importance="norm")
    assert result.ms[1] <= 0.6 * result.ms[0]
    assert sum(step.startswith("attempt") for step in result.steps) > 1


def test_networks_are_timed_in_the_engine(tmp_path: Path) -> None:
    model = create_model("mobilenet_v2", width=0.25, num_classes=3, small_input=True).eval()
    data = times.compiled(model, (32, 32), 3, ("logits",))
    first, second = times.alternating_ms([data, data], 1, SILENT, "")
    assert 0 < first < 1000 and 0 < second < 1000
    assert all(ms > 0 for ms in times._profile(data, tmp_path / "n.goss", 1, 1))

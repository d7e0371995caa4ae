"""A whole pick of small networks: timed, trained in two rungs, exported, verified; killed on its way; and what times are kept."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import gossamer
from gossamer.export import traced
from gossamer.host.progress import SILENT
from gossamer.selection import timing
from gossamer.selection.budget import Budget
from gossamer.selection.choices import NetworkChoice
from gossamer.selection.counting import Builder
from gossamer.selection.search import Search
from gossamer.selection.timing import NetworkTimes
from gossamer.shrink import times
from tests.runs import command, commands

pytest.importorskip("onnxruntime")
NETS = "lenet5,mobilenetv1_025,shufflenet_v2_x0_5"


@pytest.fixture
def engine() -> None:
    from gossamer.runtime import native

    if not native.LIBRARY.is_file():
        pytest.skip("the native engine is not built")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gossamer" / "networks.json"


def test_a_network_is_timed_once_and_kept(engine: None, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice, builder = NetworkChoice("lenet5", None, (32, 32), 1), Builder()
    counted = builder.count(choice)
    first = NetworkTimes("native", 1)
    found, reasons = first.measure(builder, choice, counted, ("float32", "bf16", "int8"))
    assert not reasons and set(found) == {"float32", "bf16", "int8"} and first.measured == 1
    assert all(ms > 0 for ms, _ in found.values())
    sizes = {name: size for name, (_, size) in found.items()}
    assert sizes["float32"] > 3.9 * counted.params and sizes["float32"] > 1.5 * sizes["bf16"] > 2 * sizes["int8"]
    kept = json.loads(cache.read_text())
    assert kept["format"] == 1 and len(kept["machines"]) == 1
    again = NetworkTimes("native", 1)
    assert again.measure(builder, choice, counted, ("float32", "int8")) == (
        {name: found[name] for name in ("float32", "int8")},
        {},
    )
    assert again.measured == 0 and NetworkTimes("native", 2).get(counted, ["float32"]) is None, "other threads"
    monkeypatch.setenv("GOSSAMER_ISA", "portable")
    assert NetworkTimes("native", 1).get(counted, ["float32"]) is None, "other instructions"
    monkeypatch.delenv("GOSSAMER_ISA")
    with monkeypatch.context() as other:
        other.setattr(timing.machine, "versions", lambda names: dict.fromkeys(names, "99"))
        assert NetworkTimes("native", 1).get(counted, ["float32"]) is None, "another version, which fuses otherwise"
    cache.write_text("{")
    damaged = NetworkTimes("native", 1)
    assert damaged.get(counted, ["float32"]) is None and "ignored" in damaged.notes[0]
    assert times.machine_key(1) != times.machine_key(2)


def test_layers_that_a_runtime_refuses_are_tried_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refuse(self: Any, model: Any, shape: Any, outputs: Any, precisions: Any, name: str) -> Any:
        tried.append(name)
        return {}, dict.fromkeys(precisions, "no such operator")

    monkeypatch.setattr(NetworkTimes, "_measure", refuse)
    known = NetworkTimes("native", 1)
    assert [known.most_macs("int8", 1.0) for _ in range(3)] == [float("inf")] * 3
    assert len(tried) == len(timing.DENSE)


@pytest.mark.parametrize("error", [ValueError, KeyError, AttributeError, RuntimeError])
def test_what_cannot_be_recorded_is_exported(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error("inside the exporter")

    monkeypatch.setattr(traced.torch.onnx, "export", refuse)
    monkeypatch.setattr(traced, "to_onnx", lambda *_: b"the other way")
    assert traced.traced_onnx(nn.Sequential(nn.Conv2d(3, 4, 1)), (8, 8)) == b"the other way"


def test_networks_with_far_too_many_macs_are_not_timed(engine: None, cache: Path) -> None:
    known = NetworkTimes("native", 1)
    for precision in ("float32", "int8"):
        assert known.most_macs(precision, 2.0) == pytest.approx(2 * known.most_macs(precision, 1.0))
        assert 1e5 < known.most_macs(precision, 1.0) < 1e12
    one = Search(Budget(1e-4, None, None), ("float32",), Builder(), known, SILENT, 9, 60.0)
    one.run([NetworkChoice("mobilenetv1_025", None, (32, 32)), NetworkChoice("lenet5", None, (32, 32), 1)])
    assert not one.fits and one.nearest is not None and one.nearest[1] == "lenet5-32x32"
    assert "the fastest layers here compute" in next(each.reason for each in one.dropped if "mobilenetv1" in each.name)


# the whole of it

KILLS = 2


def words(data: Path, out: Path) -> list[str]:
    limits = ["--latency", "2s", "--size", "3MB", "--precision", "fp32", "--nets", NETS]
    return ["pick", str(data), *limits, "--candidates", "3", "--epochs", "4", "--out", str(out), "--json"]


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_killed_pick_comes_to_the_same(engine: None, cache: Path, make_image_folder: Any, tmp_path: Path) -> None:
    data = make_image_folder(splits=("train", "val", "test"))
    done = subprocess.run(command(*words(data, tmp_path / "whole")), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "loading PyTorch" in done.stderr.splitlines()[0]
    printed = json.loads(done.stdout)
    trained = printed["trained"]
    assert len(trained) == 3 and sorted(one["rung"] for one in trained) == [1, 1, 2]
    assert [one["reason"] == "" for one in trained] == [True, False, False] and trained[0]["fraction"] == 1
    chosen, file = printed["chosen"], Path(printed["file"])
    assert chosen["over"] == "" and chosen["use"]["bytes"] == file.stat().st_size <= 3e6
    assert gossamer.verify(file).ok and printed["test_images"] > 0 and "accuracy" in printed["test"]
    assert (tmp_path / "whole" / "pareto.svg").read_text().startswith("<svg")
    out, kills = tmp_path / "killed", 0
    for _ in range(20):
        life = commands().start(words(data, out))
        finished = {path.name for path in (out / "steps").glob("rung-*.json")}
        limit = time.monotonic() + 240
        while kills < KILLS and life.runs() and time.monotonic() < limit:
            if {path.name for path in (out / "steps").glob("rung-*.json")} - finished:
                life.kill()
                kills += 1
            time.sleep(0.05)
        ended = life.wait(550)
        if ended.returncode == 0:
            break
    assert kills == KILLS
    again = json.loads(ended.stdout)
    assert again["chosen"]["network"] == chosen["network"] and again["chosen"]["score"] == chosen["score"]
    assert [(one["name"], one["score"]) for one in again["trained"]] == [(one["name"], one["score"]) for one in trained]
    same = [(root / "runs" / chosen["network"] / "best.safetensors").read_bytes() for root in (out, tmp_path / "whole")]
    assert same[0] == same[1], "the trained weights are not those of an undisturbed pick, bit for bit"

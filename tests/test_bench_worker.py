"""The process that measures one candidate, in this process: its loaders, its replies, the memory that it reports."""

from __future__ import annotations

import io
import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gossamer.bench import worker
from gossamer.bench.profile import profile
from gossamer.bench.result import Benchmark, Measurement
from gossamer.bench.worker import Worker
from gossamer.compile.write import compile_file
from gossamer.errors import InputError
from gossamer.runtime import native

GOOD = Path(__file__).parent / "hostile" / "models" / "good.onnx"
BRIEF = {"do": "open", "threads": 1, "batch": 2, "seconds": 0.0, "runs": 1}


@pytest.fixture
def threads() -> Iterator[None]:
    """Put back the number of threads of this process's torch."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_network_is_loaded_in_two_memory_formats(threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SIZE", (16, 24))
    job = {**BRIEF, "runtime": "torch", "kind": "network", "target": "preresnet20", "threads": 3}
    ways, shape, version = worker._torch(job)()
    assert (list(ways), shape, version) == (
        ["eager, channels_first", "eager, channels_last"],
        (3, 16, 24),
        str(torch.__version__),
    )
    assert torch.get_num_threads() == 3
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 24), dtype=np.float32)
    first, last = (make()(images) for make in ways.values())
    assert isinstance(first, np.ndarray) and isinstance(last, np.ndarray)
    assert first.shape == (2, 1000)
    np.testing.assert_allclose(first, last, atol=1e-4 * float(np.abs(first).max()))


def test_a_compiled_network_has_its_weights_frozen(threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor, "freezing", False)
    monkeypatch.setattr(worker, "SIZE", (16, 24))
    monkeypatch.setattr(torch, "compile", lambda module: lambda images: {"twice": 2 * module(images)})
    job = {**BRIEF, "runtime": "torch.compile", "kind": "network", "target": "preresnet20"}
    ways, shape, version = worker._torch_compile(job)()
    assert inductor.freezing and torch.get_num_threads() == 1
    assert (list(ways), shape, version) == (["inductor, weights frozen"], (3, 16, 24), str(torch.__version__))
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 24), dtype=np.float32)
    outputs = ways["inductor, weights frozen"]()(images)
    assert isinstance(outputs, dict)
    plain = worker._torch(job)()[0]["eager, channels_first"]()(images)
    np.testing.assert_allclose(outputs["twice"], 2 * np.asarray(plain), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_engine_compiles_an_onnx_file_first(compiled: bool, tmp_path: Path) -> None:
    if not native.LIBRARY.is_file():
        pytest.skip("the native engine is not built: make engine")
    target = str(compile_file(GOOD, tmp_path / "good.goss") if compiled else GOOD)
    ways, shape, version = worker._model_file({**BRIEF, "runtime": "native", "target": target})()
    assert (list(ways), shape) == ([""], (3, 8, 8)) and version
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
    reference = worker._model_file({**BRIEF, "runtime": "reference", "target": str(GOOD)})()[0][""]()
    np.testing.assert_allclose(ways[""]()(images), reference(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "function"), [("run", "convert.to_onnx"), ("network", "traced.onnx_to_time")])
def test_a_graph_is_written_with_the_names_of_its_outputs(
    kind: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def written(*arguments: Any) -> bytes:
        calls.append(arguments[1:])
        return b"graph"

    monkeypatch.setattr(f"gossamer.export.{function}", written)
    monkeypatch.setattr(worker, "SIZE", (16, 24))
    expected: tuple[Any, ...] = ((16, 24), 3, ("logits",))
    if kind == "run":
        expected = ((32, 40), 1, ("first", "second"))
        monkeypatch.setattr(worker, "_module", lambda job: ("a module", (1, 32, 40), expected[2]))
    job = {"do": "export", "target": "preresnet20", "kind": kind, "out": str(tmp_path / "net.onnx")}
    assert Worker().reply(job) == {} and (tmp_path / "net.onnx").read_bytes() == b"graph"
    assert calls == [expected]


def test_a_worker_opens_a_file_and_measures_it() -> None:
    one = Worker()
    opened = one.reply({**BRIEF, "runtime": "reference", "kind": "model file", "target": str(GOOD)})
    assert opened["input"] == [2, 3, 8, 8] and opened["note"] == "" and opened["version"]
    assert all(opened[key] > 0 for key in ("import_ms", "load_ms", "first_ms"))
    measured = one.reply({"do": "measure", "seconds": 0.0, "runs": 4})
    assert len(measured["times_ns"]) == 4 and all(taken > 0 for taken in measured["times_ns"])
    assert measured["peak_bytes"] == worker.peak_bytes()
    assert 0 <= measured["growth_bytes"] < 256 << 20


def test_the_fastest_of_several_ways_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**9, 1))
    now = [0]
    monkeypatch.setattr(worker.time, "perf_counter_ns", lambda: now[0] + next(clock))

    def way(nanoseconds: int) -> Any:
        def forward(images: Any) -> str:
            now[0] += nanoseconds
            return str(nanoseconds)

        return lambda: forward

    ways = {"slow": way(9_000), "fast": way(3_000), "slower": way(12_000)}
    monkeypatch.setitem(worker.LOADERS, "torch", lambda job: lambda: (ways, (3, 2, 2), "1.0"))
    one = Worker()
    opened = one.reply({**BRIEF, "runtime": "torch"})
    assert (opened["note"], opened["input"], opened["version"]) == ("fast", [2, 3, 2, 2], "1.0")
    assert one.forward is not None and one.forward(one.batch) == "3000"
    times = one.reply({"do": "measure", "seconds": 0.0, "runs": 5})["times_ns"]
    assert len(times) == 5 and all(3_000 <= taken <= 3_002 for taken in times)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="of Linux")
def test_the_peak_of_memory_is_the_systems() -> None:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    least = int(line.split()[1]) * 1024
    peak = worker.peak_bytes()
    assert peak is not None and least <= peak < least + (64 << 20)


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_its_account_the_peak_is_that_of_the_standard_library(
    system: str, unit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(sys, "platform", system)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert most * unit <= (worker.peak_bytes() or 0) < (most + (64 << 10)) * unit


class Replies:
    """Stands for a worker: replies with the request, or raises what it asks for."""

    def reply(self, job: dict[str, Any]) -> dict[str, Any]:
        os.write(1, b"printed by a library\n")
        if job["do"] == "refuse":
            raise InputError("what was given", "what is allowed", "what to do")
        if job["do"] == "break":
            raise ValueError("two\nlines " + "x" * 400)
        return {"done": job["do"]}


def test_every_request_has_one_reply_and_prints_go_to_standard_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [{"do": what} for what in ("open", "refuse", "break", "measure")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(job) + "\n" for job in jobs)))
    before = os.dup(1)
    try:
        worker.main(Replies)  # type: ignore[arg-type]
    finally:
        os.dup2(before, 1)
        os.close(before)
    out, err = capfd.readouterr()
    opened, refused, broken, measured = (json.loads(line) for line in out.splitlines())
    assert (opened, measured) == ({"done": "open"}, {"done": "measure"})
    assert refused == {"error": str(InputError("what was given", "what is allowed", "what to do"))}
    assert broken["error"].startswith("ValueError: two lines xxx") and len(broken["error"]) == 300
    assert err == "printed by a library\n" * 4


def test_a_profile_has_the_operations_of_each_file_and_number_of_threads(tmp_path: Path) -> None:
    if not native.LIBRARY.is_file():
        pytest.skip("the native engine is not built: make engine")
    compiled = str(compile_file(GOOD, tmp_path / "good.goss"))
    result = profile([compiled], (1, 2))
    assert [(one.path, one.threads) for one in result.networks] == [(compiled, 1), (compiled, 2)]
    first, second = result.networks
    assert [step.name for step in first.operations] == [step.name for step in second.operations] != []
    assert all(step.ms > 0 for step in first.operations) and first.isa == second.isa
    assert [one["path"] for one in result.to_json()] == [compiled, compiled]
    assert result.text().count(f"{compiled}: {first.isa}, ") == 2


def test_a_row_of_the_table_rounds_each_number_as_its_unit_needs() -> None:
    row = Measurement(
        *("net.onnx", "onnxruntime", 2, 4),
        version="1.2.3",
        input=(4, 3, 8, 8),
        median_ms=1.23456,
        p10_ms=1.11111,
        p90_ms=2.22222,
        images_per_second=3240.06,
        load_ms=12.6,
        first_ms=3.4,
        peak_bytes=(50 << 20) + (600 << 10),
    )
    lines = Benchmark((row,), {"cpu": "x", "cores": 2}, 3, 1.0, 0.5).text().splitlines()
    assert lines[0] == "x, 2 cores; 3 rounds in turn" and lines[2] == "net.onnx, input 4x3x8x8"
    assert lines[-1].split() == ["onnxruntime", "2", "1.235", "1.111", "2.222", "3240.1", "13", "3", "51", "1.2.3"]

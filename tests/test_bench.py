"""The benchmark: its processes, its table, its chart."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gossamer.bench import RUNTIMES, Benchmark, Measurement, bench, measure, process
from gossamer.bench.process import Failed, Process
from gossamer.bench.result import COLOURS
from gossamer.errors import InputError, SettingsError, UnknownNameError
from gossamer.host.text import milliseconds
from tests.runs import RECIPE, gossamer

MODELS = Path(__file__).parent / "hostile" / "models"
GOOD = MODELS / "good.onnx"
SETUP = "import os, sys, time, gossamer.bench.worker as w, numpy as np\n"


def worker(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let worker processes run this code instead."""
    monkeypatch.setattr(process, "COMMAND", [sys.executable, "-P", "-c", SETUP + code])


def fake(load: str) -> str:
    """A worker with a runtime that is called onnxruntime, and these lines in its load()."""
    body = "\n".join(f"        {line}" for line in load.splitlines())
    return f"""
def loader(job):
    def load():
{body}
        return {{"way": lambda: (lambda x: x[:, :, 0, 0])}}, (3, 2, 2), "1.0"
    return load
w.LOADERS["onnxruntime"] = loader
w.main()
"""


def one(**options: Any) -> Measurement:
    return bench(GOOD, runtimes=["onnxruntime"], seconds=0.01, rounds=2, **options).rows[0]


@pytest.fixture(scope="module")
def measured() -> Benchmark:
    return bench(
        [GOOD], runtimes=["torch", "onnxruntime", "openvino", "reference"], seconds=0.02, threads=(1,), batch=2
    )


def test_every_candidate_is_measured_or_has_its_reason(measured: Benchmark) -> None:
    assert [row.runtime for row in measured.rows] == ["torch", "onnxruntime", "openvino", "reference"]
    assert "no torch module" in measured.rows[0].error
    for row in measured.rows[1:]:
        assert row.error == "" and row.version
        assert row.input == (2, 3, 8, 8)
        assert row.runs >= 3 * measure.RUNS and len(row.round_medians_ms) == 3
        assert row.p10_ms is not None and row.median_ms is not None and row.p90_ms is not None
        assert 0 < row.p10_ms <= row.median_ms <= row.p90_ms
        assert min(row.round_medians_ms) <= row.median_ms <= max(row.round_medians_ms)
        assert row.images_per_second == pytest.approx(2 / row.median_ms * 1e3)
        assert row.import_ms and row.load_ms and row.first_ms
        assert row.peak_bytes and 1 << 20 < row.peak_bytes < 1 << 30
        assert row.growth_bytes is not None and 0 <= row.growth_bytes < row.peak_bytes


def test_the_table_fits_a_terminal_and_names_what_is_missing(measured: Benchmark) -> None:
    text = measured.text()
    assert max(map(len, text.splitlines())) <= 100
    assert "not measured: torch: a model file has no torch module" in text
    assert "input 2x3x8x8" in text and "median ms" in text and "images/s" in text


def test_json_is_plain_and_describes_the_machine(measured: Benchmark) -> None:
    assert measured.exit_code == 0
    plain = json.loads(json.dumps(measured.to_json()))
    assert plain["machine"]["cpu"] and plain["rounds"] == 3
    assert {"median_ms", "p10_ms", "p90_ms", "images_per_second", "load_ms", "peak_bytes", "error"} <= set(
        plain["rows"][1]
    )


def test_the_plot_shows_units_and_candidates(measured: Benchmark, tmp_path: Path) -> None:
    measured.plot(tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    assert "milliseconds per call of 2 images" in text and "openvino, 1 thread" in text
    row = next(row for row in measured.rows if row.runtime == "openvino" and row.median_ms is not None)
    assert milliseconds(row.median_ms) in text


def test_a_plot_needs_a_bar_and_a_known_kind_of_file(measured: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'\.gif'; allowed: \.svg"):
        measured.plot(tmp_path / "plot.gif")
    nothing = Benchmark((Measurement("x", "torch", 1, 1, error="why"),), measured.machine, 1, 1.0, None)
    with pytest.raises(InputError, match="no candidate"):
        nothing.plot(tmp_path / "plot.svg")
    assert list(tmp_path.iterdir()) == []


def test_every_runtime_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == set(RUNTIMES) and len(set(COLOURS.values())) == len(COLOURS)


def test_what_a_runtime_refuses_is_a_row() -> None:
    result = bench(MODELS / "08_unknown_operator.onnx", seconds=0.01, runtimes=["onnxruntime", "reference"])
    assert all("(rule 8)" in row.error for row in result.rows)
    assert result.exit_code == 1
    assert "not measured: reference" in result.text()


def test_a_reason_is_told_once_and_wrapped(measured: Benchmark) -> None:
    rows = tuple(Measurement("x", "openvino", threads, 1, error="a long reason " * 12) for threads in (1, 2))
    lines = Benchmark(rows, measured.machine, 1, 1.0, None).text().splitlines()
    assert max(map(len, lines)) <= 100
    assert sum("not measured" in line for line in lines) == 1


def test_a_package_that_is_not_installed_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "openvino", RUNTIMES["openvino"]._replace(package="no-such-package"))
    row = bench(GOOD, runtimes=["openvino"], seconds=0.01).rows[0]
    assert row.error == 'no-such-package is not installed; pip install "gossamer[openvino]"'


def test_a_crash_is_a_row_with_its_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    worker(monkeypatch, fake("os.kill(os.getpid(), 9)"))
    assert one().error == "its process ended by signal SIGKILL"


def test_an_exit_without_a_result_is_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    worker(monkeypatch, fake("os._exit(0)"))
    assert one().error == "its process ended with exit code 0"


def test_a_crash_between_rounds_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    worker(monkeypatch, "w.Worker.measure = lambda *_: os._exit(3)\n" + fake("pass"))
    row = one()
    assert row.error == "its process ended with exit code 3" and row.median_ms is None


def test_last_words_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    worker(monkeypatch, "sys.exit('libfast.so: cannot open')")
    assert one().error == "its process ended with exit code 1: libfast.so: cannot open"


def test_an_exception_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    worker(monkeypatch, fake("raise KeyError('odd\\nlayer')"))
    assert one().error == "KeyError: 'odd\\nlayer'"


def test_a_hang_is_a_row_and_its_process_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    worker(monkeypatch, fake("time.sleep(600)"))
    monkeypatch.setattr(measure, "PATIENCE", 1.5)
    assert one().error == "no reply within 1.5 seconds"


def ended(process: int, patience: float = 10.0) -> bool:
    """Whether a process is gone, or ended and only waits for init to ask for it; a signal takes a moment."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            if ") Z " in Path(f"/proc/{process}/stat").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_processes_end_with_their_children(monkeypatch: pytest.MonkeyPatch) -> None:
    worker(monkeypatch, "import subprocess\nprint(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)")
    with Process(1) as started:
        child = int(started.replies.get(timeout=30))
    assert ended(child)


def test_what_a_library_prints_does_not_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    worker(monkeypatch, fake("print('hello'); os.write(1, b'from C')"))
    assert one().error == ""


def test_memory_is_that_of_the_candidate_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = bytearray(400 << 20)
    ours[::4096] = b"x" * len(ours[::4096])
    worker(monkeypatch, fake("global kept; kept = np.ones(8 << 20)"))
    row = one()
    assert row.growth_bytes is not None and row.peak_bytes is not None
    assert 64 << 20 <= row.growth_bytes < 80 << 20
    assert row.peak_bytes < 300 << 20


def test_the_fastest_way_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = "{'slow': lambda: (lambda x: time.sleep(0.02)), 'fast': lambda: (lambda x: time.sleep(0.001))}"
    worker(monkeypatch, fake(f"return {ways}, (3, 2, 2), '1.0'"))
    row = one()
    assert row.note == "fast" and row.median_ms is not None and row.median_ms < 15


def test_threads_are_set_before_libraries_load(monkeypatch: pytest.MonkeyPatch) -> None:
    worker(monkeypatch, fake("raise ValueError(os.environ['OMP_NUM_THREADS'], job['threads'])"))
    result = bench(GOOD, runtimes=["onnxruntime"], threads=(1, 3), seconds=0.01)
    assert [row.error for row in result.rows] == ["ValueError: ('1', 1)", "ValueError: ('3', 3)"]


class Turns:
    """Stands for a process and notes whose turn it was."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def ask(self, request: dict[str, Any], patience: float) -> dict[str, Any]:
        self.log.append(self.name)
        if self.name == "b" and len(self.log) > 4:
            raise Failed("b has ended")
        return {"times_ns": [1_000_000, 3_000_000], "peak_bytes": 5, "growth_bytes": 2}

    def close(self) -> None:
        self.log.append(f"closed {self.name}")


def test_rounds_take_turns_and_go_on_without_one_that_fails() -> None:
    log: list[str] = []
    candidates = [measure._Candidate(Measurement(name, "torch", 1, 4), {}, Turns(name, log)) for name in "abc"]  # type: ignore[arg-type]
    for candidate in candidates:
        candidate.opened = {"input": [1, 2], "inputs": []}
    measure._measure(candidates, 0.0, 3, measure.SILENT)
    assert log == ["a", "b", "c", "c", "b", "closed b", "a", "a", "c"]
    assert [c.finished().error for c in candidates] == ["", "b has ended", ""]
    row = candidates[0].finished()
    assert (row.median_ms, row.images_per_second, row.runs) == (2.0, 2000.0, 6)
    assert row.round_medians_ms == (2.0, 2.0, 2.0)


def test_one_process_exports_what_has_no_file_and_another_goes_on_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []

    class Exporting:
        def __init__(self, threads: int) -> None:
            log.append(f"started with {threads}")

        def ask(self, request: dict[str, Any], patience: float) -> dict[str, Any]:
            log.append(f"{request['do']} {request['target']} {request['out']}")
            if request["target"] == "b":
                raise Failed("its process ended by signal SIGKILL")
            return {}

        def close(self) -> None:
            log.append("closed")

    monkeypatch.setattr(measure, "Process", Exporting)
    with measure._Exports(3) as exports:
        assert log == []  # nothing starts where all targets are files
        assert [exports.write(name, "network", Path(f"{name}.onnx")) for name in "xabc"] == [
            "", "", "export: its process ended by signal SIGKILL", "",
        ]  # fmt: skip
    exports.close()
    assert log == [
        "started with 3", "export x x.onnx", "export a a.onnx", "export b b.onnx", "closed",
        "started with 3", "export c c.onnx", "closed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"targets": "mobilnet_v2"}, UnknownNameError),
        ({"targets": "absent.onnx"}, InputError),
        ({"targets": MODELS}, InputError),
        ({"targets": GOOD, "runtimes": ["onnxruntme"]}, UnknownNameError),
        ({"targets": GOOD, "threads": (0,)}, SettingsError),
        ({"targets": GOOD, "threads": ()}, SettingsError),
        ({"targets": GOOD, "batch": 0}, SettingsError),
        ({"targets": GOOD, "rounds": 0}, SettingsError),
    ],
)
def test_bad_arguments_get_one_clear_line(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        bench(**arguments)
    assert "\n" not in str(caught.value)


def test_a_network_is_measured_with_fresh_weights() -> None:
    (row,) = bench("squeezenet1_1", runtimes=["torch"], seconds=0.02, rounds=1).rows
    assert row.error == "" and row.input == (1, 3, 224, 224)
    assert row.note.startswith("eager, channels_")


@pytest.mark.full
def test_a_run_is_measured_in_torch_and_exported_for_the_others(image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    gossamer("train", image_folder, "--out", out, *RECIPE, "--epochs", "1")
    result = bench(out, runtimes=["torch", "onnxruntime"], batch=4, seconds=0.02, rounds=1)
    assert [row.error for row in result.rows] == ["", ""]
    assert [row.input for row in result.rows] == [(4, 3, 32, 32)] * 2
    assert sorted(path.suffix for path in out.iterdir() if path.suffix == ".onnx") == []


def test_the_parent_imports_no_torch() -> None:
    code = (
        "import sys; from gossamer.bench import bench\n"
        f"bench({str(GOOD)!r}, runtimes=['reference'], seconds=0.01, rounds=1)\n"
        "assert not {'torch', 'onnxruntime', 'openvino', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_call_of_seconds_is_written_without_an_exponent(tmp_path: Path) -> None:
    row = Measurement("x", "reference", 1, 1, median_ms=1234.5, p10_ms=1200.0, p90_ms=1300.0)
    Benchmark((row,), {"cpu": "a processor", "cores": 1}, 3, 1.0, None).plot(tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert milliseconds(1234.5) in drawn and "e+0" not in drawn

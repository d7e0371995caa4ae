"""How fast a model runs here, in every runtime that is installed: each candidate in a process of its own.

All candidates are opened first and then measured in rounds, in turn, so that a machine that slows down or is shared
slows all of them; while one runs, the others wait for input. A call takes a float32 numpy array and returns one, as an
application's would. Each runtime computes in float32 with the number of threads requested.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.bench.files import ALL, own_file, own_kind
from gossamer.bench.process import Failed, Process
from gossamer.bench.result import Benchmark, Measurement
from gossamer.bench.table import ALIASES, DEFAULT, RUNTIMES
from gossamer.errors import SettingsError, UnknownNameError
from gossamer.host import machine
from gossamer.host.progress import SILENT, Progress
from gossamer.modelfile.metadata import read_model_file
from gossamer.runtime.table import missing, runtimes_of
from gossamer.targets import FILES, KINDS, ResolvedTarget, TargetKind, target_of

PATIENCE = 900.0  # seconds that a candidate may take for one reply; torch.compile needs minutes on a slow machine
LONGEST = 600.0  # seconds of a round; well below PATIENCE
MADE_FOR_EACH: tuple[TargetKind, ...] = ("run", "network")  # exported for the runtimes of model files
RUNS = 10  # runs a round at least, however slow


@dataclass
class _Candidate:
    """A candidate under way: its process, its reply on opening, its times so far."""

    row: Measurement
    job: dict[str, Any]
    process: Process | None = None
    opened: dict[str, Any] = field(default_factory=dict)
    rounds: list[list[int]] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)

    def fail(self, reason: str) -> None:
        self.row = dataclasses.replace(self.row, error=reason)
        if self.process is not None:
            self.process.close()
            self.process = None

    def finished(self) -> Measurement:
        if self.row.error:
            return self.row
        times = np.concatenate([np.asarray(r, np.float64) for r in self.rounds]) / 1e6
        median, p10, p90 = (float(value) for value in np.percentile(times, (50, 10, 90)))
        return dataclasses.replace(
            self.row,
            **self.opened | {"input": tuple(self.opened["input"]), "inputs": tuple(map(tuple, self.opened["inputs"]))},
            **self.memory,
            runs=len(times),
            median_ms=median,
            p10_ms=p10,
            p90_ms=p90,
            round_medians_ms=tuple(float(np.median(r)) / 1e6 for r in self.rounds),
            images_per_second=self.row.batch / median * 1e3,
        )


def bench(
    targets: str | Path | Sequence[str | Path],
    *,
    runtimes: Sequence[str] | None = None,
    threads: Sequence[int] = (1,),
    batch: int = 1,
    seconds: float = 1.0,
    rounds: int = 3,
    progress: Progress = SILENT,
) -> Benchmark:
    """Measure model files (.onnx), run folders or networks by name; nothing else should run meanwhile.

    runtimes: names in `RUNTIMES`; default all but the reference; ["all"] are these too, each with the file made for it (a
    compiled one, .tflite and the like), whose outputs are compared with the model file's before. threads: each of these numbers is a candidate of its
    own. batch: images per call. seconds: for each candidate in each of the rounds. A network by its name has fresh
    weights, 3 x 224 x 224 inputs and 1000 classes. Runs and networks are exported to ONNX for the runtimes that take it.

    Raises UnknownNameError, InputError, SettingsError.
    """
    own_files = list(runtimes or ()) == [ALL]
    runtimes = [] if own_files else [ALIASES.get(name, name) for name in runtimes or ()]
    for name in runtimes:
        if name not in RUNTIMES:
            raise UnknownNameError("runtime", name, RUNTIMES)
    _check_numbers(threads, batch, seconds, rounds)
    names = [targets] if isinstance(targets, (str, Path)) else list(targets)
    kinds = {str(name): _target(str(name)).kind for name in names}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory(prefix="gossamer-bench-") as folder, contextlib.ExitStack() as processes:
        candidates = []
        exports = processes.enter_context(_Exports(max(threads)))
        for number, (target, kind) in enumerate(kinds.items()):
            chosen = list(runtimes or (DEFAULT if kind in (*MADE_FOR_EACH, "model file") else runtimes_of(kind)))
            exported = Path(folder) / f"{number}.onnx"
            problem = ""
            if kind in MADE_FOR_EACH and any(kind not in RUNTIMES[name].targets for name in chosen):
                progress.say(f"exporting {target}")
                problem = exports.write(target, kind, exported)
            for name in chosen:
                of_runtime = [_candidate(target, kind, name, count, batch, exported, problem) for count in threads]
                candidates += of_runtime
                if own_files and not of_runtime[0].row.error and of_runtime[0].job["kind"] == "model file":
                    progress.say(f"making the file for {name}")
                    _make(of_runtime, own_file(Path(folder), number, name))
        exports.close()
        for candidate in progress.track(candidates, len(candidates), "opening: runtime"):
            if not candidate.row.error:
                _open(candidate, seconds, processes)
        _measure(candidates, seconds, rounds, progress)
    rows = tuple(candidate.finished() for candidate in candidates)
    return Benchmark(rows, machine.describe_machine(), rounds, seconds, load)


def _check_numbers(threads: Sequence[int], batch: int, seconds: float, rounds: int) -> None:
    """Raises SettingsError."""
    if not threads or any(isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 4096 for n in threads):
        raise SettingsError(f"threads {list(threads)}", "numbers from 1 to 4096", "give such numbers")
    for name, value in (("batch", batch), ("rounds", rounds)):
        if value < 1:
            raise SettingsError(f"{name} {value}", "1 or more", "give such a number")
    if not 0 <= seconds <= LONGEST:
        raise SettingsError(f"{seconds:g} seconds a round", f"0 to {LONGEST:g}", "give such a number")


def _target(text: str) -> ResolvedTarget:
    """Raises InputError, UnknownNameError, ModelFileError."""
    target = target_of(text, ("run", *FILES, "network"))
    if target.kind == "model file":
        read_model_file(
            text, several_inputs=True
        )  # a file that breaks a rule is refused here, once, not by every runtime in turn
    return target


def _candidate(
    target: str, kind: TargetKind, runtime: str, threads: int, batch: int, exported: Path, problem: str
) -> _Candidate:
    """A candidate ready to open, or one that cannot be, with the reason."""
    entry = RUNTIMES[runtime]
    row = Measurement(target, runtime, threads, batch)
    if reason := missing(entry):
        row = dataclasses.replace(row, error=reason)
    elif kind in FILES and kind != "model file" and kind not in entry.targets:
        what = "a compiled network" if kind == "compiled file" else KINDS[kind]
        able = ", ".join(runtimes_of(kind))
        row = dataclasses.replace(row, error=f"{what} runs with {able} alone; give the ONNX file")
    elif kind == "model file" and kind not in entry.targets:
        row = dataclasses.replace(row, error="a model file has no torch module; give its run folder instead")
    elif kind not in entry.targets:
        row = dataclasses.replace(row, error=problem)
        target, kind = str(exported), "model file"
    job = {"runtime": runtime, "target": target, "kind": kind, "threads": threads, "batch": batch}
    return _Candidate(row, job)


class _Exports:
    """Writes ONNX files of runs and networks in one process, as importing what that needs takes seconds; it starts with the
    first file, and anew after a failure."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.process: Process | None = None

    def __enter__(self) -> _Exports:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, target: str, kind: TargetKind, out: Path) -> str:
        """Write the file; returns why that failed, or ""."""
        self.process = self.process or Process(self.threads)
        try:
            self.process.ask({"do": "export", "target": target, "kind": kind, "out": str(out)}, PATIENCE)
        except Failed as error:
            self.close()
            return f"export: {error}"
        return ""

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.close()
            self.process = None


def _make(candidates: list[_Candidate], out: Path) -> None:
    """Make the file for the runtime of these candidates, which then measure it."""
    job = candidates[0].job
    with Process(max(candidate.row.threads for candidate in candidates)) as process:
        try:
            made = process.ask({**job, "do": "make", "out": str(out)}, PATIENCE)
        except Failed as error:
            for candidate in candidates:
                candidate.fail(f"its file: {error}")
            return
    kind = own_kind(job["runtime"])
    for candidate in candidates:
        candidate.row = dataclasses.replace(candidate.row, **made)
        if kind != "model file":
            candidate.job |= {"target": str(out), "kind": kind}


def _open(candidate: _Candidate, seconds: float, processes: contextlib.ExitStack) -> None:
    candidate.process = processes.enter_context(Process(candidate.row.threads))
    try:
        candidate.opened = candidate.process.ask(
            {"do": "open", "seconds": seconds, "runs": RUNS, **candidate.job}, PATIENCE
        )
    except Failed as error:
        candidate.fail(str(error))


def _measure(candidates: list[_Candidate], seconds: float, rounds: int, progress: Progress) -> None:
    """Each candidate once a round; every other round in reverse, so that none always follows the same one."""
    turns = [c for number in range(rounds) for c in (candidates if number % 2 == 0 else reversed(candidates))]
    turns = [candidate for candidate in turns if not candidate.row.error]
    for candidate in progress.track(turns, len(turns), "measuring: turn"):
        if candidate.process is None:
            continue
        try:
            reply = candidate.process.ask({"do": "measure", "seconds": seconds, "runs": RUNS}, PATIENCE)
        except Failed as error:
            candidate.fail(str(error))
            continue
        candidate.rounds.append(reply.pop("times_ns"))
        candidate.memory = reply

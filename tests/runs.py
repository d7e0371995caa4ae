"""Running gossamer as a user does, and what the tests compare of a run."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from safetensors.numpy import load_file

# Small enough for seconds, with every stateful part switched on: momentum, averaging, mixing, dropout.
RECIPE = (
    "--net mobilenet_v2 --width 0.25 --input 32 --epochs 3 --batch 8 --lr 0.05 --drop-rate 0.2 --mixup 0.2 --ema 0.9 "
    "--deterministic --threads 1 --workers 0"
).split()


ENGINE = Path(__file__).resolve().parents[1] / "engine"
# of the engine, for any processor
SOURCES = sorted(path.stem for path in (ENGINE / "src").glob("*.cpp") if not path.stem.startswith(("avx", "neon")))
EMULATED_AMX = (
    "emulated amx"  # no ISA, but a library whose portable one computes layers in AMX tiles, emulated by loops
)


@functools.cache
def library_with_emulated_amx() -> Path:
    """Built once for all processes of the tests; skips where there is no compiler."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    flags = "-std=c++17 -O2 -fno-math-errno -fPIC -shared -pthread -DGOSSAMER_AMX_EMULATED -DGOSSAMER_PORTABLE_ONLY"
    sources = [str(ENGINE / "src" / f"{name}.cpp") for name in SOURCES]

    def build(folder: Path) -> None:
        subprocess.run([compiler, *flags.split(), *sources, "-o", str(folder / "library.so")], check=True)

    from tests.conftest import FACTORIES, once  # here: the tests of the mutations have no conftest

    return once(FACTORIES[0], "library with emulated amx", build) / "library.so"


# The flags by which Linux tells that a processor has an ISA; other ISAs are everywhere, or are not told of.
AVX512 = {"avx2", "fma", "avx512f", "avx512vl", "avx512dq", "avx512bw"}
CPU_FLAGS = {
    "avx2": {"avx2", "fma"},
    "avx512": AVX512,
    "avx512_vnni": {*AVX512, "avx512_vnni"},
    "avx512_bf16": {*AVX512, "avx512_vnni", "avx512_bf16"},
    "amx": {*AVX512, "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"},
}


@functools.cache
def flags() -> set[str]:
    """What the system says of this processor; nothing where it does not say."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}
    return set()


def skip_without(isa: str, error: str) -> None:
    """Skip where the engine refused an ISA that this machine lacks; fail where the machine has it."""
    if isa != "portable" and "instruction set" in error:
        has = isa == "reference" or (isa in CPU_FLAGS and CPU_FLAGS[isa] <= flags())
        assert not has, f"the engine refuses {isa}, which this machine has: {error}"
        pytest.skip(f"this machine has no {isa}")


def with_isa(isa: str, code: str, *arguments: str | Path) -> str:
    """Run Python code in a process whose engine is forced to an ISA; its output. Skips where the machine lacks it."""
    if isa == EMULATED_AMX:
        change = f"from pathlib import Path\nfrom gossamer.runtime import native\nnative.LIBRARY = Path({str(library_with_emulated_amx())!r})\n"
        isa, code = "portable", change + code
    line = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "GOSSAMER_ISA": isa})
    skip_without(isa, done.stderr)
    assert done.returncode == 0, done.stderr
    return done.stdout


def installed_runtimes() -> list[str]:
    """The runtimes that development installs, and ExecuTorch and the native engine where they are there."""
    from gossamer.runtime.table import RUNTIMES, missing  # here: the tests of the mutations have a package of their own

    names = [name for name, entry in RUNTIMES.items() if not missing(entry)]
    assert set(RUNTIMES) - {*names} <= {"executorch", "native"}
    return names


def command(*arguments: str | Path) -> list[str]:
    """The command line of `gossamer ...`."""
    return [sys.executable, "-m", "gossamer", *map(str, arguments)]


class Started:
    """A command that `Commands.start` has begun."""

    def __init__(self, line: list[str], number: int, replies: IO[str], out: Path, error: Path) -> None:
        self.line, self.number, self.out, self.error = line, number, out, error
        self.status = ""
        self.waiting = threading.Thread(target=self._read, args=(replies,), daemon=True)
        self.waiting.start()

    def _read(self, replies: IO[str]) -> None:
        with contextlib.suppress(ValueError):  # closed: the test was interrupted
            self.status = replies.readline()

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self.waiting.is_alive()

    def kill(self) -> None:
        """End it and its workers by SIGKILL."""
        if self.runs():
            for kill in (os.killpg, os.kill):  # at its first moment it has no group yet
                with contextlib.suppress(ProcessLookupError):
                    kill(self.number, signal.SIGKILL)
                    break
        self.waiting.join()

    def wait(self, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        """Its exit code and what it wrote. Raises `subprocess.TimeoutExpired`; it goes on then."""
        self.waiting.join(timeout)
        if self.runs():
            raise subprocess.TimeoutExpired(self.line, timeout, self.out.read_bytes(), self.error.read_bytes())
        return subprocess.CompletedProcess(self.line, int(self.status), self.out.read_text(), self.error.read_text())


class Commands:
    """Commands of this process, each forked from one that has imported torch: see tests/server.py."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        atexit.register(self.close)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        line = [sys.executable, str(Path(__file__).with_name("server.py"))]
        environment = {"OMP_NUM_THREADS": "1", **os.environ}  # where one process runs the tests nothing else says so
        return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def start(self, words: Sequence[str | Path], cwd: Path | None = None) -> Started:
        """Begin `python -m gossamer WORDS`; the one before must have ended."""
        out, error = self.folder / "stdout", self.folder / "stderr"
        order = {
            "words": list(map(str, words)),
            "cwd": str(Path(cwd or ".").resolve()),
            "environment": dict(os.environ),
            "stdout": str(out),
            "stderr": str(error),
        }
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return Started(command(*words), int(self.process.stdout.readline()), self.process.stdout, out, error)

    def run(self, words: Sequence[str], cwd: Path | None, timeout: float) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` gives of `python -m gossamer WORDS`, and `subprocess.TimeoutExpired` as it raises it."""
        started = self.start(words, cwd)
        try:
            return started.wait(timeout)
        except BaseException as error:
            started.kill()
            if not isinstance(error, subprocess.TimeoutExpired):  # the test is interrupted: no command outlives it
                self.close()
                commands.cache_clear()
            raise

    def close(self) -> None:
        """End the process that forks."""
        self.process.kill()
        self.process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def commands() -> Commands:
    """Those of this process, whose server starts with the first command."""
    return Commands()


def gossamer(
    *arguments: str | Path, cwd: Path | None = None, code: int = 0, timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    """Run `gossamer ...` to its end in a process that is forked from one with torch; its exit code must be `code`."""
    return _checked(commands().run([str(word) for word in arguments], cwd, timeout), code)


def gossamer_alone(
    *arguments: str | Path, cwd: Path | None = None, code: int = 0, timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    """The same as a user does it, with an interpreter of its own."""
    line = command(*arguments)
    return _checked(subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=timeout), code)


def _checked(done: subprocess.CompletedProcess[str], code: int) -> subprocess.CompletedProcess[str]:
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def torchrun(processes: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `gossamer ...` under torchrun."""
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
        "-m",
        "gossamer",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *map(str, arguments)], capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def weights(run: Path, which: str = "last") -> dict[str, np.ndarray]:
    """The tensors of a run's state."""
    return dict(load_file(run / f"{which}.safetensors"))


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Whether two states hold the same bits."""
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)

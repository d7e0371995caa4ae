"""Running gossamer as a user does, and what the tests compare of a run."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

# Small enough for seconds, with every stateful part switched on: momentum, averaging, mixing, dropout.
RECIPE = (
    "--net mobilenet_v2 --width 0.25 --input 32 --epochs 3 --batch 8 --lr 0.05 --drop-rate 0.2 --mixup 0.2 --ema 0.9 "
    "--deterministic --threads 1 --workers 0"
).split()


ENGINE = Path(__file__).resolve().parents[1] / "engine"
SOURCES = (
    "model",
    "pack",
    "plan",
    "session",
    "portable",
    "reference",
)  # of the engine, without levels of any processor
BLOCKS = "blocks"  # no level, but a library whose portable one takes layers as AMX does, by loops


@functools.cache
def library_of_blocks() -> Path:
    """Built once a process; skips where there is no compiler."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    flags = "-std=c++17 -O2 -fno-math-errno -fPIC -shared -pthread -DGOSSAMER_BLOCKS -DGOSSAMER_PORTABLE_ONLY"
    sources = [str(ENGINE / "src" / f"{name}.cpp") for name in SOURCES]
    subprocess.run([compiler, *flags.split(), *sources, "-o", str(folder / "library.so")], check=True)
    return folder / "library.so"


def at_level(level: str, code: str, *arguments: str | Path) -> None:
    """Run Python code in a process whose engine is forced to a level; skips where the machine lacks it."""
    if level == BLOCKS:
        change = f"from pathlib import Path\nfrom gossamer.runtime import native\nnative.LIBRARY = Path({str(library_of_blocks())!r})\n"
        level, code = "portable", change + code
    line = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "GOSSAMER_ISA": level})
    if level != "portable" and "instruction set" in done.stderr:
        pytest.skip(f"this machine has no {level}")
    assert done.returncode == 0, done.stderr


def command(*arguments: str | Path) -> list[str]:
    """The command line of `gossamer ...`."""
    return [sys.executable, "-m", "gossamer", *map(str, arguments)]


def gossamer(*arguments: str | Path, cwd: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `gossamer ...` to its end; its exit code must be `code`."""
    done = subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=280)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


# Each command in a process of its own, as a user's is; but torch, whose import takes seconds, comes with the fork.
ONE_BY_ONE = """
import json, os, sys
import torch, torch.onnx, onnx, onnxscript
for words in json.loads(sys.argv[1]):
    print("$ gossamer", *words, flush=True)
    child = os.fork()
    if not child:
        from gossamer.cli.main import main
        sys.exit(main(words))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        sys.exit(f"exit {code} of gossamer {' '.join(words)}")
"""


def one_by_one(commands: Sequence[Sequence[str]], cwd: Path, timeout: float) -> None:
    """Run `gossamer ...` for the words of each command, to its end; the exit codes must be 0."""
    work = [sys.executable, "-c", ONE_BY_ONE, json.dumps(commands)]
    done = subprocess.run(work, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


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

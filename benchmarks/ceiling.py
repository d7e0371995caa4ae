"""The measured ceiling of this machine: multiply-adds per second from registers alone, by type and number of threads."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("ceiling.cpp")


def ceiling(threads: Sequence[int]) -> dict[str, dict[str, float]]:
    """{"fp32", "bf16", "int8": {threads, as JSON has it: MACs/s}}; a type without an instruction of its own is left out.

    Empty on other processors than x86-64, and without a C++ compiler (CXX, default c++).
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or platform.machine().lower() not in ("x86_64", "amd64"):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "ceiling"
        flags = ("-std=c++17", "-O2", "-pthread")
        subprocess.run([compiler, *flags, str(SOURCE), "-o", str(program)], check=True)
        output = subprocess.run([str(program), *map(str, threads)], check=True, capture_output=True, text=True).stdout
    rates: dict[str, dict[str, float]] = json.loads(output)
    return rates


def highest(*measurements: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The greatest rate of several measurements: another program may have held one of them down."""
    most: dict[str, dict[str, float]] = {}
    for measurement in measurements:
        for kind, rates in measurement.items():
            kept = most.setdefault(kind, {})
            kept.update({count: max(rate, kept.get(count, 0.0)) for count, rate in rates.items()})
    return most

"""How fast models run on this machine, in every runtime that is installed."""

from __future__ import annotations

from gossamer.bench.measure import RUNTIMES, bench
from gossamer.bench.result import Benchmark, Row

__all__ = ["RUNTIMES", "Benchmark", "Row", "bench"]

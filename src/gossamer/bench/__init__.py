"""How fast models run on this machine, in every runtime that is installed."""

from __future__ import annotations

from gossamer.bench.measure import bench
from gossamer.bench.result import Benchmark, Measurement
from gossamer.bench.table import RUNTIMES

__all__ = ["RUNTIMES", "Benchmark", "Measurement", "bench"]

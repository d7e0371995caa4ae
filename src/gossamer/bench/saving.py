"""A benchmark saved in the run folders that it measured, whose reports show it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gossamer.bench.result import Benchmark
from gossamer.host.storage import write_text
from gossamer.host.strict_json import dumps
from gossamer.run import BENCH
from gossamer.targets import target_of


def save_in_runs(result: Benchmark, targets: Iterable[str | Path]) -> None:
    """Write `result` into each target that is a run folder. Raises StorageError."""
    for target in targets:
        if target_of(target).kind == "run":
            write_text(Path(target) / BENCH, dumps(result.to_json(), indent=1))

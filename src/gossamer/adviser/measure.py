"""What a proposed change is worth here: both networks with fresh weights, timed in turn in processes of their own."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gossamer.adviser.rule import Finding, Gain
from gossamer.adviser.subject import Subject
from gossamer.analysis.cost import Cost, cost
from gossamer.bench.measure import bench
from gossamer.bench.result import Measurement
from gossamer.errors import GossamerError, MissingPackageError
from gossamer.host.progress import Progress
from gossamer.host.storage import write_bytes
from gossamer.runtime.table import RUNTIMES, missing

RUNTIME_ORDER = ("native", "onnxruntime")
SECONDS, ROUNDS = 0.3, 5  # of each network in each round
NO_NETWORK = "the target is not a network that can be built again with an argument"


class Built(NamedTuple):
    """A network as a file, with its cost."""

    path: Path
    cost: Cost


def with_gains(subject: Subject, findings: Sequence[Finding], threads: int, progress: Progress) -> list[Finding]:
    """The findings, those whose change is an argument of the network with what it gained, or why that is not known.

    Raises InputError where the network itself cannot be exported, MissingPackageError without a runtime.
    """
    changes = {_key(finding): finding.change for finding in findings if finding.change.network}
    if not changes:
        return list(findings)
    if not subject.network:
        return [dataclasses.replace(one, not_measured=NO_NETWORK) if one.change.network else one for one in findings]
    problems: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="gossamer-review-") as folder:
        shape = subject.cost.input_shape
        progress.say(f"exporting {subject.network}")
        base = _build(subject.network, subject.arguments, shape, Path(folder) / "before.onnx")
        built: dict[str, Built] = {}
        for number, (key, change) in enumerate(changes.items()):
            progress.say(f"exporting {change.network}: {change.text}")
            try:
                built[key] = _build(change.network, change.arguments, shape, Path(folder) / f"{number}.onnx")
            except GossamerError as error:
                problems[key] = str(error)
        rows, runtime = _times([base.path, *(one.path for one in built.values())], threads, progress)
        gains: dict[str, Gain] = {}
        for key, after in built.items():
            row = rows[str(after.path)]
            if row.error:
                problems[key] = row.error
            else:
                gains[key] = _gain(base, after, rows[str(base.path)], row, runtime, threads)
    return [
        dataclasses.replace(one, gain=gains.get(_key(one)), not_measured=problems.get(_key(one), ""))
        for one in findings
    ]


def _key(finding: Finding) -> str:
    """Findings that propose the same network are measured once."""
    change = finding.change
    return f"{change.network} {sorted(change.arguments.items())}" if change.network else ""


def _build(network: str, arguments: dict[str, Any], shape: tuple[int, ...], path: Path) -> Built:
    from gossamer.export.traced import onnx_to_time
    from gossamer.networks import create_model

    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(0)
        model = create_model(network, **{"in_chans": shape[1], **arguments}).eval()
    write_bytes(path, onnx_to_time(model, (shape[2], shape[3]), shape[1]))
    return Built(path, cost(model, shape))


def _times(paths: Sequence[Path], threads: int, progress: Progress) -> tuple[dict[str, Measurement], str]:
    """The times of files, by path, in the first runtime that is here and runs the first of them."""
    reasons = []
    for runtime in RUNTIME_ORDER:
        reason = missing(RUNTIMES[runtime])
        if not reason:
            result = bench(
                paths, runtimes=[runtime], threads=[threads], seconds=SECONDS, rounds=ROUNDS, progress=progress
            )
            rows = {row.target: row for row in result.rows}
            reason = rows[str(paths[0])].error
            if not reason:
                return rows, f"{runtime} {rows[str(paths[0])].version or ''}".strip()
        reasons.append(f"{runtime}: {reason}")
    raise MissingPackageError("onnxruntime", "onnxruntime", f"review --measure ({'; '.join(reasons)})")


def _gain(before: Built, after: Built, first: Measurement, second: Measurement, runtime: str, threads: int) -> Gain:
    times = [first.median_ms, second.median_ms, first.p10_ms, first.p90_ms, second.p10_ms, second.p90_ms]
    a, b, a_low, a_high, b_low, b_high = (float(value or 0.0) for value in times)
    return Gain(
        runtime=runtime,
        threads=threads,
        ms=(a, b),
        spread=((a_low, a_high), (b_low, b_high)),
        bytes=(before.path.stat().st_size, after.path.stat().st_size),
        macs=(before.cost.macs, after.cost.macs),
        memory_bytes=(before.cost.peak_bytes, after.cost.peak_bytes),
    )

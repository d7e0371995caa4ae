"""The native engine beside its baselines: Python call to Python call, each in a process of its own, in turn.

    python benchmarks/engine.py [NETWORK ...] [--precisions fp32,bf16,int8] [--baselines onnxruntime,..] [--threads 1,2]
                                [--batches 1,8] [--seconds 1] [--rounds 5] [--json FILE]

Every baseline that is installed takes part in each precision that it has (`baselines.py`), and its outputs are compared with
those in float32. A ratio is the fastest baseline's time over ours: above 1 we are faster. Nothing else should run meanwhile.
`python benchmarks/table.py FILE...` prints what --json wrote, which it does after every network.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from baselines import BASELINES
from ceiling import ceiling, highest
from forms import OF_ONE_BATCH
from gossamer.bench.process import Failed, Process
from gossamer.host import machine
from gossamer.host.storage import write_text
from gossamer.networks import resolve
from table import text

Json = dict[str, Any]
NETWORKS = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "shufflenet_v1",
    "shufflenet_v2_x1_0",
    "sqnxt23_w1",
    "squeezenet1_1",
    "resnet18",
    "resnet50",
    "inception_v3",
)
PRECISIONS = ("fp32", "bf16", "int8")
COMMAND = [sys.executable, str(Path(__file__).with_name("baselines.py"))]
PATIENCE = 900.0  # seconds for one reply; torch.compile needs minutes on a slow machine
WRONG = 1e-2  # of the spread of the outputs in float32; Winograd's transforms cost some digits, but not that many
RUNS = 3  # calls a round at least, however slow


def main() -> None:
    """Measure network after network; print the tables. Raises UnknownNameError before anything is measured."""
    options = _options()
    for network in options.networks:
        resolve(network)
    result: Json = {
        "machine": {**machine.describe_machine(), "packages": _versions()},
        "ceiling": {},
        "seconds": options.seconds,
        "rounds": options.rounds,
        "rows": [],
    }
    for network in options.networks:
        result["ceiling"] = highest(result["ceiling"], ceiling(options.threads))
        with tempfile.TemporaryDirectory(prefix="gossamer-engine-") as folder:
            forms = Forms(Path(folder), network)
            for batch in options.batches:
                for threads in options.threads:
                    result["rows"] += measure(forms, threads, batch, options)
                    print(f"{network}: {threads} threads, batch {batch}", file=sys.stderr, flush=True)
        if options.json:
            write_text(options.json, json.dumps(result, indent=1))
    print(text(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--precisions", type=_names(PRECISIONS), default=PRECISIONS)
    parser.add_argument(
        "--baselines", type=_names(BASELINES), default=tuple(BASELINES), help="beside native; default all"
    )
    parser.add_argument("--threads", type=_numbers, default=(1, 2))
    parser.add_argument("--batches", type=_numbers, default=(1, 8))
    parser.add_argument("--seconds", type=float, default=1.0, help="of each candidate in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def _numbers(words: str) -> tuple[int, ...]:
    return tuple(map(int, words.split(",")))


def _names(allowed: Any) -> Callable[[str], tuple[str, ...]]:
    def names(words: str) -> tuple[str, ...]:
        for word in words.split(","):
            if word not in allowed:
                raise argparse.ArgumentTypeError(f"{word}: not one of {', '.join(allowed)}")
        return tuple(words.split(","))

    return names


def _versions() -> dict[str, str | None]:
    return machine.versions(dict.fromkeys(package for baseline in BASELINES.values() for package in baseline.packages))


class Forms:
    """The files of one network, each written on first use, and the reasons of those that cannot be written."""

    def __init__(self, folder: Path, network: str) -> None:
        """Raises gossamer.bench.process.Failed where there is no such network."""
        self.folder, self.network = folder, network
        self.problems: dict[tuple[str, int], str] = {}
        self.facts = self._ask("weights", 1)

    def problem(self, form: str, batch: int) -> str:
        """Make a form and what it is made from; "", or why there is none."""
        key = form, batch if form in OF_ONE_BATCH else 0
        if form == "weights":
            return ""
        if key not in self.problems:
            first = {"qdq": "onnx", "mnn": "onnx", "litert_int8": "litert"}.get(form)
            self.problems[key] = self.problem(first, batch) if first else ""
            if not self.problems[key]:
                try:
                    self._ask(form, batch)
                except Failed as error:
                    self.problems[key] = f"{form}: {error}"
        return self.problems[key]

    def _ask(self, form: str, batch: int) -> Json:
        job = {"do": "make", "form": form, "folder": str(self.folder), "network": self.network, "batch": batch}
        with Process(1, COMMAND) as process:
            return process.ask(job, PATIENCE)


class Candidate:
    """A runtime under way: its row of the result, its process where it takes part, the nanoseconds of its rounds."""

    def __init__(self, row: Json, process: Process | None) -> None:
        self.row, self.process = row, process
        self.rounds: list[list[int]] = []

    def ask(self, **request: Any) -> Json:
        """The reply, empty from the moment that something went wrong, which becomes the row's problem."""
        if self.process is None or self.row["problem"]:
            return {}
        try:
            return self.process.ask(request, PATIENCE)
        except Failed as error:
            self.row["problem"] = str(error)
            return {}

    def open(self, folder: Path, seconds: float) -> None:
        """Load the network, warm up, and compare its outputs."""
        job = {name: self.row[name] for name in ("runtime", "network", "precision", "threads", "batch")}
        self.row |= self.ask(do="open", target=str(folder), kind="model file", seconds=seconds, runs=RUNS, **job)
        self.row |= self.ask(do="check")
        if self.row["precision"] == "fp32" and self.row.get("difference", 0) > WRONG:
            self.row["problem"] = f"other outputs: they differ by {self.row['difference']:.1%}"

    def round(self, seconds: float) -> None:
        """One turn."""
        reply = self.ask(do="measure", seconds=seconds, runs=RUNS)
        if reply:
            self.rounds.append(reply["times_ns"])
            self.row["peak_bytes"] = reply["peak_bytes"]

    def finished(self) -> Json:
        """The row, with milliseconds per call."""
        if self.rounds and not self.row["problem"]:
            times = np.concatenate(self.rounds) / 1e6
            self.row |= dict(zip(("median_ms", "p10_ms", "p90_ms"), np.percentile(times, (50, 10, 90)).tolist()))
            self.row |= {"round_medians_ms": [float(np.median(one)) / 1e6 for one in self.rounds], "runs": len(times)}
        return self.row


def measure(forms: Forms, threads: int, batch: int, options: argparse.Namespace) -> list[Json]:
    """A row for each precision and runtime, all of them measured in the same rounds."""
    with contextlib.ExitStack() as processes:
        candidates = []
        for precision in options.precisions:
            for name in dict.fromkeys(("native", *options.baselines)):
                row = {"network": forms.network, "precision": precision, "runtime": name, "threads": threads}
                row |= {"batch": batch, "macs": forms.facts["macs"] * batch}
                row |= {"problem": _problem(forms, name, precision, batch)}
                process = None if row["problem"] else processes.enter_context(Process(threads, COMMAND))
                candidates.append(Candidate(row, process))
                candidates[-1].open(forms.folder, options.seconds)
        for number in range(options.rounds):
            for candidate in candidates if number % 2 == 0 else reversed(candidates):
                candidate.round(options.seconds)
        return [candidate.finished() for candidate in candidates]


def _problem(forms: Forms, name: str, precision: str, batch: int) -> str:
    """Why a runtime takes no part, or ""."""
    baseline = BASELINES[name]
    if precision not in baseline.forms:
        return baseline.lacks[precision]
    missing = [package for package, version in machine.versions(baseline.packages).items() if version is None]
    return f"{', '.join(missing)}: not installed" if missing else forms.problem(baseline.forms[precision], batch)


if __name__ == "__main__":
    main()

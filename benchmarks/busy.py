"""How much slower a run gets when another process wants every core: the native engine beside its baselines.

    python benchmarks/busy.py [NETWORK] [--threads 2] [--seconds 3] [--rounds 3]

Each runtime in a process of its own, in turn, quiet and then with one process a core that does nothing but count. A fair
fraction of the machine is half: about 2 is what a busy machine must cost, more is threads that wait for each other.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gossamer.bench.process import Process
from gossamer.host.machine import usable_cores

RUNTIMES = ("native", "onnxruntime", "openvino")
PATIENCE = 300.0  # seconds


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes that count without end."""
    counting = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in counting:
            one.kill()
            one.wait()


def main() -> None:
    """Print one Markdown row a runtime: milliseconds per call, median (90 %), quiet and busy, and the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network", nargs="?", default="mobilenet_v2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    times: dict[tuple[str, bool], list[int]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = str(Path(folder) / "network.onnx")
        with Process(options.threads) as exporter:
            exporter.ask({"do": "export", "target": options.network, "kind": "network", "out": path}, PATIENCE)
        job = {"target": path, "kind": "model file", "threads": options.threads, "batch": 1}
        amount = {"seconds": options.seconds, "runs": 10}
        opened = {}
        for runtime in RUNTIMES:
            opened[runtime] = stack.enter_context(Process(options.threads))
            opened[runtime].ask({"do": "open", "runtime": runtime, **job, **amount}, PATIENCE)
        for _ in range(options.rounds):
            for busy in (False, True):
                for runtime, process in opened.items():
                    with load(usable_cores() if busy else 0):
                        reply = process.ask({"do": "measure", **amount}, PATIENCE)
                    times.setdefault((runtime, busy), []).extend(reply["times_ns"])
    print("| runtime | quiet | busy | busy / quiet, median | 90 % |")
    print("|---|---|---|---|---|")
    for runtime in RUNTIMES:
        quiet, busy_ = (_spread(times[runtime, busy]) for busy in (False, True))
        cells = ["{:.2f} ({:.2f})".format(*row) for row in (quiet, busy_)]
        print(f"| {runtime} | {cells[0]} | {cells[1]} | {busy_[0] / quiet[0]:.2f} | {busy_[1] / quiet[1]:.2f} |")


def _spread(times: list[int]) -> tuple[float, float]:
    """Median and 90 % point, milliseconds."""
    return statistics.median(times) / 1e6, statistics.quantiles(times, n=10)[-1] / 1e6


if __name__ == "__main__":
    main()

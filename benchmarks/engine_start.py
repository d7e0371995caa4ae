"""What the engine costs before it earns: size, time to the first output, and memory, each in a fresh process.

    python benchmarks/engine_start.py [NETWORK] [--threads 1] [--rounds 5]

Import and load + first inference in milliseconds (median of the rounds), the most memory that a process ever had which
imports gossamer and runs the network once, and the size of the library and of the compiled file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from gossamer.bench.process import Process
from gossamer.compile.write import compile_file
from gossamer.runtime.native import LIBRARY

ONCE = """
import json, sys, time
start = time.perf_counter()
import numpy as np
import gossamer
imported = time.perf_counter()
model = gossamer.load(sys.argv[1], runtime="native", threads=int(sys.argv[2]))
image = np.zeros((1, *model.input_shape[1:]), np.float32)
loaded = time.perf_counter()
model.run(image)
done = time.perf_counter()
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps({"import": (imported - start) * 1e3, "load + first": (done - imported) * 1e3, "peak": peak / 1024}))
"""


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network", nargs="?", default="mobilenet_v2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "network.onnx"
        with Process(options.threads) as exporter:
            exporter.ask({"do": "export", "target": options.network, "kind": "network", "out": str(onnx)}, 300)
        compiled = compile_file(onnx, Path(folder) / "network.goss")
        command = [sys.executable, "-c", ONCE, str(compiled), str(options.threads)]
        rows = [json.loads(subprocess.check_output(command)) for _ in range(options.rounds)]
        print(f"| {options.network}, {options.threads} threads | |\n|---|---:|")
        for name, unit in (("import", "ms"), ("load + first", "ms"), ("peak", "MB")):
            print(f"| {name} | {statistics.median(row[name] for row in rows):.1f} {unit} |")
        print(f"| library | {LIBRARY.stat().st_size / 1e6:.2f} MB |")
        print(f"| compiled file | {compiled.stat().st_size / 1e6:.2f} MB |")


if __name__ == "__main__":
    main()

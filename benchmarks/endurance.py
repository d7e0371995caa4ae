"""A million runs of a tiny network in one process: memory and speed at every tenth part.

    python benchmarks/endurance.py [FILE] [--runs 1000000] [--threads 2]

FILE is a compiled network; without one, 0.25 MobileNetV1 at 32 x 32 is compiled. Memory that supports_progressive, or runs that get
slower, are defects.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gossamer.runtime.native import Native

PARTS = 10


def resident_kb() -> int:
    """Memory of this process now, KiB. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def make_tiny(path: Path) -> None:
    """A compiled network of a few hundred thousand multiply-adds."""
    from gossamer.compile.write import compile_file
    from gossamer.export.convert import to_onnx
    from gossamer.networks import create_model

    onnx = path.with_suffix(".onnx")
    onnx.write_bytes(to_onnx(create_model("mobilenetv1_025", num_classes=10).eval(), (32, 32)))
    compile_file(onnx, path)


def main() -> None:
    """Run and print a line a part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", nargs="?")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(options.file or Path(folder) / "tiny.goss")
        if options.file is None:  # in another process, so that torch's memory is not this one's
            maker = multiprocessing.get_context("spawn").Process(target=make_tiny, args=(path,))
            maker.start()
            maker.join()
        endure(path, options.runs, options.threads)


def endure(path: Path, runs: int, threads: int) -> None:
    """`runs` runs of a compiled file."""
    engine = Native(path, threads)
    image = np.random.default_rng(0).standard_normal((1, *engine.input_shape[1:])).astype(np.float32)
    expected = engine(image)
    print(f"| runs | memory, KiB | microseconds per run ({engine.isa}, {threads} threads) |\n|---:|---:|---:|")
    print(f"| 1 | {resident_kb()} | |", flush=True)
    for part in range(1, PARTS + 1):
        start, each = time.perf_counter(), runs // PARTS
        for _ in range(each):
            engine(image)
        spent = (time.perf_counter() - start) / each * 1e6
        print(f"| {part * each} | {resident_kb()} | {spent:.1f} |", flush=True)
    if not np.array_equal(engine(image), expected):
        sys.exit("the last output differs from the first")


if __name__ == "__main__":
    main()

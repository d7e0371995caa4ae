"""Largest difference of ONNX files on other runtimes, each with the file written for it, beside ONNX Runtime.

    python benchmarks/exactness.py FILE.onnx ... --runtimes ncnn,openvino,litert

Two inputs of noise; the difference is relative to the largest output where that is above 1. Free sides of an input are 64.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from gossamer import runtime
from gossamer.errors import GossamerError
from gossamer.predictions.head import flattened

FREE = 64  # pixels, where a file leaves a side open


def difference(file: str, name: str) -> str:
    """The difference, or the reason for which there is none."""
    try:
        expected, written = (runtime.load(file, runtime=one, threads=1) for one in ("onnxruntime", name))
        sides = [side if isinstance(side, int) else FREE for side in expected.input_shape[1:]]
        batch = np.random.default_rng(1).standard_normal((2, *sides)).astype(np.float32)
        wanted, outputs = (
            np.stack([flattened(model.run(one[None]))[0] for one in batch]) for model in (expected, written)
        )
    except GossamerError as error:
        return str(error).removeprefix(f"{file}: ")[:120]
    return f"{np.abs(outputs - wanted).max() / max(1.0, float(np.abs(wanted).max())):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--runtimes", default="ncnn,openvino,litert")
    options = parser.parse_args()
    names = options.runtimes.split(",")
    print(f"| file | {' | '.join(names)} |")
    print("|---|" + "---:|" * len(names))
    for file in options.files:
        print(f"| {Path(file).stem} | {' | '.join(difference(file, name) for name in names)} |", flush=True)


if __name__ == "__main__":
    main()

"""Do ONNX files that gossamer did not write compile, and do they give ONNX Runtime's answers?

    python benchmarks/onnx_files.py --folder FILES                      # makes what is missing there, then compiles all
    python benchmarks/onnx_files.py --folder FILES --only 'torch*' --again
    python benchmarks/onnx_files.py --folder FILES --keras VENV/bin/python --paddle VENV/bin/python --table

`onnx_makers.py` says which files are made: networks of torchvision and timm by both exporters of torch, the Caffe2 files that the
onnx package brings, networks of Keras and PaddlePaddle by tf2onnx and paddle2onnx in environments of their own. Files of any
other origin are put into FILES by hand, in a folder named for their origin.

Each file is compiled and run in a process of its own, on normally distributed numbers. Outcomes: `equal` (each output within 1e-4
of ONNX Runtime's, relative to its largest number,
or to 1e-3 where that is less, or no further from it than ONNX Runtime with its graph optimisations is), `refused` (with the message), `WRONG` (anything else). The exit status is 1
where one is WRONG. MACs are those of the file and of the operations that the engine runs.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from gossamer.compile.fuse import fuse
from gossamer.compile.input_size import set_static_input_size
from gossamer.compile.lower import lower
from gossamer.compile.write import compile_bytes
from gossamer.errors import GossamerError
from gossamer.host.storage import write_text
from gossamer.modelfile.metadata import read_model_file
from gossamer.runtime.native import Native
from onnx_makers import MAKERS

Json = dict[str, Any]
TOLERANCE, LEAST = 1e-4, 1e-3
SECONDS = 300  # for one file
RESULTS = "results.json"


def check(path: Path, size: tuple[int, int] | None) -> Json:
    """Compile one file and compare. Runs in a process of its own."""
    model = onnx.load(path, load_external_data=False)
    facts: Json = {
        "opset": max(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")),
        "producer": model.producer_name,
        "nodes": len(model.graph.node),
    }
    try:
        file = read_model_file(path, several_inputs=True)
        if size is not None:
            file = set_static_input_size(file, size)
        before = lower(file.graph)
        facts["macs_of_file"], facts["macs"] = macs(before), macs(fuse(before))
        compiled = compile_bytes(file)[0]
    except GossamerError as error:
        return {**facts, "outcome": "refused", "why": str(error)}
    random, x = np.random.default_rng(0), {}
    for given in file.onnx.inputs:
        sides = [side if isinstance(side, int) and side > 0 else 2 for side in given.shape or ()]
        x[given.name] = random.standard_normal(sides).astype(np.float32)
    expected = run_runtime(path, x, optimised=False)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "m.goss"
        out.write_bytes(compiled)
        outputs: Any = Native(out, 1).run_inputs(x)
    outputs = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
    error, allowed = largest_difference(outputs, expected), TOLERANCE
    if error > TOLERANCE:  # as where all probabilities are near 0, and a sigmoid is exact to 1e-7
        facts["of_runtime_itself"] = largest_difference(run_runtime(path, x, optimised=True), expected)
        allowed = max(allowed, facts["of_runtime_itself"])
    facts |= {"error": error, "outcome": "equal" if error <= allowed else "WRONG"}
    facts["why"] = "" if facts["outcome"] == "equal" else f"largest difference {error:.3g}"
    return facts


def run_runtime(path: Path, x: Json, optimised: bool) -> list[Any]:
    """The outputs of ONNX Runtime, with all of its graph optimisations or none."""
    options, levels = onnxruntime.SessionOptions(), onnxruntime.GraphOptimizationLevel
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, x))


def largest_difference(outputs: list[Any], expected: list[Any]) -> float:
    """Relative to the largest number of each output; 1e9 for another shape."""
    return max(
        float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), LEAST)) if ours.shape == theirs.shape else 1e9
        for ours, theirs in zip(outputs, expected, strict=True)
    )


def macs(program: Any) -> int:
    """Multiply-adds of the layers of a program, in millions."""
    count = 0
    for operation in program.operations:
        before, out = program.values[operation.input], program.values[operation.out]
        if operation.kind in ("conv", "block"):
            for place, layer in enumerate(operation.weights):
                positions = before.h * before.w if operation.kind == "block" and place == 0 else out.h * out.w
                count += positions * layer.weight.size if layer is not None else 0
    return round(count / 1e6)


def _send(path: Path, size: tuple[int, int] | None, end: Connection) -> None:
    end.send(check(path, size))


def check_apart(path: Path, size: tuple[int, int] | None) -> Json:
    """As `check`, in a process of its own, so that a crash is a result as well."""
    context = multiprocessing.get_context("fork")  # what it imports is imported once
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(path, size, sender))
    process.start()
    sender.close()
    try:
        result: Json = receiver.recv() if receiver.poll(SECONDS) else {"why": f"not done in {SECONDS} s"}
    except EOFError:
        result = {}
    if not result or "outcome" not in result:
        process.kill()
    process.join()
    return {"outcome": "WRONG", "why": f"exit {process.exitcode}", **result}


def make(names: list[str], folder: Path, python: str) -> None:
    """Write files of one origin, in one process."""
    if names:
        subprocess.run([python, str(Path(__file__).with_name("onnx_makers.py")), str(folder), *names], check=False)


def found(folder: Path) -> Iterable[tuple[str, Path]]:
    """All files of the folder by their place in it."""
    return ((str(path.relative_to(folder).with_suffix("")), path) for path in sorted(folder.rglob("*.onnx")))


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """Input sizes of files that leave them open, from sizes.json: {"origin/name": [height, width]}."""
    path = folder / "sizes.json"
    return {name: (h, w) for name, (h, w) in json.loads(path.read_text()).items()} if path.is_file() else {}


def table(results: dict[str, Json]) -> str:
    """Markdown."""
    lines = ["| file | exporter | opset | outcome | largest relative difference, or why |", "|---|---|---|---|---|"]
    for name, one in sorted(results.items()):
        detail = f"{one['error']:.1e}" if "error" in one else one.get("why", "").replace("|", "\\|")
        if "of_runtime_itself" in one:
            detail += f" (ONNX Runtime, optimised: {one['of_runtime_itself']:.1e})"
        origin = {"": "by hand"}.get(one.get("producer", ""), one.get("producer", ""))
        lines.append(f"| {name} | {origin} | {one.get('opset', '')} | {one['outcome']} | {detail} |")
    counts = {kind: sum(one["outcome"] == kind for one in results.values()) for kind in ("equal", "refused", "WRONG")}
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return "\n".join([*lines, "", f"{len(results)} files: {summary}."])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", default="*", help="names, as torch/resnet18-11, with * and commas")
    parser.add_argument("--again", action="store_true", help="also what has a result")
    parser.add_argument("--table", action="store_true", help="write what is there as Markdown, and no more")
    parser.add_argument("--keras", default="", help="a Python that has tensorflow and tf2onnx")
    parser.add_argument("--paddle", default="", help="a Python that has paddlepaddle and paddle2onnx")
    arguments = parser.parse_args()
    path = arguments.folder / RESULTS
    results: dict[str, Json] = json.loads(path.read_text()) if path.is_file() else {}
    if not arguments.table:
        patterns = arguments.only.split(",")
        interpreters = {"": sys.executable, "keras": arguments.keras, "paddle": arguments.paddle}
        missing: dict[str, list[str]] = {}
        for maker in MAKERS:
            wanted = any(fnmatch.fnmatch(maker.name, one) for one in patterns)
            if wanted and not (arguments.folder / f"{maker.name}.onnx").is_file():
                missing.setdefault(maker.needs, []).append(maker.name)
        for needs, names in missing.items():
            if python := interpreters.get(needs, ""):
                make(names, arguments.folder, python)
            else:
                print(f"not made without --{needs}: {', '.join(names)}", flush=True)
        known = sizes(arguments.folder)
        for name, file in found(arguments.folder):
            if not any(fnmatch.fnmatch(name, one) for one in patterns) or (name in results and not arguments.again):
                continue
            results[name] = check_apart(file, known.get(name))
            write_text(path, json.dumps(results, indent=1))
            one = results[name]
            print(f"{one['outcome']:8}  {name}  {one.get('error', one.get('why', ''))}", flush=True)
    print(table(results))
    return int(any(one["outcome"] == "WRONG" for one in results.values()))


if __name__ == "__main__":
    sys.exit(main())

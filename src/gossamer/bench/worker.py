"""One candidate of the benchmark in a process of its own: `python -m gossamer.bench.worker`.

Reads JSON lines from standard input and replies to each with one JSON line on standard output:

    {"do": "export", "target": .., "kind": .., "out": path}     -> {}
    {"do": "make", "runtime": .., "target": .., "out": path}    -> {"file_bytes", "difference"}
    {"do": "open", "runtime": .., "target": .., "kind": .., "threads": n, "batch": n, "seconds": s, "runs": n}
                                          -> {"version", "note", "input", "inputs", "import_ms", "load_ms", "first_ms"}
    {"do": "measure", "seconds": s, "runs": n}  -> {"times_ns": [..], "peak_bytes", "growth_bytes"}

The reply to a failure is {"error": one line}. `kind` is one of `gossamer.targets.KINDS`.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.bench.files import make_file
from gossamer.errors import GossamerError, InputError
from gossamer.predictions.head import Raw, outputs_of
from gossamer.runtime.interface import Batch, Shape, noise

Forward = Callable[[Any], Raw]  # of a Batch
Json = dict[str, Any]
SIZE = (224, 224)  # input of a network without a run or file, pixels
REWARM = 2  # runs at the start of each round that do not count: another process had the caches


class Worker:
    """Holds what `open` loaded between the requests."""

    def __init__(self) -> None:
        self.forward: Forward | None = None
        self.batch: Batch = np.empty(0, np.float32)
        self.before: int | None = None  # bytes in memory before the model was loaded

    def reply(self, job: Json) -> Json:
        """The reply to one request."""
        replies: dict[str, Callable[[Json], Json]] = {
            "export": write_graph,
            "make": make_file,
            "open": self.open,
            "measure": self.measure,
        }
        return replies[job["do"]](job)

    def open(self, job: Json) -> Json:
        """Import the runtime, load the model, run it until it is warm."""
        started = time.perf_counter()
        load = LOADERS.get(job["runtime"], _model_file)(job)
        imported = time.perf_counter()
        self.before = peak_bytes()
        ways, shape, version = load()
        note, make = next(iter(ways.items()))
        self.forward = make()
        loaded = time.perf_counter()
        self.batch = noise(shape if isinstance(shape, dict) else {"": (None, *shape)}, job["batch"], (3, *SIZE))
        first = time.perf_counter()
        self.forward(self.batch)
        done = time.perf_counter()
        if len(ways) > 1:
            medians = {}
            for note, make in ways.items():
                self.forward = make()
                medians[note] = statistics.median(self._times(0, 2 * REWARM)[REWARM:])
            note = min(medians, key=lambda tried: medians[tried])
            self.forward = ways[note]()
        self._times(job["seconds"] / 2, max(3, job["runs"] // 2))
        return {
            "version": version,
            "note": note,
            **_shapes(self.batch),
            "import_ms": (imported - started) * 1e3,
            "load_ms": (loaded - imported) * 1e3,
            "first_ms": (done - first) * 1e3,
        }

    def measure(self, job: Json) -> Json:
        """Nanoseconds of each run of one round, and the memory of this process until now."""
        times = self._times(job["seconds"], job["runs"] + REWARM)[REWARM:]
        peak = peak_bytes()
        # Linux counts pages in batches: the most may read some pages below what it was
        growth = None if peak is None or self.before is None else max(0, peak - self.before)
        return {"times_ns": times, "peak_bytes": peak, "growth_bytes": growth}

    def _times(self, seconds: float, runs: int) -> list[int]:
        assert self.forward is not None, "open comes first"
        times: list[int] = []
        gc.collect()
        gc.disable()  # no collection inside a measured call
        end = time.perf_counter_ns() + int(seconds * 1e9)
        while len(times) < runs or time.perf_counter_ns() < end:
            start = time.perf_counter_ns()
            self.forward(self.batch)
            times.append(time.perf_counter_ns() - start)
        gc.enable()
        return times


def _shapes(batch: Batch) -> Json:
    """The shape of the only input, or those of several."""
    if isinstance(batch, Mapping):
        return {"input": [], "inputs": [list(array.shape) for array in batch.values()]}
    return {"input": list(batch.shape), "inputs": []}


# A loader imports the runtime and returns what loads the model: the ways to run it (the fastest is measured), by what
# their properties, the input shape (C, H, W), or shapes with their batch by name, and the runtime's version.
Ways = dict[str, Callable[[], Forward]]
Loaded = tuple[Ways, tuple[int, int, int] | dict[str, Shape], str]


def _torch(job: Json) -> Callable[[], Loaded]:
    import torch

    def load() -> Loaded:
        torch.set_num_threads(job["threads"])
        model, shape, _ = _module(job)

        def laid_out(layout: torch.memory_format) -> Forward:
            model.to(memory_format=layout)

            def forward(images: NDArray[np.float32]) -> Raw:
                with torch.inference_mode():
                    return _arrays(model(torch.from_numpy(images).to(memory_format=layout)))

            return forward

        layouts = {"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}
        ways: Ways = {f"eager, {name}": partial(laid_out, layout) for name, layout in layouts.items()}
        return ways, shape, str(torch.__version__)

    return load


def _torch_compile(job: Json) -> Callable[[], Loaded]:
    import torch
    import torch._inductor.config as inductor

    inductor.freezing = True  # weights are constants: its best setting for inference

    def load() -> Loaded:
        torch.set_num_threads(job["threads"])
        model, shape, _ = _module(job)
        compiled: Any = torch.compile(model)

        def forward(images: NDArray[np.float32]) -> Raw:
            with torch.no_grad():
                return _arrays(compiled(torch.from_numpy(images)))

        return {"inductor, weights frozen": lambda: forward}, shape, str(torch.__version__)

    return load


def _arrays(outputs: Any) -> Raw:
    """Tensors as arrays, by name where there are several."""
    if isinstance(outputs, dict):
        return {name: value.numpy() for name, value in outputs.items()}
    result: NDArray[np.float32] = outputs.numpy()
    return result


def _module(job: Json) -> tuple[Any, tuple[int, int, int], tuple[str, ...]]:
    """The module in eval mode, its input shape (C, H, W), and the names of its outputs."""
    import torch

    if job["kind"] == "run":
        from gossamer.training.restore import load_run

        run = load_run(job["target"])
        return run.model, (run.preprocess.channels, *run.preprocess.size), outputs_of(run.task.heads())
    from gossamer.networks import create_model

    torch.manual_seed(0)
    return create_model(job["target"]).eval(), (3, *SIZE), ("logits",)


def _model_file(job: Json) -> Callable[[], Loaded]:
    from gossamer.modelfile.compiled import is_compiled
    from gossamer.runtime import load as load_model
    from gossamer.runtime.table import runtime_class

    runtime_class(job["runtime"]).import_package()  # its time counts as import

    def load() -> Loaded:
        target = job["target"]
        if job["runtime"] == "native" and not is_compiled(target):
            from gossamer.compile.write import compile_file

            with tempfile.TemporaryDirectory() as folder:  # the engine keeps the file mapped
                compiled = compile_file(target, Path(folder) / "network.goss")
                model = load_model(compiled, runtime="native", threads=job["threads"])
        else:
            model = load_model(target, runtime=job["runtime"], threads=job["threads"])
        if len(model.input_shapes) > 1:
            return {"": lambda: model.run}, model.input_shapes, model.runtime_version
        if len(model.input_shape) != 4:
            raise InputError(f"{model.path}: an input of {len(model.input_shape)} axes", "(N, C, H, W)", "give another")
        size = model.metadata.preprocess.size if model.metadata else SIZE
        if model.pixels:
            known = model.need_metadata().preprocess
            shape = (job["batch"], *known.size, known.channels)
            images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            note = "uint8 images" + (f"; {model.remark}" if model.remark else "")
            return {note: lambda: lambda _: model.run(images)}, (known.channels, *known.size), model.runtime_version
        channels, height, width = (
            side if isinstance(side, int) else usual for side, usual in zip(model.input_shape[1:], (3, *size))
        )
        return {model.remark: lambda: model.run}, (channels, height, width), model.runtime_version

    return load


# those that are not in `gossamer.runtime.table`
LOADERS: dict[str, Callable[[Json], Callable[[], Loaded]]] = {
    "torch": _torch,
    "torch.compile": _torch_compile,
}


def write_graph(job: Json) -> Json:
    """Write the ONNX graph of a run, as it is exported, or of a network of fresh weights, as is done in a second, to `out`."""
    from gossamer.export.convert import to_onnx
    from gossamer.export.traced import onnx_to_time
    from gossamer.host.storage import write_bytes

    model, (channels, height, width), outputs = _module(job)
    convert = to_onnx if job["kind"] == "run" else onnx_to_time
    write_bytes(job["out"], convert(model, (height, width), channels, outputs))
    return {}


def peak_bytes() -> int | None:
    """Most bytes this process ever had in memory, None where the system does not say.

    Linux keeps in ru_maxrss what the parent had when it started this process, so its own account goes first.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:  # another system
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def main(kind: type[Worker] = Worker) -> None:
    """Prediction requests until standard input ends. Whatever a library prints goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        worker = kind()
        for line in sys.stdin:
            try:
                reply = worker.reply(json.loads(line))
            except GossamerError as error:
                reply = {"error": str(error)}
            except Exception as error:  # whatever a runtime raises becomes the reason in the table
                reply = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
            replies.write(json.dumps(reply) + "\n")
            replies.flush()


if __name__ == "__main__":
    main()

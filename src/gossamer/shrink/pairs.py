"""Two networks timed in turn (A B A B), here: a layer and the layers in its place, or a network before and after.

A round runs each for a few milliseconds and counts its fastest run, as what else the machine does only ever adds. What is
told of a side are the median of its rounds and their quartiles. "Faster" is only what is so beyond the noise: the upper
quartile of one side is below the lower quartile of the other.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gossamer.compile.write import compile_bytes
from gossamer.errors import InputError, MissingPackageError
from gossamer.export.traced import onnx_to_time
from gossamer.host import machine
from gossamer.host.progress import Progress
from gossamer.host.text import significant
from gossamer.modelfile.metadata import parse_model_file
from gossamer.runtime import native
from gossamer.runtime.ort import OnnxRuntime
from gossamer.shrink import times

NAME = "decompositions.json"  # below `host.storage.user_cache`
ENGINE, OTHER = "the native engine", "ONNX Runtime"
ROUNDS, FIRST_ROUNDS = 10, 3  # of a pair; of one that is clearly slower the first are enough
MOST_ROUNDS = 30  # of a pair of which the second is faster, but not beyond the noise
STEADY = 0.25  # of the median: times whose quartiles are further apart are not kept for other calls
ROUND_SECONDS = 0.008
WHOLE_SECONDS = 0.15
LEAST_RUNS = 2


@dataclass(frozen=True)
class Times:
    """Milliseconds of an image over the rounds: median, lower and upper quartile."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{significant(self.median)} ms ({significant(self.low)} to {significant(self.high)})"


@dataclass(frozen=True)
class PairTimes:
    """Before and after."""

    before: Times
    after: Times

    @property
    def faster(self) -> bool:
        """Whether the second is faster beyond the noise."""
        return self.after.high < self.before.low

    @property
    def saved(self) -> float:
        """Milliseconds."""
        return self.before.median - self.after.median


@dataclass
class Clock:
    """What networks are timed in, with what it has measured. runtime: ENGINE or OTHER."""

    runtime: str
    threads: int
    known: dict[str, dict[str, float]]
    notes: list[str] = field(default_factory=list)
    measured: int = 0
    unsteady: dict[str, float] = field(default_factory=dict)  # of this call alone

    @property
    def key(self) -> str:
        return times.machine_key(self.threads) if self.runtime == ENGINE else _key_without_engine(self.threads)

    def pair(self, before: bytes, after: bytes, seconds: float = ROUND_SECONDS) -> PairTimes:
        """The times of two ONNX models of one input, from the cache where they are known.

        Raises InputError or ModelFileError for a model that cannot be run.
        """
        digest = hashlib.sha256(hashlib.sha256(before).digest() + after).hexdigest()[:24]
        entries = self.known.setdefault(self.key, {})
        names = [f"{digest}.{number}" for number in range(6)]
        for times_of in (entries, self.unsteady):
            if all(name in times_of for name in names):
                first = [times_of[name] for name in names]
                break
        else:
            first = [max(1e-9, float(value)) for value in self._measured(before, after, seconds)]
            quiet = all(high - low <= STEADY * median for median, low, high in (first[:3], first[3:]))
            (entries if quiet else self.unsteady).update(zip(names, first, strict=True))
            self.measured += 1
        return PairTimes(Times(*first[:3]), Times(*first[3:]))

    def keep(self) -> None:
        """Write what was measured to the user's cache."""
        line = times.keep_times(self.known, self.key, self.known.get(self.key, {}), NAME)
        if line and line not in self.notes:
            self.notes.append(line)

    def _measured(self, before: bytes, after: bytes, seconds: float) -> list[float]:
        with tempfile.TemporaryDirectory(prefix="gossamer-decompose-") as folder:
            opened = [self._open(data, Path(folder) / str(number)) for number, data in enumerate((before, after))]
            images = np.random.default_rng(0).standard_normal((1, *opened[0][1])).astype(np.float32)
            runs = [one for one, _, _ in opened]
            try:
                rounds = alternating(runs, images, seconds)
            finally:
                for _, _, close in opened:
                    close()
        return [value for side in rounds for value in np.percentile(side, (50, 25, 75)).tolist()]

    def _open(self, data: bytes, path: Path) -> tuple[Callable[[Any], Any], tuple[int, ...], Callable[[], None]]:
        file = parse_model_file(data, "the network")
        if self.runtime == ENGINE:
            path.write_bytes(compile_bytes(file)[0])
            engine = native.Native(path, self.threads)
            return engine, tuple(engine.input_shape[1:]), engine.close
        session = OnnxRuntime(file, self.threads)
        sides = (file.onnx.input.shape or ())[1:]
        assert all(isinstance(side, int) for side in sides), "this package exports fixed sizes"
        return session, tuple(side for side in sides if isinstance(side, int)), lambda: None


def alternating(runs: Sequence[Callable[[Any], Any]], images: Any, seconds: float) -> list[list[float]]:
    """For each function the fastest milliseconds of each round, in turn.

    Of two, fewer rounds where the last is clearly slower, and more where it is faster but not beyond the noise.
    """
    fastest: list[list[float]] = [[] for _ in runs]
    for turn in range(MOST_ROUNDS + 1):
        for number in range(len(runs)) if turn % 2 == 0 else reversed(range(len(runs))):
            best, count, end = np.inf, 0, time.perf_counter() + seconds
            while count < LEAST_RUNS or time.perf_counter() < end:
                start = time.perf_counter()
                runs[number](images)
                best, count = min(best, time.perf_counter() - start), count + 1
            if turn:  # the first one warms up
                fastest[number].append(best * 1e3)
        if turn == FIRST_ROUNDS and min(fastest[-1]) > max(fastest[0]):
            break
        if turn >= ROUNDS:
            low, middle = np.percentile(fastest[0], (25, 50))
            if np.median(fastest[-1]) >= middle or np.percentile(fastest[-1], 75) < low:
                break
    return fastest


def open_clock(threads: int, model: bytes, progress: Progress) -> Clock:
    """The native engine where it is built and runs `model`, else ONNX Runtime. Raises MissingPackageError."""
    known, line = times.read_times(NAME)
    notes = [line] if line else []
    try:
        native.library()
        compile_bytes(parse_model_file(model, "the network"))
        return Clock(ENGINE, threads, known, notes)
    except MissingPackageError:
        reason = "is not built"
    except InputError as error:
        reason = f"cannot run this network ({error.given})"
    try:
        OnnxRuntime.import_package()
    except MissingPackageError as error:
        raise MissingPackageError("onnxruntime", "onnx", "timing without the native engine") from error
    line = f"timed in ONNX Runtime: the native engine {reason}"
    progress.say(line)
    return Clock(OTHER, threads, known, [*notes, line])


def as_onnx(network: nn.Module, size: tuple[int, int], channels: int, outputs: tuple[str, ...]) -> bytes:
    """The network as an ONNX model to be timed. Raises InputError, MissingPackageError."""
    return onnx_to_time(network, size, channels, outputs)


def layer_onnx(parts: Sequence[nn.Module], shape: tuple[int, ...]) -> bytes:
    """Convolutions or fully connected layers one after the other as an ONNX model; their values are random of a fixed seed.

    shape: of the input, (C, H, W), or (C,) before a fully connected layer. Raises MissingPackageError.
    """
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise MissingPackageError("onnx", "onnx", "timing a layer") from error
    draw = np.random.default_rng(0)
    nodes, constants, last = [], [], "input"
    if not isinstance(parts[0], nn.Conv2d):
        nodes.append(helper.make_node("Flatten", [last], ["flat"], axis=1))
        last = "flat"
    for number, part in enumerate(parts):
        weight: Any = part.weight
        shape_of = tuple(weight.shape)
        values = (0.1 * draw.standard_normal(shape_of)).astype(np.float32)
        constants.append(numpy_helper.from_array(values, f"w{number}"))
        constants.append(numpy_helper.from_array(np.zeros(shape_of[0], np.float32), f"b{number}"))
        inputs, out = [last, f"w{number}", f"b{number}"], f"y{number}" if part is not parts[-1] else "output"
        if isinstance(part, nn.Conv2d):
            around: Any = part.padding if not isinstance(part.padding, str) else _same(part)
            nodes.append(
                helper.make_node(
                    "Conv",
                    inputs,
                    [out],
                    kernel_shape=list(part.kernel_size),
                    strides=list(part.stride),
                    dilations=list(part.dilation),
                    pads=[*around, *around],
                    group=part.groups,
                )
            )
        else:
            nodes.append(helper.make_node("Gemm", inputs, [out], transB=1))
        last = out
    kind = TensorProto.FLOAT
    into = helper.make_tensor_value_info("input", kind, ["batch", *(shape if len(shape) == 3 else (*shape, 1, 1))])
    graph = helper.make_graph(nodes, "layer", [into], [helper.make_tensor_value_info("output", kind, None)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    from onnx.shape_inference import infer_shapes

    return bytes(infer_shapes(model).SerializeToString(deterministic=True))


def _same(part: nn.Conv2d) -> tuple[int, int]:
    if part.padding == "valid":
        return (0, 0)
    rows, columns = (d * (k - 1) // 2 for d, k in zip(part.dilation, part.kernel_size, strict=True))
    return rows, columns


def _key_without_engine(threads: int) -> str:
    here = machine.describe_machine()
    version = OnnxRuntime.import_package().__version__
    about = [here["cpu"], here["architecture"], here["isa"], here["cores"], threads, OTHER, version, os.name]
    return hashlib.sha256(repr(about).encode()).hexdigest()[:24]
